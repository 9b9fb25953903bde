"""Answers that are given again: to whom, in which form, what they cost, and what keeps an answer from being one."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.integration.gateway_stack import Reply
from tests.unit.call_rig import BOUND, Rig, call_rig, reliability, wait_until
from tests.unit.raw_upstream import chunk
from tests.unit.test_dated_prices_begun import DATED, MIDNIGHT

from groundplan.blueprint.model import Cache, Guardrails, Keep, Limit, Rates, Semantic
from groundplan.core.home import Home
from groundplan.economics import price
from groundplan.gateway.budgets.periods import current_key
from groundplan.gateway.caching.cache_link import AnswerLink, StoreMessage, accept_answer
from groundplan.gateway.caching.entry import Entry
from groundplan.gateway.caching.replay_forms import (
    CHAT_REPLAY_FORMS,
    COMPLETIONS_REPLAY_FORMS,
    MESSAGES_REPLAY_FORMS,
    ReplayForms,
)
from groundplan.gateway.call.delivery.to_client import send_stream
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.policy.catalog import index
from groundplan.ledger.model import Finish, Reservation, Usage

CACHE = Cache(seconds=60, max_bytes=1 << 20, scope="workload")
DECLARED: dict[str, dict[str, Any]] = {"assistant": {"cache": CACHE}, "other": {"cache": CACHE}, "plain": {}}


def cache_rig(folder: Path, **more: Any) -> Any:
    return call_rig(folder, ["one", "two"], **{"workloads": DECLARED, **more})


def upstream_calls(rig: Rig) -> int:
    return sum(model.counted for model in rig.models.values())


async def start_waiting_call(rig: Rig) -> tuple[asyncio.Semaphore, asyncio.Task[Reply], asyncio.Task[Reply]]:
    """A call that is held at `one` until that is released, and a second one that waits for its answer."""
    one = rig.hold("one")
    leader = asyncio.create_task(rig.chat())
    await wait_until(lambda: upstream_calls(rig) == 1)
    follower = asyncio.create_task(rig.chat())
    await wait_until(lambda: rig.gateway.running_calls == 2)
    return one, leader, follower


async def test_a_cache_hit_costs_nothing_and_is_recorded(tmp_path: Path) -> None:
    async with cache_rig(tmp_path) as rig:
        rig.play("one", tokens=7)
        first, second = await rig.chat(), await rig.chat()
        assert upstream_calls(rig) == 1
        assert (first.json["groundplan"]["cache"], second.json["groundplan"]["cache"]) == ("none", "exact")
        assert second.json["choices"] == first.json["choices"] and second.json["usage"] == first.json["usage"]
        told, paid = second.json["groundplan"], first.json["groundplan"]["cost_usd"]
        assert (float(told["cost_usd"]), told["saved_usd"], paid) == (0, paid, "0.000070000000")
        assert second.headers["groundplan-cache"] == "exact" and second.headers["groundplan-saved-usd"] == paid
        assert "groundplan-cache" not in first.headers
        assert told["call_id"] != first.json["groundplan"]["call_id"]
        assert second.headers["groundplan-budget-remaining-usd"]
        records = await rig.records()
        finishes = [record for record in records if isinstance(record, Finish)]
        assert [(f.cache, f.status, f.saved, f.deployment) for f in finishes] == [
            ("none", "ok", 0, "one"),
            ("exact", "ok", 70_000_000, "one"),
        ]
        assert len([r for r in records if isinstance(r, Reservation)]) == 1
        assert rig.slices.open_reservations == 0 and rig.slices.spent("all", "total") == 70_000_000
        assert rig.gateway.call_counters.cache_hits == {("assistant", "exact"): 1}
        assert rig.gateway.call_counters.saved_picodollars == {"assistant": 70_000_000}


async def test_equivalent_requests_share_an_answer(tmp_path: Path) -> None:
    async with cache_rig(tmp_path) as rig:
        await rig.chat(temperature=1, metadata={"a": "b"})
        again = await rig.chat(user="somebody", temperature=1.0, n=1, max_completion_tokens=20, max_tokens=30)
        assert again.json["groundplan"]["cache"] == "exact"
        different: list[dict[str, Any]] = [
            {"temperature": 0.5},
            {"seed": 1},
            {"max_tokens": 19},
            {"n": 2},
            {"unknown": 1},
            {"tools": []},
        ]
        for more in different:
            assert (await rig.chat(**more)).json["groundplan"]["cache"] == "none", more
        assert upstream_calls(rig) == 7


async def test_workloads_share_no_answers_and_without_a_cache_none_are_stored(tmp_path: Path) -> None:
    async with cache_rig(tmp_path) as rig:
        for key in ("assistant", "other", "plain", "plain"):
            assert (await rig.chat(key)).json["groundplan"]["cache"] == "none"
        assert len(rig.gateway.answer_cache) == 2


async def test_a_stream_is_replayed_event_by_event(tmp_path: Path) -> None:
    async with cache_rig(tmp_path) as rig:
        first, second = await rig.stream(), await rig.stream()
        assert upstream_calls(rig) == 1 and second.done and second.finish == ["stop"]
        assert [c["choices"] for c in second.chunks] == [c["choices"] for c in first.chunks]
        assert second.facts["cache"] == "exact" and not any("usage" in c for c in second.chunks)
        with_usage = await rig.stream(stream_options={"include_usage": True})
        assert upstream_calls(rig) == 1 and with_usage.chunks[-1]["usage"]["completion_tokens"] > 0


async def test_a_long_stream_is_replayed_piece_by_piece(tmp_path: Path) -> None:
    most: dict[str, Any] = {"max_output_tokens": 3000}
    declared = {"assistant": {**DECLARED["assistant"], **most}}
    declared["assistant"]["cache"] = msgspec.structs.replace(CACHE, max_bytes=64 << 20)
    async with call_rig(tmp_path, ["one"], workloads=declared, more={"one": most}) as rig:
        rig.play("one", say="ab " * 2000)
        first, again = [await rig.stream(max_tokens=3000) for _ in range(2)]
        assert (again.text, again.done, again.facts["cache"]) == (first.text, True, "exact")
        assert len(again.chunks) == len(first.chunks) and not rig.gateway.streams


async def test_a_replayed_stream_is_generated_only_as_its_client_reads() -> None:
    """However many clients take one slowly: the rest of it is no further copy in memory, and a kill ends it."""
    taken, made, cut, told = asyncio.Event(), list[int](), list[bool](), list[bytes]()
    response = SimpleNamespace(
        is_write_paused=True, drain=taken.wait, abort=lambda: cut.append(True),
        write=lambda data, head: told.append(head + data), end=lambda data, head: told.append(head + data),
    )  # fmt: skip

    def parts() -> Iterator[bytes]:
        for number in range(100):
            made.append(number)
            yield b"x" * 10_000

    gateway: Any = SimpleNamespace(streams=set())
    exchange: Any = SimpleNamespace(response=response, sent_chunks=None)
    sent = asyncio.create_task(send_stream(gateway, exchange, parts(), b"head"))
    await wait_until(lambda: bool(gateway.streams))
    assert len(made) < 10
    (leaving,) = gateway.streams
    leaving.sever(None)
    taken.set()
    await sent
    assert b"".join(told) == b"head" + b"x" * 1_000_000 and cut == [True] and not gateway.streams


async def test_each_form_of_an_answer_is_made_from_the_other(tmp_path: Path) -> None:
    async with cache_rig(tmp_path) as rig:
        whole = await rig.chat()
        stream = await rig.stream()
        assert upstream_calls(rig) == 1
        assert stream.text == whole.json["choices"][0]["message"]["content"] and stream.finish == ["stop"]
        streamed = await rig.stream(seed=1)
        back = await rig.chat(seed=1)
        assert upstream_calls(rig) == 2
        assert back.json["choices"][0]["message"] == {"role": "assistant", "content": streamed.text}
        assert back.json["object"] == "chat.completion" and back.json["usage"]["completion_tokens"] > 0


def test_tool_calls_with_the_same_index_are_not_merged() -> None:
    def piece(id: str | None, arguments: str) -> bytes:
        call = {"index": 0, "id": id, "type": "function", "function": {"name": "look", "arguments": arguments}}
        return chunk({"tool_calls": [call]})

    end = chunk({}, "tool_calls", usage={"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2})
    made = CHAT_REPLAY_FORMS.to_whole([piece("c1", "{"), piece(None, "}"), piece("c1", ""), end])
    assert made is not None
    (call,) = json.loads(made)["choices"][0]["message"]["tool_calls"]
    assert (call["id"], call["function"]["arguments"]) == ("c1", "{}")
    assert CHAT_REPLAY_FORMS.to_whole([piece("c1", "{}"), piece("c2", "{}"), end]) is None


USED = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
FIRST = {"choices": [{"index": 1, "delta": {"content": "b"}, "logprobs": {"content": [1]}, "finish_reason": "stop"}]}
SECOND = {"choices": [{"index": 0, "delta": {"content": "a"}, "logprobs": {"content": [2]}}], "obfuscation": "zz"}
THIRD = {"choices": [{"index": 0, "delta": {}, "logprobs": {"content": [3]}, "finish_reason": "stop"}], "usage": USED}


def join_stream(*chunks: Any) -> Any:
    whole = CHAT_REPLAY_FORMS.to_whole([json.dumps(each).encode() for each in chunks])
    return None if whole is None else json.loads(whole)


def test_every_choice_of_a_stream_is_in_the_whole_answer() -> None:
    """In which they are in order, whichever came first, and whatever came behind what was used."""
    made = join_stream(FIRST, SECOND, THIRD, {"choices": []})
    told = [(each["message"]["content"], each["logprobs"]["content"]) for each in made["choices"]]
    assert told == [("a", [2, 3]), ("b", [1])] and made["usage"] == USED
    assert join_stream(FIRST, SECOND) is None, "what it used is not known"
    assert join_stream({"choices": [], "usage": USED}) is None, "nothing was said"


@pytest.mark.parametrize(
    "odd",
    [
        {"more": 1},
        {"choices": [{"index": 0, "more": 1}]},
        {"choices": [{"index": 0, "delta": {"more": 1}}]},
        {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "more": 1}]}}]},
        {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "function": {"more": 1}}]}}]},
    ],
)
def test_a_stream_with_unknown_fields_gives_no_whole_answer(odd: dict[str, Any]) -> None:
    assert join_stream(FIRST, odd, THIRD) is None
    assert join_stream(FIRST, json.loads(json.dumps(odd).replace(": 1}", ": null}")), THIRD) is not None


@pytest.mark.parametrize(
    ("recast", "good", "cut"),
    [
        (CHAT_REPLAY_FORMS, {"choices": [{"finish_reason": "stop"}]}, {"choices": [{"finish_reason": "length"}]}),
        (CHAT_REPLAY_FORMS, {"choices": [{"finish_reason": "stop"}]}, {"choices": [{"finish_reason": "stop"}] * 2}),
        (MESSAGES_REPLAY_FORMS, {"stop_reason": "end_turn"}, {"stop_reason": "max_tokens"}),
    ],
)
def test_a_truncated_whole_answer_is_not_cacheable(recast: ReplayForms, good: Any, cut: Any) -> None:
    assert recast.is_complete(json.dumps(good).encode(), 1) and not recast.is_complete(json.dumps(cut).encode(), 1)


DELTA = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}
CUT = {"type": "message_delta", "delta": {"stop_reason": "max_tokens"}}


@pytest.mark.parametrize(
    ("recast", "events", "good"),
    [
        (CHAT_REPLAY_FORMS, [THIRD], True),
        (CHAT_REPLAY_FORMS, [{"choices": [{"finish_reason": "length"}]}], False),
        (MESSAGES_REPLAY_FORMS, [DELTA, {"type": "message_stop"}], True),
        (MESSAGES_REPLAY_FORMS, [DELTA], False),
        (MESSAGES_REPLAY_FORMS, [CUT, {"type": "message_stop"}], False),
        (MESSAGES_REPLAY_FORMS, [{"type": "message_stop"}], False),
        (
            COMPLETIONS_REPLAY_FORMS,
            [{"choices": [{"finish_reason": None}]}, {"choices": [{"finish_reason": "stop"}]}],
            True,
        ),
        (COMPLETIONS_REPLAY_FORMS, [{"choices": [{"finish_reason": "length"}]}], False),
        (COMPLETIONS_REPLAY_FORMS, [{"choices": [{"finish_reason": None}]}], False),
    ],
)
def test_a_truncated_stream_is_not_cacheable(recast: ReplayForms, events: list[Any], good: bool) -> None:
    assert recast.is_complete_stream([json.dumps(each).encode() for each in events], 1) is good


@pytest.mark.parametrize("stream", [False, True])
async def test_concurrent_identical_calls_make_one_upstream_call(tmp_path: Path, stream: bool) -> None:
    async with cache_rig(tmp_path) as rig:
        rig.play("one", latency_ms=150)
        replies = await asyncio.gather(*(rig.chat(stream=stream) for _ in range(8)))
        assert {reply.status for reply in replies} == {200} and upstream_calls(rig) == 1
        finishes = [record for record in await rig.records() if isinstance(record, Finish)]
        assert sorted(f.cache for f in finishes) == ["exact"] * 7 + ["none"]
        assert len({f.call for f in finishes}) == 8


async def test_a_waiting_call_asks_itself_when_the_first_fails(tmp_path: Path) -> None:
    async with cache_rig(tmp_path, workloads={"assistant": {"cache": CACHE, "attempts": 1}}) as rig:
        rig.play("one", mode="error", latency_ms=100, times=1)
        replies = await asyncio.gather(*(rig.chat() for _ in range(4)))
        assert sorted(reply.status for reply in replies) == [200, 200, 200, 503]


@pytest.mark.parametrize("limited", [False, True])
async def test_waiting_calls_refused_by_the_same_budget_or_limit_fail_together(tmp_path: Path, limited: bool) -> None:
    few = [Limit(name="few", covers="workload/assistant", type="requests", amount=9, period="day")]
    async with cache_rig(tmp_path, limit=0, limits=few if limited else []) as rig:
        others = asyncio.Barrier(3)

        async def acquire(token: Any, charges: Any, declared: Any, blueprint: int = 0) -> Any:
            if not rig.grants.requested_budgets:
                rig.grants.requested_budgets.append(charges[0].budget)
                await wait_until(lambda: rig.gateway.running_calls == 4)
            else:
                await asyncio.wait_for(others.wait(), 5)  # who asks alone waits in vain
            return charges[0]

        rig.grants.acquire = acquire
        replies = await asyncio.gather(*(rig.chat() for _ in range(4)))
        assert [reply.status for reply in replies] == [429] * 4 and upstream_calls(rig) == 0


async def test_time_waiting_for_another_calls_answer_counts_towards_the_deadline(tmp_path: Path) -> None:
    declared = {"assistant": {**DECLARED["assistant"], "deadline_ms": 2000, "attempts": 1}}
    async with call_rig(tmp_path, ["one"], workloads=declared) as rig:
        rig.hold("one")
        first = asyncio.ensure_future(rig.chat())
        await wait_until(lambda: rig.models["one"].counted == 1)
        await asyncio.sleep(1.0)
        began = asyncio.get_running_loop().time()
        assert (await rig.chat()).status == 503
        assert asyncio.get_running_loop().time() - began < 2.7, "a second for the other one, and a second of its own"
        assert (await first).status == 503
        await rig.books()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_stops_waiting_for_a_stream_in_time_for_its_own_attempt(tmp_path: Path, stream: bool) -> None:
    declared = {"assistant": {**DECLARED["assistant"], "deadline_ms": 1000}}
    async with call_rig(tmp_path, ["one"], workloads=declared) as rig:
        rig.play("one", tokens=20, chunk_ms=100)
        first = asyncio.create_task(rig.stream())
        await wait_until(lambda: rig.models["one"].counted == 1)
        second = await rig.chat(stream=stream)
        assert second.status == 200 and b'"cache":"none"' in second.body
        assert (await first).done
        assert (await rig.stream()).facts["cache"] == "exact"
        await rig.books()


async def test_a_disconnecting_client_does_not_end_calls_that_share_its_answer(tmp_path: Path) -> None:
    async with cache_rig(tmp_path) as rig:
        one = rig.hold("one")
        leader = asyncio.create_task(rig.chat())
        await wait_until(lambda: upstream_calls(rig) == 1)
        follower = asyncio.create_task(rig.chat())
        other = asyncio.create_task(rig.chat())
        await wait_until(lambda: rig.gateway.running_calls == 3)
        follower.cancel()
        await wait_until(lambda: rig.gateway.running_calls == 2)
        one.release()
        assert (await leader).status == 200 and (await other).json["groundplan"]["cache"] == "exact"
        assert upstream_calls(rig) == 1


async def test_if_the_first_client_disconnects_the_next_one_asks(tmp_path: Path) -> None:
    async with cache_rig(tmp_path) as rig:
        one, leader, follower = await start_waiting_call(rig)
        leader.cancel()
        await wait_until(lambda: upstream_calls(rig) == 2)
        for _ in range(2):
            one.release()
        assert (await follower).json["groundplan"]["cache"] == "none"
        assert (await rig.chat()).json["groundplan"]["cache"] == "exact"


async def test_truncated_answers_are_not_cached_and_block_nobody(tmp_path: Path) -> None:
    async with cache_rig(tmp_path) as rig:
        rig.play("one", tokens=20)
        rig.play("two", tokens=20)
        one = rig.hold("one")
        calls = [asyncio.create_task(rig.chat(max_tokens=3)) for _ in range(5)]
        await wait_until(lambda: rig.gateway.running_calls == 5)
        one.release()
        await wait_until(lambda: upstream_calls(rig) == 5)  # all of the others at once
        for _ in range(4):
            one.release()
        replies = await asyncio.gather(*calls)
        ends = {reply.json["choices"][0]["finish_reason"] for reply in replies}
        assert ends == {"length"} and upstream_calls(rig) == 5 and len(rig.gateway.answer_cache) == 0


async def test_a_broken_stream_is_not_cached(tmp_path: Path) -> None:
    async with cache_rig(tmp_path) as rig:
        rig.play("one", mode="cut")
        assert (await rig.stream()).errors
        assert len(rig.gateway.answer_cache) == 0
        rig.play("one")
        assert (await rig.stream()).facts["cache"] == "none"


async def test_a_resumed_stream_of_two_models_is_not_cached(tmp_path: Path) -> None:
    declared = {"assistant": {"cache": CACHE, **reliability(on_broken_stream="resume")}}
    async with cache_rig(tmp_path, workloads=declared) as rig:
        rig.play("one", mode="cut")
        stream = await rig.stream()
        assert stream.done and not stream.errors and upstream_calls(rig) == 2
        assert len(rig.gateway.answer_cache) == 0
        rig.play("one")
        await rig.stream(seed=1)
        assert (await rig.stream(seed=1)).facts["cache"] == "exact"


async def test_a_cached_answer_expires(tmp_path: Path) -> None:
    async with cache_rig(tmp_path) as rig:
        await rig.chat()
        rig.gateway.clock.advance(59)
        assert (await rig.chat()).json["groundplan"]["cache"] == "exact"
        rig.gateway.clock.advance(2)
        assert (await rig.chat()).json["groundplan"]["cache"] == "none"


async def test_the_least_recently_used_answer_is_evicted_first(tmp_path: Path) -> None:
    small = {"assistant": {"cache": Cache(seconds=60, max_bytes=20_000, scope="workload")}}
    async with cache_rig(tmp_path, workloads=small) as rig:
        await rig.chat(seed=0)
        for seed in range(1, 30):
            await rig.chat(seed=seed)
            assert (await rig.chat(seed=0)).json["groundplan"]["cache"] == "exact"
            assert rig.gateway.answer_cache.size <= 20_000
        assert (await rig.chat(seed=1)).json["groundplan"]["cache"] == "none"


async def test_a_caller_may_bypass_the_cache(tmp_path: Path) -> None:
    async with cache_rig(tmp_path) as rig:
        await facts_with_cache_control(rig, "no-store")
        assert (await rig.chat()).json["groundplan"]["cache"] == "none"
        assert (await facts_with_cache_control(rig, "no-cache"))["cache"] == "none"
        assert (await rig.chat()).json["groundplan"]["cache"] == "exact"
        assert (await facts_with_cache_control(rig, "no-store"))["cache"] == "none"
        assert (await facts_with_cache_control(rig, "only-if-cached"))["cache"] == "exact"
        change_policy(rig, cleared={"assistant": 1})
        before = upstream_calls(rig)
        for directive in ("only-if-cached", "only-if-cached, no-store", "no-cache, only-if-cached"):
            assert (await facts_with_cache_control(rig, directive))["code"] == "not_cached" and upstream_calls(
                rig
            ) == before
        assert (await rig.chat()).json["groundplan"]["cache"] == "none"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_fresh_answer_replaces_the_old_one_in_every_form(tmp_path: Path, stream: bool) -> None:
    async with cache_rig(tmp_path) as rig:
        rig.play("one", say="old")
        await rig.chat(stream=not stream)
        rig.play("one", say="new")
        await send_with_cache_control(rig, "no-cache", stream=stream)
        assert upstream_calls(rig) == 2
        assert (await rig.stream()).text == "new"
        assert (await rig.chat()).json["choices"][0]["message"]["content"] == "new"
        assert upstream_calls(rig) == 2


async def test_the_newer_of_two_workers_answers_is_kept(tmp_path: Path) -> None:
    workloads = {"assistant": {"cache": CACHE, "keep": Keep(content="full", seconds=60)}}
    async with cache_rig(tmp_path, workloads=workloads) as rig:
        link, told = AnswerLink(rig.gateway, Home(tmp_path)), list[bytes]()
        link.send_frame = lambda data: not told.append(data)  # type: ignore[method-assign, func-returns-value]
        rig.play("one", say="old")
        await rig.chat(stream=True)
        rig.gateway.clock.advance(1)
        rig.play("one", say="new")
        await send_with_cache_control(rig, "no-cache")
        old, new = (msgspec.msgpack.decode(each, type=StoreMessage).kept for each in told)
        assert old is not None and new is not None and new.alone and not old.alone
        whole = msgspec.structs.replace(old, stream=False, whole=new.whole, events=None)
        for first, second in ((old, new), (whole, new), (new, whole)):
            rig.gateway.answer_cache._clear("assistant")
            assert accept_answer(rig.gateway, first)
            assert accept_answer(rig.gateway, second) is (second is new)
            assert [entry.call for entry in rig.gateway.answer_cache.entries("assistant")] == [new.call]
            assert not accept_answer(rig.gateway, new), "it is there"


async def send_with_cache_control(rig: Rig, directive: str, **more: Any) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    head = b"host: g\r\ncache-control: %b\r\n" % directive.encode()
    writer.write(rig.request(**more).replace(b"host: g\r\n", head, 1))
    data = await reader.read()
    writer.close()
    return data


async def facts_with_cache_control(rig: Rig, directive: str) -> dict[str, Any]:
    body = json.loads((await send_with_cache_control(rig, directive)).partition(b"\r\n\r\n")[2])
    facts: dict[str, Any] = body.get("groundplan") or body["error"]
    return facts


def change_policy(rig: Rig, **changes: Any) -> None:
    """Another policy, told as a worker's is."""
    policy = replace(rig.gateway.live.policy, number=rig.gateway.live.policy.number + 1, **changes)
    rig.gateway.live.policy = policy  # type: ignore[misc]
    rig.gateway.answer_cache.apply_policy(policy)


