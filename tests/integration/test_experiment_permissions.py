"""A second answer is made for the same person, from what that person may read when it is made: on a real worker,
PostgreSQL and search service."""

from __future__ import annotations

import asyncio
import json

import psycopg
from tests.integration.gateway_stack import GROUNDING, blueprint, deployment, scripted_upstream, workload
from tests.integration.test_cached_permissions import QUESTION, CacheSetup, cache_setup
from tests.integration.test_experiments import ANA, NOW, recorded

from groundplan.economics.experiment import service
from groundplan.testing.scripted import Script, ScriptedModel

__all__ = ["cache_setup"]
TEXT = b"28 days"


async def candidate_request(two: ScriptedModel, count: int) -> bytes:
    """What the candidate was asked the last time."""
    async with asyncio.timeout(60):
        while two.counted < count:  # noqa: ASYNC110 -- what is waited for has no event
            await asyncio.sleep(0.05)
    assert two.last is not None
    return two.last.body


async def test_a_second_answer_reads_what_its_person_may_read_then(cache_setup: CacheSetup) -> None:
    ((body,),) = cache_setup.stack.sql("SELECT body FROM blueprint")
    port = int(json.loads(bytes(body))["deployments"][0]["url"].split(":")[2].partition("/")[0])
    async with scripted_upstream("two") as (two, second):
        tasks = [workload("shared", ["one", "two"], grounding=GROUNDING)]
        cache_setup.stack.apply(
            blueprint(2, [deployment("one", port, first_token_ms=9000), deployment("two", second)], tasks)
        )
        await cache_setup.stack.wait_until_ready(2)
        with psycopg.connect(cache_setup.stack.database.urls["control"]) as conn:
            made = recorded(workload="shared", candidate="two", type="shadow", share=10_000)
            service.ask(conn, ANA, made, waits=False, now=NOW)
        await cache_setup.stack.wait_until_acknowledged()
        reply = await cache_setup.stack.chat(cache_setup.keys["shared ana"], QUESTION)
        assert TEXT in reply.body
        assert TEXT in await candidate_request(two, 1)
        # ben may not read it any more while the answer that is shown is on its way
        cache_setup.model.script, before = Script(latency_ms=1500), cache_setup.model.counted
        asked = asyncio.create_task(cache_setup.stack.chat(cache_setup.keys["shared ben"], QUESTION))
        async with asyncio.timeout(60):
            while cache_setup.model.counted == before:  # noqa: ASYNC110 -- of the shipped model, which has no event for it
                await asyncio.sleep(0.02)
        ((document,),) = cache_setup.stack.sql("SELECT id FROM document")
        cache_setup.stack.sql(
            "INSERT INTO document_reader (document_id, reader, deny) VALUES (%s, 'ben@acme.example', true)", document
        )
        shown = await asked
        assert (shown.json["groundplan"]["deployment"], TEXT in shown.body) == ("one", True)
        assert TEXT not in await candidate_request(two, 2), "a second answer was made from what was revoked"
