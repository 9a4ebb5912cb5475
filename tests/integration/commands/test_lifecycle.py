"""The commands as processes: their start, one line for a failed start, and their end by a signal."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from chronobook import AsyncClient, ConnectionFailed
from chronobook_server.simulator import Simulator
from testkit.harness.waiting import PATIENCE
from testkit.harness.whole_system import free_port, until

COMMAND = Path(sys.executable).with_name("chronobook-server")
STOP_SECONDS = 5.0


@contextlib.asynccontextmanager
async def process(*arguments: str, cwd: Path, **environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run the command around a block; it is killed if the block leaves it running."""
    running = await asyncio.create_subprocess_exec(
        str(COMMAND),
        *arguments,
        cwd=cwd,
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield running
    finally:
        if running.returncode is None:
            running.kill()
            await running.wait()


async def first_line(running: asyncio.subprocess.Process) -> str:
    assert running.stdout is not None
    async with asyncio.timeout(PATIENCE):
        return (await running.stdout.readline()).decode().strip()


async def ended(running: asyncio.subprocess.Process, seconds: float = STOP_SECONDS) -> tuple[int, str]:
    """Return exit code and standard error once the process has ended by itself, within so many seconds."""
    async with asyncio.timeout(seconds):
        _, errors = await running.communicate()
    assert running.returncode is not None
    return running.returncode, errors.decode()


def serve_arguments(simulator: Simulator, port: int) -> list[str]:
    return [
        "serve", "--rest-url", simulator.rest_url, "--stream-url", simulator.stream_url,
        "--listen", f"127.0.0.1:{port}", "--data-dir", "data",
    ]  # fmt: skip


@contextlib.asynccontextmanager
async def simulated(simulator: Simulator) -> AsyncIterator[Simulator]:
    await simulator.start()
    try:
        yield simulator
    finally:
        await simulator.stop()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_server_ends_cleanly_while_it_streams(number: signal.Signals, tmp_path: Path) -> None:
    port = free_port()
    async with simulated(Simulator(seed=1)) as simulator:
        async with process(*serve_arguments(simulator, port), cwd=tmp_path) as running:
            assert await first_line(running) == (
                f"chronobook server: gRPC on 127.0.0.1:{port}, ETHUSDT from {simulator.stream_url}"
            )
            async with AsyncClient(f"127.0.0.1:{port}") as client:
                async with asyncio.timeout(PATIENCE):
                    while not (await client.status()).is_connected:  # noqa: ASYNC110
                        await asyncio.sleep(0.01)
                book = await client.order_book(limit=1)
                kinds: list[tuple[str, str | None]] = []
                async for message in client.watch_level(book.bids[0].price, resume=0):
                    if not kinds:
                        running.send_signal(number)
                    kinds.append((message.kind, message.cause))
                assert kinds[0] == ("STATE", None)
                assert kinds[-1] == ("END", "SHUTDOWN")
            code, errors = await ended(running)
            assert code == 0, errors
            assert "Traceback" not in errors
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700


async def test_a_server_ends_cleanly_while_it_resyncs(tmp_path: Path) -> None:
    port = free_port()
    async with simulated(Simulator(seed=1)) as simulator:
        simulator.rest.refuse_status, simulator.rest.refuse_retry_after = 429, 60
        async with process(*serve_arguments(simulator, port), cwd=tmp_path) as running:
            await first_line(running)
            await until(lambda: simulator.symbols["ETHUSDT"].snapshots_asked)
            running.send_signal(signal.SIGTERM)
            code, errors = await ended(running)
            assert code == 0, errors
            assert "Traceback" not in errors


async def test_a_second_signal_ends_a_server_at_once(tmp_path: Path) -> None:
    port = free_port()
    async with simulated(Simulator(seed=1)) as simulator:
        async with process(*serve_arguments(simulator, port), cwd=tmp_path) as running:
            await first_line(running)
            # A call that never ends keeps the server in its grace period.
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                stub: Any = health_pb2_grpc.HealthStub(channel)
                watch = stub.Watch(health_pb2.HealthCheckRequest())
                while (await watch.read()).status != health_pb2.HealthCheckResponse.SERVING:
                    pass
                running.send_signal(signal.SIGINT)
                await watch.read()  # health has turned: the first signal was taken
                running.send_signal(signal.SIGINT)
                code, _ = await ended(running)
                assert code == 130
                watch.cancel()


async def test_a_port_in_use_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    async with simulated(Simulator(seed=1)) as simulator:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            for arguments in (
                serve_arguments(simulator, port),
                ["gateway", "--listen", f"127.0.0.1:{port}"],
                ["simulate", "--port", str(port)],
            ):
                async with process(*arguments, cwd=tmp_path) as running:
                    code, errors = await ended(running)
                    assert code == 1, errors
                    (line,) = errors.strip().splitlines()
                    assert line.startswith("chronobook-server: ")
                    assert str(port) in line


def envoy_workers(gateway: int) -> int:
    """Return the number of worker threads of the Envoy that a gateway runs."""
    tasks = Path(f"/proc/{gateway}/task").iterdir()
    (envoy,) = [child for task in tasks for child in (task / "children").read_text().split()]
    # A thread that a worker starts has the worker's name at first.
    names = {(task / "comm").read_text() for task in Path(f"/proc/{envoy}/task").iterdir()}
    return sum(name.startswith("wrk:worker_") for name in names)


@pytest.mark.parametrize(("options", "workers"), [((), 2), (("--workers", "1"), 1), (("--workers", "3"), 3)])
async def test_envoy_has_as_many_threads_as_workers(options: tuple[str, ...], workers: int, tmp_path: Path) -> None:
    async with process("gateway", "--listen", f"127.0.0.1:{free_port()}", *options, cwd=tmp_path) as running:
        await first_line(running)
        assert envoy_workers(running.pid) == workers


async def test_an_unreachable_exchange_is_one_line_and_no_exit(tmp_path: Path) -> None:
    port, nobody = free_port(), free_port()
    async with simulated(Simulator(seed=1, port=nobody)) as gone:
        arguments = serve_arguments(gone, port)
    async with process(*arguments, cwd=tmp_path) as running:
        assert running.stderr is not None
        await first_line(running)
        line = (await running.stderr.readline()).decode()
        assert "exchange_unreachable" in line
        assert str(nobody) in line
        async with AsyncClient(f"127.0.0.1:{port}") as client:
            assert (await client.status()).is_connected is False
        # It is there later: the server finds it by itself.
        async with simulated(Simulator(seed=1, port=nobody)), AsyncClient(f"127.0.0.1:{port}") as client:
            async with asyncio.timeout(PATIENCE):
                while not (await client.status()).is_connected:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            running.send_signal(signal.SIGINT)
            code, errors = await ended(running)
            assert code == 0, errors
            assert "Traceback" not in errors
            with pytest.raises(ConnectionFailed):
                await client.status()


async def test_an_unlisted_symbol_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    async with simulated(Simulator(seed=1)) as simulator:
        arguments = [*serve_arguments(simulator, free_port()), "--symbols", "ETHUSDT,NOPEUSDT"]
        async with process(*arguments, cwd=tmp_path) as running:
            code, errors = await ended(running)
    assert (code, errors) == (1, "chronobook-server: the exchange does not list NOPEUSDT\n")


async def test_an_unusable_data_directory_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file, not a directory")
    async with simulated(Simulator(seed=1)) as simulator:
        async with process(*serve_arguments(simulator, free_port()), cwd=tmp_path) as running:
            code, errors = await ended(running)
    assert (code, errors) == (1, "chronobook-server: the data directory data cannot be used: File exists\n")


async def test_the_environment_sets_what_no_option_does(tmp_path: Path) -> None:
    port = free_port()
    async with (
        simulated(Simulator(symbols=("BTCUSDT",), seed=1)) as simulator,
        process(
            "serve",
            cwd=tmp_path,
            CHRONOBOOK_SYMBOLS="btcusdt",
            CHRONOBOOK_REST_URL=simulator.rest_url,
            CHRONOBOOK_STREAM_URL=simulator.stream_url + "/",
            CHRONOBOOK_LISTEN=f"127.0.0.1:{port}",
            CHRONOBOOK_RETENTION="90m",
        ) as running,
        AsyncClient(f"127.0.0.1:{port}") as client,
    ):
        await first_line(running)
        history = await client.history()
        assert (history.symbol, history.retention_seconds) == ("BTCUSDT", 5400)
        running.send_signal(signal.SIGINT)
        assert (await ended(running))[0] == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["serve", "--symbols", ","], "name at least one symbol"),
        (["serve", "--symbols", "../ETC"], "cannot be a symbol"),
        (["serve", "--symbols", "A\x1b[2J"], "cannot be a symbol"),
        (["serve", "--update-speed", "1s"], "'1s' is not one of"),
        (["serve", "--retention", "long"], "'long' is not a duration"),
        (["serve", "--listen", "50051"], "'50051' is not HOST:PORT"),
        (["serve", "--listen", "0.0.0.0:1"], "--insecure to listen without them"),
        (["gateway", "--listen", "0.0.0.0:1"], "--insecure to listen without them"),
        (["gateway", "--listen", "0.0.0.0:1", "--tls-key", __file__], "belong together"),
        (["gateway", "--jwt-keys", __file__], "belong together"),
        (["gateway", "--upstream-ca", __file__], "belong together"),
        (["gateway", "--upstream", "unix:/a,127.0.0.1:1"], "not both at once"),
        (["gateway", "--upstream", "unix:a"], "an absolute path"),
        (["gateway", "--metrics", "0.0.0.0:1"], "--insecure to listen without them"),
        (["serve", "--rest-url", "fapi"], "does not start with http://"),
        (["simulate", "--speed", "0"], "'0' is neither a number above 0 nor max"),
        (["simulate", "--drop", "2"], "not in the range"),
    ],
)
async def test_what_cannot_be_meant_is_said_and_nothing_starts(arguments: list[str], said: str, tmp_path: Path) -> None:
    async with process(*arguments, cwd=tmp_path) as running:
        code, errors = await ended(running, PATIENCE)  # starting takes as long as the machine needs
    assert code in (1, 2)
    assert said in errors
    assert "Traceback" not in errors


async def test_the_demo_shows_answers_stays_up_and_ends_with_0(tmp_path: Path) -> None:
    async with process("demo", cwd=tmp_path) as running:
        assert running.stdout is not None
        lines: list[str] = []
        async with asyncio.timeout(PATIENCE):
            while not lines or not lines[-1].startswith("It goes on until Ctrl+C"):
                lines.append((await running.stdout.readline()).decode())
        text = "".join(lines)
        for call in ("/status'", "/orderbook?limit=2'", "/quantity'", "/nearest-level/", "/history?symbol=BTCUSDT'"):
            assert call in text
        assert '"is_connected":true' in text
        assert '"code"' not in text  # no call was refused
        running.send_signal(signal.SIGINT)
        code, errors = await ended(running)
    assert code == 0, errors
    assert "Traceback" not in errors