@pytest.mark.parametrize("scope", ["deployment/one", "site/site-one", "workload/assistant", "company"])
async def test_a_killed_workloads_answers_stay_deleted_after_the_kill_is_lifted(tmp_path: Path, scope: str) -> None:
    async with cache_rig(tmp_path) as rig:
        await rig.chat()
        change_policy(rig, kills=frozenset({"deployment/two"}))
        assert (await rig.chat()).json["groundplan"]["cache"] == "exact"
        change_policy(rig, kills=frozenset({scope}))
        assert len(rig.gateway.answer_cache) == 0
        change_policy(rig, kills=frozenset())
        assert (await rig.chat()).json["groundplan"]["cache"] == "none"


async def test_a_kill_during_the_call_keeps_its_answer_out_of_the_cache(tmp_path: Path) -> None:
    async with cache_rig(tmp_path) as rig:
        one = rig.hold("one")
        call = asyncio.create_task(rig.chat())
        await wait_until(lambda: upstream_calls(rig) == 1)
        change_policy(rig, kills=frozenset({"site/site-one"}))
        one.release()
        assert (await call).status == 200
        assert len(rig.gateway.answer_cache) == 0


async def test_a_waiting_call_is_refused_when_its_key_is_revoked_meanwhile(tmp_path: Path) -> None:
    async with cache_rig(tmp_path) as rig:
        one, leader, follower = await start_waiting_call(rig)
        keys = {digest: replace(key, revoked=True) for digest, key in rig.gateway.live.policy.keys.items()}
        change_policy(rig, keys=keys)
        one.release()
        assert (await follower).code == "key_revoked" and (await leader).status == 200


