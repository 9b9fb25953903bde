"""In which order healthy deployments are asked: each mode by itself, and by real calls."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
import math
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.integration.gateway_stack import deployment, parse_reply
from tests.unit.call_rig import call_rig, reliability

from groundplan.blueprint.model import Deployment, Rates
from groundplan.catalog.reliability import ReliabilityRule
from groundplan.core.money import PICO
from groundplan.gateway.upstream.choose import BalancingInputs, LoadBalancer
from groundplan.gateway.upstream.latency import MIN_SAMPLES, OUTDATED_SECONDS, LatencyEstimate

MODES = get_args(ReliabilityRule.model_fields["balance"].annotation)
A, B, C = (deployment(name, 1, weight=weight) for name, weight in (("a", 5), ("b", 1), ("c", 1)))
_DICE = random.Random(1).random
EVEN = [deployment(name, 1) for name in "abcd"]


def facts(
    running: dict[str, int] | None = None,
    peak: dict[str, float] | None = None,
    bounds: dict[str, int] | None = None,
    prefix: bytes = b"",
    dice: Callable[[], float] = _DICE,
) -> BalancingInputs:
    return BalancingInputs(
        workload="w",
        running=lambda name: (running or {}).get(name, 0),
        peak_latency=lambda name: (peak or {}).get(name, 0.0),
        max_costs=bounds or {},
        prefix=prefix,
        random=dice,
    )


@given(st.sampled_from(MODES), st.lists(st.tuples(st.integers(0, 9), st.integers(0, 5), st.floats(0, 1e6)), max_size=6))
def test_every_mode_orders_each_deployment_exactly_once(mode: str, known: list[tuple[int, int, float]]) -> None:
    places = [deployment(f"d{n}", 1, weight=weight) for n, (weight, _, _) in enumerate(known)]
    running = {f"d{n}": count for n, (_, count, _) in enumerate(known)}
    peak = {f"d{n}": micro for n, (_, _, micro) in enumerate(known)}
    order = LoadBalancer().order(mode, places, facts(running, peak, prefix=b"x"))
    assert sorted(d.name for d in order) == sorted(d.name for d in places)


def firsts(mode: str, places: list[Deployment], count: int, known: BalancingInputs) -> list[str]:
    balance = LoadBalancer()
    return [balance.order(mode, places, known)[0].name for _ in range(count)]


def test_weighted_round_robin_is_exact_and_evenly_spread() -> None:
    order = firsts("weighted", [A, B, C], 14, facts())
    assert Counter(order) == {"a": 10, "b": 2, "c": 2}
    assert order[:7] == order[7:] and "".join(order[:7]) == "aabacaa"
    longest = max(len(list(run)) for _, run in itertools.groupby(order[:7]))
    assert longest <= 2


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "ordered"])
def test_a_deployment_of_weight_zero_is_last_in_every_mode(mode: str) -> None:
    """However much runs at the others, however quick and cheap it is."""
    none, balance = deployment("z", 1, weight=0), LoadBalancer()
    known = facts({"a": 50, "b": 50}, {"a": 1e6, "b": 1e6}, {"a": 9, "b": 9})
    for number in range(50):
        asked = dataclasses.replace(known, prefix=b"%d" % number)
        assert balance.order(mode, [none, A, B], asked)[-1].name == "z"
    assert balance.order(mode, [none], known) == [none]


def test_round_robin_continues_for_calls_limited_to_some_deployments() -> None:
    """As those that name a model, beside those that leave it open."""
    balance, found = LoadBalancer(), Counter[str]()
    for _ in range(70):
        found[balance.order("weighted", [A, B, C], facts())[0].name] += 1
        balance.order("weighted", [A, B], facts())
    assert 9 <= found["c"] <= 11, found


def test_least_outstanding_counts_by_weight() -> None:
    order = LoadBalancer().order("least-outstanding", [A, B, C], facts({"a": 4, "b": 1, "c": 0}))
    assert [d.name for d in order] in (["a", "c", "b"], ["c", "a", "b"])
    assert LoadBalancer().order("least-outstanding", [A, B, C], facts({"a": 9, "b": 1, "c": 3}))[0].name in "ab"
    assert LoadBalancer().order("least-outstanding", EVEN, facts({"a": 2, "b": 1, "c": 0, "d": 5}))[0].name == "c"


def test_equal_deployments_share_calls() -> None:
    assert len(set(firsts("least-outstanding", EVEN, 60, facts()))) == 4


def test_latency_prefers_the_quick_one_and_never_herds() -> None:
    order = Counter(firsts("latency", EVEN, 600, facts(peak={"a": 10, "b": 100, "c": 100, "d": 1000})))
    assert order["a"] > order["b"] and order["a"] > 250 and order["d"] == 0
    assert order["b"] + order["c"] > 100, "two by chance, not always the best of all"
    busy = facts({"a": 30}, {"a": 10, "b": 100, "c": 100, "d": 1000})
    assert Counter(firsts("latency", EVEN, 300, busy))["a"] < 100


def test_latency_mode_does_not_flood_an_unknown_deployment() -> None:
    """A new one, or one that hangs: the first call finds out, and the others know no better of it than of the
    slowest."""
    peak = {"a": 10_000.0, "b": 50_000.0}
    assert Counter(firsts("latency", [A, C], 50, facts(peak=peak))) == {"c": 50}
    assert Counter(firsts("latency", [A, C], 50, facts({"c": 1}, peak))) == {"a": 50}
    assert Counter(firsts("latency", [A, B, C], 300, facts({"a": 40, "c": 1}, peak)))["a"] == 0


def test_cheapest_is_by_what_this_call_may_cost() -> None:
    order = LoadBalancer().order("cheapest", EVEN, facts(bounds={"a": 4, "b": 2, "c": 3, "d": 2}))
    assert [d.name for d in order] == ["b", "d", "c", "a"]


def test_a_prefix_has_one_home_and_loses_it_only_when_that_is_gone() -> None:
    def home(prefix: bytes, places: list[Deployment]) -> str:
        return LoadBalancer().order("prefix", places, facts(prefix=prefix))[0].name

    homes = {n: home(b"system prompt %d" % n, EVEN) for n in range(400)}
    assert homes == {n: home(b"system prompt %d" % n, EVEN) for n in range(400)}
    assert all(count > 60 for count in Counter(homes.values()).values())
    without = {n: home(b"system prompt %d" % n, EVEN[:3]) for n in range(400)}
    assert all(without[n] == homes[n] for n in homes if homes[n] != "d")


def test_a_popular_prefix_fills_its_home_up_to_its_share_by_weight() -> None:
    balance, running = LoadBalancer(), {"a": 0, "b": 0}
    large = next(prefix for n in range(99) if home_of(prefix := b"%d" % n) == "a")
    for _ in range(120):
        running[balance.order("prefix", [A, B], facts(running, prefix=large))[0].name] += 1
    assert running["a"] >= 100, "five of six are its share"


def home_of(prefix: bytes) -> str:
    return LoadBalancer().order("prefix", [A, B], facts(prefix=prefix))[0].name


def test_a_popular_prefix_spills_over_instead_of_sinking_its_home() -> None:
    balance, running = LoadBalancer(), dict.fromkeys("abcd", 0)
    for _ in range(100):
        running[balance.order("prefix", EVEN, facts(running, prefix=b"the same"))[0].name] += 1
    assert max(running.values()) <= 33


@given(st.lists(st.integers(1, 10**8), min_size=MIN_SAMPLES, max_size=300), st.integers(1, 99))
def test_a_learned_quantile_is_at_most_a_tenth_too_long(times: list[int], percent: int) -> None:
    learned = LatencyEstimate()
    for at, time in enumerate(times):
        learned.observe(time, float(at))
    found = learned.quantile(percent)
    wanted = sorted(times)[max(0, -(-len(times) * percent // 100) - 1)]
    assert found is not None and min(wanted, 1.4e8) / 1e6 <= found * 1.001
    assert found <= max(wanted * 1.101, 1001) / 1e6 + 1e-9


def test_too_few_samples_teach_nothing_and_old_ones_fade() -> None:
    learned = LatencyEstimate()
    for n in range(MIN_SAMPLES - 1):
        learned.observe(50_000, n)
    assert learned.quantile(95) is learned.recent_p95(n) is None
    learned.observe(50_000, n)
    assert learned.recent_p95(n) == learned.quantile(95) is not None
    again = n + OUTDATED_SECONDS + 1
    assert learned.recent_p95(again) is None, "it may be another one by now"
    learned.observe(900_000, again)
    assert 0.9 <= (learned.recent_p95(again) or 0) < 1.0, "that counts at once, and what was before does not"
    for n in range(3000):
        learned.observe(50_000, n)
    for n in range(3000):
        learned.observe(200_000, n)
    assert (learned.quantile(20) or 0) > 0.15


def test_rare_slow_answers_are_no_rarer_after_old_ones_fade() -> None:
    learned = LatencyEstimate()
    for n in range(2100):
        learned.observe(50_000 if n % 50 else int(200_000 * 1.1 ** (n // 50)), n)
    assert (learned.quantile(99) or 0) > 0.2 > (learned.quantile(97) or 1), "2 % are slow, each in its own way"


def test_the_peak_jumps_up_and_comes_down_slowly() -> None:
    learned = LatencyEstimate()
    learned.observe(1000, 0.0)
    learned.observe(90_000, 1.0)
    assert learned.peak == 90_000
    learned.observe(1000, 2.0)
    assert 70_000 < learned.peak < 90_000
    learned.observe(1000, 100.0)
    assert 1000 <= learned.peak < 1100
    learned.observe(90_000, 100.0)
    assert learned.expected_peak(110.0) == pytest.approx(90_000 / math.e) and learned.expected_peak(99.0) == 90_000
    learned.observe(1000, 100.0)
    assert learned.peak == pytest.approx(89_110), "also within one turn of the clock"


# calls ---------------------------------------------------------------------------------------------------------------


async def count_answers(
    tmp_path: Path, settings: dict[str, Any], more: dict[str, Any], count: int, latency_ms: int = 20
) -> Counter[str]:
    async with call_rig(tmp_path, ["one", "two", "three"], more=more, workloads={"assistant": settings}) as rig:
        rig.play("three", latency_ms=latency_ms)
        found = [(await rig.chat()).json["groundplan"]["deployment"] for _ in range(count)]
        await rig.books()
        return Counter(found)


async def test_calls_are_shared_by_weight(tmp_path: Path) -> None:
    more = {"one": {"weight": 3}, "two": {"weight": 1}, "three": {"weight": 0}}
    assert await count_answers(tmp_path, reliability(balance="weighted"), more, 12) == {"one": 9, "two": 3}


async def test_fallbacks_get_no_share(tmp_path: Path) -> None:
    found = await count_answers(tmp_path, reliability(balance="weighted", peers=2), {}, 10)
    assert found == {"one": 5, "two": 5}


async def test_calls_go_to_the_cheapest(tmp_path: Path) -> None:
    cheap = Rates(input=0, output=PICO)
    assert await count_answers(tmp_path, reliability(balance="cheapest"), {"two": {"rates": cheap}}, 4) == {"two": 4}


async def test_calls_go_to_the_faster_deployment(tmp_path: Path) -> None:
    found = await count_answers(tmp_path, reliability(balance="latency"), {}, 30, latency_ms=400)
    assert found["three"] <= 6


async def test_one_slow_answer_is_not_held_against_a_deployment_for_ever(tmp_path: Path) -> None:
    async with call_rig(tmp_path, workloads={"assistant": reliability(balance="latency")}) as rig:
        rig.play("two", latency_ms=50)
        slow, now = rig.gateway.latencies.of("one", False), rig.gateway.loop.time()
        slow.observe(3_000_000, now)
        assert {(await rig.chat()).json["groundplan"]["deployment"] for _ in range(5)} == {"two"}
        slow.peak_at -= 60  # which is as long as nobody has asked it
        assert "one" in {(await rig.chat()).json["groundplan"]["deployment"] for _ in range(5)}
        await rig.books()


async def test_a_conversation_stays_at_its_deployment(tmp_path: Path) -> None:
    assert len(await count_answers(tmp_path, reliability(balance="prefix"), {}, 8)) == 1


async def test_an_unhealthy_deployment_gets_only_one_probe(tmp_path: Path) -> None:
    async with call_rig(tmp_path, workloads={"assistant": reliability(balance="weighted")}) as rig:
        rig.play("one", mode="error", status=500)
        began = rig.gateway.loop.time()
        for _ in range(12):
            assert (await rig.chat()).json["groundplan"]["deployment"] == "two"
        assert rig.models["one"].counted <= 4 + int(rig.gateway.loop.time() - began)


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "ordered"])
async def test_a_failure_stays_invisible_to_the_client(tmp_path: Path, mode: str) -> None:
    async with call_rig(tmp_path, workloads={"assistant": reliability(balance=mode)}) as rig:
        rig.play("one", mode="error", status=500)
        replies = await asyncio.gather(*(rig.chat() for _ in range(6)))
        assert [reply.status for reply in replies] == [200] * 6
        await rig.books()


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode not in ("ordered", "cheapest")])
async def test_an_open_breaker_is_probed_although_two_others_are_healthy(tmp_path: Path, mode: str) -> None:
    names = ["one", "two", "three"]
    async with call_rig(tmp_path, names, workloads={"assistant": reliability(balance=mode)}) as rig:
        health, now = rig.gateway.health, rig.gateway.loop.time()
        for _ in range(3):
            health.record_failure("two", now - 1.5)
        assert health.states(now) == {"two": "half_open"}
        replies = await asyncio.gather(*(rig.chat() for _ in range(4)))
        assert Counter(r.json["groundplan"]["deployment"] for r in replies)["two"] >= 1, "nobody tried it"
        assert health.is_closed("two")


async def test_a_fallback_or_weightless_deployment_is_not_probed_before_the_others(tmp_path: Path) -> None:
    names = ["one", "two", "three", "four"]
    settings = {"assistant": reliability(balance="weighted", peers=3)}
    async with call_rig(tmp_path, names, workloads=settings, more={"three": {"weight": 0}}) as rig:
        for _ in range(3):
            for name in ("three", "four"):
                rig.gateway.health.record_failure(name, rig.gateway.loop.time() - 1.5)
        found = Counter([(await rig.chat()).json["groundplan"]["deployment"] for _ in range(6)])
        assert found == {"one": 3, "two": 3}


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/v1/responses", "input"),
        ("/v1/completions", "prompt"),
        ("/v1/chat/completions", "messages"),
        ("/v1/messages", "messages"),
    ],
)
async def test_a_conversation_prefix_has_a_home_deployment_in_every_api(tmp_path: Path, path: str, field: str) -> None:
    names = ["one", "two", "three"]
    async with call_rig(tmp_path, names, workloads={"assistant": reliability(balance="prefix")}) as rig:

        async def home(text: str) -> str:
            given = [{"role": "user", "content": text}] if field == "messages" else text
            cap = {"max_tokens": 20} if path == "/v1/messages" else {}
            body = json.dumps({"model": "auto", field: given, **cap}).encode()
            head = f"POST {path} HTTP/1.1\r\nhost: g\r\nauthorization: Bearer assistant\r\nconnection: close\r\n"
            reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
            writer.write(head.encode() + b"content-length: %d\r\n\r\n" % len(body) + body)
            reply = parse_reply(await asyncio.wait_for(reader.read(), 20))
            writer.close()
            deployment: str = reply.json["groundplan"]["deployment"]
            return deployment

        homes = {text: await home(text) for text in (f"question {n}" for n in range(16))}
        assert len(set(homes.values())) > 1, "all conversations have one home"
        assert homes == {text: await home(text) for text in homes}


async def test_an_alias_selects_every_deployment_even_if_one_has_that_name(tmp_path: Path) -> None:
    declared = {"assistant": {"aliases": ["gpt-4.1", "up-one", "Our GPT"]}, "other": {}}
    async with call_rig(tmp_path, workloads=declared) as rig:
        rig.play("one", mode="down")
        for said in ("gpt-4.1", "up-one", "Our GPT"):
            reply = await rig.chat(model=said)
            assert (reply.status, reply.json["groundplan"]["deployment"]) == (200, "two")
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        head = b"GET /v1/models/Our%20GPT HTTP/1.1\r\nhost: g\r\nauthorization: Bearer assistant\r\n"
        writer.write(head + b"connection: close\r\n\r\n")
        assert parse_reply(await reader.read()).json["id"] == "Our GPT"
        writer.close()
        assert (await rig.chat("other", model="gpt-4.1")).status == 404
        assert (await rig.chat("other", model="up-one")).status == 503


@pytest.mark.parametrize("balance", MODES)
@pytest.mark.parametrize("model", ["auto", "assistant"])
async def test_a_deployment_of_weight_zero_is_asked_when_the_others_fail(
    tmp_path: Path, balance: str, model: str
) -> None:
    """By which a deployment is put aside, whatever a workload says of its order."""
    more = {"one": {"weight": 0}}
    async with call_rig(
        tmp_path, ["one", "two"], more=more, workloads={"assistant": reliability(balance=balance)}
    ) as rig:
        for _ in range(3):
            assert (await rig.chat(model=model)).headers["groundplan-deployment"] == "two"
        rig.play("two", mode="error", status=503)
        assert (await rig.chat(model=model)).headers["groundplan-deployment"] == "one"
        assert (await rig.chat(model="one")).headers["groundplan-deployment"] == "one", "who names it gets it"


def test_prefixes_are_distributed_by_weight() -> None:
    """A has a weight of 5, B and C of 1 each."""
    homes = Counter(
        LoadBalancer().order("prefix", [A, B, C], facts(prefix=b"system prompt %d" % n))[0].name for n in range(1400)
    )
    assert 900 < homes["a"] < 1100 and 120 < homes["b"] < 280 and 120 < homes["c"] < 280, homes


async def test_a_growing_conversation_keeps_its_prefix_home(tmp_path: Path) -> None:
    """Only the beginning counts, which is what a provider's cache holds of it: for each further turn, and for every
    question with the same instructions."""
    names = ["one", "two", "three"]
    async with call_rig(tmp_path, names, workloads={"assistant": reliability(balance="prefix")}) as rig:
        homes = set()
        for number in range(6):
            messages = [{"role": "system", "content": f"Rules of house {number}. " + "Be brief. " * 300}]
            found = set()
            for turn in range(6):
                messages += [{"role": "user", "content": f"question {turn}"}]
                found.add((await rig.chat(messages=messages, max_tokens=20)).json["groundplan"]["deployment"])
                messages += [{"role": "assistant", "content": f"answer {turn}"}]
            assert len(found) == 1, f"conversation {number} was at {found}"
            homes |= found
        assert len(homes) > 1, "all conversations have one home"


async def test_latency_mode_compares_first_tokens_of_streams_and_durations_of_whole_answers(tmp_path: Path) -> None:
    async with call_rig(tmp_path, workloads={"assistant": reliability(balance="latency")}) as rig:
        now, latencies = rig.gateway.loop.time(), rig.gateway.latencies
        for name, whole, streamed in (("one", 9_000_000, 1000), ("two", 1000, 9_000_000)):
            latencies.of(name, False).observe(whole, now)
            latencies.of(name, True).observe(streamed, now)
        assert (await rig.stream()).facts["deployment"] == "one"
        assert (await rig.chat()).json["groundplan"]["deployment"] == "two"
        await rig.books()
