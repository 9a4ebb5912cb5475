"""The exchange's list of contracts: its decoding, and the rule for the end of a contract. Pure.

An odd entry costs only itself. A list without any contract is refused. A symbol that a mostly broken list lacks may be
in its broken part. A contract has ended when a second list, some time later, says so too and its stream brought no
event meanwhile.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chronobook_server.domain.records import Contract
from chronobook_server.domain.stream_id import StreamId
from chronobook_server.domain.symbol_names import one_line, valid_symbol
from chronobook_server.domain.values import Millis
from chronobook_server.venue.binance_futures.frames import LARGEST, MalformedFrame, MalformedKind, json_object

# The exchange has about 900 contracts. Each served one takes memory and open files.
MOST_CONTRACTS = 5000
# Seconds between the two lists that say that a contract is no longer traded.
SECOND_LOOK_SECONDS = 30.0
# The words for contracts that are not traded. Another word, or another letter case, proves nothing.
_NOT_TRADED = frozenset(
    ("PENDING_TRADING", "PRE_SETTLE", "SETTLING", "PRE_DELIVERING", "DELIVERING", "DELIVERED", "CLOSE", "NOT_LISTED")
)
# Characters of a status; the longest one of the exchange has 15.
_LONGEST_STATUS = 32
_SIZE = re.compile(r"[0-9]{1,20}(\.[0-9]{1,20})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class ExchangeInfo:
    """The exchange's contracts by symbol, its time, and the request weight that it allows a minute.

    Time and weight are None if the reply has none. `odd` has the symbols with unreadable entries. `is_partial`: most
    entries are odd, so an absent symbol may still be listed.
    """

    contracts: dict[str, Contract]
    server_time: Millis | None
    weight_limit: int | None
    odd: frozenset[str] = frozenset()
    odd_entries: int = 0
    is_partial: bool = False


def decode_exchange_info(data: bytes) -> ExchangeInfo:
    """Return the contents of an `exchangeInfo` reply. Raises MalformedFrame, also for a list without any contract."""
    body = _body(data)
    entries = body.get("symbols")
    if type(entries) is not list or not entries:
        raise MalformedFrame(MalformedKind.BAD_FIELD)
    if len(entries) > MOST_CONTRACTS:
        raise MalformedFrame(MalformedKind.BAD_RANGE)
    contracts: dict[str, Contract] = {}
    odd: set[str] = set()
    odd_entries = 0
    for entry in entries:
        symbol = entry.get("symbol") if isinstance(entry, dict) else None
        if not valid_symbol(symbol):
            odd_entries += 1
            continue
        contract = _contract(entry)
        if contract is None or contracts.get(symbol, contract) != contract:
            odd_entries += 1
            odd.add(symbol)
        else:
            contracts[symbol] = contract
    for symbol in odd:
        contracts.pop(symbol, None)  # of two entries that differ, neither is believed
    if not contracts:
        raise MalformedFrame(MalformedKind.BAD_FIELD)
    time = body.get("serverTime")
    return ExchangeInfo(
        contracts,
        Millis(time) if type(time) is int and 0 < time < LARGEST else None,
        _weight_limit(body.get("rateLimits")),
        frozenset(odd),
        odd_entries,
        is_partial=2 * odd_entries > len(entries),
    )


def _body(data: bytes) -> dict[str, Any]:
    """Return the JSON object in a reply. Raises MalformedFrame.

    One name that is not UTF-8, half a surrogate or NaN makes the whole reply unreadable by the rules of JSON. The
    second reading is lenient, so that such a text costs its entry only.
    """
    try:
        return json_object(data)
    except MalformedFrame as error:
        if error.kind is not MalformedKind.NOT_JSON:
            raise
    try:
        body = json.loads(data.decode(errors="replace"), strict=False)
    except (ValueError, RecursionError):
        raise MalformedFrame(MalformedKind.NOT_JSON) from None
    if not isinstance(body, dict):
        raise MalformedFrame(MalformedKind.NOT_A_FRAME)
    return body


def _contract(entry: Mapping[str, Any]) -> Contract | None:
    """Return the contract of an entry; None if its status is missing."""
    status = entry.get("status")
    if type(status) is not str or not status:
        return None
    return Contract(
        trading_status=one_line(status, _LONGEST_STATUS),
        tick_size=_size(entry.get("filters"), "PRICE_FILTER", "tickSize"),
        step_size=_size(entry.get("filters"), "LOT_SIZE", "stepSize"),
    )


def _size(filters: object, kind: str, name: str) -> str:
    """Return a size as decimal text; empty if there is none."""
    for rule in filters if isinstance(filters, list) else ():
        if isinstance(rule, dict) and rule.get("filterType") == kind:
            size = rule.get(name)
            return size if isinstance(size, str) and _SIZE.fullmatch(size) else ""
    return ""


def _weight_limit(limits: object) -> int | None:
    rules: Sequence[Any] = limits if isinstance(limits, list) else ()
    for rule in rules:
        if not isinstance(rule, dict) or rule.get("rateLimitType") != "REQUEST_WEIGHT":
            continue
        limit = rule.get("limit")
        is_of_a_minute = rule.get("interval", "MINUTE") == "MINUTE" and rule.get("intervalNum", 1) == 1
        if is_of_a_minute and type(limit) is int and 0 < limit < LARGEST:
            return limit
    return None


def may_be_traded(contract: Contract) -> bool:
    """Return whether a contract may be traded; for an unknown status, its stream decides."""
    return contract.trading_status not in _NOT_TRADED


class Doubts:
    """Streams of contracts that a list calls not traded. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._since: dict[StreamId, tuple[float, int]] = {}  # the first such list's time, and events by then

    def __bool__(self) -> bool:
        return bool(self._since)

    def is_ended(self, stream: StreamId, events: int, now: float) -> bool:
        """Return whether a stream's contract, which a list calls not traded, has ended; `events` counts its events."""
        first = self._since.get(stream)
        if first is None or first[1] != events:
            self._since[stream] = (now, events)
            return False
        if now - first[0] < SECOND_LOOK_SECONDS:
            return False
        del self._since[stream]
        return True

    def over(self, stream: StreamId) -> None:
        """Clear the doubt, because a list calls the contract traded."""
        self._since.pop(stream, None)