async def test_a_waiting_call_does_not_get_an_answer_cleared_meanwhile(tmp_path: Path) -> None:
    async with cache_rig(tmp_path) as rig:
        one, leader, follower = await start_waiting_call(rig)
        change_policy(rig, cleared={"assistant": 1})
        for _ in range(2):
            one.release()
        assert (await leader).status == 200
        assert (await follower).json["groundplan"]["cache"] == "none" and upstream_calls(rig) == 2
        assert (await rig.chat()).json["groundplan"]["cache"] == "exact"


async def test_cleared_answers_are_not_found(tmp_path: Path) -> None:
    async with cache_rig(tmp_path) as rig:
        await rig.chat()
        await rig.chat("other")
        change_policy(rig, cleared={"assistant": 1})
        assert (await rig.chat()).json["groundplan"]["cache"] == "none"
        assert (await rig.chat("other")).json["groundplan"]["cache"] == "exact"


async def test_a_changed_blueprint_of_the_workload_finds_no_old_answers(tmp_path: Path) -> None:
    async with cache_rig(tmp_path) as rig:
        await rig.chat()
        view: Any = rig.gateway.live
        old = view.catalog.blueprint
        view.catalog = index(msgspec.structs.replace(old, number=2))
        assert (await rig.chat()).json["groundplan"]["cache"] == "exact"
        changed = [msgspec.structs.replace(w, system_prompt="Be brief.") for w in old.workloads]
        view.catalog = index(msgspec.structs.replace(old, number=3, workloads=changed))
        assert (await rig.chat()).json["groundplan"]["cache"] == "none"
        assert len(rig.gateway.answer_cache) == 1


