"""The API client of the pages: calls the HTTP API inside the process with the visitor's own cookie. No private access.

A page may do and see exactly what its visitor may. It has no database connection.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlencode

Application = Callable[
    [
        MutableMapping[str, Any],
        Callable[[], Awaitable[MutableMapping[str, Any]]],
        Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ],
    Awaitable[None],
]


@dataclass(frozen=True, slots=True)
class Reply:
    """Status and body of an API response: parsed JSON, text of a CSV, or bytes; an empty body is `{}`. `headers` keeps
    repeated names such as set-cookie."""

    status: int
    body: Any
    headers: tuple[tuple[str, str], ...]

    @property
    def ok(self) -> bool:
        return self.status < 400

    @property
    def problem(self) -> str:
        """The error message and its hint in one line: `no such key. List them.` If only one field is wrong, the hint is
        the field's, since that of the whole request is for programs."""
        error = self.body.get("error", {}) if isinstance(self.body, dict) else {}
        fields = error.get("problems") or []
        hint = str((fields[0] if len(fields) == 1 else error).get("hint") or error.get("hint") or "")
        message = str(error.get("message") or f"the API answered {self.status}")
        return f"{message}{'' if message.endswith(('.', '!', '?', ':')) else '.'} {hint}" if hint else message


@dataclass(frozen=True, slots=True)
class Api:
    """The API as one visitor may use it. `address` is the visitor's, since some actions are allowed only from this
    machine."""

    app: Application
    headers: tuple[tuple[bytes, bytes], ...]
    address: tuple[str, int]

    async def get(self, path: str, **query: str) -> Reply:
        return await self.call("GET", path, query=query)

    async def post(self, path: str, body: dict[str, Any] | None = None) -> Reply:
        return await self.call("POST", path, body=body or {})

    async def post_file(self, path: str, data: bytes, query: Sequence[tuple[str, str]]) -> Reply:
        """Send a file as it is."""
        return await self.call("POST", path, body=data, query=query)

    async def call(
        self,
        method: str,
        path: str,
        *,
        body: dict[str, Any] | bytes | None = None,
        query: dict[str, str] | Sequence[tuple[str, str]] | None = None,
    ) -> Reply:
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        path, _, asked = path.partition("?")
        text = asked or urlencode(query or {})
        type_ = b"text/csv" if isinstance(body, bytes) else b"application/json"
        headers = [*self.headers, (b"content-type", type_), (b"content-length", str(len(data)).encode())]
        scope: MutableMapping[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "scheme": "http",
            "method": method,
            "path": unquote(path),  # decoded as by a server: @ of an e-mail address, not %40
            "raw_path": path.encode(),
            "query_string": text.encode(),
            "root_path": "",
            "headers": headers,
            "client": self.address,
            "server": ("localhost", 80),
            "state": {},
        }
        return await _call(self.app, scope, data)


async def _call(app: Application, scope: MutableMapping[str, Any], data: bytes) -> Reply:
    status = 500
    headers: tuple[tuple[str, str], ...] = ()
    chunks: list[bytes] = []
    sent = False

    async def receive() -> MutableMapping[str, Any]:
        nonlocal sent
        if sent:
            return {"type": "http.disconnect"}
        sent = True
        return {"type": "http.request", "body": data, "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        nonlocal status, headers
        if message["type"] == "http.response.start":
            status = message["status"]
            headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in message["headers"])
        else:
            chunks.append(message.get("body", b""))

    try:
        await app(scope, receive, send)
    except Exception:  # raised again by the framework after the API has logged it and answered with its id
        if not chunks:
            raise
    raw = b"".join(chunks)
    is_json = any(name == "content-type" and value.startswith("application/json") for name, value in headers)
    if is_json and raw:
        return Reply(status, json.loads(raw), headers)
    is_text = any(name == "content-type" and value.startswith("text/csv") for name, value in headers)
    return Reply(status, raw.decode("utf-8") if is_text else raw or {}, headers)
