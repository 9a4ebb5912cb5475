"""False messages of the exchange: each kind of a wild event, snapshot, ticker or list of contracts."""

from random import Random
from typing import Any

MINUTE, DAY, YEAR = 60_000, 86_400_000, 31_536_000_000
# Ids are whole numbers below 2^53, or they cannot be read at all.
LARGEST_ID = 2**53 - 1

SNAPSHOT_TIMES = ("ahead_a_minute", "ahead_minutes", "ahead_day", "ahead_years", "microseconds", "of_1970",
                  "back_minutes")  # fmt: skip
WILD_TIMES = ("ahead_seconds", "ahead_minutes", "ahead_day", "ahead_years", "microseconds", "of_1970", "back_minutes")


def wild_time(kind: str, time: int, random: Random, speed: float = 1.0) -> int:
    """Return a time that is wrong in this way; the pauses between events, which could hide it, grow with the speed."""
    match kind:
        case "ahead_seconds":  # more than a burst holds an event back: a late one with a later time looks right
            return time + int(random.randint(8000, MINUTE - 1) * speed)
        case "ahead_minutes":
            return time + int(random.randint(3 * MINUTE, 59 * MINUTE) * speed)
        case "ahead_a_minute":  # of snapshots, which do not agree with an event by chance
            return time + int(random.randint(MINUTE + 1000, 2 * MINUTE) * speed)
        case "ahead_day":
            return time + random.randint(DAY, 3 * DAY)  # no two of them agree
        case "ahead_years":
            return time + random.randint(YEAR, 50 * YEAR)
        case "microseconds":
            return time * 1000
        case "of_1970":
            return random.randint(1, 10**6)
        case "back_minutes":
            return time - int(random.randint(3000, 59 * MINUTE) * speed)
        case _:
            raise ValueError(kind)


def with_time(message: dict[str, Any], time: int, random: Random) -> dict[str, Any]:
    """Return an event or a snapshot with another `T`, and mostly an `E` that agrees."""
    return {**message, "T": time, "E": time + 2 if random.random() < 0.7 else message["E"]}


def far_id(update_id: int, random: Random) -> int:
    """Return an update id that is far too large."""
    ahead = random.choice((10_000, 10**6, 10**9, LARGEST_ID - update_id - 1))
    return update_id + random.randint(ahead // 2 + 5000, ahead)


def unreadable(data: dict[str, Any], random: Random) -> dict[str, Any]:
    """Return an event that cannot be read."""
    data = dict(data)
    match random.randrange(7):
        case 0:
            del data["u"]
        case 1:
            data["T"] = "now"
        case 2:
            data["b"] = [["1.x", "1"]]
        case 3:
            data["U"] = data["u"] + 1
        case 4:
            data["a"] = [[100.5, 2]]
        case 5:
            data["b"] = None
        case _:
            data["pu"] = -1
    return data


def odd_levels(data: dict[str, Any], random: Random) -> dict[str, Any]:
    """Return an event with a level that is no pair of texts, though it has two parts."""
    level: Any = random.choice(({"1000": "1", "2000": "2"}, "12", ["100.5", "1", "x"], {"100.5": 1, "1.0": 2}))
    return {**data, random.choice("ab"): [level, *data["a"]]}


def odd_entries(kind: str, entries: list[dict[str, Any]], random: Random) -> list[Any]:
    """Return a list of contracts that is odd in this way."""
    entries = [dict(entry) for entry in entries]
    if not entries:
        return entries
    chosen = random.choice(entries)
    match kind:
        case "list_odd_entry":
            odd: Any = random.choice(
                (
                    17, None, "AAAUSDT", [], {}, {"symbol": "ODDUSDT"}, {"symbol": 5, "status": "TRADING"},
                    {"status": "TRADING", "filters": []}, {"symbol": None, "status": "TRADING", "filters": None},
                )
            )  # fmt: skip
            return [odd, *entries, odd]
        case "list_odd_own_entry":
            field = random.choice(("status", "filters"))
            if random.random() < 0.5:
                del chosen[field]
            else:
                chosen[field] = random.choice((None, 7, [None], {}))
        case "list_empty":
            return []
        case "list_missing":
            entries.remove(chosen)
        case "list_unknown_word":
            chosen["status"] = random.choice(("SETTLING_SOON", "", "HALTED?", "tr\x00ading"))
        case "list_case":
            field = random.choice(("status", "symbol"))
            chosen[field] = random.choice((str.lower, str.title))(chosen[field])
        case "list_odd_name":
            names = ("lost+found", ".snapshot", "..", "A/B", "NUL\x00USDT", "\x1b[31mUSDT", "", " ", "X" * 300)
            return [*entries, {**chosen, "symbol": random.choice(names)}]
        case _:
            raise ValueError(kind)
    return entries
