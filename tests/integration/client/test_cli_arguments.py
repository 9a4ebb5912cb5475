"""Requests of each form of a command, and the outcome of missing answers."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc.status_pb2 import Status

from chronobook import cli
from chronobook.v1 import order_book_service_pb2 as pb
from testkit.fakes.contract_server import Fake, refusal
from testkit.harness.waiting import PATIENCE

QUANTITY = pb.GetQuantityRequest
BOOK = pb.GetOrderBookRequest
CHANGES = pb.ListLevelChangesRequest
BEST = pb.ListBestPricesRequest


@pytest.mark.parametrize(
    ("command", "request_sent"),
    [
        ("status", pb.GetStatusRequest()),
        ("status ETHUSDT", pb.GetStatusRequest(symbol="ETHUSDT")),
        ("--json status ETHUSDT", pb.GetStatusRequest(symbol="ETHUSDT")),
        ("status --json 币安USDT", pb.GetStatusRequest(symbol="币安USDT")),
        ("history ethusdt", pb.GetHistoryRequest(symbol="ethusdt")),
        ("book", BOOK()),
        ("book ETHUSDT --limit 5 --at 0", BOOK(symbol="ETHUSDT", limit=5, timestamp=0)),
        ("book --limit 5 ETHUSDT", BOOK(symbol="ETHUSDT", limit=5)),
        ("book --at 2023-12-21T01:50:56.25Z", BOOK(timestamp=1703123456.25)),
        ("book --at 2023-12-21T03:50:56+02:00", BOOK(timestamp=1703123456)),
        ("quantity 2681.62", QUANTITY(price=2681.62)),
        ("quantity ETHUSDT 2681.62", QUANTITY(symbol="ETHUSDT", price=2681.62)),
        ("quantity ETHUSDT 2681.62 --json", QUANTITY(symbol="ETHUSDT", price=2681.62)),
        ("quantity ETHUSDT --json 2681.62", QUANTITY(symbol="ETHUSDT", price=2681.62)),
        ("quantity --at 1703123456.25 --json ETHUSDT 5", QUANTITY(symbol="ETHUSDT", price=5, timestamp=1703123456.25)),
        ("quantity ETHUSDT --at -1.5 5", QUANTITY(symbol="ETHUSDT", price=5, timestamp=-1.5)),
        ("quantity ETHUSDT -5", QUANTITY(symbol="ETHUSDT", price=-5)),
        ("nearest 5", pb.NearestLevelRequest(price=5)),
        ("nearest ETHUSDT 5", pb.NearestLevelRequest(symbol="ETHUSDT", price=5)),
        (
            "nearest ETHUSDT 5 --at 7.5 --side bid",
            pb.NearestLevelRequest(symbol="ETHUSDT", price=5, timestamp=7.5, side=pb.BID),
        ),
        ("nearest 5 --side ASK --json", pb.NearestLevelRequest(price=5, side=pb.ASK)),
        ("changes 5", CHANGES(price=5, page_size=10_000)),
        ("changes --json 5", CHANGES(price=5, page_size=10_000)),
        (
            "changes ETHUSDT 5 --from 1.5 --to 1970-01-01T00:00:02Z",
            CHANGES(symbol="ETHUSDT", price=5, start_timestamp=1.5, end_timestamp=2, page_size=10_000),
        ),
        ("best", BEST(page_size=10_000)),
        (
            "best --from 0 ETHUSDT --to 2 --json",
            BEST(symbol="ETHUSDT", start_timestamp=0, end_timestamp=2, page_size=10_000),
        ),
        ("watch ETHUSDT 5", pb.WatchLevelRequest(symbol="ETHUSDT", price=5)),
        (
            "watch 5 --from 1.5 --to 2 --min-change 0.5",
            pb.WatchLevelRequest(price=5, start_timestamp=1.5, end_timestamp=2, min_change=0.5),
        ),
    ],
)
def test_what_is_asked(
    fake: Fake, monkeypatch: pytest.MonkeyPatch, command: str, request_sent: Message, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CHRONOBOOK_SERVER", fake.target)
    fake.answer = ANSWERS[type(request_sent)]
    fake.messages = [pb.WatchLevelResponse(kind=pb.WatchLevelResponse.END, cause=pb.INTERVAL_OVER)]

    assert cli.main(command.split()) == 0
    assert fake.requests == [request_sent]
    if "--json" in command:
        assert isinstance(json.loads(capsys.readouterr().out), dict)


ANSWERS: dict[type[Message], Message] = {
    pb.GetStatusRequest: pb.GetStatusResponse(),
    pb.GetOrderBookRequest: pb.GetOrderBookResponse(),
    pb.GetQuantityRequest: pb.GetQuantityResponse(),
    pb.NearestLevelRequest: pb.NearestLevelResponse(),
    pb.GetHistoryRequest: pb.GetHistoryResponse(),
    pb.ListLevelChangesRequest: pb.ListLevelChangesResponse(),
    pb.ListBestPricesRequest: pb.ListBestPricesResponse(),
    pb.WatchLevelRequest: Status(),
}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["frobnicate"], "invalid choice"),
        (["status", "A", "B"], "one word too many: 'B'"),
        (["quantity", "A", "B", "5"], "one word too many: 'B'"),
        (["quantity", "5", "ETHUSDT"], "'ETHUSDT' is not a number"),
        (["quantity", "5", "--limit", "3"], "unknown option --limit"),
        (["status", "--to", "3"], "unknown option --to"),
        (["status", "--token", "secret"], "unknown option --token"),
        (["status", "--frobnicate"], "unknown option --frobnicate"),
        (["nearest", "5", "--side", "left"], "'left' is neither bid nor ask"),
        (["nearest", "5", "--from", "3"], "unknown option --from"),
        (["changes", "ETHUSDT"], "'ETHUSDT' is not a number"),
        (["changes", "5", "--from", "yesterday"], "neither Unix seconds nor a date"),
        (["best", "ETHUSDT", "5"], "one word too many: '5'"),
        (["best", "--at", "5"], "unknown option --at"),
        (["book", "--limit", "0"], "not a whole number from 1 up"),
        (["book", "--limit", "2147483648"], "not a whole number from 1 up"),
        (["status", "\udcff"], "is not text"),
    ],
)
def test_what_makes_no_sense_is_never_asked(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(arguments)

    assert said in capsys.readouterr().err


def test_the_option_beats_the_environment(
    fake: Fake, nobody: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.answer = pb.GetStatusResponse(symbol="ETHUSDT")
    monkeypatch.setenv("CHRONOBOOK_SERVER", nobody)

    assert cli.main(["status"]) == 1
    assert cli.main(["--server", fake.target, "status"]) == 0
    assert cli.main(["status", "--server", fake.target]) == 0
    assert capsys.readouterr().err.startswith("chronobook: UNREACHABLE: ")


@pytest.mark.parametrize(
    "command", ["status", "book", "quantity 5", "nearest 5", "history", "changes 5", "best", "watch 5"]
)
def test_a_refusal_is_one_line(fake: Fake, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    fake.answer = refusal(grpc.StatusCode.NOT_FOUND, "LEVEL_UNKNOWN")

    assert cli.main([*command.split(), "--server", fake.target, "--json"]) == 1
    assert capsys.readouterr() == ("", "chronobook: LEVEL_UNKNOWN: about LEVEL_UNKNOWN\n")


def start(fake: Fake, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [Path(sys.executable).with_name("chronobook"), "--server", fake.target, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(("command", "code"), [(("watch", "5"), 0), (("status",), 130)])
def test_ctrl_c_is_quiet(fake: Fake, command: tuple[str, ...], code: int) -> None:
    process = start(fake, *command)
    assert fake.asked.wait(PATIENCE)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=PATIENCE)

    assert (process.returncode, output, errors) == (code, "", "")
    assert fake.left.wait(PATIENCE)


def test_the_module_is_the_command_too(fake: Fake) -> None:
    fake.answer = pb.GetStatusResponse(symbol="ETHUSDT")
    done = subprocess.run(
        [sys.executable, "-m", "chronobook.cli", "status", "--json"],
        env={**os.environ, "CHRONOBOOK_SERVER": fake.target},
        capture_output=True,
        text=True,
        check=True,
    )

    assert json.loads(done.stdout)["symbol"] == "ETHUSDT"
    assert done.stderr == ""


def test_a_closed_pipe_is_no_error_even_for_a_short_answer(fake: Fake) -> None:
    process = start(fake, "status")
    assert fake.asked.wait(PATIENCE)
    assert process.stdout is not None
    process.stdout.close()  # before the answer can come
    fake.release(pb.GetStatusResponse(symbol="ETHUSDT"))
    _, errors = process.communicate(timeout=PATIENCE)

    assert (process.returncode, errors) == (0, "")
