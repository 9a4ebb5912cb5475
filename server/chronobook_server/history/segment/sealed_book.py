"""Levels of a sealed segment at an instant: all of them, or the best ones.

Chunks are in order of price, and each has the rows of some levels. So the best levels are in a few chunks beside each
other.
"""

from collections import deque

import numpy as np

from chronobook_server.domain.cooperative import Cooperative
from chronobook_server.domain.packed_columns import Steps
from chronobook_server.history.segment.decoded import Chunk, DecodedSegment, IndexColumns

_NO_LEVELS: Steps = np.empty(0, np.int64)


def resting_levels(
    decoded: DecodedSegment, index: IndexColumns, events: int, limit: int | None
) -> Cooperative[tuple[Steps, Steps]]:
    """Return the prices that are not empty after so many events, in order, and their signed quantities.

    With a `limit`, at least the best `limit` levels of each side are among them.
    """
    if limit is None:
        _, chunks = yield from decoded.load_rows()
        parts = [_resting(index, number, chunk, events) for number, chunk in enumerate(chunks)]
    else:
        parts = yield from _best_parts(decoded, index, events, limit)
    prices = np.concatenate([_NO_LEVELS, *(prices for prices, _ in parts)])
    return prices, np.concatenate([_NO_LEVELS, *(quantities for _, quantities in parts)])


def _best_parts(
    decoded: DecodedSegment, index: IndexColumns, events: int, limit: int
) -> Cooperative[list[tuple[Steps, Steps]]]:
    """Return the levels of some chunks in a row: enough for the best `limit` of each side.

    It begins in the middle, because most rows are of prices near the best ones.
    """
    parts: deque[tuple[Steps, Steps]] = deque()
    count = len(index.chunk_levels) - 1
    low = high = count // 2
    bids = asks = 0
    while (high < count and asks < limit) or (low > 0 and bids < limit):
        goes_up = high < count and asks < limit and (asks <= bids or low == 0 or bids >= limit)
        number = high if goes_up else low - 1
        (chunk,) = yield from decoded.some_rows(index, (number,))
        part = _resting(index, number, chunk, events)
        asks += int(np.count_nonzero(part[1] < 0))
        bids += int(np.count_nonzero(part[1] > 0))
        if goes_up:
            parts.append(part)
            high += 1
        else:
            parts.appendleft(part)
            low -= 1
    return list(parts)


def _resting(index: IndexColumns, number: int, chunk: Chunk, events: int) -> tuple[Steps, Steps]:
    """Return the levels of a chunk that are not empty after so many events: prices, and signed quantities."""
    levels = slice(index.chunk_levels[number], index.chunk_levels[number + 1])
    starts = np.asarray(index.row_ends)[levels].astype(np.int64) - chunk.first
    counts = np.add.reduceat(np.asarray(chunk.events) <= events, starts, dtype=np.int64)
    quantities = np.zeros(len(starts), np.int64)
    some = counts > 0
    quantities[some] = np.asarray(chunk.quantities)[(starts + counts - 1)[some]]
    resting = quantities != 0
    return np.asarray(index.prices)[levels][resting].astype(np.int64), quantities[resting]
