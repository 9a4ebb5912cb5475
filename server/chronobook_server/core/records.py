"""The vocabulary that flows from the synchronisation onwards. Book, history and hub all live on these records.

A symbol's records form epochs: a Keyframe, then the Updates that continue it without a hole, then a Gap. An epoch is
named by its keyframe's update id. Prices and quantities are in steps of the instrument last announced.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from .coverage import Cause, KnownRange
from .instrument import Instrument
from .values import Millis, Nanos, UpdateId


@dataclass(frozen=True, slots=True)
class Keyframe:
    """A whole book at an update id, with the range of prices that it proves: the start of an epoch.

    `levels` maps a price to its signed quantity (positive bid, negative ask). Where the first Update does not say
    `previous_final_update_id == update_id`, it holds the keyframe's update id itself, and the epoch's first instant is
    that Update's; until there is an Update, the epoch is not confirmed.
    """

    instrument: Instrument
    update_id: UpdateId
    transaction_time: Millis
    event_time: Millis
    receive_time: Nanos
    levels: Mapping[int, int]
    known_range: KnownRange


@dataclass(slots=True)
class Update:
    """The level changes of one event: `changes` maps a price to the signed quantity that rests there now.

    What stayed as it was is not among them. Zero is an emptied level, or one that the event proved empty where nothing
    was known before.
    `transaction_time` never decreases within a symbol. Not frozen: one is made per event on the hot path.
    """

    first_update_id: UpdateId
    final_update_id: UpdateId
    previous_final_update_id: UpdateId
    transaction_time: Millis
    event_time: Millis
    receive_time: Nanos
    changes: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class RangeWidened:
    """A later snapshot proved more prices: what is known from now on, and the levels that it taught."""

    transaction_time: Millis
    update_id: UpdateId
    levels: Mapping[int, int]
    known_range: KnownRange


@dataclass(frozen=True, slots=True)
class Gap:
    """The chain is lost: nothing is known after `start`, the last applied event's `T`, until the next Keyframe."""

    start: Millis
    update_id: UpdateId
    cause: Cause


@dataclass(frozen=True, slots=True)
class InstrumentChanged:
    """Prices and quantities are in finer steps from here on."""

    instrument: Instrument


@dataclass(frozen=True, slots=True)
class StatusChanged:
    """The exchange's word for the contract's state has changed, to TRADING in the ordinary case."""

    trading_status: str


Record: TypeAlias = Keyframe | Update | RangeWidened | Gap | InstrumentChanged | StatusChanged
