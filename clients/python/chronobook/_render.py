"""Results as text: aligned and coloured lines for people, JSON with the contract's field names for programs."""

import json
import math
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from decimal import Decimal
from itertools import zip_longest
from typing import Any

from rich.highlighter import RegexHighlighter
from rich.text import Text
from rich.theme import Theme

from chronobook.columns import BestPrices, LevelChanges, Stretch
from chronobook.results import (
    Audits,
    Gap,
    History,
    Interval,
    KnownRange,
    LevelMessage,
    OrderBook,
    PriceLevel,
    Side,
    Symbol,
    Symbols,
)

_TIMES = frozenset(
    {"timestamp", "as_of", "complete_to", "oldest_timestamp", "newest_timestamp", "gap_start", "gap_end"}
)
_DURATIONS = frozenset({"age", "retention_seconds"})
THEME = Theme({"say.bid": "green", "say.ask": "red", "say.good": "green", "say.bad": "bold red", "say.heading": "bold"})
BID, ASK, HEADING = "say.bid", "say.ask", "say.heading"
_SIDES = {0: None, 1: Side.BID, -1: Side.ASK, 2: Side.UNRECOGNIZED}


class Words(RegexHighlighter):
    """Highlighter of words with the same meaning in all results."""

    base_style = "say."
    highlights = (
        r"\b(?P<bid>BID)\b",
        r"\b(?P<ask>ASK)\b",
        r"\b(?P<good>IN_SYNC|RESYNCED)\b",
        r"^(?P<good>held)\b",
        r"\b(?P<bad>DISCONNECTED|BUFFERING|WAITING_FOR_BRIDGE|SUSPENDED|RESUMING|GAP|UNKNOWN)\b",
        r"^(?P<bad>missing)\b",
    )


def printable(text: str) -> str:
    """Return a text of the same length that moves no cursor, because a server may send any text."""
    return (
        text
        if text.isprintable()
        else "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)
    )


def json_line(result: Any) -> str:
    """Return a result as one line of JSON, without fields that are None. A missing value of a column is null."""
    return json.dumps(_plain(result), allow_nan=False)


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        named = ((field.name, getattr(value, field.name)) for field in fields(value))
        return {
            name: _column(name, each) if isinstance(each, array) else _plain(each)
            for name, each in named
            if each is not None
        }
    return [_plain(each) for each in value] if isinstance(value, tuple) else value


def _column(name: str, column: "array[Any]") -> list[Any]:
    """Return the entries of a column: sides by their names, None for NaN."""
    if name.endswith("sides"):
        return [_SIDES[each] for each in column]
    return [None if math.isnan(each) else each for each in column]


def number(value: float) -> str:
    """Return the shortest text that reads as the same number; without an exponent, unless it were very long.

    >>> number(2681.0), number(0.00001)
    ('2681', '0.00001')
    """
    text = repr(value)
    if 1e-12 <= abs(value) < 1e16:
        text = format(Decimal(text), "f")
    return text.removesuffix(".0")


def instant(seconds: float | None) -> str:
    """Return Unix seconds as UTC in ISO 8601, to the millisecond; "-" for None.

    An instant outside the years 1 to 9999 has no such text and stays a number.
    """
    if seconds is None:
        return "-"
    try:
        moment = datetime.fromtimestamp(round(seconds, 3), UTC)
    except (ValueError, OverflowError, OSError):
        return number(seconds)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _value(name: str, value: Any) -> str:
    """Return the text of a field."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, PriceLevel):
        return f"{number(value.price)} ({number(value.quantity)})"
    if isinstance(value, KnownRange):
        if value.lowest is not None and value.highest is not None and value.lowest > value.highest:
            return "none"
        lowest = "every bid" if value.lowest is None else number(value.lowest)
        highest = "every ask" if value.highest is None else number(value.highest)
        return f"{lowest} .. {highest}"
    if isinstance(value, Audits):
        wrong = f"{value.missing_count} missing, {value.extra_count} extra, {value.wrong_count} wrong"
        return f"{value.count}, {value.mismatches_count} not the same ({wrong})" if value.count else "none yet"
    if name in _TIMES:
        return instant(value)
    if name in _DURATIONS:
        return f"{number(round(value, 3))} s"
    return number(value) if isinstance(value, float) else str(value)


def _table(rows: Sequence[Sequence[str]], aligned: str, styles: Sequence[str] | None = None) -> Iterator[Text]:
    """Yield lines of columns, each aligned to the left ("<") or right (">"); with styles, the first is a heading."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for number, row in enumerate(rows):
        line = Text()
        for text, side, width, style in zip(row, aligned, widths, styles or [""] * len(aligned), strict=True):
            line.append(f"{text:{side}{width}}", HEADING if styles and not number else style).append("  ")
        line.rstrip()
        yield line


