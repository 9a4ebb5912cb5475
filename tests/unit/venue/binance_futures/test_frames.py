from typing import Any

import orjson
import pytest

from chronobook_server.domain.depth import DepthUpdate
from chronobook_server.domain.stream_id import StreamId, StreamKind, depth_of
from chronobook_server.domain.values import Nanos, UpdateId
from chronobook_server.venue.binance_futures.frames import (
    MalformedFrame,
    MalformedKind,
    decode_frame,
    decode_snapshot,
    event_time_of,
    follows_event,
    stream_of,
)
from testkit.generators import captures

NOW = Nanos(1)
EVENT: dict[str, Any] = {
    "e": "depthUpdate", "E": 1723161256303, "T": 1723161256302, "s": "ETHUSDT", "U": 11, "u": 20, "pu": 10,
    "b": [["2681.62", "1.153"]], "a": [["2681.64", "0.000"]], "ps": "ETHUSDT", "st": 1, "new": {"field": [1]},
}  # fmt: skip


def frame(**changes: Any) -> bytes:
    return orjson.dumps({"stream": "ethusdt@depth@100ms", "data": EVENT | changes})


def without(name: str) -> bytes:
    return orjson.dumps(
        {"stream": "ethusdt@depth@100ms", "data": {key: value for key, value in EVENT.items() if key != name}}
    )


def test_a_depth_frame_is_read_and_unknown_fields_are_ignored() -> None:
    assert decode_frame(frame(), NOW) == (
        depth_of("ETHUSDT"),
        DepthUpdate(
            first_update_id=11,  # type: ignore[arg-type]
            final_update_id=20,  # type: ignore[arg-type]
            previous_final_update_id=10,  # type: ignore[arg-type]
            transaction_time=1723161256302,  # type: ignore[arg-type]
            event_time=1723161256303,  # type: ignore[arg-type]
            receive_time=NOW,
            bids=[["2681.62", "1.153"]],  # type: ignore[list-item]
            asks=[["2681.64", "0.000"]],  # type: ignore[list-item]
        ),
    )


@pytest.mark.parametrize(
    "other",
    [
        b'{"result":null,"id":1}',
        b'{"error":{"code":2,"msg":"x"},"id":1}',
        b'{"stream":"ethusdt@bookTicker","data":{"e":"bookTicker","u":1,"s":"ETHUSDT"}}',
    ],
)
def test_frames_of_other_kinds_are_passed_over(other: bytes) -> None:
    assert decode_frame(other, NOW) is None


