"""The gRPC server: the service, health, and reflection on one port."""

import asyncio
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health, health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from chronobook.v1 import order_book_service_pb2 as pb
from chronobook_server.api import bodies, call_kinds
from chronobook_server.api.admission import AdmissionLimit, Desk
from chronobook_server.api.callers import Callers
from chronobook_server.api.handlers import OrderBookHandlers
from chronobook_server.api.health_reflection import Health, Reflection
from chronobook_server.api.middleware import RpcCounters, Run, instrumented
from chronobook_server.config.settings import Tls
from chronobook_server.domain.coverage import Cause
from chronobook_server.streaming.reader_queue import HEARTBEAT_SECONDS
from chronobook_server.symbols.queries import SymbolQueries

SERVICE = pb.DESCRIPTOR.services_by_name["OrderBookService"].full_name
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_OPTIONS = (
    # With SO_REUSEPORT, two servers on one port would each get half of the calls; the second one has to fail instead.
    ("grpc.so_reuseport", 0),
    ("grpc.max_concurrent_streams", 10_000),
    # A connection that says nothing holds a descriptor; by default gRPC waits for two minutes.
    ("grpc.server_handshake_timeout_ms", 10_000),
    # By default gRPC randomly cancels new calls while a thousand wait to be begun.
    ("grpc.server.max_pending_requests", 10_000),
    ("grpc.server.max_pending_requests_hard_limit", 20_000),
    # No header is remembered between calls: gRPC would take one caller's bad header for that of later callers. The
    # option is here and not in Envoy's settings, because gRPC ignores those in its answer to a call that fails early.
    ("grpc.http2.hpack_table_size.decoder", 0),
    ("grpc.max_receive_message_length", 1 << 20),
    # Envoy passes on headers of up to 16 kB, and a path twice. By default gRPC randomly refuses some above 8 kB.
    ("grpc.max_metadata_size", 48 << 10),
    ("grpc.absolute_max_metadata_size", 64 << 10),
    # Clients may send a ping as often as every ten seconds.
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
)
# A reader that is gone silently (its machine has stopped, its network is cut) is noticed after the sum of these two.
_PING_MS, _PONG_MS = 30_000, 20_000
# Calls under way at once, nearly all of them streams; any more are refused.
MOST_CALLS = 15_000
# Streams under way at once, shared fairly among callers. Envoy lets more through, so that this limit decides.
MOST_STREAMS = 10_000
# Long questions under way at once, shared fairly among callers: AT_ONCE are worked on, others wait or are being sent.
MOST_LONG, AT_ONCE = 68, 4
# Methods whose answers are bytes already.
_BYTES = ("GetQuantity",)
# Questions with long answers: together they could take all time and memory.
_LONG = ("GetOrderBook", "BatchGetQuantity", "ListLevelChanges", "ListBestPrices")


# Requests that may be larger than others, in bytes: JSON as large as Envoy lets through, and 10,000 pairs.
_MOST_BYTES = {"GetQuantity": 68 << 10, "BatchGetQuantity": 800 << 10}


@dataclass(frozen=True)
class _Shared:
    """Parts that callers share fairly."""

    callers: Callers
    streams: AdmissionLimit
    long: AdmissionLimit
    desk: Desk


def _methods(
    handlers: OrderBookHandlers, calls: dict[str, RpcCounters], shared: _Shared, *, log_calls: bool
) -> "dict[str, grpc.RpcMethodHandler[Any, Any]]":
    """Return the service's methods by name. They take bytes, so an unreadable request is refused like any other.

    gRPC takes streaming methods for streams of requests too, so that they read their only request themselves.
    """
    methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
    for method in pb.DESCRIPTOR.services_by_name["OrderBookService"].methods:
        counts = calls[method.name] = RpcCounters()
        handle: Any = getattr(handlers, method.name)
        read = bodies.reader(GetMessageClass(method.input_type))
        write = bytes if method.name in _BYTES else GetMessageClass(method.output_type).SerializeToString
        most_bytes = _MOST_BYTES.get(method.name, call_kinds.MOST_BYTES)
        run: Run
        if method.server_streaming:
            run = call_kinds.stream(handle, read, callers=shared.callers, places=shared.streams)
        elif method.name in _LONG:
            run = call_kinds.long(
                handle, read, write, most_bytes, callers=shared.callers, places=shared.long, desk=shared.desk
            )
        else:
            run = call_kinds.single(handle, read, write, most_bytes)
        kind: Any = grpc.unary_unary_rpc_method_handler
        if method.server_streaming:
            kind = grpc.stream_stream_rpc_method_handler
        counting = instrumented(counts, run, method=method.name, is_stream=method.server_streaming, log_calls=log_calls)
        methods[method.name] = kind(counting)
    return methods


