"""Check of the English in docstrings, comments and documents.

`python tools/english.py` prints the share of sentences with a hidden subject per tree. `--list` adds each of them with
its place, `--words 30` lists sentences of more than 30 words, `--under docs` reads one folder. `--check` fails when a
limit is broken.

A sentence hides its subject when it has one of the words in `HIDDEN` outside code and quotation marks and does not end
with a question mark. The rule has no exception: it also counts an indirect question ("decide what to do"). A writer can
predict such a rule, and `LIMIT` leaves room for the few sentences that read best so.
"""

import argparse
import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
TREES = ("server", "clients", "tools", "benchmarks", "testkit", "tests", "docs", "proto", "envoy", "deploy", ".")
GENERATED = (".venv", ".build", "clients/python/chronobook/v1")

HIDDEN = re.compile(r"\b(what|whatever|who|whoever|whom|nobody|somebody|anybody)\b", re.IGNORECASE)
PHRASES = re.compile(
    r"\b(take note|for ever|all the same|of ours|by its own|from now on|what is the case|hold good|means? well)\b",
    re.IGNORECASE,
)
OPENINGS = ("What", "How", "When", "Where", "Which", "Whether", "Who")

LIMIT = 0.01  # of all sentences; in the docstrings of websockets, httpx, anyio and h11 it is 0 to 1.7 %
LONGEST_NAME = 60  # characters of a test's name, which then fits a line of pytest's summary with its path
FEWEST_WORDS = 3  # shorter texts are titles, cells of tables and units

_CODE = re.compile(r"``.*?``|`[^`]*`")
_QUOTED = re.compile(r"\"[^\"]*\"|“[^”]*”")
_LINK = re.compile(r"\[([^]]*)\]\([^)]*\)")
_FULL_STOP = re.compile(r"(?<=[.?!])[\"”)]*\s+(?=[\"“(]*[A-Z0-9`])")
_DIRECTIVE = re.compile(r"^\s*(noqa|type:|mypy:|ruff:|pragma|fmt:|buf:|!)")
_ITEM = re.compile(r"^\s*([-*+]|\d+\.)\s+")


class Block(NamedTuple):
    """Text that belongs together: a docstring's paragraph, adjacent comment lines, a list item."""

    line: int
    text: str


class Sentence(NamedTuple):
    """A sentence with its place."""

    path: Path
    line: int
    text: str

    @property
    def plain(self) -> str:
        """The sentence without code and quotations."""
        return _QUOTED.sub("X", _CODE.sub("X", _LINK.sub(r"\1", self.text)))

    @property
    def hides_subject(self) -> bool:
        """Whether a clause or pronoun replaces a noun."""
        return not self.text.rstrip('"”)').endswith("?") and HIDDEN.search(self.plain) is not None

    @property
    def has_phrase(self) -> bool:
        """Whether a phrase stands in for a field's term."""
        return PHRASES.search(self.plain) is not None

    @property
    def words(self) -> int:
        """The number of words."""
        return len(self.plain.split())


def paragraphs(lines: list[tuple[int, str]]) -> Iterator[Block]:
    """Join lines up to the next blank line, list item, heading or table row; leave out examples of a Python session."""
    start, parts, is_example = 0, list[str](), False
    for number, line in lines:
        is_example = bool(line.strip()) and (is_example or line.lstrip().startswith(">>>"))
        text = "" if is_example else line.strip()
        begins = not text or text.startswith(("#", "|")) or _ITEM.match(line)
        if begins and parts:
            yield Block(start, " ".join(parts))
            parts = []
        if text.startswith("#"):
            yield Block(number, text.lstrip("# "))
        elif text.startswith("|"):
            yield from (Block(number, cell.strip()) for cell in text.strip("|").split("|"))
        elif text:
            start = start if parts else number
            parts.append(_ITEM.sub("", text))
    if parts:
        yield Block(start, " ".join(parts))


def of_comments(comments: list[tuple[int, int, str]]) -> Iterator[Block]:
    """Join comments (line, column, text) that follow each other in one column."""
    runs, last = list[list[tuple[int, str]]](), (-1, -1)
    for line, column, text in comments:
        if (line - 1, column) != last:
            runs.append([])
        last = line, column
        if not _DIRECTIVE.match(text):
            runs[-1].append((line, text))
    for run in runs:
        yield from paragraphs(run)


def of_python(text: str) -> Iterator[Block]:
    """Read the docstrings and comments of a module."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node)
            if docstring:
                first = node.body[0].lineno
                yield from paragraphs(list(enumerate(docstring.splitlines(), first)))
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    found = [(*token.start, token.string.lstrip("#")) for token in tokens if token.type == tokenize.COMMENT]
    yield from of_comments(found)


def of_lines(text: str, mark: str) -> Iterator[Block]:
    """Read the comments of a file in which a mark begins a comment."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        match = re.search(rf"(^|\s){mark}+( |$)", line)
        if match and line[: match.start()].count('"') % 2 == 0:
            found.append((number, match.start(), line[match.end() :]))
    yield from of_comments(found)


