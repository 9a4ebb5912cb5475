"""Texts from outside: the rule for symbols, and text that is safe in a terminal, a path or a log. Pure."""

from typing import TypeGuard

# The exchange's longest names have about 20 characters.
LONGEST_SYMBOL = 64
# Bytes of a folder's name; most file systems take no longer one.
LONGEST_FOLDER = 255
# Characters of a foreign text in a log line or a message. A choice.
LONGEST_TEXT = 200
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def valid_symbol(name: object) -> TypeGuard[str]:
    """Return whether a name can be a contract's symbol.

    A symbol has upper-case letters (also letters without case, such as Chinese ones), digits and `_`. Its stream name
    is its lower case, so upper case must bring the symbol back. A folder of the data directory has its name.
    """
    return (
        isinstance(name, str)
        and 0 < len(name) <= LONGEST_SYMBOL
        and all(character == "_" or character.isalpha() or character in "0123456789" for character in name)
        and name.lower().upper() == name
        and len(name.encode()) <= LONGEST_FOLDER
    )


def fnv1a(symbol: str) -> int:
    """Return the 32-bit FNV-1a hash of a symbol in UTF-8: the same on every machine and in every language."""
    number = 0x811C9DC5
    for byte in symbol.encode():
        number = ((number ^ byte) * 0x01000193) & 0xFFFFFFFF
    return number


def one_line(text: str, longest: int = LONGEST_TEXT) -> str:
    """Return a text that moves no cursor: one line, without control characters, of `longest` characters at most."""
    cut = text[:longest]
    if cut.isprintable():
        return cut
    return "".join(character if character.isprintable() else _REPLACEMENT for character in cut)
