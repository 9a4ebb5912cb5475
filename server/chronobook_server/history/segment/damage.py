"""Unusable files of a symbol with their reasons; each is reported once."""

from collections.abc import Callable


class Damage:
    """Damaged files found so far. `report` is called once a file, with its name and the reason."""

    def __init__(self) -> None:
        self.files: dict[str, str] = {}
        self.report: Callable[[str, str], None] = lambda _name, _reason: None

    def found(self, name: str, reason: str) -> None:
        """Record that a file, or a part of it, is unusable."""
        if name not in self.files:
            self.files[name] = reason
            self.report(name, reason)

    def tell(self, report: Callable[[str, str], None]) -> None:
        """Report the files found already, and each later one."""
        self.report = report
        for name, reason in self.files.items():
            report(name, reason)
