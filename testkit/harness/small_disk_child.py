"""Writer of history under the kernel's limit on file sizes, then without; prints its observations as JSON."""

import json
import resource
import sys
from collections.abc import Mapping
from pathlib import Path

from chronobook_server.domain.records import Keyframe
from chronobook_server.domain.values import Millis
from chronobook_server.history.format.wal import read_log
from chronobook_server.storage.files import DiskFiles
from testkit.fakes.memory_files import MemoryFiles, PatientSealer, memory_history
from testkit.generators.stored_histories import ORIGIN, STREAM, SYMBOL, answers, round_of
from testkit.harness.epochs import RawHistory

# Bytes that a file may have. The round writes more.
_BOUND = 30_000
# Longer than the round, which is one segment.
_SEGMENT_MS = 10**9


def main(folder: Path) -> None:
    """Fill a file up to the limit, check the history, and continue without the limit."""
    files, sealer = DiskFiles(folder), PatientSealer()
    history = RawHistory(STREAM, files, sealer, retention_ms=10**12, segment_ms=_SEGMENT_MS)
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (_BOUND, hard))
    records = list(round_of(0))
    held = 0
    for record in records:
        history.append(record)
        if history.error is not None:
            break
        held += 1
    seen: dict[str, object] = {"sent": len(records), "held": held, "error": history.error}
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    (log,) = files.names()
    contents = read_log(log, ORIGIN, files.read(log))
    assert contents is not None
    seen |= {"good_bytes": contents.good_bytes, "log_bytes": files.size(log)}

    reference = memory_history(SYMBOL, retention_ms=10**12, segment_ms=_SEGMENT_MS, files=MemoryFiles())
    for record in records[:held]:
        reference.append(record)
    end = reference.complete_to
    assert end is not None
    times = range(1_000_000, end + 1, 97)
    expected = answers(reference, times)
    seen["asked"] = len(expected)
    seen["equal_before"] = _equal(answers(history, times), expected)

    # Later there is room, and an epoch begins that is in the log.
    for record in round_of(1):
        if isinstance(record, Keyframe):
            assert history.claim_restart(Millis(end + 5000))
        history.append(record)
    seen["error_later"] = history.error
    sealer.work()
    reopened = memory_history(SYMBOL, retention_ms=10**12, segment_ms=_SEGMENT_MS, files=files)
    seen["equal_reopened"] = _equal(answers(reopened, times), expected)
    seen["causes"] = [gap.cause.value for gap in history.gaps()]
    print(json.dumps(seen))


def _equal(found: Mapping[tuple[int, int], object], expected: Mapping[tuple[int, int], object]) -> int:
    return sum(found[question] == answer for question, answer in expected.items())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
