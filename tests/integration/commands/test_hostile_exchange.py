"""The server as a command against an exchange with absurd messages: no message ends the server."""

import asyncio
import contextlib
import gzip
import json
import os
import re
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from chronobook.v1 import order_book_service_pb2 as pb
from chronobook_server.simulator import Faults, Simulator
from chronobook_server.venue.backoff import MAX_DELAY
from testkit.fakes.exchange_front import Answer, Front, front_of
from testkit.harness.command import Command, command, listening
from testkit.harness.waiting import PATIENCE

DEPTH, INFO, STREAM = "/fapi/v1/depth", "/fapi/v1/exchangeInfo", "/public/stream"
MEGABYTE = 1 << 20


def reply(status: str, *headers: str, body: bytes = b"") -> bytes:
    lines = (f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}", "Connection: close", "", "")
    return "\r\n".join(lines).encode(errors="surrogateescape") + body


def _endless(_: asyncio.StreamWriter) -> Iterator[bytes]:
    """Send a body without an end."""
    yield b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    while True:
        yield b"10000\r\n" + b" " * 65536 + b"\r\n"


def _bomb(size: int) -> bytes:
    return reply("200 OK", "Content-Encoding: gzip", body=gzip.compress(bytes(size), 9))


@contextlib.asynccontextmanager
async def attacked(
    folder: Path, *, options: Sequence[str] = (), **answers: Sequence[Answer]
) -> AsyncIterator[tuple[Front, Command]]:
    """Run a server whose exchange answers the first requests in this way, and ends well."""
    simulator = Simulator(symbols=("ETHUSDT",), seed=1)
    await simulator.start()
    try:
        async with front_of(simulator.port) as front:
            paths = {"depth": DEPTH, "info": INFO, "stream": STREAM}
            front.answers = {paths[name]: list(planned) for name, planned in answers.items()}
            urls = ("--rest-url", front.rest_url, "--stream-url", front.stream_url, *options)
            async with command(simulator, folder / "data", *urls) as running:
                await listening(running)
                yield front, running
    finally:
        await simulator.stop()


async def recovered(front: Front, running: Command) -> str:
    """Return the server's log, once it has received the whole plan and is in sync nevertheless."""
    async with asyncio.timeout(PATIENCE):
        while any(front.answers.values()):
            assert running.process.returncode is None
            await asyncio.sleep(0.05)
    await running.reached(1)
    running.process.terminate()
    code, errors = await running.ended()
    assert code == 0, errors
    assert "Traceback" not in errors
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", errors)
    return errors


