"""Ingest beside popular libraries, on the same events in the same run: `python -m benchmarks.peers`.

The libraries have a separate environment, `.build/peers`, with the versions of `benchmarks/peers.txt`. Each handles the
events in a separate process; peers_child.py defines the measured work. Chronobook's part is the whole way from the
frame to readable history, with the log on disk; the libraries keep a book and no history. The figure is CPU time, the
least of some rounds. The exit code is 1 if chronobook is slower than the fastest library.
"""

import argparse
import gc
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import orjson

from benchmarks.ingest import Line, history_on_disk, parse, receive, synthetic_lines
from benchmarks.limits import Limits
from chronobook_server.domain.values import Nanos
from chronobook_server.symbols.pipeline import SymbolPipeline
from chronobook_server.venue.binance_futures.frames import decode_snapshot
from testkit.generators import captures
from testkit.harness.asking import wanted_by

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / ".build" / "peers"
PEERS = {
    "unicorn": "unicorn-binance-local-depth-cache",
    "cryptofeed": "cryptofeed with order_book",
    "checked": "cryptofeed with its cross_check",
}


def install() -> Path:
    """Return the Python of the libraries' environment, made if needed."""
    python = ENVIRONMENT / "bin" / "python"
    wanted = Path(__file__).with_name("peers.txt")
    mark = ENVIRONMENT / wanted.name
    if not mark.exists() or mark.read_text() != wanted.read_text():
        subprocess.run([sys.executable, "-m", "venv", "--clear", ENVIRONMENT], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(wanted)]
        subprocess.run(pip, check=True)
        mark.write_text(wanted.read_text())
    return python


def events() -> tuple[str, list[Line]]:
    """Return the source of the events, and a snapshot with the depth frames that continue it."""
    if not captures.ETHUSDT.exists():
        return "a synthetic market", synthetic_lines(6_000)
    lines = [line for line in captures.lines() if b"bookTicker" not in line[1]]
    snapshot = next(line for line in lines if line[1].startswith(b'{"lastUpdateId"'))
    held = orjson.loads(snapshot[1])["lastUpdateId"]
    return "the real capture", [snapshot, *(line for line in lines if _is_new(line[1], held))]


def _is_new(body: bytes, held: int) -> bool:
    data = orjson.loads(body).get("data", {})
    return bool(data.get("e") == "depthUpdate" and data["u"] >= held)


def chronobook(path: Path) -> dict[str, Any]:
    """Handle the events; return CPU seconds and the book at the end."""
    first, *frames = [line for line in path.read_bytes().split(b"\n") if line]
    with history_on_disk() as history:
        market = SymbolPipeline("ETHUSDT", history, monotonic=time.monotonic)
        market.opened()
        wanted = wanted_by(market)
        assert wanted is not None
        market.snapshot(wanted.number, decode_snapshot(first, limit=1000, receive_time=Nanos(1)))
        gc.collect()
        gc.freeze()  # as the server does
        start = time.process_time()
        for frame in frames:
            receive(market, frame, Nanos(time.time_ns()))
        seconds = time.process_time() - start
        view = market.queries.current_view()
        assert view is not None
        unit = 10**view.instrument.price_scale
        bids, asks = ((side[0] / unit).tolist() for side in (view.bids(), view.asks()))
        return {"seconds": seconds, "bids": sorted(bids), "asks": sorted(asks)}


def floor(lines: list[Line]) -> float:
    """Return the CPU seconds of parsing alone."""
    start = time.process_time()
    parse(lines)
    return time.process_time() - start


def main() -> int:
    """Measure and print; return 1 if a peer is faster."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--alone", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.alone is not None:
        print(json.dumps(chronobook(given.alone)))
        return 0
    rounds = given.rounds
    python = install()
    source, lines = events()
    count = len(lines) - 1
    found: dict[str, list[dict[str, Any]]] = {"chronobook": [], **{name: [] for name in PEERS}}
    floors = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "events"
        path.write_bytes(b"\n".join(body for _, body in lines) + b"\n")
        for _ in range(rounds):
            floors.append(floor(lines))
            for name in found:
                command = [str(python), str(Path(__file__).with_name("peers_child.py")), name, str(path)]
                if name not in PEERS:
                    command = [sys.executable, "-m", "benchmarks.peers", "--alone", str(path)]
                done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
                found[name].append(json.loads(done.stdout.splitlines()[-1]))
    ours = found["chronobook"][0]
    least = {name: min(one["seconds"] for one in each) for name, each in found.items()}
    print(f"{source}: {count:,} depth events; µs of CPU an event, the least of {rounds} rounds")
    print(f"{'orjson alone':<42}{min(floors) / count * 1e6:>8.1f}")
    for name, each in found.items():
        title = PEERS.get(name, "chronobook, with history and its log")
        wrong = len(set(each[0]["bids"]) ^ set(ours["bids"])) + len(set(each[0]["asks"]) ^ set(ours["asks"]))
        ratio = least[name] / least["chronobook"]
        print(f"{title:<42}{least[name] / count * 1e6:>8.1f}{ratio:>8.2f} ×   levels unlike ours at the end: {wrong:,}")
    fastest = min(least[name] for name in PEERS)
    print(f"at least as fast as the faster of them: {'yes' if least['chronobook'] <= fastest else 'NO'}")
    limits = Limits()
    limits.at_most("CPU of an event, as a multiple of the fastest peer's,", least["chronobook"] / fastest, 1.0)
    return limits.exit_code()


if __name__ == "__main__":
    sys.exit(main())
