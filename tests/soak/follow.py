"""Checks of streams against the exchange: every change comes once, in order, and only gaps leave changes out."""

from collections.abc import Sequence

from tests.soak.answer_checks import side_of, units_of
from tests.soak.soak_judge import Answer, SoakJudge, ms, same
from tests.soak.truth import UNIT, Truth, Wrong

_ENDS = {"SHUTDOWN", "INTERVAL_OVER", "SUBSCRIBER_TOO_SLOW"}


class Follower:
    """Takes the messages of one stream; each may raise Wrong. `at` is the event up to which all messages were
    delivered.

    `position` is the place at which a reader resumes after a lost connection: `T` and update id; None: it starts anew.
    """

    def __init__(self, truth: Truth, judge: SoakJudge) -> None:
        self.truth = truth
        self.at: int | None = None  # None before the first message, and after a gap
        self.position: tuple[float, int | None] | None = None
        self.counts = {"messages": 0, "changes": 0, "gaps": 0}
        self._judge = judge
        self._gap: int | None = None

    def take(self, message: Answer) -> None:
        """Take the next message."""
        kind = str(message["kind"])
        self.counts["messages"] += 1
        match kind:
            case "STATE" | "CHANGE":
                self._take_event(message, is_state=kind == "STATE")
                self.position = message["timestamp"], int(message["update_id"])
            case "HEARTBEAT":
                if self._gap is None:
                    self._nothing_until(self.truth.number_at(ms(message["timestamp"])))
                    self.position = message["timestamp"], int(message["update_id"])
            case "GAP":
                self._take_gap(message)
            case "RESYNCED":
                self._take_end_of_gap(message)
            case "UNKNOWN":
                self._take_unknown(message)
            case "END":
                if message.get("cause") not in _ENDS:
                    raise Wrong(f"a stream has ended: {message.get('cause')}")
            case _:
                raise Wrong(f"a message of the kind {kind}")

    def _take_gap(self, message: Answer) -> None:
        start, time = ms(message["gap_start"]), ms(message["timestamp"])
        same("the instant of the last event before the gap", time, start + 1)
        if self._gap is None:  # a reader that has lost its connection gets the same gap once more
            last = self.truth.number_at(time)
            if self.at is not None and last < self.at:
                raise Wrong(f"a gap begins at {start}, and more was told")
            self._nothing_until(last)
            self.counts["gaps"] += 1
        self._judge.gap(self.truth, start, None, message["cause"])
        self._gap, self.at = start, None

    def _take_end_of_gap(self, message: Answer) -> None:
        if self._gap is None:
            raise Wrong("the end of a gap is told, and not its beginning")
        self._judge.gap(self.truth, ms(message["gap_start"]), ms(message["gap_end"]), message["cause"])
        self._gap = None
        self.position = message["gap_end"], None

    def _take_unknown(self, message: Answer) -> None:
        raise Wrong("a book is said to be unknown")

    def _take_event(self, message: Answer, *, is_state: bool) -> None:
        if self._gap is not None:
            raise Wrong("a gap has no end, and something is told")
        if not is_state and self.at is None:
            raise Wrong("a change is told, and no state before it")
        update_id = int(message["update_id"])
        number = self.truth.number_of(update_id)
        if number is None:  # a snapshot that cuts an event into two: the whole event comes next
            if not is_state or not self._is_snapshot(update_id):
                raise Wrong(f"update id {update_id} lies inside an event")
            self._believe(message)
            self.at = self.truth.event_around(update_id) - 1
            return
        if not is_state:
            same("T", ms(message["timestamp"]), self.truth.time(number))
            if self.at is not None and number <= self.at:
                raise Wrong(f"event {update_id} is told again")
            self.counts["changes"] += 1
        self._nothing_until(number if is_state else number - 1)
        self._apply(message, number, is_state=is_state)
        self.at = number

    def _is_snapshot(self, update_id: int) -> bool:
        return any(each.update_id == update_id for each in self.truth.snapshots)

    def _nothing_until(self, number: int) -> None:
        """Judge that nothing happened after the last message up to an event."""
        raise NotImplementedError

    def _apply(self, message: Answer, number: int, *, is_state: bool) -> None:
        """Apply a message about an event, and judge it."""
        raise NotImplementedError

    def _believe(self, message: Answer) -> None:
        """Take a state that cannot be judged yet."""
        raise NotImplementedError

    def is_up_to_date(self) -> bool:
        """Return whether its reader knows everything, while the exchange rests."""
        raise NotImplementedError


