"""Export of a book's interval to a file for pandas, polars, DuckDB or numpy: a row for every change of every level.

    timestamp  `T` of the event; Parquet: milliseconds in UTC, npz: Unix seconds
    update_id  final update id of the event; null (npz: 0) in RESYNCED
    kind       STATE: a level of the whole book, which starts over here; CHANGE: a level that changed; GAP: nothing is
               known from here on; RESYNCED: until here. STATE follows
    side       BID or ASK; null for an emptied level, which is a CHANGE with the quantity 0
    price      null (npz: NaN) in GAP and RESYNCED
    quantity   likewise
    cause      in GAP and RESYNCED

In an npz file, `kind`, `side` and `cause` are numbers: the places of their names in the arrays `kinds`, `sides` and
`causes`, the first of which is empty. Outside the known range of a STATE, an absent price is unknown: the ranges are
the arrays `range_timestamps`, `range_lowest` and `range_highest` (NaN: without bound), in Parquet the metadata
`known_ranges`, as JSON. `complete_to`, an array of one value or JSON in the metadata, is the last final instant:
another event of the interval's last instant may still come.
"""

import json
import shutil
import tempfile
import zipfile
from array import array
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol, Self

from chronobook._extras import extra
from chronobook.columns import BookMessage, EventColumns
from chronobook.results import Cause, Kind, Side

if TYPE_CHECKING:
    import numpy.typing as npt

# Rows collected in memory before they go to the file.
_ROWS = 500_000
KINDS = ("", Kind.STATE, Kind.CHANGE, Kind.GAP, Kind.RESYNCED)
SIDES = ("", Side.BID, Side.ASK)
CAUSES = ("", *Cause)
_NAMES = {"kind": KINDS, "side": SIDES, "cause": CAUSES}
_TYPES = {"timestamp": "d", "update_id": "q", "kind": "b", "side": "b", "price": "d", "quantity": "d", "cause": "b"}


@dataclass(frozen=True, slots=True)
class Exported:
    """Result of an export: numbers of rows, events and gaps, and the instants of the first and last event.

    `complete_to`: the last final instant; None without one.
    """

    file: str
    rows: int
    events: int
    gaps: int
    start: float | None
    end: float | None
    bytes: int
    complete_to: float | None = None


class _Rows:
    """Rows as columns, and the known ranges beside them.

    `events` is the number of messages and events with rows so far; `first` and `last` are the times of such.
    """

    def __init__(self) -> None:
        self.columns: dict[str, array[Any]] = {name: array(code) for name, code in _TYPES.items()}
        self.ranges: list[tuple[float, float | None, float | None]] = []
        self.events = 0
        self.first: float | None = None
        self.last: float | None = None

    def __len__(self) -> int:
        return len(self.columns["price"])

    def take(self, message: BookMessage) -> int:
        """Add a message; return the number of its rows."""
        before = len(self)
        if message.events is not None:
            self._take_events(message.events)
            return len(self) - before
        for prices, quantities, side in (
            (message.bid_prices, message.bid_quantities, 1),
            (message.ask_prices, message.ask_quantities, 2),
            (message.removed_prices, array("d", bytes(8 * len(message.removed_prices))), 0),
        ):
            self._extend(message, prices, quantities, side)
        if message.kind in (Kind.GAP, Kind.RESYNCED):
            nothing = array("d", (float("nan"),))
            self._extend(message, nothing, nothing, 0)
        if message.known_range is not None:
            self.ranges.append((message.timestamp, message.known_range.lowest, message.known_range.highest))
        made = len(self) - before
        if made:
            self._note(1, message.timestamp, message.timestamp)
        return made

    def _note(self, events: int, first: float, last: float) -> None:
        self.events += events
        self.first, self.last = first if self.first is None else self.first, last

    def _take_events(self, events: EventColumns) -> None:
        np = extra("numpy", "numpy")
        made = events.to_numpy()
        sides = np.where(made["sides"] < 0, SIDES.index(Side.ASK), made["sides"])  # BID has the code 1, as in `sides`
        fixed = {"kind": KINDS.index(Kind.CHANGE), "cause": 0}
        varying = {
            "timestamp": made["timestamps"],
            "update_id": made["update_ids"],
            "side": sides.astype(np.int8),
            "price": made["prices"],
            "quantity": made["quantities"],
        }
        for name, values in varying.items():
            self.columns[name].frombytes(values.tobytes())
        for name, code in fixed.items():
            self.columns[name].frombytes(bytes([code]) * len(events.prices))
        changing = np.flatnonzero(np.asarray(events.counts))
        if len(changing):
            self._note(len(changing), events.times[changing[0]] / 1000, events.times[changing[-1]] / 1000)

    def _extend(self, message: BookMessage, prices: "array[float]", quantities: "array[float]", side: int) -> None:
        count = len(prices)
        if not count:
            return
        columns = self.columns
        columns["timestamp"].extend(repeat(message.timestamp, count))
        columns["update_id"].extend(repeat(message.update_id or 0, count))
        columns["kind"].extend(repeat(KINDS.index(message.kind), count))
        columns["side"].extend(repeat(side, count))
        columns["price"].extend(prices)
        columns["quantity"].extend(quantities)
        columns["cause"].extend(repeat(0 if message.cause is None else CAUSES.index(message.cause), count))

    def cut(self) -> "dict[str, npt.NDArray[Any]]":
        """Return the columns, and begin new ones."""
        numpy = extra("numpy", "numpy")
        taken, self.columns = self.columns, {name: array(code) for name, code in _TYPES.items()}
        return {name: numpy.asarray(column) for name, column in taken.items()}


