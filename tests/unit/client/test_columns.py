import math
import sys
from array import array

import numpy as np
import pandas as pd
import pytest

from chronobook import BestPrices, ExtraMissing, LevelChanges, Outcome, Quantities

CHANGES = LevelChanges(
    symbol="ETHUSDT",
    price=5.0,
    timestamps=array("d", [1703123456.001, 1703123456.103]),
    quantities=array("d", [0.5, 0.0]),
    sides=array("b", [-1, 0]),
    update_ids=array("q", [7, 2**53 + 1]),
    stretches=(),
    gaps=(),
    complete_to=None,
)
BEST = BestPrices(
    symbol="ETHUSDT",
    timestamps=array("d", [1.0]),
    bid_prices=array("d", [math.nan]),
    bid_quantities=array("d", [math.nan]),
    ask_prices=array("d", [6.25]),
    ask_quantities=array("d", [1.0]),
    update_ids=array("q", [7]),
    stretches=(),
    gaps=(),
    complete_to=None,
)
QUANTITIES = Quantities(
    symbol="ETHUSDT",
    outcomes=array("b", [Outcome.ANSWERED, Outcome.HISTORY_GAP, Outcome.UNRECOGNIZED]),
    quantities=array("d", [0.5, math.nan, math.nan]),
    sides=array("b", [1, 0, 2]),
    differences=array("d", [0.25, math.nan, math.nan]),
    previous_sides=array("b", [1, 0, 0]),
    as_of=array("d", [1.5, math.nan, math.nan]),
    update_ids=array("d", [7.0, math.nan, math.nan]),
    complete_to=2.0,
)


def test_arrays_over_the_same_memory() -> None:
    columns = CHANGES.to_numpy()

    assert list(columns) == ["timestamps", "quantities", "sides", "update_ids"]
    assert columns["update_ids"].tolist() == [7, 2**53 + 1]
    CHANGES.quantities[0] = 0.75
    assert columns["quantities"][0] == 0.75


def test_changes_as_a_frame() -> None:
    frame = CHANGES.to_pandas()

    assert frame.index.tolist() == [pd.Timestamp("2023-12-21T01:50:56.001Z"), pd.Timestamp("2023-12-21T01:50:56.103Z")]
    assert frame["sides"].tolist()[0] == "ASK"
    assert frame["sides"].isna().tolist() == [False, True]
    assert frame["update_ids"].tolist() == [7, 2**53 + 1]


def test_best_prices_as_a_frame() -> None:
    frame = BEST.to_pandas()

    assert (frame["ask_prices"].iloc[0], bool(frame["bid_prices"].isna().iloc[0])) == (6.25, True)


def test_pairs_as_a_frame_in_the_order_of_the_question() -> None:
    frame = QUANTITIES.to_pandas()

    assert frame["outcomes"].tolist() == ["ANSWERED", "HISTORY_GAP", "UNRECOGNIZED"]
    assert frame["as_of"].iloc[0] == pd.Timestamp("1970-01-01T00:00:01.500Z")
    assert frame["as_of"].isna().tolist() == [False, True, True]
    assert frame["sides"].astype(object).where(frame["sides"].notna(), None).tolist() == ["BID", None, "UNRECOGNIZED"]
    assert np.isnan(frame["differences"].to_numpy()[1])


@pytest.mark.parametrize(("method", "module"), [("to_numpy", "numpy"), ("to_pandas", "pandas")])
def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch, method: str, module: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ExtraMissing, match=f"this needs {module}: pip install 'chronobook\\[{module}\\]'"):
        getattr(CHANGES, method)()
