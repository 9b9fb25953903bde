"""A small MCP server for tests and examples: three tools, resources and prompts, over Streamable HTTP.

It keeps sessions as real servers do, and answers by JSON or by an event stream, as it is told.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from groundplan.gateway.http.errors import refusal_body
from groundplan.gateway.http.server import Request, Response, Server

TOOLS = [
    {
        "name": "add",
        "description": "Add two numbers.",
        "inputSchema": {"type": "object", "properties": {"a": {"type": "number"}, "b": {"type": "number"}}},
        "outputSchema": {"type": "object", "properties": {"sum": {"type": "number"}}, "required": ["sum"]},
    },
    {"name": "echo", "description": "Say it again.", "inputSchema": {"type": "object"}},
    {"name": "delete_all", "description": "Delete everything.", "inputSchema": {"type": "object"}},
]


class ScriptedMcp:
    """State of one server. `streams`: answers are event streams. `asked` are the methods that came."""

    def __init__(self, token: str | None = None, *, streams: bool = False) -> None:
        self.token = token
        self.streams = streams
        self.asked: list[str] = []
        self.used: list[tuple[str, dict[str, Any]]] = []
        self.sessions: set[bytes] = set()
        """Those that it knows; it makes one for each `initialize`, unless it is `stateless`."""
        self.stateless = False
        self.unknown = 404
        """Its status for a session that it does not know."""
        self._made = 0
        self.ids: list[Any] = []
        """Of each use that trickles, and of each request that was cancelled."""
        self.inside: list[bytes] = []
        """The session of each use."""
        self.fails = False
        self.path = b"/mcp"
        """Where it is; elsewhere it redirects there, as what is mounted below an address does."""
        self.resources = {"crm://notes/one": "a note", "crm://secret/two": "hidden"}
        """Texts by address; any other address is a picture."""
        self.answer: dict[str, Any] = {}
        """Of any tool, where it is set."""
        self.odd: list[dict[str, Any]] = []
        """Tools that are on every page besides."""
        self.refusal = ""
        """The message of an error that any use gets, where it is set."""
        self.prompt: list[dict[str, Any]] = []
        """Content of any prompt, where it is set."""
        self.before: list[dict[str, Any]] = []
        """Messages before the answer of each use, where answers are event streams."""
        self.awaits = 0
        """How many of them are answered before a use is, and what came."""
        self.heard: list[dict[str, Any]] = []
        self._heard = asyncio.Condition()
        self.trickles = False
        """A use is never answered, and its stream never silent."""

    async def handle(self, request: Request, response: Response) -> None:
        if request.target != self.path:
            response.send(307, b"", b"location: %b\r\n" % self.path)
            return
        session = request.headers.get(b"mcp-session-id", b"")
        if request.method == b"DELETE":
            self.sessions.discard(session)
            response.send(200, b"")
            return
        message = msgspec.json.decode(request.body)
        if "method" in message:
            await self._handle_message(request, session, message, response)
            return
        self.heard.append(message)
        response.send(202, b"")
        async with self._heard:
            self._heard.notify_all()

    async def _handle_message(
        self, request: Request, session: bytes, message: dict[str, Any], response: Response
    ) -> None:
        self.asked.append(message["method"])
        if self.fails:
            response.send(503, b"{}")
        elif self.token is not None and request.headers.get(b"authorization") != f"Bearer {self.token}".encode():
            response.send(401, b"{}")
        elif message["method"] == "initialize":
            value = {"protocolVersion": message["params"]["protocolVersion"], "capabilities": {"tools": {}}}
            self._made += 1
            if not self.stateless:
                self.sessions.add(b"s-%d" % self._made)
            self._send(response, message, value, b"" if self.stateless else b"mcp-session-id: s-%d\r\n" % self._made)
        elif not self.stateless and session not in self.sessions:
            response.send(self.unknown, b"{}")
        elif "id" not in message:
            if message["method"] == "notifications/cancelled":
                self.ids.append(message["params"]["requestId"])
            response.send(202, b"")
        elif self.streams and message["method"] == "tools/call" and (self.before or self.trickles):
            await self._stream_messages(message, response)
        else:
            if message["method"] == "tools/call":
                self.inside.append(session)
            self._answer(message, response)

    async def _stream_messages(self, message: dict[str, Any], response: Response) -> None:
        """Say more than the answer, as servers with long work or questions do."""
        head = response.start(200, b"content-type: text/event-stream\r\n")
        response.write(
            b": hi\n\n" + b"".join(b"data: %b\n\n" % msgspec.json.encode(each) for each in self.before), head
        )
        self.ids += [message["id"]] if self.trickles else []
        while self.trickles:
            response.write(b": ping\r\n\r\n")
            await asyncio.sleep(0.01)
        async with self._heard:
            await self._heard.wait_for(lambda: len(self.heard) >= self.awaits)
        value = {"content": [{"type": "text", "text": "done"}]}
        data = msgspec.json.encode({"jsonrpc": "2.0", "id": message["id"], "result": value})
        response.end(b"data: %b\n\n" % data)

    def forget(self) -> None:
        """As after a restart: sessions are not known any more."""
        self.sessions.clear()

    def _answer(self, message: dict[str, Any], response: Response) -> None:
        if message["method"] == "tools/list":
            start = int(message["params"].get("cursor") or 0)
            page: dict[str, Any] = {"tools": [*TOOLS[start : start + 2], *self.odd]}
            if start + 2 < len(TOOLS):
                page["nextCursor"] = str(start + 2)
            self._send(response, message, page)
        elif message["method"] == "tools/call":
            name, arguments = message["params"]["name"], message["params"]["arguments"]
            self.used.append((name, arguments))
            told = (
                str(arguments.get("a", 0) + arguments.get("b", 0))
                if name == "add"
                else str(arguments.get("text", "done"))
            )
            made: dict[str, Any] = {"content": [{"type": "text", "text": told}], "isError": False}
            if name == "add":
                made["structuredContent"] = {"sum": float(told)}
            if self.refusal:
                error = {"code": -32602, "message": self.refusal}
                self._write(response, msgspec.json.encode({"jsonrpc": "2.0", "id": message["id"], "error": error}))
                return
            self._send(response, message, self.answer or made)
        elif (found := self._answer_list(message)) is not None:
            self._send(response, message, found)
        else:
            error = {"code": -32601, "message": "no such method"}
            self._write(response, msgspec.json.encode({"jsonrpc": "2.0", "id": message["id"], "error": error}))

    def _answer_list(self, message: dict[str, Any]) -> dict[str, Any] | None:
        """Resources and prompts."""
        method, params = message["method"], message["params"]
        if method == "resources/list":
            return {"resources": [{"uri": uri, "name": uri} for uri in self.resources]}
        if method == "resources/templates/list":
            return {"resourceTemplates": [{"uriTemplate": "crm://orders/{id}", "name": "order"}]}
        if method == "resources/read":
            self.used.append((method, {"uri": params["uri"]}))
            held = self.resources.get(params["uri"])
            content = {"blob": "AAAA", "mimeType": "image/png"} if held is None else {"text": held}
            return {"contents": [{"uri": params["uri"], **content}]}
        if method == "prompts/list":
            return {"prompts": [{"name": "greet"}, {"name": "leave"}]}
        if method == "prompts/get":
            told = f"{params['name']} {(params.get('arguments') or {}).get('who', '')}".strip()
            return {
                "description": told,
                "messages": [{"role": "user", "content": self.prompt or {"type": "text", "text": told}}],
            }
        return None

    def _send(self, response: Response, message: dict[str, Any], value: Any, lines: bytes = b"") -> None:
        self._write(response, msgspec.json.encode({"jsonrpc": "2.0", "id": message["id"], "result": value}), lines)

    def _write(self, response: Response, data: bytes, lines: bytes = b"") -> None:
        if not self.streams:
            response.send(200, data, lines)
            return
        head = response.start(200, b"content-type: text/event-stream\r\n" + lines)
        note = b'data: {"jsonrpc":"2.0","method":"notifications/message","params":{}}\n\n'
        response.write(note, head)
        response.end(b"data: %b\n\n" % data)


async def start(server: ScriptedMcp) -> tuple[asyncio.Server, Server, int]:
    """Listen on a free port of this machine: (listener, server, port)."""
    loop = asyncio.get_running_loop()
    http = Server(server.handle, refusal_body, loop)
    listener = await loop.create_server(http.create_connection, "127.0.0.1", 0)
    return listener, http, int(listener.sockets[0].getsockname()[1])
