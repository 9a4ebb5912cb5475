"""What a process asks of its kernel."""

import ctypes
import resource
import signal
import sys

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


def end_with_parent(number: signal.Signals) -> None:
    """Ask the kernel for this signal when the thread that started this process ends, where it knows such a thing."""
    if sys.platform == "linux":
        _libc.prctl(_PR_SET_PDEATHSIG, number)


def use_all_descriptors() -> None:
    """Allow this process as many open files as it may allow itself: every symbol has a log, every caller a socket."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
