"""Counters and their exposition, read back by Prometheus' own parser."""

from __future__ import annotations

import asyncio
import dataclasses
import math
import socket
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from tests.unit.call_rig import call_rig
from tests.unit.test_gateway_pipeline import KEY, Rig, rig

from groundplan.blueprint.model import Budget
from groundplan.core.endpoints import announce
from groundplan.core.errors import Unavailable
from groundplan.core.home import Home
from groundplan.core.money import PICO
from groundplan.gateway.budgets.periods import current_key
from groundplan.gateway.telemetry import call_counters
from groundplan.gateway.telemetry.call_counters import DURATION_US, CallCounters, Histogram
from groundplan.gateway.telemetry.exposition import Family, Sample, histogram_family, render
from groundplan.gateway.telemetry.scrape import MetricsScraper, announced_names, with_up_family
from groundplan.gateway.telemetry.worker_families import gather_families
from groundplan.gateway.upstream.answer_memory import MemoryShare
from groundplan.gateway.upstream.connection import UpstreamFailure
from groundplan.ledger.model import Settlement, Usage
from groundplan.testing.metrics import families
from groundplan.testing.scripted import Script

__all__ = ["rig"]


def parse_metrics(text: bytes) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """Sample name -> labels -> value, as the parser of Prometheus' client reads it."""
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            labels = tuple(sorted(sample.labels.items()))
            assert labels not in found.setdefault(sample.name, {}), f"{sample.name}{labels} is there twice"
            found[sample.name][labels] = sample.value
    return found


def total(found: dict[tuple[tuple[str, str], ...], float], **labels: str) -> float:
    return sum(value for key, value in found.items() if set(labels.items()) <= set(key))


@given(st.lists(st.integers(0, 300_000_000), max_size=60))
def test_a_histogram_counts_each_value_in_every_bucket_that_holds_it(values: list[int]) -> None:
    counted = Histogram()
    for value in values:
        counted.observe(value)
    found = parse_metrics(render([("0", [histogram_family("x_seconds", "X.", {(): counted})])]))
    for bound in DURATION_US:
        key = (("le", repr(bound / 1e6)), ("worker", "0"))
        assert found["x_seconds_bucket"][key] == sum(1 for value in values if value <= bound)
    assert found["x_seconds_count"][(("worker", "0"),)] == len(values)
    assert math.isclose(found["x_seconds_sum"][(("worker", "0"),)], sum(values) / 1e6)


@given(st.text(max_size=40), st.text(max_size=40))
def test_any_text_survives_as_a_label(one: str, help_: str) -> None:
    one = one.replace("\r", "")  # the parser splits lines at it
    family = Family("x", "gauge", help_.replace("\r", ""), [Sample([("name", one)], 1)])
    lines = render([("0", [family])]).decode().split("\n")
    assert len(lines) == 4, "a name or a help text made a line of its own"
    if "\x85" not in one and "\u2028" not in one and not any(ord(c) < 32 for c in one + help_):
        assert parse_metrics(render([("0", [family])]))["x"] == {(("name", one), ("worker", "0")): 1.0}


def test_a_metric_family_of_several_workers_is_exposed_once_with_all_samples() -> None:
    own = [Family("x_total", "counter", "X.", [Sample([], 1)])]
    text = render(with_up_family({"0": own, "1": own, "2": None}))
    assert text.count(b"# TYPE x_total counter") == 1
    found = parse_metrics(text)
    assert total(found["x_total"]) == 2
    assert found["groundplan_gateway_worker_up"] == {
        (("worker", "0"),): 1, (("worker", "1"),): 1, (("worker", "2"),): 0,
    }  # fmt: skip


async def test_savings_of_the_cache_are_in_usd(rig: Rig) -> None:
    rig.gateway.call_counters.add_savings("assistant", 250_000_000_000)
    rig.gateway.call_counters.add_savings("assistant", 250_000_000_000)
    rig.gateway.call_counters.count_call(("chat.completions", "assistant", "one", "ok", 200), "exact", 500, 400)
    found = parse_metrics(render([("0", families(rig.gateway))]))
    assert total(found["groundplan_gateway_cache_saved_usd_total"], workload="assistant") == 0.5
    assert total(found["groundplan_gateway_cache_hits_total"], workload="assistant", result="exact") == 1


async def test_calls_that_lost_something_for_lack_of_room_are_counted(rig: Rig) -> None:
    counters = rig.gateway.journal.counters
    counters.dropped, counters.shortened = 2, 3
    found = parse_metrics(render([("0", families(rig.gateway))]))
    assert total(found["groundplan_gateway_journal_dropped_total"]) == 2
    assert total(found["groundplan_gateway_journal_shortened_total"]) == 3


