"""The command `chronobook`: the client's questions from a shell, for people or, with --json, for other programs."""

import argparse
import dataclasses
import json
import os
import signal
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from .client import DEFAULT_TARGET, Client
from .errors import ChronobookError
from .results import History, OrderBook

COMMANDS = {
    "status": "how a symbol's book stands",
    "book": "the book, now or at an instant",
    "quantity": "what rests at a price, now (nearest level) or at an instant (exactly)",
    "nearest": "the level nearest to a price now",
    "history": "which instants can be asked about, and which are missing",
    "watch": "every change of a level, until Ctrl+C",
}
_PRICED = frozenset({"quantity", "nearest", "watch"})


def _instant(text: str) -> float:
    """Read Unix seconds, or a date and time of ISO 8601 with its offset."""
    try:
        return float(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither Unix seconds nor a date and time") from None
    if moment.tzinfo is None:
        raise argparse.ArgumentTypeError(f"{text!r} has no offset; write Z for UTC")
    return moment.timestamp()


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument("--server", metavar="HOST:PORT", help=f"the server (CHRONOBOOK_SERVER, {DEFAULT_TARGET})")
    common.add_argument("--json", action="store_true", help="one JSON object a line")
    parser = argparse.ArgumentParser(prog="chronobook", description="Ask a chronobook server.", parents=[common])
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text, parents=[common])
        command.add_argument("symbol", nargs="?", default="", metavar="SYMBOL", help="by default the server's first")
        if name in _PRICED:
            command.add_argument("price", nargs="?", metavar="PRICE")
        if name == "book":
            command.add_argument("--limit", type=int, metavar="N", help="levels a side")
        if name in ("book", "quantity"):
            command.add_argument("--at", type=_instant, metavar="TIME", help="Unix seconds, or ISO 8601 with offset")
    return parser


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    given = parser.parse_args(argv)
    if given.command in _PRICED:
        if given.price is None and _is_number(given.symbol):
            given.symbol, given.price = "", given.symbol  # a lone number is the price
        if given.price is None or not _is_number(given.price):
            parser.error(f"{given.command} needs a PRICE")
    return given


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    moment = datetime.fromtimestamp(round(seconds, 3), UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _text(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if name in ("timestamp", "as_of", "complete_to", "start", "end") or name.endswith("_timestamp"):
        return _time(value)
    if isinstance(value, float):
        return f"{value:.15g}" if abs(value) < 1e15 else str(int(value))
    return str(value)


def _rows(result: Any) -> Iterable[tuple[str, str]]:
    """Yield name and text of a result's plain fields, nested ones in one line each."""
    for field in dataclasses.fields(result):
        value = getattr(result, field.name)
        if isinstance(value, tuple):
            continue
        if dataclasses.is_dataclass(value):
            yield field.name, " ".join(text for _, text in _rows(value))
        else:
            yield field.name, _text(field.name, value)


def _print_rows(rows: Iterable[tuple[str, str]]) -> None:
    listed = list(rows)
    width = max(len(name) for name, _ in listed)
    for name, text in listed:
        print(f"{name:<{width}}  {text}")


def _print_people(result: Any) -> None:
    _print_rows(_rows(result))
    if isinstance(result, OrderBook):
        print(f"\n{'bid quantity':>16} {'bid':>14}   {'ask':<14} {'ask quantity':<16}")
        for number in range(max(len(result.bids), len(result.asks))):
            bid = result.bids[number] if number < len(result.bids) else None
            ask = result.asks[number] if number < len(result.asks) else None
            left = f"{_text('', bid.quantity):>16} {_text('', bid.price):>14}" if bid else " " * 31
            print(f"{left}   {_text('', ask.price):<14} {_text('', ask.quantity)}" if ask else left)
    if isinstance(result, History):
        for held in result.coverage:
            print(f"held     {_time(held.start)} .. {_time(held.end)}")
        for gap in result.gaps:
            print(f"missing  {_time(gap.start)} .. {_time(gap.end)}  {gap.cause}")


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_none(each) for name, each in value.items() if each is not None}
    return [_without_none(each) for each in value] if isinstance(value, (list, tuple)) else value


def _print(result: Any, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(_without_none(dataclasses.asdict(result))), flush=True)
    else:
        _print_people(result)


def _watch(client: Client, given: argparse.Namespace, *, as_json: bool) -> None:
    for message in client.watch_level(float(given.price), symbol=given.symbol):
        if as_json:
            _print(message, as_json=True)
            continue
        shown = {name: text for name, text in _rows(message) if text != "-" and name not in ("kind", "symbol", "price")}
        details = " ".join(f"{name}={text}" for name, text in shown.items() if name != "timestamp")
        print(f"{_time(message.timestamp)} {message.kind:<9} {details}", flush=True)


def _run(client: Client, given: argparse.Namespace, *, as_json: bool) -> None:
    symbol = given.symbol
    match given.command:
        case "status":
            _print(client.status(symbol), as_json=as_json)
        case "book":
            _print(client.order_book(symbol, limit=given.limit, timestamp=given.at), as_json=as_json)
        case "quantity":
            _print(client.quantity(float(given.price), symbol=symbol, timestamp=given.at), as_json=as_json)
        case "nearest":
            _print(client.nearest_level(float(given.price), symbol=symbol), as_json=as_json)
        case "history":
            _print(client.history(symbol), as_json=as_json)
        case "watch":
            _watch(client, given, as_json=as_json)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns 0, 1 for a question without an answer, 2 for one that cannot be understood."""
    given = _arguments(argv)
    target = getattr(given, "server", None) or os.environ.get("CHRONOBOOK_SERVER") or DEFAULT_TARGET
    try:
        with Client(target) as client:
            _run(client, given, as_json=getattr(given, "json", False))
    except ChronobookError as error:
        print(f"chronobook: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # Whoever read this has seen enough; nothing may be written any more, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 0 if given.command == "watch" else 128 + signal.SIGINT
    return 0


if __name__ == "__main__":
    sys.exit(main())
