"""Names of streams on the wire, and the streams that an unreadable frame names."""

import pytest

from chronobook_server.domain.stream_id import StreamId, StreamKind, depth_of
from chronobook_server.venue.binance_futures.frames import UPDATE_SPEEDS
from chronobook_server.venue.binance_futures.salvage import streams_in
from chronobook_server.venue.binance_futures.streams import StreamNames, snapshot_path, stream_name

DEPTH = depth_of("ETHUSDT")
TRADES = StreamId("ETHUSDT", StreamKind.AGG_TRADE)
RPI = StreamId("ETHUSDT", StreamKind.RPI_DEPTH)


@pytest.mark.parametrize(
    ("stream", "speed", "name"),
    [
        (DEPTH, "100ms", "ethusdt@depth@100ms"),
        (DEPTH, "250ms", "ethusdt@depth"),
        (DEPTH, "500ms", "ethusdt@depth@500ms"),
        (TRADES, "100ms", "ethusdt@aggTrade"),
        (RPI, "100ms", "ethusdt@rpiDepth@500ms"),
        (depth_of("币安人生USDT"), "250ms", "币安人生usdt@depth"),
    ],
)
def test_names_are_lower_case_and_only_depth_has_the_speed(stream: StreamId, speed: str, name: str) -> None:
    assert stream_name(stream, speed) == name


@pytest.mark.parametrize("kind", StreamKind)
@pytest.mark.parametrize("speed", UPDATE_SPEEDS)
def test_a_name_brings_its_stream_back(kind: StreamKind, speed: str) -> None:
    names = StreamNames()
    for symbol in ("ETHUSDT", "BTCUSDT_261225", "币安人生USDT"):
        stream = StreamId(symbol, kind)
        name = stream_name(stream, speed)
        assert names[name] == names[name] == stream


@pytest.mark.parametrize(
    "name", ["!bookTicker", "ethusdt@bookTicker", "ethusdt@depth5@100ms", "ethusdt@Depth", "ethusdt", "", "@"]
)
def test_another_name_has_no_stream(name: str) -> None:
    assert StreamNames()[name] is None


def test_remembered_names_are_bounded_in_number_and_length() -> None:
    names = StreamNames()
    for number in range(20_000):
        assert names[f"s{number}@depth"] == depth_of(f"S{number}")
    assert len(names) <= 4096
    before = len(names)
    long = "x" * 10_000
    assert names[f"{long}@depth"] == depth_of(long.upper())
    assert len(names) == before


def test_a_snapshot_is_asked_for_by_kind() -> None:
    assert snapshot_path(DEPTH, 50) == "/fapi/v1/depth?symbol=ETHUSDT&limit=50"
    assert snapshot_path(RPI, 1000) == "/fapi/v1/rpiDepth?symbol=ETHUSDT&limit=1000"
    assert "symbol=%E5%B8%81" in snapshot_path(depth_of("币"), 50)


@pytest.mark.parametrize(
    ("frame", "named"),
    [
        (b'{"stream":"ethusdt@depth@100ms","data":{"e":"depthUpdate","s":"ETHUSDT"', [DEPTH, DEPTH]),
        (b'{"stream":"ethusdt@rpiDepth@500ms","data":{"e":"depthUpdate","s":"ETHUSDT"', [RPI, RPI]),
        (b'{"stream":"ethusdt@aggTrade","data":{"e":', [TRADES]),
        (b'{"data":{"s":"ETHUSDT"', [DEPTH, TRADES, RPI]),  # only the symbol: any of its streams may lack an event
        (b'{"stream":"ethusdt@de', []),
        (b'{"stream":"ethusdt@odd","data":{', [DEPTH, TRADES, RPI]),
        ('{"stream":"ethusdt@depth","data":{"s":"ETH\ud800', [DEPTH]),
        (b"\xff\x00", []),
    ],
)
def test_an_unreadable_frame_names_streams_of_its_kind(frame: bytes | str, named: list[StreamId]) -> None:
    assert list(streams_in(frame)) == named
