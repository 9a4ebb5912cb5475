"""CPU time of receiving a frame, for each WebSocket library that could do it, inside the server's own connections.

`python -m benchmarks.receiving` sends frames from another process at the rate of a whole market, over four connections.
The libraries take turns, so the load of the machine meets all of them. The table has the least time of each, and its
ratio to that of websockets. The server uses aiohttp. picows is measured if it is installed.
"""

import argparse
import asyncio
import contextlib
import gc
import importlib.util
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import uvloop
import websockets
from aiohttp import web

from benchmarks.ingest import synthetic_lines
from benchmarks.limits import Limits
from chronobook_server.venue.connection import Connection
from chronobook_server.venue.transport import (
    FRAME_BYTES,
    PING_SECONDS,
    PONG_SECONDS,
    Disconnected,
    RealNetwork,
    Socket,
)

CONNECTIONS = 4
FRAMES_A_SECOND = 3400
# Most CPU of a frame, as a part of that of websockets.
LIMIT = 0.85
# Frames that are sent at once, as the exchange sends those of many symbols.
_AT_ONCE = 4
# Frames at which picows stops to read. A choice: far fewer bytes than aiohttp keeps, and no system call for each frame.
_PICOWS_FRAMES = 64


class WebsocketsSocket:
    """A WebSocket of websockets, with the bounds of the server's own."""

    def __init__(self, connection: websockets.ClientConnection) -> None:
        self._connection = connection

    async def receive(self) -> bytes | str:
        """Return the next frame. Raises Disconnected."""
        try:
            return await self._connection.recv(decode=False)
        except websockets.ConnectionClosed as error:
            raise Disconnected(str(error)) from error

    async def send(self, text: str) -> None:
        """Send a frame."""
        await self._connection.send(text)

    async def close(self) -> None:
        """Close it."""
        await self._connection.close()


async def of_websockets(network: RealNetwork, url: str) -> Socket:
    """Connect with websockets."""
    connection = await websockets.connect(
        f"{url}/stream", compression=None, proxy=None, ping_interval=PING_SECONDS, ping_timeout=PONG_SECONDS,
        close_timeout=1, max_size=FRAME_BYTES, max_queue=(1, 0),
    )  # fmt: skip
    return WebsocketsSocket(connection)


async def of_server(network: RealNetwork, url: str) -> Socket:
    """Connect as the server does, with aiohttp."""
    return await network.connect("/stream")


async def of_picows(network: RealNetwork, url: str) -> Socket:
    """Connect with picows."""
    picows = importlib.import_module("picows")  # it is not a part of the server

    class Listener(picows.WSListener):  # type: ignore[misc, name-defined]
        """Frames that wait for `receive`; while one does, the connection is not read."""

        def __init__(self) -> None:
            self.frames = deque[bytes]()
            self.waiter: asyncio.Future[None] | None = None
            self.transport: Any
            self.is_paused = self.is_over = False

        def on_ws_connected(self, transport: Any) -> None:
            """Keep the transport."""
            self.transport = transport

        def on_ws_disconnected(self, transport: Any) -> None:
            """End the wait for frames."""
            self.is_over = True
            self.wake()

        def wake(self) -> None:
            """End the wait of `receive`."""
            if self.waiter is not None and not self.waiter.done():
                self.waiter.set_result(None)

        def on_ws_frame(self, transport: Any, frame: Any) -> None:
            """Keep a frame."""
            self.frames.append(frame.get_payload_as_bytes())
            self.wake()
            if not self.is_paused and len(self.frames) > _PICOWS_FRAMES:
                self.is_paused = True
                transport.underlying_transport.pause_reading()

    class PicowsSocket:
        """A WebSocket of picows."""

        def __init__(self, listener: Listener) -> None:
            self._listener = listener

        async def receive(self) -> bytes | str:
            """Return the next frame."""
            listener = self._listener
            while not listener.frames:
                if listener.is_over:
                    raise Disconnected("the connection has ended")
                if listener.is_paused:
                    listener.is_paused = False
                    listener.transport.underlying_transport.resume_reading()
                listener.waiter = asyncio.get_running_loop().create_future()
                await listener.waiter
            return listener.frames.popleft()

        async def send(self, text: str) -> None:
            """Send a frame."""

        async def close(self) -> None:
            """Close it."""
            self._listener.transport.disconnect()

    _, listener = await picows.ws_connect(
        Listener, f"{url}/stream", max_frame_size=FRAME_BYTES, enable_auto_ping=True,
        auto_ping_idle_timeout=PING_SECONDS, auto_ping_reply_timeout=PING_SECONDS, max_redirects=0,
    )  # fmt: skip
    return PicowsSocket(listener)


