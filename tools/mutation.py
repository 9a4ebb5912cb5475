"""Mechanical mutation check: mutmut changes the core in every small way that it knows, and the tests must notice.

`make mutation` runs the groups of tools/mutation.toml in `.build/mutation`, and resumes after an interruption. It
writes the survivors of a group into a file of tools/survivors, where each one has a verdict: why it changes nothing, or
which test kills it now. It exits with 1 if one has no verdict. `--list` only writes the files.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STAGE = ROOT / ".build" / "mutation"
SURVIVORS = ROOT / "tools" / "survivors"
PACKAGE = "chronobook_server"
_NICENESS = 19
# mutmut's exit code of a mutant that no test noticed, and of one that no test runs.
_SURVIVED = {0, 33}
_HEAD = "# Mutants of mutmut that no test noticed, with a verdict each; `make mutation` keeps this file.\n"
# A verdict holds for the code of a line, so its comment may be reworded.
_COMMENT = re.compile(r"  # .*$")

Survivor = tuple[str, str, str]
"""Module, function, and the changed lines."""


def stage(name: str, group: dict[str, list[str]]) -> Path:
    """Make the folder of a mutmut run: mutmut wants the package below `src`, and puts the mutants beside it."""
    folder = STAGE / name
    folder.mkdir(parents=True, exist_ok=True)
    for source, target in (("server", "src"), ("tests", "tests"), ("testkit", "testkit"), ("benchmarks", "benchmarks")):
        shutil.copytree(
            ROOT / source, folder / target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__")
        )
    pytest_options = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    options = {
        "source_paths": ["src"],
        "also_copy": ["benchmarks", "testkit"],
        "only_mutate": [f"src/{PACKAGE}/{module}" for module in group["modules"]],
        "pytest_add_cli_args_test_selection": [f"tests/{test}" for test in group["tests"]],
        "use_git_change_detection": False,
        "track_dependencies": False,
    }
    lines = ["[tool.pytest.ini_options]", *_assignments(pytest_options), "[tool.mutmut]", *_assignments(options)]
    (folder / "pyproject.toml").write_text("\n".join(lines) + "\n")
    return folder


def _assignments(options: dict[str, object]) -> list[str]:
    return [f"{key} = {json.dumps(value)}" for key, value in options.items()]


def run(folder: Path, workers: int) -> None:
    """Run the mutants of a group that have no result yet."""
    command = [sys.executable, "-m", "mutmut", "run", "--max-children", str(workers)]
    settings = {**os.environ, "TEST_PROFILE": "mutation", "CHRONOBOOK_PURE_PYTHON": "1"}
    subprocess.run(command, cwd=folder, env=settings, check=False, preexec_fn=lambda: os.nice(_NICENESS))


def survivors(folder: Path) -> list[Survivor]:
    """Return the survivors of a group, and print the counts of each module."""
    found = []
    for path in sorted((folder / "mutants").rglob("*.meta")):
        module = path.relative_to(folder / "mutants" / "src" / PACKAGE).as_posix().removesuffix(".meta")
        codes: dict[str, int | None] = json.loads(path.read_text())["exit_code_by_key"]
        lived = [key for key, code in codes.items() if code in _SURVIVED]
        left = sum(code is None for code in codes.values())
        if codes:
            print(f"{module:<28}{len(codes):>6} mutants{len(lived):>6} survive{left:>6} to do")
        found += [(module, _function(key), _changed_lines(folder, key)) for key in lived]
    return found


def _function(key: str) -> str:
    return key.rpartition("__mutmut_")[0].rpartition(".")[2].replace("xǁ", "").replace("ǁ", ".").removeprefix("x_")


def _changed_lines(folder: Path, key: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "mutmut", "show", key], cwd=folder, capture_output=True, text=True, check=True
    )
    kept = [line for line in done.stdout.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    return "\n".join(line[0] + " " + _COMMENT.sub("", line[1:]).strip() for line in kept)


def write(file: Path, found: list[Survivor]) -> int:
    """Keep the verdicts of present survivors, add new ones; return the number without a verdict."""
    verdicts: dict[Survivor, str] = {}
    if file.exists():
        for entry in tomllib.loads(file.read_text()).get("survivor", []):
            verdicts[entry["module"], entry["function"], entry["change"].strip()] = entry["verdict"]
    entries = {survivor: verdicts.get(survivor, "") for survivor in sorted(set(found))}
    # A mutant that a new test kills stays in the list with the name of that test.
    entries |= {survivor: verdict for survivor, verdict in verdicts.items() if verdict.startswith("killed")}
    text = [_HEAD]
    for (module, function, change), verdict in sorted(entries.items()):
        text += ["[[survivor]]", f'module = "{module}"', f'function = "{function}"',
                 f"change = '''\n{change}\n'''", f"verdict = {json.dumps(verdict)}", ""]  # fmt: skip
    file.parent.mkdir(exist_ok=True)
    file.write_text("\n".join(text))
    return sum(not verdict for verdict in entries.values())


def main() -> int:
    """Run the command."""
    groups: dict[str, dict[str, list[str]]] = tomllib.loads((ROOT / "tools" / "mutation.toml").read_text())
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("groups", nargs="*", choices=[*groups, []], help="default: all")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--list", action="store_true", help="run nothing, write what survived so far")
    given = parser.parse_args()
    missing = 0
    for name in given.groups or groups:
        if not given.list:
            run(stage(name, groups[name]), given.workers)
        found, file = survivors(STAGE / name), SURVIVORS / f"{name}.toml"
        unjudged = write(file, found)
        print(f"{name}: {len(found)} survive, {unjudged} without a verdict in {file.relative_to(ROOT)}")
        missing += unjudged
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
