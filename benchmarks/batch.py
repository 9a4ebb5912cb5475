"""Cost of a pair of BatchGetQuantity for its user, over gRPC on loopback, with the Python client."""

import json
import pickle
import subprocess
import sys
import time
from pathlib import Path
from random import Random

from chronobook import Client
from testkit.oracles.plain_book import Sample

HOUR_MS = 3_600_000
PAIRS = 10_000
_CALLS = 12


def measure(folder: Path, samples: Path) -> dict[str, float]:
    """Return the microseconds of a pair, in calls of 10,000 pairs over the newest hour."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.serving", str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    port = json.loads(process.stdout.readline())["port"]
    try:
        with Client(f"127.0.0.1:{port}", timeout=60) as client:
            return {"microseconds": _calls(client, samples)}
    finally:
        process.communicate()


def _calls(client: Client, path: Path) -> float:
    samples: list[Sample] = pickle.loads(path.read_bytes())[0]
    newest = max(sample.time for sample in samples)
    recent = [sample for sample in samples if sample.time > newest - HOUR_MS]
    random, seconds = Random(2), []
    for _ in range(_CALLS):
        chosen = random.choices(recent, k=PAIRS)
        prices, times = [sample.price / 100 for sample in chosen], [sample.time / 1000 for sample in chosen]
        start = time.perf_counter()
        answer = client.quantities(prices, times, symbol="ETHUSDT")
        seconds.append(time.perf_counter() - start)
        expected = [abs(sample.quantity) / 1000 for sample in chosen]
        assert answer.quantities.tolist() == expected, "an answer is wrong"
    return sorted(seconds)[len(seconds) // 2] / PAIRS * 1e6
