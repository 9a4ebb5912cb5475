"""What the exchange said of a contract over time: its state, its tick and its step size, in one small file a symbol.

contract.json   [[time in ms, trading status, tick size, step size], ...]   in order of time, the sizes as text

It is written anew, as a whole, whenever something changes, which is rarely. What cannot be written is kept in memory
and written with the next change.
"""

import contextlib
from operator import index

import orjson

from chronobook_server.core.records import Contract, ContractChanged
from chronobook_server.core.values import Millis

from .files import TEMPORARY, Files

NAME = "contract.json"
# Real contracts change some times a year. The file is written anew with each change.
MOST_CHANGES = 1000


class ContractLog:
    """The changes that are kept; a file that cannot be read counts as none: it says nothing about any book."""

    def __init__(self, files: Files) -> None:
        """Read what the folder holds, and clear away what was only begun. Raises OSError."""
        self.changes: list[ContractChanged] = []
        self._files = files
        for name in files.names():
            if name.startswith(NAME) and name.endswith(TEMPORARY):
                with contextlib.suppress(OSError):
                    files.remove(name)
        if NAME in files.names():
            # The file has no checksum. orjson refuses infinity, half a surrogate and deep nesting. `index` refuses a
            # time that orjson cannot write.
            with contextlib.suppress(OSError, ValueError, TypeError):
                self.changes = [
                    ContractChanged(Millis(index(time)), Contract(str(status), str(tick), str(step)))
                    for time, status, tick, step in orjson.loads(files.read(NAME))
                ]

    def append(self, change: ContractChanged, oldest: Millis) -> None:
        """Keep a change, and of those before `oldest` only the last one, which still held then; MOST_CHANGES in all."""
        self.changes.append(change)
        while len(self.changes) > 1 and (self.changes[1].time <= oldest or len(self.changes) > MOST_CHANGES):
            del self.changes[0]
        rows = [
            (each.time, each.contract.trading_status, each.contract.tick_size, each.contract.step_size)
            for each in self.changes
        ]
        with contextlib.suppress(OSError):
            self._files.write(NAME, orjson.dumps(rows))
