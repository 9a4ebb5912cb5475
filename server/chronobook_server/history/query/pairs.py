"""Batches: the states of many pairs of a price and an instant."""

from collections.abc import Sequence

from chronobook_server.domain.cooperative import Cooperative
from chronobook_server.domain.errors import BeforeHistory, HistoryGap
from chronobook_server.domain.scales import finer, in_steps_of
from chronobook_server.domain.values import Millis, Price, UpdateId
from chronobook_server.history.query.history import SymbolHistory
from chronobook_server.history.segment.loading import Loading, NotDecoded
from chronobook_server.history.segment.rows import PairStates

# Look-ups in one slice: they take a tenth of a millisecond.
PAIRS_A_SLICE = 16


def quantities_at(history: SymbolHistory, prices: Sequence[Price], times: Sequence[Millis]) -> Cooperative[PairStates]:
    """Return the states of many pairs of a price and an instant, with the quantities a second before."""
    first_instrument = history.instrument
    states = PairStates([], [], [], [], {}, first_instrument)
    loading = Loading()
    try:
        while (done := len(states.quantities)) < len(prices):
            part = slice(done, done + PAIRS_A_SLICE)
            asked = prices[part]
            if history.instrument is not first_instrument:  # it has grown since
                asked = [*map(finer(first_instrument, history.instrument).price, asked)]
                states = in_steps_of(states, history.instrument)
            try:
                _add_pairs(history, states, asked, times[part])
            except NotDecoded as missing:
                if len(states.quantities) > done:
                    loading.release()  # these parts have given their answers
                yield from loading.load(missing)  # the slice goes on at the pair that needs it
            else:
                loading.release()
                yield
    finally:
        loading.release()
    return states


def _add_pairs(history: SymbolHistory, states: PairStates, prices: Sequence[Price], times: Sequence[Millis]) -> None:
    """Add the states of pairs, as far as they are in memory. Raises NotDecoded after them."""
    quantities, befores, as_of, update_ids, refusals, _ = states
    for price, time in zip(prices, times, strict=True):
        quantity, before, event_time, update_id = None, None, Millis(0), UpdateId(0)
        try:
            quantity, before, event_time, update_id = history.point_at(price, time)
        except (BeforeHistory, HistoryGap) as refusal:
            refusals[len(quantities)] = type(refusal)
        quantities.append(quantity)
        befores.append(before)
        as_of.append(event_time)
        update_ids.append(update_id)
