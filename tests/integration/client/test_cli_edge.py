"""The command through an edge: its options and environment variables, and its messages for unusable ones."""

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.rpc.status_pb2 import Status

from chronobook import cli
from chronobook.v1 import order_book_service_pb2 as pb
from testkit.fakes.contract_server import Fake
from testkit.fakes.guarded_server import Guarded, guarding

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("SERVER", "TLS", "CA", "CERT", "KEY", "TOKEN"):
        monkeypatch.delenv(f"CHRONOBOOK_{name}", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Guarded]:
    with guarding(tmp_path) as running:
        running.fake.answer = pb.GetStatusResponse(symbol="ETHUSDT")
        yield running


def files(guarded: Guarded) -> list[str]:
    tls = guarded.tls
    return ["--ca", str(tls.ca), "--cert", str(tls.certificate), "--key", str(tls.key)]


def test_options_reach_through_an_edge(guarded: Guarded, tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "token").write_text("valid\n")
    connection = ["--server", guarded.fake.target, *files(guarded), "--token-file", "token"]

    assert cli.main(["status", "--json", *connection]) == 0
    assert cli.main([*connection, "--tls", "status"]) == 0
    assert capsys.readouterr().err == ""
    assert [sent["authorization"] for sent in guarded.guard.seen] == ["Bearer valid"] * 2


def test_the_environment_reaches_through_an_edge(
    guarded: Guarded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    (tmp_path / "token").write_text("newer")
    guarded.guard.tokens = {"valid", "newer"}
    for name, value in (("CA", guarded.tls.ca), ("CERT", guarded.tls.certificate), ("KEY", guarded.tls.key)):
        monkeypatch.setenv(f"CHRONOBOOK_{name}", str(value))
    monkeypatch.setenv("CHRONOBOOK_SERVER", guarded.fake.target)
    monkeypatch.setenv("CHRONOBOOK_TOKEN", "valid")

    assert cli.main(["status"]) == 0
    assert cli.main(["status", "--token-file", "token"]) == 0
    assert capsys.readouterr().err == ""
    assert [sent["authorization"] for sent in guarded.guard.seen] == ["Bearer valid", "Bearer newer"]


@pytest.mark.parametrize(("value", "is_reached"), [("1", False), ("0", True), ("", True)])
def test_tls_can_be_a_matter_of_the_environment(
    fake: Fake, monkeypatch: pytest.MonkeyPatch, value: str, is_reached: bool
) -> None:
    fake.answer = pb.GetStatusResponse()
    fake.messages = [pb.WatchLevelResponse(kind=pb.WatchLevelResponse.END, cause=pb.INTERVAL_OVER)]
    monkeypatch.setenv("CHRONOBOOK_TLS", value)

    assert cli.main(["watch", "5", "--server", fake.target]) == (0 if is_reached else 1)
    assert len(fake.requests) == is_reached


def test_a_fault_names_its_request_and_a_refusal_does_not(guarded: Guarded, fake: Fake, capsys: Captured) -> None:
    assert cli.main(["status", "--server", guarded.fake.target, *files(guarded)]) == 1
    name = guarded.guard.ids[0]
    assert capsys.readouterr().err == f"chronobook: UNAUTHENTICATED: Jwt is missing (request {name})\n"
    for code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN):
        fake.answer = Status(code=code.value[0], message="it broke")
        assert cli.main(["status", "--json", "--server", fake.target]) == 1
        assert capsys.readouterr().err.startswith(f"chronobook: {code.name}: it broke (request ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--ca", "missing.pem"], "No such file or directory: 'missing.pem'"),
        (["--cert", "missing.pem", "--key", "missing.key"], "No such file or directory: 'missing.pem'"),
        (["--cert", "text"], "a certificate needs its key"),
        (["--key", "text"], "a certificate needs its key"),
        (["--ca", "text"], "text is not a certificate in PEM"),
        (["--cert", "text", "--key", "text"], "text and text are not a certificate and its key"),
        (["--tls", "--token-file", "missing"], "No such file or directory: 'missing'"),
        (["--tls", "--token-file", "text"], "text does not hold a token"),
        (["--tls", "--token-file", "empty"], "empty does not hold a token"),
        (["--token-file", "token"], "a token is sent to books.example.com:443 over TLS only"),
    ],
)
def test_what_is_no_use_is_told_of_in_one_line(
    arguments: list[str], said: str, tmp_path: Path, capsys: Captured
) -> None:
    (tmp_path / "text").write_text("some text")
    (tmp_path / "token").write_text("valid")
    (tmp_path / "empty").touch()

    assert cli.main(["status", "--server", "books.example.com:443", *arguments]) == 1
    output, errors = capsys.readouterr()
    assert (output, errors.count("\n"), errors.startswith("chronobook: ")) == ("", 1, True)
    assert said in errors


def test_a_token_file_is_read_anew_when_a_stream_goes_on(guarded: Guarded, tmp_path: Path, capsys: Captured) -> None:
    kinds = pb.WatchLevelResponse
    (tmp_path / "token").write_text("valid")
    guarded.fake.messages = [kinds(kind=kinds.STATE, price=5, timestamp=2, update_id=20)]
    guarded.fake.answer = Status(code=grpc.StatusCode.UNAVAILABLE.value[0], message="the connection broke")

    def expire() -> None:
        guarded.guard.tokens = {"renewed"}
        (tmp_path / "token").write_text("renewed" if len(guarded.guard.seen) == 1 else "expired")

    guarded.guard.afterwards = expire
    connection = ["--server", guarded.fake.target, *files(guarded), "--token-file", "token"]
    assert cli.main(["watch", "5", "--json", *connection]) == 1
    assert [sent["authorization"] for sent in guarded.guard.seen] == [
        "Bearer valid",
        "Bearer renewed",
        "Bearer expired",
    ]
    output, errors = capsys.readouterr()
    assert len(output.splitlines()) == 2
    assert "UNAUTHENTICATED" in errors
