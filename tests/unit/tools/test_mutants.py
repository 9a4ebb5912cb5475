"""The faults made by hand can still be made: each of them has its place in the code of today."""

from pathlib import Path

import pytest

import chronobook_server
from tools.mutants import MUTANTS, Mutant

SERVER = Path(chronobook_server.__file__).parent


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_fault_has_its_place(mutant: Mutant) -> None:
    text = (SERVER / mutant.file).read_text()
    assert text.count(mutant.old) == 1
    assert mutant.new != mutant.old
    # Text that is no Python would make every test fail, and the fault would seem caught.
    compile(text.replace(mutant.old, mutant.new), mutant.file, "exec")
