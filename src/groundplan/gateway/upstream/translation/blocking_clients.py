"""Reads answers of a client that only blocks (AWS's) in threads, so that nobody else waits, and ends each at once when
nobody wants it any more. Loaded by the translating service only.
"""

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

from groundplan.gateway.upstream.translation.answers import check_bedrock

THREADS = 128
"""Answers that may be waited for at the same time, and connections that are kept for them."""
_OTHERS = 32
BLOCKS: ContextVar[bool] = ContextVar("blocks", default=False)
"""Whether the client that is asked blocks."""
_END = object()
_call: ContextVar[Client | None] = ContextVar("call", default=None)
"""For which this thread asks."""
_owned = threading.Lock()
"""Held while a connection goes from one call to another, or is closed for one."""


class Client:
    """AWS's client for one call: it remembers the connection and the stream, so that either can be ended while a thread
    waits for it."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._connection: Any = None
        self._stream: Any = None
        self.ended = False

    def converse(self, **asked: Any) -> Any:
        return self._ask(self._client.converse, asked)

    def invoke_model(self, **asked: Any) -> Any:
        return self._ask(self._client.invoke_model, asked)

    def converse_stream(self, **asked: Any) -> Any:
        answered = self._ask(self._client.converse_stream, asked)
        self._stream = answered["stream"]
        if self.ended:
            self.end()
        return {**answered, "stream": _whole(answered["stream"])}

    def _ask(self, way: Callable[..., Any], asked: dict[str, Any]) -> Any:
        _call.set(self)  # in the context of this thread alone
        try:
            return way(**asked)
        finally:
            self._connection = None

    def takes(self, connection: Any) -> None:
        """Its request goes out over this connection. Raises `ConnectionError` where nobody wants its answer."""
        with _owned:
            if self.ended:
                raise ConnectionAbortedError("nobody waits for it any more")
            self._connection, connection.asked_by = connection, self

    def end(self) -> None:
        """Close its connection: whoever waits for it is woken."""
        with _owned:
            self.ended = True
            connection, stream, self._stream = self._connection, self._stream, None
            if connection is not None and connection.asked_by is self:
                _shut(connection)
        if stream is not None:
            _shut(getattr(getattr(stream, "_raw_stream", None), "connection", None))
            with suppress(Exception):
                stream.close()


def _shut(connection: Any) -> None:
    with suppress(OSError):
        if (held := getattr(connection, "sock", None)) is not None:
            held.shutdown(socket.SHUT_RDWR)


class _Owned:
    """A connection of AWS's client that is known to the call which uses it."""

    asked_by: Client | None = None

    def request(self, *args: Any, **more: Any) -> Any:
        if (call := _call.get()) is not None:
            call.takes(self)
        return super().request(*args, **more)  # type: ignore[misc]

    def connect(self) -> None:
        super().connect()  # type: ignore[misc]
        if (call := _call.get()) is not None and call.ended:
            self.close()  # type: ignore[attr-defined]
            raise ConnectionAbortedError("nobody waits for it any more")


def known_to_calls(client: Any) -> None:
    """Let calls of AWS's client end while they wait for an answer: their connections are known to them."""
    pools = client._endpoint.http_session._manager.pool_classes_by_scheme
    for scheme, pool in pools.items():
        connection = type("Owned", (_Owned, pool.ConnectionCls), {})
        pools[scheme] = type("OwnedPool", (pool,), {"ConnectionCls": connection})


def _whole(events: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for event in events:
        check_bedrock(event.get("messageStop", {}))
        yield event


@contextmanager
def for_one_call(provider: Any) -> Iterator[tuple[Any, Client]]:
    """The same provider of the library, with a client that can be ended, and is where nobody waits any more."""
    one, client = copy.copy(provider), Client(provider.client)
    one.client = client
    try:
        yield one, client
    except BaseException:
        client.end()
        raise


class Blocking:
    """Chunks of a stream that blocks, each waited for in a thread of `pool`."""

    def __init__(self, chunks: Any, client: Client, pool: ThreadPoolExecutor) -> None:
        self._chunks = chunks
        self._client = client
        self._pool = pool
        self._step: asyncio.Future[Any] | None = None

    def __aiter__(self) -> Blocking:
        return self

    async def __anext__(self) -> Any:
        self._step = asyncio.get_running_loop().run_in_executor(self._pool, _next, self._chunks)
        found = await asyncio.shield(self._step)
        if found is _END:
            raise StopAsyncIteration
        return found

    async def aclose(self) -> None:
        """End it, also while a thread waits for its next chunk."""
        self._client.end()
        if self._step is not None and not self._step.done():
            with suppress(Exception):
                await self._step


def _next(chunks: Any) -> Any:
    """The next chunk of an asynchronous iterator that waits for nothing, and blocks instead."""
    try:
        chunks.__anext__().send(None)
    except StopIteration as found:
        return found.value
    except StopAsyncIteration:
        return _END
    raise AssertionError("it does not block")


class InContext(ThreadPoolExecutor):
    """Threads that work in the context of whoever gives them work: the library asks Bedrock in the loop's own."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return super().submit(copy_context().run, fn, *args, **kwargs)


class Threads(InContext):
    """Of a loop. Who is asked while `BLOCKS` is set has others: nobody waits for one of those to look up a name, make a
    client or renew a token."""

    def __init__(self) -> None:
        super().__init__(_OTHERS, "other")
        self._blocked = InContext(THREADS, "answer")

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return self._blocked.submit(fn, *args, **kwargs) if BLOCKS.get() else super().submit(fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._blocked.shutdown(wait, cancel_futures=cancel_futures)
        super().shutdown(wait, cancel_futures=cancel_futures)
