import itertools
import pickle
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chronobook_server.domain.packed_columns import LevelColumns
from chronobook_server.domain.records import Update
from chronobook_server.history.format.segment_layout import SectionKind, content_hash, read
from chronobook_server.history.format.wal import encoded_log, read_log
from chronobook_server.history.segment.cache import CacheBudget
from chronobook_server.history.segment.sealed import SealedSegment
from chronobook_server.history.segment.succession import replayed
from chronobook_server.history.write import seal
from chronobook_server.history.write.seal import SealJob, seal_segment, sealed_bytes
from testkit.fakes.memory_files import MemoryFiles, PatientSealer, memory_history
from testkit.generators.stored_histories import ORIGIN, answers, flipped, hot_of, opened, received_later, records

pytestmark = pytest.mark.usefixtures("path")


def sections(data: bytes) -> dict[SectionKind, bytes]:
    _, table = read("1.seg", ORIGIN, data, len(data))
    return {kind: data[each.offset : each.offset + each.length] for kind, each in table.items()}


def receive_places(data: bytes) -> dict[SectionKind, tuple[int, int]]:
    _, table = read("1.seg", ORIGIN, data, len(data))
    return {kind: (each.count, each.checksum) for kind, each in table.items()}


@settings(max_examples=15)
@given(st.integers(0, 2**32), st.integers(1, 10**12))
def test_two_servers_of_one_stream_make_one_file_but_for_arrival(seed: int, delay: int) -> None:
    stream = records(seed, events=40)
    one = sealed_bytes(hot_of(stream), ORIGIN)
    other = sealed_bytes(hot_of([received_later(record, delay) for record in stream]), ORIGIN)
    assert content_hash(one) == content_hash(other)
    assert read("1.seg", ORIGIN, one, len(one))[0] == read("1.seg", ORIGIN, other, len(other))[0]
    ours, theirs = sections(one), sections(other)
    assert ours.pop(SectionKind.RECEIVE_TIMES) != theirs.pop(SectionKind.RECEIVE_TIMES)
    assert ours == theirs
    counts, others = receive_places(one), receive_places(other)
    assert {kind for kind in SectionKind if counts[kind] != others[kind]} == {SectionKind.RECEIVE_TIMES}
    assert len(ours) == len(SectionKind) - 1


def test_another_stream_has_another_content_hash() -> None:
    stream = records(1, events=40)
    assert content_hash(sealed_bytes(hot_of(stream), ORIGIN)) != content_hash(sealed_bytes(hot_of(stream[:-1]), ORIGIN))


def waiting(patient: PatientSealer) -> tuple[MemoryFiles, SealJob]:
    files = MemoryFiles()
    history = opened(files, sealer=patient)
    for record in records(2, events=60):
        history.append(record)
    _, job, _ = patient.waiting[0]
    return files, job


def test_a_segment_becomes_the_same_file_by_anyone_at_any_time() -> None:
    files, job = waiting(PatientSealer())
    assert seal_segment(files, job) is None
    first = files.read(job.segment)
    assert first == sealed_bytes(job.hot, ORIGIN)
    assert seal_segment(files, job) is None
    assert files.read(job.segment) == first
    assert files.aside() == []
    segment = SealedSegment(files, job.segment, ORIGIN, CacheBudget())
    assert (segment.end, segment.ended_by) == (job.hot.end, job.hot.ended_by)


def test_the_file_that_another_process_makes_is_the_same() -> None:
    files, job = waiting(PatientSealer())
    there = pickle.loads(pickle.dumps(job))
    seal_segment(files, there)
    assert files.read(job.segment) == sealed_bytes(job.hot, ORIGIN)


def test_a_replayed_logs_file_is_that_of_the_segment_in_memory() -> None:
    files, job = waiting(PatientSealer())
    contents = read_log(job.log, ORIGIN, files.read(job.log))
    assert contents is not None
    hot = replayed(contents.start, contents.entries)
    assert job.hot.end is not None
    hot.finish(job.hot.end, job.hot.ended_by)
    assert sealed_bytes(hot, ORIGIN) == sealed_bytes(job.hot, ORIGIN)


