"""Health and reflection, whose streams have the same places as those of the service."""

from collections.abc import AsyncIterator, Sequence
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2
from grpc_reflection.v1alpha import reflection

from chronobook_server.core.errors import InvalidField, Refusal

from . import runs
from .callers import Callers
from .calls import UNREADABLE
from .errors import abort
from .places import Places

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
# Of the services here. What a caller watches is kept by its name.
_LONGEST_NAME = 128


class Health(health.aio.HealthServicer):
    """The health service; it knows whether anybody relies on it."""

    def __init__(self, callers: Callers, places: Places) -> None:
        super().__init__()
        self.is_asked = False
        self._callers = callers
        self._places = places

    def handler(self) -> grpc.GenericRpcHandler:
        """Return its methods. A watch reads its request itself, since gRPC would keep that for as long as it lives."""
        answer = health_pb2.HealthCheckResponse
        methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "Check": grpc.unary_unary_rpc_method_handler(self._check, None, answer.SerializeToString),
            "Watch": grpc.stream_stream_rpc_method_handler(self._watch, None, answer.SerializeToString),
        }
        return grpc.method_handlers_generic_handler(health.SERVICE_NAME, methods)

    async def _check(self, data: bytes, context: _Context) -> Any:
        """Answer how things stand."""
        self.is_asked = True
        try:
            request = _read(data)
        except Refusal as refusal:
            await abort(context, refusal)
        return await self.Check(request, context)

    async def _watch(self, _: Any, context: _Context) -> None:
        """Tell how things stand, and whenever that changes."""
        self.is_asked = True
        try:
            async with runs.placed(self._places, self._callers, context):
                data = await runs.request_of(context, runs.MOST_BYTES)
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
    return health_pb2.HealthCheckRequest(service=request.service)  # without what is unknown in it


class Reflection:
    """The reflection service."""

    def __init__(self, names: Sequence[str], callers: Callers, places: Places) -> None:
        self._inner: Any = reflection.aio.ReflectionServicer(names)
        self._callers = callers
        self._places = places

    async def ServerReflectionInfo(self, requests: AsyncIterator[Any], context: _Context) -> AsyncIterator[Any]:  # noqa: N802
        """Answer questions about the contract."""
        try:
            async with runs.placed(self._places, self._callers, context):
                async for answer in self._inner.ServerReflectionInfo(requests, context):
                    yield answer
        except Refusal as refusal:
            await abort(context, refusal)
