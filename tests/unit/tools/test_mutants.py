"""The faults made by hand can still be made: each of them has its place in the code of today."""

from pathlib import Path

import pytest

import chronobook_server
from tools.mutants import MUTANTS, Mutant

SERVER = Path(chronobook_server.__file__).parent


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_fault_has_its_place(mutant: Mutant) -> None:
    assert (SERVER / mutant.file).read_text().count(mutant.old) == 1
    assert mutant.new != mutant.old
