"""Limits and policies are a process's own, so each test asks a process made for it."""

import subprocess
import sys

import pytest

SHOW = """
import resource
from chronobook_server.process import use_all_descriptors

resource.setrlimit(resource.RLIMIT_NOFILE, (64, 200))
use_all_descriptors()
print(resource.getrlimit(resource.RLIMIT_NOFILE))
"""


CALM = """
import os, threading
from chronobook_server.process import let_wakers_finish

let_wakers_finish()
found = []
thread = threading.Thread(target=lambda: found.append(os.sched_getscheduler(0)))
thread.start()
thread.join()
print([os.sched_getscheduler(0), *found] == [os.SCHED_BATCH] * 2)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has such policies")
def test_a_woken_thread_does_not_interrupt_the_one_that_woke_it() -> None:
    done = subprocess.run([sys.executable, "-c", CALM], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


def test_all_open_files_that_are_allowed_are_used() -> None:
    done = subprocess.run([sys.executable, "-c", SHOW], capture_output=True, text=True, check=True)
    assert done.stdout == "(200, 200)\n"