async def measure(connect: Callable[[RealNetwork, str], Awaitable[Socket]], url: str, seconds: float) -> float:
    """Return the CPU seconds of a frame, over some seconds of frames."""
    network = RealNetwork(rest_url=url, stream_url=url)
    sockets = [await connect(network, url) for _ in range(CONNECTIONS)]
    connections = [Connection(number, socket, time.monotonic) for number, socket in enumerate(sockets)]
    reading = [asyncio.create_task(connection.read(lambda _: True)) for connection in connections]
    await asyncio.sleep(0.5)
    gc.collect()
    before, begun = sum(each.frames for each in connections), time.process_time()
    await asyncio.sleep(seconds)
    spent, taken = time.process_time() - begun, sum(each.frames for each in connections) - before
    for socket in sockets:
        await socket.close()
    for task in reading:
        task.cancel()
    await asyncio.gather(*reading, return_exceptions=True)
    await network.close()
    return spent / taken


async def serve() -> None:
    """Send frames to every connection, until standard input ends."""
    frames = [frame.decode() for _, frame in synthetic_lines(200)[1:]]

    async def stream(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        asyncio.get_running_loop().create_task(send(socket))
        async for _ in socket:
            pass
        return socket

    async def send(socket: web.WebSocketResponse) -> None:
        with contextlib.suppress(ConnectionError):
            await send_until_closed(socket)

    async def send_until_closed(socket: web.WebSocketResponse) -> None:
        pause, due, number = _AT_ONCE * CONNECTIONS / FRAMES_A_SECOND, time.monotonic(), 0
        while not socket.closed:
            for _ in range(_AT_ONCE):
                number += 1
                await socket.send_str(frames[number % len(frames)])
            due += pause
            await asyncio.sleep(max(due - time.monotonic(), 0))

    app = web.Application()
    app.router.add_get("/stream", stream)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    size = sum(map(len, frames)) // len(frames)
    print(runner.addresses[0][1], size, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


async def compare(rounds: int, seconds: float) -> int:
    """Measure all libraries in turn, and print the table; return 1 if the limit is missed."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.receiving", "--serve",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert child.stdin is not None
    assert child.stdout is not None
    port, size = (await child.stdout.readline()).split()
    libraries = {"websockets": of_websockets, "aiohttp": of_server}
    if importlib.util.find_spec("picows") is not None:
        libraries["picows"] = of_picows
    found: dict[str, list[float]] = {name: [] for name in libraries}
    for _ in range(rounds):
        for name, connect in libraries.items():
            found[name].append(await measure(connect, f"ws://127.0.0.1:{int(port)}", seconds))
    child.stdin.close()
    await child.wait()
    print(f"{FRAMES_A_SECOND} frames a second of {int(size)} bytes over {CONNECTIONS} connections")
    print(f"{'library':<14}{'µs/frame':>10}{'of websockets':>15}")
    for name, times in found.items():
        print(f"{name:<14}{min(times) * 1e6:>10.1f}{min(times) / min(found['websockets']):>15.2f}")
    limits = Limits()
    limits.at_most("a frame, as a part of websockets,", min(found["aiohttp"]) / min(found["websockets"]), LIMIT)
    return limits.exit_code()


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        uvloop.run(serve())
        return 0
    return uvloop.run(compare(given.rounds, given.seconds))


if __name__ == "__main__":
    sys.exit(main())
