"""One content has one hash, however it was packed."""

from dataclasses import replace
from random import Random

import pytest
import zstandard

from chronobook_server.domain.coverage import Cause
from chronobook_server.domain.packed_columns import LevelColumns
from chronobook_server.domain.records import Update
from chronobook_server.domain.values import Millis
from chronobook_server.history.format import column_codec, segment_layout
from chronobook_server.history.segment.head import HeadSegment
from chronobook_server.history.write import seal
from chronobook_server.history.write.contents import content_hash
from testkit.fakes.memory_files import MemoryFiles
from testkit.generators.stored_histories import hot_of, received_later, records, sealed_of
from testkit.harness.epochs import Raw

STREAM = records(5, events=150)


def file_of(stream: list[Raw]) -> tuple[bytes, bytes]:
    """Return the hash of a stream's file, and the file."""
    return hashed(hot_of(stream))


def hashed(hot: HeadSegment) -> tuple[bytes, bytes]:
    files = MemoryFiles()
    return content_hash(sealed_of(hot, files, name="1.seg").file), files.read("1.seg")


def test_another_packing_of_one_content_has_the_same_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    expected, data = file_of(STREAM)
    monkeypatch.setattr(seal, "CHUNK_ROWS", 7)
    smaller, other_chunks = file_of(STREAM)
    monkeypatch.setattr(column_codec, "_compress", zstandard.ZstdCompressor(level=1).compress)
    faster, other_level = file_of(STREAM)
    assert smaller == faster == expected
    assert len({data, other_chunks, other_level}) == 3
    assert len({segment_layout.content_hash(each) for each in (data, other_chunks, other_level)}) > 1


def test_other_receive_times_leave_the_hash_as_it_is() -> None:
    assert file_of([received_later(record, 12_345) for record in STREAM])[0] == file_of(STREAM)[0]


@pytest.mark.parametrize("place", ["quantity", "price", "time", "id", "end", "cause"])
def test_any_other_content_has_another_hash(place: str) -> None:
    stream = list(STREAM)
    number = Random(3).randrange(20, 100)
    event = next(record for record in stream[number:] if isinstance(record, Update) and record.changes)
    price, quantity = next(iter(event.changes.items()))
    match place:
        case "quantity":
            changed = replace(event, columns=LevelColumns.of({**event.changes, price: quantity + 1}))
        case "price":
            changed = replace(event, columns=LevelColumns.of({**event.changes, 10**6: -1}))
        case "time":
            changed = replace(event, event_time=Millis(event.event_time + 1))
        case "id":
            changed = replace(event, first_update_id=event.previous_final_update_id)
        case _:
            changed = event
    stream[stream.index(event)] = changed
    hot = hot_of(stream)
    if place == "end":
        hot.finish(Millis(hot.last_time + 2), None)
    if place == "cause":
        hot.finish(Millis(hot.last_time + 1), Cause.RESTART)
    assert hashed(hot)[0] != file_of(STREAM)[0]