def _sides(book: OrderBook) -> Iterator[tuple[str, str, str, str]]:
    yield "bid quantity", "bid", "ask", "ask quantity"
    for bid, ask in zip_longest(book.bids, book.asks):
        left = (number(bid.quantity), number(bid.price)) if bid else ("", "")
        right = (number(ask.price), number(ask.quantity)) if ask else ("", "")
        yield *left, *right


def _level_rows(changes: LevelChanges) -> Iterator[tuple[str, str, str, str]]:
    yield "timestamp", "quantity", "side", "update_id"
    columns = (changes.timestamps, changes.quantities, changes.sides, changes.update_ids)
    for time, quantity, side, update_id in zip(*columns, strict=True):
        yield instant(time), number(quantity), _SIDES[side] or "-", str(update_id)


def _best_rows(best: BestPrices) -> Iterator[tuple[str, str, str, str, str, str]]:
    yield "timestamp", "bid quantity", "bid", "ask", "ask quantity", "update_id"
    columns = (best.bid_quantities, best.bid_prices, best.ask_prices, best.ask_quantities)
    for time, update_id, *row in zip(best.timestamps, best.update_ids, *columns, strict=True):
        bid_quantity, bid, ask, ask_quantity = ("-" if math.isnan(each) else number(each) for each in row)
        yield instant(time), bid_quantity, bid, ask, ask_quantity, str(update_id)


def _symbol_rows(symbols: Symbols) -> Iterator[tuple[str, ...]]:
    names = [field.name for field in fields(Symbol)]
    yield tuple(names)
    for each in symbols.symbols:
        yield tuple(_value(name, getattr(each, name)) for name in names)


def _known(held: Iterable[Interval | Stretch], gaps: Iterable[Gap]) -> Iterator[str]:
    """Yield lines of covered intervals, for a level with the first quantity, and of gaps."""
    for each in held:
        line = f"held     {instant(each.start)} .. {instant(each.end)}"
        if isinstance(each, Stretch):
            first = "unknown" if each.quantity is None else number(each.quantity)
            line += f"  at first {first} {each.side or ''}".rstrip()
        yield line
    for gap in gaps:
        yield f"missing  {instant(gap.start)} .. {instant(gap.end)}  {gap.cause}"


def lines(result: Any) -> Iterable[str | Text]:
    """Yield the lines of a result: one for each single field, then its lists."""
    plain = ((field.name, getattr(result, field.name)) for field in fields(result))
    single = [(name, _value(name, value)) for name, value in plain if not isinstance(value, tuple | array)]
    yield from _table(single, "<<")
    match result:
        case OrderBook():
            yield ""
            yield from _table(list(_sides(result)), ">><<", (BID, BID, ASK, ASK))
        case Symbols():
            yield ""
            count = len(fields(Symbol))
            yield from _table(list(_symbol_rows(result)), "<" * count, [""] * count)
        case History():
            yield from _known(result.coverage, result.gaps)
            for change in result.contract_changes:
                sizes = f"tick {_value('', change.tick_size)}, step {_value('', change.step_size)}"
                yield f"contract {instant(change.timestamp)}  {change.trading_status}, {sizes}"
        case LevelChanges():
            yield from _known(result.stretches, result.gaps)
            yield ""
            yield from _table(list(_level_rows(result)), "<><>", [""] * 4)
        case BestPrices():
            yield from _known(result.stretches, result.gaps)
            yield ""
            yield from _table(list(_best_rows(result)), "<>><<>", ("", BID, BID, ASK, ASK, ""))


def message_line(message: LevelMessage) -> str:
    """Return a message of a watched level as one line: its time, its kind and the fields that it has."""
    others = (field.name for field in fields(message) if field.name not in ("timestamp", "kind", "symbol", "price"))
    given = ((name, getattr(message, name)) for name in others)
    details = " ".join(f"{name}={_value(name, value)}" for name, value in given if value is not None)
    return f"{instant(message.timestamp)}  {message.kind:<9}  {details}".rstrip()