@pytest.mark.parametrize(
    ("data", "kind", "symbol"),
    [
        (b"", MalformedKind.NOT_JSON, None),
        (frame()[:-9], MalformedKind.NOT_JSON, None),
        (b"\xff\xfe", MalformedKind.NOT_JSON, None),
        (b"[]", MalformedKind.NOT_A_FRAME, None),
        (b"5", MalformedKind.NOT_A_FRAME, None),
        (b"null", MalformedKind.NOT_A_FRAME, None),
        (b'"text"', MalformedKind.NOT_A_FRAME, None),
        (b"{}", MalformedKind.NOT_A_FRAME, None),
        (b'{"stream":5,"data":[]}', MalformedKind.BAD_FIELD, None),
        (b'{"stream":"ethusdt@depth","data":null}', MalformedKind.BAD_FIELD, "ETHUSDT"),
        (b'{"stream":"ethusdt@depth","data":"text"}', MalformedKind.BAD_FIELD, "ETHUSDT"),
        *((without(name), MalformedKind.BAD_FIELD, "ETHUSDT") for name in EVENT if name not in ("ps", "st", "new")),
        *((frame(**{name: "7"}), MalformedKind.BAD_FIELD, "ETHUSDT") for name in ("E", "T", "U", "u", "pu", "b", "a")),
        (frame(u=True), MalformedKind.BAD_FIELD, "ETHUSDT"),
        (frame(u=20.0), MalformedKind.BAD_FIELD, "ETHUSDT"),
        (frame(b={}), MalformedKind.BAD_FIELD, "ETHUSDT"),
        *((frame(s=other), MalformedKind.BAD_FIELD, "ETHUSDT") for other in (5, "BTCUSDT", "ethusdt", "ETHUSDT\0", "")),
        *((frame(e=other), MalformedKind.BAD_FIELD, "ETHUSDT") for other in (5, "depth", ["depthUpdate"])),
        (orjson.dumps({"stream": 5, "data": EVENT}), MalformedKind.BAD_FIELD, None),
        (frame(U=21), MalformedKind.BAD_RANGE, "ETHUSDT"),
        (frame(pu=-1), MalformedKind.BAD_RANGE, "ETHUSDT"),
        (frame(T=EVENT["T"] * 1000), MalformedKind.BAD_RANGE, "ETHUSDT"),  # in microseconds
        (frame(E=EVENT["E"] * 1_000_000), MalformedKind.BAD_RANGE, "ETHUSDT"),
        (frame(T=0, E=0), MalformedKind.BAD_RANGE, "ETHUSDT"),
        (frame(T=2**63), MalformedKind.BAD_RANGE, "ETHUSDT"),
        (frame(u=2**60), MalformedKind.BAD_RANGE, "ETHUSDT"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_malformed_by_name(data: bytes, kind: MalformedKind, symbol: str | None) -> None:
    with pytest.raises(MalformedFrame) as caught:
        decode_frame(data, NOW)
    assert (caught.value.kind, caught.value.stream) == (kind, None if symbol is None else depth_of(symbol))


def test_the_kind_of_a_frame_is_that_of_its_stream() -> None:
    decoded = decode_frame(orjson.dumps({"stream": "ethusdt@rpiDepth@500ms", "data": EVENT}), NOW)
    assert decoded is not None
    assert decoded[0] == StreamId("ETHUSDT", StreamKind.RPI_DEPTH)
    trade = {"e": "aggTrade", "s": "ETHUSDT", "a": 1, "p": "1", "q": "1"}
    assert decode_frame(orjson.dumps({"stream": "ethusdt@aggTrade", "data": trade}), NOW) is None


@pytest.mark.parametrize(
    ("stream", "named"),
    [("ethusdt@aggTrade", StreamId("ETHUSDT", StreamKind.AGG_TRADE)), ("ethusdt@odd", None), ("!bookTicker", None)],
)
def test_a_depth_event_on_another_kind_of_stream_is_refused(stream: str, named: StreamId | None) -> None:
    with pytest.raises(MalformedFrame) as caught:
        decode_frame(orjson.dumps({"stream": stream, "data": EVENT}), NOW)
    assert (caught.value.kind, caught.value.stream) == (MalformedKind.BAD_FIELD, named)


def test_the_beginning_of_a_frame_names_its_stream() -> None:
    assert stream_of(frame()) == depth_of("ETHUSDT")
    assert stream_of(frame()[:40]) == depth_of("ETHUSDT"), "also of a frame that is cut short"
    rpi = frame().replace(b"ethusdt@depth@100ms", b"ethusdt@rpiDepth@500ms")
    assert stream_of(rpi) == StreamId("ETHUSDT", StreamKind.RPI_DEPTH)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b'{"stream": "ethusdt@depth@100ms","data":{}}',
        b'{"data":{},"stream":"ethusdt@depth@100ms"}',
        b'{"stream":"ethusdt@depth@100ms',
        b'{"stream":"",',
        b'{"stream":"ethusdt",',
        b'{"stream":"\xff\xfe@bookTicker",',
        b'{"stream":"' + b"a" * 400 + b'@depth"',
        frame().decode(),
    ],
)
def test_a_frame_with_another_beginning_names_no_stream(data: bytes | str) -> None:
    assert stream_of(data) is None


def test_a_frame_follows_the_event_that_it_names() -> None:
    assert follows_event(frame(), UpdateId(10))
    assert not any(follows_event(frame(), UpdateId(other)) for other in (0, 1, 11, 100))
    assert not follows_event(frame().decode(), UpdateId(10))


def test_a_snapshot_is_read() -> None:
    body = orjson.dumps({"lastUpdateId": 5, "E": 7, "T": 6, "bids": [["1.0", "2"]], "asks": []})
    read = decode_snapshot(body, limit=1000, receive_time=NOW)
    assert (read.last_update_id, read.transaction_time, read.event_time, read.limit) == (5, 6, 7, 1000)
    assert [list(level) for level in read.bids] == [["1.0", "2"]]
    assert list(read.asks) == []


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b'{"code":-1121,"msg":"Invalid symbol."}',
     b'{"lastUpdateId":"5","E":7,"T":6,"bids":[],"asks":[]}', b'{"lastUpdateId":5,"E":7,"T":6,"bids":{},"asks":[]}',
     b'{"lastUpdateId":0,"E":7,"T":6,"bids":[],"asks":[]}', b'{"lastUpdateId":5,"E":7,"bids":[],"asks":[]}'],
)  # fmt: skip
def test_a_snapshot_that_cannot_be_meant_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedFrame):
        decode_snapshot(body, limit=1000, receive_time=NOW)


@captures.needs_captures
def test_every_frame_of_the_real_capture_is_read() -> None:
    depth = others = 0
    for received, body in captures.lines():
        if b"lastUpdateId" in body:
            decode_snapshot(body, limit=1000, receive_time=Nanos(received))
        elif decode_frame(body, Nanos(received)) is None:
            others += 1
        else:
            depth += 1
    assert (depth, others) == (6_586, 53_992)


@pytest.mark.parametrize(
    ("frame", "time"),
    [
        (b'{"stream":"a@depth","data":{"e":"depthUpdate","E":1723165068085,"T":5,"s":"A"}}', 1723165068085),
        (b'{"stream":"a@depth","data":{"E":7,"e":"depthUpdate"}}', 7),
        (b'{"stream":"a@depth","data":{"e":"depthUpdate","E": 1723165068085,"T":5}}', None),
        (b'{"stream":"a@depth","data":{"e":"depthUpdate","E":-5,"T":5}}', None),
        (b'{"stream":"a@depth","data":{"e":"depthUpdate","E":"5","T":5}}', None),
        (b'{"stream":"a@depth","data":{"e":"depthUpdate","E":,"T":5}}', None),
        (b'{"stream":"a@depth","data":{"e":"depthUpdate","E":%d,"T":5}}' % 10**25, None),
        (b'{"E":' + b"9" * 10_000 + b"}", None),
        (b'{"E":5', None),
        (b"x" * 300 + b'"E":5,', None),
        (b"", None),
        ('{"stream":"a@depth","data":{"e":"depthUpdate","E":5,"T":5}}', None),
    ],
)
def test_the_event_time_is_read_only_where_the_exchange_puts_it(frame: bytes | str, time: int | None) -> None:
    assert event_time_of(frame) == time
