"""How calls of each kind are run: single questions, long ones, and streams.

Long questions hold a place of their caller's share until their answer is sent, and streams for as long as they live.
Streams read their request themselves, after they have a place, and forget it as soon as its fields are read: gRPC would
keep the bytes of a request for as long as the call lives.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import grpc

from chronobook_server.core.coverage import Cause
from chronobook_server.core.errors import DeadlineExceeded, InvalidField, TooBusy
from chronobook_server.history.answers import ScaleGrew

from .callers import Callers
from .calls import Run
from .following import Following
from .places import Desk, Place, Places

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
_Read: TypeAlias = Callable[[bytes], Any]
_Write: TypeAlias = Callable[[Any], bytes]
_Handle: TypeAlias = Callable[[Any], Awaitable[Any]]

# A request has no more fields than fit into this, unknown ones included.
MOST_BYTES = 16 << 10
# The headers of a stream are kept for as long as it lives.
MOST_HEADER_BYTES = 16 << 10
# A request that does not come within this time holds no place any longer.
REQUEST_SECONDS = 10.0
# A call ends by itself a little before its deadline, so that its end can say why; of a short deadline, this part.
_MARGIN_SECONDS, _MARGIN = 0.1, 0.1
# The deadline of a stream by REST. As `grpc-timeout`, gRPC would end the call itself, and not say why.
_TOLD_TIMEOUT = "x-chronobook-timeout"
_TIMEOUT = re.compile("([0-9]{1,8})([HMSmun])")
_UNIT_SECONDS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
# A deadline that is farther away is none: the event loop cannot count so far.
_FAR_SECONDS = 1e6


def single(handle: _Handle, read: _Read, write: _Write, most_bytes: int = MOST_BYTES) -> Run:
    """Make a question of which any number may be under way. It is given its request."""

    async def run(data: bytes, _context: _Context) -> bytes:
        _check_size(data, most_bytes)
        while True:
            try:
                return write(await handle(read(data)))
            except ScaleGrew:
                continue  # rare, and the same question has an answer in the new scale

    return run


def long(
    handle: _Handle, read: _Read, write: _Write, most_bytes: int, *, callers: Callers, places: Places, desk: Desk
) -> Run:
    """Make a question whose answer is long. It holds a place until its answer is sent, and a turn until it is made."""
    answer = single(handle, read, write, most_bytes)

    async def worked_on(data: bytes, context: _Context, place: Place) -> bytes | None:
        await desk.begin(place.caller)
        try:
            return await answer(data, context)
        finally:
            desk.end()

    async def run(data: bytes, context: _Context) -> bytes | None:
        place = places.enter(callers.of(context), _this_task().cancel)
        # The answer is sent after this function, and takes memory until then.
        context.add_done_callback(lambda _: places.leave(place))  # type: ignore[arg-type]
        try:
            seconds = _seconds_left(context)
            if seconds is None:
                return await worked_on(data, context, place)
            async with asyncio.timeout(seconds):
                return await worked_on(data, context, place)
        except TimeoutError:
            raise DeadlineExceeded from None
        except asyncio.CancelledError:
            _raise_if_lost(place)
            raise

    return run


def stream(handle: Callable[[Any], Awaitable[Following[Any]]], read: _Read, *, callers: Callers, places: Places) -> Run:
    """Make a stream. It holds a place for as long as it lives; without one it ends, and says why."""

    async def run(_: Any, context: _Context) -> None:
        _check_headers(context)
        following: Following[Any] | None = None
        task = _this_task()

        def lose() -> None:
            if following is None:
                task.cancel()
            else:
                following.end(Cause.TOO_MANY_STREAMS)

        place = places.enter(callers.of(context), lose)
        timer = None
        try:
            data = await request_of(context, MOST_BYTES)
            if data is None:
                return
            following = await _begun(handle, read(data))
            del data
            seconds = _seconds_left(context)
            if seconds == 0.0:
                raise DeadlineExceeded
            if seconds is not None:
                timer = asyncio.get_running_loop().call_later(seconds, following.end, Cause.DEADLINE_EXCEEDED)
            await following.send_all(context.write)
        except asyncio.CancelledError:
            if following is None:
                _raise_if_lost(place)
            raise
        finally:
            if timer is not None:
                timer.cancel()
            if following is not None:
                following.close()
            places.leave(place)

    return run


@contextlib.asynccontextmanager
async def placed(places: Places, callers: Callers, context: _Context) -> AsyncIterator[Place]:
    """Hold a place around a block. Raises TooBusy where there is none, or where it goes to another caller."""
    place = places.enter(callers.of(context), _this_task().cancel)
    try:
        yield place
    except asyncio.CancelledError:
        _raise_if_lost(place)
        raise
    finally:
        places.leave(place)


def _this_task() -> "asyncio.Task[Any]":
    task = asyncio.current_task()
    assert task is not None, "a call is a task"
    return task


def _raise_if_lost(place: Place) -> None:
    """Raise TooBusy where a call was cancelled because its place is another caller's."""
    if place.is_lost:
        _this_task().uncancel()
        raise TooBusy from None


async def request_of(context: _Context, most_bytes: int) -> bytes | None:
    """Return the request of a call; None where the caller has left. Raises InvalidField where none comes."""
    try:
        async with asyncio.timeout(REQUEST_SECONDS):
            data: Any = await context.read()
    except TimeoutError:
        raise InvalidField(("request", f"does not come within {REQUEST_SECONDS:g} s")) from None
    if data is grpc.aio.EOF:
        return None
    _check_size(data, most_bytes)
    return bytes(data)


def _check_size(data: bytes, most_bytes: int) -> None:
    if len(data) > most_bytes:
        raise InvalidField(("request", f"has more than {most_bytes} bytes"))


def _check_headers(context: _Context) -> None:
    size = sum(len(key) + len(value) for key, value in context.invocation_metadata() or ())
    if size > MOST_HEADER_BYTES:
        raise InvalidField(("headers", f"have more than {MOST_HEADER_BYTES} bytes, which a stream would keep"))


async def _begun(handle: Callable[[Any], Awaitable[Following[Any]]], request: Any) -> Following[Any]:
    while True:
        try:
            return await handle(request)
        except ScaleGrew:
            continue


def _seconds_left(context: _Context) -> float | None:
    """Return how many seconds a call may still take; None where it has no deadline."""
    remaining: float | None = context.time_remaining()
    if remaining is None:
        remaining = _told_seconds(context)
    if remaining is None or remaining > _FAR_SECONDS:
        return None
    return max(0.0, remaining - min(_MARGIN_SECONDS, remaining * _MARGIN))


def _told_seconds(context: _Context) -> float | None:
    """Return the deadline that Envoy tells of a stream by REST; None where it tells none."""
    for key, value in context.invocation_metadata() or ():
        told = _TIMEOUT.fullmatch(value) if key == _TOLD_TIMEOUT and isinstance(value, str) else None
        if told is not None:
            return int(told[1]) * _UNIT_SECONDS[told[2]]
    return None
