"""The compiled kernel, and the choice between it and the Python path. `kernel/` has its sources.

The compiled module is optional: it is absent where no compiler was at hand, and `CHRONOBOOK_PURE_PYTHON=1` leaves it
out. Both paths decide and record alike, so the choice shows in cost alone.
"""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chronobook_server.kernel import _compiled as compiled
elif os.environ.get("CHRONOBOOK_PURE_PYTHON", "") in ("", "0"):
    try:
        from chronobook_server.kernel import _compiled as compiled
    except ImportError:
        compiled = None
else:
    compiled = None


class Choice:
    """Choice of the path of new books and segments; a book or a segment keeps its path."""

    def __init__(self) -> None:
        self.is_there = compiled is not None
        self.is_compiled = self.is_there


CHOICE = Choice()