def test_series_are_bounded_and_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_counters, "MOST_SERIES", 10)
    counted = CallCounters()
    for number in range(100):
        counted.count_call(("chat", f"w{number}", "d", "ok", 200), "none", 5, 4)
        counted.count_attempt(
            (f"w{number}", "d", "ok"), Settlement(b"", 0, 1, 1, "ok", 200, Usage(input=1), False, [], 5, 4)
        )
        counted.count_call(("chat", f"w{number}", "d", "ok", 200), "exact", 5, 4, streamed=f"m/{number}")
        counted.count_search(f"w{number}", "found")
        counted.count_citation(f"w{number}", "supported")
        counted.add_savings(f"w{number}", 2)
    assert len(counted.calls) == len(counted.attempts) == len(counted.first_tokens) == 11
    for counts in (counted.cache_hits, counted.searches, counted.citations):
        assert len(counts) == 11 and sum(counts.values()) == 100
    assert len(counted.saved_picodollars) == 11 and sum(counted.saved_picodollars.values()) == 200
    assert sum(sum(series.buckets) for series in counted.first_tokens.values()) == 100
    assert sum(series.count for series in counted.calls.values()) == 200
    assert sum(series.tokens[0] for series in counted.attempts.values()) == 100


async def test_a_worker_exposes_calls_attempts_tokens_and_cost(rig: Rig) -> None:
    assert (await rig.chat()).status == 200
    rig.one.script = Script(mode="error", status=503)
    assert (await rig.chat()).status == 200
    found = parse_metrics(render([("0", families(rig.gateway))]))
    name = "groundplan_gateway_"
    calls = found[f"{name}calls_total"]
    assert total(calls, endpoint="chat.completions", workload="assistant", status="ok", code="200") == 2
    assert total(calls, deployment="two") == 1
    assert total(found[f"{name}attempts_total"], deployment="one", outcome="not_billed") == 1
    assert total(found[f"{name}attempts_total"], outcome="ok") == 2
    spent = rig.slices.spent("all", "total") / 10**12
    assert spent > 0 and math.isclose(total(found[f"{name}cost_usd_total"]), spent)
    assert total(found[f"{name}tokens_total"], **{"class": "output"}) > 0
    assert total(found[f"{name}call_duration_seconds_count"]) == 2
    assert total(found[f"{name}first_byte_seconds_count"]) == 2
    assert total(found[f"{name}attempt_duration_seconds_count"]) == 3
    assert total(found[f"{name}queue_seconds_count"], workload="assistant") == 2
    assert total(found[f"{name}breaker_state"], deployment="one", state="closed") == 1
    assert total(found[f"{name}slice_available_usd"], budget="all", period="total") > 0
    assert total(found[f"{name}journal_records_total"]) == 8
    assert total(found["groundplan_build_info"]) == 1
    for process in ("cpu_seconds_total", "resident_memory_bytes", "open_fds", "start_time_seconds"):
        assert total(found[f"process_{process}"]) > 0
    text = render([("0", families(rig.gateway))]).decode()
    assert KEY not in text and str(rig.gateway.epoch) not in text


@pytest.mark.parametrize(
    ("period", "starts", "timezone"),
    [
        ("day", "", "UTC"), ("day", "", "Europe/Oslo"), ("week", "", "UTC"), ("week", "sunday", "UTC"),
        ("month", "", "UTC"), ("month", "26", "UTC"), ("month", "", "America/New_York"), ("quarter", "", "UTC"),
        ("quarter", "02-01", "UTC"), ("year", "", "UTC"), ("year", "04-01", "UTC"), ("total", "", "UTC"),
    ],
)  # fmt: skip
async def test_a_budget_is_shown_in_its_running_period_and_in_no_other(
    rig: Rig, period: str, starts: str, timezone: str
) -> None:
    catalog = rig.gateway.live.catalog
    assert catalog is not None
    budget = Budget(name="own", covers="company", limit=9 * PICO, period=period, starts=starts, timezone=timezone)
    told = msgspec.structs.replace(catalog.blueprint, budgets=[budget])
    rig.live.catalog = dataclasses.replace(catalog, blueprint=told)
    now = rig.gateway.clock.seconds()
    spans = {current_key(period, starts, timezone, now - days * 86_400): days for days in (0, 1, 8, 40, 100, 400)}
    for place, span in enumerate(spans):
        rig.slices.add_grant("own", span, (place + 1) * PICO)
    found = parse_metrics(render([("0", families(rig.gateway))]))
    labels = (("budget", "own"), ("period", period), ("worker", "0"))
    assert found["groundplan_gateway_slice_available_usd"] == {labels: 1.0}
    assert found["groundplan_gateway_budget_remaining_usd"] == {labels: 9.0}


