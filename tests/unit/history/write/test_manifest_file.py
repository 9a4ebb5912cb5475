"""Starts with a manifest: right, missing, torn, foreign, old, or one that lies."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from chronobook_server.domain.cooperative import run_now
from chronobook_server.domain.coverage import Cause
from chronobook_server.domain.stream_id import depth_of
from chronobook_server.domain.values import Millis
from chronobook_server.history.format import manifest
from chronobook_server.history.format.file_origin import Origin
from chronobook_server.history.format.segment_layout import Header
from chronobook_server.history.segment.sealed import SealedSegment
from chronobook_server.history.write.manifest_file import NAME
from testkit.fakes.memory_files import MemoryFiles, memory_history
from testkit.generators.stored_histories import (
    ORIGIN,
    SEGMENT_MS,
    SYMBOL,
    answers,
    of_version_1,
    opened,
    records,
    shifted,
)
from testkit.harness.epochs import RawHistory


class CountingFiles(MemoryFiles):
    """Files that count the reads of headers."""

    def __init__(self, contents: dict[str, bytearray]) -> None:
        super().__init__()
        self.contents = contents
        self.headers = 0

    def read(self, name: str, limit: int = -1) -> bytes:
        self.headers += name.endswith(".seg")
        return super().read(name, limit)


def made() -> dict[str, bytearray]:
    """Return the files of a history with its manifest."""
    files = MemoryFiles()
    history = memory_history(files=files, segment_ms=SEGMENT_MS)
    for record in records(3):
        history.append(record)
    history.close()
    assert history.save_manifest() == []
    assert NAME in files.contents
    return files.contents


def segments(contents: dict[str, bytearray]) -> list[str]:
    return sorted(name for name in contents if name.endswith(".seg"))


def all_answers(history: RawHistory) -> object:
    first, last = history.timeline.segments[0].start, history.timeline.segments[-1].last_time
    facts = [
        (each.start, each.end, each.ended_by, each.continued, each.last_time, each.last_update_id, each.events,
         each.changes, each.baseline_update_id, each.instrument)
        for each in history.timeline.segments
    ]  # fmt: skip
    asked = answers(history, range(first - 100, last + 200, 97))
    newest = history.last_received, history.last_time
    return facts, asked, history.coverage(), history.gaps(), history.size_bytes, newest


def reference(contents: dict[str, bytearray]) -> object:
    """Return all answers of a start without a manifest."""
    files = MemoryFiles()
    files.contents = {name: bytearray(data) for name, data in contents.items() if name != NAME}
    return all_answers(opened(files))


def test_a_start_with_a_manifest_reads_no_header() -> None:
    contents = made()
    files = CountingFiles(contents)
    history = opened(files)
    assert files.headers == 0
    assert not history._writer.manifest.is_stale
    assert all_answers(history) == reference(contents)
    assert history.save_manifest() == []


def rows_of(contents: dict[str, bytearray]) -> list[bytes]:
    return manifest.read(NAME, ORIGIN, bytes(contents[NAME]))[0]


def missing(contents: dict[str, bytearray]) -> None:
    del contents[NAME]


def empty(contents: dict[str, bytearray]) -> None:
    contents[NAME].clear()


def torn(contents: dict[str, bytearray]) -> None:
    rows = rows_of(contents)
    contents[NAME][:] = manifest.beginning(ORIGIN) + manifest.block(rows[:1]) + manifest.block(rows[1:])[:-5]


def flipped(contents: dict[str, bytearray]) -> None:
    contents[NAME][-7] ^= 4


def zeros(contents: dict[str, bytearray]) -> None:
    contents[NAME] += bytes(300)


def foreign(contents: dict[str, bytearray]) -> None:
    contents[NAME][:] = manifest.beginning(Origin(depth_of("OTHER"))) + manifest.block(rows_of(contents))


def of_another_version(contents: dict[str, bytearray]) -> None:
    contents[NAME][8] = 99


def old(contents: dict[str, bytearray]) -> None:
    """Lack the newest files, and list one that is removed."""
    rows = rows_of(contents)
    data = manifest.beginning(ORIGIN) + manifest.block(rows[:-2])
    contents[NAME][:] = data
    del contents[segments(contents)[0]]


@pytest.mark.parametrize("damage", [missing, empty, torn, flipped, zeros, foreign, of_another_version, old])
def test_a_damaged_manifest_costs_only_time(damage: Callable[[dict[str, bytearray]], None]) -> None:
    contents = made()
    damage(contents)
    expected = reference(contents)
    files = CountingFiles(contents)
    history = opened(files)
    assert history._writer.manifest.is_stale
    assert (files.headers == 0) == (damage is zeros)
    assert all_answers(history) == expected
    assert history.damaged_files == {}
    # It is made anew, and the next start believes it.
    history.save_manifest()
    again = CountingFiles(contents)
    assert all_answers(opened(again)) == expected
    assert again.headers == 0


def lying(contents: dict[str, bytearray], change: Callable[[Header], Header], size: int = 0) -> str:
    """Let the row of the second file say something else; return the file's name."""
    rows = rows_of(contents)
    header = change(manifest.header_of(rows[1], SYMBOL))
    rows[1] = manifest.packed(header, manifest.SIZE.of(rows[1]) + size, 0)
    contents[NAME][:] = manifest.beginning(ORIGIN) + manifest.block(rows)
    return segments(contents)[1]


