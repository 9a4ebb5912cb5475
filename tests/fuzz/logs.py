"""Fuzzer of changed write-ahead logs: each is good up to its first bad record, and its folder opens.

An input is a list of changes to a real log. There are four kinds of it:

- FLIPPED: some bytes change. The records before the first changed one are read, and the folder's answers about them
  stay the same.
- FORGED: records are changed with right checksums, or reordered. An impossible record ends the log. A possible record
  is believed, because it looks like a server's. Only if a server could have written all of it (`is_possible`) must the
  folder open and answer, with any values.
- BYTES: the rest of the input is the log, behind a good header or alone.
- CONTRACT: the rest of the input is the file with the states of the contract. It has no checksum: a readable state is
  believed, and an unreadable file has no effect.
"""

import struct
from contextlib import suppress
from functools import cache
from itertools import zip_longest
from zlib import crc32

from chronobook.v1 import order_book_service_pb2 as pb
from chronobook_server.domain.cooperative import run_now
from chronobook_server.domain.coverage import KnownRange
from chronobook_server.domain.errors import Refusal
from chronobook_server.domain.records import Contract, ContractChanged, Gap, InstrumentChanged, RangeWidened, Update
from chronobook_server.domain.values import MAX_STEPS, Millis, Price
from chronobook_server.history.format.file_origin import UnknownFormat
from chronobook_server.history.format.wal import FILE_HEADER, LogContents, read_log
from chronobook_server.history.query.history import SymbolHistory
from chronobook_server.history.write import contract_log
from testkit.fakes.memory_files import MemoryFiles
from testkit.generators.damaged_folder import Folder
from testkit.generators.stored_histories import ORIGIN, answer, frames, opened
from tests.fuzz.drawn import Drawn
from tests.fuzz.segments import EXTREMES, flipped

FLIPPED, FORGED, BYTES, BYTES_AFTER_HEADER, CONTRACT = range(5)
NAME = "1.log"
EXACT = 2**53


def check(data: bytes) -> None:
    """Change a log by an input, and open it. Raises the exception of a fault."""
    drawn = Drawn(data)
    kind = drawn.below(5)
    if kind == FLIPPED:
        _check_flipped(flipped(drawn, _world().log))
    elif kind == FORGED:
        _check_forged(forged(drawn, _world().log))
    elif kind == CONTRACT:
        _check_contract(drawn.rest())
    else:
        _check_forged((_head() if kind == BYTES_AFTER_HEADER else b"") + drawn.rest())


class LogWorld:
    """A folder whose newest part is a log, with the contents of that log."""

    def __init__(self) -> None:
        self.folder = Folder()
        self.log = bytes(self.folder.log)
        contents = read_log(NAME, ORIGIN, self.log)
        assert contents is not None
        self.contents = contents
        self.ends = [end for _, end in frames(self.log)]
        self.asked = [asked for asked in self.folder.before if asked[0] % 8 == 2 and asked[1] > self.folder.end - 1500]


@cache
def _world() -> LogWorld:
    return LogWorld()


@cache
def _head() -> bytes:
    """Return the bytes of a log before its first record about a book."""
    begin, _ = next(frames(_world().log))
    return _world().log[:begin]


def _read(log: bytes) -> LogContents | None:
    try:
        contents = read_log(NAME, ORIGIN, log)
    except UnknownFormat:
        return None
    assert contents is None or len(FILE_HEADER) < contents.good_bytes <= len(log)
    return contents


def _open(log: bytes) -> SymbolHistory | None:
    """Return the history of a folder with this log in it; None if it is refused."""
    folder, files = _world().folder, MemoryFiles()
    files.contents = {name: bytearray(data) for name, data in folder.files.contents.items()}
    files.contents[folder.logs[-1]] = bytearray(log)
    try:
        return opened(files)
    except UnknownFormat:
        return None


def _check_flipped(log: bytes) -> None:
    """Assert that the unchanged part of a log is read, and no more, and that its folder answers the same."""
    world = _world()
    same = next((place for place, (a, b) in enumerate(zip(log, world.log, strict=False)) if a != b), None)
    same = min(len(log), len(world.log)) if same is None else same
    whole = sum(end <= same for end in world.ends)
    contents = _read(log)
    if not whole:
        assert contents is None
    else:
        assert contents is not None
        assert contents.entries == world.contents.entries[: whole - 1]
        assert contents.good_bytes == world.ends[whole - 1]
    history = _open(log)
    if history is None or history.complete_to is None:
        assert not whole
        return
    complete_to = history.complete_to
    for price, time in world.asked:
        said = answer(history, price, time)
        assert said == world.folder.before[price, time] or (time > complete_to and isinstance(said, tuple))


