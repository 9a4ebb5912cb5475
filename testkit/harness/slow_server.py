"""The command `chronobook-server` where each frame takes a while: `slow_server.py SECONDS serve …`."""

import sys
import time

from chronobook_server.commands.main import main
from chronobook_server.domain.values import Nanos, UpdateId
from chronobook_server.symbols.pipeline import SymbolPipeline


def make_slow(seconds: float) -> None:
    """Make every event take so long; nothing else happens meanwhile."""
    take = SymbolPipeline.frame

    def frame(self: SymbolPipeline, frame: bytes | str, receive_time: Nanos, source: int = 0) -> UpdateId | None:
        time.sleep(seconds)
        return take(self, frame, receive_time, source)

    SymbolPipeline.frame = frame  # type: ignore[method-assign]


if __name__ == "__main__":
    make_slow(float(sys.argv[1]))
    main(sys.argv[2:])
