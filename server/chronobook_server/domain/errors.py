"""Refusals of questions, as data: the service maps each class to a status in one table."""

from chronobook_server.domain.values import Millis


class Refusal(Exception):
    """The base of every reason for which a question gets no answer."""


class InvalidField(Refusal):
    """Fields of the question are missing or out of bounds: (field, description) pairs."""

    def __init__(self, *violations: tuple[str, str]) -> None:
        super().__init__("; ".join(f"{field} {description}" for field, description in violations))
        self.violations = violations


# Symbols named in an error. Errors travel in headers, which have no room for every symbol of an exchange.
_NAMED = 20


class SymbolNotServed(Refusal):
    """The server does not serve this symbol; `served` are some that it serves."""

    def __init__(self, symbol: str, served: tuple[str, ...]) -> None:
        self.symbol = symbol
        self.served = served[:_NAMED]
        more = f" and {len(served) - _NAMED} more" if len(served) > _NAMED else ""
        super().__init__(f"{symbol} is not served here; served: {', '.join(self.served)}{more}")


class InTheFuture(Refusal):
    """The instant is more than a second after now (both in ms of the exchange's clock)."""

    def __init__(self, instant: float, now: Millis) -> None:
        super().__init__(f"{instant / 1000:.3f} is in the future; now is {now / 1000:.3f} by the exchange's clock")
        self.now = now


class BeforeHistory(Refusal):
    """The instant is before the oldest one kept; `oldest` is None while nothing is kept."""

    def __init__(self, instant: float, oldest: Millis | None) -> None:
        held = "no history is held yet" if oldest is None else f"history starts at {oldest / 1000:.3f}"
        super().__init__(f"{instant / 1000:.3f} is before the history: {held}")
        self.oldest = oldest


class HistoryGap(Refusal):
    """The instant lies inside a gap; `end` is None while the gap is open."""

    def __init__(self, *, start: Millis, end: Millis | None, cause: str) -> None:
        until = "and is still open" if end is None else f"and ends at {end / 1000:.3f}"
        super().__init__(f"nothing is known of that instant: a gap starts at {start / 1000:.3f} {until} ({cause})")
        self.start = start
        self.end = end
        self.cause = cause


class LevelUnknown(Refusal):
    """No snapshot covered the price and no event has named it; the known range is in doubles, None if open."""

    def __init__(self, what: str, *, lowest: float | None, highest: float | None) -> None:
        low = "the lowest bid" if lowest is None else f"{lowest:.15g}"
        high = "the highest ask" if highest is None else f"{highest:.15g}"
        is_empty = lowest is not None and highest is not None and lowest > highest
        super().__init__(
            f"{what}; " + ("no price is proven" if is_empty else f"everything is known from {low} to {high}")
        )
        self.lowest = lowest
        self.highest = highest


class NotSynced(Refusal):
    """A question about now, while there is no book in sync."""

    def __init__(self, symbol: str, state: str) -> None:
        super().__init__(f"the book of {symbol} is not in sync with the exchange ({state})")
        self.state = state


class TooOld(Refusal):
    """The answer would be older than the question allows, in seconds."""

    def __init__(self, *, age: float, max_age: float) -> None:
        super().__init__(f"the book last moved on {age:.3f} s ago, more than max_age ({max_age:g} s)")
        self.age = age
        self.max_age = max_age


class TooBusy(Refusal):
    """All places of a kind of call are held, and the caller has its share of them."""

    def __init__(self) -> None:
        super().__init__("all places are held, and this caller has its share of them; ask again in a moment")


class DiskBusy(Refusal):
    """The disk does not answer, and many questions wait for it already."""

    def __init__(self) -> None:
        super().__init__("the disk of this history does not answer at the moment; ask again later")


class DeadlineExceeded(Refusal):
    """The caller's own deadline passes before the call is done."""

    def __init__(self) -> None:
        super().__init__("the deadline of the call has passed")


class SlowConsumer(Refusal):
    """A subscriber reads so slowly that its next event has left the history."""

    def __init__(self, read_to: Millis) -> None:
        super().__init__("the reader was so slow that the next message has left the history")
        self.read_to = read_to
