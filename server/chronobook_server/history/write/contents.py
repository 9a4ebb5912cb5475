"""Hash of a sealed segment's contents, over its decoded columns.

Two servers that saw the same stream get the same hash, also if another version of the compressor, or another size of
the chunks, packed the columns. The hash in a file's header is one of the packed bytes (see segment_layout.py).
"""

from hashlib import blake2b

from chronobook_server.domain.cooperative import run_now
from chronobook_server.history.format.segment_layout import SectionKind
from chronobook_server.history.segment.cache import CacheBudget
from chronobook_server.history.segment.decoded import DecodedSegment
from chronobook_server.history.segment.segment_file import SegmentFile

# The columns that do not depend on the packing. Receive times differ between servers.
_COLUMNS = (
    SectionKind.TIMES,
    SectionKind.UPDATE_IDS,
    SectionKind.FIRST_UPDATE_IDS,
    SectionKind.PREVIOUS_UPDATE_IDS,
    SectionKind.EVENT_TIMES,
    SectionKind.BEST_PRICES,
    SectionKind.RANGES,
    SectionKind.LEVEL_PRICES,
    SectionKind.LEVEL_ROWS,
    SectionKind.KNOWN_ZEROS,
)
_BYTES = 16


def content_hash(file: SegmentFile) -> bytes:
    """Return the hash of the segment in a file. Raises DamagedSegment."""
    header = file.header
    cause = "" if header.ended_by is None else header.ended_by.value
    numbers = (
        header.instrument.price_scale, header.instrument.quantity_scale, header.continued, header.start, header.end,
        header.baseline_time, header.baseline_update_id, header.events, header.levels, header.baseline_levels,
    )  # fmt: skip
    whole = blake2b(f"{header.instrument.symbol} {cause} {numbers}".encode(), digest_size=_BYTES)
    for kind in _COLUMNS:
        values = file.column(kind)
        whole.update(b"%d %d " % (kind, len(values)))
        whole.update(values.astype("<i8").tobytes())
    # The blocks follow the chunks, so each of the two columns has a hash of its own.
    events, quantities = blake2b(digest_size=_BYTES), blake2b(digest_size=_BYTES)
    decoded = DecodedSegment(file, CacheBudget())
    index = run_now(decoded.index())
    for span in decoded.spans(index, 0, header.levels):
        block = run_now(decoded.block(index, span))
        events.update(block.events.astype("<i8").tobytes())
        quantities.update(block.quantities.astype("<i8").tobytes())
    whole.update(events.digest() + quantities.digest())
    return whole.digest()
