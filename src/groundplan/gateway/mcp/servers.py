"""The client of declared MCP servers, with a session for each caller where a server has sessions, so that no caller
sees what a tool remembers for another. A session begins when it is first needed.

Speaks Streamable HTTP over the gateway's own client: each message is a POST that is answered by JSON or by a stream of
events, within the declared time. A server's own requests (for a person, a model) are answered by an error, its
notifications are ignored. The gateway's secret is removed from whatever a server sends.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from groundplan.blueprint.model import ToolServer
from groundplan.core.errors import Invalid, Unavailable
from groundplan.gateway.http.sse import EventReader, EventTooLarge
from groundplan.gateway.http.strict_json import DECODE_ERRORS, check_complexity
from groundplan.gateway.http.surrogates import replace_surrogates
from groundplan.gateway.mcp.wire import VERSIONS, dicts_in
from groundplan.gateway.upstream.answer_memory import AnswerMemory, MemoryShare
from groundplan.gateway.upstream.connection import UNRESERVED_BYTES, UpstreamConnection, UpstreamFailure, remaining_wait

if TYPE_CHECKING:
    from groundplan.gateway.call.context import Gateway
    from groundplan.gateway.upstream.targets import Target

USE = "tools/call"
MAX_PAGES = 20
"""Most pages of a list that are read."""
MAX_SERVER_REQUESTS = 20
"""Most requests of a server that are answered during one request to it."""
MAX_SESSIONS = 1000
"""Most sessions of one worker, at all servers together."""
IDLE_SECONDS = 600.0
"""An unused session is ended after this time, once another one begins."""
_CONNECT_SECONDS = 3.0
_END_SECONDS = 1.0
_MOVED_STATUSES = frozenset({307, 308, 404, 405})
"""Statuses of a server whose URL needs a slash at the end but is declared without one."""
_HEADER_CHARACTERS = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.~:+/=")


_new_share: ContextVar[Callable[[], MemoryShare] | None] = ContextVar("counted", default=None)
"""Makes the share of a request in the memory for large answers; None: answers are not counted."""


@contextmanager
def counting_answers(room: AnswerMemory, rank: int, workload: str) -> Iterator[None]:
    """Count answers of servers to requests within this context in the memory for large answers, until its end."""
    shares: list[MemoryShare] = []

    def share() -> MemoryShare:
        shares.append(new := MemoryShare(room, rank, workload))
        return new

    token = _new_share.set(share)
    try:
        yield
    finally:
        _new_share.reset(token)
        for each in shares:
            each.release()


class _Answer(msgspec.Struct):
    """A message of a server; with a `method` it is the server's own request or notification."""

    id: int | str | None = None
    method: str | None = None
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None


_decode = msgspec.json.Decoder(_Answer).decode
_Reply = Callable[[_Answer], None]
_Check = Callable[[], None]


