"""Two attempts at once: when the second one is sent, who answers, and that money is exact however it ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.contract.h2_server import H2Server
from tests.contract.ways import pool_to
from tests.integration.gates import hold_answers
from tests.integration.gateway_stack import Reply, deployment
from tests.unit.call_rig import BOUND, LIMIT, Rig, call_rig, read_records, reliability, wait_until

from groundplan.blueprint.model import Hedge, Limit, ProviderKey, Rates
from groundplan.core.money import PICO, parse_usd
from groundplan.gateway.call.attempts import race
from groundplan.gateway.call.attempts.hedge import Hedges
from groundplan.gateway.upstream import provider_refusals
from groundplan.gateway.upstream.health import Health
from groundplan.gateway.upstream.latency import MIN_SAMPLES, LatencyEstimate
from groundplan.ledger.model import Reservation, Settlement
from groundplan.testing.journal import replay
from groundplan.testing.scripted import Script, ScriptedModel

HEDGED = {"assistant": reliability(hedge={"after_ms": 40, "at_most": 1.0})}
LATE = {"assistant": reliability(hedge={"after_ms": 20_000, "at_most": 1.0})}
OUTPUT = 10_000_000
"""picodollars of an output token"""


# when ----------------------------------------------------------------------------------------------------------------


@given(st.floats(0.01, 1.0), st.integers(1, 400))
def test_hedges_are_never_more_than_their_share(share: float, calls: int) -> None:
    hedges, settings, sent = Hedges(), Hedge(after_ms=10, at_most=share), 0
    for _ in range(calls):
        if hedges.next_delay("w", settings, LatencyEstimate()) is not None:
            hedges.record_sent("w")
            sent += 1
    assert sent <= calls * share + 1


def test_one_of_ten_calls_is_hedged_at_a_share_of_a_tenth() -> None:
    hedges, settings, found = Hedges(), Hedge(after_ms=10, at_most=0.1), []
    for number in range(30):
        if hedges.next_delay("w", settings, LatencyEstimate()) is not None:
            hedges.record_sent("w")
            found.append(number)
    assert found == [0, 10, 20]


def test_after_a_pause_only_few_calls_are_hedged_in_a_row() -> None:
    hedges, settings, sent = Hedges(), Hedge(after_ms=10, at_most=0.05), 0
    for _ in range(1000):
        hedges.next_delay("w", settings, LatencyEstimate())
    while hedges.next_delay("w", settings, LatencyEstimate()) is not None:
        hedges.record_sent("w")
        sent += 1
    assert 1 < sent <= 11


async def test_the_declared_share_of_calls_is_hedged_including_the_first(tmp_path: Path) -> None:
    settings = {"assistant": reliability(hedge={"after_ms": 20, "at_most": 0.5})}
    async with call_rig(tmp_path, workloads=settings) as rig:
        rig.play("one", latency_ms=400)
        given = [(await answer(rig, stream=False))["deployment"] for _ in range(4)]
        assert given == ["two", "one", "two", "one"] and rig.models["two"].counted == 2
        await rig.books()


def test_a_percentile_must_be_learned_before_hedging() -> None:
    hedges, learned, settings = Hedges(), LatencyEstimate(), Hedge(percentile=90, at_most=1.0)
    assert hedges.next_delay("w", settings, learned) is None
    for n in range(MIN_SAMPLES):
        learned.observe(1_000_000 if n >= MIN_SAMPLES - 2 else 20_000, n)
    assert 0.02 <= (hedges.next_delay("w", settings, learned) or 0) <= 0.023


@pytest.mark.parametrize(("percentile", "milliseconds"), [(50, 20), (90, 200), (None, 2000)])
def test_a_hedge_waits_for_the_declared_percentile(percentile: int | None, milliseconds: int) -> None:
    """p95 where nothing is declared; of a hundred answers 89 took 20 ms, five 200 ms, and six 2 s."""
    hedges, learned = Hedges(), LatencyEstimate()
    for n in range(100):
        learned.observe(20_000 if n < 89 else 200_000 if n < 94 else 2_000_000, n)
    delay = hedges.next_delay("w", Hedge(percentile=percentile, at_most=1.0), learned)
    assert delay is not None and milliseconds <= 1000 * delay <= 1.1 * milliseconds


async def test_a_hedge_is_sent_after_the_percentile_that_calls_have_taught(tmp_path: Path) -> None:
    async with call_rig(
        tmp_path, workloads={"assistant": reliability(hedge={"percentile": 95, "at_most": 1.0})}
    ) as rig:
        for _ in range(MIN_SAMPLES):
            assert (await rig.chat()).status == 200
        assert rig.models["two"].counted == 0, "nothing was known"
        rig.hold("one")
        assert (await answer(rig, stream=False))["deployment"] == "two"
        await rig.books()


@pytest.mark.parametrize("stream", [False, True])
async def test_streams_and_whole_answers_are_hedged_by_their_own_latencies(tmp_path: Path, stream: bool) -> None:
    """A whole answer takes many times as long as a stream's first word."""
    async with call_rig(
        tmp_path, workloads={"assistant": reliability(hedge={"percentile": 95, "at_most": 1.0})}
    ) as rig:
        for number in range(MIN_SAMPLES):
            rig.gateway.latencies.of("one", stream).observe(20_000, number)
            rig.gateway.latencies.of("one", not stream).observe(100_000_000, number)
        rig.hold("one")
        assert (await answer(rig, stream))["deployment"] == "two"
        await rig.books()


