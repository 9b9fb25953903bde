"""Asks the local search service: for passages, for embeddings, for personal data in a text.

What is asked, and what a missing answer means to a call, is up to the caller.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

import msgspec

from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.upstream.connection import FOREVER, MIN_WAIT_SECONDS, UpstreamConnection, UpstreamFailure
from groundplan.gateway.upstream.service_restart import RESTART_SECONDS

Answer = TypeVar("Answer")
SEARCH_SECONDS = 5.0
_CONNECT_SECONDS = 1.0
_PROCESS_GONE = ("refused", "cut")
"""Kinds of failure of a process that has ended."""
_NOT_READY = "unready"
"""Kind of failure of a process that runs and says that it cannot answer now."""


async def ask_for_call(
    gateway: Gateway,
    exchange: Exchange,
    question: Callable[[], msgspec.Struct],
    read: Callable[[bytes], Answer],
    path: bytes,
    *,
    seconds: float,
) -> Answer | None:
    """As `ask_search_patiently`, for a call, whose waiting time is counted. `seconds`: what the call has left."""
    began = gateway.loop.time()
    try:
        return await ask_search_patiently(gateway, exchange.id, question, read, path, seconds=seconds)
    finally:
        exchange.waited_seconds += gateway.loop.time() - began


async def ask_search_patiently(
    gateway: Gateway,
    name: bytes,
    question: Callable[[], msgspec.Struct],
    read: Callable[[bytes], Answer],
    path: bytes,
    *,
    seconds: float = FOREVER,
) -> Answer | None:
    """Ask the local search service and return what `read` makes of its answer; None where there is no readable one.
    `name`: id of the request; `seconds`: what its caller has left. A service that has ended is asked again when it is
    back, and one that cannot reach PostgreSQL when it can, for a short time only, not counting stalls of this worker;
    `question` is evaluated anew for each try."""
    began = gateway.loop.time()
    while True:
        remaining = seconds - (gateway.loop.time() - began)
        try:
            return read(await ask_search(gateway, msgspec.json.encode(question()), name, path, seconds=remaining))
        except (UpstreamFailure, msgspec.DecodeError, UnicodeDecodeError) as failure:
            gateway.targets.forget("search")
            kind = failure.kind if isinstance(failure, UpstreamFailure) else ""
        returning = gateway.targets.service_restart
        until = began + min(seconds, RESTART_SECONDS + gateway.stalls.stalled_seconds(began))
        if kind in _PROCESS_GONE:
            retries = await returning.wait_until_back("search", until, began + seconds)
        else:
            retries = kind == _NOT_READY and await returning.should_retry("search", began, until)
        if not retries:
            return None


async def ask_search(gateway: Gateway, question: bytes, name: bytes, path: bytes, *, seconds: float = FOREVER) -> bytes:
    """Ask the local search service once and return its JSON answer. Raises `UpstreamFailure`. `seconds`: what its
    caller has left.

    Asks once more where a kept-alive connection was closed just as it was used: a search changes nothing.
    """
    until = gateway.loop.time() + seconds
    target = gateway.targets.named_target("search", "local:search", None)
    request = target.request(path, question, name, b"application/json")
    connection = target.pool.take_idle()
    if connection is not None:
        try:
            return await _answer(connection, request, until)
        except UpstreamFailure as failure:
            if failure.kind != "cut":
                raise
    connection = await target.pool.connect(min(_CONNECT_SECONDS, seconds), until)
    return await _answer(connection, request, until)


async def _answer(connection: UpstreamConnection, request: bytes, until: float) -> bytes:
    now = asyncio.get_running_loop().time
    connection.call_deadline = until
    try:
        connection.send(request)
        status = await connection.read_head(max(MIN_WAIT_SECONDS, min(SEARCH_SECONDS, until - now())))
        body = await connection.read_body(max(MIN_WAIT_SECONDS, min(SEARCH_SECONDS, until - now())))
    finally:
        connection.release()
    if status != 200:
        kind = _NOT_READY if status == 503 else "malformed"
        raise UpstreamFailure(kind, f"the search service answered {status}", sent=True)
    return body
