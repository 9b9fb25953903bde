"""A cached answer from documents is given only to whom its key says, and only while that person may read each of its
passages as they are: on a real worker, PostgreSQL and search service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from uuid import UUID

import psycopg
import pytest
from tests.integration.gateway_stack import GROUNDING, Stack, blueprint, deployment, installation, scripted, workload
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
class World:
    stack: Stack
    model: ScriptedModel
    folder: Path
    keys: dict[str, str]

    def ingest(self, text: str | None, readers: list[str] = READERS, name: str = "leave.md") -> None:
        """The handbook's one document, or none; with a `name`, another one."""
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
        """`exact` or `none`."""
        reply = await self.stack.chat(self.keys[f"{name} {who}"], QUESTION, **more)
        assert reply.status == 200, reply.body
        assert reply.json["groundplan"]["sources"], "grounded"
        return str(reply.json["groundplan"]["cache"])


TEXT = "# Leave\n\nEmployees have 28 days of paid leave a year.\n"


@pytest.fixture
async def world(database: Database, tmp_path: Path) -> AsyncIterator[World]:
    """`shared` gives answers to people of the same groups, `own` to nobody else. Ana and Ben are staff, Cy is staff and
    works council."""
    await asyncio.to_thread(ensure, load_settings().models, MINILM.name)
    async with scripted("one") as (model, port), installation(database, tmp_path) as stack:
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
            await stack.ready()
            end = asyncio.get_running_loop().time() + 60
            while lookup(stack.home, "search") is None:
                assert service.poll() is None and asyncio.get_running_loop().time() < end
                await asyncio.sleep(0.05)
            made = World(stack, model, tmp_path, keys)
            await asyncio.to_thread(made.ingest, TEXT)
            yield made
        finally:
            service.kill()
            service.wait()


async def test_cached_answers_are_shared_only_within_the_declared_scope(world: World) -> None:
    assert await world.ask("ana") == "none"
    assert await world.ask("ana") == "exact"
    assert await world.ask("ben") == "exact", "of the same groups"
    assert await world.ask("cy") == "none", "of one group more"
    assert await world.ask("ana", "own") == "none"
    assert await world.ask("ben", "own") == "none", "another person"
    assert await world.ask("ben", "own") == "exact"
    assert world.model.counted == 4


async def test_a_cached_answer_is_not_served_once_its_person_may_not_read_a_source(world: World) -> None:
    assert [await world.ask("ana"), await world.ask("ben")] == ["none", "exact"]
    document = world.stack.sql("SELECT id FROM document")[0][0]
    once = {"idempotency_key": "once"}
    assert (await world.stack.chat(world.keys["own ben"], QUESTION, headers=once)).json["groundplan"]["sources"]
    again = await world.stack.chat(world.keys["own ben"], QUESTION, headers=once)
    assert again.status == 200 and again.headers["groundplan-replay"] == "true"
    world.stack.sql(
        "INSERT INTO document_reader (document_id, reader, deny) VALUES (%s, 'ben@acme.example', true)", document
    )
    again = await world.stack.chat(world.keys["own ben"], QUESTION, headers=once)
    assert (again.status, again.code) == (409, "idempotency_replayed") and b"28 days" not in again.body
    reply = await world.stack.chat(world.keys["shared ben"], QUESTION)
    assert reply.json["groundplan"]["sources"] == [] and reply.json["groundplan"]["cache"] == "none"
    assert b"28 days" not in reply.body
    assert await world.ask("ana") == "none", "the answer was thrown away"
    assert await world.ask("ana") == "exact"


async def test_a_changed_or_deleted_document_invalidates_its_answers(world: World) -> None:
    assert [await world.ask("ana"), await world.ask("ana")] == ["none", "exact"]
    await asyncio.to_thread(world.ingest, TEXT.replace("28", "30"))
    reply = await world.stack.chat(world.keys["shared ana"], QUESTION)
    assert reply.json["groundplan"]["cache"] == "none" and b"30 days" in reply.body
    assert await world.ask("ana") == "exact"
    await asyncio.to_thread(world.ingest, None)
    reply = await world.stack.chat(world.keys["shared ana"], QUESTION)
    assert reply.json["groundplan"]["sources"] == [] and b"30 days" not in reply.body
    again = await world.stack.chat(world.keys["shared ana"], QUESTION)
    assert again.json["groundplan"]["cache"] == "none", "that nothing was found may be wrong a moment later"


