"""Decoding of the exchange's bytes, with a name for each kind of fault. Pure.

Unknown fields are ignored. A missing field or a wrong type makes the frame malformed. Levels stay text.
"""

from enum import Enum
from typing import Any

import orjson

from chronobook_server.domain.depth import DepthSnapshot, DepthUpdate
from chronobook_server.domain.stream_id import StreamId, StreamKind
from chronobook_server.domain.values import Millis, Nanos, UpdateId
from chronobook_server.venue.binance_futures.streams import STREAMS

# Ids, weights and list times must be below this: a double holds them exactly, and real ones are far smaller.
LARGEST = 2**53
# Nanoseconds of a later time do not fit 64 bits. `book/sync/time_belief` decides which of the earlier times are right.
_LATEST_MS = 2**63 // 10**6
UPDATE_SPEEDS = ("100ms", "250ms", "500ms")
# The beginning of every frame that the exchange sends, with the name of its stream behind it.
_BEGINNING = b'{"stream":"'
# Bytes in which that name ends. A choice: `decode_frame` reads the frames with longer names.
_LONGEST_BEGINNING = 200
# The event time comes right after stream and kind, before the levels.
_EVENT_TIME = b'"E":'
_LONGEST_TIME = 20  # characters
_DEPTH, _AGG_TRADE = StreamKind.DEPTH, StreamKind.AGG_TRADE


class MalformedKind(Enum):
    """Kind of fault in a frame or a reply; each kind is logged once."""

    NOT_JSON = "not JSON"
    NOT_A_FRAME = "not a frame of a combined stream"
    BAD_FIELD = "a field is missing, has the wrong type or names another stream"
    BAD_RANGE = "its update ids or times are out of bounds"
    BAD_LEVEL = "a level is not a pair of decimal texts"
    UNEXPECTED = "decoding it raised an unexpected exception"


class MalformedFrame(ValueError):
    """Bytes that are not a valid message; `stream` is None if it cannot be read either."""

    def __init__(self, kind: MalformedKind, stream: StreamId | None = None) -> None:
        super().__init__(kind.value)
        self.kind = kind
        self.stream = stream


# The best prices of all symbols that moved, every five seconds.
TICKER_STREAM = "!bookTicker"


def decode_ticker(data: bytes | str) -> tuple[str, UpdateId] | None:
    """Return the symbol and the update id of a best price; None for another frame. Raises MalformedFrame."""
    try:
        frame = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise MalformedFrame(MalformedKind.NOT_JSON) from None
    event = frame.get("data") if isinstance(frame, dict) else None
    if not isinstance(event, dict) or event.get("e") != "bookTicker":
        return None
    symbol, update_id = event.get("s"), event.get("u")
    if type(symbol) is not str or type(update_id) is not int or not 0 < update_id < LARGEST:
        raise MalformedFrame(MalformedKind.BAD_FIELD)
    return symbol, UpdateId(update_id)


def stream_of(frame: bytes | str) -> StreamId | None:
    """Return the stream that the beginning of a frame names; None for any other beginning.

    A frame that names another stream later on is refused when it is read.
    """
    if type(frame) is not bytes or not frame.startswith(_BEGINNING):
        return None
    end = frame.find(b'"', len(_BEGINNING), _LONGEST_BEGINNING)
    return STREAMS[frame[len(_BEGINNING) : end].decode(errors="replace")] if end > 0 else None


def follows_event(frame: bytes | str, update_id: UpdateId) -> bool:
    """Return whether a frame can hold the event after this update id; False for a frame in any other notation."""
    return type(frame) is bytes and b'"pu":%d,' % update_id in frame


def event_time_of(frame: bytes | str) -> Millis | None:
    """Return the event time that a frame tells in the exchange's own notation; None for any other notation."""
    if type(frame) is not bytes:
        return None
    start = frame.find(_EVENT_TIME, 0, _LONGEST_BEGINNING) + len(_EVENT_TIME)
    end = frame.find(b",", start, start + _LONGEST_TIME)
    digits = frame[start:end]
    return Millis(int(digits)) if start >= len(_EVENT_TIME) and end > 0 and digits.isdigit() else None