async def test_cached_answers_survive_the_start_of_a_dated_price(tmp_path: Path) -> None:
    """It begins in the worker, before a blueprint says so; what an answer says does not depend on what it cost."""
    async with cache_rig(tmp_path, more={"one": {"rates": DATED}}) as rig:
        clock: Any = rig.gateway.clock
        clock.set_now(MIDNIGHT - timedelta(seconds=1))
        await rig.chat()
        clock.set_now(MIDNIGHT)
        assert (await rig.chat()).json["groundplan"]["cache"] == "exact"
        asked = [(await rig.chat(n=2)).json["groundplan"]["cache"] for _ in range(2)]
        assert asked == ["none", "exact"]


async def test_an_exhausted_budget_still_serves_cached_answers(tmp_path: Path) -> None:
    async with cache_rig(tmp_path, limit=BOUND) as rig:
        rig.play("one", tokens=15)
        assert (await rig.chat()).status == 200
        assert (await rig.chat(seed=1)).status == 429
        assert (await rig.chat()).json["groundplan"]["cache"] == "exact"


async def test_a_full_journal_refuses_cached_answers(tmp_path: Path) -> None:
    async with cache_rig(tmp_path) as rig:
        await rig.chat()
        rig.gateway.journal._seal("for the test")
        assert (await rig.chat()).status == 503


