import asyncio
import contextlib
import json
import os
import pty
import signal
import sys
from pathlib import Path

import pandas as pd
import pytest

from chronobook.cli import main
from testkit.harness.served import HandFed, served
from testkit.harness.whole_system import free_port, until

COMMAND = Path(sys.executable).with_name("chronobook")


async def chronobook(address: str, *arguments: str) -> tuple[int, str, str]:
    """Run the command as a process; return exit code, output and errors."""
    process = await asyncio.create_subprocess_exec(
        str(COMMAND), *arguments, env={**os.environ, "CHRONOBOOK_SERVER": address},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, errors = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode(), errors.decode()


def names_in(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


def fed_market() -> HandFed:
    fed = HandFed()
    fed.sync()
    fed.change(time=11_000, bids=[("99.00", "2.00")])
    fed.change(time=11_001)  # which makes the one before final
    fed.market.closed()
    return fed


async def test_answers_for_people() -> None:
    fed = HandFed()
    fed.sync()
    async with served(fed) as running:
        code, output, _ = await chronobook(running.address, "status")
        lines = dict(line.split(None, 1) for line in output.strip().splitlines() if len(line.split()) > 1)
        assert (code, lines["symbol"], lines["state"]) == (0, "ETHUSDT", "IN_SYNC")
        assert (lines["as_of"], lines["known_range"]) == ("1970-01-01T00:00:10.000Z", "98 .. 102")
        code, output, _ = await chronobook(running.address, "book", "--limit", "1")
        assert output.splitlines()[-1].split() == ["1.5", "99", "101", "3.25"]
        code, output, _ = await chronobook(running.address, "quantity", "99.4")
        assert "is_nearest_level   yes" in output
        code, output, _ = await chronobook(running.address, "quantity", "ethusdt", "99", "--at", "1970-01-01T00:00:10Z")
        assert "previous_quantity  -" in output
        code, output, _ = await chronobook(running.address, "history")
        assert output.splitlines()[-1] == "held     1970-01-01T00:00:09.999Z .. 1970-01-01T00:00:09.999Z"


async def test_answers_about_intervals() -> None:
    async with served(fed_market()) as running:
        code, output, _ = await chronobook(running.address, "changes", "99", "--from", "10")
        held = "held     1970-01-01T00:00:10.000Z .. 1970-01-01T00:00:11.000Z  at first 1.5 BID"
        assert (code, held in output.splitlines()) == (0, True)
        assert output.splitlines()[-2:] == [
            "timestamp                 quantity  side  update_id",
            "1970-01-01T00:00:11.000Z         2  BID        1020",
        ]
        code, output, _ = await chronobook(running.address, "best", "ethusdt", "--to", "10.5", "--json")
        best = json.loads(output)
        assert (code, best["timestamps"], best["bid_quantities"]) == (0, [9.999], [1.5])
        assert best["stretches"] == [{"start": 9.999, "end": 10.5}]
        code, output, _ = await chronobook(running.address, "nearest", "95", "--at", "10.5", "--side", "ask")
        assert (code, output.splitlines()[2].split()) == (0, ["nearest_price", "101"])


async def test_answers_for_programs() -> None:
    async with served(fed_market()) as running:
        for arguments in (("--json", "history"), ("history", "--json")):
            code, output, _ = await chronobook(running.address, *arguments)
            history = json.loads(output)
            assert (code, history["gaps"]) == (0, [{"start": 11.0, "cause": "DISCONNECT"}])
        code, output, _ = await chronobook(running.address, "--json", "quantity", "99", "--at", "10.5")
        answer = json.loads(output)
        assert (answer["quantity"], answer["side"], "difference" in answer) == (1.5, "BID", False)


async def test_a_refusal_is_one_line_and_exit_code_1() -> None:
    async with served(fed_market()) as running:
        for arguments, line in (
            (("book",), "NOT_SYNCED: the book of ETHUSDT is not in sync with the exchange (SUSPENDED)"),
            (("status", "NOPE"), "SYMBOL_NOT_SERVED: NOPE is not served here; served: ETHUSDT"),
        ):
            assert await chronobook(running.address, *arguments) == (1, "", f"chronobook: {line}\n")
    code, _, errors = await chronobook(f"127.0.0.1:{free_port()}", "status")
    assert (code, errors.count("\n")) == (1, 1)
    assert errors.startswith("chronobook: UNREACHABLE: ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["quantity"], "a PRICE is needed"),
        (["nearest", "ETHUSDT", "much"], "the last word must be the PRICE, and 'much' is not a number"),
        (["book", "--at", "2026-01-01T00:00:00"], "has no offset"),
        (["book", "--at", "yesterday"], "neither Unix seconds nor a date"),
        (["book", "--live", "--at", "1"], "--live begins now"),
        (["book", "--live"], "--live draws on a terminal"),
        (["export"], "a FILE is needed"),
        (["export", "ETHUSDT"], "the last word must be a FILE that ends in .parquet or .npz"),
    ],
)
def test_what_cannot_be_understood_is_exit_code_2(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("as_json", [True, False])
async def test_watching_prints_every_message_and_ends_quietly(as_json: bool) -> None:
    fed = HandFed()
    fed.sync()
    async with served(fed) as running:
        process = await asyncio.create_subprocess_exec(
            str(COMMAND), "watch", "99", "--server", running.address, *(["--json"] if as_json else []),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        first = (await process.stdout.readline()).decode()
        fed.change(time=10_500, bids=[("99.00", "4.00")])
        second = (await process.stdout.readline()).decode()
        if as_json:
            assert (json.loads(first)["kind"], json.loads(second)["change"]) == ("STATE", 2.5)
        else:
            assert first == (
                "1970-01-01T00:00:10.000Z  STATE      quantity=1.5 side=BID update_id=1010"
                " complete_to=1970-01-01T00:00:09.999Z\n"
            )
            assert second == "1970-01-01T00:00:10.500Z  CHANGE     quantity=4 change=2.5 side=BID update_id=1020\n"
        process.send_signal(signal.SIGINT)
        _, errors = await process.communicate()
        assert (process.returncode, errors) == (0, b"")


async def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    fed = HandFed()
    fed.sync()
    fed.change(time=11_000, bids=[(f"{number / 100:.2f}", "1.00") for number in range(1, 9000)])
    async with served(fed) as running:
        process = await asyncio.create_subprocess_shell(
            f"{COMMAND} --server {running.address} book | head -n 2",
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        output, errors = await process.communicate()
        assert (len(output.splitlines()), errors) == (2, b"")


async def test_an_interval_goes_into_a_file(tmp_path: Path) -> None:
    fed = HandFed()
    fed.sync()
    fed.change(time=10_500, bids=[("99.00", "4.00")])
    fed.change(time=11_000, asks=[("101.00", "0.00")])
    async with served(fed) as running:
        for name in ("book.parquet", "book.npz"):
            code, output, errors = await chronobook(running.address, "export", "ETHUSDT", str(tmp_path / name))
            assert (code, errors) == (0, "")
            # The newest millisecond may still get another event; with --to it is waited for.
            assert output.splitlines()[1].split() == ["rows", "5"]
        frame = pd.read_parquet(tmp_path / "book.parquet")
        assert frame[["kind", "side", "price", "quantity"]].to_numpy().tolist() == [
            ["STATE", "BID", 99.0, 1.5],
            ["STATE", "BID", 98.0, 2.0],
            ["STATE", "ASK", 101.0, 3.25],
            ["STATE", "ASK", 102.0, 4.0],
            ["CHANGE", "BID", 99.0, 4.0],
        ]
        code, output, _ = await chronobook(
            running.address, "export", str(tmp_path / "part.npz"), "--from", "10.4", "--to", "10.9", "--json"
        )
        assert (code, json.loads(output)["rows"], json.loads(output)["end"]) == (0, 5, 10.5)
        code, output, errors = await chronobook(running.address, "export", "BTCUSDT", str(tmp_path / "not.npz"))
        assert (code, output, errors.split(":")[1]) == (1, "", " SYMBOL_NOT_SERVED")
        code, output, errors = await chronobook(running.address, "export", str(tmp_path / "no" / "folder.npz"))
        assert (code, output, errors.count("\n")) == (1, "", 1)
    assert names_in(tmp_path) == ["book.npz", "book.parquet", "part.npz"]


async def test_a_live_book_is_drawn_in_place_and_ends_quietly() -> None:
    fed = HandFed()
    fed.sync()
    screen, terminal = pty.openpty()
    os.set_blocking(screen, False)
    seen = ""
    async with served(fed) as running:
        process = await asyncio.create_subprocess_exec(
            str(COMMAND), "book", "--live", "--server", running.address,
            stdout=terminal, stderr=terminal, env={**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "24"},
        )  # fmt: skip

        def shows(text: str) -> bool:
            nonlocal seen
            with contextlib.suppress(BlockingIOError):
                seen += os.read(screen, 1 << 16).decode()
            return text in seen

        await until(lambda: shows("live"))
        fed.change(time=10_500, bids=[("99.00", "77.00")])
        await until(lambda: shows("77"))
        assert "\x1b[1A" in seen, "it did not go up again, to draw in the same place"
        fed.market.closed()
        fed.clock.seconds += 60
        fed.market.tick()
        await until(lambda: shows("lost: "))
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 0
        shows("")
        assert "Traceback" not in seen
    os.close(screen)
    os.close(terminal)


async def test_a_live_book_for_programs() -> None:
    fed = HandFed()
    fed.sync()
    async with served(fed) as running:
        process = await asyncio.create_subprocess_exec(
            str(COMMAND), "book", "--live", "--limit", "1", "--json", "--server", running.address,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        state = json.loads(await process.stdout.readline())
        assert (state["kind"], state["bid_prices"], state["ask_prices"]) == ("STATE", [99.0], [101.0])
        process.send_signal(signal.SIGINT)
        _, errors = await process.communicate()
        assert (process.returncode, errors) == (0, b"")
