"""Mutation check of the core: handmade faults, each of which the suite must catch.

`make mutants` runs them all and exits with 1 if one survives. Each fault replaces one text of one file; the tests run
on a copy of the server with that fault.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "chronobook_server"
TESTS = ("tests/unit/domain", "tests/unit/book",
         "tests/unit/venue/binance_futures/test_rate_limit.py", "tests/unit/symbols/test_pipeline.py",
         "tests/unit/symbols/test_pipeline_doubts.py",
         "tests/unit/history/query/test_brute_force.py", "tests/unit/history/query/test_history.py",
         "tests/unit/history/query/test_history_finality.py", "tests/unit/history/write/test_growth.py")  # fmt: skip
SEEDS = ("0", "150")
SECONDS = 300


class Mutant(NamedTuple):
    """A fault: `new` replaces `old`, which occurs exactly once in the file."""

    name: str
    file: str
    old: str
    new: str


MUTANTS = (
    Mutant(
        "the `pu` check is skipped",
        "book/sync/transitions.py",
        "return Input.CONTIGUOUS if is_overlap else Input.GAP",
        "return Input.CONTIGUOUS",
    ),
    Mutant(
        "the first event after a snapshot need not hold or continue it",
        "book/sync/transitions.py",
        "return Input.GAP  # also if its first id lies before the snapshot",
        "pass",
    ),
    Mutant(
        "`<` for `<=`: a repetition of the last event counts as new",
        "book/sync/transitions.py",
        "if update.final_update_id <= final_update_id:",
        "if update.final_update_id < final_update_id:",
    ),
    Mutant(
        "`<=` for `<`: the event that ends at the snapshot's id is dropped",
        "book/sync/transitions.py",
        "if update.final_update_id < last_update_id:",
        "if update.final_update_id <= last_update_id:",
    ),
    Mutant(
        "`<` for `<=`: an event that continues the snapshot leaves a hole",
        "book/sync/transitions.py",
        "if update.previous_final_update_id > last_update_id:",
        "if update.previous_final_update_id >= last_update_id:",
    ),
    Mutant(
        "a hole is applied over",
        "book/sync/transitions.py",
        "(State.IN_SYNC, Input.GAP): (Action.LOSE_CHAIN, State.BUFFERING)",
        "(State.IN_SYNC, Input.GAP): (Action.APPLY, State.IN_SYNC)",
    ),
    Mutant(
        "a stream that comes back is believed, hole or not",
        "book/sync/transitions.py",
        "(State.RESUMING, Input.GAP): (Action.LOSE_DOUBTED, State.BUFFERING)",
        "(State.RESUMING, Input.GAP): (Action.RESUME, State.IN_SYNC)",
    ),
    Mutant(
        "a lost stream leaves the book in sync",
        "book/sync/transitions.py",
        "(State.IN_SYNC, Input.CLOSED): (Action.SUSPEND, State.SUSPENDED)",
        "(State.IN_SYNC, Input.CLOSED): (Action.NOTHING, State.IN_SYNC)",
    ),
    Mutant(
        "the buffer is dropped",
        "book/sync/actions.py",
        "        return events\n",
        "        return ()\n",
    ),
    Mutant("events are not kept", "book/sync/buffered_events.py", "self._events.append(update)", "pass"),
    Mutant(
        "a lagging replica is believed",
        "book/sync/candidate.py",
        "if own.time < belief.time and not is_same:",
        "if False:",
    ),
    Mutant(
        "an event that was never seen is a repetition",
        "book/sync/chain.py",
        "if update in self.seen_events or self._is_from_before(update):",
        "if True:",
    ),
    Mutant(
        "every time is believed",
        "book/sync/time_belief.py",
        "return Verdict.BELIEVED if is_believed else",
        "return Verdict.BELIEVED if True else",
    ),
    Mutant(
        "a time that goes back is believed",
        "book/sync/time_belief.py",
        "        if event.time < last.time - SLACK_MS:\n",
        "        if False:\n",
    ),
    Mutant(
        "a time in doubt is believed with the next event",
        "book/sync/time_belief.py",
        "if event.time >= newest.time - SLACK_MS:",
        "if True:",
    ),
    Mutant(
        "two events alone are witnesses of a long jump",
        "book/sync/time_belief.py",
        "return Verdict.DOUBTED if wants_snapshot else Verdict.BELIEVED",
        "return Verdict.BELIEVED",
    ),
    Mutant(
        "a snapshot confirms an event before a second jump",
        "book/sync/chain.py",
        "if is_witness and not is_overtaken and not self._jumps_again(held):",
        "if is_witness and not is_overtaken:",
    ),
    Mutant(
        "a message confirms a time that our clock overtook",
        "book/sync/time_belief.py",
        "if has_lost_lead and any(",
        "if False and any(",
    ),
    Mutant(
        "a wild event of an earlier count outweighs two snapshots",
        "book/sync/candidate.py",
        "if is_silent and left < after - left:",
        "if False:",
    ),
    Mutant(
        "a snapshot whose time jumps is believed alone",
        "book/sync/candidate.py",
        "if belief.last is None or follows(belief.last, own) or has_second:",
        "if True:",
    ),
    Mutant(
        "an event that cannot be read leaves the book in sync",
        "book/sync/transitions.py",
        "(State.IN_SYNC, Input.UNREADABLE): (Action.DOUBT, State.RESUMING)",
        "(State.IN_SYNC, Input.UNREADABLE): (Action.NOTHING, State.IN_SYNC)",
    ),
    Mutant(
        "time runs backwards",
        "book/sync/epochs.py",
        "time = max(update.transaction_time, self.newest)",
        "time = update.transaction_time",
    ),
    Mutant(
        "time runs back at a snapshot",
        "book/sync/actions.py",
        "transaction_time=max(snapshot.transaction_time, self._chain.time),",
        "transaction_time=snapshot.transaction_time,",
    ),
    Mutant(
        "a snapshot ahead of the suspended book confirms it",
        "book/sync/chain.py",
        "return Input.SNAPSHOT_AHEAD",
        "return Input.SNAPSHOT_SAME",
    ),
    Mutant(
        "a snapshot is compared before the book has come as far",
        "book/sync/actions.py",
        "if held is None or held.last_update_id > book.update_id:",
        "if held is None:",
    ),
    Mutant("removals are forgotten", "book/python_book.py", "                    del levels[price]\n", ""),
    Mutant(
        "a removal takes the other side's level too", "book/python_book.py", "if (current > 0) == is_bid:", "if True:"
    ),
    Mutant(
        "`0` of the other side counts as news of an unseen level",
        "book/python_book.py",
        "if price <= highest if is_bid else price >= lowest:",
        "if True:",
    ),
    Mutant(
        "an unknown price counts as empty",
        "book/order_book.py",
        "return SignedQuantity(0) if price in self.known_range or self.is_observed(price) else None",
        "return SignedQuantity(0)",
    ),
    Mutant("a crossed book is kept", "book/order_book.py", "    if bid > ask:", "    if False:"),
    Mutant(
        "a finer scale leaves the known range as it was",
        "book/order_book.py",
        "self.known_range = steps.known_range(self.known_range).bounded()",
        "pass",
    ),
    Mutant(
        "a snapshot counts as known to the end of the bids",
        "book/sync/audit.py",
        "return KnownRange(min(levels), max(levels)) if levels else NOTHING_KNOWN",
        "return KnownRange(0, max(levels)) if levels else NOTHING_KNOWN",
    ),
    Mutant(
        "an audit compares prices that changed since the snapshot",
        "book/sync/audit.py",
        "            if final <= update_id:\n",
        "            if True:\n",
    ),
    Mutant(
        "an audit finds nothing",
        "book/sync/audit.py",
        "return not (self.missing or self.extra or self.wrong)",
        "return True",
    ),
    Mutant(
        "a later snapshot overwrites levels of events",
        "book/sync/audit.py",
        "for price, quantity in levels.items() if book.quantity(Price(price)) is None}",
        "for price, quantity in levels.items()}",
    ),
    Mutant(
        "prices between two known ranges count as known",
        "book/sync/audit.py",
        "if window.lowest <= own.highest + 1 and own.lowest <= window.highest + 1:",
        "if True:",
    ),
    Mutant(
        "a hole is given up although another stream may fill it",
        "book/sync/stream_merge.py",
        "all(new > self.passed for new in self._newest.values())",
        "True",
    ),
    Mutant(
        "a repetition goes through the stream merger",
        "book/sync/stream_merge.py",
        "                return []\n            return self._pass",
        "                pass\n            return self._pass",
    ),
    Mutant(
        "an event is final while another one may share its `T`",
        "history/query/history.py",
        "return None if last_time is None else Millis(last_time - 1)",
        "return last_time",
    ),
    Mutant(
        "in a coarser segment, an unknown price between two steps counts as empty",
        "history/query/finer_segment.py",
        "SignedQuantity(0) if price in known_range else None",
        "SignedQuantity(0)",
    ),
    Mutant(
        "a page keeps the coarser steps of its first rows",
        "history/query/pages.py",
        "self.rows = [in_finer(rows, steps) for rows in self.rows]",
        "pass",
    ),
    Mutant(
        "two segments divide an instant where the scale grows",
        "history/write/writer.py",
        "elif opening is None and growing is not None and update.transaction_time == growing.head.last_time:",
        "elif False:",
    ),
    Mutant(
        "a growing segment shares its columns with its copy in finer steps",
        "history/segment/head_events.py",
        "setattr(made, name, column[:])",
        "setattr(made, name, column)",
    ),
    Mutant(
        "a gap begins after the `T` of the last event",
        "history/segment/head.py",
        "max(self.start, self.last_time) if end is None",
        "Millis(self.last_time + 1) if end is None",
    ),
    Mutant(
        "an event of a new epoch keeps a `T` before its start",
        "book/sync/epochs.py",
        "return EpochBegan(start, self.unconfirmed, self._gap), max(time, start)",
        "return EpochBegan(start, self.unconfirmed, self._gap), time",
    ),
    Mutant(
        "an epoch begins on an instant that was final already",
        "domain/records.py",
        "Millis(max(start, complete_to + 1))",
        "Millis(max(start, complete_to))",
    ),
    Mutant(
        "a `Retry-After` is not obeyed",
        "venue/binance_futures/rate_limit.py",
        "wait = max(self._held_until - now, 0.0)",
        "wait = 0.0",
    ),
)


# A suite that fails without a fault would seem to catch every fault.
NOTHING = Mutant("nothing is wrong", "", "", "")


def run(mutant: Mutant) -> tuple[Mutant, str | None, float]:
    """Run the suite with a fault; return the test that caught it (None: it survives), and the seconds."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        shutil.copytree(ROOT / "server" / PACKAGE, copy / PACKAGE, ignore=shutil.ignore_patterns("__pycache__"))
        if mutant is not NOTHING:
            path = copy / PACKAGE / mutant.file
            text = path.read_text()
            if text.count(mutant.old) != 1:
                raise SystemExit(f"{mutant.name}: the text is {text.count(mutant.old)} times in {mutant.file}")
            path.write_text(text.replace(mutant.old, mutant.new))
        environment = os.environ | {"PYTHONPATH": f"{copy}:{ROOT}", "CI": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        environment["CHRONOBOOK_PURE_PYTHON"] = "1"  # the faults are in Python
        for name, command in (
            ("tests", ("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *TESTS)),
            ("simulation", ("-m", "tests.simulation.run", "--seeds", *SEEDS)),
        ):
            try:
                done = subprocess.run(
                    [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True,
                    timeout=SECONDS, check=False,
                )  # fmt: skip
            except subprocess.TimeoutExpired:
                return mutant, f"{name}: no end within {SECONDS} s", time.monotonic() - started
            if done.returncode:
                return mutant, f"{name}: {_first_failure(done.stdout)}", time.monotonic() - started
    return mutant, None, time.monotonic() - started


def _first_failure(output: str) -> str:
    lines = output.splitlines()
    found = next((line for line in lines if line.startswith(("FAILED", "ERROR", "seed"))), lines[-1] if lines else "")
    return found[:150]


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*", help="only those whose name holds one of these")
    words = parser.parse_args().words
    chosen = [mutant for mutant in MUTANTS if not words or any(word in mutant.name for word in words)]
    _, caught_by, _ = run(NOTHING)
    if caught_by is not None:
        print(f"without a fault the suite fails already: {caught_by}")
        return 1
    survivors = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for mutant, caught_by, seconds in pool.map(run, chosen):
            survivors += caught_by is None
            print(
                f"{'SURVIVES' if caught_by is None else 'caught':9} {mutant.name} ({seconds:.0f} s) {caught_by or ''}",
                flush=True,
            )
    print(f"{len(chosen) - survivors} of {len(chosen)} faults are caught")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
