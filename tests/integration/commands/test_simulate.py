"""The command `simulate` as a process."""

import asyncio
import os

import aiohttp

from testkit.harness.command import COMMAND
from testkit.harness.waiting import PATIENCE


async def test_the_command_cuts_streams_silently_at_a_disconnect() -> None:
    process = await asyncio.create_subprocess_exec(
        str(COMMAND), "simulate", "--port", "0", "--symbols", "SMALLUSDT", "--disconnect", "1",
        env=dict(os.environ), stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE):
            line = (await process.stdout.readline()).decode()
            base = line.split("REST ")[1].split(",")[0]
            async with aiohttp.ClientSession() as http:
                for _ in range(3):
                    async with http.ws_connect(f"{base}/ws/smallusdt@depth") as socket:
                        kinds = [message.type async for message in socket]
                    assert kinds == [aiohttp.WSMsgType.TEXT] * len(kinds)
                    assert socket.close_code == aiohttp.WSCloseCode.ABNORMAL_CLOSURE
    finally:
        process.terminate()
        await process.wait()
