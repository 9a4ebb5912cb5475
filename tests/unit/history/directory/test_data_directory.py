import errno
import fcntl
import json
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from chronobook_server.domain.cooperative import run_now
from chronobook_server.domain.records import Keyframe, Update
from chronobook_server.domain.stream_id import StreamId, StreamKind, depth_of
from chronobook_server.domain.values import Millis
from chronobook_server.history.directory.data_directory import DataDirectory, DirectoryRefused, trim
from chronobook_server.history.directory.unserved import UnservedHistory
from chronobook_server.history.query.history import SymbolHistory
from chronobook_server.history.segment.cache import CacheBudget
from chronobook_server.history.write import seal
from chronobook_server.storage.files import ASIDE, DiskFiles
from testkit.fakes.memory_files import InlineSealer, MemoryFiles, PatientSealer
from testkit.generators.stored_histories import SEGMENT_MS, STREAM, SYMBOL, answers, log_header, opened, records
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


def test_only_folders_with_files_of_ours_are_symbols(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path, EXCHANGE)
    for name in ("lost+found", ".snapshot", "empty"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "notes.seg").write_text("mine")
    (tmp_path / "0001.seg").write_text("mine")
    (tmp_path / "ETHUSDT").mkdir()
    (tmp_path / "ETHUSDT" / "000000001000000.log").write_text("ours")
    assert directory.streams() == [depth_of("ETHUSDT")]
    assert list(directory.leftovers({})) == [depth_of("ETHUSDT")]
    assert directory.leftovers({depth_of("ETHUSDT")}) == {}
    directory.close()


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


def test_a_symbol_s_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / SYMBOL).write_text("mine")
    directory = DataDirectory(tmp_path, EXCHANGE)
    with pytest.raises(DirectoryRefused, match=f"^{tmp_path / SYMBOL} cannot be used: "):
        open_symbol(directory)
    directory.close()


def test_a_file_of_a_format_that_is_not_known_costs_itself(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path, EXCHANGE)
    (tmp_path / SYMBOL).mkdir()
    (tmp_path / SYMBOL / "000000000001000.log").write_bytes(log_header(9) + b" what only a later server can read")
    store = open_symbol(directory)
    assert store.damaged_files == {
        "000000000001000.log": "000000000001000.log has format version 9; this server reads version 2"
    }
    directory.close()


# --- retention


def filled(seed: int, *, later: int = 0, files: MemoryFiles | None = None) -> SymbolHistory:
    """Return a history whose epoch begins that much later than another one's."""
    store = opened(files or MemoryFiles())
    feed(store, (shifted(record, later) for record in records(seed)))
    return store


def shifted(record: object, by: int) -> Keyframe | Update:
    assert isinstance(record, Keyframe | Update)
    return replace(record, transaction_time=Millis(record.transaction_time + by))


def test_the_oldest_segments_of_any_symbol_are_dropped_first() -> None:
    stores = [filled(1), filled(2, later=2500)]
    starts = [store.oldest_start() for store in stores]
    ends = [store.complete_to for store in stores]
    limit = sum(store.size_bytes for store in stores)
    trim(stores, limit)
    assert [store.oldest_start() for store in stores] == starts
    dropped: list[int] = []
    while sum(store.segments for store in stores) > 4:
        limit -= 1
        before = [(store.oldest_start(), store.segments) for store in stores]
        trim(stores, limit)
        assert sum(store.size_bytes for store in stores) <= limit
        for (start, segments), store in zip(before, stores, strict=True):
            if store.segments < segments:
                assert start is not None
                dropped.append(start)
        limit = sum(store.size_bytes for store in stores)
    assert dropped == sorted(dropped)
    assert len(dropped) > 5
    assert [store.complete_to for store in stores] == ends


def test_whole_files_go_and_the_answers_of_all_others_stay() -> None:
    files = MemoryFiles()
    store = filled(1, files=files)
    (interval,) = store.coverage()
    times = range(interval.start, interval.end, 90)
    before = answers(store, times)
    names = files.names()
    trim([store], store.size_bytes - 1)
    assert files.names() == names[1:]
    start = store.oldest_start()
    assert start is not None
    assert start > interval.start
    for (price, time), said in answers(store, times).items():
        assert said == (before[price, time] if time >= start else None)
    assert store.coverage()[0].start == start
    assert opened(files).oldest_start() == start


def test_the_newest_segment_stays_however_small_the_limit() -> None:
    stores = [filled(1), filled(2)]
    trim(stores, 0)
    assert [store.segments for store in stores] == [1, 1]
    assert all(store.complete_to is not None and store.size_bytes > 0 for store in stores)
    trim([], 0)
    trim([opened(MemoryFiles())], 0)


def test_what_is_not_sealed_yet_stays() -> None:
    patient = PatientSealer()
    store = opened(MemoryFiles(), sealer=patient)
    for record in records(1):
        store.append(record)
    held = store.segments
    trim([store], 0)
    assert store.segments == held
    patient.work()
    trim([store], 0)
    assert store.segments == 1


