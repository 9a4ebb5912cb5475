"""Write-ahead log of a hot segment: the records from which recovery builds the segment again.

    file      "chrnbkLG"  version u16  crc32 of both u32  record ...                             little-endian
    record    length u32 of kind and body | crc32 u32 of length, kind and body | kind u8 | body
    START     start, T and u of the baseline, known range (lowest, highest)  5 × i64
              scales of price and quantity  2 × u8 | continued u8 | number of levels, of named prices  2 × u32
              prices, signed quantities of the levels | named prices           i64 each
    UPDATE    U, u, pu, T, E, receive time, best prices (bid, its quantity, ask, its quantity)  10 × i64
              number of changes u32 | prices | signed quantities                i64 each
    WIDENED   T, u, lowest, highest  4 × i64 | number of levels u32 | prices | signed quantities
    FINER     scales of price and quantity  2 × u8
    GAP       number of the cause u16
    ORIGIN    exchange and symbol as JSON, and the kind of data where it is not depth

ORIGIN and START come first, and once: a log never needs another file. The log is good up to its first record that is
cut short or whose checksum is wrong. Each record is written, with one write, before the server publishes its contents.
"""

import struct
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias
from zlib import crc32

import numpy as np

from chronobook_server.domain.coverage import Cause, KnownRange
from chronobook_server.domain.instrument import MAX_SCALE, Instrument
from chronobook_server.domain.packed_columns import LevelColumns
from chronobook_server.domain.records import BestPrices, Gap, InstrumentChanged, Keyframe, RangeWidened, Update
from chronobook_server.domain.scales import finer
from chronobook_server.domain.values import MAX_STEPS, Millis, Nanos, UpdateId
from chronobook_server.history.format.file_origin import Origin, UnknownFormat
from chronobook_server.history.format.gap_causes import CAUSES, NUMBERS

MAGIC = b"chrnbkLG"
VERSION = 2
VERSIONS = (1, 2)  # the first one has no ORIGIN
_BEGINNING = struct.Struct("<8sH")
_FILE = struct.Struct("<8sHI")
_FRAME = struct.Struct("<II")
_LENGTH = struct.Struct("<I")
_START_BODY = struct.Struct("<5q3B2I")
_UPDATE_BODY = struct.Struct("<10qI")
_WIDENED_BODY = struct.Struct("<4qI")
_FINER_BODY = struct.Struct("<2B")
_GAP_BODY = struct.Struct("<H")
_KINDS = range(1, 7)
_START, _UPDATE, _WIDENED, _FINER, _GAP, _ORIGIN = (bytes((kind,)) for kind in _KINDS)

Entry: TypeAlias = Update | RangeWidened | InstrumentChanged | Gap
FILE_HEADER = _FILE.pack(MAGIC, VERSION, crc32(_BEGINNING.pack(MAGIC, VERSION)))


class TooFine(OverflowError):
    """A number that is held outgrows an instrument's steps."""

    def __init__(self, instrument: Instrument) -> None:
        decimals = f"prices {instrument.price_scale}, quantities {instrument.quantity_scale}"
        super().__init__(f"the history of {instrument.symbol} holds a number too large for its decimals ({decimals})")


@dataclass(frozen=True, slots=True)
class Start:
    """Start of a segment: its first instant, the state then, and whether it continues the segment before."""

    start: Millis
    instrument: Instrument
    baseline: Mapping[int, int]
    baseline_time: Millis
    baseline_update_id: UpdateId
    known_range: KnownRange
    observed_prices: Iterable[int] = ()
    continued: bool = False

    @classmethod
    def of(cls, keyframe: Keyframe, start: Millis) -> "Start":
        """Return the start of the first segment of an epoch."""
        return cls(
            start=start,
            instrument=keyframe.instrument,
            baseline=keyframe.levels,
            baseline_time=keyframe.transaction_time,
            baseline_update_id=keyframe.update_id,
            known_range=keyframe.known_range,
            observed_prices=keyframe.observed_prices,
        )

    def widened(self, record: RangeWidened) -> "Start":
        """Return the same state with the levels and the range of a later snapshot."""
        return replace(
            self,
            baseline={**self.baseline, **record.levels},
            known_range=record.known_range,
            observed_prices=[price for price in self.observed_prices if price not in record.known_range],
        )

    def in_steps_of(self, instrument: Instrument) -> "Start":
        """Return the same state in finer steps. Raises OverflowError if a level outgrows them.

        A known range and named prices beyond the bound are left out: they are unknown from here on.
        """
        steps = finer(self.instrument, instrument)
        baseline = steps.levels(self.baseline)
        if any(max(price, abs(held)) >= MAX_STEPS for price, held in baseline.items()):
            raise TooFine(instrument)
        return replace(
            self,
            instrument=instrument,
            baseline=baseline,
            known_range=steps.known_range(self.known_range).bounded(),
            observed_prices=[price for price in map(steps.price, self.observed_prices) if price < MAX_STEPS],
        )