@given(
    read=st.integers(0, 5000), rest=st.integers(0, 5000), output=st.integers(0, 500), rate=st.integers(0, 10**12),
    long_above=st.integers(0, 6000),
)  # fmt: skip
def test_savings_of_a_provider_cache_are_the_price_difference_of_its_tokens(
    read: int, rest: int, output: int, rate: int, long_above: int
) -> None:
    long = Rates(input=2 * 10**12, output=4 * 10**12, cache_read=rate)
    rates = Rates(input=10**12, output=2 * 10**12, cache_read=rate, long_above=long_above, long=long)
    usage = Usage(input=read + rest, output=output, cache_read=read)
    saved = price.cache_savings(rates, usage)
    each = 2 * 10**12 if read + rest > long_above else 10**12
    assert abs(saved * 10**6 - read * (each - rate)) < 10**6
    assert price.cost(rates, usage) + saved == price.cost(rates, msgspec.structs.replace(usage, cache_read=0))


async def test_a_hit_counts_as_a_request_and_uses_no_tokens(tmp_path: Path) -> None:
    async with cache_rig(tmp_path) as rig:
        rig.play("one", tokens=7)
        view: Any = rig.gateway.live
        limits = [
            Limit(name=name, covers="workload/assistant", type=type, amount=amount, period=period)
            for name, type, amount, period in (
                ("few", "requests", 3, "day"), ("words", "tokens", 10_000, "day"), ("once", "concurrent", 1, "now"),
            )
        ]  # fmt: skip
        view.catalog = index(msgspec.structs.replace(view.catalog.blueprint, limits=limits))
        quotas = view.catalog.limits.caller_quotas(view.catalog.plans["assistant"].workload, "", "", {}).quotas
        now, counters = rig.gateway.clock.now().timestamp(), rig.gateway.limit_slices
        periods = {quota.type: current_key(quota.period, "", "UTC", now) for quota in quotas}
        names = {quota.type: quota.name for quota in quotas}
        for quota in quotas:
            counters.add_grant(quota.name, periods[quota.type], quota.limit)
        first, second, third = [await rig.chat() for _ in range(3)]
        assert [r.json["groundplan"]["cache"] for r in (first, second, third)] == ["none", "exact", "exact"]
        assert third.headers["x-ratelimit-limit-requests"] == "3"
        used = {type: counters.spent(names[type], periods[type]) for type in names}
        assert used["requests"] == 3 and used["concurrent"] == 0
        assert used["tokens"] == first.json["usage"]["total_tokens"]
        assert (await rig.chat()).code == "rate_limit_exceeded"
        assert counters.open_reservations == 0

        async def lend(token: Any, charges: Any, *_: Any) -> Any:
            change_policy(rig, cleared={"assistant": 1})
            for charge in charges:
                counters.add_grant(charge.budget, charge.period, charge.amount)
            return counters.reserve(token, charges)

        rig.grants.acquire = lend
        assert (await rig.chat()).json["groundplan"]["cache"] == "none", "it was cleared while its limit was waited for"
        assert (counters.spent(names["requests"], periods["requests"]), counters.open_reservations) == (4, 0)


