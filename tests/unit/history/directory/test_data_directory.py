import errno
import fcntl
import json
import os
import stat
from pathlib import Path

import pytest

from chronobook_server.domain.stream_id import depth_of
from chronobook_server.history.directory.data_directory import DataDirectory, DirectoryRefused
from chronobook_server.history.query.history import SymbolHistory
from chronobook_server.history.segment.cache import CacheBudget
from testkit.fakes.memory_files import InlineSealer
from testkit.generators.stored_histories import SEGMENT_MS, SYMBOL, answers, log_header, records
from testkit.harness.epochs import feed

EXCHANGE = "https://fapi.binance.com"


def open_symbol(directory: DataDirectory, symbol: str = SYMBOL) -> SymbolHistory:
    return directory.open(
        depth_of(symbol), InlineSealer(), retention_ms=10**9, cache_budget=CacheBudget(), segment_ms=SEGMENT_MS
    )


def refused(path: Path, exchange: str = EXCHANGE) -> str:
    """Return the one line that says why a directory cannot be used."""
    with pytest.raises(DirectoryRefused) as caught:
        DataDirectory(path, exchange)
    line = str(caught.value)
    assert "\n" not in line
    assert str(path) in line
    return line


def test_a_directory_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "some" / "data"
    directory = DataDirectory(path, EXCHANGE)
    store = open_symbol(directory)
    feed(store, records(1, events=40))
    for made in (path, path / SYMBOL):
        assert stat.S_IMODE(made.stat().st_mode) == 0o700
    files = [made for made in path.rglob("*") if made.is_file()]
    assert len(files) > 3
    for made in files:
        assert stat.S_IMODE(made.stat().st_mode) == 0o600, made
    directory.close()


def test_what_one_server_wrote_the_next_one_reads(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path, EXCHANGE)
    stores = {symbol: open_symbol(directory, symbol) for symbol in ("ETHUSDT", "BTCUSDT")}
    for seed, store in enumerate(stores.values()):
        feed(store, records(seed, events=60))
    said = {}
    for symbol, store in stores.items():
        (interval,) = store.coverage()
        times = range(interval.start, interval.end, 100)
        said[symbol] = (times, answers(store, times))
        store.close()
    directory.close()
    again = DataDirectory(tmp_path, EXCHANGE)
    for symbol, (times, expected) in said.items():
        assert answers(open_symbol(again, symbol), times) == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["BTCUSDT", "ETHUSDT", "lock", "origin.json"]
    again.close()


def test_a_second_server_is_refused_until_the_first_one_lets_go(tmp_path: Path) -> None:
    first = DataDirectory(tmp_path, EXCHANGE)
    assert refused(tmp_path) == f"the data directory {tmp_path} is in use by another server"
    assert refused(tmp_path) == f"the data directory {tmp_path} is in use by another server"
    first.close()
    DataDirectory(tmp_path, EXCHANGE).close()


def test_a_lock_removed_by_hand_lets_no_one_in_and_is_retaken(tmp_path: Path) -> None:
    first = DataDirectory(tmp_path, EXCHANGE)
    (tmp_path / "lock").unlink()
    assert refused(tmp_path) == f"the data directory {tmp_path} is in use by another server"
    (tmp_path / "lock").unlink(missing_ok=True)
    first.check()
    assert not can_lock(tmp_path / "lock")
    first.check()
    first.close()
    assert can_lock(tmp_path / "lock")


def can_lock(path: Path) -> bool:
    """Return whether a server of an older version, which locks the file alone, would be let in."""
    with path.open("r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def test_a_server_whose_lock_another_one_took_is_told_to_end(tmp_path: Path) -> None:
    first = DataDirectory(tmp_path, EXCHANGE)
    (tmp_path / "lock").unlink()
    with (tmp_path / "lock").open("w+b") as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with pytest.raises(DirectoryRefused, match=r"is in use by another server$"):
            first.check()
    first.close()


def test_where_a_directory_cannot_be_locked_the_file_in_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = fcntl.flock

    def files_only(descriptor: int, operation: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EBADF, "Bad file descriptor")
        real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", files_only)
    first = DataDirectory(tmp_path, EXCHANGE)
    assert refused(tmp_path) == f"the data directory {tmp_path} is in use by another server"
    first.check()
    first.close()
    DataDirectory(tmp_path, EXCHANGE).close()


def test_a_directory_that_is_another_one_now_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "data"
    first = DataDirectory(path, EXCHANGE)
    path.rename(tmp_path / "elsewhere")
    with pytest.raises(DirectoryRefused, match="is gone"):
        first.check()
    path.mkdir()
    with pytest.raises(DirectoryRefused, match=r"was replaced by another one$"):
        first.check()
    first.close()


def test_another_exchanges_history_is_refused_and_let_go(tmp_path: Path) -> None:
    DataDirectory(tmp_path, EXCHANGE).close()
    line = refused(tmp_path, "http://127.0.0.1:9001")
    assert line == f"the data directory {tmp_path} holds the history of {EXCHANGE}, not of http://127.0.0.1:9001"
    DataDirectory(tmp_path, EXCHANGE).close()


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"3", b"null", b'{"version": 1}', b'{"exchange": "x"}', b"\xff\xfe", b'"text"']
)
def test_an_unreadable_origin_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "origin.json").write_bytes(content)
    assert refused(tmp_path) == f"{tmp_path / 'origin.json'} cannot be read, so the exchange of this history is unknown"
    assert (tmp_path / "origin.json").read_bytes() == content


def test_an_origin_that_is_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "origin.json").mkdir()
    assert refused(tmp_path).startswith(f"the data directory {tmp_path} cannot be used: ")


def test_another_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "origin.json").write_text(json.dumps({"version": 2, "exchange": EXCHANGE}))
    assert refused(tmp_path) == f"{tmp_path / 'origin.json'} has version 2; this server reads version 1"


def test_what_is_no_directory_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    assert refused(file).startswith(f"the data directory {file} cannot be used: ")
    assert refused(file / "below").startswith(f"the data directory {file / 'below'} cannot be used: ")
    assert file.read_text() == "mine"


def test_a_file_of_a_format_that_is_not_known_costs_itself(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path, EXCHANGE)
    (tmp_path / SYMBOL).mkdir()
    (tmp_path / SYMBOL / "000000000001000.log").write_bytes(log_header(9) + b" what only a later server can read")
    store = open_symbol(directory)
    assert store.damaged_files == {
        "000000000001000.log": "000000000001000.log has format version 9; this server reads version 2"
    }
    directory.close()
