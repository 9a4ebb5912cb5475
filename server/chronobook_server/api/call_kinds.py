"""Runners of the kinds of call: single questions, long questions and streams.

A long question holds a place of its caller's share until its answer is sent, and a stream until it ends. A stream reads
its request itself, after it has a place, and forgets it once its fields are read. gRPC would keep the bytes of the
request until the call ends.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import grpc

from chronobook_server.api.admission import AdmissionLimit, Desk, DeskTurn, Place
from chronobook_server.api.callers import Callers
from chronobook_server.api.middleware import Run
from chronobook_server.api.stream_writer import StreamWriter
from chronobook_server.domain.coverage import Cause
from chronobook_server.domain.errors import DeadlineExceeded, InvalidField, TooBusy
from chronobook_server.system.time_slices import present_turn

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
_Read: TypeAlias = Callable[[bytes], Any]
_Write: TypeAlias = Callable[[Any], bytes]
_Handle: TypeAlias = Callable[[Any], Awaitable[Any]]

# Bytes of a request at most, with unknown fields; the largest valid one is far smaller.
MOST_BYTES = 16 << 10
# Bytes of a stream's headers at most, because gRPC keeps them until it ends.
MOST_HEADER_BYTES = 16 << 10
# A call without a request after this time loses its place.
REQUEST_SECONDS = 10.0
# A call ends this long before its deadline, or this part of a short one, so that its end can give the reason.
_MARGIN_SECONDS, _MARGIN = 0.1, 0.1
# The deadline of a stream by REST. With `grpc-timeout`, gRPC would end the call without a reason.
_TOLD_TIMEOUT = "x-chronobook-timeout"
_TIMEOUT = re.compile("([0-9]{1,8})([HMSmun])")
_UNIT_SECONDS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
# A deadline farther away counts as none, because the event loop's timers do not reach so far.
_FAR_SECONDS = 1e6


def single(handle: _Handle, read: _Read, write: _Write, most_bytes: int = MOST_BYTES) -> Run:
    """Make a runner of short questions without places. It gets the request as bytes."""

    async def run(data: bytes, _context: _Context) -> bytes:
        _check_size(data, most_bytes)
        return write(await handle(read(data)))

    return run


def long(
    handle: _Handle,
    read: _Read,
    write: _Write,
    most_bytes: int,
    *,
    callers: Callers,
    places: AdmissionLimit,
    desk: Desk,
) -> Run:
    """Make a runner of long questions. A call holds a place until its answer is sent, and a turn until it is made."""
    answer = single(handle, read, write, most_bytes)

    async def worked_on(data: bytes, context: _Context, place: Place) -> bytes | None:
        turn = DeskTurn(desk, place.caller)
        present_turn.set(turn)  # of this call's own task
        await turn.begin()
        try:
            return await answer(data, context)
        finally:
            turn.end()

    async def run(data: bytes, context: _Context) -> bytes | None:
        place = places.enter(callers.of(context), _this_task().cancel)
        # gRPC sends the answer after this function, and it takes memory until then.
        context.add_done_callback(lambda _: places.leave(place))  # type: ignore[arg-type]
        try:
            seconds = _within(context.time_remaining())
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


def stream(
    handle: Callable[[Any], Awaitable[StreamWriter[Any]]], read: _Read, *, callers: Callers, places: AdmissionLimit
) -> Run:
    """Make a runner of streams. A stream holds a place until it ends; without one it ends with TooBusy."""

    async def run(_: Any, context: _Context) -> None:
        _check_headers(context)
        following: StreamWriter[Any] | None = None
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
            following = await handle(read(data))
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
async def placed(places: AdmissionLimit, callers: Callers, context: _Context) -> AsyncIterator[Place]:
    """Hold a place during a block. Raises TooBusy if there is none, or if another caller gets it."""
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
    """Raise TooBusy if a call was cancelled because another caller got its place."""
    if place.is_lost:
        _this_task().uncancel()
        raise TooBusy from None


async def request_of(context: _Context, most_bytes: int) -> bytes | None:
    """Return the request of a call; None if the caller has left. Raises InvalidField if none comes."""
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


def _seconds_left(context: _Context) -> float | None:
    """Return the seconds that a stream may still take; None without a deadline."""
    remaining: float | None = context.time_remaining()
    return _within(_told_seconds(context) if remaining is None else remaining)


def _within(remaining: float | None) -> float | None:
    """Return the part of the remaining seconds that a call may take; None without a deadline."""
    if remaining is None or remaining > _FAR_SECONDS:
        return None
    return max(0.0, remaining - min(_MARGIN_SECONDS, remaining * _MARGIN))


def _told_seconds(context: _Context) -> float | None:
    """Return the deadline in seconds that Envoy sends with a stream by REST; None without one."""
    for key, value in context.invocation_metadata() or ():
        told = _TIMEOUT.fullmatch(value) if key == _TOLD_TIMEOUT and isinstance(value, str) else None
        if told is not None:
            return int(told[1]) * _UNIT_SECONDS[told[2]]
    return None
