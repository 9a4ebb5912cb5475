"""The page of the OpenAPI description: whole, well-formed, safe, and of nothing but itself."""

import copy
import json
import shlex
from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tools.openapi_page import blocks, page

ROOT = Path(__file__).resolve().parent.parent.parent
DOCUMENT: dict[str, Any] = json.loads((ROOT / "envoy" / "openapi.json").read_text())
SCHEMAS: dict[str, Any] = DOCUMENT["components"]["schemas"]
CALLS = [(verb, path, each) for path, item in DOCUMENT["paths"].items() for verb, each in item.items()]
NEVER_CLOSED = {"meta", "wbr"}
HOSTILE = """</code></p><script>alert(1)</script><img src=x onerror='a' title="b"> & `<b>` \x60"""


class Read(HTMLParser):
    """A parsed page: its elements, the text in each, and elements that are not closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[tuple[str, ...], str]] = []  # each text with the ids of its elements
        self.faults: list[str] = []
        self._open: list[tuple[str, str]] = []
        self.feed(html)
        self.close()
        self.faults += [f"{tag} is never closed" for tag, _ in self._open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if len(given) != len(attrs):
            self.faults.append(f"{tag} has an attribute twice")
        self.elements.append((tag, given))
        if tag not in NEVER_CLOSED:
            self._open.append((tag, given.get("id", "")))

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop()[0] != tag:
            self.faults.append(f"{tag} is closed at {self.getpos()}")

    def handle_data(self, data: str) -> None:
        self.texts.append((tuple(name for _, name in self._open), data))

    def values(self, attribute: str) -> list[str]:
        return [given[attribute] for _, given in self.elements if attribute in given]

    def text(self, within: str = "") -> str:
        return "".join(data for inside, data in self.texts if not within or within in inside)


@pytest.fixture(scope="module")
def made() -> str:
    return page(DOCUMENT)


@pytest.fixture(scope="module")
def read(made: str) -> Read:
    return Read(made)


def test_the_page_in_the_tree_is_of_the_description_in_the_tree(made: str) -> None:
    assert (ROOT / "envoy" / "docs.html").read_text(encoding="utf-8") == made
    assert page(json.loads(json.dumps(DOCUMENT))) == made
    assert len(made.encode()) < 120_000


@pytest.mark.parametrize(("verb", "path", "operation"), CALLS, ids=[each["operationId"] for _, _, each in CALLS])
def test_every_call_is_there_with_all_that_is_said_of_it(
    read: Read, verb: str, path: str, operation: dict[str, Any]
) -> None:
    text = read.text(within=f"call-{operation['operationId']}")
    assert f"{verb.upper()} {path}" in text
    assert plain(operation["summary"]) in text
    for part in operation["description"].split("Errors: "):
        assert plain(part.strip()).rstrip(".") in text
    for parameter in operation.get("parameters", []):
        need = "required" if parameter["required"] else "optional"
        kind = parameter["schema"].get("type") or parameter["schema"]["$ref"].rpartition("/")[2]
        term = f"{parameter['name']} {kind}"
        start = text.index(f"\n{term}")
        assert text.index(f"in {parameter['in']}, {need}", start) < text.index(plain(parameter["description"]), start)
    for status, response in operation["responses"].items():
        if status != "200":
            assert f"\n{status}\n\n{response['description']}\n" in text


def plain(markdown: str) -> str:
    return markdown.replace("`", "")


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_schema_is_there_once_with_properties_and_values(read: Read, name: str) -> None:
    assert read.values("id").count(f"schema-{name}") == 1
    text, schema = read.text(within=f"schema-{name}"), SCHEMAS[name]
    for block in blocks(schema["description"]):
        for says in [block] if isinstance(block, str) else [item.partition(": ")[2] for item in block]:
            assert plain(says) in text
    assert all(f"\n{value}\n" in text for value in schema.get("enum", []))
    rows = text.split("\n\n\n")
    for field, one in schema.get("properties", {}).items():
        row = next(each for each in rows if each.lstrip("\n").startswith(f"{field} "))
        assert plain(one["description"]) in row
        always = field in schema.get("required", [])
        if name.endswith("Request"):
            assert ("required" if always else "optional") in row.splitlines()[-3]
        else:
            assert ("may be absent" not in row) is always


def test_what_a_call_takes_and_answers_stands_with_it(read: Read) -> None:
    for _, _, operation in CALLS:
        text = read.text(within=f"call-{operation['operationId']}")
        answer = SCHEMAS[f"{operation['operationId']}Response"]
        taken = SCHEMAS.get(f"{operation['operationId']}Request", {"properties": {}})
        assert all(f"\n{field} " in text for field in (*answer["properties"], *taken["properties"]))


def test_it_is_well_formed_and_every_link_leads_somewhere(read: Read) -> None:
    assert read.faults == []
    names = read.values("id")
    assert len(names) == len(set(names))
    assert {link.removeprefix("#") for link in read.values("href") if link.startswith("#")} <= set(names)
    assert set(read.values("aria-labelledby")) <= set(names)
    told = {f"call-{each['operationId']}" for _, _, each in CALLS} | {"calls", "schemas"}
    contents = [given["href"] for tag, given in read.elements if tag == "a" and "href" in given]
    assert {f"#{name}" for name in told} <= set(contents)


def test_headings_descend_one_by_one_and_parts_are_landmarks(read: Read) -> None:
    levels = [int(tag[1]) for tag, _ in read.elements if tag in {"h1", "h2", "h3", "h4"}]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    tags = [tag for tag, _ in read.elements]
    assert [tags.count(each) for each in ("header", "nav", "main", "footer")] == [1, 1, 1, 1]
    assert ("html", {"lang": "en"}) in read.elements


def test_all_parts_are_its_own_and_only_its_style_may_act(made: str, read: Read) -> None:
    assert {tag for tag, _ in read.elements} & {"script", "link", "img", "iframe", "object", "base", "form"} == set()
    assert [link for link in read.values("href") if not link.startswith("#")] == ["openapi.json"]
    attributes = {name for _, given in read.elements for name in given}
    assert attributes <= {"aria-label", "aria-labelledby", "charset", "class", "content", "href", "http-equiv"} | {
        *("id", "lang", "name")
    }
    style = made[made.index("<style>") + len("<style>") : made.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    digest = b64encode(sha256(style.encode()).digest()).decode()
    policy = next(given["content"] for _, given in read.elements if "http-equiv" in given)
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'"


def hostile(part: Any) -> Any:
    """Return the same with hostile text in place of every text that is for people, and at the end of every name."""
    if isinstance(part, dict):
        told = {"description", "summary", "title", "version"}
        return {key: HOSTILE if key in told and isinstance(each, str) else hostile(each) for key, each in part.items()}
    return [hostile(each) for each in part] if isinstance(part, list) else part


def test_hostile_text_is_text(read: Read) -> None:
    document = hostile(copy.deepcopy(DOCUMENT))
    schemas = document["components"]["schemas"]
    schemas["Side"]["enum"] = [HOSTILE]
    schemas["Cause"] = {
        "description": f"- {HOSTILE}",
        "properties": {HOSTILE: {"type": HOSTILE}, "b": {"const": HOSTILE}},
    }
    document["paths"][f"/{HOSTILE}"] = {"get": document["paths"]["/status"]["get"] | {"operationId": HOSTILE}}
    document["paths"]["/history"]["get"]["responses"][HOSTILE] = {"description": HOSTILE}
    made = page(document)
    harmed = Read(made)
    assert harmed.faults == []
    assert {tag for tag, _ in harmed.elements} <= {tag for tag, _ in read.elements} | {"ul", "li"}
    assert {name for _, given in harmed.elements for name in given} == {
        name for _, given in read.elements for name in given
    }
    assert "<script>alert(1)</script>" in harmed.text()


def test_markdown_is_paragraphs_lists_and_code() -> None:
    assert list(blocks("One\nline.\n\nTwo:\n- `a`: b\n  c\n- d\n\n- e")) == [
        *("One line.", "Two:"),
        ["`a`: b c", "d"],
        ["e"],
    ]
    document = copy.deepcopy(DOCUMENT)
    document["info"]["description"] = (
        "See `PriceLevel`, HISTORY_GAP and `a<b`; one ` alone. Side is a word.\n\n- first\n- second"
    )
    made = page(document)
    assert (
        '<p>See <a href="#schema-PriceLevel"><code>PriceLevel</code></a>, '
        '<a href="#reason-HISTORY_GAP">HISTORY_GAP</a> '
        "and <code>a&lt;b</code>; one ` alone. Side is a word.</p>\n<ul>\n<li>first</li>\n<li>second</li>\n</ul>\n"
    ) in made


def test_the_lines_to_try_are_those_of_a_shell(read: Read) -> None:
    lines = {}
    for _, _, operation in CALLS:
        text = read.text(within=f"call-{operation['operationId']}")
        lines[operation["operationId"]] = text[text.index("curl ") : text.index("Answer,")].strip()
    assert lines["GetOrderBook"] == "curl 'localhost:8000/orderbook?symbol=ETHUSDT&limit=5'"
    assert lines["WatchLevel"] == "curl -N 'localhost:8000/watch-level/2680.04?symbol=ETHUSDT'"
    asked = shlex.split(lines["BatchGetQuantity"].replace("$(date +%s)", "1795442366"))
    assert asked[:4] == ["curl", "localhost:8000/quantities", "-H", "content-type: application/json"]
    assert set(json.loads(asked[-1])) >= set(SCHEMAS["BatchGetQuantityRequest"]["required"])
    assert all("{" not in line for name, line in lines.items() if "-d" not in line)
