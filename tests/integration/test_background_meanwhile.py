"""Responses that nobody waits for, and what happens before they are made and kept: a key is revoked, there is no more
room, PostgreSQL does not answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from tests.integration.test_background import IN_BACKGROUND, Setup, numbers, output_text, parse_response, raw_events
from tests.integration.test_background import setup as setup
from tests.integration.test_batch_kill import run_shipper

from groundplan.core.ids import new_id
from groundplan.gateway.background import sealed_store
from groundplan.ledger import background_store
from groundplan.ledger.background_store import Row
from groundplan.ledger.stored_owner import Owner
from groundplan.testing.database import Database
from groundplan.testing.scripted import Script

Conn = psycopg.Connection[Any]
COPIED = "workload, owner, key_id, person, said, at, expires_at, sealed"
_ONE = f"SELECT 'resp_w', NULL, {COPIED} FROM background_response ORDER BY expires_at DESC LIMIT 1"
WAITS = f"INSERT INTO background_response {_ONE}"
"""One more like the first, of which nobody knows yet."""


async def codes(setup: Setup, most: int) -> list[str]:
    """Of so many calls that were recorded, why they were refused, or failed."""
    async with run_shipper(setup.stack), asyncio.timeout(30):
        told = "SELECT coalesce(error_code, '') FROM call ORDER BY 1"
        while len(rows := setup.stack.sql(told)) < most:  # noqa: ASYNC110 -- another process ships it
            await asyncio.sleep(0.05)
    return [code for (code,) in rows]


async def test_no_event_is_missing_if_a_response_ends_while_events_are_stored(setup: Setup) -> None:
    setup.chat.script = Script(tokens=30, chunk_ms=30)
    key, body = setup.stack.key("keeper"), IN_BACKGROUND | {"stream": True}
    waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query ~ 'background_event'"
    with psycopg.connect(setup.stack.database.superuser) as conn:
        conn.execute("LOCK TABLE background_event IN EXCLUSIVE MODE")
        following = asyncio.create_task(setup.stack.post("/v1/responses", key, body))
        async with asyncio.timeout(20):
            while len(told := setup.stack.sql(f"{waiting} ORDER BY query_start")) < 2:  # noqa: ASYNC110 -- another process
                await asyncio.sleep(0.02)
        setup.stack.sql("SELECT pg_cancel_backend(%s)", told[1][0])  # what is told at the end is told again, later
    followed = [json.loads(line[6:]) for line in (await following).body.decode().split("\n") if line[:6] == "data: "]
    again = await raw_events(setup, key, f"/v1/responses/{followed[0]['response']['id']}?stream=true")
    assert numbers(again) == [event["sequence_number"] for event in followed] == list(range(len(again)))
    assert output_text(again) == again[-1].response.output_text
    behind = await raw_events(setup, key, f"/v1/responses/{again[-1].response.id}?stream=true&starting_after=0")
    assert numbers(behind) == numbers(again)[1:]


@pytest.mark.parametrize(("whose", "code"), [("api_key", "key_revoked"), ("person", "key_user_inactive")])
async def test_a_response_is_not_made_once_its_key_or_person_is_stopped(setup: Setup, whose: str, code: str) -> None:
    stack, person = setup.stack, setup.stack.person("ana@acme.example")
    key = stack.key("keeper", person)
    await setup.over(key, parse_response(await stack.post("/v1/responses", key, IN_BACKGROUND)).id)
    of_whom = "SELECT split_part(sealed, ':', 2) FROM background_response UNION SELECT split_part(sealed, ':', 2)"
    assert stack.sql(f"{of_whom} FROM background_event") == [(person,)], "it goes with whom it is about"
    stopped = "UPDATE api_key SET revoked_at = now()" if whose == "api_key" else "UPDATE person SET active = false"
    await stack.wait_until_acknowledged(stack.policy("key" if whose == "api_key" else "person", "keeper", stopped))
    stack.sql(WAITS)
    assert await codes(setup, 2) == ["", code] and setup.chat.counted == 1
    assert stack.sql("SELECT DISTINCT person_id::text FROM call") == [(person,)]


async def test_a_response_deleted_by_retention_is_not_made(setup: Setup) -> None:
    """Nobody tells a worker: it finds that out."""
    key, body = setup.stack.key("keeper"), IN_BACKGROUND | {"model": "scripted/endless", "max_output_tokens": 4000}
    parse_response(await setup.stack.post("/v1/responses", key, body))
    async with asyncio.timeout(30):
        while not setup.endless.begun:  # noqa: ASYNC110 -- another process asks it
            await asyncio.sleep(0.02)
    with psycopg.connect(setup.stack.database.urls["control"]) as conn:
        assert background_store.apply_rules(conn, []) == {"keeper": 1}
    async with asyncio.timeout(30):
        while not setup.endless.left:  # noqa: ASYNC110 -- another process leaves it
            await asyncio.sleep(0.02)
    assert await codes(setup, 1) == ["client_gone"]


async def test_no_more_responses_wait_than_there_is_room_for(setup: Setup) -> None:
    key = setup.stack.key("keeper")
    await setup.over(key, parse_response(await setup.stack.post("/v1/responses", key, IN_BACKGROUND)).id)
    elsewhere = f"SELECT 'resp_' || n, NULL::uuid, {COPIED}, NULL, NULL::int, 'in_progress', gen_random_uuid()"
    setup.stack.sql(
        f"INSERT INTO background_response {elsewhere}"
        f" FROM background_response, generate_series(1, {sealed_store.MAX_PENDING}) n"
    )
    full = await setup.stack.post("/v1/responses", key, IN_BACKGROUND)
    assert (full.status, full.code, full.headers["retry-after"]) == (429, "background_full", "10")
    setup.stack.sql("UPDATE background_response SET status = 'cancelled' WHERE id = 'resp_1'")
    await setup.over(key, parse_response(await setup.stack.post("/v1/responses", key, IN_BACKGROUND)).id)
    assert await codes(setup, 3) == ["", "", "background_full"]
    assert (await setup.found(key, "resp_2")).status == "in_progress"
    setup.stack.sql("UPDATE background_response SET expires_at = now()")
    for method, path in (("GET", ""), ("GET", "?stream=true"), ("POST", "/cancel"), ("DELETE", "")):
        assert (await setup.stack.ask(method, f"/v1/responses/resp_2{path}", key)).status == 404, "its time is over"


async def test_without_postgresql_new_responses_are_refused_and_acknowledged_ones_are_made(setup: Setup) -> None:
    setup.chat.script = Script(tokens=30, chunk_ms=30)
    key, log = setup.stack.key("keeper"), setup.stack.home.logs / "gateway.log"
    begun = parse_response(await setup.stack.post("/v1/responses", key, IN_BACKGROUND))
    with psycopg.connect(setup.stack.database.superuser) as conn:
        conn.execute("LOCK TABLE background_response IN EXCLUSIVE MODE")
        refused = await setup.stack.post("/v1/responses", key, IN_BACKGROUND)
        assert (refused.status, refused.code) == (503, "database_unavailable")
        async with asyncio.timeout(30):
            while log.read_text().count("in the background waits") < 2:  # noqa: ASYNC110 -- each of two workers says so
                await asyncio.sleep(0.05)
    assert (await setup.over(key, begun.id)).status == "completed"
    setup.stack.sql(WAITS.replace("resp_w", "resp_late").replace("at, expires_at", "at, now() - interval '1 minute'"))
    setup.stack.sql(WAITS)
    assert (await setup.over(key, "resp_w")).status == "completed"
    assert setup.stack.sql("SELECT status FROM background_response WHERE id = 'resp_late'") == [("queued",)]
    assert await codes(setup, 3) == ["", "", "database_unavailable"] and setup.chat.counted == 2


async def until_commits_wait(setup: Setup) -> None:
    """Return when commits wait for a standby, which PostgreSQL takes up some time after the reload."""
    commit = "SELECT pg_logical_emit_message(true, 'probe', '')"
    cancel = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    has_waited = False
    async with (
        asyncio.timeout(20),
        await psycopg.AsyncConnection.connect(setup.stack.database.superuser, autocommit=True) as probe,
    ):
        await probe.execute("SET synchronous_commit = on")
        while not has_waited:
            committing = asyncio.create_task(probe.execute(commit))
            while not has_waited and not committing.done():
                await asyncio.sleep(0.02)
                has_waited = bool(setup.stack.sql(cancel))
            await committing


async def test_an_uncertain_acknowledgement_can_be_looked_up_by_id_instead_of_retried(
    setup: Setup,
) -> None:
    """PostgreSQL ends a session that has committed, and waits for a standby before it says so."""
    key, sql = setup.stack.key("keeper"), setup.stack.sql
    storing = "SELECT pid FROM pg_locks WHERE relation = 'background_response'::regclass AND mode = 'RowExclusiveLock'"
    waiting = f"SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND pid IN ({storing})"
    end_waiting = f"SELECT pg_terminate_backend(pid) FROM ({waiting}) w"
    with psycopg.connect(setup.stack.database.superuser, autocommit=True) as conn:
        conn.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        try:
            conn.execute("SELECT pg_reload_conf()")
            await until_commits_wait(setup)
            asking = asyncio.create_task(setup.stack.post("/v1/responses", key, IN_BACKGROUND))
            async with asyncio.timeout(20):
                while not sql(end_waiting) and not asking.done():  # noqa: ASYNC110 -- another process waits
                    await asyncio.sleep(0.02)
        finally:
            conn.execute("ALTER SYSTEM RESET synchronous_standby_names")
            conn.execute("SELECT pg_reload_conf()")
    told = await asking
    assert (told.status, told.code, told.headers["x-should-retry"]) == (409, "background_unknown", "false"), told.body
    ((id, call),) = sql("SELECT id, call_id FROM background_response")
    assert json.loads(told.body)["error"]["response_id"] == id and id in json.loads(told.body)["error"]["message"]
    assert (await setup.over(key, id)).status == "completed" and setup.chat.counted == 1
    assert await codes(setup, 1) == [""]
    assert sql("SELECT id FROM call") == [(call,)], "it is told once, as that by which it was made"


@pytest.fixture
def conn(database: Database) -> Iterator[Conn]:
    with psycopg.connect(database.superuser, autocommit=True) as opened:
        opened.execute("SET lock_timeout = '5s'")
        yield opened


def row(id: str, at: datetime, call: UUID | None = None) -> Row:
    return Row(id, call, "keeper", OWNER, OWNER, "", {}, at, at + timedelta(days=900), "sealed")


OWNER, AT = new_id(), datetime(2026, 11, 1, tzinfo=UTC)


def test_after_a_worker_ended_only_certainly_unbilled_responses_are_remade(conn: Conn) -> None:
    """Its journal was taken over, and says what was sent; of one with a gap nobody knows."""
    for id, done, gaps, outcome in (
        ("unsent", True, 0, ""), ("refused", True, 0, "not_billed"), ("failed", True, 0, "failed"),
        ("gap", True, 1, ""), ("open", False, 0, ""),
    ):  # fmt: skip
        epoch, call = new_id(), new_id()
        conn.execute(
            "INSERT INTO shipped (epoch, segment, position, done, gaps) VALUES (%s, 1, 64, %s, %s)", (epoch, done, gaps)
        )
        assert background_store.add(conn, row(id, AT, call), epoch, 10, 1000)
        if outcome:
            conn.execute(
                """INSERT INTO attempt (call_id, number, at, deployment, site, model, state, outcome, reserved_usd,
                     cost_usd, usage, epoch) VALUES (%s, 0, %s, 'd', 's', 'm', 'settled', %s, 1, 0, '{}', %s)""",
                (call, AT, outcome, epoch),
            )
    assert background_store.add(conn, row("over", AT), new_id(), 10, 1000)
    conn.execute("UPDATE background_response SET status = 'completed' WHERE id = 'over'")
    conn.execute(
        """INSERT INTO shipped (epoch, segment, position, done)
           SELECT epoch, 1, 64, true FROM background_response WHERE id = 'over'"""
    )
    background_store.recover_orphaned(conn)
    found = conn.execute("SELECT id, status, call_id IS NULL, epoch IS NULL FROM background_response").fetchall()
    assert {id: tuple(rest) for id, *rest in found} == {
        "unsent": ("queued", True, True), "refused": ("queued", True, True), "failed": ("failed", False, False),
        "gap": ("failed", False, False), "open": ("in_progress", False, False), "over": ("completed", True, False),
    }  # fmt: skip


def test_responses_begin_oldest_first_each_on_one_worker(conn: Conn, database: Database) -> None:
    one, other, calls = new_id(), new_id(), [new_id(), new_id(), None]
    for number in (2, 0, 1):
        assert background_store.add(
            conn, row(f"r{number}", AT + timedelta(minutes=number), calls[number]), None, 10, 1000
        )
    with psycopg.connect(database.superuser) as slow:
        first = background_store.claim(slow, one, [new_id()])
        assert [(each.id, each.call_id, each.status) for each in first] == [("r0", calls[0], "in_progress")]
        made = [new_id() for _ in range(9)]
        second = {each.id: each.call_id for each in background_store.claim(conn, other, made)}
    assert second.keys() == {"r1", "r2"}, "nobody waits for who claims just now"
    assert second["r1"] == calls[1] and second["r2"] in made, "each is a call of its own"
    assert [each.id for each in background_store.running_rows(conn, other, ["r2"])] == ["r1"]
    assert not background_store.has_due(conn, 60)
    assert background_store.no_longer_owned(conn, one, ["r0", "r1", "gone"]) == ["r1", "gone"]
    assert not background_store.finish(conn, "r1", one, "completed", None, 4), "it is another one's"
    assert background_store.cancel(conn, "r2", Owner(OWNER, "keeper", ""))
    assert not background_store.finish(conn, "r2", other, "completed", None, 4), "it was cancelled"
    assert not background_store.cancel(conn, "r2", Owner(OWNER, "keeper", ""))
    background_store.add_events(conn, "r2", 2, 3, "late")
    background_store.add_events(conn, "r1", 4, 6, "second")
    background_store.add_events(conn, "r1", 2, 3, "first")
    assert background_store.finish(conn, "r1", other, "completed", None, 7)
    assert background_store.events_after(conn, "r1", 2) == ["first", "second"]
    assert (
        background_store.events_after(conn, "r1", 3) == ["second"]
        and background_store.events_after(conn, "r2", 0) == []
    )
    assert background_store.no_longer_owned(conn, other, ["r1"]) == ["r1"]


def test_waiting_responses_back_off_with_load_and_jitter(conn: Conn) -> None:
    """All workers would try a thousand again, and again in vain, as fast as they can."""
    worker, due = new_id(), "SELECT extract(epoch FROM due - now())::float FROM background_response WHERE id ~ %s"
    conn.execute("BEGIN")  # so that now is the same
    for number in range(8):
        assert background_store.add(conn, row(f"w{number}", AT), worker, 2000, 1 << 20)
    background_store.requeue(conn, "w0", worker, {}, 1.0)
    assert conn.execute(due, ("w0",)).fetchall() == [(1.0,)], "with few it is as what refuses it asks for"
    conn.execute(
        f"""INSERT INTO background_response SELECT 'q' || n, NULL, {COPIED}
            FROM background_response, generate_series(1, 999) n WHERE id = 'w0'"""
    )
    for number in range(1, 7):
        background_store.requeue(conn, f"w{number}", worker, {}, 1.0)
    put_off = [seconds for (seconds,) in conn.execute(due, ("w[1-6]",)).fetchall()]
    assert len(set(put_off)) == 6 and all(19 < seconds < 31 for seconds in put_off), put_off
    background_store.requeue(conn, "w7", worker, {}, 60.0)
    assert conn.execute(due, ("w7",)).fetchall() == [(60.0,)], "never sooner than that"


def test_responses_begin_whatever_clock_they_were_stored_by(conn: Conn) -> None:
    """PostgreSQL's clock is behind the gateway's, or was set back while they were postponed."""
    later = datetime.now(UTC) + timedelta(hours=2)
    for id in ("queued", "postponed", "soon"):
        assert background_store.add(conn, row(id, later), None, 10, 1000)
    conn.execute("UPDATE background_response SET due = now() + interval '2 hours' WHERE id = 'postponed'")
    conn.execute("UPDATE background_response SET due = now() + interval '40 seconds' WHERE id = 'soon'")
    assert background_store.has_due(conn, 1)
    claimed = background_store.claim(conn, new_id(), [new_id() for _ in range(9)])
    assert {each.id for each in claimed} == {"queued", "postponed"}
    assert not background_store.has_due(conn, 1) and background_store.has_due(conn, 60)
