"""Page of the OpenAPI description: one file of HTML without scripts, fonts or images.

It carries its own content security policy, which allows its one style and nothing else.
"""

import json
import re
import shlex
from base64 import b64encode
from collections.abc import Iterator, Mapping
from hashlib import sha256
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

Json = dict[str, Any]
STYLE = (Path(__file__).parent / "openapi_page.css").read_text(encoding="utf-8")
STYLE_SOURCE = f"'sha256-{b64encode(sha256(STYLE.encode()).digest()).decode()}'"
# The edge of `make demo`, and values that it has an answer to.
BASE = "localhost:8000"
NOW = "(now)"
VALUES: Json = {
    "limit": 5,
    "page_size": 100,
    "price": 2680.04,
    "prices": [2680.04, 2679.5],
    "symbol": "ETHUSDT",
    "timestamps": [NOW, NOW],
}
# Optional fields that an example sets nevertheless.
ASKED = ("symbol", "limit", "page_size")
STREAM = "text/event-stream"
_NAME = re.compile(r"\b[A-Z]\w*(?:\.[A-Z]\w*)*")


def page(document: Json) -> str:
    """Return the page of an OpenAPI 3.1 document, as UTF-8 text."""
    return _Page(document).html()


def blocks(text: str) -> Iterator[str | list[str]]:
    """Yield the paragraphs of simple Markdown as text, and its lists as a list of their items."""
    for part in re.split(r"\n\s*\n", text.strip()):
        lead, *items = re.split(r"(?:^|\n)- ", part)
        if lead.strip():
            yield " ".join(lead.split())
        if items:
            yield [" ".join(item.split()) for item in items]


def fragment(kind: str, name: str) -> str:
    """Return the id of the element for `name`."""
    return f"{kind}-" + re.sub(r"[^\w.]", "-", name, flags=re.ASCII)


def _link(target: str, html: str) -> str:
    return f'<a href="#{target}">{html}</a>'


def _name(reference: str) -> str:
    return reference.rpartition("/")[2]