def memory(running: Command) -> int:
    """Return the most bytes that a server has ever had in memory."""
    status = Path(f"/proc/{running.process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


async def test_no_redirect_is_followed(tmp_path: Path) -> None:
    async with front_of(1) as canary:
        to = f"http://127.0.0.1:{canary.port}/inner"
        redirects = [reply(f"{status} Moved", f"Location: {to}") for status in (301, 302, 307)]
        handshakes = [
            reply("302 Found", f"Location: {to.replace('http', 'ws')}"),
            reply("308 Moved", f"Location: {to}"),
        ]
        async with attacked(tmp_path, info=redirects[:2], depth=redirects, stream=handshakes) as (front, running):
            await recovered(front, running)
        assert canary.asked == []


@pytest.mark.parametrize(
    "handshakes",
    [
        [reply("302 Found"), reply("302 Found", "Location: "), reply("301 Moved", "Location: http://[")],
        [
            reply("302 Found", "Location: /a", "Location: /b"),
            reply("302 Found", "Location: \x1b[2J\udcff\udcfe"),
            b"\x00\xff" * 100 + b"\r\n\r\n",
        ],
        [
            reply("101 Switching Protocols"),
            reply(
                "101 Switching Protocols", "Upgrade: websocket", "Sec-WebSocket-Accept: x", "Sec-WebSocket-Accept: y"
            ),
            b"HTTP/1.1 200 " + b"a" * 100_000,
        ],
        [
            b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 10_000 + b"\r\n",
            reply("503 \x1b]0;title\x07", body=b"x" * 3 * MEGABYTE),
            b"",
        ],
    ],
)
async def test_no_handshake_ends_the_server(tmp_path: Path, handshakes: list[Answer]) -> None:
    async with attacked(tmp_path, stream=handshakes) as (front, running):
        await recovered(front, running)


@pytest.mark.parametrize(
    "replies",
    [
        [
            reply("200 OK", f"X-MBX-USED-WEIGHT-1M: {'9' * 5000}", body=b"{}"),
            reply("429 Slow", "Retry-After: \x1b[31m-", "X-MBX-USED-WEIGHT-1M: -1"),
            reply("418 Teapot", "Retry-After: 1", "Retry-After: 2"),
        ],
        [
            reply("429 Slow", "Retry-After: Mon, 23 Nov 2026 14:00:02 GMT", "Date: Mon, 23 Nov 2026 14:00:00 GMT"),
            reply("200 OK", "Content-Encoding: br", body=b"abc"),
            reply("200 OK", "Content-Encoding: gzip", body=b"abc"),
        ],
        [
            b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n{",
            reply("200 OK", *(f"X-{number}: y" for number in range(5000)), body=b"{}"),
            b"HTTP/1.1 999999 \xff\xfe\r\n\r\n",
        ],
        [
            reply("200 OK", body=b"[" * 1_000_000),
            reply("200 OK", f"X-MBX-USED-WEIGHT-1M: {10**14}", body=b'{"lastUpdateId":1e999}'),
            reply("200 OK", body=b'"\\ud800"'),
        ],
    ],
)
async def test_no_reply_ends_the_server(tmp_path: Path, replies: list[Answer]) -> None:
    async with attacked(tmp_path, depth=list(replies), info=list(replies[1:])) as (front, running):
        await recovered(front, running)


async def test_no_body_takes_more_than_a_bounded_part_of_memory(tmp_path: Path) -> None:
    async with attacked(
        tmp_path,
        info=[_endless, _bomb(3000 * MEGABYTE)],
        depth=[_bomb(3000 * MEGABYTE), _endless, reply("429 Slow", "Retry-After: 1", body=bytes(50 * MEGABYTE))],
    ) as (front, running):
        async with asyncio.timeout(PATIENCE):
            while any(front.answers.values()):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        await running.reached(1)
        assert memory(running) < 400 * MEGABYTE
        errors = await recovered(front, running)
    assert "the reply has more than 16777216 bytes" in errors
    assert "the reply has more than 2097152 bytes" in errors


async def test_a_stored_hold_of_a_year_is_told_and_not_obeyed(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    (data / "held.json").write_text(json.dumps(time.time() + 365 * 86_400))
    async with attacked(tmp_path) as (front, running):
        assert "hold_ignored" in await recovered(front, running)


async def test_a_stored_hold_is_told_and_obeyed(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    (data / "held.json").write_text(json.dumps({"until": time.time() + 3, "written": time.time()}))
    started = time.monotonic()
    async with attacked(tmp_path) as (front, running):
        assert "requests_held" in await recovered(front, running)
    assert time.monotonic() - started > 2.5


async def test_a_large_frame_is_harmless_and_a_huge_one_reconnects(tmp_path: Path) -> None:
    simulator = Simulator(symbols=("ETHUSDT", "SMALLUSDT"), seed=1)
    await simulator.start()
    try:
        async with command(simulator, tmp_path / "data") as running:
            await listening(running)
            before = [await running.reached(1, symbol) for symbol in simulator.symbols]
            await _put(
                simulator, '{"stream":"ethusdt@depth@100ms","data":{"e":"depthUpdate","x":"%s"}}' % ("y" * 5 * MEGABYTE)
            )
            await _put(
                simulator, '{"stream":"ethusdt@depth@100ms","data":{"e":"depthUpdate","x":"%s' % ("y" * 9 * MEGABYTE)
            )
            after = [await running.reached(each.last_update_id + 5, each.symbol) for each in before]
            assert [each.malformed_frames_count for each in after] == [2, 0]
            assert (after[1].suspensions_count, after[1].resyncs_count) == (0, 0)
            await _put(simulator, "x" * 17 * MEGABYTE)
            for each in after:
                await running.reached(each.last_update_id + 20, each.symbol)
            running.process.terminate()
            code, errors = await running.ended()
            assert code == 0, errors
            assert "Traceback" not in errors
            assert errors.count("stream_ended") == 2  # the huge frame, and the end
    finally:
        await simulator.stop()


async def _put(simulator: Simulator, frame: str) -> None:
    """Send a frame on the connections that bring depth."""
    for connection in list(simulator._connections):
        if any("@depth" in stream for stream in connection.streams):
            await connection.put(frame)


async def test_no_list_of_contracts_ends_the_server(tmp_path: Path) -> None:
    lists: tuple[Any, ...] = (
        [], [{}], [{"symbol": "ETHUSDT"}, {"symbol": "NOPE\0", "status": "TRADING"}],
        [{"symbol": "ETHUSDT", "filters": None}, {"symbol": "OTHERUSDT", "status": "TRADING", "filters": None}, None],
    )  # fmt: skip
    planned = [reply("200 OK", body=json.dumps({"symbols": each}).encode()) for each in lists]
    async with attacked(tmp_path, info=planned) as (front, running):
        await recovered(front, running)


async def test_a_list_without_the_symbol_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    body = json.dumps({"symbols": [{"symbol": "OTHERUSDT", "status": "TRADING"}, {"symbol": "\x1b[2J"}]}).encode()
    async with attacked(tmp_path, info=[reply("200 OK", body=body)]) as (_, running):
        code, errors = await running.ended()
    assert code == 1
    assert errors.splitlines()[-1] == "chronobook-server: the exchange does not list ETHUSDT"


async def test_stray_folders_are_neither_served_nor_fatal(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    for name in (b"lost+found", b".snapshot", b"aside", b"\xff\xfe", b"BACKUP", b"x\x1b[2J"):
        os.mkdir(os.path.join(os.fsencode(data), name))  # noqa: PTH102, PTH118
    async with attacked(tmp_path, options=("--symbols", "ALL")) as (front, running):
        async with asyncio.timeout(PATIENCE):
            while not (listed := await running.stub.ListSymbols(pb.ListSymbolsRequest())).symbols:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        await running.reached(1, "ETHUSDT")
        assert [each.symbol for each in listed.symbols] == ["ETHUSDT"]
        errors = await recovered(front, running)
    assert errors.count("folder_ignored") == 5


async def test_a_stream_cut_after_every_frame_is_opened_ever_less(tmp_path: Path) -> None:
    simulator = Simulator(symbols=("ETHUSDT",), seed=1, faults=Faults(disconnect=1.0))
    await simulator.start()
    try:
        async with front_of(simulator.port) as front:
            urls = ("--rest-url", front.rest_url, "--stream-url", front.stream_url)
            async with command(simulator, tmp_path / "data", *urls) as running:
                await listening(running)
                async with asyncio.timeout(PATIENCE):
                    while len(opened := _depth_streams(front)) < 6:  # noqa: ASYNC110
                        await asyncio.sleep(0.05)
                assert running.process.returncode is None
    finally:
        await simulator.stop()
    # Delays double from half a second up to five, and half of each is random.
    waits = [later - earlier for earlier, later in pairwise(opened)]
    assert all(wait >= min(0.25 * 2**number, MAX_DELAY / 2) for number, wait in enumerate(waits))


def _depth_streams(front: Front) -> list[float]:
    return [at for at, path in zip(front.asked_at, front.asked, strict=True) if "@depth" in path]
