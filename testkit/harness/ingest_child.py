"""A server in the raw, to be killed: `python ingest_child.py FOLDER ROUND` writes a made-up stream as fast as it can.

It prints 0 before it opens the folder, and the number of each record once that has been taken in.
"""

import asyncio
import os
import sys
from pathlib import Path

import uvloop

from chronobook_server.runtime.seal_pool import SealPool
from chronobook_server.storage.files import DiskFiles
from testkit.generators.stored_histories import SEGMENT_MS, STREAM, round_of
from testkit.harness.epochs import RawHistory

# Records between two turns of the event loop.
_BREATH = 5
# By then some segments have ended; once they are sealed, the sealing process keeps up with the stream.
_FIRST_SEALS = 60
# Of more segments that wait to be sealed than any real server has (see unsealed.MAX_UNSEALED), history would stop.
_WAITING = 24


async def main(folder: Path, number: int) -> None:
    """Open the folder, and take in the round's records until the end; or until killed."""
    os.write(1, b"0\n")
    sealer = SealPool()
    sealing = asyncio.create_task(sealer.run())
    history = RawHistory(STREAM, DiskFiles(folder), sealer, retention_ms=10**12, segment_ms=SEGMENT_MS)
    sealed = asyncio.Event()
    history.tell(sealed.set, lambda _name, _reason: None)
    for place, record in enumerate(round_of(number), 1):
        while history.unsealed > _WAITING:
            sealed.clear()
            await sealed.wait()
        history.append(record)
        os.write(1, b"%d\n" % place)
        if place % _BREATH == 0:
            await asyncio.sleep(0)
        if place == _FIRST_SEALS:
            await sealer.drain()
    await sealing


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(Path(sys.argv[1]), int(sys.argv[2])))
