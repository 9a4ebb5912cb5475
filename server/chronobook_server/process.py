"""What a process asks of its kernel."""

import ctypes
import os
import resource
import signal
import sys

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


def end_with_parent(number: signal.Signals) -> None:
    """Ask the kernel for this signal when the thread that started this process ends, where it knows such a thing."""
    if sys.platform == "linux":
        _libc.prctl(_PR_SET_PDEATHSIG, number)


def let_wakers_finish() -> None:
    """Ask the kernel not to interrupt a thread for another one that it has just woken.

    A call wakes threads of gRPC's several times; each would take the processor from the event loop, and give it back
    with cold caches. What is woken still gets its share, and at once where a processor is idle. For this thread, and
    for all that it starts from now on.
    """
    if sys.platform == "linux":
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def use_all_descriptors() -> None:
    """Allow this process as many open files as it may allow itself: every symbol has a log, every caller a socket."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