# who answers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_a_quick_answer_is_never_hedged(tmp_path: Path, stream: bool) -> None:
    async with call_rig(tmp_path, workloads=LATE) as rig:
        assert (await rig.chat(stream=stream)).status == 200
        assert (rig.models["one"].counted, rig.models["two"].counted) == (1, 0)
        await rig.books()


@pytest.mark.parametrize("stream", [False, True])
async def test_the_hedge_wins_and_the_slow_one_is_cancelled_and_billed(tmp_path: Path, stream: bool) -> None:
    async with call_rig(tmp_path, workloads=HEDGED) as rig:
        rig.hold("one")
        facts = await answer(rig, stream)
        assert facts["deployment"] == "two" and facts["estimated"]
        await wait_until(lambda: not rig.upstreams["one"].connections)
        one, two = sorted(await rig.settlements(), key=lambda s: s.attempt)
        assert (one.outcome, one.cost, one.flags) == ("cancelled", BOUND, ["no_usage"])
        assert (two.outcome, two.flags) == ("ok", ["hedge"]) and two.cost > 0
        assert float(facts["cost_usd"]) == pytest.approx((one.cost + two.cost) / 1e12)
        slow = rig.gateway.latencies.of("one", stream).peak
        assert slow >= 40_000 or rig.gateway.stalls.stalled_seconds(0.0), (
            "without the slowest a learned percentile sinks"
        )
        await rig.books()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_hedge_probes_an_unhealthy_fallback(tmp_path: Path, stream: bool) -> None:
    """Behind a deployment that answers, only slowly, nobody else would ever ask it, and nothing be hedged any more."""
    async with call_rig(tmp_path, workloads=HEDGED) as rig:
        rig.hold("one")
        health, now = rig.gateway.health, asyncio.get_running_loop().time()
        for _ in range(3):
            health.record_failure("two", now - 60)
        assert (await answer(rig, stream))["deployment"] == "two" and health.is_closed("two")


