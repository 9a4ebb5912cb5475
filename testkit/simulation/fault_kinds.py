"""The kinds of faults by name, which of them are drawn, and how often each strikes in one world."""

from collections.abc import Iterable
from random import Random

from testkit.simulation.wild_messages import WILD_TIMES

# With an event on one connection, with a connection, with a request, with the list of contracts.
FRAME_FAULTS = ("drop", "repeat", "malform", "junk", "odd_levels", "burst", "cut", "cut_all", "die", "mute")
CONNECT_FAULTS = ("refuse", "connect_timeout", "born_mute")
REQUEST_FAULTS = ("timeout", "error_503", "refuse_429", "ban_418", "slow", "garbage", "stale", "straddle",
                  "short", "snapshot_far_id", "snapshot_wild_time")  # fmt: skip
LIST_FAULTS = ("list_odd_entry", "list_odd_own_entry", "list_empty", "list_missing", "list_unknown_word", "list_case",
               "list_odd_name")  # fmt: skip
TICKER_FAULTS = ("ticker_far_id",)
# With an event of the exchange itself, for everybody.
TIME_FAULTS = tuple(f"event_{kind}" for kind in WILD_TIMES)
EVENT_FAULTS = (*TIME_FAULTS, "event_slightly_back", "event_far_id", "ids_anew", "ids_anew_reconnect", "crossed",
                "large", "too_large", "zeros")  # fmt: skip
# With the worker that seals, at each step of a seal.
SEAL_FAULTS = ("seal_dies_before", "seal_dies_half", "seal_dies_whole", "seal_dies_renamed")
# At some time.
TIMED_FAULTS = ("restart", "kill", "disk_full", "stall", "break", "finer", "tick", "unlist", "quiet", "leap", "lag",
                "overload", "clock_back", "clock_ahead", "log_flip", "cut_each")  # fmt: skip
# At some time too, but drawn from a copy of the random numbers: seeds of before stay the same days.
LATER_FAULTS = ("disk_hangs",)
# Of a whole world.
TRAITS = ("replay_date", "replay_speed", "short_always", "little_retention")
ALL_FAULTS = (*FRAME_FAULTS, *CONNECT_FAULTS, *REQUEST_FAULTS, *LIST_FAULTS, *TICKER_FAULTS, *EVENT_FAULTS,
              *SEAL_FAULTS, *TIMED_FAULTS, *LATER_FAULTS, *TRAITS, "cut_for_age")  # fmt: skip
# Checks of every world; without one of these it is left out.
CHECKS = ("age_of_progress", "only_a_later_time_is_final", "in_sync_after_30_seconds")
KINDS = (*ALL_FAULTS, *CHECKS)
# Faults that the server does not survive yet: drawn only on demand.
AWAITED: tuple[str, ...] = ()
DRAWN = frozenset(KINDS) - frozenset(AWAITED)

_TIMED = 0.1
# Of those that need a server of all symbols, a log that is not sealed yet, or two lists without a fault.
_RARE = {"unlist": 0.25, "log_flip": 0.2, "break": 0.2}
_TRAIT = 0.1


def _some(random: Random, kinds: Iterable[str], count: int, drawn: frozenset[str]) -> list[str]:
    """Choose some of the kinds that are drawn."""
    left = [kind for kind in kinds if kind in drawn]
    return random.sample(left, min(count, len(left)))


def network_rates(random: Random, drawn: frozenset[str]) -> dict[str, float]:
    """Return how often each kind strikes on the network of one server."""
    rates = {kind: random.choice((0.003, 0.01, 0.04)) for kind in _some(random, FRAME_FAULTS, 3, drawn)}
    rates |= {kind: random.choice((0.1, 0.4)) for kind in _some(random, CONNECT_FAULTS, 1, drawn)}
    rates |= {kind: random.choice((0.1, 0.4)) for kind in _some(random, REQUEST_FAULTS, 4, drawn)}
    rates |= dict.fromkeys(_some(random, LIST_FAULTS, 1, drawn), 0.3)
    return rates | dict.fromkeys(_some(random, TICKER_FAULTS, random.randrange(2), drawn), 0.05)


def event_rates(random: Random, drawn: frozenset[str]) -> dict[str, float]:
    """Return the rate of each kind of fault in the exchange's messages."""
    return {kind: random.choice((0.002, 0.006)) for kind in _some(random, EVENT_FAULTS, 3, drawn)}


def seal_rates(random: Random, drawn: frozenset[str]) -> dict[str, float]:
    """Return how often the worker that seals dies at a step."""
    return dict.fromkeys(_some(random, SEAL_FAULTS, random.randrange(2), drawn), 0.3)


def timed(random: Random, drawn: frozenset[str]) -> list[tuple[float, str]]:
    """Return the faults with their times."""
    later = Random()
    found = _timed(random, TIMED_FAULTS, drawn)
    later.setstate(random.getstate())
    return [*found, *_timed(later, LATER_FAULTS, drawn)]


def _timed(random: Random, kinds: Iterable[str], drawn: frozenset[str]) -> list[tuple[float, str]]:
    return [
        (random.uniform(4, 30), kind) for kind in kinds if random.random() < _RARE.get(kind, _TIMED) and kind in drawn
    ]


def traits(random: Random, drawn: frozenset[str]) -> frozenset[str]:
    """Return the unusual traits of a whole world."""
    return frozenset(kind for kind in TRAITS if random.random() < _TRAIT and kind in drawn)