class _File(Protocol):
    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...

    def write(self, columns: "dict[str, npt.NDArray[Any]]") -> None:
        """Write more rows."""

    def finish(self, ranges: list[tuple[float, float | None, float | None]], complete_to: float | None) -> None:
        """Write the metadata at the end."""


class _Parquet:
    def __init__(self, path: Path) -> None:
        self._pa, self._np = extra("pyarrow", "parquet"), extra("numpy", "parquet")
        names = {name: self._pa.dictionary(self._pa.int8(), self._pa.string()) for name in _NAMES}
        plain = {"update_id": self._pa.int64(), "price": self._pa.float64(), "quantity": self._pa.float64()}
        types = {"timestamp": self._pa.timestamp("ms", tz="UTC"), **plain, **names}
        self._schema = self._pa.schema([(name, types[name]) for name in _TYPES])
        self._writer = extra("pyarrow.parquet", "parquet").ParquetWriter(path, self._schema, compression="zstd")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._writer.close()

    def write(self, columns: "dict[str, npt.NDArray[Any]]") -> None:
        made = [self._column(name, columns[name]) for name in _TYPES]
        self._writer.write_table(self._pa.table(made, schema=self._schema))

    def _column(self, name: str, values: "npt.NDArray[Any]") -> Any:
        pa, np = self._pa, self._np
        if name in _NAMES:
            codes = pa.array(values - 1, mask=values == 0)
            return pa.DictionaryArray.from_arrays(codes, [str(each) for each in _NAMES[name][1:]])
        if name == "timestamp":
            return pa.array(np.rint(values * 1000).astype(np.int64)).cast(self._schema.field(name).type)
        return pa.array(values, mask=values == 0 if name == "update_id" else np.isnan(values))

    def finish(self, ranges: list[tuple[float, float | None, float | None]], complete_to: float | None) -> None:
        named = [dict(zip(("timestamp", "lowest", "highest"), each, strict=True)) for each in ranges]
        self._writer.add_key_value_metadata({"known_ranges": json.dumps(named), "complete_to": json.dumps(complete_to)})


class _Npz:
    """Columns go to temporary files first, because an array's length comes before its entries."""

    def __init__(self, path: Path) -> None:
        self._np, self._path = extra("numpy", "numpy"), path
        self._stack = ExitStack()
        self._columns: dict[str, IO[bytes]] = {}

    def __enter__(self) -> Self:
        for name in _TYPES:
            self._columns[name] = self._stack.enter_context(tempfile.TemporaryFile(dir=self._path.parent))
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def write(self, columns: "dict[str, npt.NDArray[Any]]") -> None:
        for name, values in columns.items():
            self._columns[name].write(values.tobytes())

    def finish(self, ranges: list[tuple[float, float | None, float | None]], complete_to: float | None) -> None:
        np = self._np
        with zipfile.ZipFile(self._path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
            for name, values in self._columns.items():
                dtype = np.dtype(_TYPES[name])
                header = {"descr": dtype.str, "fortran_order": False, "shape": (values.tell() // dtype.itemsize,)}
                values.seek(0)
                with file.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    np.lib.format.write_array_header_1_0(entry, header)
                    shutil.copyfileobj(values, entry, 1 << 20)
            others = {f"{name}s": np.array([str(each) for each in names]) for name, names in _NAMES.items()}
            table = np.array(ranges, np.float64).reshape(-1, 3)
            others |= {f"range_{name}": table[:, at] for at, name in enumerate(("timestamps", "lowest", "highest"))}
            others["complete_to"] = np.array([complete_to], np.float64)
            for name, short in others.items():
                with file.open(f"{name}.npy", "w") as entry:
                    np.lib.format.write_array(entry, short)


EXPORTS: dict[str, Callable[[Path], _File]] = {".parquet": _Parquet, ".npz": _Npz}


def export(messages: Iterable[BookMessage], file: str | Path) -> Exported:
    """Write the messages of `watch_order_book`, up to an `end`, into a file that ends in .parquet or .npz.

    A file of that name is replaced only after all rows are written. Memory holds at most half a million rows of any
    interval. Raises ExtraMissing without pyarrow or numpy, OSError if the file cannot be written, ConnectionError if
    the stream ends before its interval, ValueError for another suffix, and the errors of the stream.

    >>> messages = client.watch_order_book(start=1703123250, end=1703123400, batches=True)
    >>> export(messages, "ETHUSDT.parquet").rows
    4
    """
    path = Path(file)
    if path.suffix not in EXPORTS:
        raise ValueError(f"{path.name} ends in neither of {' and '.join(EXPORTS)}")
    rows, total, gaps = _Rows(), 0, 0
    complete_to: float | None = None
    # A temporary folder, so that a failure leaves no file behind.
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        part = Path(folder) / path.name
        with EXPORTS[path.suffix](part) as written:
            for message in messages:
                if message.kind is Kind.END and message.cause is not Cause.INTERVAL_OVER:
                    raise ConnectionError(f"the stream ended before its interval did: {message.cause}")
                complete_to = message.complete_to if message.kind is Kind.END else complete_to
                total += rows.take(message)
                gaps += message.kind is Kind.GAP
                if len(rows) >= _ROWS:
                    written.write(rows.cut())
            written.write(rows.cut())
            written.finish(rows.ranges, complete_to)
        size = part.stat().st_size
        part.replace(path)
    return Exported(str(path), total, rows.events, gaps, rows.first, rows.last, size, complete_to)
