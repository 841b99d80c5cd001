"""Drivers that perform the steps of a call over a transport, for threads and for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from contextlib import aclosing, closing
from typing import TYPE_CHECKING, Any, TypeVar

from pooling_client import _channel
from pooling_client._steps import Result, Run, Send, Share, Step, Steps, Stream, Wait
from pooling_engine import PoolingError

if TYPE_CHECKING:
    from pooling_client._transports.aio import AsyncGrpcTransport
    from pooling_client._transports.sync import GrpcTransport

Item = TypeVar("Item")


def run(steps: Steps[Result], transport: GrpcTransport) -> Result:
    """Perform the steps of a call and return its result."""
    resume: Any = steps.send
    reply: Any = None
    was_open = not transport.is_closed
    try:
        while True:
            try:
                step = resume(reply)
            except StopIteration as done:
                result: Result = done.value
                return result
            try:
                resume, reply = steps.send, _perform(step, transport)
            except PoolingError as error:
                resume, reply = steps.throw, error
            except _channel.ClosedError:
                raise _channel.closed_during_call() if was_open else _channel.closed() from None
            del step  # so that the request is freed before its reply is decoded
    finally:
        del reply  # an error and its traceback would keep each other alive
        steps.close()  # after an error of the transport, such as a cancellation


def _perform(step: Step, transport: GrpcTransport) -> Any:
    if type(step) is Send:
        return transport.send(*step)
    if type(step) is Run:
        return step.work()
    if type(step) is Share:
        return transport.share(*step, is_alone=True)
    if type(step) is Wait:
        transport.wait(*step)
        return None
    assert type(step) is Stream
    replies = transport.stream(
        step.method, step.requests, window=step.window, timeout_s=step.timeout_s
    )
    with closing(replies):
        for token, reply in replies:
            step.receive(token, reply)
    return None


async def run_async(steps: Steps[Result], transport: AsyncGrpcTransport) -> Result:
    """Perform the steps of a call and return its result."""
    resume: Any = steps.send
    reply: Any = None
    was_open = not transport.is_closed
    try:
        while True:
            try:
                step = resume(reply)
            except StopIteration as done:
                result: Result = done.value
                return result
            try:
                resume, reply = steps.send, await _perform_async(step, transport)
            except PoolingError as error:
                resume, reply = steps.throw, error
            except _channel.ClosedError:
                raise _channel.closed_during_call() if was_open else _channel.closed() from None
            del step  # so that the request is freed before its reply is decoded
    finally:
        del reply  # an error and its traceback would keep each other alive
        steps.close()  # after an error of the transport, such as a cancellation


async def _perform_async(step: Step, transport: AsyncGrpcTransport) -> Any:
    if type(step) is Send:
        return await transport.send(*step)
    if type(step) is Run:
        return await asyncio.to_thread(step.work)
    if type(step) is Share:
        return None  # a unary call
    if type(step) is Wait:
        await transport.wait(step.seconds)  # its thread connects in any case
        return None
    assert type(step) is Stream
    replies = transport.stream(
        step.method, one_by_one(step.requests), window=step.window, timeout_s=step.timeout_s
    )
    async with aclosing(replies):
        async for token, reply in replies:
            step.receive(token, reply)
    return None


async def one_by_one(items: AsyncIterable[Item] | Iterable[Item]) -> AsyncIterator[Item]:
    """Yield the items of an iterable of either kind."""
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
        return
    for item in items:
        yield item