def decode_frame(data: bytes | str, receive_time: Nanos) -> tuple[StreamId, DepthUpdate] | None:
    """Return a frame's stream and depth update; None for a frame of another kind. Raises MalformedFrame."""
    try:
        frame = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise MalformedFrame(MalformedKind.NOT_JSON) from None
    try:
        event = frame["data"]
        name = frame["stream"]
    except (KeyError, TypeError):
        if isinstance(frame, dict) and ("id" in frame or "result" in frame or "error" in frame):
            return None  # the answer to a subscription
        raise MalformedFrame(MalformedKind.NOT_A_FRAME) from None
    stream = STREAMS[name] if type(name) is str else None
    try:
        if event["e"] != "depthUpdate":
            if stream is not None and stream.kind is _DEPTH:
                raise MalformedFrame(MalformedKind.BAD_FIELD, stream)
            return None
        update = DepthUpdate(
            first_update_id=event["U"],
            final_update_id=event["u"],
            previous_final_update_id=event["pu"],
            transaction_time=event["T"],
            event_time=event["E"],
            receive_time=receive_time,
            bids=event["b"],
            asks=event["a"],
        )
        symbol = event["s"]
    except (KeyError, TypeError):
        raise MalformedFrame(MalformedKind.BAD_FIELD, stream) from None
    first, final, previous, time, event_time = event["U"], event["u"], event["pu"], event["T"], event["E"]
    if not (
        type(first) is type(final) is type(previous) is type(time) is type(event_time) is int
        and type(update.bids) is type(update.asks) is list
    ):
        raise MalformedFrame(MalformedKind.BAD_FIELD, stream)
    # An event that names another symbol than its stream, or is of another kind, is not read for either of them.
    if stream is None or stream.symbol != symbol or stream.kind is _AGG_TRADE:
        raise MalformedFrame(MalformedKind.BAD_FIELD, stream)
    if not (
        0 <= previous < LARGEST
        and 0 < first <= final < LARGEST
        and 0 < time < _LATEST_MS
        and 0 < event_time < _LATEST_MS
    ):
        raise MalformedFrame(MalformedKind.BAD_RANGE, stream)
    return stream, update


def decode_snapshot(data: bytes, *, limit: int, receive_time: Nanos) -> DepthSnapshot:
    """Return the depth snapshot in a reply to a request with this limit. Raises MalformedFrame."""
    body = json_object(data)
    numbers = [body.get(name) for name in ("lastUpdateId", "T", "E")]
    bids, asks = body.get("bids"), body.get("asks")
    if not all(type(number) is int for number in numbers) or not type(bids) is type(asks) is list:
        raise MalformedFrame(MalformedKind.BAD_FIELD)
    last_update_id, transaction_time, event_time = (int(number) for number in numbers if number is not None)
    if not (0 < last_update_id < LARGEST and 0 < transaction_time < _LATEST_MS and 0 < event_time < _LATEST_MS):
        raise MalformedFrame(MalformedKind.BAD_RANGE)
    assert isinstance(bids, list)
    assert isinstance(asks, list)
    return DepthSnapshot(
        last_update_id=UpdateId(last_update_id),
        transaction_time=Millis(transaction_time),
        event_time=Millis(event_time),
        receive_time=receive_time,
        limit=limit,
        bids=bids,
        asks=asks,
    )


def json_object(data: bytes) -> dict[str, Any]:
    """Return the JSON object in a reply. Raises MalformedFrame."""
    try:
        body = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise MalformedFrame(MalformedKind.NOT_JSON) from None
    if not isinstance(body, dict):
        raise MalformedFrame(MalformedKind.NOT_A_FRAME)
    return body
