"""The header `Retry-After`, in all its forms. Pure."""

import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

# Wait after a refusal without a readable Retry-After.
DEFAULT_SECONDS = 5.0
# A refusal always brings some wait.
_LEAST_SECONDS = 1.0
# The exchange's longest ban takes three days; a longer wait in a header or a file is cut to this.
LONGEST_SECONDS = 4 * 86_400.0
_SECONDS = re.compile(r"[0-9]+(\.[0-9]*)?", re.ASCII)


def seconds_to_wait(headers: Mapping[str, str], unix_seconds: float) -> float:
    """Return the seconds that a refusal asks to wait, from 1 s to LONGEST_SECONDS.

    A date counts from the reply's own `Date`, if it has one: this machine's clock may be wrong.
    """
    after = headers.get("retry-after", "").strip()
    if _SECONDS.fullmatch(after):
        return _bounded(float(after))
    until = _unix(after)
    if until is None:
        return DEFAULT_SECONDS
    sent = _unix(headers.get("date", ""))
    return _bounded(until - (unix_seconds if sent is None else sent))


def _bounded(seconds: float) -> float:
    return min(max(seconds, _LEAST_SECONDS), LONGEST_SECONDS)


def _unix(date: str) -> float | None:
    try:
        read = parsedate_to_datetime(date)
        return (read if read.tzinfo is not None else read.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
