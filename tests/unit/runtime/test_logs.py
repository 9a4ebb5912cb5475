import pytest
import structlog

from chronobook_server.runtime.app import configure_logs


def test_nothing_in_the_log_moves_a_cursor(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    before = structlog.get_config()
    try:
        configure_logs()
        log = structlog.get_logger("x")
        log.warning("said", text="\x1b[2J\r\x07 \u202e\udcff", number=5, symbols=["\x1b[31m"])
        try:
            raise ValueError("\x1b]0;title\x07")
        except ValueError:
            log.exception("failed")
    finally:
        structlog.configure(**before)
    errors = capsys.readouterr().err
    assert len(errors.splitlines()) == 2
    assert all(line.isprintable() for line in errors.splitlines())
    assert "number=5" in errors
    assert "ValueError" in errors
