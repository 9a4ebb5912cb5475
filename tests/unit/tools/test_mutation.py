"""The list of surviving mutants keeps its verdicts, and the mutated code exists."""

import tomllib
from pathlib import Path

from tools import mutation


def test_all_that_is_mutated_and_all_its_tests_are_there() -> None:
    for group in tomllib.loads((mutation.ROOT / "tools" / "mutation.toml").read_text()).values():
        assert all(list((mutation.ROOT / "server" / mutation.PACKAGE).glob(module)) for module in group["modules"])
        assert all((mutation.ROOT / "tests" / test).exists() for test in group["tests"])


def test_verdicts_are_kept_and_those_killed_since_then_too(tmp_path: Path) -> None:
    file = tmp_path / "survivors" / "book.toml"
    one, two = (
        ("book/order_book.py", "OrderBook.apply", "- a < b\n+ a <= b"),
        ("book/sorted_view.py", "view", "- 'x'\n+ None"),
    )
    assert mutation.write(file, [one, two]) == 2
    text = file.read_text()
    text = text.replace('verdict = ""', 'verdict = "equivalent: both are the same"', 1)
    file.write_text(text.replace('verdict = ""', 'verdict = "killed by tests/unit/book/test_sorted_view.py"', 1))
    assert mutation.write(file, [one]) == 0
    entries = tomllib.loads(file.read_text())["survivor"]
    assert [(entry["function"], entry["verdict"]) for entry in entries] == [
        ("OrderBook.apply", "equivalent: both are the same"),
        ("view", "killed by tests/unit/book/test_sorted_view.py"),
    ]


def test_the_name_of_a_function_is_read_from_a_mutants() -> None:
    assert mutation._function("chronobook_server.book.sync.stream_merge.xǁSpliceǁtake__mutmut_12") == "Splice.take"
    assert (
        mutation._function("chronobook_server.venue.binance_futures.rate_limit.x_depth_weight__mutmut_2")
        == "depth_weight"
    )
