"""Limits are a process's own, so each test asks a process made for it."""

import subprocess
import sys

SHOW = """
import resource
from chronobook_server.system.process import use_all_descriptors

resource.setrlimit(resource.RLIMIT_NOFILE, (64, 200))
use_all_descriptors()
print(resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def test_all_open_files_that_are_allowed_are_used() -> None:
    done = subprocess.run([sys.executable, "-c", SHOW], capture_output=True, text=True, check=True)
    assert done.stdout == "(200, 200)\n"
