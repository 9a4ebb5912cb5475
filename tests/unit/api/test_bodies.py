"""Bodies of REST requests: proto3 JSON, without anything that could hide a mistake."""

import contextlib
import json
import math
from typing import Any

import pytest
from google.api.httpbody_pb2 import HttpBody
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from chronobook.v1 import order_book_service_pb2 as pb
from chronobook_server.api import bodies
from chronobook_server.domain.errors import InvalidField

NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**63), 2**64 - 1)
TEXTS = st.text(alphabet=st.characters(codec="utf-8"), max_size=5)
KNOWN = {
    "price": NUMBERS,
    "timestamp": NUMBERS | st.none(),
    "symbol": TEXTS,
    "allow_stale": st.booleans(),
    "allowStale": st.booleans(),
    "max_age": NUMBERS,
    "maxAge": NUMBERS,
}
ANYTHING = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner),
    max_leaves=5,
)


def read(data: bytes, kind: Any = pb.GetQuantityRequest, **query: Any) -> Any:
    sent = kind(http_body=HttpBody(content_type="application/json", data=data), **query).SerializeToString()
    return bodies.reader(kind)(sent)


def refused(data: bytes, kind: Any = pb.GetQuantityRequest, **query: Any) -> list[str]:
    with pytest.raises(InvalidField) as caught:
        read(data, kind, **query)
    return [field for field, _ in caught.value.violations]


@given(body=st.fixed_dictionaries({}, optional=KNOWN), indent=st.none() | st.just(1), is_ascii=st.booleans())
def test_a_body_says_what_protobuf_reads_in_it(body: dict[str, Any], indent: int | None, is_ascii: bool) -> None:
    text = json.dumps(body, indent=indent, ensure_ascii=is_ascii)
    twice = {"allow_stale", "allowStale"} <= body.keys() or {"max_age", "maxAge"} <= body.keys()
    try:
        found = read(text.encode())
    except InvalidField:
        assert twice
        return
    assert found == json_format.Parse(text, pb.GetQuantityRequest())


@given(body=st.dictionaries(st.sampled_from(list(KNOWN)) | TEXTS, ANYTHING, max_size=4))
def test_whatever_a_body_says_is_read_or_refused_with_a_field(body: dict[str, Any]) -> None:
    data = json.dumps(body).encode()
    unknown = body.keys() - KNOWN.keys()
    with contextlib.suppress(InvalidField):
        read(data)
        assert not unknown, "no field is dropped"


@given(st.binary(max_size=30))
def test_bytes_that_are_no_object_are_refused(data: bytes) -> None:
    try:
        is_object = isinstance(json.loads(data), dict)
    except ValueError:
        is_object = False
    if data and not is_object:
        assert refused(data) == ["body"]


@given(name=st.sampled_from(["price", "symbol", "allow_stale"]), between=st.dictionaries(st.just("timestamp"), NUMBERS))
def test_a_field_that_is_named_twice_is_refused(name: str, between: dict[str, float]) -> None:
    value = {"price": "5", "symbol": '"A:B"', "allow_stale": "true"}[name]
    member = f'"{name}":{value}'
    escaped = member.replace(name[0], f"\\u{ord(name[0]):04x}", 1)
    rest = ["".join(json.dumps(between)[1:-1])] if between else []
    for second in (member, escaped):
        assert refused(("{" + ",".join([member, *rest, second]) + "}").encode()) == ["body"]


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "5", "-0.5", "1e3", "1E-3"])
def test_numbers_as_texts_are_those_of_proto3(text: str) -> None:
    expected = json_format.Parse(json.dumps({"price": text}), pb.GetQuantityRequest()).price
    found = read(json.dumps({"price": text}).encode()).price
    assert found == expected or (math.isnan(found) and math.isnan(expected))


@pytest.mark.parametrize("text", ["", " 5", "5 ", "1_0", "0x10", "+5", "05", "5.", ".5", "inf", "nan", "٥", "five"])
def test_texts_that_are_no_numbers_are_refused(text: str) -> None:
    assert refused(json.dumps({"price": text}).encode()) == ["price"]


def test_pairs_are_read_and_what_is_none_of_them_is_refused() -> None:
    kind = pb.BatchGetQuantityRequest
    found = read(b'{"prices": [1, 2.5, "NaN", "7"], "timestamps": [1, 2, 3, 4], "symbol": "X"}', kind)
    assert list(found.prices)[:2] == [1, 2.5]
    assert math.isnan(found.prices[2])
    assert (found.prices[3], list(found.timestamps), found.symbol) == (7, [1, 2, 3, 4], "X")
    assert not found.HasField("http_body")
    for bad in (b"[[1]]", b"[true]", b"[{}]", b'["x"]', b"5", b'"5"', b"{}"):
        assert refused(b'{"prices": ' + bad + b"}", kind) == ["prices"]


def test_what_the_query_says_counts_once() -> None:
    assert read(b'{"price": 5}', symbol="X").symbol == "X"
    assert read(b"", price=5).price == 5
    assert refused(b'{"price": 5}', price=6) == ["price"]
    assert refused(b'{"symbol": "Y"}', symbol="X") == ["symbol"]
    assert refused(b'{"prices": [5]}', pb.BatchGetQuantityRequest, prices=[6]) == ["prices"]


def test_a_refusal_repeats_few_names_and_only_harmless_ones() -> None:
    body = {"\x1b[2J" + "x" * 10_000: 1, **{f"field{number}": 1 for number in range(100)}}
    fields = refused(json.dumps(body).encode())
    assert len(fields) == 8
    assert all(field.isprintable() and field.isascii() and len(field) < 100 for field in fields)
