"""Log of a contract's state, tick and step size as the exchange listed them, in one small file a symbol.

contract.json   [[time in ms, trading status, tick size, step size], ...]   in order of time, the sizes as text

Every change, which is rare, writes the whole file anew. After a failed write the changes stay in memory and are written
with the next one.
"""

import contextlib
from functools import partial
from operator import index

import orjson

from chronobook_server.domain.records import Contract, ContractChanged
from chronobook_server.domain.values import Millis
from chronobook_server.storage.files import TEMPORARY, Files

NAME = "contract.json"
# Real contracts change some times a year. The file is written anew with each change.
MOST_CHANGES = 1000


class ContractLog:
    """The recorded changes. An unreadable file counts as empty, because it holds nothing about any book."""

    def __init__(self, files: Files) -> None:
        """Read the file, and remove unfinished ones. Raises OSError."""
        self.changes: list[ContractChanged] = []
        self._files = files
        names = files.names()
        for name in names:
            if name.startswith(NAME) and name.endswith(TEMPORARY):
                with contextlib.suppress(OSError):
                    files.remove(name)
        if NAME in names:
            # The file has no checksum. orjson refuses infinity, half a surrogate and deep nesting. `index` refuses a
            # time that orjson cannot write.
            with contextlib.suppress(OSError, ValueError, TypeError):
                self.changes = [
                    ContractChanged(Millis(index(time)), Contract(str(status), str(tick), str(step)))
                    for time, status, tick, step in orjson.loads(files.read(NAME))
                ]

    def append(self, change: ContractChanged, oldest: Millis) -> None:
        """Keep a change. Of the changes before `oldest` only the last stays, in force then; MOST_CHANGES in all."""
        self.changes.append(change)
        while len(self.changes) > 1 and (self.changes[1].time <= oldest or len(self.changes) > MOST_CHANGES):
            del self.changes[0]
        rows = [
            (each.time, each.contract.trading_status, each.contract.tick_size, each.contract.step_size)
            for each in self.changes
        ]
        self._files.disk.do_later(partial(_write, self._files, orjson.dumps(rows)))


def _write(files: Files, data: bytes) -> None:
    with contextlib.suppress(OSError):
        files.write(NAME, data)
