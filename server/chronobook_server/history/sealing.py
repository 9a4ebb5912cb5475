"""The process that seals: reads jobs from its standard input, one JSON object a line, and answers each with a line.

Sealing takes a third of a second of pure computing. In a thread it would hold up the event loop for 20 ms at a time;
here it takes what the machine has to spare. It ends when its input does.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from chronobook_server.core.coverage import Cause
from chronobook_server.core.values import Millis
from chronobook_server.process import end_with_parent

from .files import DiskFiles
from .layout import DamagedFile
from .log import UnknownFormat
from .seal import SealJob, seal_log

# Sealing is never urgent: the segment's memory goes on answering.
_NICENESS = 10


def job_line(number: int, folder: Path, job: SealJob) -> bytes:
    """Return a job as a line."""
    fields = {
        "number": number,
        "folder": str(folder),
        "symbol": job.symbol,
        "log": job.log,
        "segment": job.segment,
        "end": job.end,
        "ended_by": None if job.ended_by is None else job.ended_by.value,
    }
    return json.dumps(fields).encode() + b"\n"


def answer_of(line: bytes) -> tuple[int, str | None]:
    """Return the number of the job that a line answers, and what went wrong or None."""
    fields = json.loads(line)
    return fields["number"], fields["error"]


def _do(fields: dict[str, Any]) -> str | None:
    """Do a job; return what went wrong."""
    ended_by = fields["ended_by"]
    job = SealJob(
        symbol=fields["symbol"],
        log=fields["log"],
        segment=fields["segment"],
        end=Millis(fields["end"]),
        ended_by=None if ended_by is None else Cause(ended_by),
    )
    try:
        seal_log(DiskFiles(Path(fields["folder"])), job)
    except OSError as error:
        return f"{job.segment}: {error.strerror or error}"
    except (DamagedFile, UnknownFormat) as error:
        return str(error)
    except Exception as error:
        # A fault of ours must not end the process, or the jobs behind this one would wait for ever.
        return f"{job.segment}: {type(error).__name__}: {error}"
    return None


def main() -> None:
    """Do jobs until there are no more."""
    end_with_parent(signal.SIGKILL)
    os.nice(_NICENESS)
    for line in sys.stdin.buffer:
        fields = json.loads(line)
        answer = json.dumps({"number": fields["number"], "error": _do(fields)})
        try:
            os.write(sys.stdout.fileno(), answer.encode() + b"\n")
        except BrokenPipeError:
            return  # nobody waits for it any more


if __name__ == "__main__":
    main()