async def test_tokens_read_from_a_provider_cache_are_reported_as_saved(tmp_path: Path) -> None:
    rates = Rates(input=10**12, output=10 * 10**12, cache_read=10**11)
    async with cache_rig(tmp_path, more={"one": {"rates": rates}}) as rig:
        rig.play("one", tokens=5, cache_read=40)
        await rig.chat("plain")
        rig.play("one", tokens=5)
        await rig.chat("plain")
        read, nothing = await rig.settlements()
        assert read.usage.cache_read == 40 and (read.saved, nothing.saved) == (40 * 900_000, 0)


class Newest:
    """Finds the answer that was asked for longest ago, unless a seed is given."""

    async def __call__(self, exchange: Exchange, entries: Iterator[Entry]) -> Entry | None:
        assert exchange.ask is not None
        return None if "seed" in exchange.ask.fields else next(entries, None)

    def record_hit(self, entry: Entry) -> None:
        assert entry.workload == "assistant"

    def record_answer(self, entry: Entry, exchange: Exchange) -> None:  # noqa: ARG002 -- the protocol's signature
        raise AssertionError("nothing was looked up")


@pytest.mark.parametrize("declared", [{"cache": CACHE, "guardrails": Guardrails(deny_output=["forbidden"])}, {}])
async def test_the_cache_is_unused_beside_guardrails_and_only_if_cached_is_refused_without_one(
    tmp_path: Path, declared: dict[str, Any]
) -> None:
    async with cache_rig(tmp_path, workloads={"assistant": declared}) as rig:
        found = [(await rig.chat()).json["groundplan"]["cache"] for _ in range(3)]
        assert found == ["none"] * 3 and upstream_calls(rig) == 3 and len(rig.gateway.answer_cache) == 0
        assert (await facts_with_cache_control(rig, "only-if-cached"))["code"] == "not_cached" and upstream_calls(
            rig
        ) == 3
        assert (
            (await facts_with_cache_control(rig, "no-cache"))["cache"]
            == (await facts_with_cache_control(rig, "max-age=9"))["cache"]
            == "none"
        )


