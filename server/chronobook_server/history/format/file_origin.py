"""Origin of a file (exchange and symbol), and the errors for unusable files."""

import json


class DamagedFile(Exception):
    """A file whose bytes differ from those that were written."""


class ForeignFile(DamagedFile):
    """A sound file of another exchange or symbol."""


class UnknownFormat(Exception):
    """A file of another version of the format, which may be good but is unreadable for this server."""

    def __init__(self, name: str, version: int, known: int) -> None:
        super().__init__(f"{name} has format version {version}; this server reads version {known}")


def origin_bytes(exchange: str, symbol: str) -> bytes:
    """Return an exchange and a symbol as a file holds them."""
    return json.dumps([exchange, symbol]).encode()


def check_origin(name: str, said: bytes, exchange: str, symbol: str) -> None:
    """Raise ForeignFile for a file of another symbol or exchange than these. An empty exchange may be any."""
    try:
        its_exchange, its_symbol = json.loads(said)
    except (ValueError, TypeError) as error:
        raise DamagedFile(f"{name} does not name its symbol and exchange") from error
    if its_symbol != symbol or (exchange and its_exchange and its_exchange != exchange):
        raise ForeignFile(f"{name} is of {its_symbol} on {its_exchange or 'an exchange without a name'}")