def test_by_age_whole_segments_go_and_what_is_young_enough_stays() -> None:
    files = MemoryFiles()
    store = opened(files, retention_ms=2500)
    first: int | None = None
    for record in records(3):
        store.append(record)
        if not isinstance(record, Update):
            continue
        starts = [int(name.partition(".")[0]) for name in files.names()]
        first = starts[0] if first is None else first
        assert starts[0] == store.oldest_start()
        assert starts[0] <= max(first, record.transaction_time - 2500)
        # It is looked at whenever a segment begins.
        assert len(starts) < 2 or starts[1] > record.transaction_time - 2500 - SEGMENT_MS
    assert store.segments < 6


@pytest.mark.parametrize("is_by_age", [True, False])
def test_an_answer_in_the_making_survives_its_segments_drop(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, is_by_age: bool
) -> None:
    monkeypatch.setattr(seal, "CHUNK_ROWS", 4)
    directory = DataDirectory(tmp_path, EXCHANGE)
    store = directory.open(
        STREAM, InlineSealer(), retention_ms=60_000, cache_budget=CacheBudget(), segment_ms=SEGMENT_MS
    )
    stream = records(1)
    feed(store, stream)
    (interval,) = store.coverage()
    start = interval.start
    expected = run_now(store.book_at(start))
    pages = run_now(store.best_between(interval.start, interval.end, limit=10**6))
    again = open_again(directory, store)
    book = again.book_at(start)
    next(book)
    best = again.best_between(interval.start, interval.end, limit=10**6)
    next(best)
    names = {path.name for path in (tmp_path / SYMBOL).iterdir()}
    if is_by_age:
        feed(again, (shifted(record, 200_000) for record in stream))
    else:
        trim([again], 0)
    assert not names & {path.name for path in (tmp_path / SYMBOL).iterdir() if path.suffix == ".seg"} - {max(names)}
    made = run_now(book)
    assert made.prices.tolist() == expected.prices.tolist()
    assert made.quantities.tolist() == expected.quantities.tolist()
    page = run_now(best)
    # The page has the part read before; a part that was dropped meanwhile is not in its stretches.
    assert page.stretches[0].start == start
    assert page.rows.times.tolist()[0] == pages.rows.times.tolist()[0]
    directory.close()


def open_again(directory: DataDirectory, store: SymbolHistory) -> SymbolHistory:
    """Return the same history with nothing unpacked."""
    store.close()
    return directory.open(
        STREAM, InlineSealer(), retention_ms=60_000, cache_budget=CacheBudget(), segment_ms=SEGMENT_MS
    )


DAY = 86_400.0
NOW = 1_795_442_400.0


def test_a_refusal_of_the_exchange_is_remembered(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path, "https://exchange")
    assert directory.held_until(NOW) == 0
    directory.hold(NOW + 30, NOW)
    directory.close()
    again = DataDirectory(tmp_path, "https://exchange")
    assert again.held_until(NOW + 10) == NOW + 30
    assert again.held_until(NOW + 30) == 0
    assert again.held_until(NOW - 3600) == NOW - 3600 + 30, "the clock went back; the ban is no longer for it"
    (tmp_path / "held.json").write_text(json.dumps(NOW + 1234.5))  # as older servers wrote it
    assert again.held_until(NOW) == NOW + 1234.5
    assert again.streams() == []
    again.close()


@pytest.mark.parametrize(
    "content",
    [
        "nonsense", "", "null", "true", "[]", "{}", '"12"', "NaN", "Infinity", "-Infinity", "-5", "1e999", "9" * 400,
        "9" * 5000, "[" * 100_000, str(NOW + 365 * DAY), str(NOW + 4.01 * DAY),
        json.dumps({"until": NOW + 365 * DAY, "written": NOW}),
        json.dumps({"until": NOW + 60, "written": NOW - 5 * DAY}),
        json.dumps({"until": NOW + 300 * DAY, "written": NOW + 299 * DAY}),
        json.dumps({"until": NOW + 4.5 * DAY, "written": NOW + 4.4 * DAY}),
        json.dumps({"until": "soon", "written": NOW}), json.dumps({"until": NOW + 9}), "\udc80",
    ],
)  # fmt: skip
def test_a_stored_time_that_no_ban_can_mean_is_ignored_and_told(tmp_path: Path, content: str) -> None:
    directory = DataDirectory(tmp_path, "https://exchange")
    (tmp_path / "held.json").write_bytes(content.encode(errors="surrogatepass"))
    with capture_logs() as logs:
        assert directory.held_until(NOW) == 0
    assert [log["event"] for log in logs] == ["hold_ignored"]
    directory.close()


