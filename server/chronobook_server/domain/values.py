"""The kinds of number that must not be mixed up, and the two-sided quantity."""

from enum import Enum
from typing import NewType

Price = NewType("Price", int)
"""A price in steps of 10^-price_scale of its instrument."""

SignedQuantity = NewType("SignedQuantity", int)
"""A quantity in steps of 10^-quantity_scale: positive rests on the bid side, negative on the ask side, 0 is empty.

A price is never alive on both sides after an event, so one integer says both how much and where.
"""

UpdateId = NewType("UpdateId", int)
"""The exchange's running number of a book change."""

Millis = NewType("Millis", int)
"""An instant of the exchange's clock (`T` or `E`), in Unix milliseconds."""

Nanos = NewType("Nanos", int)
"""An instant of the receiving machine's clock, in Unix nanoseconds."""

MAX_STEPS = 2**62
"""No price or quantity reaches this many steps: two of them still add up within 64 bits."""


SLACK_MS = 1000
"""Difference that two of the exchange's times may have without a contradiction."""


class Side(Enum):
    """A side of the book."""

    BID = "BID"
    ASK = "ASK"


def side_of(quantity: SignedQuantity) -> Side | None:
    """Return the side that a quantity rests on; None for an empty level."""
    if quantity > 0:
        return Side.BID
    return Side.ASK if quantity < 0 else None