class _Page:
    """Writer of the page: the ids of its elements, and its parts."""

    def __init__(self, document: Json) -> None:
        self.info: Json = document["info"]
        self.schemas: Json = document.get("components", {}).get("schemas", {})
        self.calls = [
            (verb, path, operation) for path, item in document["paths"].items() for verb, operation in item.items()
        ]
        self.places = {name: fragment("schema", name) for name in self.schemas}
        for _, _, operation in self.calls:
            name = operation["operationId"]
            self.places[name] = self.places[f"{name}Request"] = fragment("call", name)
        self.places |= {name: fragment("schema", name) for name in self.schemas}
        for reason in self.schemas.get("ErrorReason", {}).get("enum", []):
            self.places[reason] = fragment("reason", reason)
        self.told: set[str] = set()  # the schemas whose fields are shown with a call

    def html(self) -> str:
        title, version = escape(self.info["title"]), escape(self.info["version"])
        calls = "".join(self._call(*call) for call in self.calls)
        others = [name for name in self.schemas if name not in self.told]
        return (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="content-security-policy" content="default-src \'none\'; style-src {STYLE_SOURCE}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{title} {version}: REST</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
            '<a class="skip" href="#calls">Skip to the calls</a>\n'
            f"<header>\n<h1>{title} <small>{version}</small></h1>\n<p>{self._text(self.info.get('summary', ''))}</p>\n"
            f"</header>\n{self._contents(others)}<main>\n{self._about()}"
            f'<h2 id="calls">Calls</h2>\n{calls}<h2 id="schemas">Schemas</h2>\n'
            + "".join(self._schema(name) for name in others)
            + "</main>\n<footer>\n<p>Made from the contract; "
            '<a href="openapi.json">openapi.json</a> is the same for programs.</p>\n</footer>\n</body>\n</html>\n'
        )

    def _contents(self, others: list[str]) -> str:
        calls = "".join(
            f"<li>{_link(fragment('call', operation['operationId']), self._title(verb, path))}</li>\n"
            for verb, path, operation in self.calls
        )
        names = "".join(
            f"<li>{_link(fragment('schema', name), escape(name).replace('.', '.<wbr>'))}</li>\n" for name in others
        )
        return (
            '<nav aria-label="Contents">\n'
            f"<h2>{_link('calls', 'Calls')}</h2>\n<ul>\n{calls}</ul>\n"
            f'<h2>{_link("schemas", "Schemas")}</h2>\n<ul class="names">\n{names}</ul>\n</nav>\n'
        )

    def _about(self) -> str:
        return (
            f'<section aria-labelledby="about">\n<h2 id="about">Before you ask</h2>\n'
            f"{self._markdown(self.info.get('description', ''))}"
            f"<p>The lines to try ask the edge of <code>make demo</code>, <code>{BASE}</code>; "
            "put the address of yours in its place.</p>\n</section>\n"
        )

    def _call(self, verb: str, path: str, operation: Json) -> str:
        name, summary = operation["operationId"], operation.get("summary", "")
        says, _, reasons = operation.get("description", "").partition("Errors: ")
        place = fragment("call", name)
        parts = [
            f'<article id="{place}" aria-labelledby="{place}-title">\n',
            f'<h3 id="{place}-title">{_link(place, self._title(verb, path))}</h3>\n',
            f"<p>{self._text(summary)}</p>\n" if summary else "",
            self._markdown(says) if says.strip().rstrip(".") != summary else "",
            f"<p>Over gRPC: <code>{escape(name)}</code>.</p>\n",
            self._parameters(operation.get("parameters", [])),
            self._body(operation),
            f"<h4>Try it</h4>\n<pre><code>{escape(self._curl(verb, path, operation))}</code></pre>\n",
            self._answer(operation["responses"].get("200", {})),
            self._errors(operation["responses"], reasons),
            "</article>\n",
        ]
        return "".join(parts)

    def _title(self, verb: str, path: str) -> str:
        kind = "verb" if verb == "get" else "verb post"
        return f'<span class="{kind}">{escape(verb.upper())}</span> <code>{escape(path)}</code>'

    def _parameters(self, parameters: list[Json]) -> str:
        rows = []
        for each in parameters:
            kind = f"{self._type(each.get('schema', {}))}, in {escape(each['in'])}"
            term = _term(each["name"], kind, _need(each.get("required", False)))
            rows.append((term, self._markdown(each.get("description", ""))))
        return "<h4>Parameters</h4>\n" + _rows(rows) if rows else ""

    def _body(self, operation: Json) -> str:
        if "requestBody" not in operation:
            return ""
        parts = []
        for kind, content in operation["requestBody"]["content"].items():
            parts.append(f"<h4>Body, <code>{escape(kind)}</code></h4>\n")
            parts.append(self._fields_once(content["schema"], is_answer=False))
        return "".join(parts)

    def _answer(self, response: Json) -> str:
        content: Json = response.get("content", {})
        kinds = " or ".join(f"<code>{escape(kind)}</code>" for kind in content)
        says = response.get("description", "") if STREAM in content else ""
        parts = [f"<h4>Answer, {kinds}</h4>\n", self._markdown(says)]
        for number, one in enumerate(content.values()):
            if not number or one != next(iter(content.values())):
                parts.append(self._fields_once(one["schema"], is_answer=True))
        return "".join(parts)

    def _errors(self, responses: Json, reasons: str) -> str:
        rows = [
            (f"<code>{escape(status)}</code>", self._markdown(response.get("description", "")))
            for status, response in responses.items()
            if status != "200"
        ]
        if not rows:
            return ""
        why = f"<p>Reasons: {self._text(reasons)}</p>\n" if reasons else ""
        return f"<h4>Errors, as {self._linked('Error')}</h4>\n{_rows(rows)}{why}"

    def _fields_once(self, schema: Json, *, is_answer: bool) -> str:
        """Return a schema's fields at its first use, and a link to them after that."""
        name = _name(schema.get("$ref", ""))
        if name not in self.schemas or name in self.told:
            return f"<p>{self._type(schema)}</p>\n"
        self.told.add(name)
        return f'<div id="{fragment("schema", name)}">\n{self._inside(name, is_answer=is_answer)}</div>\n'

    def _schema(self, name: str) -> str:
        place = fragment("schema", name)
        return (
            f'<article class="schema" id="{place}" aria-labelledby="{place}-title">\n'
            f'<h3 id="{place}-title">{_link(place, f"<code>{escape(name)}</code>")}</h3>\n'
            f"{self._inside(name, is_answer=not name.endswith('Request'))}</article>\n"
        )

    def _inside(self, name: str, *, is_answer: bool) -> str:
        """Return a schema's description with its fields or its values."""
        schema = self.schemas[name]
        if "enum" in schema:
            return self._values(name, schema)
        always, rows = schema.get("required", []), []
        for field, one in schema.get("properties", {}).items():
            note = _absent(field in always) if is_answer else _need(field in always)
            rows.append((_term(field, self._type(one), note), self._markdown(one.get("description", ""))))
        return self._markdown(schema.get("description", "")) + (_rows(rows) if rows else "")

    def _values(self, name: str, schema: Json) -> str:
        says, meanings = [], {}
        for block in blocks(schema.get("description", "")):
            if isinstance(block, str):
                says.append(block)
                continue
            for item in block:
                value, _, meaning = item.partition(": ")
                meanings[value.strip("`")] = meaning
        rows = []
        for value in schema["enum"]:
            mark = f' id="{fragment("reason", value)}"' if name == "ErrorReason" else ""
            rows.append((f"<code{mark}>{escape(value)}</code>", self._markdown(meanings.get(value, ""))))
        return self._markdown("\n\n".join(says)) + _rows(rows)

    def _type(self, schema: Json) -> str:
        if "$ref" in schema:
            return self._linked(_name(schema["$ref"]))
        if "anyOf" in schema:
            return " or ".join(self._type(each) for each in schema["anyOf"])
        if "const" in schema:
            return f"<code>{escape(json.dumps(schema['const']))}</code>"
        kind = escape(schema.get("type", "anything"))
        if kind == "array":
            return f"array of {self._type(schema.get('items', {}))}"
        lowest, highest = schema.get("minimum"), schema.get("maximum")
        if lowest is not None and highest is not None:
            return f"{kind}, {lowest:,} to {highest:,}"
        return kind

    def _linked(self, name: str) -> str:
        code = f"<code>{escape(name)}</code>"
        return _link(self.places[name], code) if name in self.places else code

    def _markdown(self, text: str) -> str:
        made = []
        for block in blocks(text):
            if isinstance(block, str):
                made.append(f"<p>{self._text(block)}</p>\n")
            else:
                made.append("<ul>\n" + "".join(f"<li>{self._text(item)}</li>\n" for item in block) + "</ul>\n")
        return "".join(made)

    def _text(self, text: str) -> str:
        """Return a line of Markdown as HTML, with a link for each name that has an id on the page."""
        parts = text.split("`")
        if len(parts) % 2 == 0:
            parts[-2:] = ["`".join(parts[-2:])]  # the last mark is alone, so it is a character like others
        return "".join(self._linked(part) if at % 2 else self._words(part) for at, part in enumerate(parts))

    def _words(self, text: str) -> str:
        made, end = [], 0
        for found in _NAME.finditer(text):
            name = found[0]
            if name in self.places and name != name.capitalize():  # "Side" can be a word like others
                made += [escape(text[end : found.start()]), _link(self.places[name], escape(name))]
                end = found.end()
        return "".join([*made, escape(text[end:])])

    def _curl(self, verb: str, path: str, operation: Json) -> str:
        """Return the curl command of a call."""
        query: Json = {}
        for each in operation.get("parameters", []):
            name = each["name"]
            if each["in"] == "path":
                path = path.replace(f"{{{name}}}", str(self._value(name, each["schema"])))
            elif each.get("required") or name in ASKED:
                query[name] = self._value(name, each["schema"])
        url = shlex.quote(BASE + path + ("?" + urlencode(query) if query else ""))
        is_stream = STREAM in operation["responses"].get("200", {}).get("content", {})
        if "requestBody" not in operation:
            return ("curl -N " if is_stream else "curl ") + ("" if verb == "get" else f"-X {verb.upper()} ") + url
        kind, content = next(iter(operation["requestBody"]["content"].items()))
        schema = self.schemas[_name(content["schema"]["$ref"])]
        body = {
            name: self._value(name, one)
            for name, one in schema["properties"].items()
            if name in schema.get("required", []) or name in ASKED
        }
        data = shlex.quote(json.dumps(body)).replace(f'"{NOW}"', "'$(date +%s)'")
        return f"curl {url} -H {shlex.quote(f'content-type: {kind}')} \\\n  -d {data}"

    def _value(self, name: str, schema: Mapping[str, Any]) -> Any:
        if name in VALUES:
            return VALUES[name]
        if "$ref" in schema:
            return self.schemas[_name(schema["$ref"])].get("enum", [{}])[-1]
        if schema.get("type") == "array":
            return [self._value("", schema.get("items", {}))]
        return {"string": "text", "boolean": True}.get(schema.get("type", ""), 1)


def _need(is_required: bool) -> str:
    return "<strong>required</strong>" if is_required else "optional"


def _absent(is_always_there: bool) -> str:
    return "" if is_always_there else "may be absent"


def _term(name: str, kind: str, note: str) -> str:
    return f"<code>{escape(name)}</code> <span>{kind}{note and ', '}{note}</span>"


def _rows(rows: list[tuple[str, str]]) -> str:
    """Return a list of terms with their meanings, both in HTML."""
    made = [f"<div>\n<dt>{term}</dt>\n<dd>\n{meaning}</dd>\n</div>\n" for term, meaning in rows]
    return "<dl>\n" + "".join(made) + "</dl>\n"
