"""The gRPC server: the service, health, and reflection on one port."""

import asyncio
import os
from collections.abc import Mapping
from typing import Any

import grpc
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from chronobook.v1 import order_book_service_pb2 as pb
from chronobook_server.core.coverage import Cause
from chronobook_server.hub.watch import HEARTBEAT_SECONDS
from chronobook_server.market import Market
from chronobook_server.settings import Tls

from .calls import MethodCounts, Places, counted
from .handlers import OrderBookHandlers

SERVICE = pb.DESCRIPTOR.services_by_name["OrderBookService"].full_name
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_OPTIONS = (
    # Two servers on one port would each get half of the calls; the second one is to fail instead.
    ("grpc.so_reuseport", 0),
    ("grpc.max_concurrent_streams", 10_000),
    # By default some of the calls that come while a thousand wait to be begun are thrown away, by chance, as CANCELLED.
    ("grpc.server.max_pending_requests", 10_000),
    ("grpc.server.max_pending_requests_hard_limit", 20_000),
    ("grpc.max_receive_message_length", 1 << 20),
    # Envoy passes headers on that are 16 kB large, a path twice. By default some above 8 kB are refused by chance.
    ("grpc.max_metadata_size", 48 << 10),
    ("grpc.absolute_max_metadata_size", 64 << 10),
    # Clients may ask as often as every ten seconds whether we are still there.
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
)
# A reader that is gone without a word (its machine has stopped, its network is cut) is noticed after these two.
_PING_MS, _PONG_MS = 30_000, 20_000
# Calls under way at once, nearly all of them streams; more are refused. One Envoy lets 10,000 through.
MOST_CALLS = 15_000
# Methods whose answers are bytes already.
_BYTES = ("GetQuantity",)
# Questions whose answers are long: together they could take all there is of time and memory.
_LONG = ("GetOrderBook", "BatchGetQuantity", "ListLevelChanges", "ListBestPrices")


def _methods(
    handlers: OrderBookHandlers, calls: dict[str, MethodCounts], *, log_calls: bool
) -> "dict[str, grpc.RpcMethodHandler[Any, Any]]":
    """Return the service's methods by name, of bytes: what cannot be read is refused as everything else is.

    Streams write bytes themselves: a message is made once for all who get it.
    """
    methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
    places = Places()
    for method in pb.DESCRIPTOR.services_by_name["OrderBookService"].methods:
        counts = calls[method.name] = MethodCounts()
        is_stream = method.server_streaming
        write = bytes if method.name in _BYTES else GetMessageClass(method.output_type).SerializeToString
        handle = counted(
            counts,
            getattr(handlers, method.name),
            method=method.name,
            read=GetMessageClass(method.input_type).FromString,
            write=None if is_stream else write,
            places=places if method.name in _LONG else None,
            log_calls=log_calls,
        )
        kind = grpc.unary_stream_rpc_method_handler if is_stream else grpc.unary_unary_rpc_method_handler
        methods[method.name] = kind(handle)
    return methods


class _Unregistered:
    """A server to which generated code adds a service that it looks up by name.

    Of each method that is registered grpc.aio waits for the next call by itself, and at every call goes through them
    all: with sixteen of them, that is a twentieth of what a question costs.
    """

    def __init__(self, server: grpc.aio.Server) -> None:
        self.add_generic_rpc_handlers = server.add_generic_rpc_handlers

    def add_registered_method_handlers(self, service: str, methods: object) -> None:
        """Leave them to the generic handler, which has been added just before."""


class _Health(health.aio.HealthServicer):
    """The health service; it knows whether anybody relies on it."""

    is_asked = False

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Answer how things stand."""
        self.is_asked = True
        return await super().Check(request, context)

    async def Watch(self, request: Any, context: Any) -> None:  # noqa: N802
        """Tell how things stand, and whenever that changes."""
        self.is_asked = True
        await super().Watch(request, context)


def _credentials(tls: Tls) -> grpc.ServerCredentials:
    shown = (tls.key.read_bytes(), tls.certificate.read_bytes())
    clients = None if tls.authority is None else tls.authority.read_bytes()
    return grpc.ssl_server_credentials([shown], clients, require_client_auth=clients is not None)


class PortInUse(OSError):
    """The address to listen on cannot be had."""


class Server:
    """The gRPC face of a set of markets, at `address` ("host:port"; port 0 takes a free one, see `port`)."""

    def __init__(
        self,
        markets: Mapping[str, Market],
        *,
        default_symbol: str = "",
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
        log_calls: bool = False,
    ) -> None:
        self.port = 0
        self._markets = markets
        pings = (
            ("grpc.keepalive_time_ms", _PING_MS),
            ("grpc.keepalive_timeout_ms", _PONG_MS),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.http2.ping_timeout_ms", _PONG_MS),
        )
        self._server = grpc.aio.server(options=(*_OPTIONS, *pings), maximum_concurrent_rpcs=MOST_CALLS)
        self._health = _Health()
        handlers = OrderBookHandlers(markets, default_symbol=default_symbol, heartbeat_seconds=heartbeat_seconds)
        self.calls: dict[str, MethodCounts] = {}
        methods = _methods(handlers, self.calls, log_calls=log_calls)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
        unregistered: Any = _Unregistered(self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, unregistered)
        named = (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflected = reflection.aio.ReflectionServicer(named)
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(reflected, unregistered)  # type: ignore[no-untyped-call]

    async def start(self, address: str, tls: Tls | None = None, *, is_ready: bool = True) -> None:
        """Listen, and say whether questions can be answered. Raises PortInUse."""
        # A socket in the file system is for this user and its group.
        before = os.umask(0o117)
        try:
            if tls is None:
                self.port = self._server.add_insecure_port(address)
            else:
                self.port = self._server.add_secure_port(address, _credentials(tls))
        except RuntimeError:
            self.port = 0
        finally:
            os.umask(before)
        if self.port == 0:
            raise PortInUse(f"cannot listen on {address}: the port is in use, or the address is not of this machine")
        await self._health.set(SERVICE, _NOT_SERVING)
        await self._health.set("", _SERVING if is_ready else _NOT_SERVING)
        await self._server.start()

    async def ready(self) -> None:
        """Say that questions can be answered."""
        await self._health.set("", _SERVING)

    async def synced(self) -> None:
        """Say that a first symbol is in sync."""
        await self._health.set(SERVICE, _SERVING)

    async def drain(self, seconds: float) -> None:
        """Turn health, and go on for as long as those who ask about it may take to see that. At once if nobody asks."""
        await self._health.enter_graceful_shutdown()
        if self._health.is_asked:
            await asyncio.sleep(seconds)

    async def stop(self, grace: float) -> None:
        """Turn health, end the streams with a reason, and let calls finish for up to `grace` seconds."""
        await self._health.enter_graceful_shutdown()
        for market in self._markets.values():
            market.hub.end_all(Cause.SHUTDOWN)
        await self._server.stop(grace)
