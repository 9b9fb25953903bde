"""What a key may do, live at a worker: networks, models, a budget of its own, rotation with an overlap."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import msgspec
import psycopg
import pytest
from tests.integration.gateway_stack import Stack, blueprint, deployment, installation, scripted_upstream, workload

from groundplan.blueprint import artifact
from groundplan.blueprint.model import Budget
from groundplan.core.errors import Conflict
from groundplan.core.money import PICO
from groundplan.identity import service
from groundplan.identity.model import KeyTerms
from groundplan.testing.database import Database
from groundplan.testing.scripted import Script

COST = PICO // 5000
"""Of a call that puts out 20 tokens."""


@pytest.fixture
async def stack(database: Database, tmp_path: Path) -> AsyncIterator[Stack]:
    async with (
        scripted_upstream("one") as (one, first),
        scripted_upstream("two") as (two, second),
        installation(database, tmp_path) as made,
    ):
        one.script = two.script = Script(tokens=20)
        places = [deployment("one", first), deployment("two", second)]
        plan = blueprint(1, places, [workload("assistant", ["one", "two"])])
        made.apply(msgspec.structs.replace(plan, trusted_proxies=["127.0.0.0/8"]))
        made.start()
        await made.wait_until_ready()
        yield made


async def key(stack: Stack, **terms: object) -> tuple[UUID, str]:
    with psycopg.connect(stack.database.urls["control"]) as conn:
        made = service.create_key(conn, "operator", "assistant", terms=KeyTerms(**terms))  # type: ignore[arg-type]
    await stack.wait_until_acknowledged()
    return made


async def test_networks_are_those_of_the_client_behind_a_trusted_proxy(stack: Stack) -> None:
    _, secret = await key(stack, networks=("203.0.113.0/24",))
    refused = await stack.chat(secret)
    assert (refused.status, refused.code) == (403, "key_network")
    inside = {"x_forwarded_for": "198.51.100.1, 203.0.113.7"}
    assert (await stack.chat(secret, headers=inside)).status == 200
    assert (await stack.chat(secret, headers={"x_forwarded_for": "203.0.113.7, 198.51.100.1"})).status == 403
    # a proxy that adds a line of its own instead of a word to the last one
    inward = {"x_forwarded_for": "203.0.113.7\r\nX-Forwarded-For: 127.0.0.1"}
    assert (await stack.chat(secret, headers=inward)).status == 200
    outside = {"x_forwarded_for": "203.0.113.7, 198.51.100.1\r\nX-Forwarded-For: 127.0.0.1"}
    assert (await stack.chat(secret, headers=outside)).status == 403
    for path in ("models", "files", "batches", "messages/batches", "chat/completions", "responses/resp_1"):
        assert (await stack.ask("GET", f"/v1/{path}", secret)).code == "key_network", path
        assert (await stack.ask("GET", f"/v1/{path}", secret, b"", **inside)).status in (200, 404)
    for path in ("/v1/messages", "/v1/embeddings", "/api/outcomes", "/mcp"):
        assert b"network" in (await stack.post(path, secret, {})).body, path


async def test_a_key_may_use_only_its_models(stack: Stack) -> None:
    _, secret = await key(stack, models=("scripted/two",))
    assert (await stack.chat(secret)).headers["groundplan-deployment"] == "two"
    refused = await stack.chat(secret, model="one")
    assert (refused.status, refused.code) == (403, "key_model") and b"the model 'one'" in refused.body
    _, named = await key(stack, models=("two",))
    assert (await stack.chat(named)).headers["groundplan-deployment"] == "two", "a deployment may be named as well"
    assert (await stack.chat(named, model="scripted/one")).code == "key_model"
    _, other = await key(stack, models=("scripted/gone",))
    assert b"may not use any model of assistant for chat" in (await stack.chat(other)).body
    listed = (await stack.ask("GET", "/v1/models", secret)).json["data"]
    assert {model["id"] for model in listed} == {"two", "scripted/two", "up-two", "auto", "assistant"}


async def test_a_rotated_key_goes_on_with_the_budget_and_the_old_one_ends(stack: Stack) -> None:
    old_id, old = await key(stack, budget=3 * COST, budget_period="month")
    assert (await stack.chat(old)).status == 200
    with psycopg.connect(stack.database.urls["control"]) as conn:
        new, secret, _ = service.rotate_key(conn, "operator", old_id, timedelta(hours=1))
    with psycopg.connect(stack.database.urls["control"]) as conn, pytest.raises(Conflict, match="key_rotated"):
        service.rotate_key(conn, "operator", old_id, timedelta(0))
    await stack.wait_until_acknowledged()
    assert [(await stack.chat(each)).status for each in (old, secret)] == [200, 200]  # both, during the overlap
    refused = await stack.chat(secret)
    assert (refused.status, refused.code) == (429, "budget_exhausted")
    assert refused.json["error"]["budget"] == f"key/{old_id}" and new.family == old_id
    assert refused.json["error"]["frees_at"].endswith("-01T00:00:00+00:00")
    over = "UPDATE api_key SET expires_at = expires_at - interval '1 hour' + interval '1 s' WHERE id = %s"
    await stack.wait_until_acknowledged(stack.policy("key", "assistant", over, old_id))
    async with asyncio.timeout(30):  # nobody tells the worker when it is over
        while (await stack.chat(old)).code != "key_expired":  # noqa: ASYNC110
            await asyncio.sleep(0.1)


async def test_a_budget_declared_for_a_key_covers_its_successors(stack: Stack) -> None:
    id, first = await key(stack)
    [[body]] = stack.sql("SELECT body FROM blueprint WHERE number = 1")
    served = artifact.decode(bytes(body))
    partner = Budget(name="partner", covers=f"key/{id}", limit=3 * COST, period="month")
    stack.apply(msgspec.structs.replace(served, number=2, budgets=[*served.budgets, partner]))
    await stack.wait_until_ready(2)
    assert (await stack.chat(first)).status == 200
    with psycopg.connect(stack.database.urls["control"]) as conn:
        second, _, _ = service.rotate_key(conn, "operator", id, timedelta(hours=1))
        _, third, _ = service.rotate_key(conn, "operator", second.id, timedelta(hours=1))
    await stack.wait_until_acknowledged()
    assert [(await stack.chat(each)).status for each in (third, first)] == [200, 200]
    for each in (third, first):
        refused = await stack.chat(each)
        assert (refused.status, refused.json["error"]["budget"]) == (429, "partner"), refused.body
    _, other = await key(stack)
    assert (await stack.chat(other)).status == 200, "which is none of that line"


async def test_a_revoked_key_is_refused_and_its_successor_is_not(stack: Stack) -> None:
    old_id, old = await key(stack, tags=("team:search",))
    with psycopg.connect(stack.database.urls["control"]) as conn:
        new, secret, _ = service.rotate_key(conn, "operator", old_id, timedelta(days=1))
        service.revoke_key(conn, "operator", old_id)
    assert new.terms.tags == ("team:search",)
    await stack.wait_until_acknowledged()
    assert (await stack.chat(old)).code == "key_revoked"
    assert (await stack.chat(secret)).status == 200
