"""Answers of a client that only blocks (AWS's): each is read in a thread, so that nobody else waits for it, and ended
at once when nobody wants it any more. Loaded by the translating service only.
"""

from __future__ import annotations

import asyncio
import copy
import socket
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import ContextVar, copy_context
from typing import Any

from groundplan.gateway.upstream.retold import check_bedrock

THREADS = 128
"""Answers that may be waited for at the same time, and connections that are kept for them."""
_OTHERS = 32
BLOCKS: ContextVar[bool] = ContextVar("blocks", default=False)
"""Whether the client that is asked blocks."""
_END = object()


class Client:
    """AWS's client for one call: it remembers the stream, so that it can be ended while a thread waits for it."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._stream: Any = None
        self._ended = False

    def converse(self, **asked: Any) -> Any:
        return self._client.converse(**asked)

    def converse_stream(self, **asked: Any) -> Any:
        answered = self._client.converse_stream(**asked)
        self._stream = answered["stream"]
        if self._ended:
            self.end()
        return {**answered, "stream": _whole(answered["stream"])}

    def end(self) -> None:
        """Close its connection: whoever waits for it is woken."""
        self._ended = True
        stream, self._stream = self._stream, None
        if stream is None:
            return
        connection = getattr(getattr(stream, "_raw_stream", None), "connection", None)
        with suppress(OSError):
            if (held := getattr(connection, "sock", None)) is not None:
                held.shutdown(socket.SHUT_RDWR)
        with suppress(Exception):
            stream.close()


def _whole(events: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for event in events:
        check_bedrock(event.get("messageStop", {}))
        yield event


def for_one_call(provider: Any) -> tuple[Any, Client]:
    """The same provider of the library, with a client whose stream can be ended."""
    one, client = copy.copy(provider), Client(provider.client)
    one.client = client
    return one, client


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
