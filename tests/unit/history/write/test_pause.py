from chronobook_server.domain.values import Millis
from chronobook_server.history.write.pause import RETRY_MS, WritingPause


def test_attempts_are_apart_and_the_first_waits_too() -> None:
    pause = WritingPause()
    assert not pause.claim_attempt(Millis(10_000)), "nothing failed"
    pause.begin("No space left on device", Millis(10_000))
    assert pause.reason == "history is not being written: No space left on device"
    assert not pause.claim_attempt(Millis(10_000 + RETRY_MS - 1))
    assert pause.claim_attempt(Millis(10_000 + RETRY_MS))
    assert not pause.claim_attempt(Millis(10_000 + RETRY_MS)), "one attempt at a time"
    pause.begin("Input/output error", None)  # the attempt failed before it had an event
    assert pause.reason == "history is not being written: Input/output error"
    assert not pause.claim_attempt(Millis(10_000 + 2 * RETRY_MS - 1))
    assert pause.claim_attempt(Millis(10_000 + 2 * RETRY_MS))
    pause.end()
    assert not pause.reason
    assert not pause.claim_attempt(Millis(20_000))
