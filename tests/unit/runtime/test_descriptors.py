"""The budget of file descriptors."""

from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from chronobook_server.history.segment.cache import OPEN_FILES
from chronobook_server.runtime import descriptors
from testkit.harness.whole_system import settings_for

LEAST = 16


@pytest.mark.parametrize("is_all", [False, True])
def test_parts_share_what_the_limit_leaves(tmp_path: Path, *, is_all: bool) -> None:
    settings = replace(
        settings_for(tmp_path, symbols=("A", "B"), rest_url="http://e", stream_url="ws://e"), all_symbols=is_all
    )
    before = descriptors.shared(settings, 64)
    assert (before.files, before.connections) == (LEAST, LEAST)
    fixed = before.needed - OPEN_FILES - 1024
    for had in range(fixed, 40_000, 37):
        budget = descriptors.shared(settings, had)
        assert budget.files >= before.files
        assert budget.connections >= before.connections
        if had >= fixed + 2 * LEAST:
            assert fixed + budget.files + budget.connections <= had
        if had >= budget.needed:
            assert budget.connections >= 1024
        before = budget
    assert (before.files, before.connections) == (OPEN_FILES, 16_384)
    assert descriptors.shared(settings, before.needed).files == OPEN_FILES


def test_a_low_limit_is_a_warning(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, symbols=("A",), rest_url="http://e", stream_url="ws://e")
    with capture_logs() as logs:
        descriptors.warn(descriptors.shared(settings, 200))
        descriptors.warn(descriptors.shared(settings, 100_000))
    assert [(each["log_level"], each["event"], each["had"]) for each in logs] == [("warning", "descriptors", 200)]
    assert logs[0]["needed"] > 200
