"""The generated package: the module of the service exports every message, as before the contract had several files."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto, FileDescriptorSet

from chronobook.v1 import order_book_service_pb2 as pb
from chronobook.v1.order_book_service_pb2 import BID, Cause, GetQuantityRequest, Side, WatchLevelResponse

PROTO = Path(__file__).resolve().parents[2] / "proto"
RELEASED: FileDescriptorProto = next(
    file
    for file in FileDescriptorSet.FromString((PROTO / "released.binpb").read_bytes()).file
    if file.name == "chronobook/v1/order_book_service.proto"
)
RELEASED_TYPES = {each.name for each in RELEASED.message_type} | {each.name for each in RELEASED.enum_type}
SUBJECTS = pb.DESCRIPTOR.public_dependencies
TYPES = {name for file in SUBJECTS for name in (*file.message_types_by_name, *file.enum_types_by_name)}
VALUES = {
    value.name: value.number for file in SUBJECTS for enum in file.enum_types_by_name.values() for value in enum.values
}


def test_programs_that_import_from_the_module_keep_working() -> None:
    request = GetQuantityRequest(price=2680.04, timestamp=1.5)
    assert pb.GetQuantityRequest.FromString(request.SerializeToString()) == request
    assert pb.WatchLevelResponse.Kind.Name(WatchLevelResponse.STATE) == "STATE"
    assert (BID, Side.ASK, Cause.Name(pb.RESTART)) == (1, 2, "RESTART")


def test_the_service_imports_every_file_but_the_errors_publicly() -> None:
    files = {f"chronobook/v1/{path.name}" for path in (PROTO / "chronobook" / "v1").glob("*.proto")}
    assert {file.name for file in SUBJECTS} == files - {pb.DESCRIPTOR.name, "chronobook/v1/errors.proto"}


@pytest.mark.parametrize("name", sorted(TYPES | RELEASED_TYPES))
def test_the_module_exports_every_type(name: str) -> None:
    assert getattr(pb, name).DESCRIPTOR.full_name == f"chronobook.v1.{name}"


def test_the_module_exports_every_value_of_an_enum() -> None:
    assert {name: getattr(pb, name) for name in VALUES} == VALUES


def test_type_checkers_see_every_export() -> None:
    module = ast.parse(Path(pb.__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    imports = [each for node in module.body if isinstance(node, ast.ImportFrom) for each in node.names]
    # A stub file exports an import only if it repeats the name after `as`.
    assert {each.name for each in imports if each.asname == each.name} >= {*TYPES, *VALUES}


def fields(message: DescriptorProto, name: str) -> Iterator[tuple[str, str, int]]:
    yield from ((name, field.name, field.number) for field in message.field)
    for nested in message.nested_type:
        yield from fields(nested, f"{name}.{nested.name}")


def test_descriptors_keep_their_names_and_numbers() -> None:
    service = pb.DESCRIPTOR.services_by_name["OrderBookService"]
    assert service.full_name == "chronobook.v1.OrderBookService"
    assert {method.name for method in RELEASED.service[0].method} <= set(service.methods_by_name)
    assert service.methods_by_name["GetQuantity"].input_type is pb.GetQuantityRequest.DESCRIPTOR
    pool = descriptor_pool.Default()
    for message in RELEASED.message_type:
        for name, field, number in fields(message, f"chronobook.v1.{message.name}"):
            assert pool.FindMessageTypeByName(name).fields_by_name[field].number == number
