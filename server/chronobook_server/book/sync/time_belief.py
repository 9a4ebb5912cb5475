"""Belief in transaction times. Pure: a function of a symbol's own messages and their receive times.

One `T` alone proves nothing: it can be minutes or years off. It needs a witness, which is one of these:

- the `T` before it, if `T` has moved no farther than the local clock between the two messages, or no faster than
  recently, because a recorded day may be replayed at any speed;
- another message: a later event, or a snapshot. A symbol may be quiet for minutes, and a replay leaves such pauses out.
  So a jump is not refused but kept in doubt until later messages settle it.

A message that is no jump itself is no witness of an earlier one that was: our clock has only overtaken a wrong time.

An event between two long jumps has no witness. The messages after the second jump confirm each other, and the time
between the jumps can be any: a wrong time before a pause looks exactly like an event between two pauses.

`T` never goes back in history. An event up to SLACK_MS back is dated to the `T` before it; an event further back is
refused.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from enum import Enum, auto
from itertools import pairwise
from typing import NamedTuple

from chronobook_server.domain.depth import DepthSnapshot, DepthUpdate
from chronobook_server.domain.values import SLACK_MS, Millis, Nanos

# A longer jump than this needs a snapshot as its witness, because two events that come together may share one fault. A
# live stream leaves out no pauses, so each of its jumps needs a snapshot.
LONG_JUMP_MS = 60_000
# Longest quiet time of a live symbol before its first event.
_QUIET_MS = 86_400_000
# The speed of a replay is that of the last seconds, by the local clock. A slower stream than this is no replay.
_SAMPLES, _SAMPLE_NS, _LEAST_SPEED = 5, 500_000_000, 3.0
# A stream whose time goes no faster than this, by the local clock, is live.
_LIVE_SPEED = 1.25
# Longest delay of an event. The event after a late one is compared with the promptest of the last minutes.
_LATE_NS = 120 * 10**9
_PROMPT_NS = 150 * 10**9
_NS = 1_000_000
# Factor by which the speed of a replay may vary, because events do not come evenly.
_UNEVEN = 2.0


class Witness(NamedTuple):
    """A transaction time with the receive time of its message; `received` is None if it is unknown."""

    time: Millis
    received: Nanos | None


class Verdict(Enum):
    """Verdict on an event's time."""

    BELIEVED = auto()
    DOUBTED = auto()  # later messages decide
    REFUSED = auto()  # it is back in time
    REFUTES = auto()  # it shows that the events in doubt, or the snapshot, are wrong


def witness(message: DepthUpdate | DepthSnapshot) -> Witness:
    """Return the times of a message."""
    return Witness(message.transaction_time, message.receive_time)


