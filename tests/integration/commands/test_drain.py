"""End without cut calls: servers and gateways as processes, under constant load."""

import asyncio
import contextlib
import signal
from collections import Counter
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import grpc

from chronobook import AsyncClient, Kind, LevelMessage
from chronobook.v1 import order_book_service_pb2 as pb
from chronobook.v1.order_book_service_pb2_grpc import OrderBookServiceStub
from chronobook_server.simulator import Simulator
from testkit.harness.command import COMMAND, Command, command, listening
from testkit.harness.running_gateway import until_available
from testkit.harness.waiting import PATIENCE
from testkit.harness.whole_system import free_port, until

WORKERS = 4
PRICE = 2680.0


class Load:
    """Questions without a pause through a gateway, over REST and gRPC, until it is told to end."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.answers: Counter[str] = Counter()
        self.failures: list[str] = []
        self._ended = False

    @property
    def count(self) -> int:
        return sum(self.answers.values())

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Ask around a block."""
        target = self.base.removeprefix("http://")
        async with aiohttp.ClientSession() as http, grpc.aio.insecure_channel(target) as channel:
            stub = OrderBookServiceStub(channel)
            tasks = [asyncio.create_task(self._over_rest(http)) for _ in range(WORKERS)]
            tasks += [asyncio.create_task(self._over_grpc(stub)) for _ in range(WORKERS)]
            tasks += [asyncio.create_task(self._watching(target))]
            yield
            self._ended = True
            await asyncio.gather(*tasks)

    async def goes_on(self, answers: int = 200) -> None:
        """Return once so many more questions were answered."""
        wanted = self.count + answers
        await until(lambda: self.count >= wanted or self.failures)

    async def _over_rest(self, http: aiohttp.ClientSession) -> None:
        questions: list[tuple[str, str, Any]] = [
            ("GET", "/status", None),
            ("GET", "/history", None),
            ("GET", "/orderbook?limit=5", None),
            ("POST", "/quantity", {"price": 2680}),
            ("GET", "/nearest-level/2680", None),
        ]
        while not self._ended:
            for method, path, body in questions:
                try:
                    async with http.request(method, self.base + path, json=body) as reply:
                        text = await reply.text()
                        self._note(path, "" if reply.status == 200 else f"{reply.status} {text}")
                except aiohttp.ClientError as error:
                    self._note(path, repr(error))

    async def _over_grpc(self, stub: Any) -> None:
        while not self._ended:
            try:
                await stub.NearestLevel(pb.NearestLevelRequest(price=2680))
                self._note("NearestLevel", "")
            except grpc.aio.AioRpcError as error:
                self._note("NearestLevel", f"{error.code()} {error.details()}")

    async def _watching(self, target: str) -> None:
        """Follow a level: the messages of both servers must form one chain."""
        async with AsyncClient(target) as client, contextlib.aclosing(client.watch_level(PRICE)) as messages:
            last: LevelMessage | None = None
            async for message in messages:
                if self._ended:
                    break
                if message.kind is Kind.HEARTBEAT:
                    continue
                is_first, is_change = last is None, message.kind is Kind.CHANGE
                fits = message.kind is Kind.STATE if is_first else is_change and _follows(last, message)
                self._note("watch", "" if fits else f"{message} after {last}")
                last = message

    def _note(self, what: str, failure: str) -> None:
        self.answers[what] += 1
        if failure:
            self.failures.append(f"{what}: {failure}")


def _follows(last: LevelMessage | None, message: LevelMessage) -> bool:
    """Return whether a change is the next one: none between them is missing, and none came twice."""
    if last is None or None in (last.quantity, message.quantity, message.change, last.update_id, message.update_id):
        return False
    quantity, before, change = (Decimal(str(each)) for each in (message.quantity, last.quantity, message.change))
    return quantity - before == change and message.update_id > last.update_id  # type: ignore[operator]


@contextlib.asynccontextmanager
async def gateway_process(listen: int, *options: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run the command `gateway` around a block, which begins when servers can be asked through it."""
    process = await asyncio.create_subprocess_exec(
        str(COMMAND), "gateway", "--listen", f"127.0.0.1:{listen}", *options, stdout=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(PATIENCE):
            while True:
                with contextlib.suppress(aiohttp.ClientError):
                    await until_available(f"http://127.0.0.1:{listen}")
                    break
                await asyncio.sleep(0.05)
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def ready(running: Command) -> None:
    """Return once a server says so of itself; its book is in sync then."""
    await listening(running)
    await running.reached(1)


async def asked_through(base: str, running: Command) -> None:
    """Return once a gateway asks a server that was started again; its latest gap tells whose answer it is."""
    gap = (await running.stub.GetHistory(pb.GetHistoryRequest())).gaps[-1].start
    async with aiohttp.ClientSession() as http, asyncio.timeout(PATIENCE):
        while True:
            async with http.get(f"{base}/history") as reply:
                history = await reply.json()
            if any(each["start"] == gap for each in history.get("gaps", ())):
                return


async def test_a_rolling_restart_of_two_servers_fails_no_request(tmp_path: Path) -> None:
    simulator = Simulator(seed=11)
    await simulator.start()
    sockets = [f"unix:{tmp_path}/{name}.sock" for name in "ab"]
    port = free_port()
    load = Load(f"http://127.0.0.1:{port}")
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(simulator.stop)

        async def started(number: int) -> Command:
            folder = tmp_path / f"data-{number}"
            running = await stack.enter_async_context(command(simulator, folder, address=sockets[number]))
            await ready(running)
            return running

        servers = [await started(0), await started(1)]
        await stack.enter_async_context(gateway_process(port, "--upstream", ",".join(sockets)))
        async with load.running():
            await load.goes_on()
            for number in (0, 1):
                servers[number].process.send_signal(signal.SIGTERM)
                code, errors = await servers[number].ended()
                assert code == 0, errors
                await load.goes_on()
                servers[number] = await started(number)
                # Envoy looks for it every quarter of a second; until it was found, it is not there for the gateway.
                await asked_through(load.base, servers[number])
                await load.goes_on()
    assert load.failures == []
    assert load.count > 1000
    assert len(load.answers) == 7
    assert load.answers["watch"] > 20


async def test_a_gateway_that_ends_cuts_nobody_off(tmp_path: Path) -> None:
    simulator = Simulator(seed=12)
    await simulator.start()
    port, address = free_port(), f"127.0.0.1:{free_port()}"
    base = f"http://127.0.0.1:{port}"
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(simulator.stop)
        await ready(await stack.enter_async_context(command(simulator, tmp_path / "data", address=address)))
        process = await stack.enter_async_context(gateway_process(port, "--upstream", address))
        async with aiohttp.ClientSession() as http:
            said: list[bool] = []
            process.send_signal(signal.SIGTERM)
            # Every request is answered until connections are refused; readiness has failed before that. A new
            # connection of the last moment may be in the kernel's queue when the socket closes, and is reset.
            with contextlib.suppress(aiohttp.ClientOSError):
                while True:
                    async with http.get(f"{base}/readyz") as reply:
                        said.append(reply.status == 200)
                    async with http.get(f"{base}/status") as reply:
                        assert reply.status == 200
                        assert said[-1] or reply.headers.get("connection") == "close"
        assert said
        assert not said[-1]
        async with asyncio.timeout(PATIENCE):
            assert await process.wait() == 0
