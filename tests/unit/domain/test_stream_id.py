"""Identity of a stream, and the name of its folder."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronobook_server.domain.stream_id import StreamId, StreamKind, depth_of, has_unknown_kind, stream_named
from chronobook_server.domain.symbol_names import valid_symbol

_symbols = st.text("ABXZÄΣЖ币𠀀019_", min_size=1, max_size=64).filter(valid_symbol)
_streams = st.builds(StreamId, _symbols, st.sampled_from(StreamKind)).filter(
    lambda each: len(each.name.encode()) <= 255
)


@given(_streams)
def test_a_folder_brings_its_stream_back(stream: StreamId) -> None:
    assert stream_named(stream.name) == stream
    assert not has_unknown_kind(stream.name)


@given(_streams, _streams)
def test_no_two_streams_share_a_folder_in_any_letter_case(one: StreamId, other: StreamId) -> None:
    names = (one.name, other.name)
    is_same = one == other
    for folded in (str.casefold, str.upper, str.lower):
        assert (folded(names[0]) == folded(names[1])) is is_same


@given(st.text(max_size=80))
def test_a_name_is_of_one_stream_at_most(name: str) -> None:
    stream = stream_named(name)
    assert stream is None or stream.name == name


def test_depth_has_the_folder_of_its_symbol_as_before() -> None:
    assert depth_of("ETHUSDT") == StreamId("ETHUSDT", StreamKind.DEPTH)
    assert str(depth_of("ETHUSDT")) == depth_of("ETHUSDT").name == "ETHUSDT"


@pytest.mark.parametrize(
    ("name", "kind"), [("ETHUSDT@aggTrade", StreamKind.AGG_TRADE), ("ETHUSDT@rpiDepth", StreamKind.RPI_DEPTH)]
)
def test_another_kind_is_named_after_its_symbol(name: str, kind: StreamKind) -> None:
    assert stream_named(name) == StreamId("ETHUSDT", kind)
    assert str(StreamId("ETHUSDT", kind)) == name


@pytest.mark.parametrize(
    ("name", "is_unknown"),
    [
        ("ETHUSDT@liquidations", True), ("ETHUSDT@depth", True), ("ETHUSDT@AGGTRADE", True), ("ETHUSDT@", True),
        ("ETHUSDT@aggTrade@", True), ("ethusdt@aggTrade", False), ("@aggTrade", False), ("", False), ("..", False),
        ("lost+found", False), ("ETH/USDT@aggTrade", False),
        ("\N{CJK UNIFIED IDEOGRAPH-20000}" * 63 + "@aggTrade", True),
    ],
)  # fmt: skip
def test_no_other_name_is_a_stream(*, name: str, is_unknown: bool) -> None:
    assert stream_named(name) is None
    assert has_unknown_kind(name) is is_unknown


def test_streams_are_ordered_by_symbol() -> None:
    streams = [StreamId(symbol, kind) for kind in StreamKind for symbol in ("B", "A")]
    assert [stream.symbol for stream in sorted(streams)] == ["A"] * 3 + ["B"] * 3