def test_the_file_follows_memory_and_a_differing_log_is_told() -> None:
    for place in range(0, 2500, 97):
        files, job = waiting(PatientSealer())
        files.contents[job.log] = flipped(files.contents[job.log], place, place % 8)
        assert seal_segment(files, job) is not None, place
        assert files.read(job.segment) == sealed_bytes(job.hot, ORIGIN)
    files.remove(job.log)
    assert seal_segment(files, job) == f"{job.log} cannot be read: [Errno 2] No such file or directory: '{job.log}'"


def test_a_log_of_right_checksums_and_wrong_numbers_is_told() -> None:
    files, job = waiting(PatientSealer())
    contents = read_log(job.log, ORIGIN, files.read(job.log))
    assert contents is not None
    entries = list(contents.entries)
    event = entries[3]
    assert isinstance(event, Update)
    entries[3] = replace(
        event, columns=LevelColumns.of({price: quantity + 1 for price, quantity in event.changes.items()})
    )
    files.contents[job.log] = bytearray(encoded_log(contents.start, entries, ORIGIN))
    assert seal_segment(files, job) == f"{job.log} holds other events than memory"
    assert files.read(job.segment) == sealed_bytes(job.hot, ORIGIN)


def test_a_different_file_of_that_name_is_set_aside_not_lost() -> None:
    files, job = waiting(PatientSealer())
    for number in range(3):
        files.contents[job.segment] = bytearray(b"somebody wrote this %d" % number)
        seal_segment(files, job)
        assert files.read(job.segment) == sealed_bytes(job.hot, ORIGIN)
    assert [files.read(name) for name in files.aside()] == [b"somebody wrote this %d" % number for number in range(3)]


def test_what_an_earlier_process_left_half_written_goes() -> None:
    files, job = waiting(PatientSealer())
    files.contents[f"{job.segment}.77.tmp"] = bytearray(b"half")
    seal_segment(files, job)
    assert not [name for name in files.names() if name.endswith(".tmp")]


def test_a_file_that_reads_back_otherwise_fails_and_memory_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    patient = PatientSealer()
    files = MemoryFiles()
    history = opened(files, sealer=patient)
    for record in records(2, events=60):
        history.append(record)
    (interval,) = history.coverage()
    times = range(interval.start, interval.end, 100)
    before, waiting_before = answers(history, times), history.unsealed
    write = files.write

    def damaging(name: str, data: bytes) -> None:
        write(name, bytes(flipped(data, len(data) // 2)))

    with monkeypatch.context() as patch:
        patch.setattr(files, "write", damaging)
        patient.work()
    assert history.unsealed == waiting_before
    assert history.error is not None
    assert "reads back otherwise" in history.error
    assert answers(history, times) == before
    history.retry_seals()
    patient.work()
    assert not history.unsealed
    assert answers(history, times) == before == answers(opened(files), times)


def test_a_chunk_holds_whole_levels_and_no_needless_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seal, "CHUNK_ROWS", 20)
    files = MemoryFiles()
    hot = hot_of(records(2, events=150))
    files.write("1.seg", sealed_bytes(hot, ORIGIN))
    segment = SealedSegment(files, "1.seg", ORIGIN, CacheBudget())
    firsts = [*segment.file.column(SectionKind.CHUNK_LEVELS).tolist(), segment.file.header.levels]
    counts = segment.file.column(SectionKind.LEVEL_ROWS).tolist()
    rows = [counts[low:high] for low, high in itertools.pairwise(firsts)]
    assert sum(map(sum, rows)) == segment.file.header.rows
    for chunk, following in zip(rows, [*rows[1:], None], strict=True):
        assert chunk
        assert sum(chunk) <= 20 or len(chunk) == 1  # a level stays whole, however many rows it has
        assert following is None or sum(chunk) + following[0] > 20  # the next one had no room


def test_every_change_is_in_a_file_of_few_bytes() -> None:
    history = memory_history(segment_ms=3_600_000)
    for record in records(7, events=2000):
        history.append(record)
    changes = history.level_changes
    history.close()
    assert history.level_changes == changes
    assert history.size_bytes / changes < 12
