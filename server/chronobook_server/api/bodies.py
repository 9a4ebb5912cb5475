"""JSON bodies of REST requests, read into the fields of a request.

Envoy's transcoder drops unknown fields of a body, so it passes each body on as it came (`http_body`), and this module
reads it: proto3 JSON that refuses unknown and repeated names, in which a misspelt request could hide.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import orjson
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from chronobook_server.domain.errors import InvalidField

BODY = "http_body"
# At most so many names, each of so many characters, are repeated by a refusal: it travels in headers, and those are
# small.
_NAMED, _LONGEST = 8, 64
_NUMBER_TEXT = re.compile(r"-?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|Infinity)|NaN", re.ASCII)
_NUMBERS = {int, float}


class _Field(NamedTuple):
    """A field that a body may name. Descriptors are slow, so `reader` reads them once."""

    name: str
    kind: type
    is_repeated: bool
    has_presence: bool


_KINDS = {FieldDescriptor.TYPE_DOUBLE: float, FieldDescriptor.TYPE_STRING: str, FieldDescriptor.TYPE_BOOL: bool}
_SAID = {str: "must be a text", bool: "must be true or false"}


def reader(kind: type[Message]) -> Callable[[bytes], Any]:
    """Return a function that reads bytes into a message of this kind, and its body into its fields."""
    from_string: Callable[[bytes], Any] = kind.FromString
    if BODY not in kind.DESCRIPTOR.fields_by_name:
        return from_string
    fields: dict[str, _Field] = {}
    for each in kind.DESCRIPTOR.fields:
        if each.name != BODY:
            field = _Field(each.name, _KINDS[each.type], each.is_repeated, each.has_presence)
            fields[each.name] = fields[each.json_name] = field

    def with_body(data: bytes) -> Any:
        request = from_string(data)
        if request.HasField(BODY):
            _read(request, fields)
        return request

    return with_body


def _read(request: Any, fields: Mapping[str, _Field]) -> None:
    """Read the body of a request into its other fields. Raises InvalidField."""
    data = request.http_body.data
    request.ClearField(BODY)
    if not data:
        return
    try:
        body = orjson.loads(data)
    except ValueError:
        raise InvalidField(("body", "is not JSON")) from None
    if type(body) is not dict:
        raise InvalidField(("body", "is not a JSON object"))
    violations: list[tuple[str, str]] = []
    for name, value in body.items():
        field = fields.get(name)
        problem = "is no field of this request" if field is None else _set(request, field, value)
        if problem is not None:
            violations.append((ascii(name[:_LONGEST])[1:-1], problem))
    if violations:
        raise InvalidField(*violations[:_NAMED])
    # Each member of a flat object has one colon outside of texts, so more colons mean a name that is there twice.
    colons = data.count(b":") - len(body)
    if colons and colons > sum(value.count(":") for value in body.values() if type(value) is str):
        raise InvalidField(("body", "names a field twice"))


def _set(request: Any, field: _Field, value: Any) -> str | None:
    """Set a field to a value of JSON; return the fault of the value, None if it is valid."""
    name, kind, is_repeated, has_presence = field
    if value is None:
        return None  # the same as absent
    if is_repeated:
        return _extend(request, name, value)
    if request.HasField(name) if has_presence else getattr(request, name):
        return "is named twice, in the query or in the body"
    if kind is float:
        value = value if type(value) is float else _number(value)
        if value is None:
            return "must be a number"
    elif type(value) is not kind:
        return _SAID[kind]
    setattr(request, name, value)
    return None


def _extend(request: Any, name: str, values: Any) -> str | None:
    repeated = getattr(request, name)
    if repeated:
        return "is named twice, in the query or in the body"
    if type(values) is not list:
        return "must be an array of numbers"
    if not set(map(type, values)) <= _NUMBERS:
        values = [_number(value) for value in values]
        if None in values:
            return "must be an array of numbers"
    repeated.extend(values)
    return None


def _number(value: Any) -> float | None:
    """Return a number of JSON, or a text that is one in proto3 JSON; None for anything else."""
    if type(value) in _NUMBERS:
        return float(value)
    return float(value) if type(value) is str and _NUMBER_TEXT.fullmatch(value) else None
