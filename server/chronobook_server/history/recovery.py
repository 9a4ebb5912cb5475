"""What a folder holds when a server starts, after whatever ended the last one."""

import contextlib
from dataclasses import dataclass

from chronobook_server.core.coverage import Cause
from chronobook_server.core.records import Gap
from chronobook_server.core.values import Millis

from .files import TEMPORARY, Files, GrowingFile
from .hot import HotSegment
from .layout import DamagedFile
from .log import LogContents, encode, read_log
from .memory import Memories
from .sealed import SealedSegment
from .timeline import Segment

SEGMENT_SUFFIX = ".seg"
LOG_SUFFIX = ".log"


def segment_name(start: Millis) -> str:
    """Return the name of a sealed segment's file; names sort as their times do."""
    return f"{start:015d}{SEGMENT_SUFFIX}"


def log_name(start: Millis) -> str:
    """Return the name of a hot segment's log."""
    return f"{start:015d}{LOG_SUFFIX}"


@dataclass(frozen=True, slots=True)
class Recovered:
    """What a folder holds: segments that are sealed, some that only have a log yet, and files that are no use."""

    sealed: list[SealedSegment]
    unsealed: list[tuple[HotSegment, GrowingFile]]
    damaged: list[str]


def recover(files: Files, symbol: str, memories: Memories) -> Recovered:
    """Return what a folder holds, and clear away what was only begun. Raises OSError, log.UnknownFormat.

    Damaged segments stay where they are; a log whose beginning is not there holds nothing and goes.
    """
    sealed: dict[str, SealedSegment] = {}
    damaged: list[str] = []
    # Ours are named after an instant; what somebody else put there is not looked at.
    names = [name for name in files.names() if name.partition(".")[0].isdecimal()]
    for name in names:
        if name.endswith(TEMPORARY):
            files.remove(name)
        elif name.endswith(SEGMENT_SUFFIX):
            try:
                sealed[name.removesuffix(SEGMENT_SUFFIX)] = SealedSegment(files, name, symbol, memories)
            except DamagedFile:
                damaged.append(name)
    logs: list[tuple[str, LogContents]] = []
    for name in names:
        if name.endswith(LOG_SUFFIX):
            contents = None if name.removesuffix(LOG_SUFFIX) in sealed else read_log(name, symbol, files.read(name))
            if contents is None or not contents.entries:
                files.remove(name)
            else:
                logs.append((name, contents))
    segments = list(sealed.values())
    unsealed = [(HotSegment.replayed(contents.start, contents.entries), name, contents) for name, contents in logs]
    following: list[Segment] = [*segments, *(hot for hot, _, _ in unsealed)]
    following.sort(key=lambda segment: segment.start)
    return Recovered(
        segments,
        [(hot, _ended(files, hot, name, contents, following)) for hot, name, contents in unsealed],
        damaged,
    )


def _ended(
    files: Files,
    hot: HotSegment,
    name: str,
    contents: LogContents,
    segments: list[Segment],
) -> GrowingFile:
    """Say where a segment ends that only has a log, and cut the log to what is good of it."""
    log = files.grow(name, contents.good_bytes)
    if hot.end is not None:
        return log
    after = next((segment for segment in segments if segment.start > hot.start), None)
    if after is not None and after.continued and after.baseline_update_id == hot.last_update_id:
        hot.finish(after.start, None)
        return log
    cause = Cause.DAMAGED if contents.damaged else Cause.RESTART
    hot.finish(Millis(hot.last_time + 1), cause)
    # What was found out now would look like a torn tail the next time. On a full disk it may: the data are the same.
    with contextlib.suppress(OSError):
        log.append(encode(Gap(start=hot.last_time, update_id=hot.last_update_id, cause=cause)))
    return log
