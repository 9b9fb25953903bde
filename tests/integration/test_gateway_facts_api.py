"""Outcomes and search at the gateway's own port, with an API key: durable, once, and only what the key may."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import date
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from tests.integration.gateway_stack import (
    GROUNDING,
    Stack,
    blueprint,
    deployment,
    installation,
    scripted_upstream,
    workload,
)
from tests.integration.nursery import Worker, fork_program

from groundplan.blueprint.model import Keep, Source
from groundplan.core.audit.subject import SubjectKeys
from groundplan.core.endpoints import lookup
from groundplan.core.ids import new_id
from groundplan.core.settings import child_environment, load_settings
from groundplan.gateway.journal.shipper import Shipper
from groundplan.knowledge.service import IngestContext, ingest_sources
from groundplan.knowledge.service_client import RemoteEmbedder
from groundplan.ledger.model import Finish
from groundplan.runtime.models import MINILM, ensure
from groundplan.testing.database import Database
from groundplan.testing.journal import read_segment

OUTCOMES = "/api/outcomes"
SEARCH = "/api/knowledge/search"
SIGNALS = "/api/knowledge/signals"


@pytest.fixture
async def stack(database: Database, tmp_path: Path) -> AsyncIterator[Stack]:
    """A worker with two workloads: `assistant` reads the handbook, `payroll` reads nothing."""
    async with scripted_upstream("one") as (_, port), installation(database, tmp_path) as made:
        keep = Keep(content="full", seconds=3600)
        strict = workload("strict", ["one"], grounding=GROUNDING, sensitivity="restricted", grace_ms=0)
        declared = [
            workload("assistant", ["one"], grounding=GROUNDING, keep=keep), workload("payroll", ["one"]), strict,
        ]  # fmt: skip
        made.apply(blueprint(1, [deployment("one", port)], declared))
        made.start()
        await made.wait_until_ready()
        yield made


def call_of(stack: Stack, name: str = "assistant") -> UUID:
    """A call of that workload in the ledger."""
    call = new_id()
    stack.sql(
        "INSERT INTO call (id, at, workload, endpoint, status, http_status, cost_usd, reserved_usd, blueprint, epoch,"
        " detail) VALUES (%s, now(), %s, 'chat.completions', 'ok', 200, 0, 0, 1, %s, '{}')",
        *(call, name, new_id()),
    )
    return call


BLOCKED = "SELECT 1 FROM pg_locks WHERE relation = 'outcome'::regclass AND NOT granted"
"""An outcome that waits in the database to be written."""


async def post_until_kept(stack: Stack, key: str, body: dict[str, Any]) -> None:
    """Send it until it is kept: a worker that has just started, or is slow to follow live policy, says 503."""
    end = asyncio.get_running_loop().time() + 60
    while (reply := await stack.post(OUTCOMES, key, body)).status != 201:
        assert reply.status == 503 and asyncio.get_running_loop().time() < end, reply.body
        await asyncio.sleep(0.1)


async def test_an_application_says_what_its_call_was_worth(stack: Stack) -> None:
    key, call = stack.key(), call_of(stack)
    body = {"id": str(new_id()), "call_id": str(call), "accepted": True, "value_usd": "2.50", "label": "resolved"}
    await post_until_kept(stack, key, {"call_id": str(call), "label": "seen"})
    replies = await asyncio.gather(*(stack.post(OUTCOMES, key, body) for _ in range(6)))
    assert [reply.status for reply in replies] == [201] * 6
    assert replies[0].json == {"id": body["id"], "call_id": str(call)}
    ((accepted, value, label, by),) = stack.sql(
        "SELECT accepted, value_usd, label, by FROM outcome WHERE accepted IS NOT NULL"
    )
    assert (accepted, str(value), label) == (True, "2.500000000000", "resolved")
    assert by == f"key:{stack.sql('SELECT id FROM api_key')[0][0]}"
    other = await stack.post(OUTCOMES, key, {**body, "accepted": False})
    assert (other.status, other.code) == (409, "outcome_differs")
    unnamed = await stack.post(OUTCOMES, key, {"call_id": str(call), "value_usd": 0.25})
    assert unnamed.status == 201 and UUID(unnamed.json["id"]).version == 7
    again = await stack.post(OUTCOMES, key, {"call_id": str(call), "value_usd": 0.25})
    assert (again.status, again.code) == (409, "outcome_twice")
    nothing = await stack.post(OUTCOMES, key, {"call_id": str(call)})
    assert (nothing.status, nothing.code) == (
        422,
        "request_invalid",
    ) and b"accepted, value_usd or label" in nothing.body


async def test_an_outcome_is_kept_once_though_the_worker_dies_before_it_answers(stack: Stack) -> None:
    key, call = stack.key(), call_of(stack)
    await post_until_kept(stack, key, {"call_id": str(call), "label": "seen"})
    body = {"id": str(new_id()), "call_id": str(call), "accepted": True}
    with psycopg.connect(stack.database.superuser) as blocker:
        blocker.execute("LOCK TABLE outcome IN ACCESS EXCLUSIVE MODE")
        waiting = asyncio.create_task(stack.post(OUTCOMES, key, body))
        async with asyncio.timeout(60):
            while not stack.sql(BLOCKED):
                if waiting.done():  # a worker that is slow to follow live policy, or to come so far, says 503
                    assert waiting.result().status == 503, waiting.result().body
                    waiting = asyncio.create_task(stack.post(OUTCOMES, key, body))
                await asyncio.sleep(0.02)
        stack.workers[0].kill()
        stack.workers[0].wait()
    with pytest.raises((ConnectionError, IndexError, ValueError)):
        await waiting
    stack.workers.clear()
    stack.start()
    await post_until_kept(stack, key, body)
    assert len(stack.sql("SELECT 1 FROM outcome WHERE accepted")) == 1


async def test_a_key_reports_for_its_own_workload_only(stack: Stack) -> None:
    key = stack.key()
    for call in (call_of(stack, "payroll"), new_id()):
        refused = await stack.post(OUTCOMES, key, {"call_id": str(call), "accepted": True})
        assert (refused.status, refused.code) == (404, "call_unknown")
        assert set(refused.json["error"]) == {"message", "type", "code", "hint"}
    assert stack.sql("SELECT 1 FROM outcome") == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"call_id": "7"},
        {"value_usd": "-1"},
        {"value_usd": "1e7"},
        {"value_usd": "0.0000000000001"},
        {"value_usd": "NaN"},
        {"label": "a\0b"},
        {"label": "x" * 201},
        {"by": "operator"},
    ],
)
async def test_fields_that_do_not_fit_are_named(stack: Stack, wrong: dict[str, Any]) -> None:
    refused = await stack.post(OUTCOMES, stack.key(), {"call_id": str(call_of(stack)), **wrong})
    assert (refused.status, refused.code) == (422, "request_invalid")
    assert refused.json["error"]["problems"][0]["code"] == "field_invalid"
    assert next(iter(wrong)) in refused.json["error"]["message"]


async def test_who_may_not_is_told_why(stack: Stack) -> None:
    key, body = stack.key(), {"call_id": str(call_of(stack)), "accepted": True}
    assert (await stack.post(OUTCOMES, None, body)).code == "key_missing"
    assert (await stack.post(OUTCOMES, "gp_0", body)).code == "invalid_api_key"
    malformed = await stack.post(OUTCOMES, key, b"{")
    assert (malformed.status, malformed.code) == (422, "request_invalid")
    assert (await stack.ask("GET", OUTCOMES, key)).status == 405
    assert (await stack.post("/api/keys", key, {})).code == "not_found"
    stop = "INSERT INTO kill_switch (id, scope, reason, by) VALUES (%s, 'workload/assistant', 'x', 'operator')"
    await stack.wait_until_acknowledged(stack.policy("kill", "workload/assistant", stop, new_id()))
    for path in (OUTCOMES, SEARCH):
        assert (await stack.post(path, key, body)).code == "killed"


async def test_without_postgresql_an_outcome_is_refused_and_kept_when_it_is_sent_again(stack: Stack) -> None:
    key, body = stack.key("payroll"), {"id": str(new_id()), "call_id": str(call_of(stack, "payroll")), "accepted": True}
    await post_until_kept(stack, key, body)
    name = stack.database.name
    body["id"] = str(new_id())
    stack.sql_admin(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    stack.sql_admin(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
    cut_off = await stack.post(OUTCOMES, key, body)
    assert (cut_off.status, cut_off.code) == (503, "database_unavailable")
    assert "retry-after" in cut_off.headers and "same `id`" in cut_off.json["error"]["hint"]
    stack.sql_admin(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    await post_until_kept(stack, key, body)
    assert len(stack.sql("SELECT 1 FROM outcome")) == 2


async def _search_service(stack: Stack) -> Worker:
    await asyncio.to_thread(ensure, load_settings().models, MINILM.name)
    process = fork_program(
        "groundplan.gateway.search_app",
        ["--home", str(stack.home.root)],
        2,
        child_environment({"GROUNDPLAN_DATABASE_URL": stack.database.dsn}),
    )
    end = asyncio.get_running_loop().time() + 60
    while lookup(stack.home, "search") is None:
        assert process.poll() is None and asyncio.get_running_loop().time() < end
        await asyncio.sleep(0.05)
    return process


def _ingest(stack: Stack, folder: Path) -> None:
    (folder / "docs").mkdir()
    (folder / "docs" / "leave.md").write_text("# Leave\n\nEmployees have 28 days of paid leave a year.\n")
    source = Source(
        name="handbook", path="docs", sensitivity="internal", owner="ana@acme.example", readers=["ana@acme.example"]
    )
    ingest_sources(
        stack.database.urls["control"], [source], RemoteEmbedder(stack.home), IngestContext(folder, date(2026, 11, 25))
    )


def searches(stack: Stack) -> list[Finish]:
    """Those that are calls in the journal."""
    paths = sorted(stack.home.journal.glob("*/*.seg"))
    found = [entry.record for path in paths for entry in read_segment(path)[0] if isinstance(entry.record, Finish)]
    return [record for record in found if record.endpoint == "search"]


async def _signals_are_kept(stack: Stack, keys: dict[str, str], document: str) -> None:
    """Once under its id, about a document that the person may read, and without who sent it."""
    sent = new_id()
    up = {"kind": "up", "document": document, "rank": 1, "id": str(sent)}
    for _ in range(2):
        told = await stack.post(SIGNALS, keys["ana"], up)
        assert (told.status, told.json) == (201, {"id": up["id"], "kept": True})
    rows = stack.sql("SELECT id, kind, document_id, rank, person_id, asked FROM knowledge_signal WHERE kind = 'up'")
    assert rows == [(sent, "up", UUID(document), 1, None, None)]
    hidden = await stack.post(SIGNALS, keys["ben"], {"kind": "click", "document": document})
    absent = await stack.post(SIGNALS, keys["ben"], {"kind": "click", "document": str(new_id())})
    assert (hidden.status, hidden.json) == (404, absent.json), "as if there were none"
    for wrong in ({"kind": "up"}, {"kind": "unanswered", "document": document}, {"kind": "like", "document": document}):
        assert (await stack.post(SIGNALS, keys["ana"], wrong)).code == "request_invalid"
    assert (await stack.post(SIGNALS, keys["acts"], up)).code == "person_required"
    assert (await stack.post(SIGNALS, None, up)).code == "key_missing"
    asked = await stack.post(SIGNALS, keys["ana"], {"kind": "unanswered", "question": "Where is the pool?"})
    assert (asked.status, asked.json["kept"]) == (201, True)


async def _what_found_nothing_is_kept(stack: Stack, key: str, person: str) -> None:
    """Questions of searches and of calls alike: sealed, for who may read the gaps of knowledge, and no longer."""
    assert (await stack.chat(key, "Where do bicycles go?")).status == 200
    end = asyncio.get_running_loop().time() + 60
    wanted = "SELECT asked, call_id, expires_at FROM knowledge_signal WHERE kind = 'unanswered' AND person_id = %s"
    while len(rows := stack.sql(wanted, person)) < 2:
        assert asyncio.get_running_loop().time() < end, rows
        await asyncio.sleep(0.1)
    with psycopg.connect(stack.database.urls["control"]) as conn:
        told = {SubjectKeys.of(stack.home).unseal(conn, sealed): (call, until) for sealed, call, until in rows}
    assert set(told) == {"How long is paid leave?", "Where do bicycles go?"}
    assert all(until is not None for _, until in told.values())


async def _by_tool(stack: Stack, key: str, **headers: str) -> str:
    """What an agent is given that searches at /mcp."""
    used = {"name": "search", "arguments": {"query": "How long is paid leave?"}}
    told = await stack.post("/mcp", key, {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": used}, **headers)
    assert told.status == 200, told.body
    return "\n".join(part["text"] for part in told.json["result"]["content"])


async def test_a_search_finds_what_the_person_behind_the_key_may_read(stack: Stack, tmp_path: Path) -> None:
    ana, ben = stack.person("ana@acme.example"), stack.person("ben@acme.example")
    keys = {"ana": stack.key(person=ana), "ben": stack.key(person=ben), "acts": stack.key(acts=True)}
    question = {"query": "How long is paid leave?", "passages": 3}
    away = await stack.post(SEARCH, keys["ana"], question)
    assert (away.status, away.code) == (503, "grounding_unavailable")
    service = await _search_service(stack)
    try:
        await asyncio.to_thread(_ingest, stack, tmp_path)
        found = await stack.post(SEARCH, keys["ana"], {**question, "workload": "assistant"})
        assert found.status == 200, found.body
        names = {"passages", "confidence", "abstained", "withheld", "conflicts", "newer", "degraded", "steps"}
        assert set(found.json) == names
        assert [passage["path"] for passage in found.json["passages"]] == ["leave.md"]
        assert (await stack.post(SEARCH, keys["ben"], question)).json["passages"] == []
        for where, count in (({"path": "leave"}, 1), ({"media": "pdf"}, 0), ({"after": "2020-01-01T00:00:00Z"}, 1)):
            told = await stack.post(SEARCH, keys["ana"], {**question, "where": where})
            assert len(told.json["passages"]) == count, where
        assert (
            await stack.post(SEARCH, keys["ana"], {**question, "where": {"colour": "red"}})
        ).code == "request_invalid"
        for_ana = await stack.post(SEARCH, keys["acts"], question, groundplan_on_behalf_of="ana@acme.example")
        assert len(for_ana.json["passages"]) == 1
        assert (await stack.post(SEARCH, keys["acts"], question)).code == "person_required"
        other = await stack.post(SEARCH, keys["ana"], {**question, "workload": "payroll"})
        assert (other.status, other.code) == (403, "workload_other")
        assert (await stack.post(SEARCH, stack.key("payroll", ana), question)).code == "no_sources"
        assert (await stack.post(SEARCH, keys["ana"], {"query": ""})).code == "request_invalid"
        assert searches(stack) == [], "nothing of it was restricted"
        strict, end = stack.key("strict", ana), asyncio.get_running_loop().time() + 60
        while (restricted := await stack.post(SEARCH, strict, question)).status == 503:
            # a busy worker may not have confirmed its live policy within the last second
            assert restricted.code == "policy_lease_expired" and asyncio.get_running_loop().time() < end
            await asyncio.sleep(0.05)
        assert [passage["path"] for passage in restricted.json["passages"]] == ["leave.md"]
        (made,) = [each for each in searches(stack) if each.status == "ok"]
        assert (made.workload, made.person, made.status) == ("strict", ana, "ok")
        assert [path for _, path, *_ in made.sources] == ["leave.md"], "what was read, durable before it was given"
        await _signals_are_kept(stack, keys, found.json["passages"][0]["document"])
        await _what_found_nothing_is_kept(stack, keys["ben"], ben)
        assert "(leave.md)" in await _by_tool(stack, keys["ana"])
        assert await _by_tool(stack, keys["ben"]) == "Nothing was found."
        assert "(leave.md)" in await _by_tool(stack, keys["acts"], groundplan_on_behalf_of="ana@acme.example")
        assert await _by_tool(stack, keys["acts"], groundplan_on_behalf_of="ben@acme.example") == "Nothing was found."
        name = stack.database.name
        stack.sql_admin(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        stack.sql_admin(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        cut_off = await stack.post(SEARCH, keys["ana"], question)
        assert (cut_off.status, cut_off.code) == (503, "grounding_unavailable")
        stack.sql_admin(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    finally:
        service.kill()
        service.wait()


async def test_an_application_says_on_which_ticket_it_works_and_what_became_of_it(stack: Stack) -> None:
    key, other = stack.key("payroll"), stack.key()
    for n in range(3):
        headers = {"groundplan-ticket": "PAY-17", "groundplan-feature": "answers"}
        assert (await stack.chat(key, f"question {n}", headers=headers)).status == 200
    with psycopg.connect(stack.database.urls["shipper"], autocommit=True) as conn:
        shipper, end = Shipper(stack.home), asyncio.get_running_loop().time() + 60
        while len(stack.sql("SELECT 1 FROM ticket_call")) < 3:
            assert asyncio.get_running_loop().time() < end
            await asyncio.to_thread(shipper.run_round, conn)
    body = {"ticket": "PAY-17", "accepted": True, "value_usd": "4"}
    await post_until_kept(stack, key, body)
    rows = stack.sql(
        "SELECT accepted, value_usd, label, ticket_call.workload FROM outcome JOIN ticket_call USING (call_id)"
    )
    assert rows == [(True, 4, "ticket PAY-17", "payroll")]
    await post_until_kept(stack, key, {"ticket": "PAY-17", "status": "reopened"})
    assert stack.sql("SELECT accepted FROM outcome ORDER BY at DESC LIMIT 1") == [(False,)]
    theirs = await stack.post(OUTCOMES, other, body)
    assert (theirs.status, theirs.code) == (404, "ticket_unknown")
    for wrong in ({**body, "call_id": str(new_id())}, {"accepted": True}, {**body, "at": "2026-11-20T10:00:00"}):
        assert (await stack.post(OUTCOMES, key, wrong)).status == 422
