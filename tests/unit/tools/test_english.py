from pathlib import Path

import pytest

from tools import english


def test_subject_is_hidden_by_a_clause_or_a_pronoun() -> None:
    hidden = [
        "What the exchange says goes to the book.",
        "The book forgets whatever it has not seen.",
        "Who resumes at an event gets the state first.",
        "Nobody reads the file afterwards.",
        "Decide what to do with a gap.",
    ]
    for text in hidden:
        assert english.Sentence(Path(), 1, text).hides_subject, text


def test_questions_code_and_quotations_hide_nothing() -> None:
    plain = [
        "What is a gap?",
        "The flag `--what` selects the tree.",
        'The page asks "who was it".',
        "The whole book is somewhat larger than a segment.",
        "A whole symbol belongs to a tree.",
    ]
    for text in plain:
        assert not english.Sentence(Path(), 1, text).hides_subject, text


def test_python_gives_docstrings_and_joined_comments(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(
        '"""A noun phrase of a module.\n\nA second paragraph\nof two lines. And more of it.\n\n'
        '>>> f("what is code")\nis no prose\n"""\n'
        "x = 1  # a trailing comment stands alone\n"
        "# A comment of\n# two lines.\n"
        "y = '# not a comment at all'\n"
        "z = 1  # noqa: because of the linter\n"
        'def f() -> None:\n    """Return nothing at all."""\n'
    )
    assert [(found.line, found.text) for found in english.sentences(path)] == [
        (1, "A noun phrase of a module."),
        (3, "A second paragraph of two lines."),
        (3, "And more of it."),
        (15, "Return nothing at all."),
        (9, "a trailing comment stands alone"),
        (10, "A comment of two lines."),
    ]


def test_markdown_gives_prose_without_code(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text(
        "# A heading of words\n\nA sentence here. Another one\nover two lines.\n\n"
        "```\nwhat is code is no prose\n```\n\n    what is indented is no prose\n\n"
        "- an item of a list\n  that goes on\n- a second item here\n\n"
        "| a cell of words | 5 ms |\n"
    )
    assert [found.text for found in english.sentences(path)] == [
        "A heading of words",
        "A sentence here.",
        "Another one over two lines.",
        "an item of a list that goes on",
        "a second item here",
        "a cell of words",
    ]


def test_proto_and_yaml_give_comments(tmp_path: Path) -> None:
    proto = tmp_path / "a.proto"
    proto.write_text("// A message of levels.\n// Its second line.\nmessage M {}  // a trailing comment here\n")
    assert [found.text for found in english.sentences(proto)] == [
        "A message of levels.",
        "Its second line.",
        "a trailing comment here",
    ]
    yaml = tmp_path / "a.yaml"
    yaml.write_text('key: "not # a comment here"\n# A comment of a key.\nother: 1 # a comment behind it\n')
    assert [found.text for found in english.sentences(yaml)] == ["A comment of a key.", "a comment behind it"]


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ('"""What a book holds."""\n', "begins with 'What'"),
        ('"""Whether, and when, it ends."""\n', "begins with 'Whether,'"),
        (f"def test_{'x' * 56}() -> None: ...\n", "has 61 characters"),
        ("# " + "What it holds is what it has. " * 2 + "\n", "2 of 2 sentences hide their subject"),
    ],
)
def test_check_fails_on_each_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str], source: str, fault: str) -> None:
    (tmp_path / "tests").mkdir()
    path = tmp_path / "tests" / "module.py"
    path.write_text(source)
    assert english.main([], tmp_path) == 0
    assert english.main(["--check"], tmp_path) == 1
    assert fault in capsys.readouterr().out


def test_check_passes_at_the_limits(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "page.md").write_text("One sentence of many.\n" * 99 + "It is what it is.\n")
    (tmp_path / "test_x.py").write_text(f'"""A noun phrase."""\ndef test_{"x" * 55}() -> None: ...\n')
    assert english.main(["--check"], tmp_path) == 0


def test_lists_name_places(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "page.md").write_text("A good sentence.\n\nWhat is known is short.\n\nTake note of it, please do.\n")
    english.main(["--list"], tmp_path)
    listed = capsys.readouterr().out.splitlines()
    assert listed[:2] == ["page.md:3: What is known is short.", "page.md:5: Take note of it, please do."]
    english.main(["--words", "5"], tmp_path)
    assert capsys.readouterr().out.splitlines()[0] == "page.md:5: Take note of it, please do."
    english.main(["--under", "docs"], tmp_path)
    assert "page.md" not in capsys.readouterr().out


def test_generated_files_are_not_read(tmp_path: Path) -> None:
    for name in ("clients/python/chronobook/v1/a.py", ".build/googleapis/a.proto"):
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.write_text("# What it is.\n")
        assert english.files(tmp_path, name.split("/")[0]) == []
