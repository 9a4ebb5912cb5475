"""The two paths of a depth event, compiled and Python, which tests hold to the same promises."""

import copyreg
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from chronobook_server.book.order_book import OrderBook
from chronobook_server.kernel import CHOICE

if CHOICE.is_there:
    from chronobook_server.book.compiled_book import CompiledBook

    def _loaded(state: dict[str, Any]) -> CompiledBook:
        made = CompiledBook.__new__(CompiledBook)
        made.instrument, made.known_range, made._view = state["instrument"], state["known_range"], None
        made._hold(state["levels"], state["observed"], update_id=state["update_id"], time=state["time"])
        return made

    # The server never copies a book.
    copyreg.pickle(CompiledBook, lambda book: (_loaded, (state_of(book),)))

PATHS = ("compiled", "python")


@contextmanager
def on_path(path: str) -> Iterator[None]:
    """Make books and segments on a path during a block. The compiled one must be there."""
    before = CHOICE.is_compiled
    assert CHOICE.is_there or path != "compiled"
    CHOICE.is_compiled = path == "compiled"
    try:
        yield
    finally:
        CHOICE.is_compiled = before


def state_of(book: OrderBook) -> dict[str, Any]:
    """Return everything that a book holds."""
    return {
        "instrument": book.instrument,
        "known_range": book.known_range,
        "update_id": book.update_id,
        "time": book.transaction_time,
        "levels": dict(book.levels),
        "level_count": book.level_count,
        "observed": set(book.observed_prices),
        "best": book.best,
        "edges": (book.best_bid, book.best_ask),
    }
