"""Command `chronobook`: the client's questions from a shell, for people or, with --json, for other programs."""

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from chronobook import _render
from chronobook._call import DEFAULT_TARGET, Token
from chronobook._export import EXPORTS, Exported, export
from chronobook._extras import ExtraMissing
from chronobook._terminal import DEPTH, Terminal, live
from chronobook._tls import Tls
from chronobook.client import Client
from chronobook.columns import BookMessage
from chronobook.errors import ChronobookError
from chronobook.results import LevelMessage, Side


class _Command(NamedTuple):
    help: str
    words: str
    flags: tuple[str, ...] = ()

    @property
    def last(self) -> str:
        """The kind of the last word, PRICE or FILE; "" if none is required."""
        return self.words.rpartition(" ")[2].strip("[]").replace("SYMBOL", "")


COMMANDS = {
    "symbols": _Command("the served symbols, with their status", ""),
    "status": _Command("the status of a symbol's book", "[SYMBOL]"),
    "book": _Command(
        "the book, now, at an instant, or with --live as it changes", "[SYMBOL]", ("--limit", "--at", "--live")
    ),
    "quantity": _Command(
        "the quantity at the level nearest to a price; at exactly this price with --at", "[SYMBOL] PRICE", ("--at",)
    ),
    "nearest": _Command("the level nearest to a price, now or at an instant", "[SYMBOL] PRICE", ("--at", "--side")),
    "changes": _Command("every change of a level over an interval", "[SYMBOL] PRICE", ("--from", "--to")),
    "best": _Command("the best prices over an interval, after each of their changes", "[SYMBOL]", ("--from", "--to")),
    "history": _Command("the covered instants, and the gaps", "[SYMBOL]"),
    "watch": _Command(
        "every change of a level, from now or from an instant on", "[SYMBOL] PRICE", ("--from", "--to", "--min-change")
    ),
    "export": _Command(
        "every change of the book over an interval, into a .parquet or .npz file", "[SYMBOL] FILE", ("--from", "--to")
    ),
}
_INTERRUPTED = 130


class _Flag(NamedTuple):
    """An option; one without a `metavar` takes no value."""

    metavar: str
    type: Callable[[str], Any]
    help: str
    dest: str

    def add_to(self, parser: argparse.ArgumentParser, name: str) -> None:
        """Add this option to a command."""
        if self.metavar:
            parser.add_argument(name, metavar=self.metavar, type=self.type, help=self.help, dest=self.dest)
        else:
            parser.add_argument(name, action="store_true", help=self.help, dest=self.dest)


