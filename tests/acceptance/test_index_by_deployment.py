"""The search index of a running company: embedded by a declared deployment through the gateway, and back again.

Real processes: `up` with its gateway, search service and control process, and an upstream that counts what reaches it.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.stack import Stack, Upstream, wait_until

COMPANY = """kind: company
name: acme
format: 1
separation: solo
INDEX---
kind: person
name: ana
email: ana@acme.example
---
kind: site
name: here
type: private
jurisdiction: EU
---
kind: deployment
name: one
site: here
model: scripted
upstream_model: scripted
url: URL
price: {input: 0 USD/Mtok, output: 10 USD/Mtok}
context: 32k
---
kind: deployment
name: embed-eu
type: embeddings
site: here
model: scripted-embeddings
upstream_model: scripted
url: URL
price: {input: 10 USD/Mtok, output: 0 USD/Mtok}
context: 32k
---
kind: source
name: handbook
path: ./handbook
sensitivity: internal
owner: ana
readers: [everyone]
---
kind: workload
name: assistant
purpose: Answer questions of the staff
audience: employees
stage: pilot
sensitivity: internal
sources: [handbook]
deployments: [one]
owners: {business: ana}
---
kind: budget
name: assistant
covers: workload/assistant
limit: 100 USD/month
---
kind: workload
name: index
purpose: Embed documents and questions for search
audience: employees
stage: pilot
sensitivity: internal
deployments: [one]
embeddings: [embed-eu]
owners: {business: ana}
---
kind: budget
name: index
covers: workload/index
limit: 5 USD/month
"""
INDEX = "index: {embedding: {workload: index, deployment: embed-eu, dimensions: 16}, questions: ./questions.jsonl}\n"
QUESTIONS = (
    '{"question": "How many days of leave?", "person": "ana@acme.example", "workload": "assistant", '
    '"documents": ["handbook/leave.md"]}\n'
)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[Stack, Upstream]]:
    upstream = Upstream(tmp_path / "upstream")
    workspace = tmp_path / "workspace"
    (workspace / "handbook").mkdir(parents=True)
    for name, text in (
        ("leave", "# Leave\n\nEmployees have 28 days of leave a year.\n"),
        ("bread", "# Bread\n\nThe canteen bakes its own bread each morning.\n"),
        ("travel", "# Travel\n\nTrains are preferred to planes below 600 km.\n"),
    ):
        (workspace / f"handbook/{name}.md").write_text(text)
    (workspace / "questions.jsonl").write_text(QUESTIONS)
    (workspace / "company.yaml").write_text(COMPANY.replace("URL", upstream.url).replace("INDEX", ""))
    stack = Stack(tmp_path, workspace)
    upstream.start()
    try:
        stack.start()
        yield stack, upstream
    finally:
        stack.stop()
        upstream.stop()


def editions(stack: Stack) -> dict[int, str]:
    return {edition["id"]: edition["state"] for edition in stack.cli("knowledge", "index", "list")["editions"]}


def search(stack: Stack, query: str) -> dict[str, Any]:
    body = {"workload": "assistant", "query": query}
    answer = stack.control("POST", "/api/knowledge/search", body, stack.sign_in("ana@acme.example"))
    assert answer.status == 200, answer.body
    return dict(answer.body)


def best_path(stack: Stack, query: str) -> str:
    return str(search(stack, query)["passages"][0]["path"])


@pytest.mark.soak
def test_a_deployments_embeddings_are_metered_and_keyword_search_serves_while_it_is_away(
    running: tuple[Stack, Upstream],
) -> None:
    up, upstream = running
    up.control("POST", "/api/knowledge/ingest", {})
    assert editions(up) == {1: "serving"}
    assert best_path(up, "How many days of leave?") == "leave.md"
    company = COMPANY.replace("URL", upstream.url).replace("INDEX", INDEX)
    (up.workspace / "company.yaml").write_text(company)
    up.cli("apply")
    # the control process is killed meanwhile; `up` restarts it, and the edition in progress is continued
    wait_until(lambda: 2 in editions(up), 60, "the next edition is started")
    os.kill(up.pids("groundplan.console.app")[0], signal.SIGKILL)
    end = time.monotonic() + 90
    while True:
        assert time.monotonic() < end, up.log()
        try:
            if editions(up) == {1: "kept", 2: "serving"}:
                break
        except AssertionError:
            time.sleep(0.5)
    edition = up.cli("knowledge", "index", "list")["editions"][0]
    assert (edition["settings"]["dimension"], edition["without_vector"]) == (16, 0)
    assert edition["compared"]["own"]["labelled"]["questions"] == 1
    assert edition["compared"]["against"] == []

    assert search(up, "How many days of leave?")["degraded"] == ""
    assert best_path(up, "days of leave") == "leave.md"
    calls = up.control("GET", "/api/calls?workload=index").body["calls"]
    assert calls
    assert {call["status"] for call in calls} == {"ok"}
    assert sum(float(call["cost_usd"]) for call in calls) > 0
    keys = up.control("GET", "/api/keys").body["keys"]
    assert len([key for key in keys if key["workload"] == "index"]) == 1

    upstream.stop()
    degraded = search(up, "canteen bread")
    assert "embed-eu does not embed" in degraded["degraded"]
    assert degraded["passages"][0]["path"] == "bread.md"
    upstream.start()

    rollback = up.cli("knowledge", "index", "rollback")
    assert (rollback["edition"], rollback["state"]) == (1, "serving")
    assert best_path(up, "Trains or planes?") == "travel.md"
    assert editions(up) == {1: "serving", 2: "kept"}
    up.cli("knowledge", "index", "drop", "2")
    log = str(up.control("GET", "/api/audit?limit=200").body)
    assert all(f"index.{done}" in log for done in ("begun", "switching", "switched", "dropped"))
