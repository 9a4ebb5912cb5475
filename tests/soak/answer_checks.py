"""Checks of answers against the exchange's true book; each raises Wrong. Answers have the shape of their JSON."""

from collections.abc import Mapping, Sequence
from itertools import pairwise, zip_longest
from math import isnan
from typing import Any

from tests.soak.soak_judge import Answer, SoakJudge, ms, same
from tests.soak.truth import UNIT, Truth, Wrong

_SIDES = {1: "BID", -1: "ASK", 0: None, "BID": "BID", "ASK": "ASK", "SIDE_UNSPECIFIED": None, None: None}
OUTCOMES: Mapping[Any, str] = {3: "IN_THE_FUTURE", 4: "BEFORE_HISTORY", 5: "HISTORY_GAP", 6: "LEVEL_UNKNOWN"}


def side_of(units: int) -> str | None:
    """Return the side that a quantity rests on."""
    return None if not units else "BID" if units > 0 else "ASK"


def units_of(quantity: float, side: object) -> int:
    """Return a quantity on the wire, with its side, in units."""
    units = round(float(quantity) * UNIT)
    return -units if _SIDES[side] == "ASK" else units  # type: ignore[index]


def is_final(answer: Answer) -> bool:
    """Return whether an answer must never change."""
    complete_to = answer.get("complete_to")
    return complete_to is not None and answer["timestamp"] <= complete_to


def event_of(truth: Truth, answer: Answer, asked_for: int | None) -> int | None:
    """Return the event that an answer is the state after; None if a snapshot cut one into two.

    `asked_for` is the instant of the question, None for now: an answer about the very moment of the last event has an
    age nevertheless.
    """
    update_id = int(answer.get("update_id") or answer.get("last_update_id") or 0)
    complete_to = answer.get("complete_to")
    if complete_to is not None and not truth.is_event(ms(complete_to) + 1):
        raise Wrong(f"answers are said to be final up to {complete_to}, and no event follows at once")
    if is_final(answer):
        number: int | None = truth.number_at(ms(answer["timestamp"]))
        assert number is not None
        same("the update id", update_id, truth.final(number))
        if asked_for is not None:
            same("the age of a final answer", answer.get("age"), None)
    else:
        number = truth.number_of(update_id)
        if number is None:
            if all(each.update_id != update_id for each in truth.snapshots):
                raise Wrong(f"update id {update_id} lies inside an event, and no snapshot was there")
            return None
    same("as_of", ms(answer["as_of"]), truth.time(number))
    return number


def _amount(truth: Truth, judge: SoakJudge, answer: Answer, *, price: float, number: int) -> None:
    """Judge quantity, side and difference at a price after an event."""
    units = truth.quantity(price, number)
    same("the quantity", answer["quantity"], abs(units) / UNIT)
    same("the side", answer.get("side"), side_of(units))
    earlier = ms(answer["timestamp"]) - 1000
    difference = answer.get("difference")
    if difference is None:
        if not judge.may_be_unknown(truth, price, earlier):
            raise Wrong(f"the difference is missing, and the quantity at {earlier} was told of")
        return
    before = truth.quantity(price, min(truth.number_at(earlier), number))
    same("the difference", difference, (abs(units) - abs(before)) / UNIT)
    same("the earlier quantity", answer.get("previous_quantity"), abs(before) / UNIT)
    same("the earlier side", answer.get("previous_side"), side_of(before))


def quantity(truth: Truth, judge: SoakJudge, answer: Answer, *, price: float, time: int | None) -> None:
    """Judge GetQuantity, of an instant or of now."""
    same("the price asked about", answer["target_price"], price)
    actual = answer["actual_price"]
    same("is_nearest_level", answer["is_nearest_level"], actual != price)
    if time is not None:
        same("the price", actual, price)
        same("the instant", ms(answer["timestamp"]), time)
    number = event_of(truth, answer, time)
    if number is None:
        return
    _amount(truth, judge, answer, price=actual, number=number)
    if time is None and answer["is_proven"]:
        _is_nearest(truth, price, actual, number=number, side=None)


def _is_nearest(truth: Truth, target: float, found: float, *, number: int, side: str | None) -> None:
    """Raise Wrong if another level is nearer, or as near and lower."""

    def distance(price: float) -> tuple[int, float]:
        return abs(round(price * UNIT) - round(target * UNIT)), price

    reach = abs(found - target) * (1 + 1e-9)
    for price in truth.between(target - reach, target + reach):
        units = truth.quantity(price, number)
        if units and side in (None, side_of(units)) and distance(price) < distance(found):
            raise Wrong(f"the level at {price} is nearer than the one at {found}")


