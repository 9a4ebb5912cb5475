"""Answers about one price, as the contract says them: above all the one that is written without a message."""

import pytest
from google.protobuf.unknown_fields import UnknownFieldSet
from hypothesis import given
from hypothesis import strategies as st

from chronobook.v1 import order_book_service_pb2 as pb
from chronobook_server.api import quantity as points
from chronobook_server.domain.instrument import Instrument
from chronobook_server.domain.values import Millis
from chronobook_server.symbols.queries import SymbolQueries
from testkit.harness.served import HandFed


class Asked(SymbolQueries):
    """A market with scripted answers: a quantity, that of a second before, `complete_to` and an age."""

    def __init__(self, symbol: str, point: tuple[int, int | None, int, int], complete_to: int | None) -> None:
        self.symbol, self.point, self.complete_to = symbol, point, complete_to
        self.history = self  # type: ignore[assignment]

    instrument = Instrument("X", 2, 3)

    def instant(self, milliseconds: float) -> Millis:
        return Millis(round(milliseconds))

    def age(self) -> float | None:
        return 1.25

    def point_at(self, price: int, time: Millis) -> tuple[int, int | None, int, int]:
        assert price == 9_950
        return self.point


_steps = st.integers(-(2**53), 2**53)


def side(quantity: int | None) -> "pb.Side.ValueType | None":
    return None if not quantity else pb.BID if quantity > 0 else pb.ASK


@given(
    symbol=st.text("ABCXYZ0123456789_", min_size=1, max_size=64),
    quantity=_steps,
    before=st.none() | _steps,
    update_id=st.integers(1, 2**53),
    complete_to=st.none() | st.integers(0, 2**42),
)
def test_an_answer_has_every_field_that_the_message_would_have(
    *, symbol: str, quantity: int, before: int | None, update_id: int, complete_to: int | None
) -> None:
    market = Asked(symbol, (quantity, before, 1_700_000_000_120, update_id), complete_to)
    answer = pb.GetQuantityResponse.FromString(points.quantity_at(market, 99.5, 1_700_000_000.25))
    is_final = complete_to is not None and complete_to >= 1_700_000_000_250
    assert answer == pb.GetQuantityResponse(
        symbol=symbol,
        target_price=99.5,
        actual_price=99.5,
        timestamp=1_700_000_000.25,
        quantity=abs(quantity) / 1000,
        difference=None if before is None else (abs(quantity) - abs(before)) / 1000,
        side=side(quantity),
        previous_side=side(before),
        previous_quantity=None if before is None else abs(before) / 1000,
        is_proven=True,
        as_of=1_700_000_000.12,
        update_id=update_id,
        complete_to=None if complete_to is None else complete_to / 1000,
        age=None if is_final else 1.25,
    )
    assert len(UnknownFieldSet(answer)) == 0


def test_every_field_begins_with_one_byte() -> None:
    """The hand-written bytes rely on it: tags of fields from 16 on take two bytes."""
    fields = pb.GetQuantityResponse.DESCRIPTOR.fields
    assert max(field.number for field in fields if field.name not in ("is_stale", "epoch")) < 16


@pytest.mark.parametrize("timestamp", [10.0, 11.0, 12.5, 12.999])
def test_a_real_market_answers_so_too(timestamp: float) -> None:
    fed = HandFed()
    fed.sync()
    fed.change(time=11_000, bids=[("99.00", "2.00")])
    fed.change(time=12_000, bids=[("99.00", "0.00")])
    answer = pb.GetQuantityResponse.FromString(points.quantity_at(fed.market.queries, 99.0, timestamp))
    quantity, difference = {10.0: (1.5, 0.0), 11.0: (2.0, 0.5), 12.5: (0.0, -2.0), 12.999: (0.0, -2.0)}[timestamp]
    assert (answer.quantity, answer.HasField("side"), answer.difference) == (quantity, quantity > 0, difference)
    assert answer.HasField("age") == (timestamp > 12)
