import asyncio
from base64 import b64decode
from pathlib import Path
from random import Random

import orjson
import pytest

from chronobook_server.recording.capture_file import CaptureFile, Limits, RecordingNetwork
from chronobook_server.recording.rotated_files import RecordingFailed
from chronobook_server.simulator.recordings import lines_of, survey
from chronobook_server.venue.transport import Disconnected, Reply
from testkit.fakes.fake_network import (
    MINUTE_NS,
    START_NS,
    FakeNetwork,
    depth_frame,
    files_in,
    ok,
    read_lines,
    snapshot_body,
)
from testkit.harness.waiting import PATIENCE

SEED = 20261123


def frame(number: int, size: int = 10) -> bytes:
    """Return a frame that does not compress well."""
    return orjson.dumps({"stream": "x@depth", "data": {"n": number, "text": Random(number).randbytes(size).hex()}})


@pytest.mark.parametrize("name", ["lines.jsonl", "lines.jsonl.gz", "lines.jsonl.zst", "folder"])
async def test_frames_are_recorded_unchanged_with_their_receive_times(name: str, tmp_path: Path) -> None:
    output = tmp_path / "new" / name if name == "folder" else tmp_path / name
    frames: list[bytes | str] = [
        b'{"stream": "a",  "data":{"x":1.50}}',
        '{"stream":"ü","data":{}}',
        b'{"result":null,"id":1}',
    ]
    async with CaptureFile(output) as recording:
        for number, data in enumerate(frames):
            recording.frame(START_NS + number, data)
            await recording.flush()
    (path,) = files_in(output) if name == "folder" else [output]
    assert read_lines(path) == [
        (START_NS + number, data.encode() if isinstance(data, str) else data) for number, data in enumerate(frames)
    ]
    assert (recording.frames, recording.replies, recording.unreadable) == (3, 0, 0)
    assert recording.size == path.stat().st_size


async def test_what_would_break_a_line_is_kept_as_base64(tmp_path: Path) -> None:
    frames = [b'{"a":\n1}', b'{"a":\r1}', b"\xff\xfe", b"[1,2]", b"7", b"", b'{"a":1', b'{"a":NaN}']
    async with CaptureFile(tmp_path / "lines.jsonl") as recording:
        for data in frames:
            recording.frame(5, data)
        recording.frame(5, '{"a":"\ud800"}')
        recording.reply(6, "/fapi/v1/depth?symbol=A", Reply(502, {}, b"<html>\n</html>"))
        recording.frame(7, depth_frame("A", 1))
    lines = read_lines(tmp_path / "lines.jsonl")
    assert [b64decode(orjson.loads(line)["unreadable"]) for _, line in lines[: len(frames)]] == frames
    assert set(orjson.loads(lines[-3][1])) == {"unreadable"}
    refused = orjson.loads(lines[-2][1])
    assert b64decode(refused.pop("unreadable")) == b"<html>\n</html>"
    assert refused == {"request": "/fapi/v1/depth?symbol=A", "status": 502}
    assert recording.unreadable == len(frames) + 2
    assert len(lines) == recording.frames + recording.replies
    # The reply is skipped as a refusal, with any contents.
    assert survey(tmp_path / "lines.jsonl").unreadable == len(frames) + 1


async def test_files_follow_a_grid_of_time_and_never_change_later(tmp_path: Path) -> None:
    seen: dict[Path, bytes] = {}
    added: list[tuple[int, bytes]] = []
    async with CaptureFile(tmp_path, Limits(file_ns=MINUTE_NS)) as recording:
        for second in range(30, 300, 10):
            for line in range(3):
                added.append((START_NS + second * 10**9 + line, frame(second)))
                recording.frame(*added[-1])
            if second % 40:
                await recording.flush()
                *finished, _ = files_in(tmp_path)
                for path in finished:
                    assert seen.setdefault(path, path.read_bytes()) == path.read_bytes()
    paths = files_in(tmp_path)
    assert [path.name for path in paths] == [
        f"20261123T{clock}.000000Z.jsonl.zst" for clock in ("140030", "140100", "140200", "140300", "140400")
    ]
    assert read_lines(*paths) == added
    assert seen.keys() == set(paths[:-1])
    assert all(path.read_bytes() == data for path, data in seen.items())
    assert recording.file_number == 5


