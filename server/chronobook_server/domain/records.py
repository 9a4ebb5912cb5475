"""Records that the synchronisation emits; book, history and broker consume them.

A symbol's records form epochs: EpochBegan, then the Updates that continue its book without a hole, then a Gap. An
epoch is named by its book's update id. Every time is the one that history keeps: no record goes back behind the one
before it. Prices and quantities are in steps of the instrument last announced.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from chronobook_server.domain.coverage import Cause, KnownRange
from chronobook_server.domain.depth import DepthUpdate
from chronobook_server.domain.instrument import Instrument
from chronobook_server.domain.packed_columns import LevelColumns
from chronobook_server.domain.values import SLACK_MS, Millis, Nanos, UpdateId

# An event can arrive this much later than a snapshot of the same moment.
_LATE_MS = 5000


@dataclass(frozen=True, slots=True)
class Keyframe:
    """A whole book at an update id, with the range of prices that it proves.

    `levels` maps a price to its signed quantity (positive bid, negative ask). `observed_prices` are known prices
    outside the range: empty if they have no level. If the first Update does not have `previous_final_update_id ==
    update_id`, it holds the keyframe's update id itself, and the epoch's first instant is that Update's. Until there is
    an Update, the epoch is not confirmed.
    """

    instrument: Instrument
    update_id: UpdateId
    transaction_time: Millis
    event_time: Millis
    receive_time: Nanos
    levels: Mapping[int, int]
    known_range: KnownRange
    observed_prices: frozenset[int] = frozenset()


class BestPrices(NamedTuple):
    """The best bid and ask with their quantities, in steps; both 0 if that side is empty."""

    bid: int
    bid_quantity: int
    ask: int
    ask_quantity: int

    def joined_by(self, levels: Mapping[int, int]) -> "BestPrices":
        """Return the best prices when these levels, signed, are known too."""
        bid = max((price for price, quantity in levels.items() if quantity > 0), default=0)
        ask = min((price for price, quantity in levels.items() if quantity < 0), default=0)
        bids = (bid, levels[bid]) if bid > self.bid else (self.bid, self.bid_quantity)
        asks = (ask, -levels[ask]) if ask and (ask < self.ask or not self.ask) else (self.ask, self.ask_quantity)
        return BestPrices(*bids, *asks)


NO_BEST_PRICES = BestPrices(0, 0, 0, 0)


@dataclass(slots=True)
class Update:
    """The level changes of one event: `columns` have the prices, and the signed quantities that rest there now.

    Unchanged prices are not among them. Zero is an emptied level, or a price newly proven empty. `best` holds the best
    prices after the event. `transaction_time` never decreases within a symbol. Not frozen: one is made per event on the
    hot path.
    """

    first_update_id: UpdateId
    final_update_id: UpdateId
    previous_final_update_id: UpdateId
    transaction_time: Millis
    event_time: Millis
    receive_time: Nanos
    best: BestPrices
    columns: LevelColumns
    _changes: Mapping[int, int] | None = field(default=None, init=False, repr=False, compare=False)

    @classmethod
    def of(cls, event: DepthUpdate, time: Millis, best: BestPrices, columns: LevelColumns) -> "Update":
        """Return the record of an event at this time, with the book's best prices and changes after it."""
        return cls(
            event.first_update_id,
            event.final_update_id,
            event.previous_final_update_id,
            time,
            event.event_time,
            event.receive_time,
            best,
            columns,
        )

    @property
    def changes(self) -> Mapping[int, int]:
        """The changes, a price to its quantity; made at the first use, because nearly no event needs it."""
        changes = self._changes
        if changes is None:
            changes = self._changes = self.columns.levels()
        return changes


@dataclass(frozen=True, slots=True)
class RangeWidened:
    """The known range and the new levels after a later snapshot proved more prices."""

    transaction_time: Millis
    update_id: UpdateId
    levels: Mapping[int, int]
    known_range: KnownRange


@dataclass(frozen=True, slots=True)
class Gap:
    """The epoch has ended: nothing is known after `start`, the last final instant, until the next EpochBegan.

    `update_id` is that of the last event applied, whose `T` lies 1 ms after `start`.
    """

    start: Millis
    update_id: UpdateId
    cause: Cause


@dataclass(frozen=True, slots=True)
class EpochBegan:
    """A book is known from `start` on: the Update that follows has confirmed it.

    Where that Update does not say `previous_final_update_id == book.update_id`, it holds the book's update id itself,
    and `start` is that Update's. `gap` ends at `start`; None where the records do not tell of its beginning.
    """

    start: Millis
    book: Keyframe
    gap: Gap | None = None


@dataclass(frozen=True, slots=True)
class Cut:
    """The next segment of the history begins at `start`, before the Update that follows."""

    start: Millis


@dataclass(frozen=True, slots=True)
class Suspended:
    """The book after `start`, the last final instant, is uncertain: the next event shows whether one was missed.

    Resumed follows if none was missed, otherwise a Gap that starts here.
    """

    start: Millis
    update_id: UpdateId
    cause: Cause


@dataclass(frozen=True, slots=True)
class Resumed:
    """Nothing was missed since Suspended: the epoch goes on."""


@dataclass(frozen=True, slots=True)
class InstrumentChanged:
    """Prices and quantities are in the steps of this instrument from here on."""

    instrument: Instrument


@dataclass(frozen=True, slots=True)
class Contract:
    """Contract as the exchange lists it: its word for the state (usually TRADING), and its rules.

    Tick and step size are decimal text as on the wire, empty if the list has none; old orders keep the old tick.
    """

    trading_status: str
    tick_size: str = ""
    step_size: str = ""

    @property
    def is_trading(self) -> bool:
        """Whether the contract is traded; an unknown word means that it is not."""
        return self.trading_status == "TRADING"


@dataclass(frozen=True, slots=True)
class ContractChanged:
    """The exchange lists the contract differently from about this time on."""

    time: Millis
    contract: Contract


def epoch_start(keyframe: Keyframe, update: Update | DepthUpdate, complete_to: Millis | None) -> Millis:
    """Return the first instant of the epoch that a snapshot's book and its first event make.

    `complete_to` is the last final instant of the epoch before: no epoch begins on it. If the event continues the
    snapshot, the epoch starts when the snapshot was received, or at the snapshot's own time if that is no older.
    """
    start = update.transaction_time
    if update.previous_final_update_id == keyframe.update_id:
        elapsed = max((update.receive_time - keyframe.receive_time) // 1_000_000, 0)
        received = update.transaction_time - elapsed
        # A snapshot dated to the end of the history before does not show when its own state began.
        is_later = complete_to is None or keyframe.transaction_time > complete_to
        is_believed = is_later and keyframe.transaction_time >= received - SLACK_MS
        # An event may take longer than a snapshot to come, so a start from receive times alone is later by that much.
        start = Millis(min(keyframe.transaction_time if is_believed else received + _LATE_MS, start))
    return start if complete_to is None else Millis(max(start, complete_to + 1))


Record: TypeAlias = (
    EpochBegan | Cut | Update | RangeWidened | Suspended | Resumed | Gap | InstrumentChanged | ContractChanged
)