def _check_forged(log: bytes) -> None:
    """Read a log with any contents; if a server could have written it, open its folder, and ask about it."""
    contents = _read(log)
    if contents is not None and not is_possible(contents):
        return
    history = _open(log)
    if history is None:
        return
    held, gaps = history.coverage(), history.gaps()
    first, last = Millis(held[0].start), Millis(held[-1].end)
    for time in {first, Millis((first + last) // 2), last, *(gap.start for gap in gaps)}:
        for price in (1, 1000, 1003):
            answer(history, price, time)
        for work in (history.book_at(time), history.nearest_at(Price(1000), time)):
            with suppress(Refusal):
                run_now(work)
    run_now(history.changes_of(Price(1000), first, last, limit=100))
    run_now(history.best_between(first, last, limit=100))


def _check_contract(file: bytes) -> None:
    """Open a folder with this file in it; the states that it reads can be sent, and can be written again."""
    files = MemoryFiles()
    files.contents[contract_log.NAME] = bytearray(file)
    history = opened(files)
    for change in history.contracts():
        said = pb.GetStatusResponse(trading_status=change.contract.trading_status, timestamp=change.time / 1000)
        said.SerializeToString()
        {text.encode() for text in (change.contract.tick_size, change.contract.step_size)}
    before = history.contracts()
    history.append(ContractChanged(Millis(EXACT), Contract("TRADING")))
    assert opened(files).contracts()[-1] == ContractChanged(Millis(EXACT), Contract("TRADING"))
    assert history.contracts()[:-1] == before[len(before) + 1 - len(history.contracts()) :]


# --- logs that a server can have written


def is_possible(contents: LogContents) -> bool:
    """Return whether a server could have written this log: in order, and within the bounds of `domain/values`."""
    start = contents.start
    scales = start.instrument
    time, update_id = start.start, start.baseline_update_id
    levels = [*start.baseline.items(), *((price, 0) for price in start.observed_prices)]
    for entry, following in zip_longest(contents.entries, contents.entries[1:]):
        match entry:
            case Update():
                times = (entry.event_time, entry.receive_time, entry.first_update_id, entry.previous_final_update_id)
                if not (time <= entry.transaction_time and update_id < entry.final_update_id and _fit(*times)):
                    return False
                time, update_id = entry.transaction_time, entry.final_update_id
                levels += [*entry.changes.items(), *((1, quantity) for quantity in entry.best)]
            case RangeWidened():
                if not (
                    time == entry.transaction_time and update_id == entry.update_id and _is_range(entry.known_range)
                ):
                    return False
                levels += entry.levels.items()
            case InstrumentChanged(instrument):
                if (
                    instrument.finer(price_decimals=scales.price_scale, quantity_decimals=scales.quantity_scale)
                    != instrument
                ):
                    return False
                scales = instrument
            case Gap() if following is not None:
                return False
    # If the scale grows, the earlier numbers must have room for that.
    bound = MAX_STEPS >> 60 if scales != start.instrument else MAX_STEPS
    return (
        0 < start.baseline_time <= start.start <= time < EXACT
        and 0 < start.baseline_update_id <= update_id < EXACT
        and _is_range(start.known_range)
        and all(0 < price < bound and abs(quantity) < bound for price, quantity in levels)
    )


def _fit(*numbers: int) -> bool:
    return all(abs(number) < MAX_STEPS for number in numbers)


def _is_range(known: KnownRange) -> bool:
    return 0 <= known.lowest <= known.highest <= MAX_STEPS


# --- changes


def forged(drawn: Drawn, log: bytes) -> bytes:
    """Return a log some records of which say something else, with checksums that are right."""
    bodies = [bytearray(log[begin + 8 : end]) for begin, end in frames(log)]
    for _ in range(1 + drawn.below(4)):
        place = drawn.below(len(bodies)) if drawn.below(2) else drawn.below(min(3, len(bodies)))
        body = bodies[place]
        match drawn.below(8):
            case 0 if len(bodies) > 1:
                del bodies[place]
            case 1:
                bodies.insert(drawn.below(len(bodies)), bytearray(body))
            case 2:
                bodies.insert(place, bytearray((4, drawn.one_of(EXTREMES) % 256, drawn.below(12))))
            case 3:
                bodies.insert(place, bytearray((5, drawn.below(256), 0)))
            case 4:
                bodies.insert(place, bytearray(drawn.take(drawn.below(64))) or bytearray(b"\x00"))
            case _:
                width = drawn.one_of((8, 8, 4, 1))
                at = 1 + (width * drawn.below(24) if drawn.below(4) else drawn.below(max(len(body) - 1, 1)))
                value = int.from_bytes(body[at : at + 8], "little") + drawn.signed(1)
                value = drawn.one_of((value, value, drawn.one_of(EXTREMES), drawn.signed(8)))
                body[at : at + width] = (value % (1 << 64)).to_bytes(8, "little")[:width]
    return _head() + b"".join(map(_framed, bodies))


def _framed(body: bytes | bytearray) -> bytes:
    length = struct.pack("<I", len(body))
    return length + struct.pack("<I", crc32(body, crc32(length))) + body


def seeds() -> list[bytes]:
    """Return inputs to begin with."""
    log = _world().log
    return [
        bytes((BYTES,)) + log,
        bytes((BYTES_AFTER_HEADER,)) + log[len(_head()) : _world().ends[3]],
        bytes((CONTRACT,)) + b'[[1795442368770, "TRADING", "0.01", "0.001"], [1795442378770, "SETTLING", "", ""]]',
        *(bytes((FLIPPED, number)) + bytes(range(number, 40)) for number in range(5)),
        *(bytes((FORGED, 0, 1, number, number)) + bytes(range(number, 40)) for number in range(8)),
    ]
