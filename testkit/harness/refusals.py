"""The errors of the service in one shape, whether they came over gRPC or REST."""

from dataclasses import dataclass
from typing import Any

import grpc
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from grpc_status import rpc_status


@dataclass(frozen=True)
class Refusal:
    """A refusal: numeric gRPC code, reason, metadata, fields named, and whether a retry is advised."""

    code: int
    reason: str
    metadata: dict[str, str]
    fields: tuple[str, ...]
    has_retry: bool


def from_json(body: Any) -> Refusal:
    """Read the JSON of google.rpc.Status."""
    details = {detail["@type"].rpartition(".")[2]: detail for detail in body["details"]}
    info = details["ErrorInfo"]
    assert info["domain"] == "chronobook"
    assert body["message"]
    violations = details.get("BadRequest", {"field_violations": []})["field_violations"]
    assert all(violation["description"] for violation in violations)
    return Refusal(
        body["code"],
        info["reason"],
        info["metadata"],
        tuple(violation["field"] for violation in violations),
        "RetryInfo" in details,
    )


def from_rpc(error: grpc.aio.AioRpcError) -> Refusal:
    """Read the details of a gRPC error."""
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    assert status is not None
    info, bad_request, retry = ErrorInfo(), BadRequest(), RetryInfo()
    has_retry = False
    for detail in status.details:
        for message in (info, bad_request, retry):
            if detail.Is(message.DESCRIPTOR):
                detail.Unpack(message)
                has_retry = has_retry or message is retry
    assert info.domain == "chronobook"
    return Refusal(
        status.code,
        info.reason,
        dict(info.metadata),
        tuple(violation.field for violation in bad_request.field_violations),
        has_retry,
    )
