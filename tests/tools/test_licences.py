"""The licences of dependencies: the file is current, and what is not known is not let through."""

import sys
from email.message import Message
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from tools import licences
from tools.licences import Package, closure, faults, is_permissive, licence, needed, packages, page_of

ROOT = Path(__file__).resolve().parent.parent.parent
PINS = (ROOT / "constraints.txt").read_text()
PAGE = (ROOT / "docs" / "licences.md").read_text()


def metadata(**fields: str | list[str]) -> Message:
    made = Message()
    for name, values in fields.items():
        for value in [values] if isinstance(values, str) else values:
            made[name.replace("_", "-")] = value
    return made


def test_the_file_is_current_and_names_every_pinned_dependency() -> None:
    uses = needed()
    assert page_of(packages(uses, PINS, PAGE)) == PAGE
    rows = [line.split(" | ") for line in PAGE.splitlines() if line.startswith("| ")]
    versions = {row[0].removeprefix("| "): row[1] for row in rows}
    for name, version in (line.split("==") for line in PINS.splitlines()):
        if canonicalize_name(name) in uses:
            assert versions[name] == version
    assert uses["grpcio"] == ("server", "client")
    assert uses["aiohttp"] == ("server",)
    assert uses["pyarrow"] == ("client[parquet]",)
    assert uses["pytest"] == ("development",)
    assert not {"chronobook", "chronobook-server"} & set(uses)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"License_Expression": "MPL-2.0 AND MIT", "License": "MIT"}, "MPL-2.0 AND MIT"),
        ({"License": "Apache License, Version 2.0"}, "Apache-2.0"),
        ({"License": "3-Clause BSD License"}, "BSD-3-Clause"),
        ({"License": "MIT license", "Classifier": "License :: OSI Approved :: BSD License"}, "MIT"),
        ({"License": "Permission is hereby granted", "Classifier": "License :: OSI Approved :: MIT License"}, "MIT"),
        (
            {
                "Classifier": [
                    "License :: OSI Approved :: Mozilla Public License 2.0 (MPL 2.0)",
                    "License :: DFSG approved",
                    "License :: OSI Approved :: MIT License",
                    "Topic :: MIT",
                ]
            },
            "MIT AND MPL-2.0",
        ),
        ({"License": "UNKNOWN"}, "unknown"),
        ({"License": "GNU General Public License v3"}, "unknown"),
        ({}, "unknown"),
    ],
)
def test_a_licence_is_what_metadata_says_most_exactly(fields: dict[str, str | list[str]], told: str) -> None:
    assert licence(metadata(**fields)) == told


def test_without_a_word_in_metadata_the_text_tells() -> None:
    assert licence(metadata(), ["\n   Apache License\n   Version 2.0, January 2004\n"]) == "Apache-2.0"
    assert licence(metadata(), ["The MIT License (MIT)\n\nCopyright"]) == "MIT"
    assert licence(metadata(), ["All rights reserved."]) == "unknown"
    assert licence(metadata(), ["MIT License", "Apache License\nVersion 2.0"]) == "unknown"
    assert licence(metadata(License="ISC"), ["MIT License"]) == "ISC"


@pytest.mark.parametrize(
    ("expression", "fine"),
    [
        ("MIT", True),
        ("MPL-2.0 AND (Apache-2.0 OR MIT)", True),
        ("GPL-3.0-only OR MIT", True),
        ("MIT OR GPL-3.0-only", True),
        ("GPL-3.0-only AND MIT", False),
        ("MIT AND (GPL-3.0-only OR AGPL-3.0-only)", False),
        ("GPL-3.0-only", False),
        ("unknown", False),
        ("", False),
        ("MIT AND", False),
        ("(MIT", False),
        ("MIT MIT", False),
    ],
)
def test_an_expression_is_permissive_where_it_leaves_a_choice_that_is(expression: str, fine: bool) -> None:
    assert is_permissive(expression) is fine


def test_only_what_runs_must_have_a_licence_of_the_list() -> None:
    found = [
        Package("good", "1", "MIT", ("server",)),
        Package("odd", "2", "unknown", ("client[pandas]",)),
        Package("strict", "3", "GPL-3.0-only", ("server", "client")),
        Package("tool", "4", "unknown", ("development",)),
    ]
    assert [each.split(":")[0] for each in faults(found)] == ["odd 2", "strict 3"]


@pytest.mark.parametrize("wrong", ["licence", "file"])
def test_check_fails_and_writes_nothing(
    wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [Package("odd", "2", "unknown" if wrong == "licence" else "MIT", ("server",))]
    page = tmp_path / "licences.md"
    page.write_text(page_of(found) if wrong == "licence" else "old")
    monkeypatch.setattr(licences, "PAGE", page)
    monkeypatch.setattr(licences, "packages", lambda *_: found)
    monkeypatch.setattr(sys, "argv", ["licences.py", "--check"])
    before = page.read_text()
    assert licences.main() == 1
    assert capsys.readouterr().err.startswith("odd 2: " if wrong == "licence" else "docs/licences.md: ")
    assert page.read_text() == before
    monkeypatch.setattr(sys, "argv", ["licences.py"])
    assert licences.main() == (1 if wrong == "licence" else 0)
    assert page.read_text() == page_of(found)


def test_requirements_are_followed_through_extras_and_for_every_python() -> None:
    needs = {
        "a": ["b[fast] >= 1", "windows; sys_platform == 'win32'", "old; python_version < '3.12'"],
        "b": ["plain", "quick; extra == 'fast'", "slow; extra == 'slow'", "a"],
        "plain": ["new; python_version >= '3.14'", "ancient; python_version < '3.11'"],
    }
    found = closure(["A", "chronobook", "later; python_version < '3.14'"], lambda name: needs.get(name, []))
    assert found == {"a", "b", "later", "new", "old", "plain", "quick"}


def test_what_this_python_does_not_need_keeps_its_licence_while_its_version_stays() -> None:
    uses = {"no-such-package": ("server",)}
    page = page_of([Package("No_Such_Package", "1.0", "ISC", ("server",))])
    assert packages(uses, "No_Such_Package==1.0", page) == [Package("No_Such_Package", "1.0", "ISC", ("server",))]
    assert packages(uses, "No_Such_Package==1.1", page)[0].licence == "unknown"
    assert packages(uses, "", "")[0].version == "not pinned"
