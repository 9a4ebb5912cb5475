"""Numbers as live contracts allow them, through the command `serve`: large, fine, and finer in mid-history."""

from decimal import Decimal
from pathlib import Path
from typing import Any, TypeAlias

import grpc
import orjson
import pytest

from chronobook.v1 import order_book_service_pb2 as pb
from chronobook_server.simulator import Simulator
from testkit.harness.command import Command, command, listening
from testkit.harness.refusals import from_rpc

SYMBOL = "PEPEUSDT"
START = 1_800_000_000_000
FIRST, LAST = 100, 106
Pairs: TypeAlias = list[list[str]]
Events: TypeAlias = list[dict[str, Pairs]]
BIDS = [["0.00001234", "60000000000.00000000"], ["0.00001200", "7"]]
ASKS = [["0.00001240", "46000000000.00000000"], ["0.00001300", "0.5"]]
# Levels of the events, 400 ms apart; the third and the fourth bring finer texts.
EVENTS: Events = [
    {"b": [["0.00001233", "59999999999.5"]], "a": []},
    {"b": [["0.00001234", "0"], ["0.00001233", "0.00000000"]], "a": [["0.00001240", "0.00"]]},
    {"b": [["0.00001233", "46000000000.00000001"]], "a": []},
    {"b": [["0.000012345678", "3.000000000000000000"], ["0.00001233", "0"]], "a": []},
    {"b": [["0.000012345678", "0.0000000001"], ["0.00001200", "2"]], "a": []},
    {"b": [["0.00001200", "4.5"]], "a": []},
]


def at(number: int) -> int:
    """Return the `T` of an event in ms; 0 is the snapshot."""
    return START + 400 * number


def recording(path: Path, events: Events, bids: Pairs = BIDS) -> Path:
    """Write the snapshot and the events down as the recorder does."""
    bodies: list[dict[str, Any]] = [
        {"lastUpdateId": FIRST, "bids": bids, "asks": ASKS, "T": at(0), "E": at(0)},
    ]
    for number, levels in enumerate(events, start=1):
        data = {"e": "depthUpdate", "s": SYMBOL, "U": FIRST + number, "u": FIRST + number, "pu": FIRST + number - 1}
        data |= {"T": at(number), "E": at(number), **levels}
        bodies.append({"stream": f"{SYMBOL.lower()}@depth@100ms", "data": data})
    lines = (b"%d " % (at(number) * 10**6) + orjson.dumps(body) for number, body in enumerate(bodies))
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def truth() -> list[dict[str, Decimal]]:
    """Return the quantity at each price after the snapshot and after each event."""
    book = {price: Decimal(quantity) for price, quantity in (*BIDS, *ASKS)}
    states = [dict(book)]
    for event in EVENTS:
        book |= {price: Decimal(quantity) for price, quantity in (*event["b"], *event["a"])}
        states.append(dict(book))
    return states


async def answered(running: Command, until: int) -> None:
    """Ask for each price that the exchange has named, at each instant up to an event, and compare."""
    for number, state in enumerate(truth()[: until + 1]):
        for price, quantity in state.items():
            for later in (0, 399):
                time = (at(number) + later) / 1000
                request = pb.GetQuantityRequest(symbol=SYMBOL, price=float(price), timestamp=time)
                assert (await running.stub.GetQuantity(request)).quantity == float(quantity), (number, price)
        book = await running.stub.GetOrderBook(pb.GetOrderBookRequest(symbol=SYMBOL, timestamp=at(number) / 1000))
        shown = {level.price: level.quantity for level in (*book.bids, *book.asks)}
        assert shown == {float(price): float(quantity) for price, quantity in state.items() if quantity}


async def test_large_and_fine_numbers_are_exact_and_growth_is_harmless(tmp_path: Path) -> None:
    simulator = Simulator(replay=recording(tmp_path / "lines.jsonl", EVENTS), speed=None)
    await simulator.start()
    try:
        async with command(simulator, tmp_path / "data") as running:
            await listening(running)
            status = await running.reached(LAST)
            assert (status.malformed_frames_count, status.resyncs_count, status.bids_count) == (0, 0, 2)
            await answered(running, len(EVENTS) - 1)
            history = await running.stub.GetHistory(pb.GetHistoryRequest())
            assert len(history.gaps) == 0
            assert history.segments_count > 1, "no segment holds 6 x 10^10 and 10^-10"
            best = await running.stub.ListBestPrices(pb.ListBestPricesRequest())
            assert list(best.bid_quantities)[:3] == [6e10, 7, 46000000000.00000001]
            running.process.terminate()
            assert (await running.ended())[0] == 0
        async with command(simulator, tmp_path / "data") as running:
            await listening(running)
            await running.reached(LAST)
            await answered(running, len(EVENTS) - 1)
    finally:
        await simulator.stop()


async def test_a_price_between_old_steps_is_zero_or_unknown(tmp_path: Path) -> None:
    simulator = Simulator(replay=recording(tmp_path / "lines.jsonl", EVENTS), speed=None)
    await simulator.start()
    try:
        async with command(simulator, tmp_path / "data") as running:
            await listening(running)
            await running.reached(LAST)
            inside = pb.GetQuantityRequest(price=0.000012345678, timestamp=at(0) / 1000)
            assert (await running.stub.GetQuantity(inside)).quantity == 0
            far = pb.GetQuantityRequest(price=7e10, timestamp=at(0) / 1000)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await running.stub.GetQuantity(far)
            assert from_rpc(caught.value).reason == "LEVEL_UNKNOWN"
    finally:
        await simulator.stop()


async def test_one_odd_text_does_not_keep_a_symbol_out_of_sync(tmp_path: Path) -> None:
    small, odd = "0.00001200", "0.000000000000000001"
    events: Events = [
        {"b": [[small, "2"]], "a": [["0.00001240", "0"], ["0.00001300", "3"]]},
        {"b": [["0.00001100", odd]], "a": []},
        {"b": [["0.00001100", "0"]], "a": []},
        {"b": [[small, "60000000000.00000000"]], "a": []},  # has no room beside 18 decimals
        {"b": [["0.00001199", "1"]], "a": []},
        {"b": [["0.00001198", "2"]], "a": []},
    ]
    path = recording(tmp_path / "lines.jsonl", events, [["0.00001234", "0.5"], [small, "1"]])
    simulator = Simulator(replay=path, speed=None)
    await simulator.start()
    try:
        async with command(simulator, tmp_path / "data") as running:
            await listening(running)
            status = await running.reached(LAST)
            assert (status.malformed_frames_count, status.HasField("sync_error")) == (1, False)
            for number, price, quantity in ((0, small, 1.0), (1, small, 2.0), (2, "0.00001100", float(odd))):
                request = pb.GetQuantityRequest(price=float(price), timestamp=at(number) / 1000)
                assert (await running.stub.GetQuantity(request)).quantity == quantity
            book = await running.stub.GetOrderBook(pb.GetOrderBookRequest())
            assert {level.price: level.quantity for level in book.bids}[float(small)] == 6e10
            running.process.terminate()
            _, errors = await running.ended()
        assert "'60000000000.00000000'" in errors
    finally:
        await simulator.stop()
