"""OpenAPI 3.1 description of the REST interface, from the contract's HTTP bindings, types and comments."""

import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from google.api import annotations_pb2
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
)

Json = dict[str, Any]
_FIELD = FieldDescriptorProto
_NUMBERS: dict[int, Json] = {
    _FIELD.TYPE_DOUBLE: {"type": "number", "format": "double"},
    _FIELD.TYPE_BYTES: {"type": "string", "format": "byte"},
    _FIELD.TYPE_UINT32: {"type": "integer", "format": "int64", "minimum": 0, "maximum": 2**32 - 1},
    _FIELD.TYPE_INT32: {"type": "integer", "format": "int32"},
    _FIELD.TYPE_BOOL: {"type": "boolean"},
    _FIELD.TYPE_STRING: {"type": "string"},
}
_HTTP_BODY = ".google.api.HttpBody"
# An unknown value in an array is NaN, which is no number of JSON.
_OR_NAN: Json = {"anyOf": [_NUMBERS[_FIELD.TYPE_DOUBLE], {"const": "NaN"}]}
_ERROR: Json = {
    "type": "object",
    "description": "google.rpc.Status: why there is no answer. `details` has a google.rpc.ErrorInfo with a `reason`.",
    "required": ["code", "message", "details"],
    "properties": {
        "code": {"type": "integer", "description": "The gRPC status."},
        "message": {"type": "string", "description": "For people."},
        "details": {
            "type": "array",
            "description": "A google.rpc.ErrorInfo, and where they help a BadRequest and a RetryInfo.",
            "items": {"type": "object", "required": ["@type"]},
        },
    },
}
_ABOUT = """Times are Unix seconds, read to the nearest millisecond; prices and quantities are the exchange's own. A
zero means that the exchange had nothing there. An unknown value is absent, or the string `"NaN"` in arrays, or refused
with a reason.

An answer whose `timestamp` is not above its `complete_to` is final: no restart and no resync changes it. `complete_to`
is the `T` of the last event minus 1 ms, because another event may share that `T`.

Every error is an `Error`, whose reason is one of `ErrorReason`, or begins with `EDGE_` where Envoy itself refused.

The edge on your own machine needs no credentials. An edge that faces a network may need a token with every call, as
`Authorization: Bearer TOKEN`."""
_STREAM = (
    "Message after message: server-sent events, or JSON lines where the request says `Accept: application/x-ndjson`."
)
_REFUSALS = {
    "400": "A field is missing or out of bounds, or no such instant is held.",
    "401": "The edge needs a token, and the request has none, or an invalid one.",
    "403": "The token is for another audience, or the host name is not one of this machine.",
    "404": "The symbol is not served, the instant lies in a gap, or the level is unknown.",
    "413": "The body is too large.",
    "415": "The content type is not application/json.",
    "429": "Too many requests from one address; of a stream also: it is read too slowly for history to hold the rest.",
    "431": "The headers are too large, or too many.",
    "503": "No server, or no book in sync; try again.",
}
_OF_BODIES = ("413", "415")
# Bounds of request fields, as the server checks them.
_BOUNDS: dict[str, Json] = {
    "symbol": {"maxLength": 64},
    "price": {"exclusiveMinimum": 0},
    "limit": {"minimum": 1},
    "page_size": {"minimum": 1, "maximum": 10_000},
    "max_age": {"minimum": 0},
    "prices": {"maxItems": 10_000},
    "timestamps": {"maxItems": 10_000},
}


class Contract:
    """The messages, enums and comments of a set of files that was made with source information."""

    def __init__(self, files: FileDescriptorSet) -> None:
        self._comments: dict[str, str] = {}
        self.schemas: Json = {"Error": _ERROR}
        self._messages: dict[str, DescriptorProto] = {}
        self._subjects: dict[str, str] = {}
        for file in files.file:
            if file.package == "chronobook.v1":
                self._read(file)
        self.service = next(file.service[0] for file in files.file if file.service)

    def _read(self, file: FileDescriptorProto) -> None:
        comments = {tuple(each.path): _text(each.leading_comments) for each in file.source_code_info.location}
        for number, service in enumerate(file.service):
            for place, method in enumerate(service.method):
                self._comments[method.name] = comments.get((6, number, 2, place), "")
        for number, enum in enumerate(file.enum_type):
            self._enum(enum, f"{enum.name}", comments, (5, number))
        for number, message in enumerate(file.message_type):
            self._subjects[f".{file.package}.{message.name}"] = PurePosixPath(file.name).stem
            self._message(message, message.name, f".{file.package}.{message.name}", comments, (4, number))

    def _enum(self, enum: EnumDescriptorProto, name: str, comments: dict[Any, str], path: tuple[int, ...]) -> None:
        values = [f"- `{value.name}`: {comments.get((*path, 2, at), '')}" for at, value in enumerate(enum.value)]
        says = "\n".join([comments.get(path, ""), "", *values])
        self.schemas[name] = {"type": "string", "description": says, "enum": [value.name for value in enum.value]}

    def _message(
        self, message: DescriptorProto, name: str, full: str, comments: dict[Any, str], path: tuple[int, ...]
    ) -> None:
        self._messages[full] = message
        for number, enum in enumerate(message.enum_type):
            self._enum(enum, f"{name}.{enum.name}", comments, (*path, 4, number))
        for number, nested in enumerate(message.nested_type):
            self._message(nested, f"{name}.{nested.name}", f"{full}.{nested.name}", comments, (*path, 3, number))
        properties = {}
        for number, field in enumerate(message.field):
            if field.type_name == _HTTP_BODY:
                continue  # the body itself, whose fields are the others
            says = comments.get((*path, 2, number), "")
            self._comments[f"{name}.{field.name}"] = says
            schema = _asked(field) if name.endswith("Request") else _schema(field)
            properties[field.name] = {**schema, "description": says}
        missable = _may_be_left_out if name.endswith("Request") else _may_miss
        described = [field for field in message.field if field.name in properties]
        always = [field.name for field in described if not missable(field, properties[field.name]["description"])]
        self.schemas[name] = {"type": "object", "description": comments.get(path, ""), "properties": properties}
        if always:
            self.schemas[name]["required"] = always

    def says(self, name: str) -> str:
        """Return the comment of a method, or of a field as MESSAGE.FIELD."""
        return self._comments[name]

    def subject(self, method: MethodDescriptorProto) -> str:
        """Return the subject of a method: the name of the file that declares its request."""
        return self._subjects[method.input_type]

    def fields(self, method: MethodDescriptorProto) -> Iterator[tuple[FieldDescriptorProto, str]]:
        """Yield the fields of a method's request, each with its comment."""
        name = method.input_type.rpartition(".")[2]
        for field in self._messages[method.input_type].field:
            yield field, self.says(f"{name}.{field.name}")


