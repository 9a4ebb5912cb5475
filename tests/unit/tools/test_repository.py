"""Files that tools outside this repository read: attributes of git, hooks, and plugins of pytest."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tools import generate, licences

ROOT = Path(__file__).resolve().parents[3]
# A test of the core needs none of these, and each one takes 0.1 s or more to import.
HEAVY = ("aiohttp", "grpc", "pandas", "pyarrow", "schemathesis", "websockets")
COLLECT = """
import sys, pytest
assert pytest.main(["--collect-only", "-q", sys.argv[1]]) == 0
print(*sorted(set(sys.argv[2:]) & set(sys.modules)), sep=",")
"""


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="this copy is not a checkout of git")
def test_every_generated_file_is_marked_as_generated(tmp_path: Path) -> None:
    generate.copy_google_protos()
    generate.generate(tmp_path)
    made = [path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()]
    kept = [str(licences.PAGE.relative_to(ROOT)), "proto/released.binpb"]
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    command = ["git", "check-attr", "-z", "--stdin", "linguist-generated"]
    done = subprocess.run(command, cwd=ROOT, input=tracked, capture_output=True, text=True, check=True)
    fields = done.stdout.split("\0")[:-1]
    marked = {path for path, value in zip(fields[::3], fields[2::3], strict=True) if value == "set"}
    assert marked == {*map(str, made), *kept}


def test_every_hook_calls_a_program_of_this_repository() -> None:
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repository["repo"] == "local"
    commands = [hook["entry"].split() for hook in repository["hooks"] if hook["language"] == "system"]
    assert len(commands) + 1 == len(repository["hooks"])  # the other hook is a pattern for commit messages
    targets = {line.split(":")[0] for line in (ROOT / "Makefile").read_text().splitlines() if ":" in line}
    for program, *arguments in commands:
        assert arguments[0] in targets if program == "make" else (ROOT / program).exists()


def test_one_test_file_starts_without_heavy_modules() -> None:
    command = [sys.executable, "-c", COLLECT, "tests/unit/domain/test_exchange_clock.py", *HEAVY]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == ""
