"""Two files out of one source."""

from pathlib import Path

import pytest

from tools.variants import VARIANTS, variant

ENVOY = Path(__file__).resolve().parent.parent.parent / "envoy"
SOURCE = "#> local\nof one\n#> both\nof both\n#> edge\nof the other\n"


def test_each_gets_its_own_lines_and_those_of_both() -> None:
    assert variant(SOURCE, "local") == "of one\nof both\n"
    assert variant(SOURCE, "edge") == "of both\nof the other\n"
    assert variant("before all\n" + SOURCE, "edge").startswith("before all\n")


def test_a_section_of_nobody_is_a_fault() -> None:
    with pytest.raises(ValueError, match="line 2: there is no variant 'nobody'"):
        variant("x\n#> nobody\ny\n", "edge")


@pytest.mark.parametrize("name", VARIANTS)
def test_the_files_in_the_tree_are_of_the_source_in_the_tree(name: str) -> None:
    source = (ENVOY / "envoy.in.yaml").read_text(encoding="utf-8")
    assert (ENVOY / VARIANTS[name]).read_text(encoding="utf-8") == variant(source, name)
