"""A data directory of an earlier commit opens, and answers as that commit answered.

`tests/fixtures/data_0_2` is 25 seconds of the simulator's market, written at 6eb157d, the last commit before today's
packages. Its server stopped without closing: five segments are files, the newest one is a log. `answers.json` has the
answers of that commit, prices and quantities in steps.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chronobook_server.domain.cooperative import run_now
from chronobook_server.domain.errors import Refusal
from chronobook_server.domain.stream_id import depth_of
from chronobook_server.domain.values import Millis, Price
from chronobook_server.history.directory.data_directory import DataDirectory
from chronobook_server.history.format.file_origin import Origin
from chronobook_server.history.query.history import SymbolHistory
from chronobook_server.history.segment.cache import CacheBudget
from testkit.fakes.memory_files import InlineSealer

_FIXTURE = Path(__file__).parents[3] / "fixtures" / "data_0_2"
SAID: dict[str, Any] = json.loads((_FIXTURE / "answers.json").read_text())


@pytest.fixture(params=["alone", "beside another kind"])
def history(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[SymbolHistory]:
    shutil.copytree(_FIXTURE / "data", tmp_path / "data")
    if request.param == "beside another kind":
        shutil.copytree(_FIXTURE / "data" / SAID["symbol"], tmp_path / "data" / f"{SAID['symbol']}@aggTrade")
    directory = DataDirectory(tmp_path / "data", "https://fapi.binance.com")
    try:
        yield directory.open(
            depth_of(SAID["symbol"]),
            InlineSealer(),
            retention_ms=86_400_000,
            cache_budget=CacheBudget(),
            segment_ms=5_000,
        )
    finally:
        directory.close()


def test_everything_that_was_held_is_held(history: SymbolHistory) -> None:
    assert [history.instrument.price_scale, history.instrument.quantity_scale] == SAID["scales"]
    assert history.events == SAID["events"]
    assert [[each.start, each.end] for each in history.coverage()] == SAID["coverage"]
    gaps = [[gap.start, gap.end, gap.cause.value] for gap in history.gaps()]
    assert gaps == [*SAID["gaps"], [SAID["coverage"][-1][1], None, "RESTART"]]
    assert history.damaged_files == {}


def test_a_file_of_depth_names_its_origin_as_before() -> None:
    origin = Origin(depth_of(SAID["symbol"]), "https://fapi.binance.com").encode()
    files = [path for path in (_FIXTURE / "data" / SAID["symbol"]).iterdir() if path.suffix in (".seg", ".wal")]
    assert len(files) == 6
    assert all(origin in path.read_bytes() for path in files)


def test_each_level_is_answered_as_before(history: SymbolHistory) -> None:
    for price, time, said in SAID["levels"]:
        try:
            state = history.level_at(Price(price), Millis(time))
            answer: object = [state.quantity, state.as_of, state.update_id]
        except Refusal as refusal:
            answer = type(refusal).__name__
        assert answer == said, (price, time)


def test_each_book_is_answered_as_before(history: SymbolHistory) -> None:
    for time, update_id, prices, quantities, known in SAID["books"]:
        book = run_now(history.book_at(Millis(time)))
        assert (book.update_id, book.prices.tolist(), book.quantities.tolist()) == (update_id, prices, quantities)
        assert [book.known_range.lowest, book.known_range.highest] == known
