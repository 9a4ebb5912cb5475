"""Which files of a symbol cannot be used, and why: each is told of once."""

from collections.abc import Callable


class Damage:
    """What was found out. `told` is called with name and reason of every file, once."""

    def __init__(self) -> None:
        self.files: dict[str, str] = {}
        self.told: Callable[[str, str], None] = lambda _name, _reason: None

    def found(self, name: str, reason: str) -> None:
        """Take note that a file, or a part of it, cannot be used."""
        if name not in self.files:
            self.files[name] = reason
            self.told(name, reason)

    def tell(self, told: Callable[[str, str], None]) -> None:
        """Tell what was found already, and from now on what is found."""
        self.told = told
        for name, reason in self.files.items():
            told(name, reason)
