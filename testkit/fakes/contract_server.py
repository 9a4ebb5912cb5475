"""Fake server of the contract with scripted answers; it records its requests."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import Future
from typing import Any, NoReturn

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from chronobook.v1 import order_book_service_pb2 as pb
from chronobook.v1.order_book_service_pb2_grpc import OrderBookServiceServicer, add_OrderBookServiceServicer_to_server
from chronobook_server.api.error_mapping import NOT_AGAIN
from testkit.harness.waiting import PATIENCE

Context = grpc.aio.ServicerContext[Any, Any]


def refusal(
    code: grpc.StatusCode, reason: str, *details: Message, domain: str = "chronobook", **metadata: str
) -> Status:
    """Return a status as the server sends it."""
    status = Status(code=code.value[0], message=f"about {reason}")
    for detail in (ErrorInfo(reason=reason, domain=domain, metadata=metadata), *details):
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    return status


async def _abort(context: Context, status: Status) -> NoReturn:
    """End a call; one without details is not the service's, but of something on the way to it."""
    sent = rpc_status.to_status(status)
    pushback = [NOT_AGAIN] if status.details else []
    await context.abort(sent.code, sent.details or "", (*(sent.trailing_metadata or ()), *pushback))
    raise AssertionError("abort does not return")


class Fake(OrderBookServiceServicer):
    """Answers each call with `answer`: a response, a Status to refuse with, or None for no answer at all.

    `answers` take its place one after the other, if there are any. A stream sends `messages`, then goes on as `answer`
    says: None leaves it open, an empty Status ends it well.
    """

    def __init__(self) -> None:
        self.answer: Message | None = None
        self.answers: list[Message] = []
        self.messages: list[pb.WatchLevelResponse] = []
        self.book_messages: list[pb.WatchOrderBookResponse] = []
        self.requests: list[Message] = []
        self.asked = threading.Event()
        self.left = threading.Event()  # a handler was cancelled
        self.target = ""
        self._released: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def release(self, answer: Message) -> None:
        """Answer the call that waits because there was no answer."""
        assert self._loop is not None
        assert self._released is not None
        self.answer = answer
        self._loop.call_soon_threadsafe(self._released.set)

    async def _answer(self, request: Message, context: Context) -> Any:
        self._loop, self._released = asyncio.get_running_loop(), asyncio.Event()
        self.requests.append(request)
        self.asked.set()
        if self.answers:
            self.answer = self.answers.pop(0)
        try:
            if self.answer is None:
                await self._released.wait()
        except asyncio.CancelledError:
            self.left.set()
            raise
        if isinstance(self.answer, Status) and self.answer.code:
            await _abort(context, self.answer)
        return self.answer

    async def GetStatus(self, request: pb.GetStatusRequest, context: Context) -> pb.GetStatusResponse:  # noqa: N802
        return await self._answer(request, context)  # type: ignore[no-any-return]

    async def GetOrderBook(  # noqa: N802
        self, request: pb.GetOrderBookRequest, context: Context
    ) -> pb.GetOrderBookResponse:
        return await self._answer(request, context)  # type: ignore[no-any-return]

    async def GetQuantity(  # noqa: N802
        self, request: pb.GetQuantityRequest, context: Context
    ) -> pb.GetQuantityResponse:
        return await self._answer(request, context)  # type: ignore[no-any-return]

    async def NearestLevel(  # noqa: N802
        self, request: pb.NearestLevelRequest, context: Context
    ) -> pb.NearestLevelResponse:
        return await self._answer(request, context)  # type: ignore[no-any-return]

    async def GetHistory(self, request: pb.GetHistoryRequest, context: Context) -> pb.GetHistoryResponse:  # noqa: N802
        return await self._answer(request, context)  # type: ignore[no-any-return]

    async def ListSymbols(self, request: pb.ListSymbolsRequest, context: Context) -> pb.ListSymbolsResponse:  # noqa: N802
        return await self._answer(request, context)  # type: ignore[no-any-return]

    async def ListLevelChanges(  # noqa: N802
        self, request: pb.ListLevelChangesRequest, context: Context
    ) -> pb.ListLevelChangesResponse:
        return await self._answer(request, context)  # type: ignore[no-any-return]

    async def ListBestPrices(  # noqa: N802
        self, request: pb.ListBestPricesRequest, context: Context
    ) -> pb.ListBestPricesResponse:
        return await self._answer(request, context)  # type: ignore[no-any-return]

    async def BatchGetQuantity(  # noqa: N802
        self, request: pb.BatchGetQuantityRequest, context: Context
    ) -> pb.BatchGetQuantityResponse:
        return await self._answer(request, context)  # type: ignore[no-any-return]

    async def WatchLevel(  # noqa: N802
        self, request: pb.WatchLevelRequest, context: Context
    ) -> AsyncIterator[pb.WatchLevelResponse]:
        for message in self.messages:
            yield message
        await self._answer(request, context)

    async def WatchOrderBook(  # noqa: N802
        self, request: pb.WatchOrderBookRequest, context: Context
    ) -> AsyncIterator[pb.WatchOrderBookResponse]:
        for message in self.book_messages:
            yield message
        await self._answer(request, context)


Started = Future[tuple[int, asyncio.AbstractEventLoop, asyncio.Event]]


async def _serve(
    fake: Fake,
    started: Started,
    credentials: grpc.ServerCredentials | None,
    interceptors: Sequence[grpc.aio.ServerInterceptor],
) -> None:
    server, stop = grpc.aio.server(interceptors=interceptors), asyncio.Event()
    add_OrderBookServiceServicer_to_server(fake, server)
    address = "127.0.0.1:0"
    port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    await server.start()
    started.set_result((port, asyncio.get_running_loop(), stop))
    await stop.wait()
    await server.stop(0)


@contextlib.contextmanager
def serving(
    credentials: grpc.ServerCredentials | None = None, interceptors: Sequence[grpc.aio.ServerInterceptor] = ()
) -> Iterator[Fake]:
    """Serve a Fake on a free port of loopback, in a thread and loop of its own, so that blocking clients can ask it."""
    fake = Fake()
    started: Started = Future()
    thread = threading.Thread(target=lambda: asyncio.run(_serve(fake, started, credentials, interceptors)), daemon=True)
    thread.start()
    port, loop, stop = started.result(PATIENCE)
    fake.target = f"127.0.0.1:{port}"
    try:
        yield fake
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(PATIENCE)
