"""A few seconds of fuzzing of each target, and all that was ever found, once more.

`CHRONOBOOK_FUZZ_SECONDS` makes it longer, `CHRONOBOOK_FUZZ_SEED` makes it another one; `run.py` does it alone.
"""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

from tests.fuzz import TARGETS

ROOT = Path(__file__).resolve().parents[2]
CASES = Path(__file__).parent / "cases"
SECONDS = int(os.environ.get("CHRONOBOOK_FUZZ_SECONDS", "8"))
SEED = int(os.environ.get("CHRONOBOOK_FUZZ_SEED", "1"))
# Of a machine that does thousands a second no more is wanted; of a slow one that does a dozen, not less than that.
_RUNS_A_SECOND = 2000
_LEAST_RUNS = 50
# Seconds to load the modules and their seeds, and for an input that hangs.
_SPARE_SECONDS = 240


@pytest.mark.timeout(SECONDS + _SPARE_SECONDS + 30)
@pytest.mark.parametrize("target", TARGETS)
def test_a_target_withstands_some_seconds_of_fuzzing(target: str, tmp_path: Path) -> None:
    imported = subprocess.run([sys.executable, "-c", "import atheris"], capture_output=True, text=True)
    if imported.returncode != 0:
        pytest.skip(f"atheris cannot be imported: {imported.stderr.strip().splitlines()[-1]}")
    # A small process forks, because the kernel counts the parent's peak to the memory that libFuzzer bounds.
    command = [
        "sh", "-c", '"$@"; exit $?', "sh",
        sys.executable, "-m", "tests.fuzz.run", target,
        f"--seconds={SECONDS}", f"--runs={SECONDS * _RUNS_A_SECOND}", f"--seed={SEED}", f"--folder={tmp_path}",
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=SECONDS + _SPARE_SECONDS
    )
    said = done.stdout.decode(errors="replace")
    found = [(path.name, path.read_bytes().hex()) for path in tmp_path.glob("*/findings/*")]
    assert (done.returncode, found) == (0, []), f"{' '.join(command[5:])}\n{said[-6000:]}"
    (runs,) = re.findall(r"^Done (\d+) runs", said, re.MULTILINE)
    assert int(runs) > _LEAST_RUNS, said[-2000:]
    # Its coverage of the code is measured, and its inputs reached more than the first ones.
    (seen,) = re.findall(r"^#\d+\s+INITED cov: (\d+) ft: (\d+)", said, re.MULTILINE)
    (at_last,) = re.findall(r"^#\d+\s+DONE\s+cov: (\d+) ft: (\d+)", said, re.MULTILINE)
    assert int(seen[0]) > _LEAST_RUNS, said[-2000:]
    assert int(at_last[1]) > int(seen[1]), said[-2000:]
    print(f"{target}: {runs} inputs, seed {SEED}")


@pytest.mark.parametrize("target", TARGETS)
def test_what_a_target_begins_with_is_no_finding(target: str) -> None:
    seeds = import_module(f"tests.fuzz.{target}").seeds()
    assert len(seeds) > 3
    for seed in seeds:
        checked(target)(seed)


@pytest.mark.parametrize("case", sorted(CASES.glob("*/*")), ids=lambda case: f"{case.parent.name}/{case.name}")
def test_what_was_found_once_is_found_no_more(case: Path) -> None:
    checked(case.parent.name)(case.read_bytes())


def checked(target: str) -> Callable[[bytes], None]:
    check: Callable[[bytes], None] = import_module(f"tests.fuzz.{target}").check
    return check