class ServerError(Exception):
    """The server answered with an error of its own."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(str(error.get("message", ""))[:400])
        self.code = error.get("code", -32603)


@dataclass(slots=True)
class _Session:
    """A session at a server. `lines`: its header lines; `busy`: how many requests in it are unanswered."""

    server: ToolServer
    lines: bytes
    used: float
    busy: int = 0

    @property
    def is_stateful(self) -> bool:
        """Whether the server has a session id, and so may keep state."""
        return b"mcp-session-id" in self.lines


class Servers:
    """The MCP servers as one worker uses them."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._sessions: OrderedDict[tuple[str, str], _Session] = OrderedDict()
        """By (server and URL, caller), the caller empty where the server has no sessions; last used last."""
        self._beginning: dict[tuple[str, str], asyncio.Task[_Session]] = {}
        self._slashed: set[str] = set()
        """Servers whose URL needs a slash at the end."""
        self._last_id = 0

    async def close(self) -> None:
        """End all sessions, as far as servers take that at once."""
        ending = [
            asyncio.ensure_future(self._end_session(each)) for each in self._sessions.values() if each.is_stateful
        ]
        self._sessions.clear()
        if ending:
            _, late = await asyncio.wait(ending, timeout=_END_SECONDS)
            for each in late:
                each.cancel()

    async def list_entries(
        self, server: ToolServer, method: str, key: str, caller: str, field: str = "name"
    ) -> list[dict[str, Any]]:
        """All entries that a server lists with a method under `key`, those that have a text `field`. Raises
        `Unavailable`, `ServerError`."""
        found: list[dict[str, Any]] = []
        cursor: Any = None
        for _ in range(MAX_PAGES):
            page = await self.request(server, method, {"cursor": cursor} if cursor else {}, caller)
            found += [each for each in dicts_in(page.get(key)) if isinstance(each.get(field), str)]
            cursor = page.get("nextCursor")
            if not cursor:
                break
        return found

    async def request(
        self, server: ToolServer, method: str, params: dict[str, Any], caller: str, check: _Check | None = None
    ) -> dict[str, Any]:
        """The result of one request of a caller. `check` runs before anything of it is sent, once there is a session
        and a connection. Raises `Unavailable` (`tool_unavailable`), `ServerError`, and as `check`."""
        try:
            session = await self._session_for(server, caller)
            status, answer = await self._send_in(session, method, params, check)
            # 404, and 400 from some servers, mean an unknown session: the request was not processed
            if status == 404 or (status == 400 and session.is_stateful):
                self._forget(session)
                session = await self._session_for(server, caller)
                status, answer = await self._send_in(session, method, params, check)
        except (UpstreamFailure, EventTooLarge) as failure:
            self._gateway.targets.forget(f"mcp:{server.name}")
            raise _unavailable(server, str(failure) or "its answer is too large") from failure
        if status not in (200, 202):
            self._forget(session)
            raise _unavailable(server, f"it answered {status}")
        if answer is None:
            raise _unavailable(server, "it answered nothing")
        if answer.error is not None:
            raise ServerError(answer.error)
        return answer.result or {}

    async def _send_in(
        self, session: _Session, method: str, params: dict[str, Any], check: _Check | None
    ) -> tuple[int, _Answer | None]:
        session.busy += 1
        try:
            new_share = _new_share.get()
            share = None if new_share is None else new_share()
            status, answer, _ = await self._send(
                session.server, method, params, session.lines, share=share, check=check
            )
        finally:
            session.busy -= 1
            session.used = self._gateway.loop.time()
        return status, answer

    # sessions ---------------------------------------------------------------------------------------------------------

    async def _session_for(self, server: ToolServer, caller: str) -> _Session:
        """The session of a caller, a new one if necessary. Raises `UpstreamFailure`."""
        known = f"{server.name} {server.url}"
        for key in ((known, ""), (known, caller)):
            if (session := self._sessions.get(key)) is not None:
                session.server = server
                self._sessions.move_to_end(key)
                return session
        key = known, caller
        task = self._beginning.get(key)
        if task is None:
            self._end_idle_sessions()
            task = self._beginning[key] = self._gateway.loop.create_task(self._begin_session(server, known))
            task.add_done_callback(partial(self._store_session, key))
        return await asyncio.shield(task)  # others may wait for it

    def _store_session(self, key: tuple[str, str], task: asyncio.Task[_Session]) -> None:
        self._beginning.pop(key, None)
        if not task.cancelled() and task.exception() is None:
            session = task.result()
            self._sessions[key if session.is_stateful else (key[0], "")] = session

    def _end_idle_sessions(self) -> None:
        """Before another session begins, end those that were idle for long, and the oldest of too many."""
        before = self._gateway.loop.time() - IDLE_SECONDS
        for key, session in list(self._sessions.items()):
            if session.used > before and len(self._sessions) < MAX_SESSIONS:
                return
            if not session.busy:
                del self._sessions[key]
                self._gateway.run_in_background(self._end_session(session))

    def _forget(self, session: _Session) -> None:
        """Drop a session that its server no longer accepts."""
        for key in [key for key, each in self._sessions.items() if each is session]:
            del self._sessions[key]

    async def _end_session(self, session: _Session) -> None:
        """Tell the server that a session is over, if possible: it may hold much for it."""
        if not session.is_stateful:
            return
        with suppress(UpstreamFailure):
            server = session.server
            target = self._gateway.targets.named_target(f"mcp:{server.name}", server.url, server.key)
            head = target.pool.prefix, self._path(server, target), target.host, target.authorization_line, session.lines
            connection = target.pool.take_idle() or await target.pool.connect(_CONNECT_SECONDS)
            try:
                connection.send(b"DELETE %b%b HTTP/1.1\r\nhost: %b\r\n%buser-agent: groundplan\r\n%b\r\n" % head)
                await connection.read_head(_END_SECONDS)
                await connection.read_body(_END_SECONDS, _END_SECONDS)
            finally:
                connection.release()

    def _path(self, server: ToolServer, target: Target) -> bytes:
        return b"/" if not target.pool.prefix or f"{server.name} {server.url}" in self._slashed else b""

    async def _begin_session(self, server: ToolServer, known: str) -> _Session:
        """Begin a new session. Raises `UpstreamFailure`."""
        params = {
            "protocolVersion": VERSIONS[0], "capabilities": {}, "clientInfo": {"name": "groundplan", "version": "1"},
        }  # fmt: skip
        before = known in self._slashed
        status, answer, headers = await self._send(server, "initialize", params, b"")
        if status in _MOVED_STATUSES:
            # declared URLs have no slash at the end, but some servers are mounted at one with it only
            toggled = {known} if (known in self._slashed) == before else set()
            self._slashed ^= toggled
            again, answer, headers = await self._send(server, "initialize", params, b"")
            if again != 200:
                self._slashed ^= toggled
            status = again if again == 200 else status
        if status != 200 or answer is None or answer.result is None:
            raise UpstreamFailure("malformed", f"it began no session ({status})", sent=True)
        version = str(answer.result.get("protocolVersion", VERSIONS[0])).encode()
        lines = b"mcp-protocol-version: %b\r\n" % version if set(version) <= _HEADER_CHARACTERS else b""
        session = headers.get(b"mcp-session-id", b"")
        if session and set(session) <= _HEADER_CHARACTERS:
            lines += b"mcp-session-id: %b\r\n" % session
        await self._send(server, "notifications/initialized", {}, lines, notify=True)
        return _Session(server, lines, self._gateway.loop.time())

    # messages ---------------------------------------------------------------------------------------------------------

    async def _send(
        self, server: ToolServer, method: str, params: dict[str, Any], lines: bytes, *, notify: bool = False,
        share: MemoryShare | None = None, check: _Check | None = None,
    ) -> tuple[int, _Answer | None, dict[bytes, bytes]]:  # fmt: skip
        """(status, answer, headers) of one message. `share`: counts a large answer in the memory for them. Raises
        `UpstreamFailure`."""
        self._last_id += 1
        message: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": params}
        if not notify:
            message["id"] = self._last_id
        try:
            return await self._post(server, message, lines, once=method == USE, share=share, check=check)
        except (UpstreamFailure, EventTooLarge, asyncio.CancelledError) as failure:
            waits = not isinstance(failure, UpstreamFailure) or failure.kind == "timeout"
            if waits and not notify and b"mcp-session-id" in lines:
                # closing a connection does not cancel its request in MCP: the server would go on working on it
                parameters = {"requestId": message["id"], "reason": "nobody waits for it any more"}
                cancelled = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": parameters}
                self._gateway.run_in_background(self._notify(server, cancelled, lines))
            raise

    async def _post(
        self, server: ToolServer, message: dict[str, Any], lines: bytes, *, once: bool = False,
        share: MemoryShare | None = None, check: _Check | None = None,
    ) -> tuple[int, _Answer | None, dict[bytes, bytes]]:  # fmt: skip
        """Send a message. `once`: it must not be retried, so it never uses a pooled connection, which the server may be
        closing."""
        target = self._gateway.targets.named_target(f"mcp:{server.name}", server.url, server.key)
        path = self._path(server, target)
        pooled = None if once else target.pool.take_idle()
        accept = b"application/json, text/event-stream"
        request = target.request(path, msgspec.json.encode(message), b"mcp-%d" % self._last_id, accept, lines)
        reply = partial(self._answer_server, server, lines)
        post = _Post(server, target, request, message.get("id"), reply, share, check)
        if pooled is not None:
            try:
                return await post.send_over(pooled)
            except UpstreamFailure as failure:
                if failure.kind != "cut" or pooled.status:
                    raise
        return await post.send_over(await target.pool.connect(_CONNECT_SECONDS))

    def _answer_server(self, server: ToolServer, lines: bytes, request: _Answer) -> None:
        """Answer a server's own request at once, since the server may wait for it: a ping by its result, all others by
        an error."""
        reply: dict[str, Any] = {"jsonrpc": "2.0", "id": request.id}
        if request.method == "ping":
            message = reply | {"result": {}}
        else:
            message = reply | {"error": {"code": -32601, "message": f"the gateway has no {str(request.method)[:60]}"}}
        self._gateway.run_in_background(self._notify(server, message, lines))

    async def _notify(self, server: ToolServer, message: dict[str, Any], lines: bytes) -> None:
        """Send a message that has no answer, if possible."""
        with suppress(UpstreamFailure, EventTooLarge):
            await self._post(server, message, lines)