def _elapsed_ms(one: Witness, other: Witness) -> int:
    """Return the ms of the local clock between two messages; 0 if they are unknown."""
    if one.received is None or other.received is None:
        return 0
    return max((other.received - one.received) // _NS, 0)


def _is_set_back(before: Witness, after: Witness) -> bool:
    """Return whether the local clock was set back by more than SLACK_MS between two messages."""
    if before.received is None or after.received is None:
        return False
    return after.received < before.received - SLACK_MS * _NS


def _lead(message: Witness) -> int:
    """Return the lead of a time over the local clock, in nanoseconds; a late delivery makes it smaller."""
    assert message.received is not None
    return message.time * _NS - message.received


def _is_prompter(earlier: Witness, last: Witness) -> bool:
    """Return whether a message may have been that much prompter than a later one; otherwise our clock was set ahead."""
    if earlier.received is None or last.received is None:
        return True
    return _lead(earlier) - _lead(last) <= _LATE_NS


def follows(before: Witness, after: Witness, speed: float = 1.0) -> bool:
    """Return whether a time is no jump, as seen from an earlier message; `speed` is that of a replay."""
    return -SLACK_MS <= after.time - before.time <= (_elapsed_ms(before, after) + SLACK_MS) * speed


def agree(one: Witness, other: Witness) -> bool:
    """Return whether two messages, in any order, are witnesses of each other's time."""
    elapsed = max(_elapsed_ms(one, other), _elapsed_ms(other, one))
    return abs(one.time - other.time) <= elapsed + SLACK_MS


def confirmed(own: Witness, earlier: Sequence[Witness]) -> bool:
    """Return whether earlier snapshots are witnesses of this one's time.

    One suffices at the speed of the local clock. In a replay it takes two, and this one continues at their speed.
    """
    if not earlier:
        return False
    last, first = earlier[-1], earlier[0]
    if agree(last, own):
        return True
    speed = (last.time - first.time) / max(_elapsed_ms(first, last), 1)
    return speed > 1 and 0 <= own.time - last.time <= (_elapsed_ms(last, own) + SLACK_MS) * speed * _UNEVEN


def _is_live_after_quiet(snapshot: Witness, event: Witness) -> bool:
    """Return whether an event came at its own time, by the local clock, and its snapshot is not much older."""
    assert event.received is not None
    is_of_now = abs(event.received // _NS - event.time) <= SLACK_MS
    return is_of_now and event.time - snapshot.time <= _QUIET_MS


def _is_overtaken_at(speed: float, known: list[Witness], doubted: list[Witness], later: Witness) -> bool:
    """Return whether a later message is no jump from the known ones at this speed, though an event in doubt is."""
    for event in doubted:
        if any(follows(each, event, speed) for each in known):
            continue
        if _is_set_back(event, later):
            return True  # the time that has passed is unknown
        # In a replay that left out a pause, both have the same lead over the local clock.
        has_lost_lead = later.time - event.time < (_elapsed_ms(event, later) - SLACK_MS) * speed
        if has_lost_lead and any(follows(each, later, speed) or _is_set_back(each, later) for each in known):
            return True
        known = [event]
    return False


class TimeBelief:
    """The newest believed time of a symbol; `last` is the stored history's, None without one."""

    def __init__(self, last: Witness | None) -> None:
        self.time = Millis(0) if last is None else last.time  # the newest one believed; 0 before the first
        self._received = None if last is None else last.received
        self._prompt: deque[Witness] = deque(maxlen=2)  # the promptest of this and the last _PROMPT_NS
        self._prompt_since = Nanos(0)
        self._speed = 1.0
        self._is_live = False  # whether the last seconds went at the speed of the local clock
        self._samples: deque[Witness] = deque(maxlen=_SAMPLES)
        self._sampled_at = Nanos(0)

    @property
    def last(self) -> Witness | None:
        """The newest believed time with its receive time; None before the first."""
        return Witness(self.time, self._received) if self.time else None

    def is_next(self, time: Millis) -> bool:
        """Return whether a time follows the newest one so closely that it needs no other check."""
        return 0 < self.time <= time <= self.time + SLACK_MS

    def believe(self, time: Millis, received: Nanos) -> None:
        """Record the time of an applied event."""
        self.time, self._received = time, received
        if 0 <= received - self._sampled_at < _SAMPLE_NS:
            return
        if received < self._sampled_at:  # the local clock was set back
            self._samples.clear()
        self._sampled_at = received
        self._sample(Witness(time, received), received)

    def _sample(self, sample: Witness, received: Nanos) -> None:
        """Update the promptest event and the speed of the stream."""
        if not self._prompt or not 0 <= received - self._prompt_since < _PROMPT_NS:
            self._prompt.append(sample)
            self._prompt_since = received
        elif _lead(sample) >= _lead(self._prompt[-1]):
            self._prompt[-1] = sample
        self._samples.append(sample)
        if len(self._samples) == _SAMPLES:
            # A left-out pause makes one of the speeds too high, and so does a paused replay.
            speeds = sorted(
                (after.time - before.time) / _elapsed_ms(before, after) for before, after in pairwise(self._samples)
            )
            speed = speeds[1]
            self._speed = speed if speed >= _LEAST_SPEED else 1.0
            self._is_live = speed <= _LIVE_SPEED

    def judge(self, event: Witness, keyframe: Witness | None) -> Verdict:
        """Judge the time of an event that would be applied; `keyframe` is its snapshot's while it is the first one."""
        stored = self.last
        last = stored or keyframe
        assert last is not None
        if keyframe is not None and event.time < keyframe.time - SLACK_MS:
            # Without a stored time either of the two may be wrong: the event is kept, and another one decides.
            return Verdict.REFUTES if stored is None or follows(stored, event) else Verdict.REFUSED
        if event.time < last.time - SLACK_MS:
            return Verdict.REFUSED
        if keyframe is None:
            is_believed = follows(last, event, self._speed) and self._fits_pause(last, event)
            return Verdict.BELIEVED if is_believed else Verdict.DOUBTED
        if agree(keyframe, event) or follows(keyframe, event, self._speed):
            return Verdict.BELIEVED
        # The symbol was quiet, or the time is wrong. A clock that was set ahead would make every earlier time fit.
        is_witnessed = _is_live_after_quiet(keyframe, event) if stored is None else self._is_in_step(event)
        return Verdict.BELIEVED if is_witnessed else Verdict.DOUBTED

    @staticmethod
    def _fits_pause(last: Witness, event: Witness) -> bool:
        """Return whether an event after a long pause is near the end of it, by our clock.

        A clock that was set ahead during the pause makes every time within the step fit.
        """
        moved = event.time - last.time
        return moved <= LONG_JUMP_MS or _elapsed_ms(last, event) - moved <= LONG_JUMP_MS

    def _is_in_step(self, event: Witness) -> bool:
        """Return whether an event's time has moved as far as the local clock since one of the believed messages."""
        return any(
            abs(event.time - each.time - _elapsed_ms(each, event)) <= SLACK_MS
            for each in (Witness(self.time, self._received), *self._prompt)
        )

    def _was_late(self, last: Witness, event: Witness) -> bool:
        """Return whether an event only seems to jump because the one before it was delivered late."""
        return any(follows(each, event) and _is_prompter(each, last) for each in self._prompt)

    def is_long_jump(self, before: Witness, after: Witness) -> bool:
        """Return whether a time lies so far after an earlier one that its message is no witness of that one."""
        return after.time - before.time > (_elapsed_ms(before, after) + LONG_JUMP_MS) * self._speed

    def is_overtaken(self, doubted: Iterable[Witness], later: Witness, keyframe: Witness | None) -> bool:
        """Return whether a message after events in doubt is no jump from one before, though one of them is."""
        last = self.last
        known = [each for each in (*self._prompt, keyframe) if each is not None]
        if last is not None:
            # From before our clock was set ahead, every time within the step would be no jump.
            known = [last, *(each for each in known if _is_prompter(each, last))]
        if last is None and keyframe is not None and _is_live_after_quiet(keyframe, later):
            assert keyframe.received is not None
            known.append(Witness(Millis(keyframe.received // _NS), keyframe.received))
        events = list(doubted)
        return any(_is_overtaken_at(speed, known, events, later) for speed in self._possible_speeds())

    def _possible_speeds(self) -> list[float]:
        """Return the speeds that the stream may have; too few samples leave more than one."""
        last = self.last
        if last is None or len(self._samples) == _SAMPLES:
            return [self._speed]
        # A late delivery explains a short move.
        moved = [each for each in self._samples if not follows(each, last)]
        return [self._speed, *((last.time - each.time) / max(_elapsed_ms(each, last), 1) for each in moved)]

    def settle(self, first: Witness, newest: Witness, event: Witness, keyframe: Witness | None) -> Verdict:
        """Judge the time of an event after events in doubt, of which the first and the newest are given.

        BELIEVED means that the events in doubt are believed; the event itself is then judged by them.
        """
        last = self.last or keyframe
        assert last is not None
        if event.time >= newest.time - SLACK_MS:
            # An event that jumps itself is no evidence for the one before it.
            is_long = self.is_long_jump(last, first) or self.is_long_jump(newest, event)
            wants_snapshot = (is_long or self._is_live) and not self._was_late(last, first)
            return Verdict.DOUBTED if wants_snapshot else Verdict.BELIEVED
        return Verdict.REFUTES if event.time >= last.time - SLACK_MS else Verdict.REFUSED