async def test_semantic_matching_follows_an_exact_miss(tmp_path: Path) -> None:
    similar = Cache(seconds=60, max_bytes=1 << 20, scope="workload", semantic=Semantic())
    async with cache_rig(tmp_path, workloads={"assistant": {"cache": similar}, "exactly": {"cache": CACHE}}) as rig:
        rig.gateway.answer_cache.similar = Newest()
        assert (await rig.chat()).json["groundplan"]["cache"] == "none"
        meant = await rig.chat(temperature=0.1)
        assert meant.json["groundplan"]["cache"] == meant.headers["groundplan-cache"] == "semantic"
        assert meant.headers["groundplan-saved-usd"] == meant.json["groundplan"]["saved_usd"]
        assert (await rig.chat(seed=1)).json["groundplan"]["cache"] == "none"
        assert (await rig.chat("exactly")).json["groundplan"]["cache"] == "none"
        assert (await rig.chat("exactly", temperature=0.1)).json["groundplan"]["cache"] == "none"
        change_policy(rig, kills=frozenset({"deployment/one"}))
        assert (await rig.chat(temperature=0.2)).json["groundplan"]["deployment"] == "two"


async def test_a_key_that_may_not_use_the_deployment_of_an_answer_does_not_get_it(tmp_path: Path) -> None:
    async with cache_rig(tmp_path) as rig:
        assert (await rig.chat()).headers["groundplan-deployment"] == "one"
        (entry,) = (each for each in rig.gateway.live.policy.keys.values() if each.workload == "assistant")
        other = replace(entry, id="other", models=frozenset({"two"}))
        change_policy(rig, keys={**rig.gateway.live.policy.keys, hashlib.sha256(b"narrow").digest(): other})
        assert (await rig.chat()).json["groundplan"]["cache"] == "exact"
        for expected in ("none", "exact"):
            reply = await rig.chat("narrow")
            assert (reply.json["groundplan"]["cache"], reply.headers["groundplan-deployment"]) == (expected, "two")
