"""A ban by the exchange outlives the server, in a file of the data directory."""

import json
import os
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from chronobook_server.history.directory.data_directory import DataDirectory
from tests.unit.history.directory.test_data_directory import EXCHANGE

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
