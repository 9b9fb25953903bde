"""A cached answer from documents is given only to whom its key says, and only while that person may read each of its
passages as they are: on a real worker, PostgreSQL and search service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import psycopg
import pytest
from tests.integration.gateway_stack import GROUNDING, Stack, blueprint, deployment, installation, scripted, workload
from tests.integration.nursery import fork_program

from groundplan.blueprint.model import Cache, Source
from groundplan.core.endpoints import lookup
from groundplan.core.ids import new_id
from groundplan.core.settings import child_environment, load_settings
from groundplan.identity import service as identity
from groundplan.knowledge.remote import RemoteEmbedder
from groundplan.knowledge.service import Intake, ingest_sources
from groundplan.runtime.models import MINILM, ensure
from groundplan.testing.database import Database
from groundplan.testing.scripted import ScriptedModel

QUESTION = "How long is paid leave?"
READERS = ["staff"]


@dataclass
class World:
    stack: Stack
    model: ScriptedModel
    folder: Path
    keys: dict[str, str]

    def ingest(self, text: str | None, readers: list[str] = READERS) -> None:
        """The handbook's one document, or none."""
        path = self.folder / "docs" / "leave.md"
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)
        if text is not None:
            path.write_text(text)
        source = Source(name="handbook", path="docs", sensitivity="internal", owner="o@acme.example", readers=readers)
        ingest_sources(
            self.stack.database.urls["control"],
            [source],
            RemoteEmbedder(self.stack.home),
            Intake(self.folder, date(2026, 11, 25)),
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
        ]
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
        keys = {f"{w} {who}": stack.key(w, id) for w in ("shared", "own") for who, id in people.items()}
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


async def test_answers_are_shared_as_declared_and_no_further(world: World) -> None:
    assert await world.ask("ana") == "none"
    assert await world.ask("ana") == "exact"
    assert await world.ask("ben") == "exact", "of the same groups"
    assert await world.ask("cy") == "none", "of one group more"
    assert await world.ask("ana", "own") == "none"
    assert await world.ask("ben", "own") == "none", "another person"
    assert await world.ask("ben", "own") == "exact"
    assert world.model.counted == 4


async def test_what_a_person_may_not_read_any_more_is_not_given(world: World) -> None:
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


async def test_a_changed_or_deleted_document_takes_its_answers_along(world: World) -> None:
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


async def test_who_joins_or_leaves_a_group_shares_with_others(world: World) -> None:
    assert [await world.ask("ana"), await world.ask("ben")] == ["none", "exact"]
    with psycopg.connect(world.stack.database.urls["control"]) as conn:
        ben = identity.find_person(conn, "ben@acme.example").id
        identity.add_member(conn, "operator", "council", ben)
    await world.stack.heard()
    assert await world.ask("ben") == "none"
    assert await world.ask("cy") == "exact"


async def test_without_the_live_permissions_nothing_is_given(world: World) -> None:
    assert [await world.ask("ana"), await world.ask("ana")] == ["none", "exact"]
    name = world.stack.database.name
    world.stack.sql_admin(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    world.stack.sql_admin(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
    reply = await world.stack.chat(world.keys["shared ana"], QUESTION)
    assert (reply.status, reply.code) == (503, "grounding_unavailable")
    world.stack.sql_admin(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")


async def test_cleared_answers_are_given_to_nobody(world: World) -> None:
    assert [await world.ask("ana"), await world.ask("ana"), await world.ask("ana", "own")] == ["none", "exact", "none"]
    with psycopg.connect(world.stack.database.urls["control"]) as conn:
        number = identity.clear_answers(conn, "operator", "shared")
    await world.stack.heard(number)
    assert [await world.ask("ana"), await world.ask("ana")] == ["none", "exact"]
    assert await world.ask("ana", "own") == "exact"
    entry = world.stack.sql("SELECT action, subject FROM audit_entry WHERE action = 'cache.cleared'")
    assert entry == [("cache.cleared", "workload/shared")]
