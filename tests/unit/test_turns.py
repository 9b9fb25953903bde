"""Probes of an unhealthy deployment: one call at a time makes one, and the next call may as soon as that call is not
sent or says nothing about the health of the deployment."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.unit import call_rig as rigs
from tests.unit.call_rig import BOUND, Rig, call_rig, wait_until
from tests.unit.interrupted import (
    INTERRUPTION_KINDS,
    HeldResources,
    Interruption,
    find_leftovers,
    held_resources,
    journal_faults,
    track_call_tasks,
)
from tests.unit.raw_upstream import post
from tests.unit.test_interrupted_calls import SCENES, make_interrupted_call

from groundplan.blueprint.model import Deployment, Limit, ProviderKey, Rates
from groundplan.core.errors import Unavailable
from groundplan.gateway.call.attempts import attempt as attempt_module
from groundplan.gateway.call.attempts import race, sequence
from groundplan.gateway.call.attempts.attempt import Attempt
from groundplan.gateway.call.attempts.sequence import AttemptSequence
from groundplan.gateway.surfaces.realtime import connect, conversation, events
from groundplan.gateway.upstream.connection import UpstreamFailure
from groundplan.gateway.upstream.health import Health, Probe
from groundplan.gateway.upstream.http1_pool import Http1Pool
from groundplan.testing.scripted import Script

HALF_OPEN = "half_open"
HEDGED = {"assistant": rigs.reliability(hedge={"after_ms": 20, "at_most": 1.0})}
INTERRUPTED_WAITS = 8
"""Number of waits of a call before it is sent; it is interrupted at each of them."""
NO_ROOM = [Limit(name="few", covers="deployment/one", type="requests", amount=1, period="minute")]


class ProbeMachine(RuleBasedStateMachine):
    """Any calls to one deployment, with probes that are cancelled late, twice, or not at all."""

    def __init__(self) -> None:
        super().__init__()
        self.health, self.now = Health(), 0.0
        self.issued_probes: list[Probe] = []
        self.current_probe: Probe | None = None
        """The probe of the call that is still running."""

    @rule(seconds=st.sampled_from([0.0, 0.1, 0.9, 1.0, 3.0, 16.0]))
    def advance_time(self, seconds: float) -> None:
        self.now += seconds

    @rule(rest=st.sampled_from([None, None, 5.0]))
    def record_failure(self, rest: float | None) -> None:
        self.health.record_failure("one", self.now, rest)
        self.current_probe = None

    @rule()
    def record_success(self) -> None:
        self.health.record_success("one", self.now)
        self.current_probe = None

    @rule()
    def start_call(self) -> None:
        is_healthy, is_probing = (
            self.health.is_closed("one"),
            self.current_probe is not None and self.now < self.current_probe.until,
        )
        may_attempt = self.health.may_attempt("one", self.now)
        assert may_attempt or not is_healthy
        assert is_healthy or not (may_attempt and is_probing), "two look at once"
        if may_attempt and (probe := self.health.current_probe("one")) is not None:
            self.issued_probes.append(probe)
            self.current_probe = probe

    @precondition(lambda self: self.current_probe is not None)
    @rule()
    def cancel_current_probe(self) -> None:
        assert self.current_probe is not None
        self.health.cancel_probe(self.current_probe, self.now)
        self.current_probe = None
        assert self.health.states(self.now) == {"one": HALF_OPEN}, "the next one may"

    @precondition(lambda self: self.issued_probes)
    @rule(data=st.data())
    def cancel_old_probe(self, data: st.DataObject) -> None:
        probe = data.draw(st.sampled_from(self.issued_probes))
        if probe != self.current_probe:
            before = self.health.states(self.now)
            self.health.cancel_probe(probe, self.now)
            assert self.health.states(self.now) == before, "it was another one's"

    @invariant()
    def probe_counts_stay_in_range(self) -> None:
        assert all(0 <= each <= len(self.issued_probes) for each in self.health._probes.values()), self.health._probes


ProbeMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestProbes = ProbeMachine.TestCase


# calls ---------------------------------------------------------------------------------------------------------------


def mark_unhealthy(rig: Rig, name: str) -> None:
    """Record failures of a minute ago, so that the next call to the deployment is its probe."""
    for _ in range(3):
        rig.gateway.health.record_failure(name, rig.gateway.loop.time() - 60)


def health_states(rig: Rig) -> dict[str, str]:
    return rig.gateway.health.states(rig.gateway.loop.time())


async def never_connect(*_: Any, **__: Any) -> Any:
    await asyncio.Event().wait()


def refuse_to_journal(*_: Any, **__: Any) -> int:
    raise Unavailable("the disk is full", code="journal_unavailable", hint="Free some.")


def fail_to_build_request(*_: Any) -> bytes:
    raise ValueError("it cannot be said")


def allow_all_but(name: str) -> Callable[..., Any]:
    """A replacement of `may_attempt` that refuses only this deployment."""

    async def may(_: AttemptSequence, deployment: Deployment) -> bool:
        return deployment.name != name

    return may


async def test_a_full_limit_releases_the_probe(tmp_path: Path) -> None:
    async with call_rig(tmp_path, limits=NO_ROOM) as rig:
        mark_unhealthy(rig, "one")
        for _ in range(3):
            assert (await rig.chat()).json["groundplan"]["deployment"] == "two"
            assert health_states(rig) == {"one": HALF_OPEN}
        await rig.books()


async def test_a_flex_call_releases_the_probe_of_the_flex_tier(tmp_path: Path) -> None:
    """What is known of a deployment is apart there."""
    priced = {"rates": Rates(input=0, output=10 * 10**12, flex=Rates(input=0, output=5 * 10**12))}
    async with call_rig(tmp_path, limits=NO_ROOM, more={"one": priced, "two": priced}) as rig:
        for _ in range(3):
            rig.gateway.flex_health.record_failure("one", rig.gateway.loop.time() - 60)
        for _ in range(3):
            assert (await rig.chat(service_tier="flex")).json["groundplan"]["deployment"] == "two"
            assert rig.gateway.flex_health.states(rig.gateway.loop.time()) == {"one": HALF_OPEN} and not health_states(
                rig
            )
        await rig.books()


async def test_an_exhausted_budget_releases_the_probe(tmp_path: Path) -> None:
    """The first one is billed what it may have cost, and there is nothing for a second attempt."""
    async with call_rig(tmp_path, ["two", "one"], limit=BOUND + BOUND // 2) as rig:
        mark_unhealthy(rig, "one")
        rig.play("two", mode="error", status=502)
        assert (await rig.chat()).status == 429
        assert rig.models["one"].counted == 0 and health_states(rig) == {"one": HALF_OPEN}


async def test_a_call_above_its_cost_cap_releases_the_probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AttemptSequence, "_can_afford", lambda *_: False)
    async with call_rig(tmp_path, ["two", "one"]) as rig:
        mark_unhealthy(rig, "one")
        rig.play("two", mode="error", status=503)
        assert (await rig.chat()).status == 503
        assert rig.models["one"].counted == 0 and health_states(rig) == {"one": HALF_OPEN}
        await rig.books()


@pytest.mark.parametrize("what", ["journal", "request", "permission"])
async def test_an_attempt_that_cannot_be_made_releases_the_probe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    async with call_rig(tmp_path) as rig:
        mark_unhealthy(rig, "one")
        with monkeypatch.context() as patch:
            if what == "journal":
                patch.setattr(sequence, "begin_attempt", refuse_to_journal)
            elif what == "request":
                patch.setattr(attempt_module, "encode_request", fail_to_build_request)
            else:
                patch.setattr(AttemptSequence, "_may_attempt", allow_all_but("one"))
            assert (await rig.chat()).status == (200 if what == "permission" else 503)
        assert rig.models["one"].counted == 0 and health_states(rig) == {"one": HALF_OPEN}
        assert (await rig.chat()).json["groundplan"]["deployment"] == "one" and health_states(rig) == {}
        await rig.books()


async def test_a_client_disconnecting_before_the_attempt_releases_the_probe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with call_rig(tmp_path) as rig:
        mark_unhealthy(rig, "one")
        monkeypatch.setattr(Http1Pool, "connect", never_connect)
        call = asyncio.create_task(rig.chat())
        await wait_until(lambda: health_states(rig) == {"one": "open"})
        call.cancel()
        await wait_until(lambda: not rig.gateway.running_calls)
        assert health_states(rig) == {"one": HALF_OPEN}
        await rig.books()


async def test_a_client_disconnecting_during_the_attempt_keeps_the_probe(tmp_path: Path) -> None:
    """Whoever hangs would hold up each call until its client loses patience."""
    async with call_rig(tmp_path) as rig:
        mark_unhealthy(rig, "one")
        rig.hold("one")
        call = asyncio.create_task(rig.chat())
        await wait_until(lambda: rig.models["one"].counted == 1)
        call.cancel()
        await wait_until(lambda: not rig.gateway.running_calls)
        assert health_states(rig) == {"one": "open"} and not rig.gateway.health.may_attempt(
            "one", rig.gateway.loop.time()
        )
        await rig.books()


async def test_a_stale_connection_decides_no_probe_and_the_same_call_repeats_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It went to another one, and the next look was a second later."""
    async with call_rig(tmp_path) as rig:
        assert (await rig.chat()).status == 200
        mark_unhealthy(rig, "one")
        head, once = Attempt._read_response, itertools.count()

        async def read(attempt: Any, connection: Any) -> None:
            if not next(once):
                raise UpstreamFailure("cut", "the connection was closed", sent=False)
            await head(attempt, connection)

        monkeypatch.setattr(Attempt, "_read_response", read)
        assert (await rig.chat()).json["groundplan"]["deployment"] == "one" and health_states(rig) == {}
        await rig.books()