async def test_a_redeclared_budget_is_shown_once(rig: Rig) -> None:
    """Its period of before is not over yet, and calls of then hold some of it."""
    catalog = rig.gateway.live.catalog
    assert catalog is not None
    budget = Budget(name="own", covers="company", limit=9 * PICO, period="month", starts="", timezone="America/Lima")
    told = msgspec.structs.replace(catalog.blueprint, budgets=[budget])
    rig.live.catalog = dataclasses.replace(catalog, blueprint=told)
    now = rig.gateway.clock.seconds()
    for place, timezone in enumerate(("UTC", "America/Lima", "Asia/Tokyo"), 1):
        rig.slices.add_grant("own", current_key("month", "", timezone, now), place * PICO)
    text = render([("0", families(rig.gateway))]).decode()
    shown = [line for line in text.splitlines() if line.startswith("groundplan_gateway_slice_available_usd{")]
    assert len(shown) == 1 and shown[0].endswith(" 2.0"), shown


async def test_the_time_to_the_first_token_is_that_of_streams_a_model_made(rig: Rig) -> None:
    assert (await rig.chat()).status == 200
    rig.one.script = Script(latency_ms=30)
    assert (await rig.chat(stream=True)).status == 200
    found = parse_metrics(render([("0", families(rig.gateway))]))
    first = found["gen_ai_server_time_to_first_token_seconds_sum"]
    ((labels, seconds),) = first.items()
    assert dict(labels) == {
        "worker": "0", "gen_ai_operation_name": "chat", "gen_ai_provider_name": "scripted",
        "gen_ai_request_model": "one", "workload": "assistant", "deployment": "one",
    }  # fmt: skip
    assert 0.03 <= seconds < 5
    assert total(found["gen_ai_server_time_to_first_token_seconds_count"]) == 1
    assert total(found["groundplan_gateway_first_byte_seconds_count"]) == 2


async def test_the_time_to_the_first_token_stays_with_the_model_that_was_asked(rig: Rig) -> None:
    """Whatever is served under the name of its deployment later, or if nothing is any more: counters do not go back."""

    def told() -> dict[tuple[tuple[str, str], ...], float]:
        return parse_metrics(render([("0", families(rig.gateway))]))["gen_ai_server_time_to_first_token_seconds_count"]

    assert (await rig.chat(stream=True)).status == 200
    before, catalog = told(), rig.gateway.live.catalog
    assert catalog is not None
    places = [msgspec.structs.replace(each, model="other/newer") for each in catalog.blueprint.deployments]
    for deployments in (places, []):
        changed = msgspec.structs.replace(catalog.blueprint, deployments=deployments)
        rig.live.catalog = dataclasses.replace(catalog, blueprint=changed)
        assert told() == before


async def test_a_deployment_that_fails_is_shown_as_open(rig: Rig) -> None:
    rig.one.script = Script(mode="error", status=503)
    for _ in range(4):
        await rig.chat()
    found = parse_metrics(render([("0", families(rig.gateway))]))["groundplan_gateway_breaker_state"]
    assert total(found, deployment="one", state="open") == 1
    assert total(found, deployment="one", state="closed") == 0
    assert total(found, deployment="two", state="closed") == 1


async def test_memory_use_of_a_worker_is_exposed(tmp_path: Path) -> None:
    async with call_rig(tmp_path) as rig:
        gateway, server, share = rig.gateway, rig.server, MemoryShare(rig.gateway.answer_memory)
        gateway.server, server.limits = server, dataclasses.replace(server.limits, total_body_bytes=3000)
        assert (await rig.chat(user="a" * 3000)).code == "memory_full"
        gateway.answer_memory.limit = 5 << 20
        await share.grow(2 << 20, 1.0)
        waits = asyncio.create_task(MemoryShare(gateway.answer_memory).grow(2 << 20, 0.05))
        second = asyncio.create_task(MemoryShare(gateway.answer_memory).grow(2 << 20, 0.05))
        await asyncio.sleep(0)
        found = parse_metrics(render([("0", families(gateway))]))
        name = "groundplan_gateway_room"
        assert total(found[f"{name}_bytes"], room="answers") == gateway.answer_memory.held_bytes >= 4 << 20
        assert total(found[f"{name}_most_bytes"], room="answers") == 5 << 20
        assert total(found[f"{name}_most_bytes"], room="requests") == 3000
        assert total(found[f"{name}_refused_total"], room="requests") == 1
        assert total(found[f"{name}_waiting"]) == 1
        assert await waits
        with pytest.raises(UpstreamFailure):
            await second
        places = rig.plan("assistant").deployments_by_name["one"]
        full = [msgspec.structs.replace(each, concurrent=0) for each in places]
        with pytest.raises(Unavailable):
            await gateway.loads.wait_for_room(full, "low", 0.0)
        gateway.pressure.level = 0
        with pytest.raises(Unavailable):
            gateway.pressure.check("critical", 0)
        found = parse_metrics(render([("0", families(gateway))]))
        assert all(total(found[f"{name}_refused_total"], room=of) == 1 for of in ("answers", "deployments", "worker"))


