"""What a process asks of its kernel."""

import ctypes
import os
import resource
import signal
import sys

_PR_SET_PDEATHSIG = 1
# What is sealed goes on answering from memory.
_NICENESS = 10
_libc = ctypes.CDLL(None)


def end_with_parent(number: signal.Signals) -> None:
    """Ask the kernel for this signal when the thread that started this process ends, where it knows such a thing."""
    if sys.platform == "linux":
        _libc.prctl(_PR_SET_PDEATHSIG, number)


def begin_worker(parent: int) -> None:
    """Make this a process that works for another one: never urgent, deaf to Ctrl+C, and gone when that one is."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent(signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # it was gone before the kernel could be asked
    os.nice(_NICENESS)


def use_all_descriptors() -> None:
    """Allow this process as many open files as it may allow itself: every symbol has a log, every caller a socket."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
