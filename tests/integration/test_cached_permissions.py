"""A cached answer from documents is served only within its declared scope, and only while the person may read each of
its passages and none has changed: with a real worker, PostgreSQL and search service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
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
from tests.integration.nursery import fork_program

from groundplan.blueprint.model import Cache, Grounding, Source
from groundplan.core.audit.entry import decode
from groundplan.core.endpoints import lookup
from groundplan.core.ids import new_id
from groundplan.core.settings import child_environment, load_settings
from groundplan.gateway.journal.shipper import Shipper
from groundplan.identity import service as identity
from groundplan.knowledge.deletion.delete import DeletionReason, delete
from groundplan.knowledge.lineage import lineage_store
from groundplan.knowledge.lineage.openlineage import events
from groundplan.knowledge.quality.assess import assess
from groundplan.knowledge.service import IngestContext, ingest_sources
from groundplan.knowledge.service_client import RemoteEmbedder
from groundplan.ledger import queries
from groundplan.runtime.models import MINILM, ensure
from groundplan.testing.database import Database
from groundplan.testing.scripted import ScriptedModel

QUESTION = "How long is paid leave?"
ONE_PASSAGE = Grounding(sources=["handbook"], passages=1, max_bytes=2000)
READERS = ["staff"]


@dataclass
class CacheSetup:
    stack: Stack
    model: ScriptedModel
    folder: Path
    keys: dict[str, str]

    def ingest(self, text: str | None, readers: list[str] = READERS, name: str = "leave.md") -> None:
        """Ingest the handbook with this document; `text` None: without it."""
        path = self.folder / "docs" / name
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)
        if text is not None:
            path.write_text(text)
        source = Source(name="handbook", path="docs", sensitivity="internal", owner="o@acme.example", readers=readers)
        ingest_sources(
            self.stack.database.urls["control"],
            [source],
            RemoteEmbedder(self.stack.home),
            IngestContext(self.folder, date(2026, 11, 25)),
        )

    async def ask(self, who: str, name: str = "shared", **more: object) -> str:
        """Ask the question as a person of a workload; returns what the cache did: `exact` or `none`."""
        reply = await self.stack.chat(self.keys[f"{name} {who}"], QUESTION, **more)
        assert reply.status == 200, reply.body
        assert reply.json["groundplan"]["sources"], "the answer is grounded"
        return str(reply.json["groundplan"]["cache"])


TEXT = "# Leave\n\nEmployees have 28 days of paid leave a year.\n"


@pytest.fixture
async def cache_setup(database: Database, tmp_path: Path) -> AsyncIterator[CacheSetup]:
    """Workload `shared` shares answers between people of the same groups, `own` with nobody. Ana and Ben are in the
    group staff, Cy is in staff and council."""
    await asyncio.to_thread(ensure, load_settings().models, MINILM.name)
    async with scripted_upstream("one") as (model, port), installation(database, tmp_path) as stack:
        declared = [
            workload(
                "shared", ["one"], grounding=GROUNDING, cache=Cache(seconds=600, max_bytes=1 << 20, scope="group")
            ),
            workload("own", ["one"], grounding=GROUNDING, cache=Cache(seconds=600, max_bytes=1 << 20, scope="person")),
            workload(
                "narrow", ["one"], grounding=ONE_PASSAGE,
                cache=Cache(seconds=600, max_bytes=1 << 20, scope="person"),
            ),
        ]  # fmt: skip
        people = {name: stack.person(f"{name}@acme.example") for name in ("ana", "ben", "cy")}
        groups = {name: new_id() for name in ("staff", "council")}
        with psycopg.connect(database.urls["control"], autocommit=True) as conn:
            for name, id in groups.items():
                conn.execute("INSERT INTO people_group (id, name, type) VALUES (%s, %s, 'group')", (id, name))
            for group, person in (("staff", "ana"), ("staff", "ben"), ("staff", "cy"), ("council", "cy")):
                conn.execute(
                    "INSERT INTO membership (id, group_id, person_id) VALUES (%s, %s, %s)",
                    (new_id(), groups[group], people[person]),
                )
        keys = {f"{w} {who}": stack.key(w, id) for w in ("shared", "own", "narrow") for who, id in people.items()}
        service = fork_program(
            "groundplan.gateway.search_app",
            ["--home", str(stack.home.root)],
            2,
            child_environment({"GROUNDPLAN_DATABASE_URL": database.dsn}),
        )
        try:
            stack.apply(blueprint(1, [deployment("one", port)], declared))
            stack.start()
            await stack.wait_until_ready()
            end = asyncio.get_running_loop().time() + 60
            while lookup(stack.home, "search") is None:
                assert service.poll() is None and asyncio.get_running_loop().time() < end
                await asyncio.sleep(0.05)
            made = CacheSetup(stack, model, tmp_path, keys)
            await asyncio.to_thread(made.ingest, TEXT)
            yield made
        finally:
            service.kill()
            service.wait()


async def test_cached_answers_are_shared_only_within_the_declared_scope(cache_setup: CacheSetup) -> None:
    assert await cache_setup.ask("ana") == "none"
    assert await cache_setup.ask("ana") == "exact"
    assert await cache_setup.ask("ben") == "exact", "of the same groups"
    assert await cache_setup.ask("cy") == "none", "of one group more"
    assert await cache_setup.ask("ana", "own") == "none"
    assert await cache_setup.ask("ben", "own") == "none", "another person"
    assert await cache_setup.ask("ben", "own") == "exact"
    assert cache_setup.model.counted == 4


async def test_a_cached_answer_is_not_served_once_its_person_may_not_read_a_source(cache_setup: CacheSetup) -> None:
    assert [await cache_setup.ask("ana"), await cache_setup.ask("ben")] == ["none", "exact"]
    document = cache_setup.stack.sql("SELECT id FROM document")[0][0]
    once = {"idempotency_key": "once"}
    assert (await cache_setup.stack.chat(cache_setup.keys["own ben"], QUESTION, headers=once)).json["groundplan"][
        "sources"
    ]
    again = await cache_setup.stack.chat(cache_setup.keys["own ben"], QUESTION, headers=once)
    assert again.status == 200 and again.headers["groundplan-replay"] == "true"
    cache_setup.stack.sql(
        "INSERT INTO document_reader (document_id, reader, deny) VALUES (%s, 'ben@acme.example', true)", document
    )
    again = await cache_setup.stack.chat(cache_setup.keys["own ben"], QUESTION, headers=once)
    assert (again.status, again.code) == (409, "idempotency_replayed") and b"28 days" not in again.body
    reply = await cache_setup.stack.chat(cache_setup.keys["shared ben"], QUESTION)
    assert reply.json["groundplan"]["sources"] == [] and reply.json["groundplan"]["cache"] == "none"
    assert b"28 days" not in reply.body
    assert await cache_setup.ask("ana") == "none", "the answer was thrown away"
    assert await cache_setup.ask("ana") == "exact"


async def test_a_changed_or_deleted_document_invalidates_its_answers(cache_setup: CacheSetup) -> None:
    assert [await cache_setup.ask("ana"), await cache_setup.ask("ana")] == ["none", "exact"]
    await asyncio.to_thread(cache_setup.ingest, TEXT.replace("28", "30"))
    reply = await cache_setup.stack.chat(cache_setup.keys["shared ana"], QUESTION)
    assert reply.json["groundplan"]["cache"] == "none" and b"30 days" in reply.body
    assert await cache_setup.ask("ana") == "exact"
    await asyncio.to_thread(cache_setup.ingest, None)
    reply = await cache_setup.stack.chat(cache_setup.keys["shared ana"], QUESTION)
    assert reply.json["groundplan"]["sources"] == [] and b"30 days" not in reply.body
    again = await cache_setup.stack.chat(cache_setup.keys["shared ana"], QUESTION)
    assert again.json["groundplan"]["cache"] == "none", "that nothing was found may be wrong a moment later"


async def test_a_change_of_groups_changes_whose_answers_are_shared(cache_setup: CacheSetup) -> None:
    assert [await cache_setup.ask("ana"), await cache_setup.ask("ben")] == ["none", "exact"]
    with psycopg.connect(cache_setup.stack.database.urls["control"]) as conn:
        ben = identity.find_person(conn, "ben@acme.example").id
        identity.add_member(conn, "operator", "council", ben)
    await cache_setup.stack.wait_until_acknowledged()
    assert await cache_setup.ask("ben") == "none"
    assert await cache_setup.ask("cy") == "exact"


async def test_without_live_permissions_no_cached_answer_is_served(cache_setup: CacheSetup) -> None:
    assert [await cache_setup.ask("ana"), await cache_setup.ask("ana")] == ["none", "exact"]
    name = cache_setup.stack.database.name
    cache_setup.stack.sql_admin(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    cache_setup.stack.sql_admin(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
    reply = await cache_setup.stack.chat(cache_setup.keys["shared ana"], QUESTION)
    assert (reply.status, reply.code) == (503, "grounding_unavailable")
    cache_setup.stack.sql_admin(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")


async def test_cleared_answers_are_not_served(cache_setup: CacheSetup) -> None:
    assert [await cache_setup.ask("ana"), await cache_setup.ask("ana"), await cache_setup.ask("ana", "own")] == [
        "none",
        "exact",
        "none",
    ]
    with psycopg.connect(cache_setup.stack.database.urls["control"]) as conn:
        number = identity.clear_answers(conn, "operator", "shared")
    await cache_setup.stack.wait_until_acknowledged(number)
    assert [await cache_setup.ask("ana"), await cache_setup.ask("ana")] == ["none", "exact"]
    assert await cache_setup.ask("ana", "own") == "exact"
    entry = cache_setup.stack.sql("SELECT action, subject FROM audit_entry WHERE action = 'cache.cleared'")
    assert entry == [("cache.cleared", "workload/shared")]


RULE = "# Leave {}\n\nEmployees have {} days of paid leave a year. Leave is asked for in the portal of the staff.\n"


async def add_contradicting_document(cache_setup: CacheSetup) -> tuple[UUID, UUID]:
    """Ingest two contradicting documents and get an answer from one; returns (call id, id of the other document)."""
    for year, days in ((2024, 25), (2026, 28)):
        await asyncio.to_thread(cache_setup.ingest, RULE.format(year, days), name=f"leave-{year}.md")
    with psycopg.connect(cache_setup.stack.database.urls["control"], autocommit=True) as conn:
        assess(conn, "handbook", date(2026, 11, 25))
    end = asyncio.get_running_loop().time() + 30
    while True:
        reply = await cache_setup.stack.chat(cache_setup.keys["narrow ana"], QUESTION)
        facts = reply.json["groundplan"]
        if facts.get("conflicts"):
            break
        assert asyncio.get_running_loop().time() < end, facts
    assert facts["cache"] == "none" and len(facts["sources"]) == 1
    (conflict,) = facts["conflicts"]
    assert conflict["document"] == facts["sources"][0]["document"] != conflict["other_document"]
    return UUID(facts["call_id"]), UUID(conflict["other_document"])


async def cache_and_conflict(cache_setup: CacheSetup) -> tuple[str, bool]:
    """What the cache did, and whether the answer names a conflict."""
    facts = (await cache_setup.stack.chat(cache_setup.keys["narrow ana"], QUESTION)).json["groundplan"]
    assert len(facts["sources"]) == 1
    return facts["cache"], bool(facts.get("conflicts"))


async def test_a_contradicting_passage_counts_as_a_source_of_an_answer(cache_setup: CacheSetup) -> None:
    call, other = await add_contradicting_document(cache_setup)
    assert await cache_and_conflict(cache_setup) == ("none", True), (
        "it is not served from the cache, since a hit would not check the contradicting document"
    )
    shipper = Shipper(cache_setup.stack.home)
    with psycopg.connect(cache_setup.stack.database.urls["shipper"], autocommit=True) as conn:
        for _ in range(3):
            shipper.run_round(conn)
    with psycopg.connect(cache_setup.stack.database.urls["control"], autocommit=True) as conn:
        passage, against = lineage_store.passages_of_call(conn, call)
        assert (passage["role"], against["role"]) == ("passage", "conflict")
        assert (against["document"], against["first_line"], against["version_then"]) == (other, None, 1)
        used = lineage_store.answers_using(conn, other)
        assert {(row["call"] == call, row["role"]) for row in used} == {(True, "conflict"), (False, "conflict")}
        (mine,) = [row for row in lineage_store.answers_using(conn, passage["document"]) if row["call"] == call]
        assert (mine["role"], len(mine["lines"]), used[0]["lines"]) == ("passage", 1, [])
        receipt = queries.receipt(conn, call)
        assert [row["document"] for row in receipt["conflicts"]] == [str(other)]
        assert [row["document"] for row in receipt["passages"]] == [str(passage["document"])]
        calls = lineage_store.calls_since(
            conn, datetime.now(UTC) - timedelta(days=1), datetime.now(UTC) + timedelta(days=1)
        )
        names = lineage_store.documents_of(conn, [str(other), str(passage["document"])])
        ran = [one for one in events("acme", calls, names) if one["run"]["runId"] == str(call)]
        assert against["path"] in [each["name"] for each in ran[-1]["inputs"]]
        (leaf,) = conn.execute("SELECT body FROM audit_entry WHERE id = %s", (call,)).fetchone() or ()
        assert [str(other), None, None, "conflict"] in decode(leaf).detail["sources"]


@pytest.mark.parametrize("how", ["revoked", "retired", "deleted"])
async def test_a_removed_contradiction_is_gone_from_the_next_answer(
    cache_setup: CacheSetup, how: str, tmp_path: Path
) -> None:
    _, other = await add_contradicting_document(cache_setup)
    with psycopg.connect(cache_setup.stack.database.urls["control"], autocommit=True) as conn:
        if how == "revoked":
            conn.execute(
                "INSERT INTO document_reader (document_id, reader, deny) VALUES (%s, 'ana@acme.example', true)",
                (other,),
            )
        elif how == "retired":
            conn.execute("UPDATE document SET state = 'retired' WHERE id = %s", (other,))
        else:
            at = datetime.now(UTC)
            delete(conn, [other], DeletionReason("operator", "wrong", at, tmp_path))
    assert await cache_and_conflict(cache_setup) == ("none", False)
    assert cache_setup.model.last is not None and b"25 days" not in cache_setup.model.last.body
    assert await cache_and_conflict(cache_setup) == ("exact", False), "an answer based only on passages is cached"
