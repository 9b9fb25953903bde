"""The declared MCP servers as this worker speaks to them, each caller in a session of its own where a server keeps any:
what a tool remembers there is nobody else's. A session is begun when it is first needed.

Speaks Streamable HTTP over the gateway's own client: each message is a POST that is answered by JSON or by a stream of
events, within the declared time. What a server asks there itself (a person, a model) nobody here has, and it is told
so; what it tells is passed over. Our secret in what it sends reaches nobody.
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
from groundplan.gateway.mcp.wire import VERSIONS, objects
from groundplan.gateway.upstream.answer_memory import AnswerMemory, MemoryShare
from groundplan.gateway.upstream.connection import UNRESERVED_BYTES, UpstreamConnection, UpstreamFailure, remaining_wait

if TYPE_CHECKING:
    from groundplan.gateway.call.context import Gateway
    from groundplan.gateway.upstream.targets import Target

USE = "tools/call"
PAGES = 20
"""Of a list of tools that are read."""
MOST_ASKED = 20
"""Requests of a server to which it gets an answer, while it answers one."""
MOST_SESSIONS = 1000
"""Of one worker at all servers together."""
IDLE_SECONDS = 600.0
"""After which a session that nobody uses is ended, once another one begins."""
_CONNECT_SECONDS = 3.0
_END_SECONDS = 1.0
_ELSEWHERE = frozenset({307, 308, 404, 405})
"""Statuses of a server whose address ends with a slash where it is declared without one."""
_SAFE = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.~:+/=")


_counted: ContextVar[Callable[[], MemoryShare] | None] = ContextVar("counted", default=None)
"""Has what is asked for here counted in the room for large answers."""


@contextmanager
def counted(room: AnswerMemory, rank: int, workload: str) -> Iterator[None]:
    """What servers answer to whom is asked within it takes of the room for large answers, until its end."""
    shares: list[MemoryShare] = []

    def share() -> MemoryShare:
        shares.append(made := MemoryShare(room, rank, workload))
        return made

    token = _counted.set(share)
    try:
        yield
    finally:
        _counted.reset(token)
        for each in shares:
            each.release()


class _Answer(msgspec.Struct):
    """A message of a server; with a `method` it asks something itself, or tells something."""

    id: int | str | None = None
    method: str | None = None
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None


_decode = msgspec.json.Decoder(_Answer).decode
_Ask = Callable[[_Answer], None]


class ServerError(Exception):
    """The server answered with an error of its own."""

    def __init__(self, told: dict[str, Any]) -> None:
        super().__init__(str(told.get("message", ""))[:400])
        self.code = told.get("code", -32603)


@dataclass(slots=True)
class _Session:
    """`lines` are the header lines by which a server knows it; `busy`: how many requests it answers in it now."""

    server: ToolServer
    lines: bytes
    used: float
    busy: int = 0

    @property
    def kept(self) -> bool:
        """Whether the server keeps anything of it."""
        return b"mcp-session-id" in self.lines


class Servers:
    """Of one worker."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._sessions: OrderedDict[tuple[str, str], _Session] = OrderedDict()
        """By server and address, and by caller where it keeps sessions; those that were used last come last."""
        self._beginning: dict[tuple[str, str], asyncio.Task[_Session]] = {}
        self._slashed: set[str] = set()
        """Servers that are at their declared address with a slash behind it."""
        self._next = 0

    async def close(self) -> None:
        """Tell servers that their sessions are over, as far as they hear it at once."""
        ending = [asyncio.ensure_future(self._end(each)) for each in self._sessions.values() if each.kept]
        self._sessions.clear()
        if ending:
            _, late = await asyncio.wait(ending, timeout=_END_SECONDS)
            for each in late:
                each.cancel()

    async def listed(
        self, server: ToolServer, method: str, key: str, caller: str, field: str = "name"
    ) -> list[dict[str, Any]]:
        """All that a server lists with a method, under `key`, of which each has a `field`. Raises `Unavailable`,
        `ServerError`."""
        found: list[dict[str, Any]] = []
        cursor: Any = None
        for _ in range(PAGES):
            page = await self.ask(server, method, {"cursor": cursor} if cursor else {}, caller)
            found += [each for each in objects(page.get(key)) if isinstance(each.get(field), str)]
            cursor = page.get("nextCursor")
            if not cursor:
                break
        return found

    async def ask(self, server: ToolServer, method: str, params: dict[str, Any], caller: str) -> dict[str, Any]:
        """The result of one request of a caller. Raises `Unavailable` (`tool_unavailable`), `ServerError`."""
        try:
            session = await self._session(server, caller)
            status, answer = await self._within(session, method, params)
            # some answer 400 for a session that they do not know any more; neither has looked at the request
            if status == 404 or (status == 400 and session.kept):
                self._forget(session)
                session = await self._session(server, caller)
                status, answer = await self._within(session, method, params)
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

    async def _within(self, session: _Session, method: str, params: dict[str, Any]) -> tuple[int, _Answer | None]:
        session.busy += 1
        try:
            made = _counted.get()
            share = None if made is None else made()
            status, answer, _ = await self._send(session.server, method, params, session.lines, share=share)
        finally:
            session.busy -= 1
            session.used = self._gateway.loop.time()
        return status, answer

    # sessions ---------------------------------------------------------------------------------------------------------

    async def _session(self, server: ToolServer, caller: str) -> _Session:
        """That of a caller, which may have to begin. Raises `UpstreamFailure`."""
        known = f"{server.name} {server.url}"
        for key in ((known, ""), (known, caller)):
            if (session := self._sessions.get(key)) is not None:
                session.server = server
                self._sessions.move_to_end(key)
                return session
        key = known, caller
        task = self._beginning.get(key)
        if task is None:
            self._leave_old()
            task = self._beginning[key] = self._gateway.loop.create_task(self._begin(server, known))
            task.add_done_callback(partial(self._begun, key))
        return await asyncio.shield(task)  # others may wait for it

    def _begun(self, key: tuple[str, str], task: asyncio.Task[_Session]) -> None:
        self._beginning.pop(key, None)
        if not task.cancelled() and task.exception() is None:
            session = task.result()
            self._sessions[key if session.kept else (key[0], "")] = session

    def _leave_old(self) -> None:
        """Before another one begins, end those that nobody has used for long, and the oldest of too many."""
        before = self._gateway.loop.time() - IDLE_SECONDS
        for key, session in list(self._sessions.items()):
            if session.used > before and len(self._sessions) < MOST_SESSIONS:
                return
            if not session.busy:
                del self._sessions[key]
                self._gateway.run_in_background(self._end(session))

    def _forget(self, session: _Session) -> None:
        """Its server does not take it any more."""
        for key in [key for key, each in self._sessions.items() if each is session]:
            del self._sessions[key]

    async def _end(self, session: _Session) -> None:
        """Tell its server, which may keep much of it, if that can be done."""
        if not session.kept:
            return
        with suppress(UpstreamFailure):
            server = session.server
            target = self._gateway.targets.named_target(f"mcp:{server.name}", server.url, server.key)
            told = target.pool.prefix, self._path(server, target), target.host, target.authorization_line, session.lines
            connection = target.pool.take_idle() or await target.pool.connect(_CONNECT_SECONDS)
            try:
                connection.send(b"DELETE %b%b HTTP/1.1\r\nhost: %b\r\n%buser-agent: groundplan\r\n%b\r\n" % told)
                await connection.read_head(_END_SECONDS)
                await connection.read_body(_END_SECONDS, _END_SECONDS)
            finally:
                connection.release()

    def _path(self, server: ToolServer, target: Target) -> bytes:
        return b"/" if not target.pool.prefix or f"{server.name} {server.url}" in self._slashed else b""

    async def _begin(self, server: ToolServer, known: str) -> _Session:
        """A new session. Raises `UpstreamFailure`."""
        params = {
            "protocolVersion": VERSIONS[0], "capabilities": {}, "clientInfo": {"name": "groundplan", "version": "1"},
        }  # fmt: skip
        before = known in self._slashed
        status, answer, headers = await self._send(server, "initialize", params, b"")
        if status in _ELSEWHERE:
            # declared addresses have no slash at their end, and what is mounted below one is there with it alone
            ours = {known} if (known in self._slashed) == before else set()
            self._slashed ^= ours
            again, answer, headers = await self._send(server, "initialize", params, b"")
            if again != 200:
                self._slashed ^= ours
            status = again if again == 200 else status
        if status != 200 or answer is None or answer.result is None:
            raise UpstreamFailure("malformed", f"it began no session ({status})", sent=True)
        version = str(answer.result.get("protocolVersion", VERSIONS[0])).encode()
        lines = b"mcp-protocol-version: %b\r\n" % version if set(version) <= _SAFE else b""
        session = headers.get(b"mcp-session-id", b"")
        if session and set(session) <= _SAFE:
            lines += b"mcp-session-id: %b\r\n" % session
        await self._send(server, "notifications/initialized", {}, lines, notify=True)
        return _Session(server, lines, self._gateway.loop.time())

    # messages ---------------------------------------------------------------------------------------------------------

    async def _send(
        self, server: ToolServer, method: str, params: dict[str, Any], lines: bytes, *, notify: bool = False,
        share: MemoryShare | None = None,
    ) -> tuple[int, _Answer | None, dict[bytes, bytes]]:  # fmt: skip
        """(status, answer, headers). `share`: what a large answer takes of the room for them. Raises
        `UpstreamFailure`."""
        self._next += 1
        message: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": params}
        if not notify:
            message["id"] = self._next
        try:
            return await self._post(server, message, lines, once=method == USE, share=share)
        except (UpstreamFailure, EventTooLarge, asyncio.CancelledError) as over:
            waits = not isinstance(over, UpstreamFailure) or over.kind == "timeout"
            if waits and not notify and b"mcp-session-id" in lines:
                # in MCP the end of a connection is none of its request, which goes on for nobody
                told = {"requestId": message["id"], "reason": "nobody waits for it any more"}
                gone = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": told}
                self._gateway.run_in_background(self._told(server, gone, lines))
            raise

    async def _post(
        self, server: ToolServer, message: dict[str, Any], lines: bytes, *, once: bool = False,
        share: MemoryShare | None = None,
    ) -> tuple[int, _Answer | None, dict[bytes, bytes]]:  # fmt: skip
        """`once`: a use is not tried again, so it never meets a connection that its server is just closing."""
        target = self._gateway.targets.named_target(f"mcp:{server.name}", server.url, server.key)
        path = self._path(server, target)
        pooled = None if once else target.pool.take_idle()
        accept = b"application/json, text/event-stream"
        request = target.request(path, msgspec.json.encode(message), b"mcp-%d" % self._next, accept, lines)
        one = _Post(server, target, request, message.get("id"), partial(self._reply, server, lines), share)
        if pooled is not None:
            try:
                return await one.over(pooled)
            except UpstreamFailure as failure:
                if failure.kind != "cut" or pooled.status:
                    raise
        return await one.over(await target.pool.connect(_CONNECT_SECONDS))

    def _reply(self, server: ToolServer, lines: bytes, asked: _Answer) -> None:
        """To what a server asks while it answers: it may wait for that, so it hears at once that nobody here does it,
        or that we are there."""
        told: dict[str, Any] = {"jsonrpc": "2.0", "id": asked.id}
        if asked.method == "ping":
            message = told | {"result": {}}
        else:
            message = told | {"error": {"code": -32601, "message": f"the gateway has no {str(asked.method)[:60]}"}}
        self._gateway.run_in_background(self._told(server, message, lines))

    async def _told(self, server: ToolServer, message: dict[str, Any], lines: bytes) -> None:
        """Send what has no answer, if that can be done."""
        with suppress(UpstreamFailure, EventTooLarge):
            await self._post(server, message, lines)