def nearest(truth: Truth, answer: Answer, *, price: float, time: int | None, side: str | None) -> None:
    """Judge NearestLevel, of an instant or of now."""
    same("the price asked about", answer["target_price"], price)
    if time is not None:
        same("the instant", ms(answer["timestamp"]), time)
    number, found = event_of(truth, answer, time), answer["nearest_price"]
    same("the difference of prices", round(answer["price_difference"] * UNIT), round((found - price) * UNIT))
    if number is None:
        return
    units = truth.quantity(found, number)
    same("the quantity", answer["quantity"], abs(units) / UNIT)
    same("the side", answer["side"], side_of(units))
    if not units or side not in (None, answer["side"]):
        raise Wrong(f"no such level rests at {found}")
    if answer["is_proven"]:
        _is_nearest(truth, price, found, number=number, side=side)


def _levels(truth: Truth, said: Sequence[Answer], *, sign: int, number: int) -> list[float]:
    """Judge one side's levels, each by itself and their order; return their prices."""
    for level in said:
        units = truth.quantity(level["price"], number)
        same(f"what rests at {level['price']}", round(level["quantity"] * UNIT), sign * units)
    prices: list[float] = [level["price"] for level in said]
    same("the order of prices", prices, sorted(set(prices), reverse=sign > 0))
    return prices


def book(truth: Truth, answer: Answer, *, time: int | None, limit: int | None) -> None:
    """Judge GetOrderBook, of an instant or of now; all levels within the range that it says it knows must be there."""
    if time is not None:
        same("the instant", ms(answer["timestamp"]), time)
    number, known = event_of(truth, answer, time), answer.get("known_range") or {}
    if number is None:
        return
    bids = _levels(truth, answer["bids"], sign=1, number=number)
    asks = _levels(truth, answer["asks"], sign=-1, number=number)
    low, high = known.get("lowest") or 0.0, known.get("highest") or float("inf")
    if limit is not None and len(bids) >= limit:
        low = max(low, bids[-1])
    if limit is not None and len(asks) >= limit:
        high = min(high, asks[-1])
    listed = {*bids, *asks}
    for price in truth.between(low, high):
        if price not in listed and truth.quantity(price, number):
            raise Wrong(f"the level at {price} is missing in the book at {truth.final(number)}")
    if not bids or not asks or (limit is not None and max(len(bids), len(asks)) > limit):
        raise Wrong(f"a book of {len(bids)} bids and {len(asks)} asks")


# --- answers about many instants


def _stretches(truth: Truth, judge: SoakJudge, answer: Answer, *, start: int, end: int) -> list[tuple[int, int]]:
    """Judge the stretches and gaps of a list; return its stretches."""
    stretches = [(ms(each["start"]), ms(each["end"])) for each in answer["stretches"]]
    gaps = [(ms(gap["start"]), gap.get("end") and ms(gap["end"]), gap["cause"]) for gap in answer["gaps"]]
    for gap in gaps:
        judge.gap(truth, *gap)
    for (_, before), (after, _) in pairwise(stretches):
        # If events came while the answer was made, it has a stretch in two parts.
        if after > before + 1 and all(gap[:2] != (before, after) for gap in gaps):
            raise Wrong(f"nothing is said of what is between {before} and {after}")
    if stretches and (stretches[0][0] < start or stretches[-1][1] > end or stretches != sorted(stretches)):
        raise Wrong(f"{stretches} are not stretches of {start} to {end}")
    return stretches


def changes(truth: Truth, judge: SoakJudge, answer: Answer, *, price: float, start: int, end: int) -> None:
    """Judge ListLevelChanges, or a page of it: every change of every stretch, and no other."""
    times, ids = [ms(each) for each in answer["timestamps"]], [int(each) for each in answer["update_ids"]]
    said = [units_of(*each) for each in zip(answer["quantities"], answer["sides"], strict=True)]
    told = list(zip(times, ids, said, strict=True))
    stretches = _stretches(truth, judge, answer, start=start, end=end)
    for (first, last), stretch in zip(stretches, answer["stretches"], strict=True):
        at = truth.number_at(first)
        held = None
        if stretch.get("quantity") is not None:
            held = units_of(stretch["quantity"], stretch.get("side"))
            same(f"what rested at {first}", held, truth.quantity(price, at))
        here, told = [row for row in told if row[0] <= last], [row for row in told if row[0] > last]
        if here and here[0][0] == first:  # a change at the first instant is in the state there too
            same("the change at the start", here.pop(0)[1:], (truth.final(at), truth.quantity(price, at)))
        happened = [
            (truth.time(number), truth.final(number), units)
            for number, units in truth.changes(price, at, truth.number_at(last))
        ]
        if held is None:
            here, happened = _since_known(truth, price, here, happened)
        _same_rows(f"what happened from {first} to {last}", here, happened)
    same("what is told outside of all stretches", told, [])


_Rows = list[tuple[int, int, int]]


