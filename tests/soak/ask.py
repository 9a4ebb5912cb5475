"""Questions of every kind: made at random, asked over REST or gRPC, and judged."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any
from urllib.parse import urlencode

import aiohttp

from chronobook import AsyncClient, ChronobookError, Side
from tests.soak import answer_checks
from tests.soak.soak_judge import Answer, RefusedAnswer, SoakJudge, same
from tests.soak.truth import Truth

# How often each kind is asked for.
KINDS = {
    "quantity": 30, "quantity now": 8, "nearest": 8, "nearest now": 6, "book": 6, "whole book": 1, "book now": 5,
    "changes": 8, "best": 5, "batch": 6, "history": 3, "status": 4, "symbols": 2,
}  # fmt: skip
# Those whose answers are asked for again, and must be the same.
LASTING = {"quantity", "nearest", "book"}
_PAIRS, _LIMIT = 200, 20
_NEAR, _SPAN_MS = 60, 20_000


@dataclass(frozen=True)
class Question:
    """A question; `time`, `start` and `end` in ms, None for now."""

    kind: str
    symbol: str
    price: float = 0.0
    time: int | None = None
    end: int = 0
    side: str | None = None
    limit: int | None = None
    pairs: tuple[tuple[float, int], ...] = ()

    @property
    def is_about_now(self) -> bool:
        """Whether the answer is about the moment when it is given."""
        return self.time is None

    def path(self) -> tuple[str, dict[str, Any] | None]:
        """Return path and body of the question over REST; without a body it is a GET."""
        seconds = None if self.time is None else self.time / 1000
        match self.kind:
            case "quantity" | "quantity now":
                return "/quantity", {"symbol": self.symbol, "price": self.price, "timestamp": seconds}
            case "batch":
                prices, times = [price for price, _ in self.pairs], [time / 1000 for _, time in self.pairs]
                return "/quantities", {"symbol": self.symbol, "prices": prices, "timestamps": times}
            case "nearest" | "nearest now":
                return self._get(f"/nearest-level/{self.price!r}", timestamp=seconds, side=self.side)
            case "book" | "whole book" | "book now":
                return self._get("/orderbook", timestamp=seconds, limit=self.limit)
            case "changes" | "best":
                path = f"/level-changes/{self.price!r}" if self.kind == "changes" else "/best-prices"
                return self._get(path, start_timestamp=seconds, end_timestamp=self.end / 1000, page_size=10_000)
            case "symbols":
                return "/symbols", None
            case _:
                return self._get(f"/{self.kind}")

    def _get(self, path: str, **query: object) -> tuple[str, None]:
        given = {"symbol": self.symbol, **{name: value for name, value in query.items() if value is not None}}
        return f"{path}?{urlencode(given)}", None

    async def ask(self, client: AsyncClient) -> Answer:
        """Ask over gRPC. Raises ChronobookError."""
        symbol, seconds = self.symbol, None if self.time is None else self.time / 1000
        found: Any
        match self.kind:
            case "quantity" | "quantity now":
                found = await client.quantity(self.price, symbol=symbol, timestamp=seconds)
            case "batch":
                pairs = [price for price, _ in self.pairs], [time / 1000 for _, time in self.pairs]
                found = await client.quantities(*pairs, symbol=symbol)
            case "nearest" | "nearest now":
                side = None if self.side is None else Side(self.side)
                found = await client.nearest_level(self.price, symbol=symbol, timestamp=seconds, side=side)
            case "book" | "whole book" | "book now":
                found = await client.order_book(symbol, timestamp=seconds, limit=self.limit)
            case "changes":
                found = await client.level_changes(self.price, symbol=symbol, start=seconds, end=self.end / 1000)
            case "best":
                found = await client.best_prices(symbol=symbol, start=seconds, end=self.end / 1000)
            case "symbols":
                found = await client.symbols()
            case "history":
                found = await client.history(symbol)
            case _:
                found = await client.status(symbol)
        return dataclasses.asdict(found)


def question(random: Random, judge: SoakJudge) -> Question:
    """Return a question about anything that may be held."""
    (kind,) = random.choices(list(KINDS), list(KINDS.values()))
    truth = judge.truths[random.choice(list(judge.truths))]
    now = truth.time(truth.newest)

    def instant() -> int:
        """Return an instant: mostly of any age, sometimes of this very moment, now and then one too old."""
        oldest = judge.standing[truth.symbol].oldest or truth.time(truth.first)
        if random.random() < 0.2:
            return now - random.randrange(3000)
        return random.randrange(min(oldest - 2000, now - 1000), now)

    asked: dict[str, Any] = {"kind": kind, "symbol": truth.symbol}
    if kind in ("quantity", "quantity now", "nearest", "nearest now", "changes"):
        asked["price"] = a_price(random, truth)
    if kind in ("quantity", "nearest", "book", "whole book", "changes", "best"):
        asked["time"] = instant()
    if kind in ("changes", "best"):
        asked["end"] = asked["time"] + random.randrange(_SPAN_MS if kind == "best" else 5 * _SPAN_MS)
    if kind.startswith("nearest"):
        asked["side"] = random.choice((None, "BID", "ASK"))
    if kind in ("book", "book now"):
        asked["limit"] = random.choice((1, 5, _LIMIT))
    if kind == "batch":
        asked["pairs"] = tuple((a_price(random, truth), instant()) for _ in range(_PAIRS))
    return Question(**asked)


def a_price(random: Random, truth: Truth) -> float:
    """Return a price: mostly near the market, sometimes anywhere, sometimes one that was never named."""
    chance = random.random()
    if chance < 0.6:
        return random.choice(truth.best_levels(_NEAR))
    if chance < 0.9:
        return random.choice(truth.prices)
    return round(random.choice(truth.prices) * random.uniform(0.5, 1.5), 2) or 0.01


async def over_rest(http: aiohttp.ClientSession, base: str, asked: Question, **options: Any) -> Answer | RefusedAnswer:
    """Ask over REST."""
    path, body = asked.path()
    try:
        request = http.get(base + path, **options) if body is None else http.post(base + path, json=body, **options)
        async with request as reply:
            said = await reply.json()
            return said if reply.status == 200 else refusal_of(said, reply.status)
    except (aiohttp.ClientError, TimeoutError) as error:
        return RefusedAnswer("", code=repr(error))


def refusal_of(said: Mapping[str, Any], status: int) -> RefusedAnswer:
    """Return the refusal in an error's JSON."""
    (info, *_) = [each for each in said["details"] if "reason" in each]
    unavailable = info["reason"] in ("EDGE_UNAVAILABLE", "EDGE_TIMEOUT", "EDGE_INTERNAL")
    return RefusedAnswer(
        "" if unavailable else info["reason"], info.get("metadata", {}), f"{status}: {said['message']}"
    )


