"""Fuzzer of the compiled book: it takes no frame that the Python path refuses, and takes every other one alike.

An input is lines, and each one is a frame for a small book. If the first byte is DRAWN, the rest of the input makes
frames in the exchange's form that continue the book, with possible mistakes. `run.py` loads a kernel with counters, so
that libFuzzer sees the branches in C too.
"""

import orjson

from chronobook_server.book.books import new_book
from chronobook_server.book.order_book import OrderBook
from chronobook_server.domain.coverage import KnownRange
from chronobook_server.domain.instrument import Instrument, LevelReader
from chronobook_server.domain.records import Keyframe
from chronobook_server.domain.values import Millis, Nanos, UpdateId
from chronobook_server.kernel import CHOICE
from chronobook_server.symbols.frame_path import apply_frame
from testkit.harness.paths import PATHS, on_path, state_of
from tests.fuzz.drawn import Drawn

DRAWN = b"\x01"
_MOST_FRAMES = 20
_PRICES = ("9.9", "10.0", "10.1", "10.2", "10.3", "8.9", "11.1", "1.0", "99.9", "10", "010.0", "0.0", "10.15", "x")
_QUANTITIES = ("0", "1", "5", "7", "0.5", "1.25", "00", "4611686018427387903", "46116860184273879.1", "-1", "")
_NAMES = ("x@depth", "X@depth@100ms", "x@depthX", "y@depth@100ms", "x@rpiDepth@500ms", "x@depth@")
_MEMBERS = (
    "",
    "",
    ',"ps":"X","st":1',
    ',"st":1',
    ',"pu":9',
    ',"b":[]',
    ',"":1',
    ',"name":"x"',
    ',"U":1',
    ',"abc":[1]',
    " ",
)


class Compared:
    """The same book on each path, which get the same frames."""

    def __init__(self) -> None:
        keyframe = Keyframe(
            Instrument("X", 1, 1), UpdateId(10), Millis(1000), Millis(1000), Nanos(1), {100: 50, 102: -70},
            KnownRange(90, 110), frozenset({89}),
        )  # fmt: skip
        self.reader = LevelReader(keyframe.instrument)
        self.books: list[OrderBook] = []
        for path in PATHS:
            with on_path(path):
                self.books.append(new_book(keyframe))

    def take(self, frame: bytes) -> None:
        """Give a frame to both books; the compiled one may refuse it, and changes nothing then."""
        compiled, judge = self.books
        before = state_of(judge)
        taken, judged = (
            apply_frame(frame, Nanos(2), book, self.reader, earliest=Millis(1000), latest=Millis(2000))
            for book in self.books
        )
        if taken is None:
            assert state_of(compiled) == before
            if judged is not None:
                compiled._hold(
                    judge.levels, judge.observed_prices, update_id=judge.update_id, time=judge.transaction_time
                )
                compiled._view = None
        assert taken is None or taken == judged
        assert state_of(compiled) == state_of(judge)


def check(data: bytes) -> None:
    """Give an input's frames to both paths. Raises the exception of a fault."""
    if not CHOICE.is_there:
        return
    compared = Compared()
    if data[:1] != DRAWN:
        for line in data.split(b"\n")[:_MOST_FRAMES]:
            compared.take(line)
        return
    drawn = Drawn(data[1:])
    for _ in range(_MOST_FRAMES):
        if drawn:
            compared.take(_frame(drawn, compared.books[0]))


def _frame(drawn: Drawn, book: OrderBook) -> bytes:
    """Return a frame that continues a book, now and then with something wrong in it."""
    first, previous, time = book.update_id + 1, int(book.update_id), int(book.transaction_time)
    final, name = first + drawn.below(4), "x@depth@100ms"
    match drawn.below(32):
        case 1:
            previous += 1
        case 2:
            first = previous
        case 3:
            final = drawn.one_of((first - 1, 2**53, 2**53 - 1, 2**64))
        case 4:
            time = drawn.one_of((999, 2000, 2001, 0, 2**62))
        case 5:
            name = drawn.one_of(_NAMES)
        case _:
            pass
    return (
        f'{{"stream":"{name}","data":{{"e":"depthUpdate","E":{time + drawn.below(3)},"T":{time},"s":"X","U":{first}'
        f',"u":{final},"pu":{previous},"b":{_side(drawn)},"a":{_side(drawn)}{drawn.one_of(_MEMBERS)}}}}}'
    ).encode()


def _side(drawn: Drawn) -> str:
    plain = drawn.below(8) != 7
    prices, quantities = (_PRICES[:9], _QUANTITIES[:4]) if plain else (_PRICES, _QUANTITIES)
    levels = [[drawn.one_of(prices), drawn.one_of(quantities)] for _ in range(drawn.below(5))]
    return orjson.dumps(levels).decode()


def seeds() -> list[bytes]:
    """Return inputs to begin with."""
    frame = (
        b'{"stream":"x@depth@100ms","data":{"e":"depthUpdate","E":1001,"T":1000,"s":"X","U":%d,"u":%d,"pu":%d,'
        b'"b":[["10.1","3"],["10.0","0"],["8.9","0.0"]],"a":[["10.2","0"],["11.1","1.5"]]}}'
    )
    plain = [frame % (first, first, first - 1) for first in (11, 12, 13)]
    return [
        b"\n".join(plain),
        plain[0].replace(b'"a":', b'"a" :') + b"\n" + plain[0],
        plain[0].replace(b"}}", b',"name":"text","number":5}}') + b"\n" + plain[1],
        plain[0].replace(b"10.1", b"8.9").replace(b"8.9", b"10.1", 1),
        b'{"result":null,"id":1}',
        DRAWN + bytes(range(3, 250)),
        DRAWN + bytes((0, 0, 0, 1, 0, 1, 2, 1)) * 30,
    ]
