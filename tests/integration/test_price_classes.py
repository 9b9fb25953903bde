"""Classes of price on the request path: images with a bound, priority, and what costs more than its bound."""

from __future__ import annotations

import asyncio
import base64
import os
import re
import signal
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
import typer
from tests.integration.gateway_stack import Stack, blueprint, deployment, installation, scripted_upstream, workload

from groundplan.blueprint.model import Rates
from groundplan.cli.main import app
from groundplan.core.ids import new_id
from groundplan.core.money import PICO
from groundplan.economics.price import FREE
from groundplan.economics.prices.time_of_day import MINUTES_PER_DAY, with_windows
from groundplan.gateway.journal.shipper import Shipper
from groundplan.identity import service
from groundplan.testing.database import Database
from groundplan.testing.scripted import Script

PNG = "data:image/png;base64," + base64.b64encode(b"\x89PNG" + bytes(3000)).decode()


def images(*urls: str) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = [{"type": "text", "text": "what is this"}]
    return [{"role": "user", "content": parts + [{"type": "image_url", "image_url": {"url": url}} for url in urls]}]


async def started(stack: Stack, port: int, limit: int = 1000 * PICO, **more: Any) -> str:
    stack.apply(blueprint(1, [deployment("one", port, **more)], [workload("assistant", ["one"])], limit=limit))
    stack.start()
    await stack.wait_until_ready()
    return stack.key()


def ship(stack: Stack) -> None:
    with psycopg.connect(stack.database.urls["shipper"], autocommit=True) as conn:
        Shipper(stack.home).run_round(conn)


async def served(stack: Stack, key: str) -> None:
    """Until the workload is not stopped any more; an estimate is checked like a call, and sent to nobody."""
    async with asyncio.timeout(30):
        while (await stack.chat(key, headers={"groundplan_estimate": "yes"})).status != 200:  # noqa: ASYNC110
            await asyncio.sleep(0.1)


