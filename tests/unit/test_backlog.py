"""Calls that arrive in larger numbers than a worker can begin at once: who begins when, and who is refused."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.call_rig import call_rig, reliability, wait_until

from groundplan.core.errors import Unavailable
from groundplan.gateway.call import serve
from groundplan.gateway.call.attempts.sequence import AttemptSequence
from groundplan.gateway.upstream import backlog as module
from groundplan.gateway.upstream.backlog import BEGIN_AT_ONCE, BEGIN_PER_TURN, MAX_WAIT_SECONDS, Backlog
from groundplan.gateway.upstream.pressure import RANKS, Pressure

WORKLOADS = {"vital": reliability(priority="critical"), "bulk": reliability(priority="low")}


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=400))
def test_each_begins_once_in_its_turn_the_more_important_first(calls: list[tuple[int, bool]]) -> None:
    """`calls`: the rank of each, and whether its client leaves before it begins."""

    async def run() -> list[list[int]]:
        turns, backlog = list[list[int]](), Backlog(asyncio.get_running_loop())
        begun = defaultdict[int, list[int]](list)

        async def call(number: int, rank: int) -> None:
            assert await backlog.wait(rank)
            begun[0].append(number)

        tasks = [asyncio.ensure_future(call(number, rank)) for number, (rank, _) in enumerate(calls)]
        leaving = [task for task, (_, leaves) in zip(tasks, calls, strict=True) if leaves]
        asyncio.get_running_loop().call_soon(lambda: [task.cancel() for task in leaving])
        while not all(task.done() for task in tasks):
            await asyncio.sleep(0)
            turns.append(begun.pop(0, []))
        assert backlog.waiting == 0 and backlog.limit == BEGIN_AT_ONCE, "the next call waits for nobody"
        return turns

    turns = asyncio.run(run())
    order = [number for turn in turns for number in turn]
    staying = [number for number, (_, leaves) in enumerate(calls) if not leaves]
    assert all(len(turn) <= BEGIN_PER_TURN for turn in turns)
    assert order == sorted(staying, key=lambda number: calls[number][0])


async def test_who_has_waited_too_long_is_refused_by_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BEGIN_PER_TURN", 2)
    loop, now = asyncio.get_running_loop(), [0.0]
    watched: Any = SimpleNamespace(time=lambda: now[0], create_future=loop.create_future, call_soon=loop.call_soon)
    backlog = Backlog(watched)
    waiting = {rank: [asyncio.ensure_future(backlog.wait(rank)) for _ in range(3)] for rank in range(4)}
    await asyncio.sleep(0)
    now[0] = MAX_WAIT_SECONDS[2] + 0.1
    found = {rank: await asyncio.gather(*calls) for rank, calls in waiting.items()}
    assert found == {0: [True] * 3, 1: [True] * 3, 2: [False] * 3, 3: [False] * 3}
    assert backlog.waiting == 0


async def test_the_less_important_are_refused_in_time_while_the_more_important_take_every_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "BEGIN_PER_TURN", 2)
    now, turns = [0.0], list[Any]()
    loop = asyncio.get_running_loop()
    watched: Any = SimpleNamespace(time=lambda: now[0], create_future=loop.create_future, call_soon=turns.append)
    backlog = Backlog(watched)

    def arrive(rank: int, calls: int) -> list[asyncio.Task[bool]]:
        return [asyncio.ensure_future(backlog.wait(rank)) for _ in range(calls)]

    important, low = arrive(0, 2), arrive(3, 2)
    await asyncio.sleep(0)  # all wait
    while now[0] <= MAX_WAIT_SECONDS[3]:
        now[0] += 0.1
        important += arrive(0, 2)
        await asyncio.sleep(0)
        turns.pop()()
    await asyncio.sleep(0)
    assert [call.done() and not call.result() for call in low] == [True] * 2, "they wait for as long as others come"
    while turns:
        turns.pop()()
    assert all(await asyncio.gather(*important)) and backlog.waiting == 0


async def test_a_call_does_not_begin_after_its_deadline(tmp_path: Path) -> None:
    workloads = {"vital": WORKLOADS["vital"] | {"deadline_ms": 50}}
    async with call_rig(tmp_path, workloads=workloads) as rig:
        backlog = rig.gateway.pressure.backlog
        backlog.limit, backlog.waiting = -1, 1  # somebody who is not let in yet
        call = asyncio.ensure_future(rig.chat("vital"))
        await wait_until(lambda: backlog.waiting == 2)
        await asyncio.sleep(0.06)
        backlog._begin_some()
        reply = await call
        assert (reply.status, reply.code, backlog.refused) == (503, "overloaded", 1)
        assert not any(model.counted for model in rig.models.values())


async def test_the_wait_to_begin_is_part_of_a_calls_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = list[float]()

    class Noting(AttemptSequence):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            left.append(self.remaining_seconds)

    monkeypatch.setattr(serve, "AttemptSequence", Noting)
    async with call_rig(tmp_path, workloads={"vital": WORKLOADS["vital"] | {"deadline_ms": 20_000}}) as rig:
        backlog = rig.gateway.pressure.backlog
        backlog.limit, backlog.waiting = -1, 1
        call = asyncio.ensure_future(rig.chat("vital"))
        await wait_until(lambda: backlog.waiting == 2)
        await asyncio.sleep(0.2)
        backlog._begin_some()
        assert (await call).status == 200 and left[0] < 19.81
        await rig.books()


async def test_work_that_is_made_later_is_not_counted_as_refused() -> None:
    pressure = Pressure(asyncio.get_running_loop(), 100)
    with pytest.raises(Unavailable):
        pressure.check("low", 101, counts=False)
    assert pressure.refused_calls == 0


async def test_only_more_calls_than_a_worker_can_begin_wait() -> None:
    pressure = Pressure(asyncio.get_running_loop())
    assert not any(pressure.count_call(1) for _ in range(BEGIN_AT_ONCE))
    assert pressure.count_call(1) and not pressure.is_crowded(1)
    waits = asyncio.ensure_future(pressure.wait_to_begin("normal", 1))
    await asyncio.sleep(0)
    assert pressure.is_crowded(1), "background work makes room"
    pressure.backlog.start_interval()
    assert pressure.count_call(1), "while others wait, nobody begins before them"
    assert await waits
    pressure.backlog.start_interval()
    assert not pressure.count_call(1)
    assert pressure.count_call(pressure.max_running), "too many run"
    assert not await pressure.wait_to_begin("critical", 1), "and may begin at once where that is all"


@pytest.mark.parametrize(("refused", "begun"), [(10, 64), (200, 200), (5000, 512)])
async def test_as_many_begin_in_a_turn_as_are_refused_in_it(refused: int, begun: int) -> None:
    """Where each turn refuses many it is long, and with few that begin in it ever more would be refused."""
    pressure = Pressure(asyncio.get_running_loop(), 100)
    waiting = [asyncio.ensure_future(pressure.backlog.wait(2)) for _ in range(700)]
    await asyncio.sleep(0)  # all wait
    for _ in range(refused):
        with pytest.raises(Unavailable):
            pressure.check("critical", 101)
    await asyncio.sleep(0)
    assert len(waiting) - pressure.backlog.waiting == begun
    assert all(await asyncio.gather(*waiting)) and pressure.refused_calls == refused


async def test_a_refused_wait_is_an_overload(monkeypatch: pytest.MonkeyPatch) -> None:
    pressure = Pressure(asyncio.get_running_loop())
    pressure.backlog.limit = -1
    pressure.count_call(1)
    monkeypatch.setattr(module, "MAX_WAIT_SECONDS", (-1.0,) * 4)
    with pytest.raises(Unavailable) as caught:
        await pressure.wait_to_begin("low", 1)
    assert caught.value.code == "overloaded" and (caught.value.retry_after or 0) >= 1
    assert pressure.refused_calls == 1 and pressure.backlog.waiting == 0


async def test_a_burst_of_calls_is_answered_the_critical_before_the_low(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BEGIN_PER_TURN", 1)
    async with call_rig(tmp_path, workloads=WORKLOADS) as rig:
        begun = list[str]()
        rig.gateway.pressure.backlog.limit = -1

        async def ask(workload: str) -> int:
            reply = await rig.chat(workload)
            begun.append(workload)
            return reply.status

        calls = [asyncio.ensure_future(ask(name)) for name in ["bulk"] * 10 + ["vital"] * 10]
        assert await asyncio.gather(*calls) == [200] * 20
        assert begun.index("vital") < 5 and begun[-5:] == ["bulk"] * 5
        assert rig.gateway.pressure.backlog.limit >= BEGIN_AT_ONCE
        await rig.books()


async def test_a_key_that_is_revoked_while_its_call_waits_is_refused(tmp_path: Path) -> None:
    async with call_rig(tmp_path, workloads=WORKLOADS) as rig:
        gateway = rig.gateway
        gateway.pressure.backlog.limit = -1
        gateway.pressure.backlog.waiting = 1  # somebody who is not let in yet
        call = asyncio.ensure_future(rig.chat("bulk"))
        await wait_until(lambda: gateway.pressure.backlog.waiting == 2)
        live: Any = gateway.live
        keys = {digest: replace(key, revoked=True) for digest, key in live.policy.keys.items()}
        live.policy = replace(live.policy, keys=keys)
        gateway.pressure.backlog._begin_some()
        reply = await call
        assert (reply.status, reply.code) == (401, "key_revoked")


def test_the_less_important_wait_less() -> None:
    assert len(MAX_WAIT_SECONDS) == len(RANKS)
    assert list(MAX_WAIT_SECONDS) == sorted(MAX_WAIT_SECONDS, reverse=True)
