"""Environments with only the wheels of this project and their dependencies."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CLIENT, SERVER = ROOT / "clients" / "python", ROOT


def run(*command: str | Path, cwd: Path | str = "/") -> str:
    """Run a program outside of the project; return its output."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=clean(), cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def clean() -> dict[str, str]:
    """Return the environment without variables that lead back into the project."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}


def installed(folder: Path, *projects: Path) -> Path:
    """Return the folder of the programs of a new environment, with the wheels of these projects."""
    python = folder / "env" / "bin" / "python"
    run(sys.executable, "-m", "venv", folder / "env")
    pip = (python, "-m", "pip", "--quiet", "--disable-pip-version-check")
    for project in projects:
        run(*pip, "wheel", "--no-deps", "--wheel-dir", folder, project)
    wheels = sorted(folder.glob("*.whl"))
    assert len(wheels) == len(projects)
    run(*pip, "install", "--constraint", ROOT / "constraints.txt", *wheels)
    return python.parent