@dataclass(frozen=True, slots=True)
class LogContents:
    """Contents of a log, the number of its good bytes, and whether more than a torn tail follows them."""

    start: Start
    entries: list[Entry]
    good_bytes: int
    damaged: bool
    version: int = VERSION


def _frame(body: bytes) -> bytes:
    length = _LENGTH.pack(len(body))
    return length + _LENGTH.pack(crc32(body, crc32(length))) + body


def log_beginning(start: Start, origin: Origin) -> bytes:
    """Return the first bytes of a stream's log."""
    return b"".join((FILE_HEADER, _frame(_ORIGIN + origin.encode()), encode_start(start)))


def encode_start(start: Start) -> bytes:
    """Return the record of a segment's start."""
    named = array("q", start.observed_prices)
    body = _START_BODY.pack(
        start.start,
        start.baseline_time,
        start.baseline_update_id,
        start.known_range.lowest,
        start.known_range.highest,
        start.instrument.price_scale,
        start.instrument.quantity_scale,
        start.continued,
        len(start.baseline),
        len(named),
    )
    return _frame(b"".join((_START, body, *LevelColumns.of(start.baseline), named.tobytes())))


def encode_update(update: Update) -> bytes:
    """Return the record of an event."""
    body = _UPDATE_BODY.pack(
        update.first_update_id,
        update.final_update_id,
        update.previous_final_update_id,
        update.transaction_time,
        update.event_time,
        update.receive_time,
        *update.best,
        update.columns.size,
    )
    return _frame(b"".join((_UPDATE, body, *update.columns)))


def encode(entry: RangeWidened | InstrumentChanged | Gap) -> bytes:
    """Return the record of an entry that is no event."""
    match entry:
        case RangeWidened():
            known = entry.known_range
            body = _WIDENED_BODY.pack(
                entry.transaction_time, entry.update_id, known.lowest, known.highest, len(entry.levels)
            )
            return _frame(b"".join((_WIDENED, body, *LevelColumns.of(entry.levels))))
        case InstrumentChanged(instrument):
            return _frame(_FINER + _FINER_BODY.pack(instrument.price_scale, instrument.quantity_scale))
        case Gap():
            return _frame(_GAP + _GAP_BODY.pack(NUMBERS[entry.cause]))


def _integers(body: memoryview, offset: int, count: int) -> "array[int]":
    values = array("q")
    values.frombytes(body[offset : offset + 8 * count])
    if len(values) != count:
        raise ValueError("fewer numbers than were announced")
    return values


def _columns(body: memoryview, offset: int, count: int) -> LevelColumns:
    middle, end = offset + 8 * count, offset + 16 * count
    if end > len(body):
        raise ValueError("fewer levels than were announced")
    return LevelColumns(bytes(body[offset:middle]), bytes(body[middle:end]))


def _levels(body: memoryview, offset: int, count: int) -> dict[int, int]:
    return _columns(body, offset, count).levels()


def _instrument(symbol: str, price_scale: int, quantity_scale: int) -> Instrument:
    if max(price_scale, quantity_scale) > MAX_SCALE:
        raise ValueError("more decimals than there can be")
    return Instrument(symbol, price_scale, quantity_scale)


def _decode_start(symbol: str, body: memoryview) -> Start:
    start, time, update_id, lowest, highest, price_scale, quantity_scale, continued, levels, named = (
        _START_BODY.unpack_from(body)
    )
    return Start(
        start=Millis(start),
        instrument=_instrument(symbol, price_scale, quantity_scale),
        baseline=_levels(body, _START_BODY.size, levels),
        baseline_time=Millis(time),
        baseline_update_id=UpdateId(update_id),
        known_range=KnownRange(lowest, highest),
        observed_prices=_integers(body, _START_BODY.size + 16 * levels, named),
        continued=bool(continued),
    )


def _decode_update(body: memoryview) -> Update:
    first, final, previous, time, event_time, received, bid, bid_quantity, ask, ask_quantity, count = (
        _UPDATE_BODY.unpack_from(body)
    )
    columns = _columns(body, _UPDATE_BODY.size, count)
    return Update(
        first_update_id=UpdateId(first),
        final_update_id=UpdateId(final),
        previous_final_update_id=UpdateId(previous),
        transaction_time=Millis(time),
        event_time=Millis(event_time),
        receive_time=Nanos(received),
        best=BestPrices(bid, bid_quantity, ask, ask_quantity),
        columns=columns.checked(),
    )