def of_markdown(text: str) -> Iterator[Block]:
    """Read the prose of a document, without its code blocks."""
    is_code, prose = False, list[tuple[int, str]]()
    for number, line in enumerate(text.splitlines(), 1):
        fence = line.lstrip().startswith("```")
        is_code = is_code != fence
        prose.append((number, "" if is_code or fence or line.startswith("    ") else line))
    yield from paragraphs(prose)


def blocks(path: Path) -> Iterator[Block]:
    """Read a file by its kind."""
    text = path.read_text()
    match path.suffix:
        case ".py":
            return of_python(text)
        case ".md":
            return of_markdown(text)
        case ".proto":
            return of_lines(text, "//")
    return of_lines(text, "#")


def sentences(path: Path) -> Iterator[Sentence]:
    """Split the texts of a file at full stops; short texts are no sentences."""
    for block in blocks(path):
        for text in _FULL_STOP.split(block.text):
            sentence = Sentence(path, block.line, text)
            if sentence.words >= FEWEST_WORDS:
                yield sentence


def files(root: Path, tree: str) -> list[Path]:
    """List the files of a tree that people write; "." is the root without its folders."""
    kinds = {".py", ".md", ".proto", ".yml", ".yaml", ".toml", ".j2"}
    found = (root / tree).glob("*" if tree == "." else "**/*")
    generated = tuple(str(root / name) for name in GENERATED)
    return sorted(
        path for path in found if path.suffix in kinds and path.is_file() and not str(path).startswith(generated)
    )


def faults(path: Path, root: Path) -> Iterator[str]:
    """Find a module docstring that begins with a question word, and test names that are too long."""
    module = ast.parse(path.read_text() if path.suffix == ".py" else "")
    place = path.relative_to(root)
    words = (ast.get_docstring(module) or "").split()
    if words and words[0].rstrip(",:") in OPENINGS:
        yield f"{place}:1: the module docstring begins with {words[0]!r}: write a noun phrase"
    functions = [node for node in ast.walk(module) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    for test in functions:
        if test.name.startswith("test_") and len(test.name) > LONGEST_NAME:
            yield f"{place}:{test.lineno}: {test.name} has {len(test.name)} characters, more than {LONGEST_NAME}"


def table(trees: dict[str, list[Sentence]]) -> Iterator[str]:
    """Format the figures of each tree."""
    yield f"{'tree':12}{'sentences':>10}{'hidden':>8}{'share':>9}{'phrases':>9}{'words p90':>11}"
    every = [sentence for found in trees.values() for sentence in found]
    for tree, found in (trees | {"all": every}).items():
        if found:
            hidden = sum(sentence.hides_subject for sentence in found)
            phrases = sum(sentence.has_phrase for sentence in found)
            words = sorted(sentence.words for sentence in found)[len(found) * 9 // 10]
            yield f"{tree:12}{len(found):10}{hidden:8}{hidden / len(found):9.1%}{phrases:9}{words:11}"


def main(arguments: list[str], root: Path = ROOT) -> int:
    """Print figures and faults; return 1 when `--check` finds a broken limit."""
    parser = argparse.ArgumentParser(description="Check the English of this repository.")
    parser.add_argument("--check", action="store_true", help="fail when a limit is broken")
    parser.add_argument("--list", action="store_true", help="list the sentences with a hidden subject or a phrase")
    parser.add_argument("--words", type=int, default=0, help="list the sentences of more words than this")
    parser.add_argument("--under", default="", help="read only files whose path begins so")
    options = parser.parse_args(arguments)
    kept = {
        tree: [path for path in files(root, tree) if str(path.relative_to(root)).startswith(options.under)]
        for tree in TREES
    }
    trees = {tree: [sentence for path in paths for sentence in sentences(path)] for tree, paths in kept.items()}
    every = [sentence for found in trees.values() for sentence in found]
    for sentence in every:
        is_listed = options.list and (sentence.hides_subject or sentence.has_phrase)
        if is_listed or 0 < options.words < sentence.words:
            print(f"{sentence.path.relative_to(root)}:{sentence.line}: {sentence.text}")
    broken = [fault for paths in kept.values() for path in paths for fault in faults(path, root)]
    hidden = sum(sentence.hides_subject for sentence in every)
    if hidden > LIMIT * len(every):
        broken.append(f"{hidden} of {len(every)} sentences hide their subject, more than {LIMIT:.0%}: see --list")
    print(*table(trees), *broken, sep="\n")
    return int(options.check and bool(broken))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
