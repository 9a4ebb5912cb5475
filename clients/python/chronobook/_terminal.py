"""Terminal output: lines in colour if the terminal has any, and a book redrawn in place."""

from collections.abc import Iterable
from typing import TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from chronobook._render import ASK, BID, HEADING, THEME, Words, instant, number, printable
from chronobook.columns import BookMessage
from chronobook.local_book import LocalOrderBook
from chronobook.results import Kind, PriceLevel, Side

# Levels of each side that a live book shows.
DEPTH = 15
_REDRAWS_A_SECOND = 10
_BAR = 24


class Terminal(Console):
    """Console with colours, except in a pipe or with NO_COLOR."""

    def __init__(self, file: TextIO | None = None) -> None:
        super().__init__(file=file, theme=THEME, highlighter=Words(), emoji=False, markup=False)

    def on_broken_pipe(self) -> None:
        """Raise again, because the command handles a closed pipe."""
        raise  # the call comes while the BrokenPipeError is handled

    def say(self, lines: Iterable[str | Text]) -> None:
        """Print lines without wrapping."""
        for line in lines:
            text = self.highlighter(line)
            text.plain = printable(text.plain)  # the same length, so that the colours keep their places
            self.print(text, soft_wrap=True, highlight=False)


class Ladder:
    """A live book: asks above bids, the best ones in the middle, and its state."""

    def __init__(self, depth: int = DEPTH) -> None:
        self.book = LocalOrderBook(depth)
        self.depth = depth
        self._lost: BookMessage | None = None
        self._symbol = ""

    def apply(self, message: BookMessage) -> None:
        """Take in the next message."""
        self._symbol = printable(message.symbol)
        if message.kind is Kind.GAP:
            self._lost = message
        elif message.kind is Kind.STATE:
            self._lost = None
        self.book.apply(message)

    def shown(self, rows: int) -> Group:
        """Return the drawing, with at most `rows` levels of each side."""
        depth = max(1, min(self.depth, rows))
        asks, bids = self.book.levels(Side.ASK, depth), self.book.levels(Side.BID, depth)
        most = max((level.quantity for level in (*asks, *bids)), default=0.0)
        table = Table(box=None, pad_edge=False, header_style=HEADING)
        table.add_column("price", justify="right", no_wrap=True)
        table.add_column("quantity", justify="right", no_wrap=True)
        table.add_column("", no_wrap=True)
        for level in reversed(asks):
            table.add_row(*_row(level, most), style=ASK)
        table.add_row(self._spread(), "", "")
        for level in bids:
            table.add_row(*_row(level, most), style=BID)
        return Group(self._heading(), table)

    def _heading(self) -> Text:
        heading = Text(self._symbol, HEADING).append(f"  {instant(self.book.timestamp)}  ")
        if self._lost is not None:
            return heading.append(f"lost: {self._lost.cause}", "say.bad")
        return heading.append("live", "say.good") if self.book.is_current else heading.append("waiting", "say.bad")

    def _spread(self) -> str:
        bid, ask = self.book.best_bid, self.book.best_ask
        # Rounded to nine decimals, which hides the error of the subtraction.
        return "" if bid is None or ask is None else f"spread {number(round(ask.price - bid.price, 9))}"


def _row(level: PriceLevel, most: float) -> tuple[str, str, str]:
    return number(level.price), number(level.quantity), "\u2588" * round(_BAR * level.quantity / most)


def live(terminal: Terminal, messages: Iterable[BookMessage], depth: int = DEPTH) -> None:
    """Redraw a book in place until its messages end. `depth` is the limit of the stream."""
    ladder = Ladder(depth)
    with Live(console=terminal, refresh_per_second=_REDRAWS_A_SECOND) as drawing:
        for message in messages:
            ladder.apply(message)
            drawing.update(ladder.shown((terminal.height - 4) // 2))