LIES: dict[str, Callable[[Header], Header]] = {
    "events": lambda header: replace(header, events=header.events + 1),
    "changes": lambda header: replace(header, changes=0),
    "end": lambda header: replace(header, end=Millis(header.end - 7)),
    "cause": lambda header: replace(header, ended_by=Cause.DISK),
    "widths": lambda header: replace(header, row_widths=(8, 8)),
    "levels": lambda header: replace(header, levels=0),
}


@pytest.mark.parametrize("lie", LIES)
def test_the_header_of_the_file_counts_against_a_lying_manifest(lie: str) -> None:
    contents = made()
    expected = reference(contents)
    name = lying(contents, LIES[lie])
    history = opened(CountingFiles(contents))
    segment = history.timeline.segments[1]
    run_now(segment.view_at(segment.start))  # the first use
    assert all_answers(history)[1:5] == expected[1:5]  # type: ignore[index]
    assert history.save_manifest() == [name]
    assert history.save_manifest() == []
    assert history.damaged_files == {}
    assert all_answers(opened(CountingFiles(contents))) == expected


def test_a_size_that_differs_is_found_without_a_question() -> None:
    contents = made()
    expected = reference(contents)
    name = lying(contents, lambda header: header, size=3)
    history = opened(CountingFiles(contents))
    run_now(history.check_files())
    assert history.save_manifest() == [name]
    assert all_answers(opened(CountingFiles(contents))) == expected


def test_a_cut_or_removed_file_is_a_gap_once_checked() -> None:
    contents = made()
    names = segments(contents)
    files = CountingFiles(contents)
    history = opened(files)
    before = history.coverage()
    del contents[names[1]][-20:]
    del contents[names[3]]
    run_now(history.check_files())
    damaged = [each.name for each in history.timeline.segments if isinstance(each, SealedSegment) and each.is_damaged]
    assert damaged == [names[1], names[3]]
    assert history.coverage() != before
    assert {*history.damaged_files} == {names[1], names[3]}
    # The manifest does not list it again, so the next start reads its header.
    history._writer.manifest._is_stale = True
    history.save_manifest()
    again = opened(CountingFiles(contents))
    assert again.coverage() == history.coverage()


def test_new_files_are_added_and_removed_ones_are_forgotten() -> None:
    contents = made()
    files = CountingFiles(contents)
    history = opened(files)
    for record in records(4)[:30]:
        history.append(shifted(record, 10**6, 10**7))
    history.close()
    assert not history._writer.manifest.is_stale
    assert len(rows_of(contents)) == len(segments(contents))
    assert history.drop_oldest()
    again = CountingFiles(contents)
    assert all_answers(opened(again)) == reference(contents)
    assert again.headers == 0


def test_many_blocks_are_written_anew() -> None:
    contents = made()
    rows = rows_of(contents)
    contents[NAME] += b"".join(manifest.block(rows[-1:]) for _ in range(100))
    history = opened(CountingFiles(contents))
    history.save_manifest()
    assert rows_of(contents) == rows


def test_files_of_version_1_are_judged_at_each_start() -> None:
    contents = made()
    name = segments(contents)[1]
    contents[name][:] = of_version_1(contents[name])
    del contents[NAME]
    opened(CountingFiles(contents)).save_manifest()
    assert len(rows_of(contents)) == len(segments(contents)) - 1
    files = CountingFiles(contents)
    assert all_answers(opened(files)) == reference(contents)
    assert files.headers == 1
