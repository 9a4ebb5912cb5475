from google.rpc.error_details_pb2 import ErrorInfo

from chronobook.v1.errors_pb2 import ErrorReason
from chronobook_server.api.error_mapping import TABLE, status_of
from chronobook_server.domain import errors
from chronobook_server.domain.values import Millis

REFUSALS = {
    "INVALID_FIELD": errors.InvalidField(("price", "is required")),
    "SYMBOL_NOT_SERVED": errors.SymbolNotServed("X", ("A", "B")),
    "IN_THE_FUTURE": errors.InTheFuture(2e12, Millis(10**12)),
    "BEFORE_HISTORY": errors.BeforeHistory(5.0, Millis(10**12)),
    "HISTORY_GAP": errors.HistoryGap(start=Millis(1), end=None, cause="DISCONNECT"),
    "LEVEL_UNKNOWN": errors.LevelUnknown("x", lowest=None, highest=5.25),
    "NOT_SYNCED": errors.NotSynced("X", "BUFFERING"),
    "TOO_OLD": errors.TooOld(age=2.0, max_age=1.0),
    "TOO_BUSY": errors.TooBusy(),
    "DISK_BUSY": errors.DiskBusy(),
    "DEADLINE_PASSED": errors.DeadlineExceeded(),
    "SLOW_CONSUMER": errors.SlowConsumer(Millis(3)),
}


def test_every_refusal_has_a_row_and_every_reason_a_refusal() -> None:
    subclasses = set(errors.Refusal.__subclasses__())
    assert set(TABLE) == subclasses == {type(refusal) for refusal in REFUSALS.values()}
    assert set(REFUSALS) | {"ERROR_REASON_UNSPECIFIED", "SERVER_FAULT"} == set(ErrorReason.keys())


def test_a_refusal_becomes_a_status_with_its_reason_first() -> None:
    for reason, refusal in REFUSALS.items():
        status, info = status_of(refusal), ErrorInfo()
        assert status.details[0].Unpack(info)
        assert (info.reason, info.domain) == (reason, "chronobook")
        assert status.message == str(refusal)
        assert status.code


def test_what_is_not_known_is_left_out_of_the_metadata() -> None:
    info = ErrorInfo()
    status_of(REFUSALS["LEVEL_UNKNOWN"]).details[0].Unpack(info)
    assert dict(info.metadata) == {"known_highest": "5.25"}
    status_of(REFUSALS["HISTORY_GAP"]).details[0].Unpack(info)
    assert dict(info.metadata) == {"gap_start": "0.001", "cause": "DISCONNECT"}
