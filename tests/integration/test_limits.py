"""Limits on real workers over one PostgreSQL: exact across workers, released, and shown to callers."""

from __future__ import annotations

import asyncio
import re
import signal
import statistics
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest
from tests.integration.gates import hold_answers, wait_until
from tests.integration.gateway_stack import (
    Reply,
    Stack,
    blueprint,
    deployment,
    installation,
    scripted_upstream,
    workload,
)

from groundplan.blueprint.model import Blueprint, Budget, Limit
from groundplan.core.money import PICO
from groundplan.gateway.budgets.account import REFILL_WAIT_S
from groundplan.gateway.budgets.periods import current_key, ends
from groundplan.gateway.journal.shipper import Shipper
from groundplan.identity import service
from groundplan.identity.model import KeyTerms
from groundplan.testing.database import Database
from groundplan.testing.scripted import Script


def limit(name: str, covers: str, kind: str, amount: int, period: str = "day") -> Limit:
    return Limit(name=name, covers=covers, type=kind, amount=amount, period=period)


def limited_blueprint(number: int, ports: list[int], *limits: Limit, **more: Any) -> Blueprint:
    places = [deployment(name, port, first_token_ms=60_000) for name, port in zip(("one", "two"), ports, strict=False)]
    without_limits = blueprint(number, places, [workload("assistant", [p.name for p in places], **more)])
    return msgspec.structs.replace(without_limits, limits=list(limits))


async def start_workers(stack: Stack, applied: Blueprint, workers: int = 1) -> None:
    stack.apply(applied)
    stack.start(workers)
    await stack.wait_until_ready(applied.number)


async def chat_with_retries(stack: Stack, key: str, *text: str, **more: Any) -> Reply:
    """A chat call; retried while PostgreSQL is too slow to say whether there is room, which is no limit."""
    async with asyncio.timeout(30):
        while (reply := await stack.chat(key, *text, **more)).status == 503:
            assert reply.code in ("limit_unreachable", "budget_unreachable"), reply.body
    return reply


async def chat_until_admitted(stack: Stack, key: str) -> Reply:
    """A chat call; retried until slots that other workers held reach its worker."""
    async with asyncio.timeout(30):
        while (reply := await chat_with_retries(stack, key)).status == 429:  # noqa: ASYNC110 -- what is waited for has no event
            await asyncio.sleep(0.02)
    return reply


async def run_until_served(calls: list[Callable[[], Awaitable[Reply]]], expected_served: int) -> list[Reply]:
    """The replies to concurrent calls. While fewer than `expected_served` were served, a refused one is retried: on a
    busy machine a worker may be late to release what calls at another one wait for."""
    replies = list(await asyncio.gather(*(call() for call in calls)))
    async with asyncio.timeout(30):
        while sum(reply.status == 200 for reply in replies) < expected_served:
            refused = next(number for number, reply in enumerate(replies) if reply.status in (429, 503))
            replies[refused] = await calls[refused]()
    return replies


async def test_requests_are_counted_exactly_by_two_workers(database: Database, tmp_path: Path) -> None:
    async with scripted_upstream("one") as (model, port), installation(database, tmp_path) as stack:
        model.script = Script(tokens=1)
        await start_workers(
            stack, limited_blueprint(1, [port], limit("daily", "workload/assistant", "requests", 40)), 2
        )
        key = stack.key()
        replies = await run_until_served([partial(chat_with_retries, stack, key)] * 60, 40)
        assert sorted(reply.status for reply in replies) == [200] * 40 + [429] * 20
        assert model.counted == 40
        refused = next(reply for reply in replies if reply.status == 429)
        error = refused.json["error"]
        assert (error["code"], error["type"], error["limit"]) == ("rate_limit_exceeded", "rate_limit_error", "daily")
        assert error["frees_at"] and error["hint"]
        # in the last minute of a day no caller is to wait for its end
        assert "retry-after" in refused.headers or refused.headers["x-should-retry"] == "false"
        durations = list[float]()
        for _ in range(20):
            began = time.monotonic()
            assert (await chat_with_retries(stack, key)).status == 429
            durations.append(time.monotonic() - began)
        assert statistics.median(durations) < REFILL_WAIT_S * 0.8, (
            "no call waits for a limit that is known to be used up"
        )


