"""Limits on what runs at a deployment, and who is refused first when there is no room for all."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.integration.gateway_stack import deployment
from tests.unit.call_rig import HANDSHAKE, Rig, call_rig, reliability, wait_until

from groundplan.blueprint.model import Limit
from groundplan.core.errors import Unavailable
from groundplan.gateway.call.pipeline import body_memory_share
from groundplan.gateway.http.collected_response import CollectedResponse
from groundplan.gateway.http.server import Request
from groundplan.gateway.surfaces.realtime.conversation import Session
from groundplan.gateway.upstream.pressure import (
    FORGET_SECONDS,
    HOLD_SECONDS,
    LATE_TICKS,
    MAX_QUEUED,
    MIN_LIMIT,
    RANKS,
    DeploymentLoad,
    DeploymentLoads,
    Pressure,
)

ONE, TWO = deployment("a", 1, concurrent=1), deployment("b", 2, concurrent=1)


def run(load: DeploymentLoad, count: int) -> None:
    load.running += count


def test_without_signs_of_overload_only_the_declared_limit_holds() -> None:
    load = DeploymentLoad()
    for _ in range(1000):
        run(load, 1)
        load.record_end(1.0, 10_000, False)
    run(load, 500)
    assert load.max_running is None and load.has_room
    load.declared = 500
    assert not load.has_room


def test_overload_takes_a_third_of_what_runs_once_a_round_and_answers_give_it_back() -> None:
    load = DeploymentLoad()
    run(load, 100)
    load.record_end(1.0, 0, True)
    assert load.max_running == pytest.approx(70)
    load.record_end(1.0 + HOLD_SECONDS / 2, 0, True)
    assert load.max_running == pytest.approx(70), "those were sent before the decrease"
    load.record_end(1.0 + HOLD_SECONDS, 0, True)
    assert load.max_running == pytest.approx(49)
    for declared, most in ((30, 30), (60, 49), (None, 49)):
        load.declared = declared
        assert load.max_running == pytest.approx(most), "never more than is declared"
    for n in range(1, 30):
        load.record_end(1.0 + n, 0, True)
    assert load.max_running == MIN_LIMIT, "an outage is the breaker's"
    load.running = 0
    for _ in range(70):
        run(load, max(0, int(load.max_running or 0) - load.running))
        load.record_end(30.5, 10_000, False)
    assert load.max_running == pytest.approx(70, abs=1), "quickly to where it first fell"
    for _ in range(70):
        run(load, max(0, int(load.max_running or 0) - load.running))
        load.record_end(30.5, 10_000, False)
    assert load.max_running == pytest.approx(71, abs=1), "from there by one a round"


def test_calls_that_end_without_an_answer_give_nothing_back() -> None:
    """As those that hang at a deployment that is overloaded, until nobody waits for them any more."""
    load = DeploymentLoad()
    run(load, 100)
    load.record_end(1.0, 0, True)
    for _ in range(40):
        run(load, max(0, int(load.max_running or 0) - load.running))
        load.record_end(2.0, 0, False)
    assert load.max_running == pytest.approx(70)


def test_a_refusal_of_a_few_calls_says_nothing_of_how_many_may_run() -> None:
    """As of a minute's requests that were used up: two hundred a moment later are none too many for it."""
    load = DeploymentLoad()
    run(load, int(MIN_LIMIT))
    load.record_end(1.0, 0, True)
    assert load.max_running is None
    run(load, 97)
    load.record_end(2.0, 0, True)
    assert load.max_running == pytest.approx(70)
    load.running = int(MIN_LIMIT)
    load.record_end(3.0, 0, True)
    assert load.max_running == pytest.approx(70)


def test_the_learned_limit_is_forgotten_after_a_quiet_time() -> None:
    load = DeploymentLoad()
    run(load, 10)
    load.record_end(1.0, 0, True)
    load.record_end(1.1 + FORGET_SECONDS, 5, False)
    assert load.max_running is None


