"""Child processes that do not outlive their parent."""

import ctypes
import signal
import sys

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


def end_with_parent(number: signal.Signals) -> None:
    """Ask the kernel for this signal when the thread that started this process ends, where it knows such a thing."""
    if sys.platform == "linux":
        _libc.prctl(_PR_SET_PDEATHSIG, number)
