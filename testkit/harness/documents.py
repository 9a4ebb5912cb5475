"""Command blocks of the documents, and the shell that runs those of one page."""

import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Self

from testkit.harness.waiting import PATIENCE

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = ("console", "sh", "python")
OTHERS = ("json", "proto", "text", "toml", "yaml")  # languages of blocks that contain no command
UNTIL_CTRL_C = "runs until Ctrl+C"
NOT_RUN = "not run: "
# The contract leaves these fields out if they have no value, for example the side of an empty level.
OPTIONAL = {"side", "previous_side", "previous_quantity", "difference", "change"}
MARKER = re.compile(r"<!-- (.+) -->")
COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
PORT = re.compile(r"(?:(?<=:)|(?<=--port ))\d{4,5}\b")


@dataclass(frozen=True)
class Step:
    """A command and the output that the page shows for it."""

    command: str
    shown: str = ""

    @property
    def fields(self) -> set[str]:
        """Names of fields and other words in small letters, which every run prints."""
        return words(self.shown) - OPTIONAL


@dataclass(frozen=True)
class Block:
    """A fenced block with its place, its language and the marker in the comment before it."""

    path: Path
    line: int
    language: str
    text: str
    marker: str

    @property
    def place(self) -> str:
        """Page and line, for messages."""
        return f"{self.path.relative_to(ROOT)}:{self.line}"

    @property
    def reason(self) -> str | None:
        """The reason why a block cannot run, or None if it can."""
        return self.marker.removeprefix(NOT_RUN) if self.marker.startswith(NOT_RUN) else None

    def steps(self) -> list[Step]:
        """Split a block into commands with their outputs."""
        if self.language == "python":
            return [Step(f"{sys.executable} - <<'PYTHON'\n{self.text}PYTHON")]
        if self.language == "sh":
            return [Step(self.text.rstrip("\n"))]
        parts = re.split(r"^\$ ", self.text, flags=re.MULTILINE)
        assert not parts[0], f"{self.place}: text before the first command"
        return [_step(part) for part in parts[1:]]


def _step(part: str) -> Step:
    """Divide a part of a console block into its command, which can have continuation lines, and the output."""
    command = re.match(r"(?:.*\\\n)*.*", part)
    assert command is not None
    return Step(command[0], part[command.end() :].strip("\n"))


def words(text: str) -> set[str]:
    """Return the words of three small letters or more, underscores included, without control sequences."""
    return set(re.findall(r"\b[a-z][a-z_]{2,}\b", COLOURS.sub("", text)))


def blocks(path: Path) -> Iterator[Block]:
    """Read the fenced blocks of a page."""
    language, start, marker, kept = None, 0, "", list[str]()
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if language is not None and line == "```":
            yield Block(path, start, language, "".join(f"{text}\n" for text in kept), marker)
            language, marker, kept = None, "", []
        elif language is not None:
            kept.append(line)
        elif line.startswith("```"):
            language, start = line.removeprefix("```"), number
        elif line.strip():
            found = MARKER.fullmatch(line)
            marker = found[1] if found else ""


class Running:
    """A command on a terminal of its own, which ends with Ctrl+C."""

    def __init__(self, command: str, folder: Path, environment: Mapping[str, str]) -> None:
        self.output = ""
        self._master, terminal = pty.openpty()
        self.process = subprocess.Popen(
            ["bash", "-c", f"stty cols 200; exec {command}"], cwd=folder, env=environment, start_new_session=True,
            stdin=terminal, stdout=terminal, stderr=terminal,
        )  # fmt: skip
        os.close(terminal)
        self._reader = Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # Linux raises it once the other end is closed
            while chunk := os.read(self._master, 65536):
                self.output += chunk.decode(errors="replace")

    def wait_for(self, fields: set[str]) -> None:
        """Return once all these words were printed."""
        deadline = time.monotonic() + PATIENCE
        while not fields <= words(self.output):
            assert self.process.poll() is None, self.output
            assert time.monotonic() < deadline, self.output
            time.sleep(0.05)  # a program does not announce its output

    def end(self) -> int:
        """Send Ctrl+C and return the exit code; the command must run until then."""
        assert self.process.poll() is None, self.output
        self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(PATIENCE)
        finally:
            self.close()

    def close(self) -> None:
        """Kill the process if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._reader.join()
        os.close(self._master)


@dataclass
class Shell:
    """A shell that keeps variables and files from block to block, with other ports than those of the page."""

    folder: Path
    environment: Mapping[str, str]
    ports: Mapping[str, int]
    running: list[tuple[Block, Running]] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._bash = subprocess.Popen(
            ["bash"], cwd=self.folder, env=self.environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bash.kill()
        self._bash.communicate()
        for _, running in self.running:
            running.close()

    def _own(self, command: str) -> str:
        """Replace each port of a page by the port of this run."""
        return PORT.sub(lambda port: str(self.ports[port[0]]), command)

    def do(self, command: str) -> tuple[int, str]:
        """Run a command; return its exit code and output."""
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        self._bash.stdin.write(f'{self._own(command)}\nprintf "\\n--ended %s\\n" $?\n')
        self._bash.stdin.flush()
        output = ""
        for line in self._bash.stdout:
            if line.startswith("--ended "):
                return int(line.split()[1]), output
            output += line
        raise AssertionError(f"the shell ended: {output}")

    def run(self, block: Block) -> None:
        """Run a block and compare exit codes, and the fields of shown outputs."""
        for step in block.steps():
            if block.marker == UNTIL_CTRL_C:
                self.running.append((block, Running(self._own(step.command), self.folder, self.environment)))
                self.running[-1][1].wait_for(step.fields)
                continue
            code, output = self.do(step.command)
            assert code == 0, f"{block.place}: {step.command}\n{output}"
            missing = step.fields - words(output)
            assert not missing, f"{block.place}: {step.command}\nshown but not printed: {missing}\n{output}"

    def end(self) -> None:
        """End the commands that run until Ctrl+C, newest first; each one exits with 0."""
        while self.running:
            block, running = self.running.pop()
            assert running.end() == 0, f"{block.place}\n{running.output}"