async def test_images_are_bounded_by_what_the_deployment_declares(database: Database, tmp_path: Path) -> None:
    rates = Rates(input=PICO, output=0, image=PICO // 1000)
    async with scripted_upstream("one") as (model, port), installation(database, tmp_path) as stack:
        model.script = Script(tokens=2)
        key = await started(stack, port, accepts=["image"], image_tokens=100, rates=rates)
        reply = await stack.chat(key, messages=images(PNG, PNG))
        assert reply.status == 200
        assert float(reply.headers["groundplan-cost-usd"]) > 0.002  # two images, and tokens
        ship(stack)
        reserved, cost = stack.sql("SELECT reserved_usd, cost_usd FROM attempt")[0]
        assert cost <= reserved < PICO // 1000  # the bytes of an image are no tokens
        assert float(reserved) < 0.0035
        for url, code in ((PNG[:-1] + "!", "image_url"), ("https://host.example/a.png", "image_url")):
            assert (await stack.chat(key, messages=images(url))).code == code


async def test_audio_is_bounded_by_its_length(database: Database, tmp_path: Path) -> None:
    rates = Rates(input=0, output=0, input_audio=PICO)
    heard = {"type": "input_audio", "input_audio": {"data": base64.b64encode(bytes(10_000)).decode(), "format": "mp3"}}
    async with scripted_upstream("one") as (model, port), installation(database, tmp_path) as stack:
        model.script = Script(tokens=2)
        key = await started(stack, port, accepts=["audio"], audio_tokens=20, rates=rates)
        assert (await stack.chat(key, messages=[{"role": "user", "content": [heard]}])).status == 200
        ship(stack)
        reserved = stack.sql("SELECT reserved_usd FROM attempt")[0][0]
        assert 0.0002 <= float(reserved) < 0.0006  # ten KiB of twenty tokens, and the text around them
        heard["input_audio"] = {"data": "not audio!", "format": "mp3"}
        assert (await stack.chat(key, messages=[{"role": "user", "content": [heard]}])).code == "audio_data"
        assert (await stack.chat(key, messages=images(PNG))).code == "content_unsupported"


@pytest.mark.parametrize(
    ("more", "code"),
    [({"messages": images(PNG)}, "content_unsupported"), ({"service_tier": "priority"}, "field_unsupported")],
)
async def test_what_has_no_bound_is_refused_by_name(
    database: Database, tmp_path: Path, more: dict[str, Any], code: str
) -> None:
    async with scripted_upstream("one") as (model, port), installation(database, tmp_path) as stack:
        key = await started(stack, port)
        refused = await stack.chat(key, **more)
        assert (refused.status, refused.code, model.counted) == (400, code, 0)


async def test_priority_costs_its_own_price(database: Database, tmp_path: Path) -> None:
    rates = Rates(input=0, output=10 * PICO, priority=Rates(input=0, output=20 * PICO))
    async with scripted_upstream("one") as (model, port), installation(database, tmp_path) as stack:
        model.script = Script(tokens=20)
        key = await started(stack, port, rates=rates)
        costs = [(await stack.chat(key, **more)).headers["groundplan-cost-usd"] for more in (
            {}, {"service_tier": "priority"})]  # fmt: skip
        assert [float(cost) for cost in costs] == [0.0002, 0.0004]


TIERS: tuple[tuple[str | None, str | None, int, int, list[str]], ...] = (
    # service_tier asked for, the one that the answer names, tokens' price reserved and charged, flags
    (None, None, 4, 2, []),
    (None, "priority", 4, 4, []),
    ("auto", "default", 4, 2, []),
    ("default", "default", 2, 2, []),
    ("priority", "default", 4, 2, []),
    ("priority", None, 4, 4, []),
    (None, "flex", 4, 2, []),
    (None, "scale", 4, 4, ["unknown_tier"]),
    (None, "\0", 4, 4, ["unknown_tier"]),
)


@pytest.mark.parametrize("serves", [["responses"], []])
async def test_a_tier_that_an_answer_names_is_what_is_charged(
    database: Database, tmp_path: Path, serves: list[str]
) -> None:
    """Whole answers and streams, in chat and in Responses, which are an upstream's own or made by its chat."""
    rates = Rates(input=0, output=10 * PICO, priority=Rates(input=0, output=20 * PICO))
    expected = []
    async with scripted_upstream("one") as (model, port), installation(database, tmp_path) as stack:
        key = await started(stack, port, rates=rates, serves=serves)
        for asked, named, reserved, cost, flags in TIERS:
            model.script = Script(tokens=20, tier=named)
            more = {} if asked is None else {"service_tier": asked}
            for stream in (False, True):
                assert (await stack.chat(key, stream=stream, **more)).status == 200
                assert model.last is not None and (b"service_tier" in model.last.body) == (asked is not None)
                body = {"model": "auto", "input": "hello there", "max_output_tokens": 20, "stream": stream, **more}
                assert (await stack.post("/v1/responses", key, body)).status == 200
                expected += [(reserved, cost, flags)] * 2
        ship(stack)
        rows = stack.sql("SELECT reserved_usd, cost_usd, flags FROM attempt ORDER BY at, call_id")
        kept = {name for (name,) in stack.sql("SELECT usage->>'service_tier' FROM attempt")}
    assert kept == {"default", "priority", "flex", "scale", "other", None}, "nothing but names"
    assert [(int(reserved * 10_000), int(cost * 10_000), flags) for reserved, cost, flags in rows] == expected


FLEX: tuple[tuple[str | None, str | None, int, int, list[str]], ...] = (
    ("flex", "flex", 2, 1, []),
    ("flex", "default", 2, 2, []),
    ("flex", None, 2, 1, []),
    ("flex", "scale", 2, 2, ["unknown_tier"]),
    (None, "flex", 2, 1, []),
    ("default", "flex", 2, 1, []),
    (None, None, 2, 2, []),
)


async def test_flex_is_a_class_of_its_own(database: Database, tmp_path: Path) -> None:
    rates = Rates(input=0, output=10 * PICO, flex=Rates(input=0, output=5 * PICO))
    expected = []
    async with scripted_upstream("one") as (model, port), installation(database, tmp_path) as stack:
        key = await started(stack, port, rates=rates, serves=["responses"])
        for asked, named, reserved, cost, flags in FLEX:
            model.script = Script(tokens=20, tier=named)
            more = {} if asked is None else {"service_tier": asked}
            assert (await stack.chat(key, **more)).status == 200
            body = {"model": "auto", "input": "hello there", "max_output_tokens": 20, "stream": True, **more}
            assert (await stack.post("/v1/responses", key, body)).status == 200
            assert model.last is not None and (b'"flex"' in model.last.body) == (asked == "flex")
            expected += [(reserved, cost, flags)] * 2
        ship(stack)
        rows = stack.sql("SELECT reserved_usd, cost_usd, flags FROM attempt ORDER BY at, call_id")
    assert [(int(reserved * 10_000), int(cost * 10_000), flags) for reserved, cost, flags in rows] == expected


async def test_flex_without_a_price_is_refused_with_how_to_declare_one(database: Database, tmp_path: Path) -> None:
    async with scripted_upstream("one") as (model, port), installation(database, tmp_path) as stack:
        key = await started(stack, port)
        refused = await stack.chat(key, service_tier="flex")
        assert (refused.status, refused.code, model.counted) == (400, "field_unsupported", 0)
        assert "takes flex" in refused.json["error"]["message"] and "flex: {input:" in refused.json["error"]["hint"]


async def test_older_completions_and_messages_cost_by_the_tier_of_their_chat(
    database: Database, tmp_path: Path
) -> None:
    rates = Rates(input=0, output=10 * PICO, priority=Rates(input=0, output=20 * PICO))
    messages = {"model": "auto", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 20}
    asked: list[tuple[str, dict[str, Any]]] = [
        ("/v1/completions", {"model": "auto", "prompt": "hello", "max_tokens": 20}),
        ("/v1/messages", messages),
    ]
    async with scripted_upstream("one") as (model, port), installation(database, tmp_path) as stack:
        key = await started(stack, port, rates=rates)
        model.script = Script(tokens=20, tier="priority")
        for path, body in asked:
            for stream in (False, True):
                assert (await stack.post(path, key, {**body, "stream": stream})).status == 200
        model.script = Script(tokens=20, tier="default")
        assert (await stack.post("/v1/messages", key, {**messages, "service_tier": "standard_only"})).status == 200
        ship(stack)
        rows = stack.sql("SELECT reserved_usd, cost_usd, usage->>'service_tier' FROM attempt ORDER BY at, call_id")
    four, two = Decimal("0.0004"), Decimal("0.0002")
    assert rows == [(four, four, "priority")] * 4 + [(two, two, "default")]


async def test_more_than_the_bound_is_charged_and_stops_the_workload(database: Database, tmp_path: Path) -> None:
    async with scripted_upstream("one") as (model, port), installation(database, tmp_path) as stack:
        model.script = Script(mode="miscount", tokens=20)
        key = await started(stack, port)
        assert (await stack.chat(key, max_tokens=20)).status == 200
        ship(stack)
        cost, flags = stack.sql("SELECT cost_usd, flags FROM attempt")[0]
        assert float(cost) > 0.0002 and flags == ["over_bound"]
        refused = await stack.chat(key, max_tokens=20)
        assert (refused.status, refused.code) == (403, "killed")
        scope, reason = stack.sql("SELECT scope, reason FROM kill_switch WHERE lifted_at IS NULL")[0]
        assert scope == "workload/assistant" and reason.startswith("over_bound: ")
        ((kind, severity, hint),) = stack.sql("SELECT kind, severity, hint FROM finding")
        assert (kind, severity) == ("over_bound", "critical")
        (typed,) = re.findall(r"`groundplan (.*?)`", hint)
        root, (name, *words) = typer.main.get_command(app), typed.split()
        command = root.get_command(root.make_context("groundplan", [name]), name)  # type: ignore[attr-defined]
        assert command.make_context(name, words).params["scope"] == scope, "it can be typed as it stands there"
        with psycopg.connect(database.urls["control"]) as conn:
            service.lift(conn, "operator", scope)
        model.script = Script(tokens=20)
        ship(stack)  # what was told once is not told again
        await served(stack, key)
        assert (await stack.chat(key, max_tokens=20)).status == 200


THOUGHT = {"prompt_tokens": 5, "completion_tokens": 12, "total_tokens": 25,
           "completion_tokens_details": {"reasoning_tokens": 8}}  # fmt: skip
"""As some report it: eight tokens of reasoning beside twelve of an answer."""


async def test_answers_beyond_their_cap_stop_the_workload_in_the_worker_at_once(
    database: Database, tmp_path: Path
) -> None:
    """Free or not, without PostgreSQL, and until the stop is lifted that the shipper writes."""
    async with scripted_upstream("one") as (model, port), installation(database, tmp_path) as stack:
        key = await started(stack, port, rates=FREE)
        model.script = Script(tokens=20)
        assert (await stack.chat(key, n=2)).json["usage"]["completion_tokens"] == 40
        model.script = Script(usage=THOUGHT)
        assert (await stack.chat(key)).status == (await stack.chat(key)).status == 200, "all twenty that it may have"
        model.script = Script(mode="miscount", tokens=20)
        blocked = stack.lock_heartbeats()
        try:
            assert (await stack.chat(key, stream=True)).status == 200
            refused = await stack.chat(key)
            assert (refused.status, refused.code, model.counted) == (403, "killed", 4)
        finally:
            blocked.close()
        assert (await stack.chat(stack.key())).code == "killed", "whatever else live policy says"
        assert stack.sql("SELECT scope FROM kill_switch") == []
        os.kill(stack.workers[0].pid, signal.SIGSTOP)
        try:
            ship(stack)
            ((scope, reason),) = stack.sql("SELECT scope, reason FROM kill_switch WHERE lifted_at IS NULL")
            assert scope == "workload/assistant" and "answered with 67 tokens, more than it was capped at" in reason
            with psycopg.connect(database.urls["control"]) as conn:
                service.lift(conn, "operator", scope)
        finally:
            os.kill(stack.workers[0].pid, signal.SIGCONT)
        model.script = Script(tokens=20)
        await served(stack, key)
        assert (await stack.chat(key)).status == 200
        ship(stack)
        rows = stack.sql("SELECT flags FROM attempt ORDER BY at, call_id")
    assert [flags for (flags,) in rows] == [[], [], [], ["over_bound"], []]


async def beyond_a_bound_unheard(stack: Stack, key: str) -> None:
    """A call uses more than its bound, while its worker hears nothing of live policy."""
    blocked = stack.lock_heartbeats()
    try:
        assert (await stack.chat(key)).status == 200
        assert (await stack.chat(key)).code == "killed"
    finally:
        blocked.close()


async def test_a_stop_that_was_another_workers_is_lifted_for_both(database: Database, tmp_path: Path) -> None:
    """Two go beyond a bound: the stop names the call of the first, and is lifted while the second hears nothing."""
    scope = "workload/assistant"
    async with scripted_upstream("one") as (model, port), installation(database, tmp_path) as stack:
        key = await started(stack, port, rates=FREE)
        model.script = Script(mode="miscount", tokens=20)
        await beyond_a_bound_unheard(stack, key)
        os.kill(stack.workers[0].pid, signal.SIGSTOP)
        try:
            with psycopg.connect(database.urls["control"]) as conn:
                service.kill(conn, "operator", scope, f"over_bound: attempt 0 of call {new_id()}")
            ship(stack)
            assert stack.sql("SELECT count(*) FROM kill_switch") == [(1,)], "it is stopped already"
            with psycopg.connect(database.urls["control"]) as conn:
                service.lift(conn, "operator", scope)
        finally:
            os.kill(stack.workers[0].pid, signal.SIGCONT)
        model.script = Script(tokens=20)
        await served(stack, key)
        assert (await stack.chat(key)).status == 200


async def test_what_was_lifted_for_a_call_that_is_not_in_the_ledger_yet_stays_stopped(
    database: Database, tmp_path: Path
) -> None:
    """Nobody has looked at it: shipping stops the workload for it again."""
    scope = "workload/assistant"
    async with scripted_upstream("one") as (model, port), installation(database, tmp_path) as stack:
        key = await started(stack, port, rates=FREE)
        model.script = Script(mode="miscount", tokens=20)
        await beyond_a_bound_unheard(stack, key)
        os.kill(stack.workers[0].pid, signal.SIGSTOP)
        try:
            with psycopg.connect(database.urls["control"]) as conn:
                service.kill(conn, "operator", scope, f"over_bound: attempt 0 of call {new_id()}")
                service.lift(conn, "operator", scope)
        finally:
            os.kill(stack.workers[0].pid, signal.SIGCONT)
        await stack.wait_until_acknowledged()
        assert (await stack.chat(key)).code == "killed"
        ship(stack)
        await stack.wait_until_acknowledged()
        assert (await stack.chat(key)).code == "killed"
        with psycopg.connect(database.urls["control"]) as conn:
            service.lift(conn, "operator", scope)
        await served(stack, key)


async def test_a_long_prompt_hides_no_answer_beyond_its_cap(database: Database, tmp_path: Path) -> None:
    async with scripted_upstream("one") as (model, port), installation(database, tmp_path) as stack:
        model.script = Script(mode="miscount", tokens=20)
        key = await started(stack, port, rates=Rates(input=PICO, output=PICO))
        for path, body in (
            ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x " * 900}]}),
            ("/v1/responses", {"input": "x " * 900}),
        ):
            cap = "max_tokens" if "messages" in body else "max_output_tokens"
            await stack.post(path, key, {"model": "auto", cap: 20, **body})
            assert (await stack.chat(key)).code == "killed"
            ship(stack)
            with psycopg.connect(database.urls["control"]) as conn:
                service.lift(conn, "operator", "workload/assistant")
            await served(stack, key)
        rows = stack.sql("SELECT cost_usd < reserved_usd, flags FROM attempt")
    assert rows == [(True, ["over_bound"])] * 2


async def test_a_call_costs_as_when_it_is_sent_and_reserves_the_dearest_hour(
    database: Database, tmp_path: Path
) -> None:
    peak, cheap = Rates(input=0, output=10 * PICO), Rates(input=0, output=4 * PICO)
    minute = int(time.time() // 60) % MINUTES_PER_DAY
    now, later = ((minute + shift) % MINUTES_PER_DAY for shift in (-90, 90))
    async with scripted_upstream("one") as (model, port), installation(database, tmp_path) as stack:
        model.script = Script(tokens=20)
        key = await started(stack, port, rates=with_windows(peak, [(now, later, cheap)]))
        costs = [(await stack.chat(key, stream=stream)).headers.get("groundplan-cost-usd") for stream in (False, True)]
        assert costs[0] == "0.000080000000"
        ship(stack)
        rows = stack.sql("SELECT cost_usd, reserved_usd, parts FROM attempt")
    assert [float(cost) for cost, _, _ in rows] == [0.00008, 0.00008]
    assert all(float(reserved) >= 10e-6 * 20 for _, reserved, _ in rows)
    assert all(parts["output"] == [20, 80_000_000] for _, _, parts in rows)
