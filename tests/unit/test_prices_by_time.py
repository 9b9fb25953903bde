"""Prices by time of day: a call costs exactly as when it is sent, and what is reserved covers the dearest hour."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from tests.integration.gateway_stack import RATES, parse_reply
from tests.unit.call_rig import call_rig
from tests.unit.test_catalog_check import BASE
from tests.unit.test_price import SERVICES, all_rates, usages

from groundplan.blueprint.model import RateDetails, Rates
from groundplan.catalog.check import validate_files
from groundplan.catalog.money import Prices
from groundplan.core.money import PICO, format_usd
from groundplan.economics.price import cost, cost_bound
from groundplan.economics.prices import price_list
from groundplan.economics.prices.time_of_day import MINUTES_PER_DAY, rates_at, rates_in_hour, with_windows
from groundplan.economics.terms.split import split_cost
from groundplan.ledger.model import Usage
from groundplan.release.compile.pricing import declared_or_listed
from groundplan.testing.clock import ManualClock

MINUTES = st.integers(0, MINUTES_PER_DAY - 1)
MINUTE_MS = 60_000
windows = st.lists(st.tuples(MINUTES, MINUTES, all_rates).filter(lambda each: each[0] != each[1]), max_size=3)
longer = st.none() | all_rates


@given(all_rates, longer, windows, MINUTES, st.integers(0, 30_000), usages(), st.sampled_from(SERVICES))
def test_a_call_at_any_time_costs_its_window_and_never_more_than_is_reserved(
    base: Rates, long: Rates | None, parts: Any, minute: int, day: int, usage: Usage, service: str
) -> None:
    base = msgspec.structs.replace(base, long=long, long_above=1000 if long else 0, priority=long)
    made = with_windows(base, parts)
    then = (day * MINUTES_PER_DAY + minute) * MINUTE_MS
    holds = next(
        (
            rates
            for start, end, rates in parts
            if (start <= minute < end if start < end else minute >= start or minute < end)
        ),
        base,
    )
    exact = rates_at(made, then)
    assert cost(exact, usage, service) == cost(holds, usage, service)
    assert rates_at(made, then + MINUTE_MS - 1) == exact
    assert cost(exact, usage, service) <= cost_bound(made, usage.input, usage.output, service=service)
    whole = split_cost(made, usage, cost(exact, usage))
    assert sum(amount for _, amount in whole.values()) == cost(exact, usage)
    assert exact.windows == []
    if made.windows:
        assert [made.windows[0].start, made.windows[-1].end] == [0, MINUTES_PER_DAY]
        assert all(a.end == b.start and a.rates != b.rates for a, b in pairwise(made.windows))
        assert msgspec.json.decode(msgspec.json.encode(made), type=Rates) == made


def test_what_is_reserved_and_planned_by_is_the_dearest_of_each_class() -> None:
    fine = RateDetails(cache_write_1h=9, search=2)
    long, half = Rates(input=9, output=9), Rates(input=2, output=4)
    day = Rates(input=4, output=8, cache_read=1, long=long, long_above=200, batch=half, details=fine)
    made = with_windows(day, [(0, 60, Rates(input=2, output=10, reasoning=3, input_audio=3))])
    assert msgspec.structs.replace(made, windows=[]) == Rates(
        input=4, output=10, cache_read=2, reasoning=8, input_audio=4, details=fine, long_above=200,
        long=Rates(input=9, output=10, reasoning=9, input_audio=9),
        batch=Rates(input=2, output=10, reasoning=4, input_audio=3),
    )  # fmt: skip


def test_what_was_paid_off_peak_is_told_class_by_class() -> None:
    night = Rates(input=PICO, output=2 * PICO)
    made = with_windows(Rates(input=4 * PICO, output=8 * PICO), [(990, 30, night)])
    usage = Usage(input=10, output=5)
    assert split_cost(made, usage, cost(night, usage)) == {"input": (10, 10 * 10**6), "output": (5, 10 * 10**6)}
    assert [[(minutes, each.input // PICO) for minutes, each in rates_in_hour(made, hour)] for hour in (0, 16, 17)] == [
        [(30, 1), (30, 4)], [(30, 4), (30, 1)], [(60, 1)],
    ]  # fmt: skip
    assert rates_in_hour(night, 3) == [(60, night)]


def test_the_list_s_price_of_a_day_has_the_price_of_each_of_its_times() -> None:
    day = date(2025, 5, 1)
    made = price_list.provider_rates("deepseek", "deepseek-chat", day)
    assert made is not None and made.windows
    costs = set()
    for minute in range(0, MINUTES_PER_DAY, 10):
        moment = datetime(2025, 5, 1, tzinfo=UTC) + timedelta(minutes=minute)
        exact = price_list.provider_rates("deepseek", "deepseek-chat", moment)
        assert exact == rates_at(made, int(moment.timestamp() * 1000))
        costs.add(exact.input if exact else None)
    assert len(costs) == 2 and made.input == max(c for c in costs if c is not None)


def priced(text: str) -> Rates:
    declared = BASE.replace("url: https://acme.example/v1", f"url: https://acme.example/v1\nprice: {text}", 1)
    workspace = validate_files({"a.yaml": declared})
    rates = declared_or_listed(workspace, workspace.deployments["gpt"], date(2026, 11, 25))
    assert isinstance(rates, Rates)
    return rates


def test_declared_hours_replace_what_they_name() -> None:
    hours = "{hours: 16:30-00:30, input: 0.10 USD/Mtok}"
    made = priced(f"{{input: 0.40 USD/Mtok, output: 1.60 USD/Mtok, hours: {hours}}}")
    night, noon = (rates_at(made, minute * MINUTE_MS) for minute in (23 * 60, 12 * 60))
    assert (night.input, night.output, noon.input) == (PICO // 10, 16 * PICO // 10, 4 * PICO // 10)
    assert made.input == noon.input


@pytest.mark.parametrize(
    ("price", "told"),
    [
        ({"hours": [{"hours": "22:00-06:00"}, {"hours": "05:00-07:00"}]}, "same hour"),
        ({"hours": {"hours": "25:00-06:00"}}, "hours of a day"),
        ({"hours": {"hours": "06:00-06:00"}}, "not the whole day"),
        ({"hours": {"hours": "22:00-06:00", "input": "-1 USD/Mtok"}}, "write a price"),
        ({"input": "0.40/Mtok"}, "write a price"),
        ({"output": None}, "output"),
    ],
)
def test_hours_and_prices_that_cannot_be_are_refused(price: dict[str, Any], told: str) -> None:
    declared = {"input": "1 USD/Mtok", "output": "2 USD/Mtok", **price}
    with pytest.raises(ValidationError, match=told):
        TypeAdapter(Prices).validate_python(declared)


async def test_an_estimate_tells_the_most_of_the_day_and_what_is_likely_now(tmp_path: Path) -> None:
    cheap = Rates(input=0, output=PICO)
    night = with_windows(RATES, [(0, 8 * 60, cheap)])
    async with call_rig(tmp_path, ["one"], more={"one": {"rates": night}}) as rig:
        clock = rig.gateway.clock
        assert isinstance(clock, ManualClock)
        for hour, rates in ((3, cheap), (12, RATES)):
            clock.set_now(datetime(2026, 11, 25, hour, tzinfo=UTC))
            reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
            writer.write(rig.request().replace(b"\r\n", b"\r\ngroundplan-estimate: 1\r\n", 1))
            told = json.loads(parse_reply(await reader.read()).body)["deployments"][0]
            writer.close()
            assert told["most_usd"] == format_usd(20 * RATES.output // 10**6)
            assert told["likely_usd"] == format_usd(20 * rates.output // 10**6)