@dataclass(slots=True)
class _Post:
    """One message and what comes back. `id`: of a request; `reply` is told what its server asks meanwhile."""

    server: ToolServer
    target: Target
    request: bytes
    id: Any
    reply: _Ask
    share: MemoryShare | None

    async def over(self, connection: UpstreamConnection) -> tuple[int, _Answer | None, dict[bytes, bytes]]:
        """(status, answer, headers), within the declared time, however much comes meanwhile. Raises
        `UpstreamFailure`."""
        loop, seconds = asyncio.get_running_loop(), self.server.timeout_ms / 1000
        by = loop.time() + seconds
        try:
            connection.send(self.request)
            status = await connection.read_head(seconds)
            headers = dict(connection.headers)
            if status == 200 and headers.get(b"content-type", b"").startswith(b"text/event-stream"):
                return status, await self._streamed(connection, by) if self.id is not None else None, headers
            left = remaining_wait(by - loop.time())
            body = await connection.read_body(left, left, self.share)
            if self.share is not None:
                self.share.shrink_to(len(body))
        finally:
            connection.release()
        return status, _answer(self.target.mask_answer(body)) if status == 200 and body else None, headers

    async def _streamed(self, connection: UpstreamConnection, by: float) -> _Answer | None:
        """The answer among the events of a stream."""
        reader, loop, asked = EventReader(), asyncio.get_running_loop(), 0
        size, room = 0, UNRESERVED_BYTES
        while (data := await connection.read_chunk(remaining_wait(by - loop.time()))) is not None:
            size += len(data)
            if size > room and self.share is not None:
                room = await self.share.grow(size, by - loop.time())
            for event in reader.feed(data):
                found = _answer(self.target.mask_answer(event))
                if found is None:
                    continue
                if found.method is None:
                    if self._is_ours(found):
                        return found
                elif found.id is not None and asked < MOST_ASKED:
                    asked += 1
                    self.reply(found)
            if reader.is_between_events:
                size = 0
        return None

    def _is_ours(self, found: _Answer) -> bool:
        """Whether it answers this request, or says of it that it cannot be read; some write numbers as text."""
        if found.id is None:
            return found.error is not None
        return str(found.id) == str(self.id) and (found.result is not None or found.error is not None)


def _answer(data: bytes) -> _Answer | None:
    try:
        check_complexity(data)  # whoever looks at it goes down every level
        return _decode(data)
    except (Invalid, *DECODE_ERRORS):
        return None


def _unavailable(server: ToolServer, why: str) -> Unavailable:
    return Unavailable(
        f"the MCP server {server.name} cannot be used now: {why}",
        code="tool_unavailable",
        hint=f"Try again, or ask its owner {server.owner}.",
        retry_after=2.0,
    )
