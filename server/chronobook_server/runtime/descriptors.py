"""Budget of file descriptors: the parts of a server share the limit of its process.

Without it, callers at the gRPC port could take the descriptors that logs, sealed files and the feed need. So the feed,
the logs and a margin come first, and callers and open sealed files share the rest.
"""

from typing import NamedTuple

import structlog

from chronobook_server.config.settings import ServeSettings
from chronobook_server.history.segment.cache import OPEN_FILES
from chronobook_server.venue.connection_pool import STREAMS_PER_CONNECTION

# Standard streams, listeners, locks, the event loop, the pipes of the process that seals, reads under way.
_MARGIN = 96
# Connections for snapshots and contract lists.
_REQUESTS = 8
# Contracts that the exchange lists; a choice, because the list comes after the start.
_ALL_SYMBOLS = 800
# Logs of a symbol: of the growing segment, and of one that is being sealed.
_LOGS = 2
# Callers' connections that a server needs, and those that it takes at most. Choices: a connection has many calls.
_CONNECTIONS, _MOST_CONNECTIONS = 1024, 16_384
# With fewer, a part of the server does not work at all.
_LEAST = 16

log = structlog.get_logger(__name__)


class Descriptors(NamedTuple):
    """Descriptors that a server needs and has, and the bounds of open sealed files and of callers' connections."""

    needed: int
    had: int
    files: int
    connections: int


def shared(settings: ServeSettings, had: int) -> Descriptors:
    """Return the shares of a limit; each part gets a least number, also if the limit is too low."""
    symbols = len(settings.symbols) + _ALL_SYMBOLS * settings.all_symbols
    # A new connection of the feed opens before the one that it replaces is closed.
    feed = 2 * settings.connections * -(-symbols // STREAMS_PER_CONNECTION)
    fixed = _MARGIN + _REQUESTS + feed + _LOGS * symbols
    rest = had - fixed
    files = min(max(rest // 4, _LEAST), OPEN_FILES)
    connections = min(max(rest - files, _LEAST), _MOST_CONNECTIONS)
    return Descriptors(fixed + OPEN_FILES + _CONNECTIONS, had, files, connections)


def in_words(budget: Descriptors) -> str:
    """Return the budget in one line for the user of the command."""
    return (
        f"open files: {budget.needed} needed, {budget.had} allowed;"
        f" at most {budget.connections} connections and {budget.files} sealed files"
    )


def warn(budget: Descriptors) -> None:
    """Write the budget to the log, if the limit is too low."""
    if budget.had < budget.needed:
        log.warning(
            "descriptors",
            needed=budget.needed,
            had=budget.had,
            sealed_files=budget.files,
            connections=budget.connections,
        )
