"""The command as a process that takes frames more slowly than they come."""

import asyncio
import sys
from pathlib import Path

from chronobook_server.simulator import Simulator
from testkit.harness import slow_server
from testkit.harness.command import Command, command, listening
from testkit.harness.waiting import PATIENCE

# Together they bring 600 events a second, which take three seconds.
SYMBOLS = tuple(f"S{number:02d}USDT" for number in range(48))
SLOW = (sys.executable, str(Path(slow_server.__file__)), "0.005")


async def said(running: Command, event: str) -> str:
    """Return the next line of the log with this event."""
    assert running.process.stderr is not None
    async with asyncio.timeout(PATIENCE):
        while f"event={event} " not in (line := (await running.process.stderr.readline()).decode()):
            assert line, f"it has ended without {event}"
    return line


async def test_a_server_that_is_too_slow_says_so_and_its_gaps_too(tmp_path: Path) -> None:
    simulator = Simulator(symbols=SYMBOLS, seed=1)
    await simulator.start()
    try:
        async with command(simulator, tmp_path / "data", program=SLOW) as running:
            await listening(running)
            assert "seconds=" in await said(running, "overloaded")
            line = await said(running, "history_gap")
    finally:
        await simulator.stop()
    assert "cause=OVERLOAD" in line