async def test_files_follow_each_other_by_size(tmp_path: Path) -> None:
    added: list[tuple[int, bytes]] = []
    async with CaptureFile(tmp_path, Limits(file_bytes=5_000)) as recording:
        for number in range(60):
            added.append((START_NS + number * 10**6, frame(number, 500)))
            recording.frame(*added[-1])
            await recording.flush()
    paths = files_in(tmp_path)
    assert read_lines(*paths) == added
    sizes = [path.stat().st_size for path in paths]
    assert len(sizes) > 3
    assert all(5_000 <= size < 6_000 for size in sizes[:-1])
    assert sum(sizes) == recording.size


async def test_a_clock_that_is_set_back_does_not_disturb_the_order(tmp_path: Path) -> None:
    times = [START_NS, START_NS + MINUTE_NS, START_NS - 60 * MINUTE_NS, START_NS + 2 * MINUTE_NS]
    async with CaptureFile(tmp_path, Limits(file_ns=MINUTE_NS)) as recording:
        for number, time in enumerate(times):
            recording.frame(time, frame(number))
    # Nor does a recorder that comes later, on a clock that is behind.
    before = {path: path.read_bytes() for path in files_in(tmp_path)}
    async with CaptureFile(tmp_path) as recording:
        recording.frame(START_NS, frame(4))
    assert [line for _, line in read_lines(*files_in(tmp_path))] == [frame(number) for number in range(5)]
    assert len(before) == 3
    assert all(path.read_bytes() == data for path, data in before.items())


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst"])
async def test_a_file_cut_anywhere_is_read_up_to_its_last_flush(suffix: str, tmp_path: Path) -> None:
    path, cut = tmp_path / f"whole{suffix}", tmp_path / f"cut{suffix}"
    flushed: list[tuple[int, int]] = []
    async with CaptureFile(path) as recording:
        for number in range(1, 41):
            recording.frame(number, depth_frame("A", number))
            if number % 4 == 0:
                await recording.flush()
                flushed.append((path.stat().st_size, number))
    whole = list(lines_of(path, "A", ("A",)))
    assert [line.receive_ns for line in whole] == list(range(1, 41))
    data = path.read_bytes()
    random = Random(SEED)
    for size in {*random.sample(range(len(data)), 100), *(size for size, _ in flushed), 0, 1, len(data) - 1}:
        cut.write_bytes(data[:size])
        held = list(lines_of(cut, "A", ("A",)))
        assert held == whole[: len(held)]
        assert len(held) >= max((number for at, number in flushed if at <= size), default=0), f"seed {SEED}, {size}"


async def test_a_folder_with_a_cut_file_in_it_is_read_on(tmp_path: Path) -> None:
    for start in (1, 11):
        async with CaptureFile(tmp_path) as recording:
            for number in range(start, start + 10):
                recording.frame(START_NS + number, depth_frame("A", number))
    first, _ = files_in(tmp_path)
    first.write_bytes(first.read_bytes()[:-6])
    lines = lines_of(tmp_path, "A", ("A",))
    assert [line.depth["u"] for line in lines if line.depth is not None] == list(range(1, 21))
    assert survey(tmp_path).unfinished == 1


async def test_a_recording_ends_by_itself_when_it_is_large_enough(tmp_path: Path) -> None:
    async with CaptureFile(tmp_path, Limits(total_bytes=3_000)) as recording:
        for number in range(10):
            recording.frame(START_NS + number, frame(number, 500))
        ending = asyncio.create_task(recording.ended())
        await recording.flush()
        async with asyncio.timeout(PATIENCE):
            await ending
        recording.frame(START_NS + 99, frame(99))
    assert len(read_lines(*files_in(tmp_path))) == 10


