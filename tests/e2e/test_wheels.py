"""Both wheels in an environment of their own: everything that runs comes out of them, Envoy and its files too."""

import asyncio
import signal
from pathlib import Path

import pytest

from tests.support.waiting import PATIENCE
from tests.support.wheels import CLIENT, SERVER, clean, installed


@pytest.mark.timeout(400)
async def test_the_wheels_run_the_whole_demo(tmp_path: Path) -> None:
    programs = await asyncio.to_thread(installed, tmp_path, CLIENT, SERVER)
    process = await asyncio.create_subprocess_exec(
        str(programs / "chronobook-server"), "demo", cwd=tmp_path, env=clean(),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdout is not None
    said = ""
    async with asyncio.timeout(PATIENCE):
        while '"state":"IN_SYNC"' not in said:
            line = await process.stdout.readline()
            assert line, said
            said += line.decode()
    process.send_signal(signal.SIGINT)
    await process.communicate()
    assert process.returncode == 0
