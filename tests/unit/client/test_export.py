import json
import sys
from array import array
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest

from chronobook import BookMessage, Cause, EventColumns, ExtraMissing, Kind, KnownRange, _export, export

Levels = dict[float, float]


def message(
    kind: Kind,
    time: float,
    update_id: int | None = None,
    *,
    bids: Levels | None = None,
    asks: Levels | None = None,
    removed: tuple[float, ...] = (),
    known: KnownRange | None = None,
    cause: Cause | None = None,
) -> BookMessage:
    bids, asks = bids or {}, asks or {}
    return BookMessage(
        kind=kind,
        symbol="ETHUSDT",
        timestamp=time,
        update_id=update_id,
        bid_prices=array("d", bids),
        bid_quantities=array("d", bids.values()),
        ask_prices=array("d", asks),
        ask_quantities=array("d", asks.values()),
        removed_prices=array("d", removed),
        known_range=known,
        gap_start=None,
        gap_end=None,
        cause=cause,
    )


MESSAGES = (
    message(Kind.STATE, 1.0, 2**40, bids={99.0: 1.5}, asks={101.0: 3.0, 102.5: 4.0}, known=KnownRange(98.0, None)),
    message(Kind.CHANGE, 1.1, 2**40 + 5, bids={98.5: 2.0}, removed=(101.0, 90.0)),
    message(Kind.HEARTBEAT, 11.1, 2**40 + 5),
    message(Kind.GAP, 11.5, 2**40 + 5, cause=Cause.DISCONNECT),
    message(Kind.RESYNCED, 12.0, cause=Cause.DISCONNECT),
    message(Kind.STATE, 12.0, 2**40 + 9, asks={101.0: 0.25}, known=KnownRange(None, 200.0)),
    message(Kind.END, 13.0, cause=Cause.INTERVAL_OVER),
)
# The same, with the change as one of three events in a BATCH.
CHANGE = replace(MESSAGES[1], bid_prices=array("d"), bid_quantities=array("d"), removed_prices=array("d"))
BATCH = replace(
    CHANGE,
    kind=Kind.BATCH,
    timestamp=1.2,
    update_id=2**40 + 6,
    events=EventColumns(
        times=array("q", (1050, 1100, 1200)),
        update_ids=array("q", (2**40 + 4, 2**40 + 5, 2**40 + 6)),
        counts=array("I", (0, 3, 0)),
        prices=array("q", (9850, 10100, 9000)),
        quantities=array("q", (2000, 0, 0)),
        price_scale=2,
        quantity_scale=3,
    ),
)
IN_BATCHES = (MESSAGES[0], BATCH, *MESSAGES[2:])
# kind, side, price, quantity
ROWS = [
    ("STATE", "BID", 99.0, 1.5),
    ("STATE", "ASK", 101.0, 3.0),
    ("STATE", "ASK", 102.5, 4.0),
    ("CHANGE", "BID", 98.5, 2.0),
    ("CHANGE", "", 101.0, 0.0),
    ("CHANGE", "", 90.0, 0.0),
    ("GAP", "", None, None),
    ("RESYNCED", "", None, None),
    ("STATE", "ASK", 101.0, 0.25),
]
TIMES = [1.0, 1.0, 1.0, 1.1, 1.1, 1.1, 11.5, 12.0, 12.0]
IDS = [2**40] * 3 + [2**40 + 5] * 4 + [None, 2**40 + 9]


def none_for_nan(value: float) -> float | None:
    return None if np.isnan(value) else value


