import io
from collections.abc import Iterator
from dataclasses import fields
from itertools import chain
from typing import Any

import pytest
from rich.text import Text

from chronobook import BookMessage, Cause, Kind, KnownRange
from chronobook._terminal import Ladder, Terminal, live
from tests.unit.client.test_export import message

EVERYTHING = KnownRange(None, None)
STATE = message(
    Kind.STATE, 1703123456.25, 7, bids={99.5: 1.0, 99.0: 4.0}, asks={100.0: 2.0, 101.0: 0.5}, known=EVERYTHING
)


def drawn(ladder: Ladder, rows: int = 10) -> list[str]:
    terminal = Terminal(io.StringIO())
    with terminal.capture() as captured:
        terminal.print(ladder.shown(rows))
    return [line.rstrip() for line in captured.get().splitlines()]


def test_asks_above_bids_the_best_ones_in_the_middle() -> None:
    ladder = Ladder(2)
    ladder.apply(STATE)

    assert drawn(ladder) == [
        "ETHUSDT  2023-12-21T01:50:56.250Z  live",
        "     price  quantity",
        "       101       0.5  ███",
        "       100         2  ████████████",
        "spread 0.5",
        "      99.5         1  ██████",
        "        99         4  ████████████████████████",
    ]
    assert [line.split()[0] for line in drawn(ladder, rows=1)[2:]] == ["100", "spread", "99.5"]


def test_a_ladder_says_when_the_book_is_lost() -> None:
    ladder = Ladder()
    assert drawn(ladder)[0].split() == ["-", "waiting"]
    ladder.apply(STATE)
    ladder.apply(message(Kind.GAP, 1703123457.0, 7, cause=Cause.DISCONNECT))
    assert drawn(ladder)[0] == "ETHUSDT  2023-12-21T01:50:56.250Z  lost: DISCONNECT"
    ladder.apply(message(Kind.RESYNCED, 1703123458.0, cause=Cause.DISCONNECT))
    ladder.apply(message(Kind.STATE, 1703123458.0, 9, bids={99.5: 1.0}, known=EVERYTHING))
    assert drawn(ladder)[0].endswith("live")
    assert [line.split()[0] for line in drawn(ladder)[2:] if line] == ["99.5"]


def test_a_live_book_ends_with_its_stream_and_with_ctrl_c() -> None:
    changes = (message(Kind.CHANGE, 1703123457.0 + n, 8 + n, bids={99.5: 2.0 + n}) for n in range(50))
    file = io.StringIO()
    live(Terminal(file), chain((STATE,), changes), 2)
    assert "51" in file.getvalue()

    def interrupted() -> Iterator[BookMessage]:
        yield STATE
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        live(Terminal(io.StringIO()), interrupted(), 2)


def test_lines_in_a_pipe_keep_their_width_and_have_no_colours() -> None:
    file = io.StringIO()
    Terminal(file).say(["x" * 300 + " BID [/red]", Text("12.5", "say.ask")])
    assert file.getvalue() == "x" * 300 + " BID [/red]\n12.5\n"


def test_a_terminal_has_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    file = io.StringIO()
    Terminal(file).say(["CHANGE side=BID", "missing  1 .. 2"])
    assert "\x1b[32mBID\x1b[0m" in file.getvalue()
    assert "\x1b[1;31mmissing\x1b[0m" in file.getvalue()
    monkeypatch.setenv("NO_COLOR", "1")
    plain = io.StringIO()
    Terminal(plain).say(["side=BID"])
    assert "\x1b[32m" not in plain.getvalue()


def test_nothing_that_a_server_says_moves_the_cursor() -> None:
    file = io.StringIO()
    Terminal(file).say(["trading_status  \x1b[2J\x07X\r", Text("a\x9bb\u202ec")])
    said = file.getvalue()
    assert said.splitlines() == ["trading_status  \ufffd[2JX", "a\ufffdb\ufffdc"]
    ladder = Ladder()
    ladder.apply(message(Kind.STATE, 1703123456.25, 7, bids={99.5: 1.0}, asks={100.0: 2.0}, known=EVERYTHING))
    ladder._symbol = ""
    ladder.apply(BookMessage(**{**vars_of(STATE), "symbol": "\x1b[2J"}))
    assert "\x1b" not in "".join(drawn(ladder))


def vars_of(message: BookMessage) -> dict[str, Any]:
    return {field.name: getattr(message, field.name) for field in fields(message)}