def test_an_overloaded_hedge_target_is_left_alone_then_probed_once_a_second() -> None:
    health, both = Health(), [deployment("one", 1), deployment("two", 1)]
    for _ in range(3):
        health.record_failure("two", 10.0)
    assert not health.may_attempt("two", 10.9) and health.may_attempt("one", 10.9)
    health.order(both, 11.1)  # of a call that the first one answers: it has tried nothing
    assert health.may_attempt("two", 11.2) and not health.may_attempt("two", 11.9) and health.may_attempt("two", 12.3)
    health.record_failure("two", 12.4)
    assert not health.may_attempt("two", 13.4)
    health.record_success("two", 13.5)
    assert health.may_attempt("two", 13.5) and health.may_attempt("two", 13.5)


@pytest.mark.parametrize("stream", [False, True])
async def test_the_first_one_wins_and_the_hedge_is_cancelled_and_billed(tmp_path: Path, stream: bool) -> None:
    async with call_rig(tmp_path, workloads=HEDGED) as rig:
        first, _ = rig.hold("one"), rig.hold("two")
        asked = asyncio.ensure_future(answer(rig, stream))
        await wait_until(lambda: rig.models["two"].counted == 1)
        first.release()
        facts = await asked
        assert facts["deployment"] == "one"
        one, two = sorted(await rig.settlements(), key=lambda s: s.attempt)
        assert (one.outcome, two.outcome, two.flags) == ("ok", "cancelled", ["hedge", "no_usage"])
        assert two.cost == BOUND
        await rig.books()


async def answer(rig: Rig, stream: bool) -> dict[str, Any]:
    if stream:
        got = await rig.stream()
        assert got.text == "You asked: a b c d" and got.done and not got.errors
        return got.facts
    reply = await rig.chat()
    assert reply.status == 200
    facts: dict[str, Any] = reply.json["groundplan"]
    return facts


@pytest.mark.parametrize(("first", "second"), [("one", "two"), ("two", "one")])
@pytest.mark.parametrize("status", [503, 502])
@pytest.mark.parametrize("stream", [False, True])
async def test_if_one_attempt_fails_the_other_answers(
    tmp_path: Path, first: str, second: str, status: int, stream: bool
) -> None:
    """`first` fails while `second` is still at work, whichever of them is the hedge."""
    async with call_rig(tmp_path, workloads=HEDGED) as rig:
        rig.play(first, mode="error", status=status)
        gates = {name: rig.hold(name) for name in ("one", "two")}
        asked = asyncio.ensure_future(answer(rig, stream))
        await wait_until(lambda: rig.models["two"].counted == 1)
        gates[first].release()
        folder = rig.gateway.journal.folder
        await wait_until(lambda: any(isinstance(each, Settlement) for each in read_records(folder)))
        gates[second].release()
        facts, settled = await asked, await rig.settlements()
        assert facts["deployment"] == second
        failed = next(s for s in settled if s.outcome != "ok")
        assert failed.cost == (0 if status == 503 else BOUND)
        assert parse_usd(facts["cost_usd"]) == sum(s.cost for s in settled)
        await rig.books()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [200, 503])
async def test_a_refused_hedge_does_not_fail_the_call(tmp_path: Path, status: int, stream: bool) -> None:
    """The first deployment may take what the next one does not. Where it fails, the refusal is what is left."""
    async with call_rig(tmp_path, workloads=HEDGED) as rig:
        if status != 200:
            rig.play("one", mode="error", status=status)
        rig.play("two", mode="error", status=400)
        first = rig.hold("one")
        asked = asyncio.ensure_future(rig.chat(stream=stream))
        folder = rig.gateway.journal.folder
        await wait_until(lambda: any(isinstance(each, Settlement) for each in read_records(folder)))
        assert not asked.done()
        first.release()
        assert (await asked).status == (200 if status == 200 else 400)
        settled = sorted(await rig.settlements(), key=lambda s: s.attempt)
        assert (settled[1].outcome, settled[1].cost, settled[1].http_status) == ("not_billed", 0, 400)
        assert rig.models["two"].counted == (1 if status == 200 else 2)
        await rig.books()


