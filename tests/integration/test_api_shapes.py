"""The application in this process, without a database: what it refuses and how it tells its own failures."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from fastapi import FastAPI

from groundplan.api.access.authorization import actions_by_route
from groundplan.api.app import create_app
from groundplan.api.genesis import prepare_home
from groundplan.api.http.security import MAX_BODY_BYTES, host_name
from groundplan.core.errors import Exhausted
from groundplan.core.home import Home
from groundplan.core.settings import load_settings

Message = MutableMapping[str, Any]


def call(
    app: FastAPI, path: str, *, method: str = "GET", token: str = "", host: str = "localhost:1", chunks: int = 0
) -> tuple[int, Any, dict[str, str]]:
    """(status, JSON, headers) of one request; `chunks` sends that many MiB without a declared length."""
    sent: list[Message] = []
    waiting = [{"type": "http.request", "body": b"x" * (1 << 20), "more_body": True} for _ in range(chunks)]
    waiting.append({"type": "http.request", "body": b"", "more_body": False})

    async def receive() -> Message:
        return waiting.pop(0) if waiting else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"host", host.encode()), (b"content-type", b"application/json")]
    headers += [(b"authorization", f"Bearer {token}".encode())] if token else []
    scope: Message = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http", "method": method,
        "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "headers": headers,
        "client": ("127.0.0.1", 1), "server": ("localhost", 1), "state": {},
    }  # fmt: skip

    async def run() -> None:
        try:
            await app(scope, receive, send)
        except RuntimeError:
            assert sent, "the framework tells the answer before it raises again for the log"

    asyncio.run(run())
    raw = b"".join(message.get("body", b"") for message in sent[1:])
    told = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], json.loads(raw), told


@pytest.fixture
def app(tmp_path: Path) -> FastAPI:
    home = Home(tmp_path / "home")
    prepare_home(home)
    made = create_app(home, load_settings({"GROUNDPLAN_DATABASE_URL": "postgresql://nobody@127.0.0.1:9/none"}))

    @made.get("/api/broken")
    def broken() -> None:
        raise RuntimeError("a secret that nobody may see")

    @made.get("/api/full")
    def full() -> None:
        raise Exhausted("it is full", hint="Wait.", code="full", retry_after=2.4)

    @made.get("/api/one/{call_id}")
    @made.get("/api/one/{call_id}/{most}")
    def one(call_id: UUID, most: int = 1) -> str:
        return f"{call_id} {most}"

    return made


@pytest.fixture
def token(app: FastAPI) -> str:
    home: Home = app.state.services.home
    return home.operator_token.read_text().strip()


def test_an_unexpected_error_is_logged_with_an_id_and_answered_without_a_traceback(
    app: FastAPI, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        status, body, _ = call(app, "/api/broken")
    assert status == 500 and body["error"]["code"] == "internal"
    assert "secret" not in json.dumps(body)
    assert body["error"]["id"] in caplog.text


def test_an_error_has_retry_after(app: FastAPI) -> None:
    status, body, headers = call(app, "/api/full")
    assert (status, body["error"]["type"], headers["retry-after"]) == (429, "exhausted", "2")


def test_a_malformed_id_is_refused_with_an_example(app: FastAPI) -> None:
    status, body, _ = call(app, "/api/one/handbook-leave")
    assert (status, body["error"]["message"]) == (422, "call_id: 'handbook-leave' is no id")
    (problem,) = body["error"]["problems"]
    assert problem["code"] == "field_invalid" and "01a21e10-5ccc-7000-bea1-437884daa0e3" in problem["hint"]
    status, body, _ = call(app, "/api/one/01a21e10-5ccc-7000-bea1-437884daa0e3/many")
    (problem,) = body["error"]["problems"]
    assert status == 422 and problem["message"].startswith("most: ") and "openapi.json" in problem["hint"]


def test_a_stopped_database_is_a_clear_error(app: FastAPI, token: str) -> None:
    status, body, headers = call(app, "/api/status", token=token)
    assert (status, body["error"]["code"]) == (503, "database_unavailable")
    assert body["error"]["hint"] and headers["retry-after"]


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "", "10.0.0.1"])
def test_foreign_hosts_are_refused_before_any_route(app: FastAPI, host: str) -> None:
    status, body, headers = call(app, "/api/broken", host=host)
    assert (status, body["error"]["code"]) == (421, "host_not_allowed")
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("header", "name"),
    [("localhost:8601", "localhost"), ("LOCALHOST", "localhost"), ("[::1]:80", "[::1]"), ("127.0.0.1", "127.0.0.1")],
)
def test_the_name_in_a_host_header(header: str, name: str) -> None:
    assert host_name(header) == name


def test_a_body_without_length_is_counted(app: FastAPI, token: str) -> None:
    status, body, _ = call(app, "/api/plan", method="POST", token=token, chunks=(MAX_BODY_BYTES >> 20) + 2)
    assert status >= 400 and body["error"]["code"]


def test_every_route_below_api_asks_who_is_calling(app: FastAPI) -> None:
    described = app.openapi()["paths"]
    for path, methods in described.items():
        if not path.startswith("/api/") or path in {"/api/broken", "/api/full"}:
            continue
        for method in methods:
            if actions_by_route().get(f"{method.upper()} {path}") == "open":
                continue  # who signs in is not known yet
            real = path.replace("{", "").replace("}", "").replace(":path", "")
            status, body, _ = call(app, real, method=method.upper())
            assert status in {401, 422}, (method, path, body)
            assert status == 401 or "request_invalid" in str(body)
