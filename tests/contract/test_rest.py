"""The REST face as documented, from a simulated exchange to JSON; and every error, the same over REST and gRPC."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest

from chronobook.v1 import order_book_service_pb2 as pb
from chronobook_server.simulator import Simulator
from testkit.harness.refusals import from_json, from_rpc
from testkit.harness.whole_system import System, system_on, until

pytestmark = pytest.mark.slow

NUMBER = (int, float)
# Name and type of everything in every answer; a type in a list is optional.
LEVEL = {"price": NUMBER, "quantity": NUMBER}
RANGE = {"lowest": [NUMBER], "highest": [NUMBER]}
AUDITS = {"count": int, "mismatches_count": int, "missing_count": int, "extra_count": int, "wrong_count": int}
STATUS = {
    "symbol": str, "is_connected": bool, "last_update_id": NUMBER, "bids_count": int, "asks_count": int,
    "history_count": int, "state": str, "timestamp": [NUMBER], "as_of": [NUMBER], "complete_to": [NUMBER],
    "age": [NUMBER], "known_range": [RANGE], "best_bid": [LEVEL], "best_ask": [LEVEL], "resyncs_count": int,
    "malformed_frames_count": int, "trading_status": str, "history_error": [str],
    "epoch": [NUMBER], "tick_size": [NUMBER], "step_size": [NUMBER], "audits": AUDITS, "suspensions_count": int,
    "sync_error": [str], "rejected_events_count": int, "redated_events_count": int,
    "bid_known_bps": [NUMBER], "ask_known_bps": [NUMBER], "task_error": [str], "unusable_files_count": int,
}  # fmt: skip
BOOK = {
    "symbol": str, "last_update_id": NUMBER, "timestamp": NUMBER, "bids": (LEVEL,), "asks": (LEVEL,), "as_of": NUMBER,
    "complete_to": [NUMBER], "age": [NUMBER], "is_stale": bool, "known_range": RANGE, "epoch": [NUMBER],
}  # fmt: skip
QUANTITY = {
    "target_price": NUMBER, "actual_price": NUMBER, "timestamp": NUMBER, "quantity": NUMBER, "difference": [NUMBER],
    "is_nearest_level": bool, "symbol": str, "side": [str], "previous_side": [str], "previous_quantity": [NUMBER],
    "is_proven": bool, "as_of": NUMBER, "update_id": NUMBER, "complete_to": [NUMBER], "age": [NUMBER], "is_stale": bool,
    "epoch": [NUMBER],
}  # fmt: skip
NEAREST = {
    "target_price": NUMBER, "nearest_price": NUMBER, "quantity": NUMBER, "timestamp": NUMBER,
    "price_difference": NUMBER, "symbol": str, "side": str, "is_proven": bool, "as_of": NUMBER, "update_id": NUMBER,
    "complete_to": [NUMBER], "age": [NUMBER], "is_stale": bool, "epoch": [NUMBER],
}  # fmt: skip
CHANGE = {"timestamp": NUMBER, "trading_status": str, "tick_size": [NUMBER], "step_size": [NUMBER]}
SYMBOL = {
    "symbol": str, "is_connected": bool, "state": str, "trading_status": str, "history_count": int, "as_of": [NUMBER],
    "age": [NUMBER], "tick_size": [NUMBER], "step_size": [NUMBER], "sync_error": [str],
}  # fmt: skip
SYMBOLS = {"symbols": (SYMBOL,), "default_symbol": str}
HISTORY = {
    "symbol": str, "history_count": int, "oldest_timestamp": [NUMBER], "newest_timestamp": [NUMBER],
    "coverage": ({"start": NUMBER, "end": NUMBER},), "gaps": ({"start": NUMBER, "end": [NUMBER], "cause": str},),
    "level_changes": NUMBER, "bytes": NUMBER, "retention_seconds": NUMBER, "events": NUMBER, "segments_count": int,
    "contract_changes": (CHANGE,),
}  # fmt: skip


def conforms(value: Any, shape: Any) -> None:
    """Assert that a JSON value has exactly the documented names, each of its type."""
    if isinstance(shape, Mapping):
        required = {name for name, kind in shape.items() if not isinstance(kind, list)}
        assert required <= value.keys() <= shape.keys(), (value.keys() ^ required, value)
        for name in value:
            kind = shape[name]
            conforms(value[name], kind[0] if isinstance(kind, list) else kind)
    elif isinstance(shape, tuple) and isinstance(shape[0], Mapping):
        assert isinstance(value, list)
        for each in value:
            conforms(each, shape[0])
    else:
        assert isinstance(value, shape), (value, shape)
        assert shape is bool or not isinstance(value, bool), (value, shape)


def stepped(*symbols: str) -> Simulator:
    return Simulator(symbols=symbols or ("ETHUSDT",), seed=5, speed=0, start_ms=1_800_000_000_000)


async def advanced(running: System, simulator: Simulator, count: int) -> None:
    await simulator.step(count)
    await running.caught_up(simulator)


async def test_every_answer_has_the_documented_names_and_types(tmp_path: Path) -> None:
    simulator = stepped("ETHUSDT", "BTCUSDT")
    async with system_on(simulator, tmp_path) as running:
        await running.synced()
        await running.synced("BTCUSDT")
        await advanced(running, simulator, 30)
        status, answer = await running.get("/status")
        conforms(answer, STATUS)
        assert (status, answer["symbol"], answer["is_connected"], answer["resyncs_count"]) == (200, "ETHUSDT", True, 0)
        newest, best = answer["as_of"], answer["best_bid"]["price"]

        _, book = await running.get("/orderbook")
        conforms(book, BOOK)
        assert book["bids"][0]["price"] == best
        assert [level["price"] for level in book["bids"]] == sorted((p["price"] for p in book["bids"]), reverse=True)
        assert [level["price"] for level in book["asks"]] == sorted(level["price"] for level in book["asks"])
        _, cut = await running.get(f"/orderbook?limit=3&timestamp={newest}")
        conforms(cut, BOOK)
        assert (cut["bids"], "age" in cut) == (book["bids"][:3], True)  # the newest event is not final

        _, now = await running.post("/quantity", {"price": best})
        conforms(now, QUANTITY)
        assert (now["target_price"], now["actual_price"], now["is_nearest_level"]) == (best, best, False)
        _, past = await running.post("/quantity", {"price": best, "timestamp": newest})
        conforms(past, QUANTITY)
        assert past["quantity"] == now["quantity"]
        _, empty = await running.post("/quantity", {"price": best + 0.01, "timestamp": newest})
        if not empty["quantity"]:
            assert (empty["quantity"], "side" in empty) == (0, False)

        _, nearest = await running.get(f"/nearest-level/{best}")
        conforms(nearest, NEAREST)
        assert (nearest["nearest_price"], nearest["price_difference"]) == (best, 0)

        _, history = await running.get("/history?symbol=btcusdt")
        conforms(history, HISTORY)
        assert (history["symbol"], history["gaps"], len(history["coverage"])) == ("BTCUSDT", [], 1)
        _, symbols = await running.get("/symbols")
        conforms(symbols, SYMBOLS)
        assert [each["symbol"] for each in symbols["symbols"]] == sorted(simulator.symbols)
        assert symbols["default_symbol"] == next(iter(simulator.symbols))


async def test_before_the_first_contact_zeros_and_false_are_printed(tmp_path: Path) -> None:
    simulator = stepped()
    simulator.rest.refuse_status = 503
    async with system_on(simulator, tmp_path) as running:
        market = running.application.queries["ETHUSDT"]
        await until(lambda: market.state.value == "WAITING_FOR_BRIDGE")
        _, status = await running.get("/status")
        assert status.pop("sync_error") == "no snapshot came: HTTP 503"
        assert status == {
            "rejected_events_count": 0, "redated_events_count": 0,
            "symbol": "ETHUSDT", "is_connected": False, "last_update_id": 0, "bids_count": 0, "asks_count": 0,
            "history_count": 0, "state": "WAITING_FOR_BRIDGE", "resyncs_count": 0, "malformed_frames_count": 0,
            "trading_status": "TRADING", "tick_size": 0.01, "step_size": 0.001, "suspensions_count": 0,
            "unusable_files_count": 0,
            "audits": dict.fromkeys(AUDITS, 0),
        }  # fmt: skip
        _, history = await running.get("/history")
        (change,) = history.pop("contract_changes")
        assert (change["trading_status"], change["tick_size"]) == ("TRADING", 0.01)
        assert history == {
            "symbol": "ETHUSDT", "history_count": 0, "coverage": [], "gaps": [], "level_changes": 0, "bytes": 0,
            "retention_seconds": 86400, "events": 0, "segments_count": 0,
        }  # fmt: skip
        code, body = await running.get("/orderbook")
        assert (code, from_json(body).reason, from_json(body).has_retry) == (503, "NOT_SYNCED", True)
        code, body = await running.get("/orderbook?timestamp=5")
        assert (code, from_json(body).reason) == (400, "BEFORE_HISTORY")


Request = pb.GetQuantityRequest | pb.GetOrderBookRequest | pb.NearestLevelRequest | pb.GetStatusRequest


async def same_error(running: System, request: Request) -> tuple[int, str]:
    """Ask over REST and over gRPC; assert that both refuse alike; return HTTP status and reason."""
    fields = {descriptor.name: value for descriptor, value in request.ListFields()}
    match request:
        case pb.GetQuantityRequest():
            call: Any = running.stub.GetQuantity(request)
            status, body = await running.post("/quantity", fields)
        case pb.NearestLevelRequest():
            call = running.stub.NearestLevel(request)
            price = fields.pop("price")
            status, body = await running.get(f"/nearest-level/{price}?{query(fields)}")
        case pb.GetOrderBookRequest():
            call = running.stub.GetOrderBook(request)
            status, body = await running.get(f"/orderbook?{query(fields)}")
        case _:
            call = running.stub.GetStatus(request)
            status, body = await running.get(f"/status?{query(fields)}")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    over_grpc, over_rest = from_rpc(caught.value), from_json(body)
    assert (over_grpc.code, over_grpc.reason, over_grpc.fields) == (over_rest.code, over_rest.reason, over_rest.fields)
    assert over_grpc.metadata.keys() == over_rest.metadata.keys()
    assert over_grpc.has_retry == over_rest.has_retry
    return status, over_rest.reason


def query(fields: Mapping[str, Any]) -> str:
    return "&".join(f"{name}={str(value).lower() if value is True else value}" for name, value in fields.items())


async def test_every_row_of_the_error_table_is_alike_by_rest_and_grpc(tmp_path: Path) -> None:
    simulator = stepped()
    async with system_on(simulator, tmp_path) as running:
        status = await running.synced()
        await advanced(running, simulator, 30)
        market = running.application.queries["ETHUSDT"]
        price, newest = status.best_bid.price, market.history.complete_to
        assert newest is not None

        def quantity(**fields: Any) -> pb.GetQuantityRequest:
            return pb.GetQuantityRequest(**({"price": price} | fields))

        invalid: list[Request] = [
            pb.GetQuantityRequest(timestamp=5),
            *(quantity(price=bad) for bad in (0, -5, 2680.001, 1e300)),
            *(quantity(price=bad, timestamp=newest / 1000) for bad in (0, -5, 2680.001, 1e300)),
            *(pb.NearestLevelRequest(price=bad) for bad in (0, -5, 2680.001, 1e17)),
            *(pb.GetOrderBookRequest(limit=bad) for bad in (0, -1)),
            quantity(max_age=-1),
        ]
        for request in invalid:
            assert await same_error(running, request) == (400, "INVALID_FIELD"), request
        for text in ("NaN", "Infinity", "-Infinity"):
            for body in ({"price": text}, {"price": price, "timestamp": text}):
                code, answer = await running.post("/quantity", body)
                assert (code, from_json(answer).reason) == (400, "INVALID_FIELD")

        assert await same_error(running, pb.GetStatusRequest(symbol="NOPE")) == (404, "SYMBOL_NOT_SERVED")
        assert await same_error(running, quantity(timestamp=newest / 1000 + 3600)) == (400, "IN_THE_FUTURE")
        assert await same_error(running, quantity(timestamp=0)) == (400, "BEFORE_HISTORY")
        unknown = quantity(price=12.34, timestamp=newest / 1000)
        assert await same_error(running, unknown) == (404, "LEVEL_UNKNOWN")
        await until(lambda: (market.age() or 0) > 0.002)
        assert await same_error(running, quantity(max_age=0.001)) == (503, "TOO_OLD")

        simulator.rest.refuse_status = 503
        simulator.disconnect()
        await until(lambda: not market.is_synced)
        assert await same_error(running, quantity()) == (503, "NOT_SYNCED")
        assert await same_error(running, pb.NearestLevelRequest(price=price)) == (503, "NOT_SYNCED")
        assert await same_error(running, pb.GetOrderBookRequest(limit=1)) == (503, "NOT_SYNCED")
        code, stale = await running.get("/orderbook?allow_stale=true&limit=1")
        assert (code, stale["is_stale"], stale["as_of"]) == (200, True, (newest + 1) / 1000)
        inside = quantity(timestamp=newest / 1000 + 0.001)
        assert await same_error(running, inside) == (404, "HISTORY_GAP")
        code, past = await running.post("/quantity", {"price": price, "timestamp": newest / 1000})
        assert code == 200

        await simulator.step(3)  # lost on us
        simulator.rest.refuse_status = None
        await until(lambda: market.is_synced)
        await advanced(running, simulator, 1)
        assert await same_error(running, inside) == (404, "HISTORY_GAP")
        _, history = await running.get("/history")
        (gap,) = history["gaps"]
        assert (gap["start"], gap["cause"]) == (newest / 1000, "DISCONNECT")
        assert await running.post("/quantity", {"price": price, "timestamp": newest / 1000}) == (
            200,
            past | {"complete_to": history["newest_timestamp"]},
        )


async def test_wrong_input_of_the_exchange_ends_in_a_right_book(tmp_path: Path) -> None:
    """Lost, repeated and malformed events, a cut stream and refused snapshots: each is survived, none is hidden."""
    simulator = Simulator(symbols=("ETHUSDT",), seed=11, speed=0, keep_journal=True, start_ms=1_800_000_000_000)
    async with system_on(simulator, tmp_path) as running:
        await running.synced()
        market = running.application.queries["ETHUSDT"]
        symbol = simulator.symbols["ETHUSDT"]
        await advanced(running, simulator, 5)
        symbol.drop_next = 1
        simulator.rest.refuse_status, simulator.rest.refuse_retry_after = 429, 1
        await simulator.step(1)
        await simulator.step(1)
        await until(lambda: market.counts.resyncs == 1)
        asked = symbol.snapshots_asked
        await until(lambda: symbol.snapshots_asked > asked)
        simulator.rest.refuse_status = None
        await until(lambda: market.is_synced)
        await advanced(running, simulator, 5)
        _, history = await running.get("/history")
        assert [gap["cause"] for gap in history["gaps"]] == ["CHAIN_BREAK"]
        # The gap starts before the lost event, not where the loss was noticed.
        assert symbol.journal is not None
        assert history["gaps"][0]["start"] == (symbol.journal[4]["T"] - 1) / 1000
        _, book = await running.get("/orderbook")
        held = {level["price"]: level["quantity"] for level in (*book["bids"], *book["asks"])}
        truth = symbol.truth.bids | symbol.truth.asks
        inside = [price for price in held if book["known_range"]["lowest"] <= price <= book["known_range"]["highest"]]
        assert {price: held[price] for price in inside} == {
            float(price): float(quantity)
            for price, quantity in truth.items()
            if book["known_range"]["lowest"] <= float(price) <= book["known_range"]["highest"]
        }
        assert all(float(truth[f"{price:.2f}"]) == quantity for price, quantity in held.items())