async def over_grpc(client: AsyncClient, asked: Question) -> Answer | RefusedAnswer:
    """Ask over gRPC."""
    try:
        return await asked.ask(client)
    except ChronobookError as error:
        reason = "" if error.reason in ("UNREACHABLE", "CANCELLED") else error.reason
        return RefusedAnswer(reason, error.metadata, f"{error.code}: {error.message}")


def check(judge: SoakJudge, asked: Question, answer: Answer | RefusedAnswer, *, now: int, told: int) -> Sequence[str]:
    """Judge an answer; return its kinds. Raises Wrong.

    `now` is the exchange's time by then, `told` up to where history went when it was asked.
    """
    truth = judge.truths[asked.symbol]
    if isinstance(answer, RefusedAnswer):
        price = asked.price or None
        judge.refused(truth, answer, price=price, time=asked.time, now=now)
        return [answer.reason]
    match asked.kind:
        case "quantity" | "quantity now":
            answer_checks.quantity(truth, judge, answer, price=asked.price, time=asked.time)
        case "nearest" | "nearest now":
            answer_checks.nearest(truth, answer, price=asked.price, time=asked.time, side=asked.side)
        case "book" | "whole book" | "book now":
            answer_checks.book(truth, answer, time=asked.time, limit=asked.limit)
        case "changes":
            answer_checks.changes(truth, judge, answer, price=asked.price, start=asked.time or 0, end=asked.end)
        case "best":
            answer_checks.best(truth, judge, answer, start=asked.time or 0, end=asked.end)
        case "batch":
            return answer_checks.batch(truth, judge, answer, asked.pairs)
        case "history":
            judge.history(truth, answer, told=told)
        case "status":
            answer_checks.status(truth, judge, answer, now=now)
        case _:
            same("the symbols", {each["symbol"] for each in answer["symbols"]}, set(judge.truths))
    return ["ANSWERED"]


def lasting(answer: Any) -> Any:
    """Return an answer without its growing fields, in one shape for REST and gRPC."""
    if isinstance(answer, Mapping):
        kept = {name: lasting(value) for name, value in answer.items() if name not in ("complete_to", "age")}
        return {name: value for name, value in kept.items() if value is not None}
    if isinstance(answer, list | tuple):
        return [lasting(each) for each in answer]
    return answer
