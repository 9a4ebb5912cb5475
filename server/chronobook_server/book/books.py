"""New books, of the path that is chosen (see `kernel`)."""

from chronobook_server.book.order_book import OrderBook
from chronobook_server.book.python_book import PythonBook
from chronobook_server.domain.records import Keyframe
from chronobook_server.kernel import CHOICE

if CHOICE.is_there:
    from chronobook_server.book.compiled_book import CompiledBook


def new_book(keyframe: Keyframe) -> OrderBook:
    """Return a book as a keyframe shows it. Raises CrossedBook."""
    return CompiledBook(keyframe) if CHOICE.is_compiled else PythonBook(keyframe)
