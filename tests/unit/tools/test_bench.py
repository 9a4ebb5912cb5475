"""A benchmark that misses a limit or fails is reported at the end, and does not stop the others."""

import sys
from pathlib import Path

import pytest

from benchmarks import run
from benchmarks.limits import Limits


def test_a_missed_limit_is_a_line_and_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    limits = Limits()
    limits.at_most("delay in ms", 20.0, 25)
    limits.at_least("share", 0.9, 0.85)
    assert limits.exit_code() == 0
    limits.at_most("delay in ms", 26.0, 25)
    limits.at_least("share", 0.5, 0.85)
    limits.holds("nothing came in sync", is_met=False)
    assert limits.exit_code() == 1
    assert capsys.readouterr().out.splitlines() == [
        "missed: delay in ms is 26, at most 25",
        "missed: share is 0.5, at least 0.85",
        "missed: nothing came in sync",
    ]


def test_all_benchmarks_run_and_the_summary_names_each_miss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    package = tmp_path / "benchmarks"
    package.mkdir()
    (package / "good.py").write_text("print('figures')\n")
    (package / "slow.py").write_text("print('missed: it is 3, at most 2')\nraise SystemExit(1)\n")
    (package / "broken.py").write_text("raise SystemExit(7)\n")
    monkeypatch.setattr(run, "_ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["run", "slow", "broken", "good"])
    assert run.main() == 1
    printed = capsys.readouterr().out.splitlines()
    assert "figures" in printed, "the last one ran too"
    assert [line.split(maxsplit=1) for line in printed[printed.index("=== summary") + 1 :]] == [
        ["slow", "it is 3, at most 2"],
        ["broken", "failed with exit code 7"],
        ["good", "all limits met"],
    ]
    monkeypatch.setattr(sys, "argv", ["run", "good"])
    assert run.main() == 0