def _decode(start: Start, last: tuple[Millis, UpdateId], kind: bytes, body: memoryview) -> Entry:
    """Return the entry in a record. Raises ValueError if it makes no sense although its checksum is right."""
    match kind:
        case _ if kind == _UPDATE:
            return _decode_update(body)
        case _ if kind == _WIDENED:
            time, update_id, lowest, highest, count = _WIDENED_BODY.unpack_from(body)
            return RangeWidened(
                transaction_time=Millis(time),
                update_id=UpdateId(update_id),
                levels=_levels(body, _WIDENED_BODY.size, count),
                known_range=KnownRange(lowest, highest),
            )
        case _ if kind == _FINER:
            return InstrumentChanged(_instrument(start.instrument.symbol, *_FINER_BODY.unpack_from(body)))
        case _ if kind == _GAP:
            (number,) = _GAP_BODY.unpack_from(body)
            return Gap(start=last[0], update_id=last[1], cause=CAUSES.get(number, Cause.DAMAGED))
        case _:
            raise ValueError(f"a record of no known kind: {kind.hex()}")


def read_log(name: str, origin: Origin, data: bytes) -> LogContents | None:
    """Return the good part of a log; None if even its beginning is damaged.

    Raises UnknownFormat; ForeignFile if it has another origin.
    """
    if len(data) < _FILE.size:
        return None
    _, version, _ = _FILE.unpack_from(data)
    if not _is_header(data):
        return None
    if version not in VERSIONS:
        raise UnknownFormat(name, version, VERSION)
    view = memoryview(data)
    offset = _FILE.size
    if version > 1:
        said = _record_at(view, offset)
        if said is None or bytes(said[:1]) != _ORIGIN:
            return None
        origin.check(name, bytes(said[1:]))
        offset += _FRAME.size + len(said)
    start: Start | None = None
    entries: list[Entry] = []
    last = (Millis(0), UpdateId(0))
    while (record := _record_at(view, offset)) is not None:
        kind, body = bytes(record[:1]), record[1:]
        try:
            if start is None:
                if kind != _START:
                    return None
                start = _decode_start(origin.stream.symbol, body)
            else:
                entries.append(_decode(start, last, kind, body))
        except (struct.error, ValueError):
            break
        if entries and isinstance(entries[-1], Update):
            last = (entries[-1].transaction_time, entries[-1].final_update_id)
        offset += _FRAME.size + len(record)
    if start is None:
        return None
    return LogContents(start, entries, offset, damaged=_holds_more_records(view[offset:]), version=version)


def _record_at(log: memoryview, offset: int) -> memoryview | None:
    """Return kind and body of the record at an offset, if it is whole."""
    if len(log) - offset <= _FRAME.size:
        return None
    length, checksum = _FRAME.unpack_from(log, offset)
    record = log[offset + _FRAME.size : offset + _FRAME.size + length]
    is_whole = 0 < length == len(record) and crc32(record, crc32(log[offset : offset + 4])) == checksum
    return record if is_whole else None


def encoded_log(start: Start, entries: Iterable[Entry], origin: Origin) -> bytes:
    """Return the bytes of a log with this contents."""
    records = (encode_update(entry) if isinstance(entry, Update) else encode(entry) for entry in entries)
    return b"".join((log_beginning(start, origin), *records))


def is_torn_beginning(data: bytes) -> bool:
    """Return whether these bytes are the rest of a log that was just begun, without any part of a book."""
    written = data.rstrip(b"\0")  # a file system may have allocated bytes and not written them
    begins = FILE_HEADER.startswith(written) or (len(data) >= _FILE.size and _is_header(data))
    return begins and not holds_records(data)


def _is_header(data: bytes) -> bool:
    magic, _, checksum = _FILE.unpack_from(data)
    return bool(magic == MAGIC and crc32(data[: _BEGINNING.size]) == checksum)


def holds_records(data: bytes) -> bool:
    """Return whether these bytes contain records about a book, at any offset."""
    return _holds_more_records(memoryview(b"\0" + data), kinds=range(1, 6))


def _holds_more_records(rest: memoryview, kinds: range = _KINDS) -> bool:
    """Return whether a whole record lies behind the unreadable first one, which is then no torn tail.

    The length of the first one may be damaged, so the search tries every byte.
    """
    for shift in range(min(4, len(rest))):
        lengths = np.frombuffer(rest, "<u4", (len(rest) - shift) // 4, shift)
        offsets = shift + 4 * np.arange(len(lengths))
        could_be = (lengths > 0) & (lengths <= len(rest) - _FRAME.size - offsets)
        for offset in offsets[could_be].tolist():
            if offset and rest[offset + _FRAME.size] in kinds and _record_at(rest, offset) is not None:
                return True
    return False
