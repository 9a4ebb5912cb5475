"""Numbers for the levels of a segment, in the order in which they are named."""

from collections.abc import Mapping


class LevelIds(dict[int, int]):
    """Price to level id; a price that is new gets the next one, and is put down in `new`."""

    def __init__(self, levels: Mapping[int, int]) -> None:
        super().__init__(levels)
        self.new: list[int] = []

    def __missing__(self, price: int) -> int:
        level = self[price] = len(self)
        self.new.append(price)
        return level
