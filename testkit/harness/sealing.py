"""A sealer at work around a block, with its real process."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from chronobook_server.runtime.seal_pool import SealPool


@contextlib.asynccontextmanager
async def sealing() -> AsyncIterator[SealPool]:
    """Run a sealer around a block; its process is gone after it."""
    sealer = SealPool()
    running = asyncio.create_task(sealer.run())
    try:
        yield sealer
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