def _text(comment: str) -> str:
    told = re.sub(r"^ *buf:lint:.*$", "", comment, flags=re.MULTILINE)
    return re.sub(r"\n(?!\n|-|$)", " ", told.strip().replace("\n ", "\n"))


def _may_be_left_out(field: FieldDescriptorProto, says: str) -> bool:
    """Return whether a request may omit a field; array fields are the subject of their requests."""
    return not says.endswith("Required.") and field.label != _FIELD.LABEL_REPEATED


def _may_miss(field: FieldDescriptorProto, _says: str) -> bool:
    return field.proto3_optional or field.type == _FIELD.TYPE_MESSAGE


def _schema(field: FieldDescriptorProto) -> Json:
    if field.type in (_FIELD.TYPE_MESSAGE, _FIELD.TYPE_ENUM):
        one: Json = {"$ref": "#/components/schemas/" + field.type_name.removeprefix(".chronobook.v1.")}
    else:
        one = _NUMBERS[field.type]
    if field.label != _FIELD.LABEL_REPEATED:
        return dict(one)
    return {"type": "array", "items": _OR_NAN if field.type == _FIELD.TYPE_DOUBLE else one}


def _asked(field: FieldDescriptorProto) -> Json:
    """Return the schema of a field of a request."""
    return {**_schema(field), **_BOUNDS.get(field.name, {})}


def _operation(contract: Contract, method: MethodDescriptorProto, path: str, *, has_body: bool) -> Json:
    summary, _, more = contract.says(method.name).partition(". ")
    answer = {"schema": {"$ref": "#/components/schemas/" + method.output_type.rpartition(".")[2]}}
    kinds = ("text/event-stream", "application/json") if method.server_streaming else ("application/json",)
    refusals = {status: says for status, says in _REFUSALS.items() if has_body or status not in _OF_BODIES}
    operation: Json = {
        "operationId": method.name,
        "tags": [contract.subject(method)],
        "summary": summary.rstrip("."),
        "description": more or summary,
        "responses": {
            "200": {
                "description": _STREAM if method.server_streaming else "The answer.",
                "content": dict.fromkeys(kinds, answer),
            },
            **{
                status: {
                    "description": says,
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
                }
                for status, says in refusals.items()
            },
        },
    }
    if has_body:
        name = method.input_type.rpartition(".")[2]
        schema: Json = {"$ref": f"#/components/schemas/{name}"}
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
        return operation
    operation["parameters"] = [
        {
            "name": field.name,
            "in": "path" if f"{{{field.name}}}" in path else "query",
            "required": f"{{{field.name}}}" in path,
            "description": says,
            "schema": _asked(field),
        }
        for field, says in contract.fields(method)
    ]
    return operation


def document(files: FileDescriptorSet, version: str) -> Json:
    """Return the description of the REST interface."""
    contract, paths = Contract(files), {}
    for method in contract.service.method:
        rule = method.options.Extensions[annotations_pb2.http]
        verb = rule.WhichOneof("pattern")
        path = getattr(rule, verb)
        paths[path] = {verb: _operation(contract, method, path, has_body=bool(rule.body))}
    used = {name: schema for name, schema in contract.schemas.items() if not _is_query(name, paths)}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "chronobook",
            "version": version,
            "summary": "How much rested at a price at an instant, and how did that differ from a second before?",
            "description": re.sub(r"(?<!\n)\n(?!\n)", " ", _ABOUT),
        },
        "paths": dict(sorted(paths.items())),
        "components": {"schemas": dict(sorted(used.items()))},
    }


def _is_query(name: str, paths: Json) -> bool:
    """Return whether a schema is of a request whose fields are parameters."""
    return name.endswith("Request") and f'"#/components/schemas/{name}"' not in str(paths).replace("'", '"')
