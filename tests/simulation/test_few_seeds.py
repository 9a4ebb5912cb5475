"""Some bad days, one a test: what the mutation check runs where the unit tests notice nothing (tools/mutation.toml)."""

import pytest

from tests.simulation.world import quietly


@pytest.mark.parametrize("seed", range(24))
def test_a_bad_day_ends_well(seed: int) -> None:
    assert quietly(seed).wrong == []