def test_a_deployment_that_becomes_much_slower_under_load_gets_less() -> None:
    load = DeploymentLoad()
    run(load, 20)
    for n in range(400):
        run(load, 1)
        load.record_end(n / 100, 50_000, False)
    assert load.max_running is None
    for n in range(60):
        run(load, 1)
        load.record_end(10 + n / 100, 400_000, False)
    assert load.max_running is None, "answers differ in length"
    for n in range(60):
        run(load, 1)
        load.record_end(20 + n / 100, 2_000_000, False)
    assert load.max_running is not None and load.max_running < 20


async def test_another_model_in_the_place_of_a_quick_one_is_not_slow_for_it() -> None:
    """It had four calls at a time for minutes, until it was known how slow it always is."""
    loads = DeploymentLoads(asyncio.get_running_loop())
    load = loads.of(deployment("c", 3))
    run(load, 20)
    for n in range(400):
        run(load, 1)
        load.record_end(n / 100, 50_000, False)
    run(load, 1)
    load.record_end(4.0, 0, True)
    assert not load.has_room
    waiting = asyncio.ensure_future(loads.wait_for_room([deployment("c", 3)], "normal", 2.0))
    await asyncio.sleep(0)
    loads.of(deployment("gone", 3))
    loads.forget(["c", "new", "gone"])
    assert (await waiting).name == "c" and load.max_running is None and load.running == 20
    assert set(loads.limits()) == {"c"}, "names come and go for years"
    for n in range(200):
        run(load, 1)
        load.record_end(10 + n / 100, 2_000_000, False)
    assert load.max_running is None


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 200), st.floats(0, 2)), max_size=200))
def test_at_least_one_call_may_always_run_some_time(story: list[tuple[bool, int, float]]) -> None:
    load, now = DeploymentLoad(), 0.0
    for overload, running, passed in story:
        now += passed
        load.running = running + 1
        load.record_end(now, 1000, overload)
        load.running = 0
        assert load.has_room


# the queue -----------------------------------------------------------------------------------------------------------


async def waits(loads: DeploymentLoads, priority: str, seconds: float = 2.0) -> str:
    try:
        found = await loads.wait_for_room([ONE, TWO], priority, seconds)
    except Unavailable as error:
        return error.code
    loads.of(found).running += 1
    return f"{priority} {found.name}"


async def test_places_go_to_the_most_important_first_then_to_the_longest_waiting() -> None:
    loads = DeploymentLoads(asyncio.get_running_loop())
    load = loads.of(ONE)
    load.running = 1
    loads.of(TWO).running = 1
    order: list[str] = []
    names = ["low", "normal", "critical", "normal", "high"]

    async def one(number: int, name: str) -> None:
        await waits(loads, name)
        order.append(f"{name}{number}")

    tasks = []
    for number, name in enumerate(names):
        tasks.append(asyncio.ensure_future(one(number, name)))
        await asyncio.sleep(0)
    for _ in names:
        loads.record_end(load, 100, False)
        await asyncio.sleep(0.001)
    await asyncio.gather(*tasks)
    assert order == ["critical2", "high4", "normal1", "normal3", "low0"]


async def test_whoever_has_just_left_is_given_no_place() -> None:
    """Its client went away in the same turn of the loop, and its task has not heard of it yet: the place goes to the
    next, and whoever gives it back hears nothing of it."""
    loads = DeploymentLoads(asyncio.get_running_loop())
    loads.of(ONE).running = loads.of(TWO).running = 1
    gone, after = (asyncio.ensure_future(waits(loads, "normal")) for _ in range(2))
    await asyncio.sleep(0)
    gone.cancel()
    loads.record_end(loads.of(ONE), 100, False)
    assert await after == "normal a" and loads.of(ONE).running == 1 and loads.queued_calls == 0


async def test_whoever_has_just_left_makes_way_for_others() -> None:
    loads = DeploymentLoads(asyncio.get_running_loop())
    loads.of(ONE).running = loads.of(TWO).running = 1
    low = [asyncio.ensure_future(waits(loads, "low")) for _ in range(MAX_QUEUED)]
    await asyncio.sleep(0)
    low[-1].cancel()
    high = loads.wait_for_room([ONE, TWO], "high", 2.0)
    assert high.send(None) is not None and loads.queued_calls == MAX_QUEUED, "it waits"
    high.close()
    for each in low:
        each.cancel()
    await asyncio.wait(low)