@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "large"])
def test_a_stored_hold_that_is_no_small_file_is_not_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "held.json"
    match kind:
        case "link":
            path.symlink_to("/dev/zero")
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case _:
            path.write_text(" " * 2000 + str(NOW + 100))
    directory = DataDirectory(tmp_path, EXCHANGE)
    with capture_logs() as logs:
        assert directory.held_until(NOW) == 0
    assert [log["event"] for log in logs] == ["hold_ignored"]
    directory.close()


def test_only_folders_with_a_symbol_s_history_are_symbols(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path, EXCHANGE)
    stores = [open_symbol(directory, symbol) for symbol in (SYMBOL, "币安人生USDT")]
    for store in stores:
        feed(store, records(1, events=40))
        store.close()
    for name in (b"lost+found", b".snapshot", b"aside", b"\xff\xfe", b"BACKUP", b"A B", b"x\x1b[2J"):
        os.mkdir(os.path.join(os.fsencode(tmp_path), name))  # noqa: PTH102, PTH118
    (tmp_path / "NOTES").write_text("mine")
    with capture_logs() as logs:
        assert directory.streams() == [depth_of(symbol) for symbol in sorted([SYMBOL, "币安人生USDT"])]
    assert {log["event"] for log in logs} == {"folder_ignored"}
    assert len(logs) == 6  # of BACKUP there is nothing to tell: a symbol without history looks like that
    assert all(log["name"].isprintable() for log in logs)
    for refused in ("..", "a/b", "lower", "\0", ".X"):
        with pytest.raises(DirectoryRefused):
            open_symbol(directory, refused)
    directory.close()


def test_each_kind_of_data_has_a_folder_of_its_own(tmp_path: Path) -> None:
    depth, trades = depth_of("ETHUSDT"), StreamId("ETHUSDT", StreamKind.AGG_TRADE)
    directory = DataDirectory(tmp_path, EXCHANGE)
    for stream in (depth, trades):
        history = directory.open(
            stream, InlineSealer(), retention_ms=10**9, cache_budget=CacheBudget(), segment_ms=SEGMENT_MS
        )
        feed(history, records(1, events=40))
        history.close()
    names = {path.name for path in (tmp_path / "ETHUSDT@aggTrade").iterdir()}
    assert names == {path.name for path in (tmp_path / "ETHUSDT").iterdir()}
    assert directory.streams() == [trades, depth]
    leftovers = directory.leftovers({depth})
    assert list(leftovers) == [trades]
    leftovers[trades].expire(Millis(10**12))  # a known kind that is not served ages out
    assert not [name for name in (tmp_path / "ETHUSDT@aggTrade").iterdir() if name.suffix in (".seg", ".wal")]
    directory.drop_empty(trades)
    assert not (tmp_path / "ETHUSDT@aggTrade").exists()
    assert directory.streams() == [depth]
    directory.close()


def test_files_of_another_kind_are_not_this_ones(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path, EXCHANGE)
    store = open_symbol(directory, "ETHUSDT")
    feed(store, records(1, events=40))
    store.close()
    (tmp_path / "ETHUSDT").rename(tmp_path / "ETHUSDT@aggTrade")
    moved = directory.open(
        StreamId("ETHUSDT", StreamKind.AGG_TRADE), InlineSealer(), retention_ms=10**9, cache_budget=CacheBudget()
    )
    assert moved.coverage() == []
    assert set(moved.damaged_files.values()) == {f"{name} is of ETHUSDT on {EXCHANGE}" for name in moved.damaged_files}
    assert moved.damaged_files
    directory.close()


def test_a_folder_of_an_unknown_kind_is_told_and_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "ETHUSDT@liquidations"
    held = [folder / "000000001000000.seg", folder / ASIDE / "000000002000000.seg"]
    for path in held:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("of a later version")
    directory = DataDirectory(tmp_path, EXCHANGE)
    with capture_logs() as logs:
        assert directory.streams() == []
        assert directory.leftovers({}) == {}
    (told,) = logs
    assert (told["event"], told["name"]) == ("folder_ignored", "ETHUSDT@liquidations")
    assert told["reason"] == "this server does not know its kind of data"
    directory.drop_aside(10**12, 0)
    assert all(path.exists() for path in held)
    directory.close()


def test_an_undeletable_file_keeps_no_other_file_of_a_leftover(tmp_path: Path) -> None:
    files = DiskFiles(tmp_path / "ETHUSDT")
    (files.folder / "000000000000001.seg").mkdir()
    (files.folder / "000000000000002.wal").symlink_to(tmp_path / "nowhere")
    for start in (1000, 2000, 3000):
        files.write(f"{start:015d}.seg", b"sealed")
    leftover = UnservedHistory(files, segment_ms=1000)
    leftover.expire(Millis(3000))
    assert files.names() == ["000000000000001.seg", "000000000003000.seg"]
    assert leftover.drop_oldest()
    assert not leftover.drop_oldest()
    assert files.names() == ["000000000000001.seg"]
