import gzip
from pathlib import Path

import orjson
import pytest
import zstandard

from chronobook_server.simulator.recordings import BadRecording, lines_of, survey
from testkit.generators import captures


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
    packed = {".gz": gzip.compress, ".zst": zstandard.ZstdCompressor(write_checksum=True).compress}
    path.write_bytes(packed[path.suffix](text) if path.suffix in packed else text)
    return path


@pytest.mark.parametrize("name", ["lines.jsonl", "lines.jsonl.gz", "lines.jsonl.zst"])
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


def test_files_of_a_folder_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    with pytest.raises(BadRecording, match="no recorded files in it"):
        survey(tmp_path)
    (tmp_path / "README").write_text("not a recording")
    for name, number in (("3.jsonl", 3), ("1.jsonl.gz", 1), ("2.jsonl.zst", 2)):
        recording(tmp_path / name, event("ETHUSDT", number))
    assert [line.depth["u"] for line in lines_of(tmp_path, "ETHUSDT", ()) if line.depth is not None] == [1, 2, 3]


def reply(path: str, data: object, status: int = 200) -> dict[str, object]:
    return {"request": path, "status": status, "data": data}


def test_the_first_recorded_reply_that_names_its_symbol_is_taken(tmp_path: Path) -> None:
    body = {"bids": [["5.0", "1"]], "asks": [], "T": 1, "E": 1}
    path = recording(
        tmp_path / "replies.jsonl",
        reply("/fapi/v1/exchangeInfo", {"symbols": [1]}),
        event("A", 5),
        event("币USDT", 15),
        reply("/fapi/v1/depth?symbol=A&limit=1000", {"code": -1003}, 429),
        reply("/fapi/v1/depth?symbol=A&limit=1000", body | {"lastUpdateId": 3}),  # older than the stream
        reply("/fapi/v1/depth?symbol=A&limit=1000", body | {"lastUpdateId": 4}),  # the first event continues it
        reply("/fapi/v1/depth?symbol=%E5%B8%81USDT&limit=1000", body | {"lastUpdateId": 15}),
        event("A", 6),
        reply("/fapi/v1/depth?symbol=A&limit=1000", body | {"lastUpdateId": 6}),  # of a later file
    )
    found = survey(path)
    assert (found.symbols, found.exchange_info) == (("A", "币USDT"), {"symbols": [1]})
    assert (found.unreadable, found.unfinished) == (0, 0)
    for symbol, held in (("A", [(6, 4)]), ("币USDT", [(7, 15)])):
        lines = list(lines_of(path, symbol, found.symbols))
        snapshots = [(line.receive_ns, line.snapshot["lastUpdateId"]) for line in lines if line.snapshot is not None]
        assert snapshots == held


def test_unreadable_recorded_frames_are_passed_over_and_counted(tmp_path: Path) -> None:
    good = event("A", 1)
    bad: list[object] = [
        {"unreadable": "AA=="},
        reply("/fapi/v1/depth?symbol=A", None) | {"unreadable": "AA=="},
        {"stream": "a@depth", "data": [1]},
        {name: value for name, value in good.items() if name != "u"},
        good | {"pu": "0"},
        good | {"b": [["12.x", "1.0"]]},
        good | {"b": [[12.5, "1.0"]]},
        good | {"a": {"price": 1}},
        good | {"s": None},
        reply("/fapi/v1/depth?symbol=A", {"lastUpdateId": 1, "T": 1, "E": 1, "bids": []}),
    ]
    path = recording(tmp_path / "bad.jsonl", *bad, good)
    assert survey(path).unreadable == len(bad)
    assert [line.depth for line in lines_of(path, "A", ("A",))] == [good]


@pytest.mark.parametrize("name", ["damaged.jsonl.gz", "damaged.jsonl.zst"])
def test_a_file_that_was_changed_is_no_recording(name: str, tmp_path: Path) -> None:
    path = recording(tmp_path / name, *(event("A", number) for number in range(1, 200)))
    data = path.read_bytes()
    path.write_bytes(data[:-4] + bytes(byte ^ 255 for byte in data[-4:]))
    with pytest.raises(BadRecording, match=f"^{name}: damaged"):
        survey(path)


@captures.needs_captures
def test_the_real_capture_is_read_whole() -> None:
    lines = list(lines_of(captures.ETHUSDT, "ETHUSDT", survey(captures.ETHUSDT).symbols))
    counts = [sum(getattr(line, kind) is not None for line in lines) for kind in ("depth", "snapshot", "ticker")]
    assert counts == [6_586, 1, 53_992]
