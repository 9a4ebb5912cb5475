import gzip
from pathlib import Path

import orjson
import pytest

from chronobook_server.simulator.replay import BadRecording, lines_of, survey
from tests.support import captures


def event(symbol: str, final: int) -> dict[str, object]:
    return {
        "e": "depthUpdate",
        "s": symbol,
        "U": final,
        "u": final,
        "pu": final - 1,
        "T": final,
        "E": final,
        "b": [],
        "a": [],
    }


def recording(path: Path, *bodies: object) -> Path:
    text = b"".join(b"%d " % number + orjson.dumps(body) + b"\n" for number, body in enumerate(bodies, start=1))
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


@pytest.mark.parametrize("name", ["lines.jsonl", "lines.jsonl.gz"])
def test_frames_raw_events_and_rest_bodies_are_told_apart(name: str, tmp_path: Path) -> None:
    path = recording(
        tmp_path / name,
        {"stream": "ethusdt@depth", "data": event("ETHUSDT", 1)},
        event("ETHUSDT", 2),
        {"lastUpdateId": 2, "bids": [], "asks": [], "T": 1, "E": 1},
        {"stream": "ethusdt@bookTicker", "data": {"e": "bookTicker", "s": "ETHUSDT", "u": 3}},
        {"result": None, "id": 1},
        {"symbols": [{"symbol": "ETHUSDT"}]},
    )
    assert survey(path).symbols == ("ETHUSDT",)
    assert survey(path).exchange_info == {"symbols": [{"symbol": "ETHUSDT"}]}
    kinds = [
        (line.receive_ns, line.depth is not None, line.snapshot is not None, line.ticker is not None)
        for line in lines_of(path, "ETHUSDT", ("ETHUSDT",))
    ]
    assert kinds == [(1, True, False, False), (2, True, False, False), (3, False, True, False), (4, False, False, True)]


def test_a_snapshot_among_several_symbols_must_say_whose_it_is(tmp_path: Path) -> None:
    snapshot = {"lastUpdateId": 2, "bids": [], "asks": [], "T": 1, "E": 1}
    path = recording(tmp_path / "two", event("A", 1), event("B", 1), snapshot)
    with pytest.raises(BadRecording, match="line 3"):
        list(lines_of(path, "A", survey(path).symbols))
    path = recording(tmp_path / "two", event("A", 1), event("B", 1), snapshot | {"symbol": "B"})
    assert [line.snapshot is not None for line in lines_of(path, "A", survey(path).symbols)] == [False]
    assert [line.snapshot is not None for line in lines_of(path, "B", survey(path).symbols)] == [False, True]


@pytest.mark.parametrize("text", [b"nonsense\n", b"1 {broken\n", b"x {}\n", b"1 5\n"])
def test_what_is_no_recording_is_said_with_its_line(text: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bad"
    path.write_bytes(text)
    with pytest.raises(BadRecording, match="bad, line 1"):
        survey(path)
    path.write_bytes(b'1 {"result":null}\n')
    with pytest.raises(BadRecording, match="no depth events"):
        survey(path)


@captures.needs_captures
def test_the_real_capture_is_read_whole() -> None:
    lines = list(lines_of(captures.ETHUSDT, "ETHUSDT", survey(captures.ETHUSDT).symbols))
    counts = [sum(getattr(line, kind) is not None for line in lines) for kind in ("depth", "snapshot", "ticker")]
    assert counts == [6_586, 1, 53_992]