async def test_a_refusal_by_the_first_attempt_is_answered_at_once(tmp_path: Path) -> None:
    """It is what was asked first, and the hedge beside it, which is ended, may take long."""
    async with call_rig(tmp_path, workloads=HEDGED) as rig:
        rig.play("one", mode="error", status=400)
        one, _ = rig.hold("one"), rig.hold("two")
        asked = asyncio.ensure_future(rig.chat())
        await wait_until(lambda: rig.models["two"].counted == 1)
        one.release()
        assert (await asyncio.wait_for(asked, 10)).status == 400
        await rig.books()


async def test_the_fee_of_a_refused_hedge_is_charged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provider_refusals, "is_content_refused", lambda *_: True)
    fee = {"two": {"rates": Rates(input=0, output=10 * PICO, flagged=PICO // 20)}}
    async with call_rig(tmp_path, more=fee, workloads=HEDGED) as rig:
        rig.play("two", mode="error", status=400)
        first = rig.hold("one")
        asked = asyncio.ensure_future(answer(rig, stream=False))
        folder = rig.gateway.journal.folder
        await wait_until(lambda: any(isinstance(each, Settlement) for each in read_records(folder)))
        first.release()
        told, settled = await asked, await rig.settlements()
        assert sorted(s.outcome for s in settled) == ["failed", "ok"] and PICO // 20 in [s.cost for s in settled]
        assert parse_usd(told["cost_usd"]) == sum(s.cost for s in settled)
        await rig.books()


@pytest.mark.parametrize("loser", ["answers", "refuses", "is away", "fails"])
async def test_a_loser_that_finished_almost_simultaneously_is_charged_its_actual_cost(
    tmp_path: Path, loser: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first_of = race._await_first

    async def by_a_hair(gateway: Any, exchange: Any, running: Any, waiting: Any) -> Any:
        await asyncio.wait(running)
        return await first_of(gateway, exchange, running, waiting)

    monkeypatch.setattr(race, "_await_first", by_a_hair)
    async with call_rig(tmp_path, workloads=HEDGED) as rig:
        if loser != "answers":
            rig.play("two", mode="error", status={"refuses": 400, "is away": 503, "fails": 502}[loser])
        facts = (await both_at_once(rig)).json["groundplan"]
        assert facts["deployment"] == "one"
        one, two = sorted(await rig.settlements(), key=lambda s: s.attempt)
        assert one.outcome == "ok" and one.cost > 0
        cost = {"answers": one.cost, "refuses": 0, "is away": 0, "fails": BOUND}[loser]
        assert (two.cost, two.flags[0]) == (cost, "hedge")
        assert float(facts["cost_usd"]) == pytest.approx((one.cost + two.cost) / 1e12)
        await rig.books()


async def both_at_once(rig: Rig, **more: Any) -> Reply:
    """A call that two are at work on before either answers."""
    gates = [rig.hold(name) for name in ("one", "two")]
    asked = asyncio.ensure_future(rig.chat(**more))
    await wait_until(lambda: rig.models["two"].counted == 1)
    for gate in gates:
        gate.release()
    return await asked


async def test_when_both_fail_the_next_deployment_is_asked(tmp_path: Path) -> None:
    async with call_rig(tmp_path, ["one", "two", "three"], workloads=HEDGED) as rig:
        for name in ("one", "two"):
            rig.play(name, mode="error", status=503)
        assert (await both_at_once(rig)).json["groundplan"]["deployment"] == "three"
        assert sorted(s.outcome for s in await rig.settlements()) == ["not_billed", "not_billed", "ok"]
        await rig.books()


async def test_an_attempt_after_both_failed_is_no_hedge(tmp_path: Path) -> None:
    """Also where the hedge was the last one to fail, whose reservation a dearer one goes on with."""
    dear = {"three": {"rates": Rates(input=0, output=100 * PICO)}}
    async with call_rig(tmp_path, ["one", "two", "three"], workloads=HEDGED, more=dear) as rig:
        for name in ("one", "two"):
            rig.play(name, mode="error", status=503)
        gates = [rig.hold(name) for name in ("one", "two", "three")]
        asked = asyncio.ensure_future(rig.chat())
        await wait_until(lambda: rig.models["two"].counted == 1)
        gates[0].release()
        folder = rig.gateway.journal.folder
        await wait_until(lambda: any(isinstance(each, Settlement) for each in read_records(folder)))
        gates[1].release()
        await wait_until(lambda: rig.models["three"].counted == 1)
        assert LIMIT - rig.slices.available("all", "total") == 10 * BOUND, "it may cost as much"
        gates[2].release()
        assert (await asked).json["groundplan"]["deployment"] == "three"
        found = sorted(await rig.settlements(), key=lambda s: s.attempt)
        assert [s.flags for s in found] == [[], ["hedge"], []]
        await rig.books()


async def test_when_both_fail_and_no_deployment_is_left_the_client_gets_an_error(tmp_path: Path) -> None:
    async with call_rig(tmp_path, workloads=HEDGED) as rig:
        for name in ("one", "two"):
            rig.play(name, mode="error", status=502)
        reply = await both_at_once(rig)
        assert (reply.status, reply.code) == (503, "upstream_failed")
        assert sum((await rig.books()).spent.values()) == 2 * BOUND


@pytest.mark.parametrize(("status", "may_retry"), [(503, True), (404, False)])
async def test_a_refused_key_is_no_final_answer_where_the_hedge_failed_for_a_moment(
    tmp_path: Path, status: int, may_retry: bool
) -> None:
    """Official clients ask again unless every deployment refused our key, account or path."""
    async with call_rig(tmp_path, workloads=HEDGED) as rig:
        rig.play("one", mode="error", status=401)
        rig.play("two", mode="error", status=status)
        one, folder = rig.hold("one"), rig.gateway.journal.folder
        asked = asyncio.ensure_future(rig.chat())
        await wait_until(lambda: any(isinstance(each, Settlement) for each in read_records(folder)))
        one.release()
        reply = await asked
        assert reply.code == "upstream_failed"
        assert ("x-should-retry" not in reply.headers, "retry-after" in reply.headers) == (may_retry, may_retry)
        await rig.books()


async def test_a_hedge_counts_as_an_attempt(tmp_path: Path) -> None:
    names = ["one", "two", "three"]
    settings = {f"w{n}": {**HEDGED["assistant"], "attempts": n} for n in (1, 2)}
    async with call_rig(tmp_path, names, workloads=settings) as rig:
        rig.play("one", latency_ms=200)
        assert (await rig.chat(key="w1")).json["groundplan"]["deployment"] == "one"
        assert rig.models["two"].counted == 0, "two attempts were made where one is declared"
        for name in names:
            rig.play(name, mode="error", status=503)
        assert (await both_at_once(rig, key="w2")).code == "upstream_failed"
        assert [rig.models[name].counted for name in names] == [2, 1, 0]
        await rig.books()


async def test_a_refused_provider_key_of_a_hedge_is_no_deployment_failure(tmp_path: Path) -> None:
    """One whose provider refuses a key has another one left: it is well, and asked with that when the first fails."""
    files = [tmp_path / "key", tmp_path / "other"]
    for file in files:
        file.write_text("secret")
    keys = {"two": {"keys": [ProviderKey(key=f"file:{file}") for file in files]}}
    async with call_rig(tmp_path / "home", more=keys, workloads=HEDGED) as rig:
        rig.play("one", mode="error", status=503)
        rig.play("two", mode="error", status=401, times=1)
        one = rig.hold("one")
        asked = asyncio.ensure_future(answer(rig, stream=False))
        folder = rig.gateway.journal.folder
        await wait_until(lambda: any(isinstance(each, Settlement) for each in read_records(folder)))
        one.release()
        assert (await asked)["deployment"] == "two"
        assert "two" not in rig.gateway.health._windows, "its breaker counted a refused key"
        await rig.books()


async def test_a_hedge_that_is_cancelled_while_connecting_gives_its_key_back_once(tmp_path: Path) -> None:
    files = [tmp_path / "key", tmp_path / "other"]
    for file in files:
        file.write_text("secret")
    more = {"two": {"keys": [ProviderKey(key=f"file:{file}") for file in files]}}
    async with call_rig(tmp_path / "home", more=more, workloads=HEDGED) as rig:
        two = rig.plan("assistant").deployments_by_name["auto"][1]
        targets, one, connecting = rig.gateway.targets, rig.hold("one"), asyncio.Event()
        keys, now = targets.key_pool(two), rig.gateway.loop.time()
        for index in (0, 0, 1, 1):
            keys.record_use(index, now)
        pool: Any = targets.with_key(two, 0).pool
        keys.undo_use(0, now)

        async def never_connect(*_: Any) -> None:
            connecting.set()
            await asyncio.Event().wait()

        pool.connect = never_connect
        asked = asyncio.ensure_future(rig.chat())
        await connecting.wait()
        one.release()
        assert (await asked).status == 200
        assert [round(key.use_count) for key in keys._keys] == [2, 2]
        await rig.books()


# money ---------------------------------------------------------------------------------------------------------------


async def test_a_hedge_without_budget_is_not_sent(tmp_path: Path) -> None:
    async with call_rig(tmp_path, workloads=HEDGED, limit=BOUND + BOUND // 2) as rig:
        rig.play("one", latency_ms=200)
        assert (await answer(rig, stream=False))["deployment"] == "one"
        assert rig.models["two"].counted == 0 and rig.grants.requested_budgets == []
        records = await rig.records()
        assert [r.attempt for r in records if isinstance(r, Reservation)] == [0]


async def test_a_hedge_without_room_in_a_limit_is_not_sent_and_holds_nothing(tmp_path: Path) -> None:
    """Also where the deployment is asked later on, after the first one has failed."""
    few = Limit(name="few", covers="deployment/two", type="requests", amount=1, period="minute")
    async with call_rig(tmp_path, ["one", "two", "three"], workloads=HEDGED, limits=[few]) as rig:
        rig.play("one", mode="error", status=503, latency_ms=200)
        assert (await answer(rig, stream=False))["deployment"] == "three"
        assert rig.models["two"].counted == 0 and rig.gateway.limit_slices.open_reservations == 0
        await rig.books()


async def test_a_hedge_is_journalled_before_it_is_sent(tmp_path: Path) -> None:
    async with call_rig(tmp_path, workloads=HEDGED) as rig:
        gates = [rig.hold(name) for name in ("one", "two")]
        call = asyncio.ensure_future(rig.chat())
        await wait_until(lambda: rig.models["two"].counted == 1)
        made = [r for r in read_records(rig.gateway.journal.folder) if isinstance(r, Reservation)]
        assert [(r.attempt, r.deployment, r.bound, r.charges[0].amount) for r in made] == [
            (0, "one", BOUND, BOUND),
            (1, "two", BOUND, BOUND),
        ]
        assert rig.slices.available("all", "total") == LIMIT - 2 * BOUND
        for gate in gates:
            gate.release()
        await call
        await rig.books()


@pytest.mark.parametrize(("loser", "cost"), [("generated", BOUND), ("full", BOUND)])
async def test_the_loser_is_charged_by_its_providers_cancellation_rule(tmp_path: Path, loser: str, cost: int) -> None:
    """Nothing came of it: also a provider that bills what it generated may have generated all of it."""
    async with call_rig(tmp_path, more={"one": {"billing_on_cancel": loser}}, workloads=HEDGED) as rig:
        rig.hold("one")
        await answer(rig, stream=False)
        assert next(s for s in await rig.settlements() if s.attempt == 0).cost == cost
        await rig.books()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_drained_loser_is_charged_its_reported_usage(tmp_path: Path, stream: bool) -> None:
    async with call_rig(tmp_path, more={"one": {"billing_on_cancel": "drain"}}, workloads=HEDGED) as rig:
        rig.play("one", tokens=7)
        one = rig.hold("one")
        facts = await answer(rig, stream)
        assert facts["deployment"] == "two" and not facts["estimated"]
        assert rig.slices.open_reservations == 1, "its reservation is held until it is known what it cost"
        one.release()
        await wait_until(lambda: not rig.gateway.background)
        loser = next(s for s in await rig.settlements() if s.attempt == 0)
        assert (loser.outcome, loser.cost, loser.estimated) == ("cancelled", 7 * OUTPUT, False)
        await rig.books()


@pytest.mark.parametrize(("status", "cost"), [(400, 0), (429, 0), (503, 0), (502, BOUND)])
async def test_a_drained_loser_that_is_refused_costs_what_a_refusal_costs(
    tmp_path: Path, status: int, cost: int
) -> None:
    async with call_rig(tmp_path, more={"one": {"billing_on_cancel": "drain"}}, workloads=HEDGED) as rig:
        rig.play("one", mode="error", status=status)
        one = rig.hold("one")
        assert (await answer(rig, stream=False))["deployment"] == "two"
        one.release()
        await wait_until(lambda: not rig.gateway.background)
        assert next(s for s in await rig.settlements() if s.attempt == 0).cost == cost
        await rig.books()


@pytest.mark.parametrize("http", [1, 2])
async def test_output_of_a_drained_loser_before_it_lost_counts(tmp_path: Path, http: int) -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
    choice = {"index": 0, "message": {"role": "assistant", "content": "x" * 1000}, "finish_reason": "stop"}
    told = json.dumps({"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice],
                       "usage": usage}).encode()  # fmt: skip
    begun, goes_on = asyncio.Event(), asyncio.Event()

    async def in_halves(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(told)
        writer.write(head + told[:500])
        begun.set()
        await goes_on.wait()
        writer.write(told[500:])
        writer.close()

    async with await asyncio.start_server(in_halves, "127.0.0.1", 0) as server, AsyncExitStack() as stack:
        at = {"one": server.sockets[0].getsockname()[1]}
        if http == 2:
            at = {"one": (await stack.enter_async_context(H2Server(at["one"]).listening(None))).port}
        drained = {"one": {"billing_on_cancel": "drain", "http": http}}
        async with call_rig(tmp_path, more=drained, workloads=HEDGED, ports=at) as rig:
            two = rig.hold("two")
            answered = asyncio.ensure_future(answer(rig, stream=False))
            await begun.wait()
            two.release()
            assert (await answered)["deployment"] == "two"
            goes_on.set()
            await wait_until(lambda: not rig.gateway.background)
            loser = next(s for s in await rig.settlements() if s.attempt == 0)
            assert (loser.cost, loser.usage.output, loser.estimated) == (7 * OUTPUT, 7, False)
            await rig.books()


@pytest.mark.parametrize("wait", [0.02, 0.1, 0.2])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_disconnecting_client_ends_both_attempts(tmp_path: Path, wait: float, stream: bool) -> None:
    async with call_rig(tmp_path, workloads=HEDGED) as rig:
        rig.play("one", latency_ms=5000)
        rig.play("two", latency_ms=5000)
        _, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        writer.write(rig.request(stream=stream))
        await wait_until(lambda: rig.models["one"].counted == 1)
        await asyncio.sleep(wait)
        writer.transport.abort()
        await wait_until(lambda: rig.gateway.running_calls == 0)
        await wait_until(lambda: not rig.upstreams["one"].connections and not rig.upstreams["two"].connections)
        sent = rig.models["one"].counted + rig.models["two"].counted
        assert sum((await rig.books()).spent.values()) == sent * BOUND


async def test_a_thousand_calls_of_every_kind_leave_exact_books(tmp_path: Path) -> None:
    """Both are slow by turns, answers race, clients leave at any moment."""
    async with call_rig(tmp_path, workloads={"assistant": reliability(hedge={"after_ms": 5, "at_most": 1.0})}) as rig:
        rig.play("two", latency_ms=1)

        async def one(number: int) -> None:
            _, writer = await asyncio.open_connection("127.0.0.1", rig.port)
            writer.write(rig.request(stream=number % 2 == 0))
            await asyncio.sleep(0.0015 * (number % 20))
            if number % 3:
                await asyncio.sleep(0.05)
            writer.transport.abort()

        for start in range(0, 400, 20):
            rig.play("one", latency_ms=30 if start % 40 else 6)
            await asyncio.gather(*(one(start + n) for n in range(20)))
        await wait_until(lambda: rig.gateway.running_calls == 0)
        assert rig.models["two"].counted > 20
        counted = rig.models["one"].counted + rig.models["two"].counted
        settled = [s for s in await rig.settlements() if s.outcome != "not_billed"]
        assert counted <= len(settled)
        await rig.books()


# kill -9 ------------------------------------------------------------------------------------------------------------

_CHILD = """
import asyncio, sys
from pathlib import Path
from tests.unit.call_rig import call_rig, wait_until
from tests.unit.test_gateway_hedge import HEDGED

async def main(folder, stream):
    async with call_rig(Path(folder), workloads=HEDGED) as rig:
        rig.play("one", latency_ms=60_000)
        rig.play("two", latency_ms=60_000)
        call = asyncio.ensure_future(rig.chat(stream=stream))
        await wait_until(lambda: rig.models["two"].counted == 1)
        print(rig.gateway.journal.folder, flush=True)
        await call

asyncio.run(main(sys.argv[1], sys.argv[2] == "stream"))
"""


@pytest.mark.parametrize("kind", ["json", "stream"])
def test_two_open_attempts_survive_kill_9_as_two_bounds(tmp_path: Path, kind: str) -> None:
    """Whatever was sent is in the journal: a recovery charges both at their bound, once, and nothing else."""
    with subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(tmp_path), kind],
        stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    ) as child:  # fmt: skip
        assert child.stdout is not None
        folder = Path(child.stdout.readline().strip())
        child.send_signal(signal.SIGKILL)
    records = read_records(folder)
    assert not any(isinstance(record, Settlement) for record in records)
    state = replay(records)
    assert [a.reservation.deployment for a in state.open_attempts()] == ["one", "two"]
    (call,) = state.settle_crashed()
    assert state.spent == {("all", "total"): 2 * BOUND} and call.cost == 2 * BOUND == call.reserved
    assert not any(attempt.inherits for attempt in call.attempts.values())


@pytest.mark.parametrize(("rule_", "cost"), [("full", BOUND), ("drain", 7 * OUTPUT)])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_loser_over_http_2_is_settled_by_the_same_rules(
    tmp_path: Path, rule_: str, cost: int, stream: bool
) -> None:
    (tmp_path / "way").mkdir()
    model, more = ScriptedModel("far"), {"one": {"http": 2, "billing_on_cancel": rule_}}
    async with (
        pool_to("h2c", model.handle, tmp_path / "way") as way,
        call_rig(tmp_path / "home", more=more, workloads=HEDGED) as rig,
    ):
        rig.change_deployment("one", url=way.wire.url)
        model.script = Script(tokens=7)
        gate, winner = hold_answers(model), rig.hold("two")
        asking = asyncio.create_task(answer(rig, stream))
        await wait_until(lambda: model.counted == 1)
        winner.release()
        assert (await asking)["deployment"] == "two"
        gate.release()
        await wait_until(lambda: not rig.gateway.background)
        loser = next(s for s in await rig.settlements() if s.attempt == 0)
        assert (loser.outcome, loser.cost) == ("cancelled", cost)
        assert model.counted == 1
        await rig.books()
