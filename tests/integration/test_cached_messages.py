"""Answers of the Messages API are cached for both kinds of upstream, and a cache hit survives a kill."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from anthropic.types import Message
from tests.integration.gateway_stack import (
    Reply,
    Stack,
    blueprint,
    deployment,
    installation,
    scripted_upstream,
    workload,
)
from tests.integration.sdk_types import parse_strictly

from groundplan.blueprint.model import Cache, Rates
from groundplan.core.money import PICO
from groundplan.gateway.journal.shipper import Shipper
from groundplan.testing.database import Database
from groundplan.testing.scripted import Script, ScriptedModel

CACHE = Cache(seconds=600, max_bytes=1 << 20, scope="workload")
CacheSetup = tuple[Stack, dict[str, ScriptedModel], str]


@pytest.fixture
async def cache_setup(database: Database, tmp_path: Path) -> AsyncIterator[CacheSetup]:
    secret = tmp_path / "secret"
    secret.write_text("sk-upstream\n")
    rates = Rates(input=PICO, output=10 * PICO, cache_write=2 * PICO)
    async with scripted_upstream("native") as (native, one), scripted_upstream("chat") as (chat, two):
        async with installation(database, tmp_path) as stack:
            places = [
                deployment("native", one, api="anthropic", rates=rates, key=f"file:{secret}"),
                deployment("chat", two, rates=rates),
            ]
            stack.apply(blueprint(1, places, [workload("assistant", ["native", "chat"], cache=CACHE)]))
            stack.start()
            await stack.wait_until_ready()
            yield stack, {"native": native, "chat": chat}, stack.key()


async def ask(cache_setup: CacheSetup, model: str, headers: dict[str, str] | None = None, **more: Any) -> Reply:
    stack, _, key = cache_setup
    body = {"model": f"scripted/{model}", "max_tokens": 20, "messages": [{"role": "user", "content": "Where?"}], **more}
    known = {"x_api_key": key, "anthropic_version": "2023-06-01", **(headers or {})}
    reply = await stack.post("/v1/messages", None, body, **known)
    assert reply.status == 200, reply.body
    return reply


@pytest.mark.parametrize("model", ["native", "chat"])
async def test_a_cached_message_is_served_again(cache_setup: CacheSetup, model: str) -> None:
    _, models, _ = cache_setup
    models[model].script = Script(tokens=7)
    first, second = await ask(cache_setup, model), await ask(cache_setup, model, metadata={"user_id": "x"})
    assert models[model].counted == 1
    parse_strictly(Message, second.body)
    assert second.json["content"] == first.json["content"] and second.json["groundplan"]["cache"] == "exact"
    streamed = [await ask(cache_setup, model, stream=True) for _ in range(2)]
    assert models[model].counted == 2
    events = [reply.body.split(b"event: message_stop")[0] for reply in streamed]
    assert events[0] == events[1] and b'"cache":"exact"' in streamed[1].body and b'"cache":"none"' in streamed[0].body
    beta = {"anthropic_beta": "other-behaviour"}
    assert (await ask(cache_setup, "native", beta)).json["groundplan"]["cache"] == "none"
    models[model].script = Script(tokens=20, usage={})
    untold, again = await ask(cache_setup, model, max_tokens=30), await ask(cache_setup, model, max_tokens=30)
    assert Decimal(again.headers["groundplan-saved-usd"]) == Decimal(untold.headers["groundplan-cost-usd"]) > 0
    models[model].script = Script(tokens=20)
    assert (await ask(cache_setup, model, max_tokens=3)).json["stop_reason"] == "max_tokens"
    assert (await ask(cache_setup, model, max_tokens=3)).json["groundplan"]["cache"] == "none"


async def test_a_cache_hit_is_in_ledger_and_audit_log_after_a_kill(cache_setup: CacheSetup) -> None:
    stack, models, _ = cache_setup
    await ask(cache_setup, "chat")
    hits = [await ask(cache_setup, "chat") for _ in range(5)]
    os.kill(stack.workers[0].pid, signal.SIGKILL)
    await asyncio.to_thread(stack.workers[0].wait)
    shipper = Shipper(stack.home)
    with psycopg.connect(stack.database.urls["shipper"], autocommit=True) as conn:
        conn.execute("UPDATE gateway SET heartbeat_at = heartbeat_at - interval '1 minute'")  # dead for as long
        for _ in range(3):
            shipper.run_round(conn)
    rows = stack.sql("SELECT id::text, status, cost_usd, saved_usd FROM call WHERE cache = 'exact'")
    assert {row[0] for row in rows} == {hit.json["groundplan"]["call_id"] for hit in hits}
    assert all(row[1] == "ok" and row[2] == 0 and row[3] > 0 for row in rows) and models["chat"].counted == 1
    audited = {str(row[0]) for row in stack.sql("SELECT id FROM audit_entry WHERE action = 'call'")}
    assert {row[0] for row in rows} <= audited