async def test_the_calls_of_a_day_are_counted_exactly_by_two_workers(database: Database, tmp_path: Path) -> None:
    async with scripted_upstream("one") as (model, port), installation(database, tmp_path) as stack:
        model.script = Script(tokens=1)
        await start_workers(stack, limited_blueprint(1, [port], calls_per_day=10), 2)
        key = stack.key()
        replies = await run_until_served([partial(chat_with_retries, stack, key)] * 40, 10)
        assert sorted(reply.status for reply in replies) == [200] * 10 + [429] * 30 and model.counted == 10
        assert {reply.code for reply in replies if reply.status == 429} == {"calls_per_day"}
        left = [int(r.headers["x-ratelimit-remaining-requests"]) for r in replies if r.status == 200]
        assert min(left) == 0 and max(left) < 10


async def test_tokens_are_reserved_at_their_bound_and_settled_at_the_actual_count(
    database: Database, tmp_path: Path
) -> None:
    async with scripted_upstream("one") as (model, port), installation(database, tmp_path) as stack:
        model.script = Script(tokens=5)
        await start_workers(stack, limited_blueprint(1, [port], limit("daily", "user", "tokens", 1000)))
        key, application = stack.key(person=stack.person("ana@acme.example")), stack.key()
        replies = [await chat_with_retries(stack, key) for _ in range(6)]
        assert {reply.status for reply in replies} == {200}
        left = [int(reply.headers["x-ratelimit-remaining-tokens"]) for reply in replies]
        assert left[0] > left[-1] > 0 and replies[0].headers["x-ratelimit-limit-tokens"] == "1000"
        assert (await chat_with_retries(stack, key, "x" * 2000)).status == 429
        assert "x-ratelimit-limit-tokens" not in (await chat_with_retries(stack, application)).headers  # it has no user


async def test_concurrency_is_released_when_calls_end_and_when_a_worker_dies(
    database: Database, tmp_path: Path
) -> None:
    async with scripted_upstream("one") as (model, port), installation(database, tmp_path) as stack:
        model.script, gate = Script(tokens=1), hold_answers(model)
        await start_workers(stack, limited_blueprint(1, [port], limit("slots", "key", "concurrent", 3, "now")), 2)
        key = stack.key()
        first = [asyncio.create_task(chat_until_admitted(stack, key)) for _ in range(3)]
        await wait_until(lambda: model.counted == 3)
        refused = await asyncio.gather(*(chat_with_retries(stack, key) for _ in range(5)))
        assert {reply.status for reply in refused} == {429} and model.counted == 3
        assert not any("x-should-retry" in reply.headers for reply in refused)
        for _ in range(4):
            gate.release()
        assert [reply.status for reply in await asyncio.gather(*first)] == [200] * 3
        assert (await chat_until_admitted(stack, key)).status == 200
        running = [asyncio.create_task(chat_until_admitted(stack, key)) for _ in range(3)]
        await wait_until(lambda: model.counted == 7)
        for worker in stack.workers:
            worker.send_signal(signal.SIGKILL)
            worker.wait()
        await asyncio.gather(*running, return_exceptions=True)
        stack.workers.clear()
        held = "SELECT coalesce(sum(granted), 0)::int FROM limit_span WHERE span = 'now'"
        assert stack.sql(held) == [(3,)]
        with psycopg.connect(database.urls["shipper"], autocommit=True) as conn:
            conn.execute("UPDATE gateway SET heartbeat_at = heartbeat_at - interval '1 minute'")  # dead for as long
            shipper = Shipper(stack.home)
            for _ in range(4):
                shipper.run_round(conn)
        assert stack.sql(held) == [(0,)]