async def test_a_full_queue_lets_go_of_the_least_important() -> None:
    loads = DeploymentLoads(asyncio.get_running_loop())
    loads.of(ONE).running = loads.of(TWO).running = 1
    low = [asyncio.ensure_future(waits(loads, "low")) for _ in range(MAX_QUEUED)]
    await asyncio.sleep(0)
    assert await waits(loads, "low") == "overloaded", "nobody makes way for an equal"
    high = asyncio.ensure_future(waits(loads, "high"))
    await asyncio.sleep(0.01)
    assert loads.queued_calls == MAX_QUEUED
    assert [task.done() and task.result() for task in low].count("overloaded") == 1
    loads.record_end(loads.of(TWO), 1, False)
    assert await high == "high b"
    for task in low:
        task.cancel()
    await asyncio.gather(*low, return_exceptions=True)
    assert loads.queued_calls == 0


async def test_who_waits_for_another_deployment_takes_nobodys_place() -> None:
    loads = DeploymentLoads(asyncio.get_running_loop())
    loads.of(ONE).running = loads.of(TWO).running = 1
    crowd = [asyncio.ensure_future(loads.wait_for_room([ONE], "normal", 20)) for _ in range(MAX_QUEUED)]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable):
        await loads.wait_for_room([ONE], "normal", 20)
    other = asyncio.ensure_future(loads.wait_for_room([TWO], "low", 20))
    await asyncio.sleep(0)
    assert not other.done() and loads.queued_calls == MAX_QUEUED + 1
    loads.record_end(loads.of(TWO), 1, False)
    assert await other is TWO
    for each in crowd:
        each.cancel()
    await asyncio.gather(*crowd, return_exceptions=True)
    assert loads.queued_calls == 0


async def test_no_more_run_at_a_deployment_than_may_while_a_limit_is_waited_for(tmp_path: Path) -> None:
    limit = Limit(name="rate", covers="deployment/one", type="requests", amount=1000, period="hour")
    async with call_rig(tmp_path, ["one"], more={"one": {"concurrent": 2}}, limits=[limit]) as rig:
        granted, counters = asyncio.Event(), rig.gateway.limit_slices

        async def acquire(token: Any, charges: Any, declared: Any, blueprint: int = 0) -> Any:
            await granted.wait()
            for charge in charges:
                counters.add_grant(charge.budget, charge.period, charge.amount)
            return counters.reserve(token, charges)

        rig.grants.acquire = acquire  # type: ignore[method-assign]
        one = rig.hold("one")
        calls = [asyncio.ensure_future(rig.chat()) for _ in range(6)]
        await wait_until(lambda: rig.gateway.running_calls == 6)
        await asyncio.sleep(0.05)
        granted.set()
        await wait_until(lambda: rig.models["one"].counted >= 2)
        await asyncio.sleep(0.1)
        assert rig.models["one"].counted == 2 == rig.gateway.loads.running("one")
        for _ in calls:
            one.release()
        assert [reply.status for reply in await asyncio.gather(*calls)] == [200] * 6
        assert rig.gateway.loads.running("one") == 0
        await rig.books()


@pytest.mark.parametrize("free", [True, False])
async def test_room_at_one_that_is_well_is_waited_for_before_one_that_fails_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: bool
) -> None:
    """One that says nothing had such a call for all of its `first_token`, and the bound of that was charged."""
    if not free:
        monkeypatch.setattr("groundplan.gateway.upstream.pressure.MAX_QUEUE_SECONDS", 0.05)
    async with call_rig(tmp_path, more={"two": {"concurrent": 1}}, workloads={"assistant": reliability()}) as rig:
        two, health = rig.hold("two"), rig.gateway.health
        for _ in range(5):
            health.record_failure("one", asyncio.get_running_loop().time())
        calls = [asyncio.ensure_future(rig.chat()) for _ in range(2)]
        await wait_until(lambda: rig.models["two"].counted == 1 and (rig.gateway.loads.queued_calls == 1 or not free))
        if free:
            two.release()
        else:
            await wait_until(lambda: rig.models["one"].counted == 1)
        two.release()
        told = sorted(reply.headers["groundplan-deployment"] for reply in await asyncio.gather(*calls))
        assert told == (["two", "two"] if free else ["one", "two"])
        await rig.books()


