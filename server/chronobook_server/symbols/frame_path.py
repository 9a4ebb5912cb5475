"""Frame path: that of the compiled book, and the one in Python, which judges it."""

from chronobook_server.book.order_book import Applied, CrossedBook, OrderBook
from chronobook_server.domain.instrument import FinerThanScale, LevelReader, MalformedDecimal
from chronobook_server.domain.packed_columns import packed
from chronobook_server.domain.records import Update
from chronobook_server.domain.stream_id import StreamKind
from chronobook_server.domain.values import Millis, Nanos
from chronobook_server.venue.binance_futures.frames import MalformedFrame, decode_frame, follows_event

_DEPTH = StreamKind.DEPTH


def apply_frame(
    frame: bytes | str, receive_time: Nanos, book: OrderBook, levels: LevelReader, *, earliest: Millis, latest: Millis
) -> Applied | None:
    """Apply the event of a frame to the book; see `FramePath`."""
    if book.reads_frames:
        return book.apply_frame(frame, receive_time, earliest=earliest, latest=latest)
    previous = book.update_id
    # A second connection repeats every event, so repetitions are refused before they are decoded.
    if not follows_event(frame, previous):
        return None
    try:
        decoded = decode_frame(frame, receive_time)
    except MalformedFrame:
        return None
    if decoded is None:
        return None
    stream, update = decoded
    if not (
        update.previous_final_update_id == previous < update.first_update_id
        and earliest <= update.transaction_time <= latest
        and stream.symbol == book.instrument.symbol
        and stream.kind is _DEPTH
    ):
        return None
    try:
        bids, asks = levels.read_bids(update.bids), levels.read_asks(update.asks)
        changes = book.apply(bids, asks, update_id=update.final_update_id, transaction_time=update.transaction_time)
    except (MalformedDecimal, FinerThanScale, CrossedBook):
        return None
    return Applied(Update.of(update, update.transaction_time, book.best, changes), packed((*bids, *asks)))