async def test_a_change_of_groups_changes_whose_answers_are_shared(world: World) -> None:
    assert [await world.ask("ana"), await world.ask("ben")] == ["none", "exact"]
    with psycopg.connect(world.stack.database.urls["control"]) as conn:
        ben = identity.find_person(conn, "ben@acme.example").id
        identity.add_member(conn, "operator", "council", ben)
    await world.stack.wait_until_acknowledged()
    assert await world.ask("ben") == "none"
    assert await world.ask("cy") == "exact"


async def test_without_live_permissions_no_cached_answer_is_served(world: World) -> None:
    assert [await world.ask("ana"), await world.ask("ana")] == ["none", "exact"]
    name = world.stack.database.name
    world.stack.sql_admin(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    world.stack.sql_admin(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
    reply = await world.stack.chat(world.keys["shared ana"], QUESTION)
    assert (reply.status, reply.code) == (503, "grounding_unavailable")
    world.stack.sql_admin(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")


async def test_cleared_answers_are_not_served(world: World) -> None:
    assert [await world.ask("ana"), await world.ask("ana"), await world.ask("ana", "own")] == ["none", "exact", "none"]
    with psycopg.connect(world.stack.database.urls["control"]) as conn:
        number = identity.clear_answers(conn, "operator", "shared")
    await world.stack.wait_until_acknowledged(number)
    assert [await world.ask("ana"), await world.ask("ana")] == ["none", "exact"]
    assert await world.ask("ana", "own") == "exact"
    entry = world.stack.sql("SELECT action, subject FROM audit_entry WHERE action = 'cache.cleared'")
    assert entry == [("cache.cleared", "workload/shared")]


RULE = "# Leave {}\n\nEmployees have {} days of paid leave a year. Leave is asked for in the portal of the staff.\n"


async def contradicted(world: World) -> tuple[UUID, UUID]:
    """Two versions of the rules, of which an answer is given a passage of one: (its call, the other document)."""
    for year, days in ((2024, 25), (2026, 28)):
        await asyncio.to_thread(world.ingest, RULE.format(year, days), name=f"leave-{year}.md")
    with psycopg.connect(world.stack.database.urls["control"], autocommit=True) as conn:
        assess(conn, "handbook", date(2026, 11, 25))
    end = asyncio.get_running_loop().time() + 30
    while True:
        reply = await world.stack.chat(world.keys["narrow ana"], QUESTION)
        facts = reply.json["groundplan"]
        if facts.get("conflicts"):
            break
        assert asyncio.get_running_loop().time() < end, facts
    assert facts["cache"] == "none" and len(facts["sources"]) == 1
    (conflict,) = facts["conflicts"]
    assert conflict["document"] == facts["sources"][0]["document"] != conflict["other_document"]
    return UUID(facts["call_id"]), UUID(conflict["other_document"])


async def told(world: World) -> tuple[str, bool]:
    """What the cache says, and whether the answer was told of a conflict."""
    facts = (await world.stack.chat(world.keys["narrow ana"], QUESTION)).json["groundplan"]
    assert len(facts["sources"]) == 1
    return facts["cache"], bool(facts.get("conflicts"))


async def test_a_contradicting_passage_counts_as_a_source_of_an_answer(world: World) -> None:
    call, other = await contradicted(world)
    assert await told(world) == ("none", True), "nobody is given it again: no hit would confirm the other side"
    shipper = Shipper(world.stack.home)
    with psycopg.connect(world.stack.database.urls["shipper"], autocommit=True) as conn:
        for _ in range(3):
            shipper.run_round(conn)
    with psycopg.connect(world.stack.database.urls["control"], autocommit=True) as conn:
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
async def test_a_removed_contradiction_is_gone_from_the_next_answer(world: World, how: str, tmp_path: Path) -> None:
    _, other = await contradicted(world)
    with psycopg.connect(world.stack.database.urls["control"], autocommit=True) as conn:
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
    assert await told(world) == ("none", False)
    assert world.model.last is not None and b"25 days" not in world.model.last.body
    assert await told(world) == ("exact", False), "what rests on passages alone is kept"
