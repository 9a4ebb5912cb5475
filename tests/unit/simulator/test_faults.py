from random import Random

import pytest

from chronobook_server.domain.instrument import Instrument, LevelReader, MalformedDecimal
from chronobook_server.domain.values import Nanos
from chronobook_server.simulator import Faults
from chronobook_server.simulator.faults import Injector
from chronobook_server.simulator.synthetic import SyntheticMarket
from chronobook_server.venue.binance_futures.frames import MalformedFrame, MalformedKind, decode_frame


def test_rates_are_kept_and_counted_and_one_seed_is_one_run() -> None:
    def run(seed: int) -> list[bool]:
        injector = Injector(Faults(drop=0.25), Random(seed))
        struck = [injector.strike("drop") for _ in range(2000)]
        assert injector.injected["drop"] == sum(struck)
        return struck

    assert 400 < sum(run(1)) < 600
    assert run(1) == run(1) != run(2)
    assert not any(Injector(Faults(), Random(1)).strike("drop") for _ in range(100))


def test_every_unreadable_frame_is_refused_and_every_kind_occurs() -> None:
    injector = Injector(Faults(), Random(1))
    market = SyntheticMarket("ETHUSDT", random=Random(1), start_ms=1_800_000_000_000)
    frame = {"stream": "ethusdt@depth@100ms", "data": market.next_event()}
    seen = set()
    for _ in range(200):
        try:
            decoded = decode_frame(injector.unreadable(frame), Nanos(1))
        except MalformedFrame as error:
            seen.add(error.kind)
            continue
        assert decoded is not None
        with pytest.raises(MalformedDecimal):
            LevelReader(Instrument("ETHUSDT", 2, 3)).read_bids(decoded[1].bids)
        seen.add(MalformedKind.BAD_LEVEL)
    assert seen == {
        MalformedKind.NOT_JSON, MalformedKind.NOT_A_FRAME, MalformedKind.BAD_FIELD, MalformedKind.BAD_LEVEL,
    }  # fmt: skip
