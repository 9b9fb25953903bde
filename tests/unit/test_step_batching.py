"""Calls that come together take each step together; who waits for others is looked at again, and may go away."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.unit.call_rig import LIMIT, FixedPolicy, Rig, call_rig

from groundplan.core.errors import Unauthenticated
from groundplan.core.ids import new_id, new_id_bytes
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.call.pipeline import Pipeline
from groundplan.gateway.call.step_batching import BATCH_CALLS, BATCH_HOLD_NS, BATCH_WINDOW_NS, StepBatching
from groundplan.gateway.call.steps import run_steps
from groundplan.gateway.http.collected_response import CollectedResponse
from groundplan.gateway.http.server import Request
from groundplan.gateway.policy.catalog import Catalog
from groundplan.gateway.policy.snapshot import KeyEntry, Policy
from groundplan.gateway.surfaces.chat.surface import CHAT
from groundplan.ledger.model import Finish

TURNS = (1, 2, 3)
"""Of the loop in which a call waits for others: whose it is, what it asks and what it takes is known then."""


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with call_rig(tmp_path) as made:
        made.gateway.step_batching._until = sys.maxsize
        yield made


def asked() -> Request:
    body = json.dumps({"model": "auto", "messages": [{"role": "user", "content": "a b c"}], "max_tokens": 20}).encode()
    headers = {b"authorization": b"Bearer assistant", b"content-type": b"application/json"}
    return Request(0.0, b"POST", b"/v1/chat/completions", headers, body)


def waits(batching: StepBatching) -> bool:
    return bool(list(batching.__await__()))


def test_a_call_waits_briefly_when_several_begin_together() -> None:
    batching, at = StepBatching(), 10**12
    for number in range(BATCH_CALLS):
        batching.note_begin(at + number)
        assert waits(batching) is (number == BATCH_CALLS - 1)
    batching.note_begin(at + BATCH_HOLD_NS)
    assert waits(batching), "others came a moment ago, so more may follow"
    batching.note_begin(at + 2 * BATCH_HOLD_NS)
    assert not waits(batching)


def test_a_lone_call_does_not_wait() -> None:
    batching = StepBatching()
    for number in range(100):
        batching.note_begin(number * BATCH_WINDOW_NS)
        assert not waits(batching)


async def test_concurrent_calls_take_each_step_together(rig: Rig) -> None:
    calls = [Exchange(new_id_bytes(), asked(), CollectedResponse(), CHAT) for _ in range(BATCH_CALLS - 1)]
    tasks = [asyncio.create_task(run_steps(rig.gateway, call)) for call in calls]
    for _ in TURNS:
        await asyncio.sleep(0)
        told = [([name for name, _ in call.steps], call.reservation is not None, call.attempt_count) for call in calls]
        assert told == [told[0]] * len(calls)
    assert told[0] == (["identify", "cache"], True, 0)
    await asyncio.gather(*tasks)
    assert [call.response.ended for call in calls] == [True] * len(calls)
    await rig.books()


class Counting(FixedPolicy):
    """Who had a call admitted."""

    def __init__(self, policy: Policy, catalog: Catalog | None) -> None:
        super().__init__(policy, catalog)
        self.had: set[str] = set()

    def people(self, workload: str) -> frozenset[str]:  # noqa: ARG002 -- the protocol's signature
        return frozenset(self.had)

    def record_person(self, workload: str, person: str) -> None:  # noqa: ARG002 -- the protocol's signature
        self.had.add(person)


async def test_concurrent_new_people_do_not_exceed_the_workloads_number_of_people(tmp_path: Path) -> None:
    async with call_rig(tmp_path, workloads={"assistant": {"people": 1}}) as rig:
        rig.gateway.step_batching._until = sys.maxsize
        people = [str(new_id()) for _ in range(BATCH_CALLS - 1)]
        keys = {
            hashlib.sha256(one.encode()).digest(): KeyEntry(one, "assistant", one, False, False, None) for one in people
        }
        policy = Policy(2, keys, {}, frozenset(people), frozenset())
        rig.gateway.live = Counting(policy, rig.gateway.live.catalog)
        replies = await asyncio.gather(*(rig.chat(one) for one in people))
        assert sorted(reply.status for reply in replies) == [200, 429, 429]


@pytest.mark.parametrize("turns", TURNS)
async def test_a_key_revoked_while_its_call_waits_for_others_is_refused(rig: Rig, turns: int) -> None:
    live, call = rig.gateway.live, Exchange(new_id_bytes(), asked(), CollectedResponse(), CHAT)
    task = asyncio.create_task(run_steps(rig.gateway, call))
    for _ in range(turns):
        await asyncio.sleep(0)
    live.policy = dataclasses.replace(live.policy, keys={})  # type: ignore[misc]  # a fixed one
    with pytest.raises(Unauthenticated):
        await task
    assert (call.attempt_count, rig.models["one"].counted) == (0, 0)


@pytest.mark.parametrize("turns", TURNS)
async def test_a_client_disconnecting_while_its_call_waits_leaves_nothing_open(rig: Rig, turns: int) -> None:
    task = asyncio.ensure_future(Pipeline(rig.gateway).handle(asked(), CollectedResponse()))
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (rig.gateway.running_calls, rig.slices.open_reservations, rig.slices.available("all", "total")) == (
        0,
        0,
        LIMIT,
    )
    (finish,) = await rig.records()
    assert isinstance(finish, Finish) and (finish.status, finish.http_status) == ("cancelled", 499)
    assert rig.models["one"].counted == 0


async def test_a_client_disconnecting_while_its_answer_waits_is_charged_the_actual_cost(rig: Rig) -> None:
    rig.play("one", tokens=7)
    call = Exchange(new_id_bytes(), asked(), CollectedResponse(), CHAT)
    task = asyncio.create_task(Pipeline(rig.gateway).run_call(call, run_steps))
    while not call.attempt_answered:  # noqa: ASYNC110 -- to be there in that very turn of the loop
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (call.response.ended, call.cost, call.usage.output) == (False, 70_000_000, 7)
    assert rig.gateway.loads.of(call.deployments[0]).running == 0
    await rig.books()
