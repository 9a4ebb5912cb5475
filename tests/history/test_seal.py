import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chronobook_server.core.coverage import Cause
from chronobook_server.core.values import Millis
from chronobook_server.history import seal
from chronobook_server.history.layout import DamagedFile, Kind, content_hash, read
from chronobook_server.history.log import UnknownFormat
from chronobook_server.history.memory import Memories
from chronobook_server.history.seal import SealJob, seal_log, sealed_bytes
from chronobook_server.history.sealed import SealedSegment
from tests.support.memory import MemoryFiles, PatientSealer, memory_history
from tests.support.stored import hot_of, log_header, opened, received_later, records


def sections(data: bytes) -> dict[Kind, bytes]:
    _, table = read("1.seg", "X", data, len(data))
    return {kind: data[each.offset : each.offset + each.length] for kind, each in table.items()}


def receive_places(data: bytes) -> dict[Kind, tuple[int, int]]:
    _, table = read("1.seg", "X", data, len(data))
    return {kind: (each.count, each.checksum) for kind, each in table.items()}


@settings(max_examples=15)
@given(st.integers(0, 2**32), st.integers(1, 10**12))
def test_two_servers_that_saw_the_same_stream_make_the_same_file_but_for_when_they_saw_it(
    seed: int, delay: int
) -> None:
    stream = records(seed, events=40)
    one = sealed_bytes(hot_of(stream))
    other = sealed_bytes(hot_of([received_later(record, delay) for record in stream]))
    assert content_hash(one) == content_hash(other)
    assert read("1.seg", "X", one, len(one))[0] == read("1.seg", "X", other, len(other))[0]
    ours, theirs = sections(one), sections(other)
    assert ours.pop(Kind.RECEIVE_TIMES) != theirs.pop(Kind.RECEIVE_TIMES)
    assert ours == theirs
    counts, others = receive_places(one), receive_places(other)
    assert {kind for kind in Kind if counts[kind] != others[kind]} == {Kind.RECEIVE_TIMES}
    assert len(ours) == len(Kind) - 1


def test_another_stream_has_another_content_hash() -> None:
    stream = records(1, events=40)
    assert content_hash(sealed_bytes(hot_of(stream))) != content_hash(sealed_bytes(hot_of(stream[:-1])))


def waiting(patient: PatientSealer) -> tuple[MemoryFiles, SealJob]:
    files = MemoryFiles()
    history = opened(files, sealer=patient)
    for record in records(2, events=60):
        history.append(record)
    _, job, _ = patient.waiting[0]
    return files, job


def test_a_log_becomes_its_file_whoever_does_it() -> None:
    patient = PatientSealer()
    files, job = waiting(patient)
    seal_log(files, job)
    first = files.read(job.segment)
    seal_log(files, job)
    assert files.read(job.segment) == first
    segment = SealedSegment(files, job.segment, "X", Memories())
    assert (segment.end, segment.ended_by) == (job.end, job.ended_by)


def test_the_file_of_a_replayed_log_is_the_file_of_the_segment_in_memory() -> None:
    patient = PatientSealer()
    files, job = waiting(patient)
    done = patient.waiting[0][2]
    seal_log(files, job)
    hot = done.args[0].segment  # type: ignore[attr-defined]
    assert files.read(job.segment) == sealed_bytes(hot)


def test_how_a_segment_ends_is_what_the_job_says() -> None:
    files, job = waiting(PatientSealer())
    seal_log(files, SealJob("X", job.log, "7.seg", Millis(job.end + 5), Cause.CROSSED_BOOK))
    segment = SealedSegment(files, "7.seg", "X", Memories())
    assert (segment.end, segment.ended_by) == (job.end + 5, Cause.CROSSED_BOOK)


def test_a_log_that_holds_nothing_is_not_sealed() -> None:
    files, job = waiting(PatientSealer())
    del files.contents[job.log][5:]
    with pytest.raises(DamagedFile, match=job.log):
        seal_log(files, job)
    assert job.segment not in files.names()


def test_a_log_that_is_not_there_or_not_ours_is_not_sealed() -> None:
    files, job = waiting(PatientSealer())
    files.contents[job.log][: len(log_header(9))] = log_header(9)
    with pytest.raises(UnknownFormat):
        seal_log(files, job)
    files.remove(job.log)
    with pytest.raises(FileNotFoundError):
        seal_log(files, job)


def test_a_chunk_holds_whole_levels_and_no_more_rows_than_it_must(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seal, "CHUNK_ROWS", 20)
    files = MemoryFiles()
    hot = hot_of(records(2, events=150))
    files.write("1.seg", sealed_bytes(hot))
    segment = SealedSegment(files, "1.seg", "X", Memories())
    firsts = [*segment.file.column(Kind.CHUNK_LEVELS).tolist(), segment.header.levels]
    counts = segment.file.column(Kind.LEVEL_ROWS).tolist()
    rows = [counts[low:high] for low, high in itertools.pairwise(firsts)]
    assert sum(map(sum, rows)) == segment.header.rows
    for chunk, following in zip(rows, [*rows[1:], None], strict=True):
        assert chunk
        assert sum(chunk) <= 20 or len(chunk) == 1  # a level stays whole, however many rows it has
        assert following is None or sum(chunk) + following[0] > 20  # the next one had no room


def test_every_change_is_in_a_file_of_few_bytes() -> None:
    history = memory_history(segment_ms=3_600_000)
    for record in records(7, events=2000):
        history.append(record)
    changes = history.level_changes
    history.recorder.close()
    assert history.level_changes == changes
    assert history.bytes / changes < 12
