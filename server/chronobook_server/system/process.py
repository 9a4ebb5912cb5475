"""Calls of a process to its kernel: signals, priority and limits."""

import ctypes
import os
import resource
import signal
import sys

_PR_SET_PDEATHSIG = 1
# The sealing process may be slow, because its segments still answer from memory.
_NICENESS = 10
_libc = ctypes.CDLL(None)


def end_with_parent(number: signal.Signals) -> None:
    """Ask the kernel to send this signal when the thread that started this process ends (Linux only)."""
    if sys.platform == "linux":
        _libc.prctl(_PR_SET_PDEATHSIG, number)


def begin_worker(parent: int) -> None:
    """Make this a worker of another process: low priority, deaf to Ctrl+C, killed with its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent(signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # the parent ended before the call
    os.nice(_NICENESS)


def use_all_descriptors() -> int:
    """Raise the limit of open files to its hard limit, and return it: every symbol and every caller needs some."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most if most != resource.RLIM_INFINITY else sys.maxsize
