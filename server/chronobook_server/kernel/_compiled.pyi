"""Interface of the kernel in C. A column has an i64 a row, little-endian, if nothing else is said."""

from typing import Final, TypeAlias

from typing_extensions import Buffer

from chronobook_server.domain.values import Millis, UpdateId

Taken: TypeAlias = tuple[
    UpdateId, UpdateId, UpdateId, Millis, Millis, tuple[int, int, int, int], tuple[bytes, bytes], bytes
]

class Book:
    update_id: UpdateId
    transaction_time: Millis
    best_bid: int
    best_ask: int
    level_count: int
    def load(
        self,
        name: bytes,
        symbol: bytes,
        scales: tuple[int, int],
        known_range: tuple[int, int],
        state: tuple[int, int],
        prices: Buffer,
        quantities: Buffer,
        named: Buffer,
        /,
    ) -> None: ...
    def take_frame(self, frame: bytes | str, earliest: int, latest: int, /) -> Taken | None: ...
    def take_levels(
        self,
        bid_prices: Buffer,
        bid_quantities: Buffer,
        ask_prices: Buffer,
        ask_quantities: Buffer,
        update_id: int,
        time: int,
        /,
    ) -> tuple[bytes, bytes] | None: ...
    def level(self, price: int, /) -> int | None: ...
    def is_observed(self, price: int, /) -> bool: ...
    def columns(self) -> tuple[bytes, bytes, bytes]: ...

class Levels:
    level_count: Final[int]
    change_count: Final[int]
    prices: Final[memoryview[int]]
    before: Final[memoryview[int]]
    change_levels: Final[memoryview[int]]
    change_quantities: Final[memoryview[int]]
    def __init__(self, prices: Buffer, before: Buffer) -> None: ...
    def add(self, prices: Buffer, quantities: Buffer, lowest: int, highest: int, /) -> bytes | None: ...
    def replay(self, levels: Buffer, quantities: Buffer, /) -> None: ...
    def level(self, price: int, /) -> int | None: ...
    def changes_after(self, price: int, number: int, /) -> bytes: ...
    def quantity(self, number: int, /) -> int: ...
    def quantity_before(self, level: int, /) -> int: ...
    def was_empty(self, price: int, /) -> None: ...
