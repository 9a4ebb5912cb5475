"""Some bad days, one a test, for mutants that the unit tests do not notice (tools/mutation.toml)."""

import pytest

from tests.simulation.world import quietly


@pytest.mark.parametrize("seed", range(24))
def test_a_bad_day_ends_well(seed: int) -> None:
    assert quietly(seed).wrong == []
