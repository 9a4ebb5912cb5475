"""Numbers of causes in files. They never change; a new cause gets the next number."""

from chronobook_server.domain.coverage import Cause

CAUSES = {
    1: Cause.DISCONNECT,
    2: Cause.CHAIN_BREAK,
    3: Cause.CROSSED_BOOK,
    4: Cause.RESTART,
    5: Cause.DISK,
    6: Cause.DAMAGED,
    7: Cause.OVERLOAD,
    8: Cause.EXCHANGE_SILENT,
    9: Cause.NOT_TRADING,
    10: Cause.AUDIT_MISMATCH,
}
NUMBERS = {cause: number for number, cause in CAUSES.items()}
