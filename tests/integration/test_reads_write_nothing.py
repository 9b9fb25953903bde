"""Every route that only reads, asked over connections on which nothing can be written or locked: so nobody who writes
ever waits for somebody who looks. A new route is among them by itself."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from fastapi import FastAPI
from psycopg import Connection
from psycopg_pool import ConnectionPool
from tests.integration.test_api_control import WORKSPACE

from groundplan.api.app import POOL_SIZE, POOL_WAIT_SECONDS, create_app
from groundplan.api.context import Services
from groundplan.api.genesis import genesis_if_empty, prepare_home
from groundplan.api.release import MAX_CONCURRENT_PLANS
from groundplan.core.database import database_url
from groundplan.core.home import Home
from groundplan.release import approvals, service
from groundplan.release.publish import make_plan
from groundplan.testing.database import Cluster

RECORDED = {
    "GET /api/reviews/{id}", "GET /api/audit", "GET /api/audit/{entry_id}/proof", "GET /api/placement/report.pdf",
    "GET /api/exports/cyclonedx", "GET /api/cost/focus.csv",
}  # fmt: skip
"""Who reads is written down with it."""
ENDLESS = {"/api/calls/live"}
NAMED = {"name": "assistant", "workload": "assistant", "kind": "workload", "person": "ana@acme.example", "number": "1"}
"""What there is of what is named in an address; elsewhere an id is asked for that nothing has."""
NOTHING = "01a212d3-0000-7000-8000-000000000000"


def ask(app: FastAPI, method: str, path: str, query: str = "", body: Any = None) -> tuple[int, Any]:
    """(status, body) of a request with the operator's token, in this process."""
    services: Services = app.state.services
    token = services.home.operator_token.read_text().strip()
    data = b"" if body is None else json.dumps(body).encode()
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": data, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"host", b"localhost:1"), (b"authorization", f"Bearer {token}".encode())]
    headers += [(b"content-type", b"application/json"), (b"content-length", str(len(data)).encode())]
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http", "method": method,
        "path": path, "raw_path": quote(path).encode(), "query_string": query.encode(), "root_path": "",
        "headers": headers, "client": ("127.0.0.1", 1), "server": ("localhost", 1), "state": {},
    }  # fmt: skip
    try:
        asyncio.run(app(scope, receive, send))
    except Exception:
        if not sent:
            raise
    raw = b"".join(message.get("body", b"") for message in sent[1:])
    return sent[0]["status"], json.loads(raw) if raw.startswith((b"{", b"[")) else raw


@pytest.fixture(scope="module")
def app(postgres_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FastAPI]:
    """With nothing beside its routes, and a change that waits."""
    folder: Path = tmp_path_factory.mktemp("reads")
    workspace = folder / "workspace"
    workspace.mkdir()
    (workspace / "acme.yaml").write_text(WORKSPACE)
    home = Home(folder / "home")
    with postgres_cluster.database() as database:
        settings = database.settings(home.root)
        prepare_home(home)
        genesis_if_empty(home, settings, workspace, False)
        made = create_app(home, settings, workspace)
        made.state.sequencer = SimpleNamespace(problem=None)
        with made.state.services.pool:
            yield made


def read_only(conn: Connection[Any]) -> None:
    conn.read_only = True


def test_reading_routes_do_not_block_writers(app: FastAPI) -> None:
    wish = {"kind": "rollout", "subject": "workload/assistant", "reason": "for the test",
            "what": {"stage": "production", "audience": "employees"}}  # fmt: skip
    status, change = ask(app, "POST", "/api/approvals", body=wish)
    assert status == 201, change
    services: Services = app.state.services
    url = database_url(services.home, services.settings, "control")
    asked, refused = 0, set()
    with ConnectionPool(url, min_size=1, max_size=4, configure=read_only) as pool:
        app.state.services = dataclasses.replace(services, pool=pool)
        try:
            for path, item in app.openapi()["paths"].items():
                if "get" not in item or path in ENDLESS:
                    continue
                given = {**NAMED, "change_id": change["id"]}
                where, query = path, {}
                for each in item["get"].get("parameters", ()):
                    if each["in"] == "path":
                        where = where.replace(f"{{{each['name']}}}", given.get(each["name"], NOTHING))
                    elif each["in"] == "query" and each["required"]:
                        query[each["name"]] = given.get(each["name"], "1")
                _, body = ask(app, "GET", where, urlencode(query))
                asked += 1
                if "database_read_only" in json.dumps(body, default=str):
                    refused.add(f"GET {path}")
        finally:
            app.state.services = services
    assert asked > 100
    assert refused == RECORDED


PRODUCTION = WORKSPACE.replace("stage: pilot", "stage: production").replace(
    "security: sam}", "security: sam, product: ana, architecture: ana, engineering: ana, operations: sam, "
    "finance: sam, data: sam, compliance: sam}",
)  # fmt: skip


def test_previews_and_plans_hold_no_connections_of_others(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a change lacks is planned, which takes seconds for thousands of workloads."""
    status, applied = ask(app, "POST", "/api/apply", body={"files": {"acme.yaml": PRODUCTION}})
    assert status == 200, applied
    (change,) = [each["change"] for each in applied["pending"]]
    begun, go_on = threading.Semaphore(0), threading.Event()
    plans = 0

    def slow(*arguments: Any) -> Any:
        nonlocal plans
        plans += 1
        begun.release()
        assert go_on.wait(60)
        return make_plan(*arguments)

    for module in (approvals, service):
        monkeypatch.setattr(module, "make_plan", slow)
    body = {"files": {"acme.yaml": PRODUCTION}}
    with ThreadPoolExecutor(2 * POOL_SIZE + 1) as threads:
        viewers = [threads.submit(ask, app, "GET", f"/api/changes/{change}") for _ in range(POOL_SIZE)]
        assert begun.acquire(timeout=30)
        others = [threads.submit(ask, app, "POST", "/api/plan", "", body) for _ in range(POOL_SIZE)]
        assert begun.acquire(timeout=30) and begun.acquire(timeout=30)
        asked = threads.submit(ask, app, "GET", "/api/keys")
        try:
            assert asked.result(POOL_WAIT_SECONDS + 20)[0] == 200
            assert plans == MAX_CONCURRENT_PLANS
        finally:
            go_on.set()
        assert {each.result(60)[0] for each in [*viewers, *others]} == {200}
    assert plans == 1 + POOL_SIZE, "one of those who look has it planned for all"
    assert len({json.dumps(each.result()[1]["missing"]) for each in viewers}) == 1