@pytest.mark.parametrize("messages", [MESSAGES, IN_BATCHES], ids=["single", "batches"])
@pytest.mark.parametrize("rows_at_once", [1, 4, 500_000])
def test_a_parquet_file_says_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows_at_once: int, messages: tuple[BookMessage, ...]
) -> None:
    monkeypatch.setattr(_export, "_ROWS", rows_at_once)
    written = export(messages, tmp_path / "book.parquet")

    table = pyarrow.parquet.read_table(tmp_path / "book.parquet")
    rows: list[dict[str, Any]] = table.to_pylist()
    assert [(row["kind"], row["side"] or "", row["price"], row["quantity"]) for row in rows] == ROWS
    assert [row["timestamp"] for row in rows] == [datetime.fromtimestamp(time, UTC) for time in TIMES]
    assert [row["update_id"] for row in rows] == IDS
    assert [row["cause"] for row in rows] == [None] * 6 + ["DISCONNECT"] * 2 + [None]
    assert json.loads(pyarrow.parquet.read_metadata(tmp_path / "book.parquet").metadata[b"known_ranges"]) == [
        {"timestamp": 1.0, "lowest": 98.0, "highest": None},
        {"timestamp": 12.0, "lowest": None, "highest": 200.0},
    ]
    assert (written.rows, written.events, written.gaps, written.start, written.end) == (9, 5, 1, 1.0, 12.0)
    assert written.bytes == (tmp_path / "book.parquet").stat().st_size
    assert pd.read_parquet(tmp_path / "book.parquet")["timestamp"].dt.tz is not None


@pytest.mark.parametrize("messages", [MESSAGES, IN_BATCHES], ids=["single", "batches"])
@pytest.mark.parametrize("rows_at_once", [1, 4, 500_000])
def test_an_npz_file_says_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows_at_once: int, messages: tuple[BookMessage, ...]
) -> None:
    monkeypatch.setattr(_export, "_ROWS", rows_at_once)
    export(messages, tmp_path / "book.npz")

    with np.load(tmp_path / "book.npz") as file:
        kinds, sides, causes = (file[names][file[name]] for names, name in (
            ("kinds", "kind"), ("sides", "side"), ("causes", "cause")))  # fmt: skip
        prices, quantities = map(none_for_nan, file["price"]), map(none_for_nan, file["quantity"])
        assert list(zip(kinds.tolist(), sides.tolist(), prices, quantities, strict=True)) == ROWS
        assert file["timestamp"].tolist() == TIMES
        assert file["update_id"].tolist() == [update_id or 0 for update_id in IDS]
        assert causes.tolist() == [""] * 6 + ["DISCONNECT"] * 2 + [""]
        assert file["range_timestamps"].tolist() == [1.0, 12.0]
        assert [*map(none_for_nan, file["range_lowest"])] == [98.0, None]
        assert [*map(none_for_nan, file["range_highest"])] == [None, 200.0]


@pytest.mark.parametrize("name", ["book.parquet", "book.npz"])
def test_a_stream_that_breaks_leaves_what_was_there(tmp_path: Path, name: str) -> None:
    def breaking() -> Iterator[BookMessage]:
        yield MESSAGES[0]
        raise RuntimeError("the stream broke")

    (tmp_path / name).write_text("of yesterday")
    with pytest.raises(RuntimeError, match="broke"):
        export(breaking(), tmp_path / name)
    assert [each.read_text() for each in tmp_path.iterdir()] == ["of yesterday"]


@pytest.mark.parametrize("cause", [Cause.SHUTDOWN, Cause.UNRECOGNIZED, None])
def test_a_part_is_not_passed_off_as_the_whole(tmp_path: Path, cause: Cause | None) -> None:
    ended = (*MESSAGES[:2], message(Kind.END, 1.2, cause=cause))
    with pytest.raises(ConnectionError, match="ended before its interval did"):
        export(ended, tmp_path / "book.npz")
    assert not list(tmp_path.iterdir())


def test_what_a_later_server_sends_is_no_row_and_no_error(tmp_path: Path) -> None:
    written = export([message(Kind.UNRECOGNIZED, 1.0)], tmp_path / "book.npz")
    assert (written.rows, written.start) == (0, None)


def test_another_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"book\.csv ends in neither of \.parquet and \.npz"):
        export([], tmp_path / "book.csv")


def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ExtraMissing, match=r"this needs pyarrow: pip install 'chronobook\[parquet\]'"):
        export(MESSAGES, tmp_path / "book.parquet")