async def test_no_more_run_at_one_that_fails_than_may_when_several_have_waited_in_vain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("groundplan.gateway.upstream.pressure.MAX_QUEUE_SECONDS", 0.3)
    async with call_rig(tmp_path, more={name: {"concurrent": 1} for name in ("one", "two")}) as rig:
        gates = [rig.hold("one"), rig.hold("two")]
        for _ in range(5):
            rig.gateway.health.record_failure("one", asyncio.get_running_loop().time())
        calls = [asyncio.ensure_future(rig.chat()) for _ in range(4)]
        await wait_until(lambda: sum(call.done() for call in calls) == 2 and rig.models["one"].counted == 1)
        for gate in gates:
            gate.release()
        replies = await asyncio.gather(*calls)
        assert sorted(reply.status for reply in replies) == [200, 200, 503, 503]
        assert {reply.code for reply in replies if reply.status == 503} == {"overloaded"}
        await rig.books()


async def test_a_place_that_is_not_used_goes_to_whoever_waits() -> None:
    loads = DeploymentLoads(asyncio.get_running_loop())
    load = loads.of(ONE)
    load.running = loads.of(TWO).running = 1
    waiting = asyncio.ensure_future(waits(loads, "low"))
    await asyncio.sleep(0)
    loads.release_place(load)
    assert await waiting == "low a" and load.running == 1


async def test_nobody_waits_beyond_its_time_and_a_place_held_for_one_who_left_goes_on() -> None:
    loads = DeploymentLoads(asyncio.get_running_loop())
    loads.of(ONE).running = loads.of(TWO).running = 1
    assert await waits(loads, "critical", 0.05) == "overloaded"
    left = asyncio.ensure_future(waits(loads, "high"))
    stays = asyncio.ensure_future(waits(loads, "low"))
    await asyncio.sleep(0)
    loads.record_end(loads.of(ONE), 1, False)
    left.cancel()
    assert await stays == "low a"
    assert loads.of(ONE).running == 1


# the worker ----------------------------------------------------------------------------------------------------------


async def test_a_late_loop_refuses_the_less_important_first() -> None:
    pressure = Pressure(asyncio.get_running_loop(), 100)

    def refused() -> list[str]:
        found = []
        for priority in RANKS:
            try:
                pressure.check(priority, 0)
            except Unavailable as error:
                assert error.code == "overloaded" and (error.retry_after or 0) >= 1
                found.append(priority)
        return found

    assert refused() == []
    for lag, who in ((0.2, ["low"]), (0.6, ["normal", "low"]), (2.0, ["high", "normal", "low"]), (5.0, list(RANKS))):
        pressure.record_lag(lag)
        assert refused() != who, "one late turn is no pressure"
        for _ in range(LATE_TICKS - 1):
            pressure.record_lag(lag)
        assert refused() == who
    pressure.record_lag(0.0)
    assert refused() == []


async def test_a_worker_with_too_many_calls_refuses_the_less_important_first() -> None:
    pressure = Pressure(asyncio.get_running_loop(), 100)
    assert not pressure.is_crowded(70) and pressure.is_crowded(71)
    for running, who in ((71, ["low"]), (81, ["normal", "low"]), (91, ["high", "normal", "low"]), (101, list(RANKS))):
        found = []
        for priority in RANKS:
            try:
                pressure.check(priority, running)
            except Unavailable:
                found.append(priority)
        assert found == who


async def test_the_loop_is_looked_at_by_a_timer() -> None:
    pressure = Pressure(asyncio.get_running_loop())
    pressure.start()
    await asyncio.sleep(0.25)
    pressure.stop()
    assert pressure.lag < 5


# calls ---------------------------------------------------------------------------------------------------------------

WORKLOADS = {"vital": reliability(priority="critical"), "bulk": reliability(priority="low")}