async def test_a_deployment_whose_limit_is_used_up_is_skipped(database: Database, tmp_path: Path) -> None:
    async with (
        scripted_upstream("one") as (one, first),
        scripted_upstream("two") as (two, second),
        installation(database, tmp_path) as stack,
    ):
        one.script = two.script = Script(tokens=1)
        declared = limited_blueprint(
            1,
            [first, second],
            limit("small", "deployment/one", "requests", 2),
            limit("other", "model/scripted/two", "cost", PICO // 1000),
        )
        await start_workers(stack, declared)
        key = stack.key()
        replies = [await chat_with_retries(stack, key) for _ in range(4)]
        assert [reply.headers.get("groundplan-deployment") for reply in replies] == ["one", "one", "two", "two"]
        refused = await chat_with_retries(stack, key, max_tokens=500)
        assert (refused.status, refused.code) == (429, "rate_limit_exceeded")
        assert refused.json["error"]["limit"] in ("small", "other")
        assert (one.counted, two.counted) == (2, 2)


async def test_a_call_refused_by_a_budget_uses_nothing_of_a_limit(database: Database, tmp_path: Path) -> None:
    async with scripted_upstream("one") as (model, port), installation(database, tmp_path) as stack:
        model.script = Script(tokens=1)
        declared = limited_blueprint(1, [port], limit("daily", "company", "requests", 3))
        declared = msgspec.structs.replace(
            declared, budgets=[Budget(name="all", covers="company", limit=PICO // 1000, period="total")]
        )
        await start_workers(stack, declared)
        key = stack.key()
        assert [(await chat_with_retries(stack, key, max_tokens=500)).code for _ in range(5)] == [
            "budget_exhausted"
        ] * 5
        assert [(await chat_with_retries(stack, key, max_tokens=2)).status for _ in range(4)] == [200, 200, 200, 429]


@pytest.mark.parametrize("period", ["minute", "month"])
async def test_limit_headers_are_those_of_openai_and_for_messages_those_of_anthropic(
    database: Database, tmp_path: Path, period: str
) -> None:
    async with scripted_upstream("one") as (model, port), installation(database, tmp_path) as stack:
        model.script = Script(tokens=1)
        await start_workers(stack, limited_blueprint(1, [port], limit("rpm", "team/none", "requests", 1), limit(
            "all", "company", "requests", 100, period)))  # fmt: skip
        reply = await chat_with_retries(stack, stack.key())
        assert reply.headers["x-ratelimit-limit-requests"] == "100"
        assert reply.headers["x-ratelimit-remaining-requests"] == "99"
        assert reply.headers["x-ratelimit-reset-requests"].endswith("s")
        assert reply.headers["groundplan-budget-remaining-usd"].startswith("999.99")
        body = {"model": "auto", "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]}
        message = await stack.post("/v1/messages", stack.key(), body)
        limits = {name: value for name, value in message.headers.items() if "-ratelimit-" in name}
        assert limits.pop("anthropic-ratelimit-requests-limit") == "100"
        assert limits.pop("anthropic-ratelimit-requests-remaining") in ("98", "99"), "99 in the next minute"
        reset = datetime.strptime(limits.pop("anthropic-ratelimit-requests-reset"), "%Y-%m-%dT%H:%M:%S%z")
        assert limits == {} and timedelta(minutes=-1) < reset - datetime.now(UTC) < timedelta(days=32)


def seconds(text: str) -> int:
    """Of a time as OpenAI's headers have it."""
    found = re.fullmatch(r"(?:(?:(\d+)h)?(\d+)m)?(\d+)s", text)
    assert found is not None, text
    hours, minutes, rest = (int(part or 0) for part in found.groups())
    return 3600 * hours + 60 * minutes + rest


async def test_a_refusal_has_the_limit_headers_too(database: Database, tmp_path: Path) -> None:
    async with scripted_upstream("one") as (model, port), installation(database, tmp_path) as stack:
        model.script = Script(tokens=1)
        limits = [
            limit("most", "company", "requests", 2, "month"),
            limit("narrow", "workload/assistant", "requests", 50, "day"),
            limit("words", "company", "tokens", 9000, "day"),
        ]
        await start_workers(stack, limited_blueprint(1, [port], *limits))
        key = stack.key()
        assert [(await chat_with_retries(stack, key)).status for _ in range(2)] == [200, 200]
        refused = await chat_with_retries(stack, key)
        left = {name: value for name, value in refused.headers.items() if "-ratelimit-" in name}
        assert (refused.status, left.pop("x-ratelimit-limit-requests")) == (429, "2")
        assert left.pop("x-ratelimit-remaining-requests") == "0"
        frees = datetime.fromisoformat(refused.json["error"]["frees_at"])
        reset = timedelta(seconds=seconds(left.pop("x-ratelimit-reset-requests")))
        assert abs(datetime.now(UTC) + reset - frees) < timedelta(seconds=30)
        assert left.pop("x-ratelimit-limit-tokens") == "9000" and int(left.pop("x-ratelimit-remaining-tokens")) > 8900
        assert 0 < seconds(left.pop("x-ratelimit-reset-tokens")) <= 86400 and left == {}
        body = {"model": "auto", "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]}
        message = await stack.post("/v1/messages", key, body)
        assert message.status == 429 and message.headers["anthropic-ratelimit-requests-remaining"] == "0"
        assert message.headers["anthropic-ratelimit-requests-limit"] == "2"
        assert datetime.fromisoformat(message.headers["anthropic-ratelimit-requests-reset"]) == frees
        assert int(message.headers["anthropic-ratelimit-tokens-remaining"]) > 8900
        assert not any(name.startswith("x-ratelimit-") for name in message.headers)


async def test_the_headers_show_the_deployments_limit_that_refused_a_call(database: Database, tmp_path: Path) -> None:
    async with scripted_upstream("one") as (model, port), installation(database, tmp_path) as stack:
        model.script = Script(tokens=1)
        limits = [
            limit("calls", "company", "requests", 100, "day"),
            limit("own", "deployment/one", "tokens", 900, "minute"),
        ]
        await start_workers(stack, limited_blueprint(1, [port], *limits))
        key = stack.key()
        async with asyncio.timeout(30):  # the minute may end
            while (refused := await chat_with_retries(stack, key, max_tokens=500)).status == 200:
                pass
        assert refused.json["error"]["limit"] == "own" and refused.headers["x-ratelimit-limit-tokens"] == "900"
        assert int(refused.headers["x-ratelimit-remaining-tokens"]) < refused.json["error"]["needed"]
        assert refused.headers["x-ratelimit-limit-requests"] == "100"
        after, milliseconds = int(refused.headers["retry-after"]), int(refused.headers["retry-after-ms"])
        assert after - 1 < milliseconds / 1000 <= after <= 60
        assert abs(seconds(refused.headers["x-ratelimit-reset-tokens"]) - after) <= 1


async def test_a_cost_cap_per_call_may_be_set_by_workload_and_by_caller(database: Database, tmp_path: Path) -> None:
    async with scripted_upstream("one") as (model, port), installation(database, tmp_path) as stack:
        model.script = Script(tokens=1)
        await start_workers(
            stack, limited_blueprint(1, [port], max_cost_per_call=PICO // 1000)
        )  # a thousandth of a dollar: 100 tokens
        key = stack.key()
        assert (await chat_with_retries(stack, key, max_tokens=100)).status == 200
        refused = await chat_with_retries(stack, key, max_tokens=101)
        assert (refused.status, refused.code) == (403, "cost_per_call")
        own = {"groundplan_max_cost_usd": "0.0001"}
        assert (await chat_with_retries(stack, key, max_tokens=20, headers=own)).code == "cost_per_call"
        assert (await chat_with_retries(stack, key, max_tokens=10, headers=own)).status == 200
        assert (await stack.chat(key, headers={"groundplan_max_cost_usd": "much"})).code == "cost_header"


async def test_the_narrowest_of_four_budgets_refuses_and_all_are_charged(database: Database, tmp_path: Path) -> None:
    async with scripted_upstream("one") as (model, port), installation(database, tmp_path) as stack:
        model.script = Script(tokens=20)
        names = {"company": "company", "team": "team/search", "assistant": "workload/assistant"}
        budgets = [
            Budget(name=name, covers=covers, limit=(9 - place) * PICO // 5000, period=("year", "quarter", "day")[place])
            for place, (name, covers) in enumerate(names.items())
        ]
        declared = limited_blueprint(1, [port], team="search", budgets=list(names))
        stack.apply(msgspec.structs.replace(declared, budgets=budgets))
        stack.start(2)
        await stack.wait_until_ready()
        with psycopg.connect(database.urls["control"]) as conn:
            terms = KeyTerms(budget=3 * PICO // 5000, budget_period="week")
            id, narrow = service.create_key(conn, "operator", "assistant", terms=terms)
        wide = stack.key()
        first = [await chat_with_retries(stack, narrow, max_tokens=20) for _ in range(4)]
        assert [reply.status for reply in first] == [200, 200, 200, 429]
        assert first[3].json["error"]["budget"] == f"key/{id}" and ".." not in first[3].json["error"]["frees_at"]
        second = [await chat_with_retries(stack, wide, max_tokens=20) for _ in range(5)]
        assert [reply.status for reply in second] == [200] * 4 + [429]
        assert second[4].json["error"]["budget"] == "assistant"


async def test_a_refusal_names_the_budget_that_has_room_again_last(database: Database, tmp_path: Path) -> None:
    async with scripted_upstream("one") as (model, port), installation(database, tmp_path) as stack:
        model.script = Script(tokens=20)
        covers = {
            "assistant": ("workload/assistant", "day"),
            "company": ("company", "total"),
            "team": ("team/a", "year"),
        }
        one_call = PICO // 5000
        budgets = [Budget(name=n, covers=c, limit=one_call, period=p) for n, (c, p) in covers.items()]
        declared = limited_blueprint(1, [port], team="a", budgets=list(covers))
        await start_workers(stack, msgspec.structs.replace(declared, budgets=budgets))
        key = stack.key()
        assert (await chat_with_retries(stack, key, max_tokens=20)).status == 200
        refused = await chat_with_retries(stack, key, max_tokens=20)
        error = refused.json["error"]
        assert (refused.status, error["budget"], error["frees_at"]) == (429, "company", None)
        assert "retry-after" not in refused.headers, "that of the workload is free again tomorrow, which helps nobody"


async def test_a_refusal_because_of_open_calls_in_a_long_window_may_be_retried_soon(
    database: Database, tmp_path: Path
) -> None:
    async with scripted_upstream("one") as (model, port), installation(database, tmp_path) as stack:
        model.script, gate = Script(tokens=10), hold_answers(model)
        amount = PICO // 2500
        limits = [limit("money", "company", "cost", amount, "month"), limit("calls", "company", "requests", 3, "month")]
        await start_workers(stack, limited_blueprint(1, [port], *limits))
        key = stack.key()
        running = [asyncio.create_task(chat_with_retries(stack, key, max_tokens=20)) for _ in range(2)]
        await wait_until(lambda: model.counted == 2)
        refused = await chat_with_retries(stack, key, max_tokens=20)
        error = refused.json["error"]
        assert (refused.status, error["limit"], error["frees_at"]) == (429, "money", None)
        assert refused.headers["retry-after"] == "1" and "x-should-retry" not in refused.headers
        for _ in range(4):
            gate.release()
        assert [reply.status for reply in await asyncio.gather(*running)] == [200, 200]
        assert (await chat_with_retries(stack, key, max_tokens=20)).status == 200
        spent = await chat_with_retries(stack, key, max_tokens=20)
        assert spent.json["error"]["frees_at"] and spent.headers["x-should-retry"] == "false"


async def test_a_refusal_because_of_open_calls_may_be_retried_soon(database: Database, tmp_path: Path) -> None:
    async with scripted_upstream("one") as (model, port), installation(database, tmp_path) as stack:
        model.script, gate = Script(tokens=10), hold_answers(model)
        declared = limited_blueprint(1, [port])
        budgets = [Budget(name="all", covers="company", limit=PICO // 2500, period="month")]
        await start_workers(stack, msgspec.structs.replace(declared, budgets=budgets))
        key = stack.key()
        running = [asyncio.create_task(chat_with_retries(stack, key, max_tokens=20)) for _ in range(2)]
        await wait_until(lambda: model.counted == 2)
        refused = await chat_with_retries(stack, key, max_tokens=20)
        error = refused.json["error"]
        assert (refused.status, error["code"], error["frees_at"]) == (429, "budget_exhausted", None)
        assert refused.headers["retry-after"] == "1" and "x-should-retry" not in refused.headers
        assert error["remaining_usd"] == "0.000400000000", "nothing of it is spent"
        for _ in range(4):
            gate.release()
        assert [reply.status for reply in await asyncio.gather(*running)] == [200, 200]
        assert (await chat_with_retries(stack, key, max_tokens=20)).status == 200, "each cost half of what it held"
        spent = await chat_with_retries(stack, key, max_tokens=20)
        assert (spent.status, spent.headers["x-should-retry"]) == (429, "false") and spent.json["error"]["frees_at"]


async def test_a_refusal_names_the_limit_that_has_room_again_last(database: Database, tmp_path: Path) -> None:
    async with scripted_upstream("one") as (model, port), installation(database, tmp_path) as stack:
        model.script = Script(tokens=1)
        limits = [
            limit("short", "company", "requests", 1, "hour"),
            limit("slots", "company", "concurrent", 5, "now"),
            limit("long", "workload/assistant", "requests", 1, "month"),
        ]
        await start_workers(stack, limited_blueprint(1, [port], *limits))
        key = stack.key()
        assert (await chat_with_retries(stack, key)).status == 200
        refused = await chat_with_retries(stack, key)
        end = ends(current_key("month", "", "UTC", time.time()))
        assert end is not None and refused.json["error"]["frees_at"] == end.isoformat()


@pytest.mark.parametrize("tight", ["day", "month"])
async def test_a_limit_may_name_several_periods(database: Database, tmp_path: Path, tight: str) -> None:
    async with scripted_upstream("one") as (model, port), installation(database, tmp_path) as stack:
        model.script = Script(tokens=1)
        amounts = {"day": 50, "month": 50, tight: 3}
        both = [limit("both", "workload/assistant", "requests", count, period) for period, count in amounts.items()]
        both += [limit("both", "key", "tokens", 10**6, period) for period in amounts]
        await start_workers(stack, limited_blueprint(1, [port], *both), 2)
        key = stack.key()
        replies = await run_until_served([partial(chat_with_retries, stack, key)] * 8, 3)
        assert sorted(reply.status for reply in replies) == [200] * 3 + [429] * 5 and model.counted == 3
        errors = [reply.json["error"] for reply in replies if reply.status == 429]
        assert {(error["limit"], error["per"], error["most"]) for error in errors} == {("both", tight, 3)}
        rows = stack.sql("SELECT amount FROM limit_span WHERE name = 'requests/both' ORDER BY 1")
        assert [amount for (amount,) in rows] == [3, 50]


async def test_an_estimate_says_what_a_call_may_cost_without_making_it(database: Database, tmp_path: Path) -> None:
    async with scripted_upstream("one") as (model, port), installation(database, tmp_path) as stack:
        model.script = Script(tokens=20)
        await start_workers(stack, limited_blueprint(1, [port], limit("daily", "company", "requests", 1)))
        key, ask = stack.key(), dict[str, Any](headers={"groundplan_estimate": "1"})
        found = (await stack.chat(key, max_tokens=20, **ask)).json
        assert (found["object"], found["most_usd"], found["fits"]) == ("groundplan.estimate", "0.000200000000", True)
        (place,) = found["deployments"]
        assert place["likely_usd"] <= place["most_usd"] and place["most_completion_tokens"] == 20
        assert model.counted == 0
        assert (await stack.chat(key, model="none", **ask)).code == "model_not_found"
        reply = await chat_with_retries(
            stack, key, max_tokens=20
        )  # the limit of one request is not touched by estimates
        assert (reply.status, reply.headers["groundplan-cost-usd"]) == (200, "0.000200000000")


async def test_a_slow_postgresql_is_not_reported_as_a_used_up_limit(database: Database, tmp_path: Path) -> None:
    """A user who has used nothing is not told to come back tomorrow."""
    async with scripted_upstream("one") as (model, port), installation(database, tmp_path) as stack:
        model.script = Script(tokens=1)
        await start_workers(stack, limited_blueprint(1, [port], limit("each", "key", "requests", 20)))
        first, second = stack.key(), stack.key()
        assert (await chat_with_retries(stack, first)).status == 200
        with psycopg.connect(database.urls["owner"]) as conn:
            conn.execute("LOCK TABLE limit_span IN EXCLUSIVE MODE")
            reply = await stack.chat(second)
            assert (reply.status, reply.code) == (503, "limit_unreachable")
            assert "in time" in reply.json["error"]["hint"] and reply.headers["retry-after"] == "1"
            await asyncio.sleep(2.5)  # longer than a statement may take
            assert (await stack.chat(second)).status == 503
        assert (await chat_with_retries(stack, second)).status == 200


async def test_an_unreachable_postgresql_is_not_reported_as_a_used_up_limit(database: Database, tmp_path: Path) -> None:
    async with scripted_upstream("one") as (model, port), installation(database, tmp_path) as stack:
        model.script = Script(tokens=1)
        await start_workers(stack, limited_blueprint(1, [port], limit("daily", "company", "requests", 20)))
        key = stack.key()
        assert (await chat_with_retries(stack, key)).status == 200
        name = database.name
        stack.sql_admin(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false")
        try:
            stack.sql_admin(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
            replies = [await stack.chat(key) for _ in range(8)]
            assert {reply.status for reply in replies} == {200, 503}  # what it held, and no more
            assert {reply.code for reply in replies if reply.status == 503} == {"limit_unreachable"}
        finally:
            stack.sql_admin(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS true")


async def test_a_soft_budget_warns_and_refuses_nothing(database: Database, tmp_path: Path) -> None:
    async with scripted_upstream("one") as (model, port), installation(database, tmp_path) as stack:
        model.script = Script(tokens=10)
        soft = Budget(name="soft", covers="company", limit=PICO // 5000, period="month", hard=False)
        declared = limited_blueprint(1, [port], budgets=["all", "soft"])
        await start_workers(stack, msgspec.structs.replace(declared, budgets=[*declared.budgets, soft]))
        key = stack.key()
        replies = [await chat_with_retries(stack, key, max_tokens=10) for _ in range(5)]
        assert {reply.status for reply in replies} == {200}
        assert "groundplan-budget-crossed" not in replies[0].headers
        assert replies[-1].headers["groundplan-budget-crossed"] == "soft"


async def test_no_limit_is_exceeded_while_workers_are_killed_during_traffic(database: Database, tmp_path: Path) -> None:
    async with scripted_upstream("one") as (model, port), installation(database, tmp_path) as stack:
        model.script = Script(tokens=20, latency_ms=30)
        cost = PICO // 5000
        declared = limited_blueprint(
            1,
            [port],
            limit("daily", "workload/assistant", "requests", 80),
            limit("slots", "company", "concurrent", 8, "now"),
            budgets=["all", "own"],
        )
        own = Budget(name="own", covers="workload/assistant", limit=70 * cost, period="month")
        stack.apply(msgspec.structs.replace(declared, budgets=[*declared.budgets, own]))
        stack.start(2)
        await stack.wait_until_ready()
        key = stack.key()
        statuses: list[int] = []

        async def caller() -> None:
            for _ in range(25):
                try:
                    statuses.append((await stack.chat(key, max_tokens=20)).status)
                except (OSError, ValueError, IndexError):
                    statuses.append(0)  # its worker was killed

        calling = [asyncio.create_task(caller()) for _ in range(6)]
        with psycopg.connect(database.urls["shipper"], autocommit=True) as conn:
            shipper = Shipper(stack.home)
            for _ in range(3):
                await asyncio.sleep(0.4)
                victim = stack.workers.pop(0)
                victim.kill()
                victim.wait()
                stack.start(1)
                shipper.run_round(conn)
            await asyncio.gather(*calling)
            assert model.counted <= 70 and statuses.count(200) <= 70
            await asyncio.to_thread(stack.stop)
            stack.sql("UPDATE gateway SET heartbeat_at = heartbeat_at - interval '1 minute'")  # dead for as long
            for _ in range(4):
                shipper.run_round(conn)
        spent = stack.sql("SELECT budget, granted_usd, limit_usd FROM budget_period ORDER BY 1")
        assert all(granted <= amount for _, granted, amount in spent)
        attempts = stack.sql("SELECT count(*) FROM attempt")[0][0]
        assert model.counted <= attempts <= 80  # every attempt that the upstream counted is there
        assert float(spent[1][1]) == pytest.approx(attempts * 0.0002)
        taken = stack.sql("SELECT name, granted, amount FROM limit_span ORDER BY name")
        assert [(name, granted) for name, granted, _ in taken if name == "concurrent/slots"] == [
            ("concurrent/slots", 0)
        ]
        assert all(granted <= amount for _, granted, amount in taken)
