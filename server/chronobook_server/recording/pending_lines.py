"""Recorded lines that are not written yet, and the beginnings of files between them. Pure."""

from dataclasses import dataclass, field

# Bytes after which lines are written at once. A choice: a killed recorder loses at most as many.
_FLUSH_BYTES = 1 << 20
# Bytes that wait at most for a disk that has stopped writing. A choice.
_MOST_PENDING_BYTES = 256 << 20


@dataclass(slots=True)
class Block:
    """Lines that are written together; they begin a file if `begins_ns` is set."""

    begins_ns: int | None
    lines: list[bytes] = field(default_factory=list)


class PendingLines:
    """Lines in the order of recording. A file begins at each multiple of `file_ns`, or after the last one is full.

    `file_number` grows with each file. Without `can_rotate`, there is only the first file.
    """

    def __init__(self, file_ns: int | None, *, can_rotate: bool) -> None:
        self.file_number = 0
        self._file_ns = file_ns
        self._can_rotate = can_rotate
        self._blocks: list[Block] = []
        self._bytes = 0
        self._begun_ns = 0
        self._is_file_full = False

    @property
    def is_flush_due(self) -> bool:
        """Whether so many lines wait that they should be written at once."""
        return self._bytes >= _FLUSH_BYTES

    @property
    def is_overflown(self) -> bool:
        """Whether so many lines wait that the disk does not keep up."""
        return self._bytes >= _MOST_PENDING_BYTES

    def add(self, receive_ns: int, body: bytes) -> None:
        """Add a line, which may begin a file."""
        if self._begins_file(receive_ns):
            self.file_number += 1
            self._begun_ns, self._is_file_full = receive_ns, False
            self._blocks.append(Block(receive_ns))
        elif not self._blocks:
            self._blocks.append(Block(None))
        line = b"%d %s\n" % (receive_ns, body)
        self._blocks[-1].lines.append(line)
        self._bytes += len(line)

    def _begins_file(self, receive_ns: int) -> bool:
        if not self.file_number:
            return True
        span = self._file_ns
        is_due = span is not None and receive_ns // span > self._begun_ns // span
        return self._can_rotate and (is_due or self._is_file_full)

    def take(self) -> list[Block]:
        """Return all lines, and keep none."""
        blocks, self._blocks, self._bytes = self._blocks, [], 0
        return blocks

    def file_is_full(self, number: int) -> None:
        """Begin a file with the next line, if the file of this number is still the last one."""
        if number == self.file_number:
            self._is_file_full = True
