"""Checks of every request to the control port before any route: an allowed Host header and a bounded body.

Responses get security headers. Authentication is in `caller.py`. Plain ASGI, so that responses are not buffered.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_BODY_BYTES = 16 << 20
SIGN_IN_PATHS = ("/login/", "/sign-in/")
"""Paths where GET signs somebody in: HEAD stays HEAD there, so that link previews of mail and chat use up no link."""
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[a-zA-Z0-9._-]+)(?::([0-9]{1,5}))?")
_LAST_PORT = 65_535
LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})
HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (
        b"content-security-policy",
        b"default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; object-src 'none'; "
        b"base-uri 'none'; frame-ancestors 'none'; form-action 'self'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)


class LocalOnly:
    """Refuses foreign Host headers (a web page that rebinds its name to this address) and bodies over 16 MiB."""

    def __init__(self, app: Application, hosts: frozenset[str] = LOCAL_HOSTS) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = scope["headers"]
        host_headers = [value for name, value in headers if name == b"host"]
        if len(host_headers) != 1 or host_name(host_headers[0].decode("latin-1")) not in self._hosts:
            await _refuse(
                send, 421, "host_not_allowed", "this address is only for this machine", "Use http://localhost."
            )
            return
        length = next((value for name, value in headers if name == b"content-length"), b"0")
        if not length.isdigit() or int(length) > MAX_BODY_BYTES:
            await _too_large(send)
            return
        if scope["method"] == "HEAD" and not scope["path"].startswith(SIGN_IN_PATHS):
            head = _HeadRequest(receive, send)
            scope, receive, send = {**scope, "method": "GET"}, head.receive, head.send
        body = _BoundedBody(receive)
        own = b"%b://%b" % (scope["scheme"].encode(), host_headers[0])
        await self._app(scope, body.receive, body.sender(_with_headers(send, own), send))


def host_name(value: str) -> str:
    """The name in a Host header, without its port; empty if the header is malformed. Of a malformed one others read
    another name: Starlette takes this machine's, for which the operator's token is valid."""
    found = _HOST.fullmatch(value)
    return "" if found is None or int(found[2] or 0) > _LAST_PORT else found[1].lower()


class _HeadRequest:
    """Answers HEAD, as used by monitors, like GET without the body. After the head the application sees a disconnected
    client, so that endless streams end."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._answered = False

    async def receive(self) -> Message:
        return {"type": "http.disconnect"} if self._answered else await self._receive()

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start" and not self._answered:
            self._answered = True
            await self._send(message)
            await self._send({"type": "http.response.body", "body": b""})


class _BoundedBody:
    """Counts received bytes, since a chunked body declares no length. For too large a body the application sees a
    disconnected client, and its response is replaced by the refusal."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._received = 0
        self._answered = False

    async def receive(self) -> Message:
        message = await self._receive()
        self._received += len(message.get("body", b""))
        return {"type": "http.disconnect"} if self._received > MAX_BODY_BYTES else message

    def sender(self, usual: Send, refusing: Send) -> Send:
        async def send(message: Message) -> None:
            if message["type"] == "http.response.start" and self._received > MAX_BODY_BYTES:
                self._answered = True
                await _too_large(refusing)
            elif not self._answered:
                await usual(message)

        return send


def _with_headers(send: Send, own: bytes) -> Send:
    """Adds security headers. `own`: scheme and host of this process, which behind a proxy are not those of the client;
    they are removed from redirects to another path here."""

    async def extended(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [
                (name, value[len(own) :] if _is_own_location(name, value, own) else value)
                for name, value in message.get("headers", ())
            ]
            present = {name.lower() for name, _ in headers}
            extra = [(name, value) for name, value in HEADERS if name not in present]
            message = {**message, "headers": [*headers, *extra]}
        await send(message)

    return extended


def _is_own_location(name: bytes, value: bytes, own: bytes) -> bool:
    """Whether a header is a Location on this host. A path that begins with two slashes would name another host."""
    return name.lower() == b"location" and value.startswith(own + b"/") and not value.startswith(own + b"//")


async def _too_large(send: Send) -> None:
    await _refuse(send, 413, "body_too_large", "the body is larger than 16 MiB", "Send less at once.")


async def _refuse(send: Send, status: int, code: str, message: str, hint: str) -> None:
    body = json.dumps({"error": {"message": message, "type": "denied", "code": code, "hint": hint}}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *HEADERS]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
