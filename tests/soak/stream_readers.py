"""Readers of streams: over gRPC and as server-sent events, endless and short, quick and slow."""

import asyncio
import contextlib
import dataclasses
import json
from collections.abc import AsyncGenerator, Callable
from typing import Any
from urllib.parse import urlencode

import aiohttp

from chronobook import ChronobookError
from tests.soak.ask import refusal_of
from tests.soak.follow import BookFollower, Follower, LevelFollower
from tests.soak.load import Load
from tests.soak.soak_judge import ms
from tests.soak.truth import DEPTH, Forgotten, Wrong

_PASSING = {"", "NOT_SYNCED"}
_LATE = "read too late to be judged"


class Readers:
    """Opens streams through the edge and follows them; `live` are the streams that are read without a pause."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.live: set[Follower] = set()

    # --- which

    def level(self, symbol: str) -> LevelFollower:
        """Return a follower of a level near the market."""
        truth = self.load.judge.truths[symbol]
        return LevelFollower(truth, self.load.judge, self.load.random.choice(truth.best_levels(10)))

    def book(self, symbol: str, *, is_whole: bool) -> BookFollower:
        """Return a follower of a book."""
        return BookFollower(self.load.judge.truths[symbol], self.load.judge, is_whole=is_whole)

    # --- over gRPC

    def messages(self, follower: Follower, start: float | None = None) -> AsyncGenerator[Any, None]:
        """Return the messages of a stream over gRPC, which resumes by itself when it breaks."""
        client, symbol = self.load.client, follower.truth.symbol
        if isinstance(follower, LevelFollower):
            return client.watch_level(follower.price, symbol=symbol, start=start)
        limit = None if isinstance(follower, BookFollower) and follower.is_whole else DEPTH
        return client.watch_order_book(symbol=symbol, start=start, limit=limit)

    async def read_grpc(self, follower: Follower, *, start: float | None = None, pause: float = 0.0) -> None:
        """Follow a stream until it ends; a reader that pauses may be refused as too slow."""
        outages, was_down = self.load.outages, self.load.is_down
        self.load.report.streams["grpc"] += 1
        try:
            async with contextlib.aclosing(self.messages(follower, start)) as messages:
                async for message in messages:
                    if not self.take(follower, dataclasses.asdict(message)):
                        return
                    if pause:
                        await asyncio.sleep(pause)
        except ChronobookError as error:
            if error.reason == "SLOW_CONSUMER" and pause:
                self.load.report.streams["too slow"] += 1
                return
            # One that has not begun yet does not go on by itself.
            is_excused = follower.at is None and (was_down or self.load.is_down or outages != self.load.outages)
            is_late = error.reason in ("BEFORE_HISTORY", "SLOW_CONSUMER") and await self._is_past(follower, start)
            is_excused |= is_late
            is_excused |= error.reason == "NOT_SYNCED" and self.load.judge.is_recovering(
                follower.truth, self.load.exchange.time
            )
            if not is_excused:
                self.load.report.say("a stream has ended", "grpc", follower.truth.symbol, error, vars(follower))
            elif is_late:
                self.load.report.streams["past"] += 1

    async def _is_past(self, follower: Follower, start: float | None) -> bool:
        """Return whether history no longer has the instant from which a stream is to begin, or to go on."""
        await self.load.read_history(follower.truth.symbol)
        begin = start if follower.position is None else follower.position[0]
        return begin is not None and ms(begin) < self.load.judge.standing[follower.truth.symbol].oldest

    def take(self, follower: Follower, message: dict[str, Any]) -> bool:
        """Let a follower judge a message; return whether it was right, because later ones depend on it."""
        try:
            follower.take(message)
            self.load.report.streams["messages"] += 1
        except Forgotten:
            self.load.report.streams[_LATE] += 1
            return False
        except Wrong as wrong:
            told = getattr(follower, "told", None)
            self.load.report.say(wrong, "stream", message, f"told before: {told}, up to event {follower.at}")
            return False
        return True

    # --- as server-sent events

    async def read_sse(self, follower: Follower, *, pause: float = 0.0) -> None:
        """Follow a stream without end; when it breaks, resume after its last message."""
        load = self.load
        load.report.streams["sse"] += 1
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
        async with aiohttp.ClientSession(timeout=timeout, read_bufsize=1 << 14) as http:
            while True:
                url, outages = load.edge.base + self._path(follower), load.outages
                try:
                    async with http.get(url, ssl=load.edge.trusting, headers=load.bearer) as reply:
                        if reply.status == 200:
                            if not await self._read_lines(follower, reply.content, pause):
                                return
                        else:
                            reason = refusal_of(await reply.json(), reply.status).reason
                            if reason == "BEFORE_HISTORY" and await self._is_past(follower, None):
                                load.report.streams["past"] += 1
                                return
                            if reason not in _PASSING:
                                load.report.say("a stream is refused", "sse", url, reason)
                                return
                except aiohttp.ClientError as error:
                    if not pause and not load.is_down and outages == load.outages:
                        load.report.say("a stream has ended", "sse", url, repr(error))
                await asyncio.sleep(0.2)

    async def _read_lines(self, follower: Follower, content: aiohttp.StreamReader, pause: float) -> bool:
        """Take the events of a body until it ends; return whether all were right."""
        count = 0
        while line := await content.readline():
            if not line.startswith(b"data: "):
                continue
            message = json.loads(line.removeprefix(b"data: "))
            if "kind" not in message:
                break  # an error in place of a message; the next request tells the error
            if not self.take(follower, message):
                return False
            count += 1
            if pause and not count % 200:
                await asyncio.sleep(pause)
        return True

    def _path(self, follower: Follower) -> str:
        query: dict[str, object] = {"symbol": follower.truth.symbol}
        if follower.position is not None:
            query["start_timestamp"], update_id = follower.position
            if update_id is not None:
                query["start_update_id"] = update_id
        if isinstance(follower, LevelFollower):
            return f"/watch-level/{follower.price!r}?{urlencode(query)}"
        if isinstance(follower, BookFollower) and not follower.is_whole:
            query["limit"] = DEPTH
        return f"/watch-orderbook?{urlencode(query)}"

    # --- how long

    async def stay(self, make: Callable[[], Follower], *, over: str) -> None:
        """Read one stream without end; start another one if its reader was too slow for the history."""
        late = self.load.report.streams
        while True:
            follower, before = make(), late["past"] + late[_LATE]
            self.live.add(follower)
            await (self.read_grpc(follower) if over == "grpc" else self.read_sse(follower))
            self.live.discard(follower)
            if late["past"] + late[_LATE] == before:
                break
        self.load.report.say("a stream has ended that should go on", over, vars(follower))

    async def be_slow(self, make: Callable[[], Follower], *, over: str, pause: float) -> None:
        """Read a stream as a slow reader does, and begin again if it was too slow."""
        while True:
            follower = make()
            await (self.read_grpc if over == "grpc" else self.read_sse)(follower, pause=pause)

    async def come_and_go(self, pause: float) -> None:
        """Open streams for some seconds, again and again, some of them in the past."""
        load, random = self.load, self.load.random
        while True:
            symbol = random.choice(list(load.judge.truths))
            is_level = random.random() < 0.7
            follower = self.level(symbol) if is_level else self.book(symbol, is_whole=random.random() < 0.5)
            truth = follower.truth
            start = truth.time(truth.newest) - random.randrange(60_000) if random.random() < 0.5 else None
            oldest = load.judge.standing[symbol].oldest
            begin = None if start is None or start < oldest + 5000 else start / 1000
            reading = self.read_sse(follower) if begin is None and is_level else self.read_grpc(follower, start=begin)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(random.uniform(0.5, 6.0)):
                    await reading
            await asyncio.sleep(pause)

    def late(self) -> list[Follower]:
        """Return the streams that stay open and did not get every message."""
        return [follower for follower in self.live if not follower.is_up_to_date()]