async def test_saturating_low_priority_traffic_does_not_refuse_critical_calls(tmp_path: Path) -> None:
    """Everything is full of low-priority calls, and more of them come all the time; every critical call is answered."""
    more = {"one": {"concurrent": 2}}
    async with call_rig(tmp_path, ["one"], more=more, workloads=WORKLOADS) as rig:
        rig.play("one", latency_ms=30)
        stop = asyncio.Event()
        codes: list[int] = []

        async def bulk() -> None:
            while not stop.is_set():
                reply = await rig.chat("bulk")
                codes.append(reply.status)
                if reply.status == 503:
                    assert reply.code == "overloaded" and int(reply.headers["retry-after"]) >= 1

        load = [asyncio.ensure_future(bulk()) for _ in range(MAX_QUEUED + 20)]
        await wait_until(lambda: rig.gateway.loads.queued_calls == MAX_QUEUED)
        replies = [await rig.chat("vital") for _ in range(10)]
        assert [reply.status for reply in replies] == [200] * 10
        stop.set()
        await asyncio.gather(*load)
        assert codes.count(503) > 0 and set(codes) <= {200, 503}
        await rig.books()


async def test_a_deployment_that_was_full_is_asked_once_the_next_one_has_failed(tmp_path: Path) -> None:
    """It has room again, and nothing more will end there that could tell."""
    async with call_rig(tmp_path, more={"one": {"concurrent": 1}}) as rig:
        one, two = rig.hold("one"), rig.hold("two")
        first = asyncio.ensure_future(rig.chat())
        await wait_until(lambda: rig.models["one"].counted == 1)
        rig.play("two", mode="error", status=503)
        second = asyncio.ensure_future(rig.chat())
        await wait_until(lambda: rig.models["two"].counted == 1)
        for _ in range(2):
            one.release()
        assert (await first).status == 200
        two.release()
        reply = await second
        assert (reply.status, reply.headers["groundplan-deployment"]) == (200, "one")
        await rig.books()


async def test_a_full_worker_refuses_low_before_the_body_is_read_and_serves_critical(tmp_path: Path) -> None:
    async with call_rig(tmp_path, workloads=WORKLOADS) as rig:
        for _ in range(LATE_TICKS):
            rig.gateway.pressure.record_lag(1.0)
        reply = await rig.chat("bulk", model=7)
        assert (reply.status, reply.code) == (503, "overloaded") and int(reply.headers["retry-after"]) >= 1
        assert (await rig.chat("vital")).status == 200


async def test_the_last_of_the_room_for_bodies_is_for_what_matters_most(tmp_path: Path) -> None:
    """Large requests of the less important keep nobody's out who matters more, and are refused before they are read."""
    ranks = {name: reliability(priority=name) for name in RANKS}
    async with call_rig(tmp_path, workloads=ranks) as rig:
        server = rig.server
        server.memory_share = partial(body_memory_share, rig.gateway)
        body = len(rig.request("critical").partition(b"\r\n\r\n")[2])
        for held, who in ((0.69, []), (0.75, ["low"]), (0.85, ["normal", "low"]), (0.95, ["high", "normal", "low"])):
            server.held_bytes = int(server.limits.total_body_bytes * held)
            replies = {name: await rig.chat(name) for name in RANKS}
            assert [name for name, reply in replies.items() if reply.status != 200] == who
            assert {replies[name].code for name in who} <= {"memory_full"} and server.held_bytes >= body
            assert all(int(replies[name].headers["retry-after"]) >= 1 for name in who)
        assert (await rig.chat("nobody")).code == "invalid_api_key"
        server.held_bytes = 0


async def test_a_full_worker_takes_no_conversation_that_matters_less(tmp_path: Path) -> None:
    talker = {"one": {"kind": "realtime", "max_output_tokens": 10}}
    async with call_rig(tmp_path, ["one"], more=talker, workloads={"low": reliability(priority="low")}) as rig:
        request = Request(0.0)
        request.method, request.target = b"GET", b"/v1/realtime?model=auto"
        request.headers = HANDSHAKE | {b"authorization": b"Bearer low"}
        session = Session(rig.gateway, request, CollectedResponse())
        rig.gateway.pressure.level = RANKS["low"]
        with pytest.raises(Unavailable) as refused:
            await session.admit()
        assert refused.value.code == "overloaded" and refused.value.retry_after
        rig.gateway.pressure.level = len(RANKS)
        await session.admit()
        await session.close()
        assert rig.slices.open_reservations == 0


