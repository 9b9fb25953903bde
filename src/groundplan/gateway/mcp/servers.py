"""The declared MCP servers as this worker speaks to them: one session each, begun when it is first needed.

Speaks Streamable HTTP over the gateway's own client: each message is a POST that is answered by JSON or by a stream of
events, within the declared time. What a server asks there itself (a person, a model) nobody here has, and it is told
so; what it tells is passed over. Our secret in what it sends reaches nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from groundplan.blueprint.model import ToolServer
from groundplan.core.errors import Invalid, Unavailable
from groundplan.gateway.http.sse import EventReader, EventTooLarge
from groundplan.gateway.http.strict_json import refuse_depth
from groundplan.gateway.mcp.wire import VERSIONS
from groundplan.gateway.upstream.connection import UpstreamConnection, UpstreamFailure, still

if TYPE_CHECKING:
    from groundplan.gateway.call.context import Gateway
    from groundplan.gateway.upstream.targets import Target

USE = "tools/call"
PAGES = 20
"""Of a list of tools that are read."""
MOST_ASKED = 20
"""Requests of a server to which it gets an answer, while it answers one."""
_CONNECT_SECONDS = 3.0
_ELSEWHERE = frozenset({307, 308, 404, 405})
"""Statuses of a server whose address ends with a slash where it is declared without one."""
_SAFE = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.~:+/=")


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


class Servers:
    """Of one worker."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._sessions: dict[str, bytes] = {}
        """Header lines of a session that was begun, by server and address."""
        self._slashed: set[str] = set()
        """Servers that are at their declared address with a slash behind it."""
        self._next = 0

    async def listed(self, server: ToolServer, method: str, key: str, field: str = "name") -> list[dict[str, Any]]:
        """All that a server lists with a method, under `key`, of which each has a `field`. Raises `Unavailable`,
        `ServerError`."""
        found: list[dict[str, Any]] = []
        cursor: Any = None
        for _ in range(PAGES):
            page = await self.ask(server, method, {"cursor": cursor} if cursor else {})
            found += [
                each for each in page.get(key) or () if isinstance(each, dict) and isinstance(each.get(field), str)
            ]
            cursor = page.get("nextCursor")
            if not cursor:
                break
        return found

    async def ask(self, server: ToolServer, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """The result of one request. Raises `Unavailable` (`tool_unavailable`), `ServerError`."""
        known = f"{server.name} {server.url}"
        try:
            lines = self._sessions.get(known)
            if lines is None:
                lines = await self._begin(server, known)
            status, answer, _ = await self._send(server, method, params, lines)
            if status == 404:
                lines = await self._begin(server, known)
                status, answer, _ = await self._send(server, method, params, lines)
        except (UpstreamFailure, EventTooLarge) as failure:
            self._sessions.pop(known, None)
            self._gateway.targets.forget(f"mcp:{server.name}")
            raise _unavailable(server, str(failure) or "its answer is too large") from failure
        if status not in (200, 202):
            self._sessions.pop(known, None)
            raise _unavailable(server, f"it answered {status}")
        if answer is None:
            raise _unavailable(server, "it answered nothing")
        if answer.error is not None:
            raise ServerError(answer.error)
        return answer.result or {}

    async def _begin(self, server: ToolServer, known: str) -> bytes:
        """A new session. Raises `UpstreamFailure`."""
        params = {
            "protocolVersion": VERSIONS[0], "capabilities": {}, "clientInfo": {"name": "groundplan", "version": "1"},
        }  # fmt: skip
        status, answer, headers = await self._send(server, "initialize", params, b"")
        if status in _ELSEWHERE:
            # declared addresses have no slash at their end, and what is mounted below one is there with it alone
            self._slashed ^= {known}
            again, answer, headers = await self._send(server, "initialize", params, b"")
            if again != 200:
                self._slashed ^= {known}
            status = again if again == 200 else status
        if status != 200 or answer is None or answer.result is None:
            raise UpstreamFailure("malformed", f"it began no session ({status})", sent=True)
        version = str(answer.result.get("protocolVersion", VERSIONS[0])).encode()
        lines = b"mcp-protocol-version: %b\r\n" % version if set(version) <= _SAFE else b""
        session = headers.get(b"mcp-session-id", b"")
        if session and set(session) <= _SAFE:
            lines += b"mcp-session-id: %b\r\n" % session
        self._sessions[known] = lines
        await self._send(server, "notifications/initialized", {}, lines, notify=True)
        return lines

    async def _send(
        self, server: ToolServer, method: str, params: dict[str, Any], lines: bytes, *, notify: bool = False
    ) -> tuple[int, _Answer | None, dict[bytes, bytes]]:
        """(status, answer, headers). Raises `UpstreamFailure`."""
        self._next += 1
        message: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": params}
        if not notify:
            message["id"] = self._next
        return await self._post(server, message, lines, once=method == USE)

    async def _post(
        self, server: ToolServer, message: dict[str, Any], lines: bytes, *, once: bool = False
    ) -> tuple[int, _Answer | None, dict[bytes, bytes]]:
        """`once`: a use is not tried again, so it never meets a connection that its server is just closing."""
        target = self._gateway.targets.named(f"mcp:{server.name}", server.url, server.key)
        path = b"/" if not target.pool.prefix or f"{server.name} {server.url}" in self._slashed else b""
        pooled = None if once else target.pool.idle()
        accept = b"application/json, text/event-stream"
        request = target.request(path, msgspec.json.encode(message), b"mcp-%d" % self._next, accept, lines)
        one = _Post(server, target, request, message.get("id"), partial(self._reply, server, lines))
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
        self._gateway.keep(self._told(server, message, lines))

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

    async def over(self, connection: UpstreamConnection) -> tuple[int, _Answer | None, dict[bytes, bytes]]:
        """(status, answer, headers), within the declared time, however much comes meanwhile. Raises
        `UpstreamFailure`."""
        loop, seconds = asyncio.get_running_loop(), self.server.timeout_ms / 1000
        by = loop.time() + seconds
        try:
            connection.send(self.request)
            status = await connection.head(seconds)
            headers = dict(connection.headers)
            if status == 200 and headers.get(b"content-type", b"").startswith(b"text/event-stream"):
                return status, await self._streamed(connection, by) if self.id is not None else None, headers
            left = still(by - loop.time())
            body = await connection.body(left, left)
        finally:
            connection.release()
        return status, _answer(self.target.clean(body)) if status == 200 and body else None, headers

    async def _streamed(self, connection: UpstreamConnection, by: float) -> _Answer | None:
        """The answer among the events of a stream."""
        reader, loop, asked = EventReader(), asyncio.get_running_loop(), 0
        while (data := await connection.chunk(still(by - loop.time()))) is not None:
            for event in reader.feed(data):
                found = _answer(self.target.clean(event))
                if found is None:
                    continue
                if found.method is None:
                    if self._is_ours(found):
                        return found
                elif found.id is not None and asked < MOST_ASKED:
                    asked += 1
                    self.reply(found)
        return None

    def _is_ours(self, found: _Answer) -> bool:
        """Whether it answers this request, or says of it that it cannot be read; some write numbers as text."""
        if found.id is None:
            return found.error is not None
        return str(found.id) == str(self.id) and (found.result is not None or found.error is not None)


def _answer(data: bytes) -> _Answer | None:
    try:
        refuse_depth(data)  # whoever looks at it goes down every level
        return _decode(data)
    except (Invalid, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _unavailable(server: ToolServer, why: str) -> Unavailable:
    return Unavailable(
        f"the MCP server {server.name} cannot be used now: {why}",
        code="tool_unavailable",
        hint=f"Try again, or ask its owner {server.owner}.",
        retry_after=2.0,
    )