@dataclass(slots=True)
class _Post:
    """One message and its answer. `id`: of a request; `reply`: called with the server's own requests meanwhile."""

    server: ToolServer
    target: Target
    request: bytes
    id: Any
    reply: _Reply
    share: MemoryShare | None
    check: _Check | None

    async def send_over(self, connection: UpstreamConnection) -> tuple[int, _Answer | None, dict[bytes, bytes]]:
        """(status, answer, headers), within the declared time, however much the server sends. Raises
        `UpstreamFailure`."""
        loop, seconds = asyncio.get_running_loop(), self.server.timeout_ms / 1000
        deadline = loop.time() + seconds
        try:
            if self.check is not None:
                self.check()
            connection.send(self.request)
            status = await connection.read_head(seconds)
            headers = dict(connection.headers)
            if status == 200 and headers.get(b"content-type", b"").startswith(b"text/event-stream"):
                return status, await self._read_stream(connection, deadline) if self.id is not None else None, headers
            left = remaining_wait(deadline - loop.time())
            body = await connection.read_body(left, left, self.share)
            if self.share is not None:
                self.share.shrink_to(len(body))
        finally:
            connection.release()
        return status, _parse_answer(self.target.mask_answer(body)) if status == 200 and body else None, headers

    async def _read_stream(self, connection: UpstreamConnection, deadline: float) -> _Answer | None:
        """The answer among the events of a stream."""
        reader, loop, server_requests = EventReader(), asyncio.get_running_loop(), 0
        size, room = 0, UNRESERVED_BYTES
        while (data := await connection.read_chunk(remaining_wait(deadline - loop.time()))) is not None:
            size += len(data)
            if size > room and self.share is not None:
                room = await self.share.grow(size, deadline - loop.time())
            for event in reader.feed(data):
                message = _parse_answer(self.target.mask_answer(event))
                if message is None:
                    continue
                if message.method is None:
                    if self._is_answer(message):
                        return message
                elif message.id is not None and server_requests < MAX_SERVER_REQUESTS:
                    server_requests += 1
                    self.reply(message)
            if reader.is_between_events:
                size = 0
        return None

    def _is_answer(self, message: _Answer) -> bool:
        """Whether a message answers this request, or says that it cannot be read; some servers send ids as text."""
        if message.id is None:
            return message.error is not None
        return str(message.id) == str(self.id) and (message.result is not None or message.error is not None)


def _parse_answer(data: bytes) -> _Answer | None:
    try:
        check_complexity(data)  # checks of its texts recurse into every level
        try:
            return _decode(data)
        except msgspec.DecodeError as error:
            return _decode(replace_surrogates(data, error))
    except (Invalid, *DECODE_ERRORS):
        return None


def _unavailable(server: ToolServer, why: str) -> Unavailable:
    return Unavailable(
        f"the MCP server {server.name} cannot be used now: {why}",
        code="tool_unavailable",
        hint=f"Try again, or ask its owner {server.owner}.",
        retry_after=2.0,
    )