async def test_a_refused_key_decides_no_probe_and_the_same_call_repeats_it_with_another(tmp_path: Path) -> None:
    files = [tmp_path / "key", tmp_path / "other"]
    for file in files:
        file.write_text("secret")
    keys = {"one": {"keys": [ProviderKey(key=f"file:{file}") for file in files]}}
    async with call_rig(tmp_path / "home", more=keys) as rig:
        mark_unhealthy(rig, "one")
        rig.play("one", mode="error", status=401, times=1)
        assert (await rig.chat()).json["groundplan"]["deployment"] == "one" and health_states(rig) == {}
        await rig.books()


async def test_counting_tokens_releases_the_probe(tmp_path: Path) -> None:
    more = {"one": {"api": "anthropic", "billing_on_cancel": "full"}}
    async with call_rig(tmp_path, more=more) as rig:
        mark_unhealthy(rig, "one")
        body: dict[str, Any] = {"model": "one", "messages": [{"role": "user", "content": "a b c"}]}
        for _ in range(3):
            assert (await post(rig, "/v1/messages/count_tokens", body)).json["input_tokens"] == 7
            assert health_states(rig) == {"one": HALF_OPEN}


@pytest.mark.parametrize("what", ["dear", "limit", "budget", "late", "unwritten"])
async def test_an_unsent_hedge_releases_the_probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    limits = NO_ROOM if what == "limit" else []
    limit = BOUND + BOUND // 2 if what == "budget" else rigs.LIMIT
    async with call_rig(tmp_path, ["two", "one"], workloads=HEDGED, limits=limits, limit=limit) as rig:
        mark_unhealthy(rig, "one")
        rig.play("two", latency_ms=150)
        if what == "dear":
            monkeypatch.setattr(race, "_can_afford", lambda *_: False)
        elif what == "late":
            monkeypatch.setattr(race, "begin_attempt", lambda *_, **__: 0)
        elif what == "unwritten":
            monkeypatch.setattr(race, "begin_attempt", refuse_to_journal)
        assert (await rig.chat()).json["groundplan"]["deployment"] == "two"
        assert rig.models["one"].counted == 0 and health_states(rig) == {"one": HALF_OPEN}
        await rig.settlements()


