"""The OpenAPI description: valid, served, and true of the answers."""

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from chronobook.v1 import order_book_service_pb2 as pb
from chronobook_server.simulator import Simulator
from testkit.harness.whole_system import System, system_on

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT: dict[str, Any] = json.loads((ROOT / "envoy" / "openapi.json").read_text())
METHODS = pb.DESCRIPTOR.services_by_name["OrderBookService"].methods


def strict(name: str) -> Draft202012Validator:
    """Return a validator of answers, which may have no undescribed field."""
    components = json.loads(json.dumps(DOCUMENT["components"]))
    for schema in components["schemas"].values():
        if schema["type"] == "object" and name != "Error":
            schema["additionalProperties"] = False
    return Draft202012Validator({"$ref": f"#/components/schemas/{name}", "components": components})


def test_the_description_is_valid_and_has_every_call() -> None:
    validate(DOCUMENT)
    operations = [operation for path in DOCUMENT["paths"].values() for operation in path.values()]
    assert sorted(each["operationId"] for each in operations) == sorted(method.name for method in METHODS)
    for operation in operations:
        assert operation["summary"]
        assert set(operation["tags"]) < {"book", "history", "quantity", "stream", "symbols"}
        assert all(parameter["description"] for parameter in operation.get("parameters", []))
    for name, schema in DOCUMENT["components"]["schemas"].items():
        assert schema["description"], name
        assert all(each["description"] for each in schema.get("properties", {}).values()), name


def test_a_request_lists_required_fields_and_no_linter_hints() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    assert schemas["GetQuantityRequest"]["required"] == ["price"]
    assert schemas["BatchGetQuantityRequest"]["required"] == ["prices", "timestamps"]
    assert "buf:" not in json.dumps(DOCUMENT)


async def ask(running: System, verb: str, path: str, body: Any = None) -> tuple[int, Any]:
    return await (running.get(path) if verb == "get" else running.post(path, body))


async def test_it_is_served_and_true_of_every_answer(tmp_path: Path) -> None:
    simulator = Simulator(seed=5, speed=0)
    async with system_on(simulator, tmp_path) as running:
        await simulator.step(30)
        status = await running.synced()
        await running.caught_up(simulator)
        async with running.http.get(f"{running.base}/openapi.json") as reply:
            assert (reply.status, reply.content_type) == (200, "application/json")
            assert await reply.json() == DOCUMENT
        price, instant = status.best_bid.price, status.complete_to
        answered = {
            "GetStatus": ("get", "/status", None),
            "ListSymbols": ("get", "/symbols", None),
            "GetOrderBook": ("get", "/orderbook?limit=3", None),
            "GetHistory": ("get", "/history", None),
            "GetQuantity": ("post", "/quantity", {"price": price, "timestamp": instant}),
            "BatchGetQuantity": ("post", "/quantities", {"prices": [price, 1.0], "timestamps": [instant, instant]}),
            "NearestLevel": ("get", f"/nearest-level/{price}?side=ASK", None),
            "ListLevelChanges": ("get", f"/level-changes/{price}", None),
            "ListBestPrices": ("get", "/best-prices", None),
        }
        streams = {"WatchLevel": f"/watch-level/{price}", "WatchOrderBook": "/watch-orderbook"}
        assert {*answered, *streams} == {method.name for method in METHODS}
        for name, (verb, path, body) in answered.items():
            code, answer = await ask(running, verb, path, body)
            assert code == 200, answer
            strict(f"{name}Response").validate(answer)
        for name, path in streams.items():
            async with running.http.get(running.base + path) as reply:
                line = await reply.content.readuntil(b"\n")
            strict(f"{name}Response").validate(json.loads(line.removeprefix(b"data: ")))


@pytest.mark.parametrize(
    ("verb", "path", "body", "code"),
    [
        ("post", "/quantity", {"price": -1}, 400),
        ("post", "/quantity", {"price": 5, "timestamp": 1}, 400),
        ("get", "/status?symbol=NOPE", None, 404),
        ("get", "/nothing", None, 404),
    ],
)
async def test_refusals_are_described(tmp_path: Path, verb: str, path: str, body: Any, code: int) -> None:
    simulator = Simulator(seed=5, speed=0)
    async with system_on(simulator, tmp_path) as running:
        await simulator.step(5)
        await running.synced()
        answered, answer = await ask(running, verb, path, body)
        assert answered == code
        strict("Error").validate(answer)