def _since_known(truth: Truth, price: float, said: _Rows, happened: _Rows) -> tuple[_Rows, _Rows]:
    """Leave out the first row of an unknown level, if it is right, and the events before it."""
    known_from = said[0][0] if said else None
    before = [row for row in happened if known_from is None or row[0] <= known_from]
    if any(units for time, _, units in before if time != known_from):
        raise Wrong(f"{price} is said to be unknown, and {before} happened")
    if said:
        same(f"what rested at {said[0][0]}", said[0][2], truth.quantity(price, truth.number_at(said[0][0])))
    return said[1:], happened[len(before) :]


def best(truth: Truth, judge: SoakJudge, answer: Answer, *, start: int, end: int) -> None:
    """Judge ListBestPrices, or a page of it."""
    names = ("bid_prices", "bid_quantities", "ask_prices", "ask_quantities")
    rows = zip(answer["timestamps"], answer["update_ids"], *(answer[name] for name in names), strict=True)
    said = [(ms(time), int(update_id), *map(float, values)) for time, update_id, *values in rows]
    right: list[tuple[float, ...]] = []
    for first, last in _stretches(truth, judge, answer, start=start, end=end):
        number = truth.number_at(first)
        right.append((first, truth.final(number), *_best_after(truth, number)))
        for after in range(number + 1, truth.number_at(last) + 1):
            row = _best_after(truth, after)
            if row != right[-1][2:]:
                right.append((truth.time(after), truth.final(after), *row))
    _same_rows("the best prices", said, right)


def _same_rows(what: str, said: Sequence[object], right: Sequence[object]) -> None:
    """Raise Wrong at the first row that is not the same."""
    for number, (row, expected) in enumerate(zip_longest(said, right)):
        same(f"{what}, row {number},", row, expected)


def _best_after(truth: Truth, number: int) -> tuple[float, ...]:
    (bid, *_), (ask, *_) = truth.top(number)
    return bid[0], bid[1] / UNIT, ask[0], -ask[1] / UNIT


def batch(truth: Truth, judge: SoakJudge, answer: Answer, pairs: Sequence[tuple[float, int]]) -> list[str]:
    """Judge BatchGetQuantity; return the outcomes, after each pair was looked at by itself."""
    columns = ("outcomes", "quantities", "sides", "differences", "previous_sides", "as_of", "update_ids")
    outcomes = []
    complete_to = answer.get("complete_to")
    for (price, time), *values in zip(pairs, *(answer[name] for name in columns), strict=True):
        outcome, amount, side, difference, previous_side, as_of, update_id = values
        outcome = OUTCOMES.get(outcome, outcome)
        outcomes.append("ANSWERED" if outcome == 1 else outcome)
        if outcomes[-1] != "ANSWERED":
            _unanswered(truth, judge, outcome, price=price, time=time)
            continue
        is_known = not isnan(float(difference))
        one = {
            "timestamp": time / 1000, "quantity": float(amount), "side": _SIDES[side], "as_of": as_of,
            "update_id": update_id, "complete_to": complete_to, "difference": float(difference) if is_known else None,
            "previous_side": _SIDES[previous_side],
        }  # fmt: skip
        number = event_of(truth, one, time)
        if number is None:
            continue
        if is_known:  # a batch does not say it
            earlier = min(truth.number_at(time - 1000), number)
            one["previous_quantity"] = abs(truth.quantity(price, earlier)) / UNIT
        _amount(truth, judge, one, price=price, number=number)
    return outcomes


def _unanswered(truth: Truth, judge: SoakJudge, outcome: str, *, price: float, time: int) -> None:
    """Judge why a pair was not answered."""
    standing = judge.standing[truth.symbol]
    if outcome == "LEVEL_UNKNOWN" and judge.may_be_unknown(truth, price, time):
        return
    if outcome == "BEFORE_HISTORY" and time < standing.oldest:
        return
    if outcome == "IN_THE_FUTURE" and judge.is_recovering(truth, time):
        return
    if outcome == "HISTORY_GAP":
        judge.missing(truth, time)
        return
    raise Wrong(f"{price} at {time}: {outcome}")


def status(truth: Truth, judge: SoakJudge, answer: Answer, *, now: int) -> None:
    """Judge GetStatus: its fields about the book, if it has one, and the counters that must stay 0."""
    if not answer["is_connected"]:
        if not judge.is_recovering(truth, now):
            raise Wrong("nothing was lost lately, and there is no book")
        return
    same("history_error", answer.get("history_error"), None)
    same("mismatches of audits", answer["audits"]["mismatches_count"], 0)
    number = truth.number_of(int(answer["last_update_id"]))
    if number is None:
        return
    same("as_of", ms(answer["as_of"]), truth.time(number))
    (bid, *_), (ask, *_) = truth.top(number)
    for name, (price, units) in (("best_bid", bid), ("best_ask", ask)):
        same(name, (answer[name]["price"], answer[name]["quantity"]), (price, abs(units) / UNIT))
