"""Reads answers of a client that only blocks (AWS's) in threads, so that no other call waits, and cancels each at once
when nobody wants it any more. Loaded by the translation service only."""

from __future__ import annotations

import asyncio
import copy
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import ContextVar, copy_context
from typing import Any

from groundplan.gateway.upstream.translation.answer_patches import check_bedrock_end

THREADS = 128
"""Answers that may be awaited at the same time, and connections that are kept for them."""
_OTHER_THREADS = 32
USES_BLOCKING_CLIENT: ContextVar[bool] = ContextVar("blocks", default=False)
"""Whether the current call uses a client that blocks."""
_END = object()
_current_client: ContextVar[CancellableClient | None] = ContextVar("call", default=None)
"""The client for which this thread calls."""
_ownership_lock = threading.Lock()
"""Held while a connection passes from one call to another, or is closed for one."""


class CancellableClient:
    """AWS's client for one call: it remembers the connection and the stream, so that either can be closed while a
    thread waits for it."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._connection: Any = None
        self._stream: Any = None
        self.is_cancelled = False

    def converse(self, **arguments: Any) -> Any:
        return self._call_client(self._client.converse, arguments)

    def invoke_model(self, **arguments: Any) -> Any:
        return self._call_client(self._client.invoke_model, arguments)

    def converse_stream(self, **arguments: Any) -> Any:
        answer = self._call_client(self._client.converse_stream, arguments)
        self._stream = answer["stream"]
        if self.is_cancelled:
            self.cancel()
        return {**answer, "stream": _checked_events(answer["stream"])}

    def _call_client(self, method: Callable[..., Any], arguments: dict[str, Any]) -> Any:
        _current_client.set(self)  # in the context of this thread alone
        try:
            return method(**arguments)
        finally:
            self._connection = None

    def use_connection(self, connection: Any) -> None:
        """Note that the call's request goes out over this connection. Raises `ConnectionError` if the call was
        cancelled."""
        with _ownership_lock:
            if self.is_cancelled:
                raise ConnectionAbortedError("nobody waits for it any more")
            self._connection, connection.asked_by = connection, self

    def cancel(self) -> None:
        """Close the call's connection, which wakes the thread that waits for it."""
        with _ownership_lock:
            self.is_cancelled = True
            connection, stream, self._stream = self._connection, self._stream, None
            if connection is not None and connection.asked_by is self:
                _shut_down(connection)
        if stream is not None:
            _shut_down(getattr(getattr(stream, "_raw_stream", None), "connection", None))
            with suppress(Exception):
                stream.close()


def _shut_down(connection: Any) -> None:
    with suppress(OSError):
        if (held := getattr(connection, "sock", None)) is not None:
            held.shutdown(socket.SHUT_RDWR)


class _TrackedConnection:
    """A connection of AWS's client that notes which call uses it."""

    used_by: CancellableClient | None = None

    def request(self, *args: Any, **more: Any) -> Any:
        if (call := _current_client.get()) is not None:
            call.use_connection(self)
        return super().request(*args, **more)  # type: ignore[misc]

    def connect(self) -> None:
        super().connect()  # type: ignore[misc]
        if (call := _current_client.get()) is not None and call.is_cancelled:
            self.close()  # type: ignore[attr-defined]
            raise ConnectionAbortedError("nobody waits for it any more")


def track_connections(client: Any) -> None:
    """Make the connections of AWS's client note which call uses them, so that a call can be cancelled while it waits
    for an answer."""
    pools = client._endpoint.http_session._manager.pool_classes_by_scheme
    for scheme, pool in pools.items():
        connection = type("Owned", (_TrackedConnection, pool.ConnectionCls), {})
        pools[scheme] = type("OwnedPool", (pool,), {"ConnectionCls": connection})


def _checked_events(events: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for event in events:
        check_bedrock_end(event.get("messageStop", {}))
        yield event


@contextmanager
def client_for_call(provider: Any) -> Iterator[tuple[Any, CancellableClient]]:
    """A copy of the library's provider with a client for one call, which is cancelled if the block raises."""
    own, client = copy.copy(provider), CancellableClient(provider.client)
    own.client = client
    try:
        yield own, client
    except BaseException:
        client.cancel()
        raise


class BlockingStream:
    """Chunks of a stream that blocks, each awaited in a thread of `pool`."""

    def __init__(self, chunks: Any, client: CancellableClient, pool: ThreadPoolExecutor) -> None:
        self._chunks = chunks
        self._client = client
        self._pool = pool
        self._step: asyncio.Future[Any] | None = None

    def __aiter__(self) -> BlockingStream:
        return self

    async def __anext__(self) -> Any:
        self._step = asyncio.get_running_loop().run_in_executor(self._pool, _next, self._chunks)
        found = await asyncio.shield(self._step)
        if found is _END:
            raise StopAsyncIteration
        return found

    async def aclose(self) -> None:
        """Cancel the stream, also while a thread waits for its next chunk."""
        self._client.cancel()
        if self._step is not None and not self._step.done():
            with suppress(Exception):
                await self._step


def _next(chunks: Any) -> Any:
    """The next chunk of an asynchronous iterator that awaits nothing, and blocks instead."""
    try:
        chunks.__anext__().send(None)
    except StopIteration as found:
        return found.value
    except StopAsyncIteration:
        return _END
    raise AssertionError("it does not block")


class ContextThreadPool(ThreadPoolExecutor):
    """Threads that run in the context of their submitter: the library calls Bedrock in the loop's default executor."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return super().submit(copy_context().run, fn, *args, **kwargs)


class LoopThreadPool(ContextThreadPool):
    """The default executor of a loop. Work that is submitted while `USES_BLOCKING_CLIENT` is set has a pool of its own:
    so looking up a name, making a client or renewing a token never waits for it."""

    def __init__(self) -> None:
        super().__init__(_OTHER_THREADS, "other")
        self._blocking_pool = ContextThreadPool(THREADS, "answer")

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return (
            self._blocking_pool.submit(fn, *args, **kwargs)
            if USES_BLOCKING_CLIENT.get()
            else super().submit(fn, *args, **kwargs)
        )

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._blocking_pool.shutdown(wait, cancel_futures=cancel_futures)
        super().shutdown(wait, cancel_futures=cancel_futures)
