"""The processor of a simulated server: it takes frames one after the other, and each one takes some of its time."""

import asyncio


class SimProcessor:
    """A processor that is as fast as can be, until `frame_seconds` says how long a frame takes."""

    def __init__(self) -> None:
        self.frame_seconds = 0.0
        self._turn = asyncio.Lock()

    @property
    def is_slow(self) -> bool:
        """Whether frames take time."""
        return self.frame_seconds > 0

    async def take(self) -> None:
        """Let the time pass that a frame takes, once those before it have been taken."""
        if self.is_slow:
            async with self._turn:
                await asyncio.sleep(self.frame_seconds)
