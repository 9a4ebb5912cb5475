"""One popular library handles events: `python peers_child.py NAME FILE`, by a Python that has the library.

FILE holds a snapshot and then frames, a line each. Prints the CPU seconds that the frames took and the book at the end.
Nothing of chronobook is imported here. In each library's favour, the measurement leaves out sockets, threads, queues
and the waits between them. It covers only the handling of a frame.

unicorn     unicorn-binance-local-depth-cache: the branch of `_manage_depth_cache_async` for a futures market in sync:
            the `pu` check, `_apply_updates`, the new update id; parsed by orjson
cryptofeed  cryptofeed's BinanceFutures.message_handler with order_book's OrderBook; parsed by the library itself, with
            an empty callback
checked     the same with its `cross_check`, which checks the best prices after every event, as chronobook does
"""

# mypy: ignore-errors

import asyncio
import json
import sys
import threading
import time
from decimal import Decimal
from functools import partial
from pathlib import Path


def unicorn(snapshot, frames):
    """Return CPU seconds, bids and asks."""
    import orjson
    from unicorn_binance_local_depth_cache import BinanceLocalDepthCacheManager

    manager = BinanceLocalDepthCacheManager.__new__(BinanceLocalDepthCacheManager)
    threading.Thread.__init__(manager)
    manager.exchange = "binance.com-futures"
    manager.depth_caches, manager.threading_lock_ask, manager.threading_lock_bid = {}, {}, {}
    manager.default_refresh_interval = None
    manager.cluster = None
    market = "ethusdt"
    manager._add_depthcache(market=market)
    cache = manager.depth_caches[market]
    for ask in snapshot["asks"]:
        manager._add_ask(ask, market=market)
    for bid in snapshot["bids"]:
        manager._add_bid(bid, market=market)
    cache["last_update_id"] = snapshot["lastUpdateId"]
    cache["is_synchronized"] = True
    is_first = True
    start = time.process_time()
    for frame in frames:
        data = orjson.loads(frame)["data"]
        if not is_first and data["pu"] != cache["last_update_id"]:
            raise SystemExit("a gap, in a stream that has none")
        is_first = False
        manager._apply_updates(asks=data["a"], bids=data["b"], market=market)
        cache["last_update_id"] = int(data["u"])
        cache["last_update_time"] = int(time.time() * 1000)
    seconds = time.process_time() - start
    return seconds, {float(price) for price in cache["bids"]}, {float(price) for price in cache["asks"]}


def cryptofeed(snapshot, frames, *, cross_check=False):
    """Return CPU seconds, bids and asks."""
    from cryptofeed.defines import ASK, BID, L2_BOOK
    from cryptofeed.exchanges import BinanceFutures
    from cryptofeed.types import OrderBook

    pair = "ETHUSDT"

    async def nothing(book, received):
        pass

    class Alone(BinanceFutures):
        def __init__(self):
            self.last_update_id = {pair: snapshot["lastUpdateId"]}
            self._l2_book = {pair: OrderBook(self.id, pair)}
            self.requires_authentication = False
            self.cross_check = cross_check
            self.callbacks = {L2_BOOK: [nothing]}
            for name, side in (("bids", BID), ("asks", ASK)):
                for price, amount in snapshot[name]:
                    self._l2_book[pair].book[side][Decimal(price)] = Decimal(amount)

        def exchange_symbol_to_std_symbol(self, symbol):
            return symbol

    feed = Alone()

    async def main():
        start = time.process_time()
        for frame in frames:
            await feed.message_handler(frame, None, 0.0)
        return time.process_time() - start

    seconds = asyncio.run(main())
    book = feed._l2_book[pair].book
    return seconds, {float(price) for price in book.bids}, {float(price) for price in book.asks}


def main():
    """Run the command."""
    name, path = sys.argv[1:]
    with Path(path).open() as file:
        snapshot = json.loads(file.readline())
        frames = [line.rstrip("\n") for line in file]
    measures = {"unicorn": unicorn, "cryptofeed": cryptofeed, "checked": partial(cryptofeed, cross_check=True)}
    seconds, bids, asks = measures[name](snapshot, frames)
    print(json.dumps({"seconds": seconds, "bids": sorted(bids), "asks": sorted(asks)}))


if __name__ == "__main__":
    main()