async def ask(port: int, *lines: str, method: str = "GET", host: str = "localhost") -> tuple[int, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = [f"{method} /metrics HTTP/1.1", f"host: {host}", "connection: close", *lines]
    writer.write("\r\n".join(head).encode() + b"\r\n\r\n")
    raw = await reader.read()
    writer.close()
    return int(raw.split(b" ")[1]), raw.partition(b"\r\n\r\n")[2]


async def test_one_scrape_shows_every_worker_and_a_proxys_request_needs_a_token(rig: Rig, tmp_path: Path) -> None:
    home = Home(tmp_path / "other")
    home.create()
    home.operator_token.write_text("operator-secret\n")
    secret = tmp_path / "metrics.token"
    secret.write_text("scraper-secret")
    one, two = (MetricsScraper(home, slot, f"file:{secret}") for slot in (0, 1))
    for scrapes in (one, two):
        await scrapes.open(lambda: gather_families(rig.gateway))
    rig.gateway.scrapes = one
    try:
        assert announced_names(home) == ["0", "1"]
        status, text = await ask(rig.port)
        assert status == 200
        assert parse_metrics(text)["groundplan_gateway_worker_up"] == {(("worker", "0"),): 1, (("worker", "1"),): 1}
        assert set(parse_metrics(text)["groundplan_gateway_running"]) == {(("worker", "0"),), (("worker", "1"),)}
        for name in ("x-forwarded-for", "forwarded", "via", "x-real-ip", "X-Forwarded-Proto", "CF-Connecting-IP"):
            assert (await ask(rig.port, f"{name}: 10.0.0.1"))[0] == 403, name
        for host in ("evil.example", "evil.example:8600", "127.0.0.1.evil.example", "[evil"):
            assert (await ask(rig.port, host=host))[0] == 403, "a web page that rebinds its name"
            assert (await ask(rig.port, "authorization: Bearer operator-secret", host=host))[0] == 200
        for host in ("localhost:8600", "127.0.0.1:8600", "[::1]:8600", socket.gethostname()):
            assert (await ask(rig.port, host=host))[0] == 200
        assert (await ask(rig.port, "authorization: Bearer wrong"))[0] == 403
        assert (await ask(rig.port, "content-length: 0", method="POST"))[0] == 405
        for token in ("operator-secret", "scraper-secret"):
            assert (await ask(rig.port, "x-forwarded-for: 10.0.0.1", f"authorization: Bearer {token}"))[0] == 200
    finally:
        await one.close()
        await two.close()
    assert announced_names(home) == []


async def test_a_sibling_that_hangs_does_not_hold_up_a_scrape(rig: Rig, tmp_path: Path) -> None:
    home = Home(tmp_path / "other")
    home.create()
    open_ones: list[asyncio.StreamWriter] = []
    silent = await asyncio.start_server(lambda _, writer: open_ones.append(writer), "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    announce(home, "gateway-metrics-7", f"http://127.0.0.1:{port}", "t")
    scrapes = MetricsScraper(home, 0, None)
    await scrapes.open(lambda: gather_families(rig.gateway))
    try:
        found = parse_metrics(await scrapes.render_all(families(rig.gateway)))
        assert found["groundplan_gateway_worker_up"] == {(("worker", "0"),): 1, (("worker", "7"),): 0}
    finally:
        await scrapes.close()
        for writer in open_ones:
            writer.close()
        silent.close()


def test_metrics_survive_the_transfer_between_workers() -> None:
    counted = Histogram()
    counted.observe(1_500)
    families_ = [
        Family("x", "gauge", "X.", [Sample([("a", "b")], 1.5), Sample([], 10**15)]),
        histogram_family("y_seconds", "Y.", {(("a", "b"),): counted}),
    ]
    back = msgspec.msgpack.decode(msgspec.msgpack.encode(families_), type=list[Family])
    assert render([("0", back)]) == render([("0", families_)])
