"""The licences of dependencies: the file is current, and only a licence of the list passes."""

import sys
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from tools import licences
from tools.licences import closure, faults, page, shipped

ROOT = Path(__file__).resolve().parents[3]
PINS = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines())


def found(**each: str) -> dict[str, dict[str, str]]:
    return {name: {"Name": name.title(), "Version": "1", "License": licence} for name, licence in each.items()}


def test_the_file_names_every_shipped_dependency_as_pinned() -> None:
    uses = shipped()
    text = (ROOT / "docs" / "licences.md").read_text()
    assert page(uses, licences.licences(list(uses))) == text
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")][2:]
    assert [canonicalize_name(row[0]) for row in rows] == sorted(uses)
    for name, version, licence, _ in rows:
        assert PINS[name] == version
        assert licence in licences.ALLOWED
    assert uses["grpcio"] == ["server", "client"]
    assert uses["aiohttp"] == ["server"]
    assert uses["pyarrow"] == ["client[parquet]"]
    assert not {"chronobook", "chronobook-server", "pytest"} & set(uses)


@pytest.mark.parametrize(
    "licence", ["UNKNOWN", "", "GPL-3.0-only", "GPL-3.0-only AND MIT", "GNU GPL; MIT License", "mit"]
)
def test_only_a_licence_of_the_list_passes(licence: str) -> None:
    uses = {"good": ["server"], "odd": ["client[pandas]"]}
    assert faults(uses, found(good="MIT", odd="BSD-3-Clause")) == []
    (fault,) = faults(uses, found(good="MIT", odd=licence))
    assert fault.startswith(f"odd: its licence ({licence}) is not in ALLOWED")


def test_a_dependency_that_is_not_installed_has_no_known_licence() -> None:
    uses = {name: ["server"] for name in closure(["no-such-package"])}
    assert licences.licences(list(uses)) == {}
    (fault,) = faults(uses, {})
    assert fault.startswith("no-such-package: its licence (unknown, not installed)")


@pytest.mark.parametrize("wrong", ["licence", "file"])
def test_check_fails_and_writes_nothing(
    wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    uses, read = {"odd": ["server"]}, found(odd="UNKNOWN" if wrong == "licence" else "MIT")
    path = tmp_path / "licences.md"
    path.write_text(page(uses, read) if wrong == "licence" else "old")
    monkeypatch.setattr(licences, "PAGE", path)
    monkeypatch.setattr(licences, "shipped", lambda: uses)
    monkeypatch.setattr(licences, "licences", lambda _: read)
    monkeypatch.setattr(sys, "argv", ["licences.py", "--check"])
    before = path.read_text()
    assert licences.main() == 1
    assert capsys.readouterr().err.startswith("odd: " if wrong == "licence" else "docs/licences.md: ")
    assert path.read_text() == before
    monkeypatch.setattr(sys, "argv", ["licences.py"])
    assert licences.main() == (1 if wrong == "licence" else 0)
    assert path.read_text() == page(uses, read)


def test_requirements_are_followed_through_extras_of_all_pythons(monkeypatch: pytest.MonkeyPatch) -> None:
    needs = {
        "a": ["b[fast] >= 1", "windows; sys_platform == 'win32'", "old; python_version < '3.12'"],
        "b": ["plain", "quick; extra == 'fast'", "slow; extra == 'slow'", "a"],
        "plain": ["new; python_version >= '3.14'", "ancient; python_version < '3.11'"],
    }
    monkeypatch.setattr(licences, "requires", lambda name: needs.get(name))
    assert closure(["a", "later"]) == {"a", "b", "later", "new", "old", "plain", "quick"}