class LevelFollower(Follower):
    """Follower of one level; `told` is the last delivered quantity, None before the first."""

    def __init__(self, truth: Truth, judge: SoakJudge, price: float) -> None:
        super().__init__(truth, judge)
        self.price = price
        self.told: int | None = None

    def _nothing_until(self, number: int) -> None:
        if self.at is None or number <= self.at:
            return
        for missed, units in self.truth.changes(self.price, self.at, number):
            # An unknown level may become empty without a message.
            if units != (self.told or 0):
                raise Wrong(
                    f"{self.price} was told to hold {self.told} at event {self.truth.final(self.at)}, and at"
                    f" {self.truth.final(missed)} ({self.truth.time(missed)}) it was {units}, which was not told"
                )
        self.at = number

    def _apply(self, message: Answer, number: int, *, is_state: bool) -> None:
        units = self.truth.quantity(self.price, number)
        same("the quantity", message["quantity"], abs(units) / UNIT)
        same("the side", message.get("side"), side_of(units))
        if not is_state:
            if units == self.told:
                raise Wrong("a change is told that is none")
            change = None if self.told is None else (abs(units) - abs(self.told)) / UNIT
            same("the change", message.get("change"), change)
        earlier = ms(message["timestamp"]) - 1000
        difference = message.get("difference")
        if difference is not None and earlier >= self.truth.time(self.truth.first):
            before = self.truth.quantity(self.price, self.truth.number_at(earlier))
            same("the difference", difference, (abs(units) - abs(before)) / UNIT)
        self.told = units

    def _believe(self, message: Answer) -> None:
        self.told = units_of(message["quantity"], message.get("side"))

    def _take_gap(self, message: Answer) -> None:
        super()._take_gap(message)
        self.told = None

    def _take_unknown(self, message: Answer) -> None:
        same("the cause", message.get("cause"), "OUTSIDE_KNOWN_RANGE")
        if all(each.lowest <= self.price <= each.highest for each in self.truth.snapshots):
            raise Wrong(f"{self.price} is said to be unknown, and every snapshot shows it")
        self._gap, self.told = None, None
        self.at = self.truth.number_at(ms(message["timestamp"]))

    def is_up_to_date(self) -> bool:
        return self.told is None or self.told == self.truth.quantity(self.price, self.truth.newest)


class BookFollower(Follower):
    """Follower of the book, or of its DEPTH best levels a side; `levels` is the reader's copy."""

    def __init__(self, truth: Truth, judge: SoakJudge, *, is_whole: bool) -> None:
        super().__init__(truth, judge)
        self.levels: dict[float, int] = {}
        self.is_whole = is_whole

    def _nothing_until(self, number: int) -> None:
        if self.at is None or number <= self.at:
            return
        for missed in range(self.at + 1, number + 1):
            self._is_right(missed)
        self.at = number

    def _is_right(self, number: int) -> None:
        """Judge the reader's book after an event, at the changed prices."""
        if not self.is_whole:
            right = {price: units for side in self.truth.top(number) for price, units in side}
            same(f"the top of the book at {self.truth.final(number)}", self.levels, right)
            return
        for price in self.truth.named(number):
            units = self.truth.quantity(price, number)
            same(f"what rests at {price} at {self.truth.final(number)}", self.levels.get(price, 0), units)

    def _apply(self, message: Answer, number: int, *, is_state: bool) -> None:
        named = self._named(message)
        if is_state:
            self.levels = {}
        for price, units in named.items():
            if units:
                self.levels[price] = units
            else:
                self.levels.pop(price, None)
            if self.is_whole:
                same(f"what rests at {price}", units, self.truth.quantity(price, number))
        if is_state and self.is_whole:
            known = message.get("known_range") or {}
            for price in self.truth.between(known.get("lowest") or 0.0, known.get("highest") or float("inf")):
                same(f"what rests at {price}", self.levels.get(price, 0), self.truth.quantity(price, number))
            if self._is_snapshot(self.truth.final(number)):
                return  # a snapshot does not cover prices of the event outside its range
        self._is_right(number)

    def _named(self, message: Answer) -> dict[float, int]:
        """Return the quantities in a message by price."""
        named: dict[float, int] = dict.fromkeys(message["removed_prices"], 0)
        sides: Sequence[tuple[str, int]] = (("bid", 1), ("ask", -1))
        for side, sign in sides:
            quantities = (sign * round(float(quantity) * UNIT) for quantity in message[f"{side}_quantities"])
            named.update(zip(message[f"{side}_prices"], quantities, strict=True))
        return named

    def _believe(self, message: Answer) -> None:
        self.levels = {price: units for price, units in self._named(message).items() if units}

    def is_up_to_date(self) -> bool:
        truth, newest = self.truth, self.truth.newest
        best = {price: units for side in truth.top(newest) for price, units in side}
        return best.items() <= self.levels.items()
