"""A history behind its gRPC server, without a feed: `python -m benchmarks.serving FOLDER` prints {"port"} and serves
until its standard input ends.
"""

import asyncio
import json
import sys
import time
from pathlib import Path

import uvloop

from chronobook_server.api.server import Server
from chronobook_server.domain.cooperative import run_now
from chronobook_server.domain.stream_id import depth_of
from chronobook_server.history.directory.data_directory import DataDirectory
from chronobook_server.history.segment.cache import CacheBudget
from chronobook_server.runtime.seal_pool import SealPool
from chronobook_server.symbols.pipeline import SymbolPipeline
from testkit.generators.long_day import CapturedDay


async def serve(folder: Path) -> None:
    """Serve the folder."""
    sealer = SealPool()
    sealing = asyncio.create_task(sealer.run())
    directory = DataDirectory(folder, "bench")
    history = directory.open(
        depth_of(CapturedDay.symbol), sealer, retention_ms=2 * 86_400_000, cache_budget=CacheBudget()
    )
    run_now(history.warm())
    server = Server({CapturedDay.symbol: SymbolPipeline(CapturedDay.symbol, history, monotonic=time.monotonic).queries})
    await server.start("127.0.0.1:0")
    print(json.dumps({"port": server.port}), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(0)
    sealing.cancel()
    directory.close()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(Path(sys.argv[1])))