class _Unregistered:
    """A server to which generated code adds a service that it looks up by name.

    grpc.aio waits for each registered method separately, and scans all of them at every call: with sixteen methods,
    that is a twentieth of a question's cost.
    """

    def __init__(self, server: grpc.aio.Server) -> None:
        self.add_generic_rpc_handlers = server.add_generic_rpc_handlers

    def add_registered_method_handlers(self, service: str, methods: object) -> None:
        """Do nothing: the generic handler, added just before, serves these methods."""


def _credentials(tls: Tls) -> grpc.ServerCredentials:
    shown = (tls.key.read_bytes(), tls.certificate.read_bytes())
    clients = None if tls.authority is None else tls.authority.read_bytes()
    return grpc.ssl_server_credentials([shown], clients, require_client_auth=clients is not None)


class PortInUse(OSError):
    """The address to listen on cannot be had."""


class Server:
    """The gRPC face of a set of symbols, at `address` ("host:port"; port 0 takes a free one, see `port`)."""

    def __init__(
        self,
        symbols: Mapping[str, SymbolQueries],
        *,
        default_symbol: str = "",
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
        log_calls: bool = False,
        gateway_name: str | None = None,
        task_error: Callable[[], str | None] = lambda: None,
        most_connections: int | None = None,
    ) -> None:
        self.port = 0
        self._symbols = symbols
        pings = (
            ("grpc.keepalive_time_ms", _PING_MS),
            ("grpc.keepalive_timeout_ms", _PONG_MS),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.http2.ping_timeout_ms", _PONG_MS),
        )
        most = () if most_connections is None else (("grpc.max_allowed_incoming_connections", most_connections),)
        self._server = grpc.aio.server(options=(*_OPTIONS, *pings, *most), maximum_concurrent_rpcs=MOST_CALLS)
        handlers = OrderBookHandlers(
            symbols, default_symbol=default_symbol, heartbeat_seconds=heartbeat_seconds, task_error=task_error
        )
        self.calls: dict[str, RpcCounters] = {}
        self.streams, self.long = AdmissionLimit(MOST_STREAMS), AdmissionLimit(MOST_LONG)
        self._callers = Callers(gateway_name)
        shared = _Shared(self._callers, self.streams, self.long, Desk(AT_ONCE))
        methods = _methods(handlers, self.calls, shared, log_calls=log_calls)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
        self._health = Health(shared.callers, self.streams)
        self._server.add_generic_rpc_handlers((self._health.handler(),))
        unregistered: Any = _Unregistered(self._server)
        named = (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflected = Reflection(named, shared.callers, self.streams)
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(reflected, unregistered)  # type: ignore[no-untyped-call]

    async def start(self, address: str, tls: Tls | None = None, *, is_ready: bool = True) -> None:
        """Listen, and report readiness in the health service. Raises PortInUse."""
        self._callers.is_tls = tls is not None
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
        """Report that questions can be answered."""
        await self._health.set("", _SERVING)

    async def synced(self) -> None:
        """Report that a first symbol is in sync."""
        await self._health.set(SERVICE, _SERVING)

    async def drain(self, seconds: float) -> None:
        """Fail health, and serve for `seconds` more, in which its callers can see that; return at once without any."""
        await self._health.enter_graceful_shutdown()
        if self._health.is_asked:
            await asyncio.sleep(seconds)

    async def stop(self, grace: float) -> None:
        """Fail health, end the streams with a reason, and let calls finish for up to `grace` seconds."""
        await self._health.enter_graceful_shutdown()
        for queries in self._symbols.values():
            queries.broker.end_all(Cause.SHUTDOWN)
        await self._server.stop(grace)