async def test_a_hedge_overtaken_before_it_is_sent_releases_the_probe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect_to, connections = Http1Pool.connect, itertools.count()

    async def connect_once(*arguments: Any) -> Any:
        return await (never_connect if next(connections) else connect_to)(*arguments)

    monkeypatch.setattr(Http1Pool, "connect", connect_once)
    async with call_rig(tmp_path, ["two", "one"], workloads=HEDGED) as rig:
        mark_unhealthy(rig, "one")
        gate = rig.hold("two")
        call = asyncio.create_task(rig.chat())
        await wait_until(lambda: rig.models["two"].counted == 1)
        await wait_until(lambda: health_states(rig) == {"one": "open"})
        gate.release()
        assert (await call).json["groundplan"]["deployment"] == "two"
        assert rig.models["one"].counted == 0 and health_states(rig) == {"one": HALF_OPEN}
        await rig.books()


async def test_a_hedge_failing_through_no_fault_of_its_deployment_releases_the_probe(tmp_path: Path) -> None:
    """Its key was refused, and there is another one: how the deployment is, was not found out."""
    files = [tmp_path / "key", tmp_path / "other"]
    for file in files:
        file.write_text("secret")
    keys = {"one": {"keys": [ProviderKey(key=f"file:{file}") for file in files]}}
    async with call_rig(tmp_path / "home", ["two", "one"], more=keys, workloads=HEDGED) as rig:
        mark_unhealthy(rig, "one")
        gate = rig.hold("two")
        rig.play("one", mode="error", status=401, times=1)
        call = asyncio.create_task(rig.chat())
        await wait_until(lambda: rig.models["one"].counted == 1)
        await wait_until(lambda: health_states(rig) == {"one": HALF_OPEN}, 0.8)
        gate.release()
        assert (await call).json["groundplan"]["deployment"] == "two"
        await rig.books()