def _instant(text: str) -> float:
    """Read Unix seconds, or a date and time of ISO 8601 with its offset."""
    with suppress(ValueError):
        return float(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither Unix seconds nor a date and time of ISO 8601") from None
    if moment.tzinfo is None:
        raise argparse.ArgumentTypeError(f"{text!r} has no offset; write Z after it for UTC")
    return moment.timestamp()


def _limit(text: str) -> int:
    """Read a number of levels; the contract has an int32 for it."""
    if not text.isdecimal() or not 1 <= int(text) < 2**31:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 up")
    return int(text)


def _side(text: str) -> Side:
    """Read a side, in any case."""
    if text.upper() not in ("BID", "ASK"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither bid nor ask")
    return Side(text.upper())


_TIME = "Unix seconds, or ISO 8601 with an offset or Z"
FLAGS = {
    "--limit": _Flag("N", _limit, "levels a side", "limit"),
    "--at": _Flag("TIME", _instant, _TIME, "at"),
    "--live": _Flag("", bool, "stay, and show every change", "live"),
    "--side": _Flag("bid|ask", _side, "only this side", "side"),
    "--from": _Flag("TIME", _instant, f"{_TIME}; default: the oldest instant held; of watch: now", "start"),
    "--min-change": _Flag("QUANTITY", float, "leave out smaller changes", "min_change"),
    "--to": _Flag(
        "TIME", _instant, f"{_TIME}; default: the newest instant whose answers are final; of watch: no end", "end"
    ),
}


_TLS_FILES = {
    "--ca": "use TLS, and trust these certificates (PEM); default: CHRONOBOOK_CA",
    "--cert": "use TLS with this client certificate (PEM); default: CHRONOBOOK_CERT",
    "--key": "its private key (PEM); default: CHRONOBOOK_KEY",
}
_TOKEN_FILE = (
    "send the token in this file, read anew for every call; default: the token in CHRONOBOOK_TOKEN. "
    "It is never an argument, because other users of this machine can see arguments"
)


def _number(text: str) -> float | None:
    """Read a number; None if the text is not one."""
    try:
        return float(text)
    except ValueError:
        return None


def _parser() -> argparse.ArgumentParser:
    # Accepted before and after the command; an absent option leaves no default, so neither place resets the other.
    # Abbreviations are refused, because --to would mean --token-file for a command without --to.
    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument("--server", metavar="HOST:PORT", help=f"default: CHRONOBOOK_SERVER, or else {DEFAULT_TARGET}")
    common.add_argument("--json", action="store_true", help="one JSON object, or one a line")
    common.add_argument("--tls", action="store_true", help="use TLS; default: CHRONOBOOK_TLS=1")
    for name, help_text in _TLS_FILES.items():
        common.add_argument(name, metavar="FILE", help=help_text)
    common.add_argument("--token-file", metavar="FILE", help=_TOKEN_FILE)
    parser = argparse.ArgumentParser(
        prog="chronobook",
        description="Ask a chronobook server. Without a SYMBOL, the question is about the first one that it keeps.",
        parents=[common],
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        usage = " ".join(f"chronobook {name} {command.words} [--server HOST:PORT] [--json]".split())
        usage += "".join(f" [{f'{flag} {FLAGS[flag].metavar}'.strip()}]" for flag in command.flags)
        each = commands.add_parser(
            name, usage=usage, help=command.help, description=command.help, parents=[common], allow_abbrev=False
        )
        each.set_defaults(parser=each)
        each.add_argument("words", nargs="*", metavar=command.words, help=argparse.SUPPRESS)
        for flag in command.flags:
            FLAGS[flag].add_to(each, flag)
    return parser


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the arguments, with `symbol` ("" for none), `price` or `file`. Exits with 2 if they are invalid."""
    given, others = _parser().parse_known_args(argv)
    # argparse stops reading words at the first option between them, and leaves the rest here.
    unknown = [text for text in others if text.startswith("-") and _number(text) is None]
    if unknown:
        given.parser.error(f"unknown option {unknown[0]}")
    words = [*given.words, *others]
    last = COMMANDS[given.command].last
    if last and not words:
        given.parser.error(f"a {last} is needed")
    if last == "PRICE":
        given.price = _number(words[-1])
        if given.price is None:
            given.parser.error(f"the last word must be the PRICE, and {words[-1]!r} is not a number")
        words.pop()
    elif last == "FILE":
        given.file = Path(words.pop())
        if given.file.suffix not in EXPORTS:
            given.parser.error(f"the last word must be a FILE that ends in {' or '.join(EXPORTS)}")
    if getattr(given, "live", False) and given.at is not None:
        given.parser.error("--live begins now: without --at")
    if len(words) > ("SYMBOL" in COMMANDS[given.command].words):
        given.parser.error(f"one word too many: {words[-1]!r}")
    given.symbol = words[0] if words else ""
    try:
        given.symbol.encode()
    except UnicodeEncodeError:
        given.parser.error(f"{given.symbol!a} is not text")
    return given


def _token_in(path: str) -> str:
    """Return the token in a file. Raises OSError if the file is unreadable or holds something else."""
    words = Path(path).read_text(errors="replace").split()
    if len(words) != 1 or not words[0].isascii():
        raise OSError(f"{path} does not hold a token")
    return words[0]


def _client(given: argparse.Namespace) -> Client:
    """Return a client of the given server. Raises OSError and ValueError as `Tls` does, and for an unusable token."""

    def told(name: str) -> str | None:
        return getattr(given, name, None) or os.environ.get(f"CHRONOBOOK_{name.upper()}") or None

    ca, certificate, key = told("ca"), told("cert"), told("key")
    wants_tls = any((ca, certificate, key)) or told("tls") not in (None, "0")
    token: Token | None = os.environ.get("CHRONOBOOK_TOKEN") or None
    if path := getattr(given, "token_file", None):
        token = partial(_token_in, path)
        token()  # so that an unusable file fails before any question
    return Client(told("server") or DEFAULT_TARGET, tls=Tls(ca, certificate, key) if wants_tls else None, token=token)


def _ask(client: Client, given: argparse.Namespace) -> Any:
    """Ask the given question."""
    match given.command:
        case "symbols":
            return client.symbols()
        case "status":
            return client.status(given.symbol)
        case "book":
            return client.order_book(given.symbol, limit=given.limit, timestamp=given.at)
        case "quantity":
            return client.quantity(given.price, symbol=given.symbol, timestamp=given.at)
        case "nearest":
            return client.nearest_level(given.price, symbol=given.symbol, timestamp=given.at, side=given.side)
        case "changes":
            return client.level_changes(given.price, symbol=given.symbol, start=given.start, end=given.end)
        case "best":
            return client.best_prices(symbol=given.symbol, start=given.start, end=given.end)
        case _:
            return client.history(given.symbol)


def _watch(client: Client, given: argparse.Namespace, terminal: Terminal, *, as_json: bool) -> None:
    """Show the messages of a stream until it ends."""
    if given.command == "watch":
        levels = client.watch_level(
            given.price, start=given.start, end=given.end, min_change=given.min_change, symbol=given.symbol
        )
        if as_json:
            _print_each(levels)
        else:
            terminal.say(map(_render.message_line, levels))
        return
    depth = given.limit or DEPTH
    books = client.watch_order_book(limit=depth, symbol=given.symbol)
    if as_json:
        _print_each(books)
    else:
        live(terminal, books, depth)


def _print_each(messages: Iterable[LevelMessage] | Iterable[BookMessage]) -> None:
    for message in messages:
        print(_render.json_line(message), flush=True)


def _export(client: Client, given: argparse.Namespace) -> Exported:
    """Export an interval of the history, by default the whole history."""
    history = client.history(given.symbol)
    start = (history.oldest_timestamp or 0.0) if given.start is None else given.start
    # Another event may still come in the newest millisecond; before it, the history is complete at once.
    newest = history.newest_timestamp and history.newest_timestamp - 0.001
    end = newest if given.end is None else given.end
    return export(client.watch_order_book(start=start, end=end, symbol=given.symbol, batches=True), given.file)


def _run(client: Client, given: argparse.Namespace, *, as_json: bool) -> None:
    terminal = Terminal()
    if _is_stream(given):
        _watch(client, given, terminal, as_json=as_json)
        return
    result = _export(client, given) if given.command == "export" else _ask(client, given)
    if as_json:
        print(_render.json_line(result), flush=True)
    else:
        terminal.say(_render.lines(result))


def _is_stream(given: argparse.Namespace) -> bool:
    return given.command == "watch" or getattr(given, "live", False)


def _failed(error: Exception) -> int:
    """Print one line with the reason of a failure; return the exit code."""
    line = f"chronobook: {error}"
    if isinstance(error, ChronobookError) and error.reason == error.code.name:
        # The contract has no reason for it, so only the logs of the edge and the server have details.
        line += f" (request {error.request_id})"
    print(_render.printable(line), file=sys.stderr)
    return 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns 0; 1 if the server refuses or is unreachable, or a file is unusable, after one line on stderr; 130 after
    Ctrl+C, but 0 for streams, which have no other end. Exits with 2 for invalid arguments.
    """
    given = _arguments(argv)
    as_json = getattr(given, "json", False)
    if getattr(given, "live", False) and not as_json and not sys.stdout.isatty():
        given.parser.error("--live draws on a terminal; use --json elsewhere")
    try:
        client = _client(given)
    except (OSError, ValueError) as error:
        return _failed(error)
    try:
        with client:
            _run(client, given, as_json=as_json)
    except BrokenPipeError:
        # The reader of the output has closed it, so nothing may be written any more, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ChronobookError, ExtraMissing, OSError) as error:
        return _failed(error)
    except KeyboardInterrupt:
        return 0 if _is_stream(given) else _INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
