"""Stable counting sort of rows in steps, so that no step handles more than STEP_ROWS of them."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from chronobook_server.domain.cooperative import Cooperative
from chronobook_server.history.format.column_codec import Integers, Numbers

STEP_ROWS = 1 << 14
"""Rows that one step handles. Decoding so many takes 0.3 to 0.8 ms, and every other step takes less."""

_RADIX_KEYS = 1 << 16  # numpy sorts keys of two bytes by radix, ten times as fast as wider ones


def blocks(end: int, begin: int = 0) -> Iterator[slice]:
    """Yield slices of at most STEP_ROWS rows, from row `begin` to before row `end`."""
    for low in range(begin, end, STEP_ROWS):
        yield slice(low, min(low + STEP_ROWS, end))


class Placement:
    """Place of every row in an order by key, of rows with equal keys in the order in which they come.

    `ends`, int64 of shape (keys + 1,): the rows of key n take the places from `ends[n]` up to `ends[n + 1]`.
    """

    def __init__(self, counts: Integers) -> None:
        """Begin, with the number of rows of each key in all blocks together, int64 of shape (keys,)."""
        self.ends = _sums(counts)
        self._next = self.ends[:-1].copy()

    def place(self, keys: Numbers) -> tuple[Integers, Integers]:
        """Return an order of the next block's rows and the places of the rows in that order, int64 each.

        `keys` are integers of shape (rows,), from 0 to below the number of keys.
        """
        order = _stable_order(keys, len(self._next))
        counts = np.bincount(keys, minlength=len(self._next))
        shifts = np.repeat(self._next - _sums(counts)[:-1], counts)
        self._next += counts
        return order, np.arange(len(keys)) + shifts

    def order(self, keys: Numbers) -> Cooperative[npt.NDArray[np.int32]]:
        """Return the order of all rows, by their keys."""
        order = np.empty(len(keys), np.int32)
        for part in blocks(len(keys)):
            rows, places = self.place(keys[part])
            # Scattering these narrow numbers is cheaper than scattering the columns of the rows.
            order[places] = rows + part.start
            yield
        return order


def _sums(counts: Integers) -> Integers:
    """Return the sum of the counts before each one, and of all."""
    sums = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=sums[1:])
    return sums


def _stable_order(keys: Numbers, count: int) -> Integers:
    if count <= _RADIX_KEYS:
        return np.argsort(keys.astype(np.uint16, copy=False), kind="stable")
    order = np.argsort((keys % _RADIX_KEYS).astype(np.uint16), kind="stable")
    return order[np.argsort((keys // _RADIX_KEYS)[order].astype(np.uint16), kind="stable")]
