"""Unusable files of a symbol with their reasons; each is reported once."""

from collections.abc import Callable


class Damage:
    """Damaged files found so far. `told` is called once a file, with its name and the reason."""

    def __init__(self) -> None:
        self.files: dict[str, str] = {}
        self.told: Callable[[str, str], None] = lambda _name, _reason: None

    def found(self, name: str, reason: str) -> None:
        """Record that a file, or a part of it, is unusable."""
        if name not in self.files:
            self.files[name] = reason
            self.told(name, reason)

    def tell(self, told: Callable[[str, str], None]) -> None:
        """Report the files found already, and each later one."""
        self.told = told
        for name, reason in self.files.items():
            told(name, reason)
