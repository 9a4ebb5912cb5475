from chronobook_server.venue.subscription_watchdog import BEHIND_SECONDS, FIRST_FRAME_SECONDS, SubscriptionWatchdog


def test_a_stream_without_any_frame_is_resubscribed_ever_less() -> None:
    watch = SubscriptionWatchdog(0.0)
    due = [second for second in range(1000) if watch.claim_subscription(float(second), is_owing=False)]
    assert due == [10, 30, 70, 150, 310, 610, 910]
    assert FIRST_FRAME_SECONDS == 10


def test_a_served_stream_may_be_quiet_for_ever() -> None:
    watch = SubscriptionWatchdog(0.0)
    watch.frame(1)
    assert not any(watch.claim_subscription(float(second), is_owing=False) for second in range(10_000))


def test_a_stream_behind_other_knowledge_is_resubscribed() -> None:
    watch = SubscriptionWatchdog(0.0)
    watch.frame(1)
    assert not watch.claim_subscription(100.0, is_owing=True)
    assert not watch.claim_subscription(100.0 + BEHIND_SECONDS - 1, is_owing=True)
    assert watch.claim_subscription(100.0 + BEHIND_SECONDS, is_owing=True)
    assert not watch.is_served


def test_progress_or_having_caught_up_is_enough_not_to_be_behind() -> None:
    watch = SubscriptionWatchdog(0.0)
    watch.frame(1)
    for second in range(0, 1000, 4):
        assert not watch.claim_subscription(float(second), is_owing=True)
        watch.frame(2 + second)
    assert not watch.claim_subscription(2000.0, is_owing=True)
    assert not watch.claim_subscription(2003.0, is_owing=False)
    assert not watch.claim_subscription(2006.0, is_owing=True)


def test_a_frame_that_brings_nothing_new_is_no_progress() -> None:
    watch = SubscriptionWatchdog(0.0)
    due = []
    for second in range(200):
        watch.frame(7)
        if watch.claim_subscription(float(second), is_owing=True):
            due.append(second)
    assert due == [5, 16, 37, 58, 79, 100, 121, 142, 163, 184]
