"""Load of a soak: its askers with their ways and rates, and the judgement of every answer."""

import asyncio
import contextlib
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from random import Random
from typing import Any

import aiohttp

from chronobook import AsyncClient, Tls
from testkit.generators.hostile_requests import REQUESTS
from testkit.harness.edge import Edge
from tests.soak.answer_checks import is_final
from tests.soak.ask import LASTING, Question, check, lasting, over_grpc, over_rest, question
from tests.soak.noted_exchange import NotedExchange
from tests.soak.soak_judge import Answer, RefusedAnswer, SoakJudge
from tests.soak.truth import Wrong

# Answers that are kept to be asked for again.
_KEPT = 400
_TOKEN_SECONDS = 600.0
_PATIENCE = 30.0


class LoadReport:
    """Events of a run; `wrong` lists the violations."""

    def __init__(self) -> None:
        self.wrong: list[str] = []
        self.asked: Counter[str] = Counter()
        self.answers: Counter[str] = Counter()
        self.streams: Counter[str] = Counter()
        self.seconds: dict[str, list[float]] = defaultdict(list)

    def say(self, *parts: object) -> None:
        """Record a violation."""
        self.wrong.append("\n    ".join(map(str, parts)))


class Load:
    """Asks through the edge; `is_down` while the server is being started again."""

    def __init__(
        self, exchange: NotedExchange, judge: SoakJudge, edge: Edge, report: LoadReport, random: Random
    ) -> None:
        self.exchange = exchange
        self.judge = judge
        self.edge = edge
        self.report = report
        self.random = random
        self.is_down = False
        self.outages = 0
        self._kept: list[tuple[Question, Any]] = []
        self._token = ("", 0.0)
        self.client = AsyncClient(
            f"localhost:{edge.settings.listen.port}", tls=Tls(ca=edge.authority.ca), token=self.token
        )

    def token(self) -> str:
        """Return a token that is good for a while."""
        text, since = self._token
        if not text or time.monotonic() - since > _TOKEN_SECONDS:
            text = self.edge.issuer.token()
            self._token = text, time.monotonic()
        return text

    @property
    def bearer(self) -> dict[str, str]:
        """The headers that every request over REST needs."""
        return {"authorization": f"Bearer {self.token()}"}

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Have the connections around a block: those that are kept, and a place for those of one request each."""
        timeout = aiohttp.ClientTimeout(total=_PATIENCE)
        fresh = aiohttp.TCPConnector(force_close=True)
        async with (
            self.client,
            aiohttp.ClientSession(timeout=timeout) as self.http,
            aiohttp.ClientSession(timeout=timeout, connector=fresh) as self.fresh,
        ):
            yield

    # --- questions

    async def rest(self, asked: Question) -> Answer | RefusedAnswer:
        """Ask over REST, on a connection that is kept."""
        return await over_rest(self.http, self.edge.base, asked, ssl=self.edge.trusting, headers=self.bearer)

    async def rest_fresh(self, asked: Question) -> Answer | RefusedAnswer:
        """Ask over REST, on a connection of its own."""
        return await over_rest(self.fresh, self.edge.base, asked, ssl=self.edge.trusting, headers=self.bearer)

    async def grpc(self, asked: Question) -> Answer | RefusedAnswer:
        """Ask over gRPC."""
        return await over_grpc(self.client, asked)

    async def answered(self, way: str, asked: Question) -> Answer | RefusedAnswer | None:
        """Ask one of the ways, and judge the answer; None if there was no server."""
        outages, was_down, told = self.outages, self.is_down, self.judge.standing[asked.symbol].newest
        begun = time.perf_counter()
        answer = await WAYS[way](self, asked)
        seconds = time.perf_counter() - begun
        self.report.asked[asked.kind] += 1
        if isinstance(answer, RefusedAnswer) and not answer.reason:
            if not (was_down or self.is_down or outages != self.outages):
                self.report.say("no answer, and there is a server", way, asked, answer)
            self.report.answers["nobody there"] += 1
            return None
        if not was_down and outages == self.outages:
            self.report.seconds[way].append(seconds)
        await self._judge(way, asked, answer, told)
        return answer

    async def _judge(self, way: str, asked: Question, answer: Answer | RefusedAnswer, told: int) -> None:
        """Judge an answer; if it seems wrong, judge it again with the present history."""
        try:
            try:
                outcomes = check(self.judge, asked, answer, now=self.exchange.time, told=told)
            except Wrong:
                await self.read_history(asked.symbol)
                outcomes = check(self.judge, asked, answer, now=self.exchange.time, told=told)
        except Wrong as wrong:
            self.report.say(wrong, way, asked, answer)
        else:
            self.report.answers.update(outcomes)

    async def read_history(self, symbol: str) -> None:
        """Record coverage and gaps, as soon as a server answers."""
        while True:
            asked, told = Question("history", symbol), self.judge.standing[symbol].newest
            answer = await self.rest(asked)
            if not isinstance(answer, RefusedAnswer):
                try:
                    check(self.judge, asked, answer, now=self.exchange.time, told=told)
                except Wrong as wrong:
                    self.report.say(wrong, "history", asked, answer)
                return
            await asyncio.sleep(0.1)

    async def ask_for_ever(self, way: str, pause: float) -> None:
        """Ask anything, again and again."""
        while True:
            await self.ask_once(way, question(self.random, self.judge))
            await asyncio.sleep(pause)

    async def ask_once(self, way: str, asked: Question) -> None:
        """Ask, and keep some of the answers that must never change."""
        answer = await self.answered(way, asked)
        if asked.kind not in LASTING or answer is None or isinstance(answer, RefusedAnswer) or not is_final(answer):
            return
        kept = asked, lasting(answer)
        if len(self._kept) < _KEPT:
            self._kept.append(kept)
        elif self.random.random() < 0.1:
            self._kept[self.random.randrange(_KEPT)] = kept

    async def read_histories_for_ever(self) -> None:
        """Update the recorded coverage again and again."""
        while True:
            for symbol in self.judge.truths:
                await self.read_history(symbol)
            await asyncio.sleep(1.0)

    def whole_book(self, symbol: str) -> Question:
        """Return the question for all that is known of a book now."""
        return Question("book now", symbol)

    # --- answers that must never change

    async def ask_again_for_ever(self, pause: float) -> None:
        """Repeat earlier questions."""
        while True:
            await asyncio.sleep(pause)
            if self._kept:
                await self._ask_again(self.random.choice(self._kept))

    async def ask_all_again(self) -> None:
        """Ask for all that is kept."""
        for kept in list(self._kept):
            await self._ask_again(kept)

    async def _ask_again(self, kept: tuple[Question, Any]) -> None:
        asked, before = kept
        way = self.random.choice(("rest", "grpc"))
        answer = await self.answered(way, asked)
        if answer is None:
            return
        self.report.answers["asked again"] += 1
        if isinstance(answer, RefusedAnswer):
            if answer.reason != "BEFORE_HISTORY":
                self.report.say("an answer that was final is refused", way, asked, answer, before)
            if kept in self._kept:
                self._kept.remove(kept)
            return
        after = lasting(answer)
        if after != before and asked.time is not None:
            await self.read_history(asked.symbol)
            if asked.time - 1000 < self.judge.standing[asked.symbol].oldest:  # the second before is not held any more
                before, after = _of_itself(before), _of_itself(after)
        if after != before:
            self.report.say("an answer that was final has changed", way, asked, after, before)

    # --- hostile requests

    async def be_hostile_for_ever(self, pause: float) -> None:
        """Send hostile requests; each must get its required answer."""
        while True:
            await asyncio.sleep(pause)
            hostile, was_down = self.random.choice(REQUESTS), self.is_down
            status = await self._status_of(hostile.request)
            self.report.answers["hostile"] += 1
            # A good question at a bad moment is not answered either.
            allowed = {hostile.status} | ({503} if hostile.status == 200 or was_down or self.is_down else set())
            if status not in allowed:
                self.report.say(f"hostile: {hostile.name} got {status}, and not {hostile.status}")

    async def _status_of(self, request: bytes) -> int:
        reader, writer = await self.edge.connect()
        try:
            async with asyncio.timeout(_PATIENCE):
                writer.write(request.replace(b"{token}", self.token().encode()))
                return int((await reader.readuntil(b"\r\n\r\n")).split()[1])
        except (asyncio.IncompleteReadError, ConnectionError):
            return 0
        finally:
            writer.close()


def _of_itself(answer: Any) -> Any:
    """Return an answer without its fields about the second before."""
    return {name: value for name, value in answer.items() if name not in _EARLIER}


_EARLIER = ("difference", "previous_quantity", "previous_side")
WAYS: dict[str, Callable[[Load, Question], Awaitable[Answer | RefusedAnswer]]] = {
    "rest": Load.rest,
    "rest, fresh TLS": Load.rest_fresh,
    "grpc": Load.grpc,
}
