"""Levers are found in what calls cost, ranked by money, and say what is still to prove."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.integration.gateway_stack import deployment, workload

from groundplan.blueprint.model import Rates, Routing
from groundplan.core.money import PICO
from groundplan.economics.levers.combined import combined_savings
from groundplan.economics.prices.time_of_day import with_windows
from groundplan.economics.replay.opportunities import Opportunity, Spent, cost, found

LARGE = Rates(input=2 * PICO, output=8 * PICO, cache_read=PICO // 2)
SMALL = Rates(input=PICO // 2, output=PICO)
PLACES = {
    "large": replace(deployment("large", 1), model="m/large", rates=LARGE),
    "small": replace(deployment("small", 1), model="m/small", rates=SMALL),
    "elsewhere": replace(deployment("elsewhere", 1), model="m/free", rates=Rates(input=0, output=0)),
}
WORKLOADS = [workload("support", ["large", "small"])]


def spent(**more: object) -> Spent:
    settings = {
        "workload": "support", "deployment": "large", "model": "m/large", "calls": 1000, "cost_usd": Decimal(10),
        "failed_usd": Decimal(0), "failed_attempts": 0, "input": 300_000, "cache_read": 0, "output": 100_000, **more,
    }  # fmt: skip
    return Spent(**settings)  # type: ignore[arg-type]


def test_a_cheaper_model_within_what_the_workload_may_use_is_repriced_exactly() -> None:
    (lever,) = found([spent()], WORKLOADS, PLACES, 15)
    assert (lever.lever, lever.workload) == ("over-strong model", "support")
    assert lever.saves_usd == 2 * (Decimal("1.4") - Decimal("0.25"))
    assert "m/small at small" in lever.what
    assert "unknown" in lever.proof


def test_a_model_that_is_cheaper_at_some_hours_is_repriced_at_the_hours_of_the_calls() -> None:
    dear = Rates(input=3 * PICO, output=9 * PICO, request=PICO // 1000)
    night = with_windows(dear, [(16 * 60 + 30, 20 * 60, SMALL)])
    places = {**PLACES, "small": replace(PLACES["small"], rates=night)}
    assert found([spent()], WORKLOADS, places, 30) == [], "of calls at nobody knows which hours"
    for hour, there in ((17, "0.25"), (16, "1.525"), (9, "2.8")):
        levers = found([spent(hours={hour: (1000, 300_000, 0, 100_000)})], WORKLOADS, places, 30)
        assert [each.saves_usd for each in levers] == [Decimal("1.4") - Decimal(there)] * (hour == 17)
    half = {17: (500, 150_000, 0, 50_000), 9: (100, 0, 0, 0)}
    (lever,) = found([spent(hours=half)], WORKLOADS, places, 30)
    assert lever.saves_usd == Decimal("1.4") - Decimal("0.125") - Decimal("0.1")


def test_what_a_new_workload_cost_in_its_first_days_is_told_for_a_month() -> None:
    """It is called since three days: what it cost is not that of the thirty that are looked at."""
    (month,), (new,) = (found([spent()], WORKLOADS, PLACES, 30, seen) for seen in ({}, {"support": 3.0}))
    assert new.saves_usd == 10 * month.saves_usd
    (begun,) = found([spent()], WORKLOADS, PLACES, 30, {"support": 0.01})
    assert begun.saves_usd == 30 * month.saves_usd, "an hour is no month, it counts as a day"
    assert found([spent()], WORKLOADS, PLACES, 30, {"support": 31.5}) == [month]


def test_what_the_workload_may_not_use_is_never_proposed() -> None:
    assert not any("elsewhere" in each.what for each in found([spent()], WORKLOADS, PLACES, 30))
    assert found([spent()], [workload("support", ["large"])], PLACES, 30) == []


def test_what_embeds_or_judges_is_not_replaced_by_what_chats() -> None:
    """A free chat model would cost less than any embedding."""
    places = {**PLACES, "vectors": replace(deployment("vectors", 1), model="m/vectors", rates=LARGE, kind="embeddings")}
    mine = [workload("support", ["large", "elsewhere"])]
    assert [each.candidate for each in found([spent()], mine, places, 30)] == ["elsewhere"]
    assert found([spent(deployment="vectors", model="m/vectors")], mine, places, 30) == []
    judged = spent(purpose="guardrail", failed_usd=Decimal(1), failed_attempts=2, input=4_000_000)
    (lever,) = found([judged], mine, places, 30)
    assert (lever.lever, lever.what.endswith("(guardrail)")) == ("failed attempts", True)


def test_what_a_floor_keeps_out_is_never_proposed() -> None:
    barred = Routing(barred={"small": "its tone is 40%, below the floor of 90%"})
    assert found([spent()], [replace(WORKLOADS[0], routing=barred)], PLACES, 30) == []


def test_billed_failures_and_uncached_prefixes_are_told_by_money() -> None:
    row = spent(input=4_000_000, failed_usd=Decimal(3), failed_attempts=12)
    levers = found([row], WORKLOADS, PLACES, 30)
    assert [each.lever for each in levers] == ["over-strong model", "failed attempts", "cacheable prefixes"]
    amounts = [each.saves_usd for each in levers]
    assert amounts == sorted(amounts, reverse=True)
    assert levers[2].saves_usd == Decimal(2) * Decimal("1.5")


def test_the_workload_s_own_instructions_are_the_prefix_that_is_known() -> None:
    own = replace(WORKLOADS[0], system_prompt="x" * 4 * 1500, prompt="faq@3", deployments=["large"])
    row = spent(calls=1000, input=4_000_000, cache_read=500_000)
    (lever,) = found([row], [own], PLACES, 30)
    assert lever.saves_usd == Decimal("1.5"), "1.5 million tokens of instructions, 0.5 of them read already"
    assert "let the provider keep faq@3" in lever.what and "about 1500 of 4000 tokens a prompt" in lever.evidence
    assert "assumes" not in lever.proof
    assert found([spent(calls=1000, input=4_000_000, cache_read=1_600_000)], [own], PLACES, 30) == []


def test_cents_and_unknown_workloads_are_left_out() -> None:
    assert found([spent(input=10, output=1)], WORKLOADS, PLACES, 30) == []
    assert found([spent(workload="gone")], WORKLOADS, PLACES, 30) == []


def test_prompt_caches_are_priced_at_their_own_rate() -> None:
    assert cost(LARGE, spent(input=2_000_000, cache_read=1_000_000, output=0)) == Decimal("2.5")


def lever(saves: int, name: str = "over-strong model", at: str = "large", of: str = "a", **more: Any) -> Opportunity:
    told = {"candidate": "small"} if name == "over-strong model" else {}
    return Opportunity(name, of, Decimal(saves), "", "", "small", "", deployment=at, **{**told, **more})


CALLS = {("a", "large"): Decimal(100), ("a", "small"): Decimal(50), ("b", "large"): Decimal(10)}


def test_levers_together_save_no_dollar_twice() -> None:
    models = [lever(50), lever(30, candidate="smaller"), lever(10, at="small")]
    assert combined_savings(models, CALLS) == 60, (
        "of several models for the same calls the best, of other calls as well"
    )
    assert combined_savings([lever(50), lever(60, "padded contexts")], CALLS) == 80, (
        "the second saves of what the first left"
    )
    assert combined_savings([lever(90), lever(90, "shorter prompts"), lever(90, "cacheable prefixes")], CALLS) < 100
    assert combined_savings([lever(7, "idle capacity", "", ""), lever(3, "logs nobody reads", "")], CALLS) == 10
    assert (
        combined_savings([lever(900)], CALLS) == 100
        and combined_savings([lever(9)], {}) == 0
        and combined_savings([], CALLS) == 0
    )


def test_what_several_workloads_save_is_of_all_of_them() -> None:
    shared = lever(16, "the same asked by several teams", "", others=("b",))
    assert combined_savings([shared], CALLS) == 16
    alone = {place: cost for place, cost in CALLS.items() if place[0] == "b"}
    assert combined_savings([shared], alone) == 8, "half of it is of the other one"


@given(st.lists(st.tuples(st.integers(0, 10**6), st.sampled_from(["large", "small", ""]), st.sampled_from("ab"))))
def test_levers_together_never_save_more_than_was_spent(saves: list[tuple[int, str, str]]) -> None:
    levers = [lever(amount, f"lever {place}", at, of) for place, (amount, at, of) in enumerate(saves)]
    told = combined_savings(levers, CALLS)
    assert 0 <= told <= 160
    assert told <= sum(each.saves_usd for each in levers)


def test_long_prompts_are_repriced_at_the_price_of_long_prompts() -> None:
    """Whoever is cheap for short ones may be the dearer one for these."""
    row = spent(calls=10, input=80_000, output=1_000)
    assert found([row], WORKLOADS, PLACES, 30)[0].candidate == "small"
    long = replace(SMALL, long=replace(SMALL, input=3 * PICO, output=9 * PICO), long_above=8_000)
    assert cost(long, row) == cost(SMALL, row), "a prompt of exactly so many tokens is none of them"
    places = {**PLACES, "small": replace(PLACES["small"], rates=replace(long, long_above=7_999))}
    assert not [each for each in found([row], WORKLOADS, places, 30) if each.candidate]


def test_who_cannot_hold_the_prompts_is_never_proposed() -> None:
    row = spent(calls=10, input=81_920, output=1)
    assert not [each for each in found([row], WORKLOADS, PLACES, 30) if each.candidate]
    places = {**PLACES, "small": replace(PLACES["small"], context_tokens=8_193)}
    assert "small" in {each.candidate for each in found([row], WORKLOADS, places, 30)}


def test_a_cheaper_model_saves_no_more_than_the_calls_cost() -> None:
    """A price by the time of day is known here as its dearest, and these calls were made when it was cheap."""
    (one,) = found([spent(cost_usd=Decimal("0.5"))], WORKLOADS, PLACES, 30)
    assert one.saves_usd == Decimal("0.5") - cost(SMALL, spent())