@pytest.mark.parametrize("how", ["no room", "gone"])
async def test_a_conversation_that_does_not_begin_releases_the_probe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    async def taken_up(*_: Any) -> None:
        if how == "gone":
            raise asyncio.CancelledError

    monkeypatch.setattr(connect, "_connect_to", taken_up)
    async with call_rig(tmp_path, ["one"]) as rig:
        mark_unhealthy(rig, "one")
        exchange: Any = SimpleNamespace(deployments=rig.plan("assistant").deployments_by_name["one"], limit_use=None)
        with pytest.raises(Unavailable if how == "no room" else asyncio.CancelledError):
            await connect.connect(rig.gateway, exchange, None)
        assert health_states(rig) == {"one": HALF_OPEN} and rig.gateway.loads.running("one") == 0


async def test_a_connection_opened_before_the_failures_does_not_end_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls fail while a conversation is still connected."""
    async with call_rig(tmp_path, ["one"]) as rig:

        async def taken_up(*_asked: Any) -> tuple[object, None]:
            await asyncio.sleep(0.02)
            for _ in range(3):
                rig.gateway.health.record_failure("one", rig.gateway.loop.time())
            return object(), None

        monkeypatch.setattr(connect, "_connect_to", taken_up)
        exchange: Any = SimpleNamespace(deployments=rig.plan("assistant").deployments_by_name["one"], limit_use=None)
        reached = await connect.connect(rig.gateway, exchange, None)
        assert health_states(rig) == {"one": "open"}
        rig.gateway.loads.release_place(reached.load)


async def test_a_response_begun_before_the_failures_does_not_end_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A conversation's is made for a minute while all calls fail."""

    async def settled(*_: Any) -> None:
        return None

    monkeypatch.setattr(conversation, "settle_response", settled)
    event = events.read_server(b'{"type":"response.done","response":{"status":"completed"}}')
    async with call_rig(tmp_path, ["one"]) as rig:
        session = conversation.Session.__new__(conversation.Session)
        session._gateway = rig.gateway
        one = rig.plan("assistant").deployments_by_name["one"][0]
        before: Any = SimpleNamespace(deployment=one, attempt_started=time.perf_counter_ns())
        await asyncio.sleep(0.02)
        for _ in range(3):
            rig.gateway.health.record_failure("one", rig.gateway.loop.time())
        await session._finish_response(before, event)
        assert health_states(rig) == {"one": "open"}
        await asyncio.sleep(0.02)
        since: Any = SimpleNamespace(deployment=one, attempt_started=time.perf_counter_ns())
        await session._finish_response(since, event)
        assert health_states(rig) == {}


@pytest.mark.parametrize(("name", "ailing"), [("plain", "one"), ("stream", "one")])
async def test_a_call_ending_anywhere_before_it_is_sent_releases_the_probe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, ailing: str
) -> None:
    scene, sent, send = SCENES[name], list[str](), Attempt._send

    def recorded(attempt: Any, *more: Any) -> None:
        sent.append(attempt.deployment.name)
        send(attempt, *more)

    monkeypatch.setattr(Attempt, "_send", recorded)
    loop = asyncio.get_running_loop()
    async with call_rig(tmp_path, **scene.rig_options) as rig:
        for each, script in scene.scripts.items():
            rig.models[each].script = Script(**script)
        await make_interrupted_call(rig, scene, Interruption(0, "cancelled"))
        nothing = HeldResources({}, held_resources(rig).timers, asyncio.all_tasks())
        assert await find_leftovers(rig, nothing) == []
        track_call_tasks(loop)
        loop.set_exception_handler(lambda *_: None)
        try:
            for how, at in itertools.product(INTERRUPTION_KINDS, range(1, INTERRUPTED_WAITS)):
                rig.gateway.health._close(ailing)
                mark_unhealthy(rig, ailing)
                sent.clear()
                cut = Interruption(at, how)
                await make_interrupted_call(rig, scene, cut)
                assert await find_leftovers(rig, nothing) == []
                cut.is_over = True
                found_out = rig.gateway.health._failures.get(ailing, 0) > 3  # that there is no connection
                if ailing not in sent and not found_out:
                    assert health_states(rig) == {ailing: HALF_OPEN}, (how, at, cut.interrupted_line)
        finally:
            loop.set_task_factory(None)
            loop.set_exception_handler(None)
        assert journal_faults(rig) == []
