"""New levels of a head segment, of the path that is chosen (see `kernel`)."""

from collections.abc import Mapping

from chronobook_server.history.segment.head_known import HeadKnown
from chronobook_server.history.segment.head_levels import HeadLevels
from chronobook_server.history.segment.python_levels import PythonLevels
from chronobook_server.kernel import CHOICE

if CHOICE.is_there:
    from chronobook_server.history.segment.compiled_levels import CompiledLevels


def new_levels(baseline: Mapping[int, int], known: HeadKnown) -> HeadLevels:
    """Return the levels of a segment that begins with these."""
    return CompiledLevels(baseline, known) if CHOICE.is_compiled else PythonLevels(baseline, known)
