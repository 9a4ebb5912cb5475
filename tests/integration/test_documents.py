"""Every command block of the README and the documents, run in order against one demo."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import pytest

from testkit.harness.documents import COMMANDS, NOT_RUN, OTHERS, ROOT, UNTIL_CTRL_C, Block, Shell, blocks
from testkit.harness.waiting import PATIENCE
from testkit.harness.whole_system import free_port

BIN = Path(sys.executable).parent
CLIENT = ROOT / "clients" / "python" / "README.md"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")), CLIENT]
BLOCKS = [block for page in PAGES for block in blocks(page)]
# The ports in the documents beside those of the demo; each page gets free ones in their place.
OTHER_PORTS = ("8001", "8443", "9000", "9001", "50052", "50053")
HISTORY = 12  # seconds; the examples ask about ten seconds ago


@dataclass(frozen=True)
class Demo:
    """The addresses of a running demo."""

    rest: int
    grpc: int


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    process = subprocess.Popen(
        [BIN / "chronobook-server", "demo"], cwd=tmp_path_factory.mktemp("demo"), text=True, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if found := re.match(r"server: gRPC on .*:(\d+); Envoy: .*:(\d+)$", line):
                break
        else:
            raise AssertionError("the demo ended")
        running = Demo(grpc=int(found[1]), rest=int(found[2]))
        wait_for_history(running)
        yield running
    finally:
        process.terminate()
        process.communicate()
    assert process.returncode == 0


def wait_for_history(running: Demo) -> None:
    """Return once the demo has some seconds of history."""
    deadline = time.monotonic() + PATIENCE
    while True:
        assert time.monotonic() < deadline
        with urlopen(f"http://127.0.0.1:{running.rest}/status") as reply:
            if json.load(reply)["history_count"] >= HISTORY:
                return
        time.sleep(0.2)  # history grows with the clock


def environment(running: Demo) -> Mapping[str, str]:
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "CHRONOBOOK_SERVER": f"localhost:{running.grpc}", "TERM": "xterm"}


def runs(block: Block) -> bool:
    # tests/integration/client/test_examples.py runs the programs of the client's page against a fixture.
    return block.language in COMMANDS and block.reason is None and (block.path, block.language) != (CLIENT, "python")


@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(runs(block) for block in blocks(page))], ids=lambda page: page.stem
)
def test_every_command_of_a_page_runs_and_prints_its_fields(page: Path, demo: Demo, tmp_path: Path) -> None:
    ports = {"8000": demo.rest, "50051": demo.grpc} | {port: free_port() for port in OTHER_PORTS}
    with Shell(tmp_path, environment(demo), ports) as shell:
        for block in blocks(page):
            if runs(block):
                shell.run(block)
        shell.end()


def test_every_block_has_a_language_and_known_markers() -> None:
    for block in BLOCKS:
        assert block.language in (*COMMANDS, *OTHERS), block.place
        assert block.marker in ("", UNTIL_CTRL_C) or block.marker.startswith(NOT_RUN), block.place


def test_these_blocks_do_not_run() -> None:
    found = [(block.path.name, block.reason) for block in BLOCKS if block.reason is not None]
    assert found == [
        ("CONTRIBUTING.md", "installs, and runs the tests inside of a test"),
        ("CONTRIBUTING.md", "changes the hooks of the reader's checkout"),
        ("CONTRIBUTING.md", "part of a release"),
        ("README.md", "the tests start the demo themselves, and make test would start them again"),
        ("command.md", "books.example.com does not exist"),
        ("configuration.md", "connects to the live exchange"),
    ]