async def test_what_cannot_be_written_to_is_said_at_once(tmp_path: Path) -> None:
    taken = tmp_path / "taken.jsonl"
    taken.write_text("somebody's")
    with pytest.raises(RecordingFailed, match=r"cannot record to .*taken\.jsonl: File exists$"):
        CaptureFile(taken)
    assert taken.read_text() == "somebody's"
    with pytest.raises(RecordingFailed, match=r"Not a directory$"):
        CaptureFile(taken / "below")
    with pytest.raises(RecordingFailed, match=r"No such file or directory$"):
        CaptureFile(tmp_path / "missing" / "lines.jsonl")
    (tmp_path / "empty.jsonl").touch()
    async with CaptureFile(tmp_path / "empty.jsonl") as recording:
        recording.frame(1, b"{}")
    assert read_lines(tmp_path / "empty.jsonl") == [(1, b"{}")]


async def test_a_lost_folder_ends_the_recording_with_a_reason(tmp_path: Path) -> None:
    folder = tmp_path / "folder"

    async def lose_it() -> None:
        async with CaptureFile(folder, Limits(file_ns=MINUTE_NS)) as recording:
            recording.frame(START_NS, frame(1))
            await recording.flush()
            folder.rename(tmp_path / "elsewhere")
            recording.frame(START_NS + MINUTE_NS, frame(2))
            async with asyncio.timeout(PATIENCE):
                await recording.ended()

    with pytest.raises(RecordingFailed, match="No such file or directory; the recording up to then is there"):
        await lose_it()
    assert read_lines(*files_in(tmp_path / "elsewhere")) == [(START_NS, frame(1))]


async def test_a_network_is_recorded_unchanged(tmp_path: Path) -> None:
    refusal = Reply(429, {"retry-after": "3"}, b'{"code":-1003}')
    fake = FakeNetwork(depth=[ok(snapshot_body(5)), refusal], time=[ok(b"{}")], exchangeInfo=[ok(b'{"symbols":[]}')])
    async with CaptureFile(tmp_path / "lines.jsonl") as recording:
        network = RecordingNetwork(fake, recording)
        socket = await network.connect("/stream?streams=a@depth")
        fake_socket = await fake.sockets.get()
        for data in (depth_frame("A", 1), '{"result":null,"id":1}', Disconnected("over")):
            fake_socket.frames.put_nowait(data)
        assert await socket.receive() == depth_frame("A", 1)
        assert await network.get("/fapi/v1/exchangeInfo") == ok(b'{"symbols":[]}')
        assert await network.get("/fapi/v1/time") == ok(b"{}")
        assert await network.get("/fapi/v1/depth?symbol=A&limit=1000") == ok(snapshot_body(5))
        assert await network.get("/fapi/v1/depth?symbol=A&limit=5") == refusal
        assert await socket.receive() == '{"result":null,"id":1}'
        with pytest.raises(Disconnected, match="over"):
            await socket.receive()
        await socket.close()
        await network.close()
        assert fake_socket.is_closed
        assert fake.is_closed
    assert read_lines(tmp_path / "lines.jsonl") == [
        (START_NS + 1, depth_frame("A", 1)),
        (START_NS + 2, b'{"request":"/fapi/v1/exchangeInfo","status":200,"data":{"symbols":[]}}'),
        (START_NS + 3, b'{"request":"/fapi/v1/depth?symbol=A&limit=1000","status":200,"data":%s}' % snapshot_body(5)),
        (START_NS + 4, b'{"request":"/fapi/v1/depth?symbol=A&limit=5","status":429,"data":{"code":-1003}}'),
        (START_NS + 5, b'{"result":null,"id":1}'),
    ]
