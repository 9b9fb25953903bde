"""A new document invalidates the cached answers for which it is relevant, for people who may read it, and no others:
with a real worker, PostgreSQL and search service."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
from tests.integration.gateway_stack import GROUNDING, Reply, blueprint, deployment, workload
from tests.integration.nursery import fork_program
from tests.integration.test_cached_permissions import QUESTION, CacheSetup, cache_setup

from groundplan.blueprint.model import Cache, Keep
from groundplan.core.settings import child_environment
from groundplan.identity import service as identity
from groundplan.knowledge import store
from groundplan.knowledge.model import Readers

__all__ = ["cache_setup"]
MORE_RELEVANT = "# Parents\n\nEmployees who became parents this year have twelve more days of paid leave.\n"
FOR_COUNCIL = "---\nreaders: [council]\n---\n"
UNRELATED = "# Boilers {}\n\nPressure of boiler {} is read twice a shift and entered into its log.\n"
LESS_RELEVANT = "# Portal\n\nRequests are signed by the lead. Leave a note at the desk when the portal is down.\n"


async def add_document(cache_setup: CacheSetup, text: str, name: str) -> None:
    await asyncio.to_thread(cache_setup.ingest, text, name=name)


async def test_a_more_relevant_new_document_invalidates_an_answer_and_an_unrelated_one_does_not(
    cache_setup: CacheSetup,
) -> None:
    assert [await cache_setup.ask("ana"), await cache_setup.ask("ana")] == ["none", "exact"]
    await add_document(cache_setup, UNRELATED.format(1, 1), "boilers.md")
    assert [await cache_setup.ask("ana"), await cache_setup.ask("ben")] == ["exact", "exact"]
    assert cache_setup.model.counted == 1
    await add_document(cache_setup, MORE_RELEVANT, "parents.md")
    reply = await cache_setup.stack.chat(cache_setup.keys["shared ana"], QUESTION)
    assert reply.json["groundplan"]["cache"] == "none" and b"twelve more days" in reply.body
    assert [await cache_setup.ask("ben"), await cache_setup.ask("ana")] == ["exact", "exact"]
    assert cache_setup.model.counted == 2


async def test_a_new_document_ranked_below_the_passages_invalidates_nothing(cache_setup: CacheSetup) -> None:
    assert [await cache_setup.ask("ana", "narrow"), await cache_setup.ask("ana", "narrow")] == ["none", "exact"]
    await add_document(cache_setup, LESS_RELEVANT, "portal.md")
    assert [await cache_setup.ask("ana", "narrow") for _ in range(3)] == ["exact"] * 3
    assert cache_setup.model.counted == 1


async def test_a_new_document_invalidates_answers_only_for_people_who_may_read_it(cache_setup: CacheSetup) -> None:
    assert [await cache_setup.ask("ana", "own"), await cache_setup.ask("cy", "own")] == ["none", "none"]
    await add_document(cache_setup, FOR_COUNCIL + MORE_RELEVANT, "parents.md")
    assert await cache_setup.ask("ana", "own") == "exact"
    assert await cache_setup.ask("cy", "own") == "none"
    with psycopg.connect(cache_setup.stack.database.urls["control"]) as conn:
        ana = identity.find_person(conn, "ana@acme.example").id
        number = identity.add_member(conn, "operator", "council", ana)
    await cache_setup.stack.wait_until_acknowledged(number)
    assert [await cache_setup.ask("ana", "own"), await cache_setup.ask("ana", "own")] == ["none", "exact"]


async def test_a_new_permission_to_read_a_document_invalidates_answers(cache_setup: CacheSetup) -> None:
    await add_document(cache_setup, FOR_COUNCIL + MORE_RELEVANT, "parents.md")
    assert [await cache_setup.ask("ana", "own"), await cache_setup.ask("ana", "own")] == ["none", "exact"]
    ((id,),) = cache_setup.stack.sql("SELECT id FROM document WHERE path = 'parents.md'")
    with psycopg.connect(cache_setup.stack.database.urls["control"]) as conn:
        store.put_readers(conn, {id: Readers(frozenset({"staff"}))})
    assert [await cache_setup.ask("ana", "own"), await cache_setup.ask("ana", "own")] == ["none", "exact"]


async def test_cached_answers_are_served_while_documents_arrive_continuously(cache_setup: CacheSetup) -> None:
    assert await cache_setup.ask("ana") == "none"
    coming = asyncio.create_task(_add_documents(cache_setup))
    given = 0
    while not coming.done():
        assert await cache_setup.ask("ana") == "exact"
        given += 1
    await coming
    assert given > 8 and cache_setup.model.counted == 1
    await add_document(cache_setup, MORE_RELEVANT, "parents.md")
    assert await cache_setup.ask("ana") == "none"


async def _add_documents(cache_setup: CacheSetup) -> None:
    for number in range(8):
        await add_document(cache_setup, UNRELATED.format(number, number), f"boilers-{number}.md")


def call_of(reply: Reply) -> str:
    return str(reply.json["groundplan"]["call_id"])


@asynccontextmanager
async def shipping(cache_setup: CacheSetup) -> AsyncIterator[None]:
    shipper = fork_program(
        "groundplan.gateway.journal.shipper",
        ["--home", str(cache_setup.stack.home.root)],
        2,
        child_environment({"GROUNDPLAN_DATABASE_URL": cache_setup.stack.database.dsn}),
    )
    try:
        yield
    finally:
        shipper.terminate()
        await asyncio.to_thread(shipper.wait, 60)


async def test_a_document_added_while_an_answer_was_in_postgresql_invalidates_it(cache_setup: CacheSetup) -> None:
    stack = cache_setup.stack
    ((body,),) = stack.sql("SELECT body FROM blueprint")
    port = int(json.loads(bytes(body))["deployments"][0]["url"].split(":")[2].partition("/")[0])
    cache = Cache(seconds=600, max_bytes=1 << 20, scope="person")
    tasks = [workload("kept", ["one"], grounding=GROUNDING, cache=cache, keep=Keep(content="full", seconds=300))]
    stack.apply(blueprint(2, [deployment("one", port)], tasks))
    await stack.wait_until_ready(2)
    with psycopg.connect(stack.database.urls["control"]) as conn:
        ana = str(identity.find_person(conn, "ana@acme.example").id)
    key = stack.key("kept", ana)
    await stack.wait_until_acknowledged()

    async def again() -> None:
        for worker in stack.workers:
            worker.send_signal(signal.SIGTERM)
            await asyncio.to_thread(worker.wait, 60)
        stack.workers.clear()
        stack.start()
        await stack.wait_until_ready(2)

    async def known() -> bool:
        reply = await stack.chat(key, QUESTION, headers={"cache_control": "only-if-cached"})
        assert reply.status == 200 or reply.code == "not_cached", reply.body
        return reply.status == 200

    async with shipping(cache_setup), asyncio.timeout(120):
        number, linked = 0, False
        while not linked:  # before the store is there, answers stay in the worker
            number += 1
            reply = await stack.chat(key, f"{QUESTION} For the {number}. time.")
            for _ in range(10):
                linked = linked or bool(stack.sql("SELECT 1 FROM answer WHERE call_id = %s", call_of(reply)))
                await asyncio.sleep(0.05)
        stack.sql("DELETE FROM answer")
        call = call_of(await stack.chat(key, QUESTION))
        while not stack.sql("SELECT 1 FROM answer WHERE call_id = %s", call):  # noqa: ASYNC110 -- as below
            await asyncio.sleep(0.1)
        await again()
        await add_document(cache_setup, UNRELATED.format(1, 1), "boilers.md")
        while not await known():  # noqa: ASYNC110 -- what is waited for has no event
            await asyncio.sleep(0.1)
        await again()
        await add_document(cache_setup, MORE_RELEVANT, "parents.md")
        while stack.sql("SELECT 1 FROM answer"):  # thrown away as soon as it is asked for
            assert not await known()
            await asyncio.sleep(0.1)
