"""What is held against deployments: for how long, by whom it is looked into, and when nothing is known any more."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace
from tests.integration.gateway_stack import deployment
from tests.unit.call_rig import call_rig, read_records, reliability, wait_until
from tests.unit.raw_upstream import json_response, post, tcp_server

from groundplan.blueprint.model import ProviderKey, Rates
from groundplan.gateway.app import told_health
from groundplan.gateway.call.attempts.flags import next_attempt_flags
from groundplan.gateway.call.attempts.sequence import AttemptSequence
from groundplan.gateway.telemetry.exposition import render
from groundplan.gateway.upstream.health import FORGET_SECONDS, SLOW_SAMPLES, Health
from groundplan.gateway.upstream.latency import MIN_SAMPLES, LatencyEstimates
from groundplan.ledger.model import Settlement
from groundplan.testing.metrics import families

ONE, TWO, THREE = (deployment(name, 1) for name in ("one", "two", "three"))


def broken(name: str, at: float) -> Health:
    """Three failures in a row, the last one then."""
    health = Health()
    for _ in range(3):
        health.record_failure(name, at)
    return health


def test_a_fallback_becomes_half_open_however_many_calls_others_answer() -> None:
    """It was `open` for as long as there were calls, since each was taken for one that tries it."""
    health = broken("two", 10.0)
    for step in range(600):
        now = 11.0 + step / 10
        assert [place.name for place in health.order([ONE, TWO, THREE], now)] == ["one", "two", "three"]
        assert health.states(now) == {"two": "half_open"}
    assert health.order([TWO, THREE], 80.0) == [TWO, THREE] and health.may_attempt("two", 80.0), "this call tries it"
    assert health.order([TWO, THREE], 80.5) == [THREE, TWO] and health.states(80.5) == {"two": "open"}


def test_failures_of_an_unused_deployment_are_forgotten() -> None:
    health = broken("two", 10.0)
    assert told_health(health, 11.0 + FORGET_SECONDS) == {"two": "half_open: 3 failures in a row"}
    assert told_health(health, 11.1 + FORGET_SECONDS) == {} and not health.has_problems
    health.record_failure("two", 1000.0, 300.0)
    assert told_health(health, 1250.0) == {"two": "open: it asked to be called later"}
    assert health.retry_after_left("two", 1250.0) == 50.0


def test_a_probe_stays_due_until_a_call_makes_it() -> None:
    health = broken("two", 10.0)
    assert health.due_for_probe([ONE, TWO], 10.5) is None
    assert health.due_for_probe([ONE, TWO], 11.5) is TWO and health.due_for_probe([ONE, TWO], 11.6) is TWO
    assert (
        health.may_attempt("two", 11.6)
        and health.due_for_probe([ONE, TWO], 11.7) is None
        and not health.may_attempt("two", 11.7)
    )
    assert health.due_for_probe([ONE, TWO], 12.7) is TWO


def test_a_silent_deployment_is_probed_by_ever_fewer_calls() -> None:
    """Each of them waits for as long as it may for a first word, which is half a minute unless said."""
    health = broken("two", 10.0)
    times = [11.0 + step for step in range(30)]
    assert [at for at in times if health.may_attempt("two", at)] == [11.0, 12.0, 14.0, 18.0, 26.0]
    health.record_failure("two", 41.0)
    assert [at for at in range(41, 50) if health.may_attempt("two", at)] == [43, 44, 46], "that was one of them"


def test_an_older_answer_does_not_end_a_newer_retry_after() -> None:
    health = broken("one", 10.0)
    health.record_failure("one", 20.0, 30.0)
    health.record_success("one", 15.0)
    assert not health.is_closed("one") and health.retry_after_left("one", 21.0) == 29.0
    health.record_success("one", 20.5)
    assert health.is_closed("one") and health.retry_after_left("one", 21.0) == 0.0


def test_a_changed_or_removed_deployment_loses_its_health_record() -> None:
    health, times = Health(), LatencyEstimates()
    health.declare([ONE, TWO, THREE])
    for place in (ONE, TWO, THREE):
        for _ in range(3):
            health.record_failure(place.name, 10.0, 300.0)
        for stream in (False, True) * MIN_SAMPLES:
            times.of(place.name, stream).observe(9_000_000, 10.0)
    times.forget(health.declare([replace(ONE, weight=3), replace(TWO, key="env:RIGHT")]))
    slow = [name for name in ("one", "two", "three") for stream in (False, True) if times.of(name, stream).quantile(50)]
    assert slow == ["one", "one"], "nobody is hedged, or kept from calls, by how slow another model was"
    assert set(health.states(11.0)) == {"one"}, "a share is no other place"
    assert health.retry_after_left("two", 11.0) == health.retry_after_left("three", 11.0) == 0.0
    health.declare([])
    assert health.states(11.0) == {} and not health.has_problems


def test_streams_and_whole_answers_are_compared_apart() -> None:
    """A deployment that is asked for whole answers is not slower than one that streams."""
    places = [replace(place, model="m/same") for place in (ONE, TWO)]
    health = Health()
    for _ in range(2 * SLOW_SAMPLES):
        health.record_latency(places[1], places, 200_000, 5.0, streamed=True)
        health.record_latency(places[0], places, 9_000_000, 5.0, streamed=False)
    assert health.states(5.0) == {}
    for _ in range(SLOW_SAMPLES):
        health.record_latency(places[0], places, 9_000_000, 5.0, streamed=True)
    assert health.states(5.0) == {"one": "open"}


# calls ---------------------------------------------------------------------------------------------------------------


async def test_calls_of_healthy_deployments_take_the_fast_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def long_way(_: AttemptSequence) -> None:
        raise AssertionError("it looks for whom to ask")

    async with call_rig(tmp_path) as rig:
        health, now = rig.gateway.health, asyncio.get_running_loop().time()
        for _ in range(3):
            health.record_failure("two", now - 60)
        monkeypatch.setattr(AttemptSequence, "take_next", long_way)
        for _ in range(3):
            assert (await rig.chat()).json["groundplan"]["deployment"] == "one"
        assert health.states(now) == {"two": "half_open"}


async def test_the_settlement_names_who_was_left_for_last(tmp_path: Path) -> None:
    """Only what comes before the deployment that is asked; and nobody once the breaker is closed."""
    async with call_rig(tmp_path, ["one", "two", "three", "four", "five"]) as rig:
        health, now = rig.gateway.health, asyncio.get_running_loop().time()
        for name in ("one", "three", "five"):
            health.record_failure(name, now, 60)
        rig.play("two", mode="error", status=500)
        assert (await rig.chat()).json["groundplan"]["deployment"] == "four"
        health.record_success("one", now + 1)
        assert (await rig.chat()).json["groundplan"]["deployment"] == "one"
        two, four, one = await rig.settlements()
        assert (two.flags, four.flags) == (["breaker_open:one"], ["breaker_open:one", "breaker_open:three"])
        assert one.flags == []


def test_a_healthy_deployment_that_waits_is_not_said_to_have_an_open_breaker() -> None:
    """As where it has no room, or calls are balanced."""
    call: Any = SimpleNamespace(attempt_flags=("hedge", "resumed"), deployments=[ONE, TWO, THREE])
    assert next_attempt_flags(call, THREE, [ONE, TWO], broken("two", 1.0)) == ("resumed", "breaker_open:two")


async def test_one_call_at_a_time_probes_a_second_choice(tmp_path: Path) -> None:
    """Also where the first choice fails: whoever comes next waits for how the first of them ends."""
    async with call_rig(tmp_path, ["one", "two", "three"]) as rig:
        health, now = rig.gateway.health, asyncio.get_running_loop().time()
        for _ in range(3):
            health.record_failure("two", now - 60)
        rig.play("one", mode="error", status=503)
        rig.play("two", mode="error", status=503, latency_ms=300)
        found = await asyncio.gather(*(rig.chat() for _ in range(6)))
        assert {reply.json["groundplan"]["deployment"] for reply in found} == {"three"}
        assert rig.models["two"].counted <= 2, "the others do not wait for it"
        await rig.books()


async def test_counting_tokens_does_not_change_a_deployments_health(tmp_path: Path) -> None:
    """It is another path there: neither is a deployment well by it, nor its answers slow beside it."""
    more = {"one": {"api": "anthropic", "billing_on_cancel": "full"}}
    hedged = {"assistant": reliability(hedge={"after_ms": 20_000, "at_most": 1.0})}
    async with call_rig(tmp_path, ["one", "two"], more=more, workloads=hedged) as rig:
        health, now = rig.gateway.health, asyncio.get_running_loop().time()
        for _ in range(3):
            health.record_failure("one", now - 60)
        body: dict[str, Any] = {"model": "one", "messages": [{"role": "user", "content": "a b c"}]}
        for _ in range(3):
            reply = await post(rig, "/v1/messages/count_tokens", body)
            assert reply.status == 200 and reply.json["input_tokens"] == 7, reply.body
        assert set(health.states(now)) == {"one"}
        assert rig.gateway.latencies.of("one", False).peak == 0.0
        assert rig.gateway.loads.of(rig.plan("assistant").deployments_by_name["one"][0])._answers >= 3
        assert rig.gateway.loads.of(rig.plan("assistant").deployments_by_name["one"][0])._usual_us == 0.0


async def test_a_hedge_that_cannot_count_tokens_is_no_deployment_failure(tmp_path: Path) -> None:
    """Many have no such path, and the times of those that have one are no times of answers."""
    go = asyncio.Event()

    async def count_late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await go.wait()
        writer.write(json_response(b'{"input_tokens":7}'))
        await writer.drain()

    more = {name: {"api": "anthropic", "billing_on_cancel": "full"} for name in ("one", "two")}
    hedged = {"assistant": reliability(hedge={"after_ms": 20, "at_most": 1.0})}
    async with tcp_server(count_late) as port:
        async with call_rig(tmp_path, ["one", "two"], more=more, workloads=hedged, ports={"one": port}) as rig:
            rig.play("two", mode="error", status=404, only="POST /v1/messages/count_tokens")
            body: dict[str, Any] = {"model": "auto", "messages": [{"role": "user", "content": "a b c"}]}
            asked = asyncio.ensure_future(post(rig, "/v1/messages/count_tokens", body))
            folder = rig.gateway.journal.folder
            await wait_until(lambda: any(isinstance(each, Settlement) for each in read_records(folder)))
            go.set()
            reply = await asked
            assert reply.status == 200 and reply.json["input_tokens"] == 7, reply.body
            assert "two" not in rig.gateway.health._failures
            rig.play("two")
            go.clear()
            reply = await post(rig, "/v1/messages/count_tokens", body)
            assert reply.status == 200 and reply.json["input_tokens"] == 7, reply.body
            assert rig.gateway.latencies.of("one", False).peak == 0.0


@pytest.mark.parametrize("retry_after", [None, "30"])
async def test_a_full_flex_tier_does_not_affect_the_default_tier(tmp_path: Path, retry_after: str | None) -> None:
    """Providers have often none for it (429 resource unavailable)."""
    file = tmp_path / "key"
    file.write_text("only")
    priced = Rates(input=0, output=10 * 10**12, flex=Rates(input=0, output=5 * 10**12))
    more: dict[str, dict[str, Any]] = {
        "one": {"keys": [ProviderKey(key=f"file:{file}")], "rates": priced},
        "two": {"rates": priced},
    }
    hedged = {"assistant": reliability(hedge={"after_ms": 1, "at_most": 1.0})}
    async with call_rig(tmp_path / "home", ["one", "two"], more=more, workloads=hedged) as rig:
        place = rig.plan("assistant").deployments_by_name["one"][0]
        rig.play("one", mode="error", status=429, retry_after=retry_after)
        for _ in range(4):
            refused = await rig.chat(service_tier="flex", model="one")
            assert (refused.status, refused.code) == (503, "upstream_failed"), refused.body
            assert "without service_tier" in refused.json["error"]["hint"]
        now = asyncio.get_running_loop().time()
        assert rig.gateway.health.states(now) == {} and rig.gateway.flex_health.states(now) == {"one": "open"}
        (told,) = told_health(rig.gateway.health, now, {}, rig.gateway.flex_health).items()
        assert told[0] == "one" and told[1].startswith("closed: calls at flex ask it last: "), told
        shown = render([("0", families(rig.gateway))]).decode()
        for name, state in (("breaker_state", "closed"), ("flex_breaker_state", "open")):
            assert f'groundplan_gateway_{name}{{worker="0",deployment="one",state="{state}"}} 1\n' in shown, shown
        assert rig.models["one"].counted == (4 if retry_after is None else 1), "it asked to be left alone"
        assert rig.gateway.targets.key_pool(place).order(now) == [0]
        assert rig.gateway.loads.of(place).limit is None
        rig.play("one", tokens=5, latency_ms=60)
        assert (await rig.chat(model="one")).json["groundplan"]["deployment"] == "one"
        rig.gateway.flex_health.declare([])
        before = rig.gateway.latencies.of("one", False).peak
        flexible = await rig.chat(service_tier="flex")
        assert flexible.json["groundplan"]["deployment"] == "one" and rig.models["two"].counted == 0, "nor hedged"
        assert rig.gateway.latencies.of("one", False).peak == before, "nor learned from"
        await rig.books()


async def test_a_new_key_replacing_a_paused_one_is_used_at_once(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("old", "other", "new")]
    for file in files:
        file.write_text(file.name)
    keys = [ProviderKey(key=f"file:{file}") for file in files]
    async with call_rig(tmp_path / "home", ["one"], more={"one": {"keys": keys[:2]}}) as rig:
        targets, now = rig.gateway.targets, asyncio.get_running_loop().time()
        place = rig.plan("assistant").deployments_by_name["one"][0]
        for index in range(2):
            targets.key_pool(place).record_refusal(index, 402, now, 600.0)
        assert targets.key_pool(replace(place, weight=2)).order(now) == []
        changed = replace(place, keys=[keys[2], keys[1]])
        assert targets.key_pool(changed).order(now) == [0], "the other one still rests"
