"""Health and reflection; their streams share the places of the service's streams."""

from collections.abc import AsyncIterator, Sequence
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2
from grpc_reflection.v1alpha import reflection

from chronobook_server.api import call_kinds
from chronobook_server.api.admission import AdmissionLimit
from chronobook_server.api.callers import Callers
from chronobook_server.api.error_mapping import abort
from chronobook_server.api.middleware import UNREADABLE
from chronobook_server.domain.errors import InvalidField, Refusal

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
# Characters of a service's name at most: the names here are shorter, and the health service stores watched names.
_LONGEST_NAME = 128


class Health(health.aio.HealthServicer):
    """Health service; `is_asked` tells whether a client uses it."""

    def __init__(self, callers: Callers, places: AdmissionLimit) -> None:
        super().__init__()
        self.is_asked = False
        self._callers = callers
        self._places = places

    def handler(self) -> grpc.GenericRpcHandler:
        """Return its methods. A watch reads its request itself, because gRPC would keep it until the watch ends."""
        answer = health_pb2.HealthCheckResponse
        methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "Check": grpc.unary_unary_rpc_method_handler(self._check, None, answer.SerializeToString),
            "Watch": grpc.stream_stream_rpc_method_handler(self._watch, None, answer.SerializeToString),
        }
        return grpc.method_handlers_generic_handler(health.SERVICE_NAME, methods)

    async def _check(self, data: bytes, context: _Context) -> Any:
        """Return the health."""
        self.is_asked = True
        try:
            request = _read(data)
        except Refusal as refusal:
            await abort(context, refusal)
        return await self.Check(request, context)

    async def _watch(self, _: Any, context: _Context) -> None:
        """Send the health now and at every change."""
        self.is_asked = True
        try:
            async with call_kinds.placed(self._places, self._callers, context):
                data = await call_kinds.request_of(context, call_kinds.MOST_BYTES)
                if data is not None:
                    await self.Watch(_read(data), context)
        except Refusal as refusal:
            await abort(context, refusal)


def _read(data: bytes) -> health_pb2.HealthCheckRequest:
    """Read a question about health. Raises InvalidField."""
    try:
        request = health_pb2.HealthCheckRequest.FromString(data)
    except DecodeError:
        raise UNREADABLE from None
    if len(request.service) > _LONGEST_NAME:
        raise InvalidField(("service", f"has more than {_LONGEST_NAME} characters"))
    return health_pb2.HealthCheckRequest(service=request.service)  # without unknown fields


class Reflection:
    """The reflection service."""

    def __init__(self, names: Sequence[str], callers: Callers, places: AdmissionLimit) -> None:
        self._inner: Any = reflection.aio.ReflectionServicer(names)
        self._callers = callers
        self._places = places

    async def ServerReflectionInfo(self, requests: AsyncIterator[Any], context: _Context) -> AsyncIterator[Any]:  # noqa: N802
        """Answer questions about the contract."""
        try:
            async with call_kinds.placed(self._places, self._callers, context):
                async for answer in self._inner.ServerReflectionInfo(requests, context):
                    yield answer
        except Refusal as refusal:
            await abort(context, refusal)
