"""Contexts of calls in a real ledger are made longer and shorter: each call costs what its prompt would then."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from random import Random
from typing import Any

import msgspec
import pytest
from tests.integration.test_cost_versions import FILES, FIRST, Conn, conn, declared, morning_of, release
from tests.integration.test_cost_versions import add_call as called

from groundplan.api.cost import what_if as cost_what_if
from groundplan.api.cost.book import Days
from groundplan.blueprint.model import Rates
from groundplan.core.errors import Invalid
from groundplan.core.ids import new_id
from groundplan.core.money import PICO, to_decimal
from groundplan.economics import price
from groundplan.economics.prices.time_of_day import rates_at, with_windows
from groundplan.economics.terms.split import explain_cost, split_cost
from groundplan.gateway.journal import ledger_store
from groundplan.ledger import rollup_store
from groundplan.ledger.model import Usage

__all__ = ["conn"]
LONGEST = Rates(input=8 * PICO, output=30 * PICO)
LONG = Rates(input=4 * PICO, output=15 * PICO, cache_read=PICO, long=LONGEST, long_above=400_000)
TIERED = Rates(input=2 * PICO, output=10 * PICO, cache_read=PICO // 2, long=LONG, long_above=200_000)
FLAT = Rates(input=PICO, output=2 * PICO)
RATES = {"at-rack": TIERED, "at-cloud": FLAT}


def add_attempt(
    conn: Conn, place: str, usage: Usage, workload: str = "ask", purpose: str = "", number: int = 1,
    outcome: str = "ok", hour: int = 9, day: date = FIRST,
) -> None:  # fmt: skip
    """One attempt as it is shipped."""
    cost = price.cost(RATES[place], usage) if outcome == "ok" else 0
    when = morning_of(day).replace(hour=hour)
    row: tuple[Any, ...] = (
        new_id(), 0, when, place, "rack", "acme/m", "settled", outcome, 200, to_decimal(cost), to_decimal(cost),
        msgspec.to_builtins(usage), False, [], 1.0, new_id(), 0.0, None, None, workload, number, False,
        split_cost(RATES[place], usage, cost) if cost else {}, purpose, explain_cost(RATES[place], usage, cost)[1],
    )  # fmt: skip
    ledger_store.insert_rows(conn, ledger_store.INSERT_ATTEMPTS, [row])


def served(conn: Conn, number: int = 1) -> None:
    made = declared(number, {"ask": "care", "other": "care"}, [], rates=TIERED)
    places = [
        msgspec.structs.replace(each, rates=RATES["at-cloud"]) if each.name == "at-cloud" else each
        for each in made.deployments
    ]
    release(
        conn,
        msgspec.structs.replace(made, deployments=places),
        morning_of(FIRST) + timedelta(minutes=number),
        {"groundplan.yaml": FILES},
    )


def calls() -> list[tuple[str, Usage]]:
    dice = Random(7)
    return [
        (dice.choice(["at-rack", "at-cloud"]), Usage(input=(n := 16 * dice.randrange(1, 40_000)), cache_read=n // 4,
                                                     output=dice.randrange(900)))
        for _ in range(60)
    ]  # fmt: skip


def scenario(conn: Conn, *changes: str, model: str | None = None, workload: str | None = None) -> tuple[int, int]:
    told = cost_what_if.scenario(conn, Days(FIRST, FIRST), workload, list(changes), model)
    steps = sum((Decimal(each["cost_usd"]) for each in told["steps"]), Decimal(0))
    assert Decimal(told["before_usd"]) + steps == Decimal(told["after_usd"]) and told["notes"] == []
    return int(Decimal(told["before_usd"]) * PICO), int(Decimal(told["after_usd"]) * PICO)


def longer(usage: Usage, factor: float) -> Usage:
    return Usage(input=int(usage.input * factor), cache_read=int(usage.cache_read * factor), output=usage.output)


@pytest.mark.parametrize("folded", [False, True])
def test_each_call_costs_what_its_changed_prompt_would(conn: Conn, folded: bool) -> None:
    served(conn)
    served(conn, 2)
    asks = calls()
    for place, (name, usage) in enumerate(asks):
        add_attempt(conn, name, usage, number=1 + place % 2)
    judged = Usage(input=300_000, output=5)
    add_attempt(conn, "at-rack", judged, purpose="judge")
    add_attempt(conn, "at-rack", judged, workload="other")
    if folded:
        rollup_store.roll_up(conn)
    beside = price.cost(TIERED, judged)
    spent = sum(price.cost(RATES[name], usage) for name, usage in asks)
    before = 0
    for factor in (0.25, 0.5, 1, 1.5, 2, 8):
        then = sum(price.cost(RATES[name], longer(usage, factor)) for name, usage in asks)
        found = scenario(conn, f"context={factor}", workload="ask")
        assert found == (spent + beside, then + beside), "what the gateway asks by itself stays as it is"
        assert before <= found[1]
        before = found[1]
        whole = scenario(conn, f"context={factor}")
        assert whole[1] - found[1] == price.cost(TIERED, longer(judged, factor))
        elsewhere = sum(price.cost(TIERED, longer(usage, factor)) for _, usage in asks)
        assert scenario(conn, f"context={factor}", model="at-rack", workload="ask")[1] == elsewhere + beside


@pytest.mark.parametrize(("factor", "scans"), [(2, 1), (20, 0)])
def test_long_prompts_are_found_without_reading_all(conn: Conn, factor: int, scans: int) -> None:
    """As long as what might reach another tier is long."""
    served(conn)
    short, middle = Usage(input=1000, output=5), Usage(input=150_000, output=5)
    for usage in [short] * 30 + [middle]:
        add_attempt(conn, "at-rack", usage)
    with conn.transaction():
        conn.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off")
        before, after = scenario(conn, f"context={factor}")
        counted = conn.execute("SELECT pg_stat_get_xact_numscans('attempt_long_prompt'::regclass)").fetchone()
    assert counted == (scans,)
    costs = [30 * price.cost(TIERED, longer(short, f)) + price.cost(TIERED, longer(middle, f)) for f in (1, factor)]
    assert [before, after] == costs


def test_another_price_by_the_request_counts_calls_of_a_price_without(
    conn: Conn, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_call = msgspec.structs.replace(FLAT, request=PICO // 200)
    monkeypatch.setitem(RATES, "at-cloud", by_call)
    served(conn)
    asks = calls()
    for name, usage in asks:
        add_attempt(conn, name, usage)
    add_attempt(conn, "at-rack", Usage(input=10), outcome="not_billed")
    judged = Usage(input=300_000, output=5)
    add_attempt(conn, "at-rack", judged, purpose="judge")
    there = sum(price.cost(by_call, usage) for _, usage in asks)
    assert scenario(conn, model="at-cloud")[1] == there + price.cost(TIERED, judged)
    assert scenario(conn, "users=3", model="at-rack")[1] == 3 * sum(
        price.cost(TIERED, usage) for _, usage in [*asks, (0, judged)]
    )


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("request_price", [0, PICO // 200])
def test_another_model_costs_as_at_the_hours_of_the_calls(
    conn: Conn, monkeypatch: pytest.MonkeyPatch, folded: bool, request_price: int
) -> None:
    """Also where prompts are long; in an hour in which the price changes half of it counts for each."""
    peak = msgspec.structs.replace(TIERED, request=request_price)
    night = msgspec.structs.replace(FLAT, request=request_price // 2)
    other = with_windows(peak, [(16 * 60 + 30, 30, night)])
    monkeypatch.setitem(RATES, "at-cloud", other)
    served(conn)
    dice, there, later = Random(3), 0, FIRST + timedelta(days=1)
    for day in (FIRST, later):
        for hour in [each for each in range(24) if each not in (0, 16)]:
            usage = Usage(input=16 * dice.randrange(1, 40_000), output=dice.randrange(900))
            add_attempt(conn, "at-rack", usage, hour=hour, day=day)
            add_attempt(conn, "at-rack", usage, purpose="judge", hour=hour, day=day)
            there += price.cost(rates_at(other, hour * 3_600_000), usage) + price.cost(TIERED, usage)
    if folded:
        rollup_store.roll_up(conn)
    told = cost_what_if.scenario(conn, Days(FIRST, later), None, [], "at-cloud")
    assert int(Decimal(told["after_usd"]) * PICO) == there
    add_attempt(conn, "at-rack", half := Usage(input=1000, output=100), hour=16)
    told = cost_what_if.scenario(conn, Days(FIRST, later), None, [], "at-cloud")
    change = price.cost(peak, half) + price.cost(night, half)
    assert int(Decimal(told["after_usd"]) * PICO) - there == change // 2


def test_what_embeds_would_answer_no_chat(conn: Conn) -> None:
    made = declared(1, {"ask": "care"}, [])
    places = [
        msgspec.structs.replace(each, kind="embeddings") if each.name == "at-cloud" else each
        for each in made.deployments
    ]
    release(conn, msgspec.structs.replace(made, deployments=places), morning_of(FIRST))
    with pytest.raises(Invalid) as refused:
        scenario(conn, model="at-cloud")
    assert (refused.value.code, bool(refused.value.hint)) == ("scenario_model", True)


def test_calls_that_would_not_fit_are_told(conn: Conn) -> None:
    """Of the other model's context, as it is served or as the price list says; else of where they were answered."""
    served(conn)
    for count in (100, 4_000, 4_100, 9_000):
        called(conn, FIRST, "ask", 1, "care", tokens=(("rack", count),))
    called(conn, FIRST, "ask", 1, "care", tokens=(("rack", 9_000),), cache="semantic")
    called(conn, FIRST, "other", 1, "care", tokens=(("cloud", 200_000),))

    def notes(*changes: str, model: str | None = None, workload: str | None = "ask") -> list[str]:
        told: list[str] = cost_what_if.scenario(conn, Days(FIRST, FIRST), workload, list(changes), model)["notes"]
        return told

    assert notes("users=10") == notes("context=0.5") == []
    assert notes("context=2") == [
        "2 of 4 calls that were looked at would not fit at-rack, which takes 8,192 tokens of prompt and answer together"
    ]
    assert notes(model="at-cloud")[0].startswith(
        "1 of 4 calls that were looked at would not fit at-cloud, which takes 8,192"
    )
    listed = "openai/gpt-4o-mini"
    assert notes(model=listed) == [] and notes("context=20", model=listed)[0].startswith("1 of 4 calls")
    assert notes(model=listed, workload=None)[0].startswith(f"1 of 5 calls that were looked at would not fit {listed}")