async def test_a_client_that_leaves_before_its_conversation_begins_holds_nothing(tmp_path: Path) -> None:
    talker = {"one": {"kind": "realtime", "max_output_tokens": 10}}
    slots = Limit(name="slots", covers="workload/assistant", type="concurrent", amount=1, period="now")
    async with call_rig(tmp_path, ["one"], more=talker, limits=[slots], limit=0) as rig:
        counters, never = rig.gateway.limit_slices, asyncio.Event()
        counters.add_grant("concurrent/slots", "now", 1)

        async def acquire(*_: Any) -> None:
            await never.wait()

        rig.grants.acquire = acquire  # type: ignore[method-assign, assignment]
        request = Request(0.0)
        request.method, request.target = b"GET", b"/v1/realtime?model=auto"
        request.headers = HANDSHAKE | {b"authorization": b"Bearer assistant"}
        session = Session(rig.gateway, request, CollectedResponse())
        admitting = asyncio.ensure_future(session.admit())
        await wait_until(lambda: counters.available("concurrent/slots", "now") == 0)
        admitting.cancel()
        await asyncio.gather(admitting, return_exceptions=True)
        await session.close()
        assert counters.available("concurrent/slots", "now") == 1


async def test_a_full_deployment_is_passed_over_for_the_next_one(tmp_path: Path) -> None:
    async with call_rig(tmp_path, more={"one": {"concurrent": 1}}) as rig:
        one = rig.hold("one")
        slow = asyncio.ensure_future(rig.chat())
        await wait_until(lambda: rig.models["one"].counted == 1)
        assert (await rig.chat()).json["groundplan"]["deployment"] == "two"
        one.release()
        assert (await slow).json["groundplan"]["deployment"] == "one"
        await rig.books()


async def test_refusals_for_want_of_room_teach_how_much_a_deployment_bears(tmp_path: Path) -> None:
    async with call_rig(tmp_path, ["one"]) as rig:
        rig.play("one", latency_ms=50)
        calls = [asyncio.ensure_future(rig.chat()) for _ in range(8)]
        await wait_until(lambda: rig.models["one"].counted == 8)
        rig.play("one", mode="error", status=429, latency_ms=0)
        await rig.chat()
        running, most = rig.gateway.loads.limits()["one"]
        assert most is not None and most < 9 and running <= 8
        await asyncio.gather(*calls)
        assert rig.gateway.loads.limits()["one"][0] == 0


async def test_long_answers_are_no_sign_of_load_beside_streams_that_begin_soon(tmp_path: Path) -> None:
    """How long a whole answer takes is how long a one was asked for."""
    async with call_rig(tmp_path, ["one"]) as rig:
        await asyncio.gather(*(rig.stream() for _ in range(40)))
        rig.gateway.loads._loads["one"]._answers = 4000  # as after an hour of them
        rig.play("one", latency_ms=900)
        replies = await asyncio.gather(*(rig.chat() for _ in range(150)))
        assert {reply.status for reply in replies} == {200}
        assert rig.gateway.loads.limits()["one"] == (0, None)


async def test_nothing_runs_any_more_after_every_way_to_end(tmp_path: Path) -> None:
    async with call_rig(tmp_path, ["one"], workloads={"assistant": reliability(priority="high")}) as rig:

        async def leave(rig: Rig) -> None:
            _, writer = await asyncio.open_connection("127.0.0.1", rig.port)
            writer.write(rig.request(stream=True))
            await asyncio.sleep(0.05)
            writer.transport.abort()

        for mode in ("ok", "error", "cut", "malformed", "empty", "down"):
            rig.play("one", mode=mode)
            await rig.chat()
            await rig.chat(stream=True)
        rig.play("one", mode="stall")
        await leave(rig)
        await wait_until(lambda: rig.gateway.loads.limits()["one"][0] == 0)
        await wait_until(lambda: rig.gateway.running_calls == 0)
        await rig.books()
