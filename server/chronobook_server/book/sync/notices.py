"""Output of the synchronisation that is no record: requests for snapshots, and news of the book for the counters.

A record goes to the history and to streams. A notice tells of the book also where no record does: before the first
event of an epoch.
"""

from dataclasses import dataclass
from typing import TypeAlias

from chronobook_server.book.sync.audit import Audited
from chronobook_server.domain.coverage import Cause
from chronobook_server.domain.depth import SnapshotWanted
from chronobook_server.domain.records import Keyframe, Record


@dataclass(frozen=True, slots=True)
class BookAdopted:
    """A snapshot is the book now, and names its epoch; the epoch's records come with its first event."""

    book: Keyframe


@dataclass(frozen=True, slots=True)
class BookSuspended:
    """The book is kept and not answered from."""

    cause: Cause


@dataclass(frozen=True, slots=True)
class BookResumed:
    """The book is the exchange's again: nothing was missed."""


@dataclass(frozen=True, slots=True)
class BookLost:
    """The book is given up."""

    cause: Cause


Notice: TypeAlias = SnapshotWanted | Audited | BookAdopted | BookSuspended | BookResumed | BookLost
Output: TypeAlias = Record | Notice
