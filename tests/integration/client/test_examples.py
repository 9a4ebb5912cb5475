"""The examples in docstrings and in the README, asked of a real server: they must be right, or at least run."""

import asyncio
import contextlib
import doctest
import io
import re
import ssl
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import chronobook
from chronobook import Client, _export, _render, async_client, client, columns, errors, local_book, results
from testkit.fakes.guarded_server import relay
from testkit.generators.depth_events import snapshot
from testkit.harness.asking import wanted_by
from testkit.harness.certificates import LOOPBACK, make_authority
from testkit.harness.served import HandFed, served

ROOT = Path(__file__).resolve().parents[3]
START = 1_703_123_000_000
LINES_SHOWN = 3
MODULES = (async_client, client, columns, errors, _export, local_book, _render, results)


class Example(HandFed):
    """A book of two levels a side, of which 2681.62 is an ask, then empty, then a bid."""

    def sync(self, *, time: int = START, limit: int = 2) -> None:
        self.market.opened()
        wanted = wanted_by(self.market)
        assert wanted is not None
        reply = snapshot(
            self.last,
            bids=[("2681.61", "12.50"), ("2681.60", "4.00")],
            asks=[("2681.62", "3.25"), ("2681.63", "7.00")],
            limit=limit,
            time=time,
        )
        self.market.snapshot(wanted.number, reply)
        self.change(time=time)


def example() -> Example:
    fed = Example()
    fed.sync()
    fed.change(time=START + 200_000, asks=[("2681.62", "0.00")])
    fed.change(time=START + 300_000, bids=[("2681.62", "5.25")])
    fed.change(time=START + 456_250, bids=[("2681.60", "3.50")])
    return fed


class Seen(Exception):
    """Ends an example without an end of its own, once it has printed enough."""


def run_doctests(module: ModuleType, address: str) -> tuple[int, int, str]:
    """Return the numbers of examples and failures of a module, and the text about the failures."""
    said = io.StringIO()
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    with Client(address, symbol="ETHUSDT") as asking, contextlib.redirect_stdout(said):
        for test in doctest.DocTestFinder().find(module, extraglobs={**vars(chronobook), "client": asking}):
            test.globs |= {"asyncio": asyncio, "contextlib": contextlib}
            for each in test.examples:
                each.source = each.source.replace("localhost:50051", address)
            runner.run(test)
    return runner.tries, runner.failures, said.getvalue()


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
async def test_the_examples_of_docstrings_are_right(
    module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with served(example()) as running:
        tried, failed, said = await asyncio.to_thread(run_doctests, module, running.address)
    assert failed == 0, said
    assert tried or module in (columns, results)


def blocks(path: Path) -> list[str]:
    """Return the blocks of Python in a file."""
    found = re.findall(r"^```python\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)
    assert found
    return found


def run_block(source: str, address: str, edge_address: str) -> list[str]:
    """Run a block as a program; return its output, or the first lines of one without an end."""
    printed: list[str] = []

    def show(*values: Any) -> None:
        printed.append(" ".join(map(str, values)))
        if "watch" in source and len(printed) == LINES_SHOWN:
            raise Seen

    source = source.replace("localhost:50051", address).replace("Client()", f'Client("{address}")')
    source = source.replace("books.example.com:443", edge_address)
    with contextlib.suppress(Seen):
        exec(compile(source, "README.md", "exec"), {"print": show, "__name__": "__main__"})
    return printed


BLOCKS = [
    pytest.param(source, id=f"{path.parent.name}-{number}")
    for path in (ROOT / "clients" / "python" / "README.md",)
    for number, source in enumerate(blocks(path))
]


def tls_context(folder: Path) -> ssl.SSLContext:
    """Return the TLS of an edge that wants a certificate; a folder gets the files that the example names."""
    authority = make_authority(folder)
    certificate, key = authority.issue("server", hosts=LOOPBACK)
    authority.issue("reader")
    (folder / "token").write_text("a.b.c")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority.ca)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["h2"])
    return context


async def change_again_and_again(fed: Example) -> None:
    """Change a level that streams are about, so that those which begin now have something to tell."""
    for number in range(1000):
        await asyncio.sleep(0.05)
        # These changes are later than the instants of the examples, and at another price than their questions about
        # now.
        fed.change(time=START + 457_000 + number, bids=[("2681.61", f"{number + 1}.00")])


@pytest.mark.parametrize("source", BLOCKS)
async def test_the_examples_of_the_page_run(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fed = example()
    async with served(fed) as running, relay(running.address, context=tls_context(tmp_path)) as edge_address:
        changing = asyncio.create_task(change_again_and_again(fed))
        printed = await asyncio.to_thread(run_block, source, running.address, edge_address)
        changing.cancel()
    assert printed
    promised = [line.removeprefix("# ") for line in source.splitlines() if line.startswith("# ")]
    assert not promised or printed == promised
