"""Counting sort in steps, against numpy's stable sort."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chronobook_server.domain.cooperative import run_now
from chronobook_server.history.segment import ordering
from chronobook_server.history.segment.ordering import Placement


@settings(max_examples=30)
@given(st.integers(0, 2**32), st.sampled_from((1, 7, 1 << 16, (1 << 16) + 1, 200_000)), st.integers(0, 400))
def test_rows_are_ordered_by_key_and_else_as_they_come(seed: int, keys: int, rows: int) -> None:
    random = np.random.default_rng(seed)
    used = random.integers(0, keys, 20)
    given_keys = random.choice(np.append(used, keys - 1), rows).astype(random.choice(["u4", "i8"]))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ordering, "STEP_ROWS", 64)
        placement = Placement(np.bincount(given_keys, minlength=keys))
        order = run_now(placement.order(given_keys))
    assert order.tolist() == np.argsort(given_keys, kind="stable").tolist()
    assert placement.ends.tolist() == np.searchsorted(given_keys[order], np.arange(keys + 1)).tolist()


def test_blocks_cover_all_rows_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ordering, "STEP_ROWS", 10)
    assert list(ordering.blocks(25, 5)) == [slice(5, 15), slice(15, 25)]
    assert list(ordering.blocks(5, 5)) == []
    assert list(ordering.blocks(11)) == [slice(0, 10), slice(10, 11)]
