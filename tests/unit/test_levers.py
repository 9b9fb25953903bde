"""Every lever is told where the facts show it, ranked by money with evidence, and is not told where they do not."""

from __future__ import annotations

import dataclasses
from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace
from tests.integration.gateway_stack import deployment, workload

from groundplan.blueprint.model import Grounding, Rates
from groundplan.core.money import PICO
from groundplan.economics.allocate.model import Line
from groundplan.economics.levers.find import rank_levers
from groundplan.economics.levers.model import (
    ActiveHours,
    FailedRetries,
    GroundedCall,
    Observations,
    OutputSizes,
    RetryOutcomes,
    StoredContent,
)
from groundplan.economics.levers.prompts import overlap, repeated_tokens
from groundplan.economics.levers.requests import batch_discount
from groundplan.economics.replay.opportunities import Opportunity, Spent

BATCH = Rates(input=PICO, output=4 * PICO)
RATES = Rates(input=2 * PICO, output=8 * PICO, batch=BATCH)
PLACES = {"own": replace(deployment("own", 1), model="m/own", rates=RATES)}
LINE = "Answer politely, in the language of the question, and name the source."
ONCE = "Say what is not known."


def declared(**more: Any) -> Any:
    return replace(workload("support", ["own"]), **more)


def spent(**more: Any) -> Spent:
    settings: dict[str, Any] = {
        "workload": "support", "deployment": "own", "model": "m/own", "calls": 100_000, "cost_usd": Decimal(900),
        "failed_usd": Decimal(0), "failed_attempts": 0, "input": 30_000_000, "cache_read": 0, "output": 10_000_000,
        **more,
    }  # fmt: skip
    return Spent(**settings)


def rank_opportunities(
    looked: Observations, *, mine: Any = None, row: Spent | None = None, lines: Any = ()
) -> list[Opportunity]:
    return rank_levers([spent() if row is None else row], [declared() if mine is None else mine], PLACES, looked, lines)


def named(found: list[Opportunity], lever: str) -> list[Opportunity]:
    return [each for each in found if each.lever == lever]


# prompts ------------------------------------------------------------------------------------------------------------


def test_what_a_prompt_says_twice_is_priced_with_every_call() -> None:
    text = "\n".join([LINE, ONCE, LINE, "   " + ONCE + "    "])
    tokens = repeated_tokens(text)
    assert tokens == (len(LINE) + len(ONCE) + 7) // 4
    (lever,) = named(
        rank_opportunities(Observations(30), mine=declared(system_prompt=text, prompt="polite@3")), "shorter prompts"
    )
    assert lever.saves_usd == tokens * Decimal(2) / 1_000_000 * 100_000
    assert "polite@3" in lever.what and str(tokens) in lever.evidence


def test_a_prompt_without_repetition_and_of_little_weight_is_left_alone() -> None:
    assert repeated_tokens(f"{LINE}\n{ONCE}\n- yes\n- yes") == 0
    assert (
        named(rank_opportunities(Observations(30), mine=declared(system_prompt=f"{LINE}\n{ONCE}")), "shorter prompts")
        == []
    )
    assert named(rank_opportunities(Observations(30)), "shorter prompts") == []


def test_instructions_that_are_most_of_the_input_are_worth_a_third() -> None:
    text = "".join(f"{n:03d} rule of its own kind.\n" for n in range(60))
    heavy = named(
        rank_opportunities(Observations(30), mine=declared(system_prompt=text), row=spent(input=45_000_000)),
        "shorter prompts",
    )
    assert len(heavy) == 1 and "90%" not in heavy[0].what and heavy[0].effort == "medium"
    assert (
        named(
            rank_opportunities(Observations(30), mine=declared(system_prompt=text), row=spent(input=200_000_000)),
            "shorter prompts",
        )
        == []
    )


def test_what_the_provider_had_cached_saves_less() -> None:
    text = f"{LINE}\n{LINE}"
    places = {"own": replace(PLACES["own"], rates=Rates(input=2 * PICO, output=0, cache_read=PICO // 5))}
    rows = [spent(cache_read=part) for part in (0, 30_000_000)]
    amounts = [
        named(rank_levers([row], [declared(system_prompt=text)], places, Observations(30)), "shorter prompts")[
            0
        ].saves_usd
        for row in rows
    ]
    assert amounts[0] == 10 * amounts[1]


# passages -----------------------------------------------------------------------------------------------------------

GROUNDED = declared(grounding=Grounding(sources=["handbook"], max_bytes=800))


def call(*passages: tuple[str, int, int], accepted: bool | None = None) -> GroundedCall:
    return GroundedCall("support", tuple((doc, "a.md", first, last) for doc, first, last in passages), accepted)


def test_lines_that_are_given_twice_are_padding() -> None:
    assert overlap(call(("d", 1, 10), ("d", 6, 15), ("e", 6, 15)).passages) == (30, 5)
    calls = [call(("d", 1, 10), ("d", 6, 15))] * 40
    (lever,) = named(rank_opportunities(Observations(30, grounded=calls), mine=GROUNDED), "padded contexts")
    assert lever.saves_usd == 200 * Decimal(5) / 20 * Decimal(2) / 1_000_000 * 100_000
    assert "200 of 800 lines" in lever.evidence


def test_calls_that_were_given_no_passages_have_none_to_spare() -> None:
    """Four of ten answers that were looked at were given some: so are four of ten calls of the month."""
    calls = [call(("d", 1, 10), ("d", 6, 15))] * 40
    looked = Observations(30, grounded=calls, sampled={"support": 100})
    (lever,) = named(rank_opportunities(looked, mine=GROUNDED), "padded contexts")
    assert lever.saves_usd == 200 * Decimal(5) / 20 * Decimal(2) / 1_000_000 * 100_000 * Decimal("0.4")


@pytest.mark.parametrize("text", [f"{LINE}\n{LINE}", "x" * 5000])
def test_what_was_paid_at_half_the_price_saves_half(text: str) -> None:
    """Batches, or a cheaper time of the day: 30 million tokens in and 10 out are $140 at these rates."""
    rates = Rates(input=2 * PICO, output=8 * PICO, cache_read=PICO // 5)
    places = {"own": replace(PLACES["own"], rates=rates)}
    whole, half = (
        {
            each.lever: each.saves_usd
            for each in rank_levers(
                [spent(cost_usd=Decimal(cost), bound_usd=Decimal(9), input=15 * 2_000_000)],
                [declared(system_prompt=text)], places, Observations(30),
            )
            if each.lever in ("shorter prompts", "cacheable prefixes")
        }
        for cost in (149, 79)
    )  # fmt: skip
    assert whole and {name: amount / 2 for name, amount in whole.items()} == half


@pytest.mark.parametrize(
    "calls", [[call(("d", 1, 10), ("d", 11, 20))] * 40, [call(("d", 1, 10), ("d", 6, 15))] * 5, []]
)
def test_passages_side_by_side_or_of_few_calls_are_no_padding(calls: list[GroundedCall]) -> None:
    assert named(rank_opportunities(Observations(30, grounded=calls), mine=GROUNDED), "padded contexts") == []


def outcomes(few_good: int, many_good: int) -> list[GroundedCall]:
    few = [call(("d", 1, 2), ("e", 1, 2), accepted=n < few_good) for n in range(100)]
    return few + [call(*((d, 1, 2) for d in "defg"), accepted=n < many_good) for n in range(300)]


def test_fewer_passages_are_told_where_answers_are_accepted_as_often() -> None:
    (lever,) = named(rank_opportunities(Observations(30, grounded=outcomes(96, 285)), mine=GROUNDED), "padded contexts")
    assert "2 passages instead of 4" in lever.what and "96% of 100" in lever.evidence
    assert lever.saves_usd == 200 * Decimal("0.375") * Decimal(2) / 1_000_000 * 100_000
    assert (
        named(rank_opportunities(Observations(30, grounded=outcomes(80, 285)), mine=GROUNDED), "padded contexts") == []
    )
    assert (
        named(rank_opportunities(Observations(30, grounded=outcomes(96, 285)), mine=declared()), "padded contexts")
        == []
    )


# use ----------------------------------------------------------------------------------------------------------------


def outputs(**more: Any) -> OutputSizes:
    settings: dict[str, Any] = {
        "workload": "support", "answers": 2000, "longest": 312, "common": 250, "set_aside_usd": Decimal(60), **more,
    }  # fmt: skip
    return OutputSizes(**settings)


def test_room_that_no_answer_needs_is_told_with_what_it_holds_back() -> None:
    mine = declared(max_output_tokens=4096)
    row = spent(bound_usd=Decimal(40))
    (lever,) = named(
        rank_opportunities(Observations(30, outputs=[outputs()]), mine=mine, row=row), "output that is never used"
    )
    spared = 1 - Decimal(390) / 4096
    # 300 tokens in and at most 4096 out of such a call, at a fourth of the price in
    of_cap = Decimal(4096 * 8) / (4096 * 8 + 300 * 2)
    assert lever.saves_usd == 40 * of_cap * spared and lever.frees_usd == Decimal("0.03") * spared
    judged = spent(purpose="guardrail", bound_usd=Decimal(900))
    (same,) = named(rank_levers([row, judged], [mine], PLACES, Observations(30, outputs=[outputs()])), lever.lever)
    assert same.saves_usd == lever.saves_usd, "what a judge may answer is not capped by the workload"
    assert "max_output: 390" in lever.what and "312 tokens" in lever.evidence


def test_room_of_a_prompt_is_not_the_cap_s() -> None:
    """Long prompts are set aside for by their bytes; a lower cap frees what it holds back of answers, no more."""
    mine = declared(max_output_tokens=4096)
    (lever,) = named(
        rank_opportunities(Observations(30, outputs=[outputs(set_aside_usd=Decimal(900))]), mine=mine),
        "output that is never used",
    )
    assert lever.frees_usd == (4096 - 390) * Decimal(8) / 1_000_000


@pytest.mark.parametrize("seen", [{"longest": 3000}, {"answers": 20}, {"set_aside_usd": Decimal(0)}])
def test_room_that_is_used_or_not_yet_known_is_not_told(seen: dict[str, Any]) -> None:
    found = rank_opportunities(Observations(30, outputs=[outputs(**seen)]), mine=declared(max_output_tokens=4096))
    assert named(found, "output that is never used") == []


def nightly(calls: int, at: tuple[int, ...] = (2,), days: int = 14) -> list[ActiveHours]:
    hours = days * len(at)
    return [ActiveHours("support", "index", "own", hours, calls * hours, Decimal(2) * hours, at[0], calls * days)]


def test_a_job_by_the_clock_is_told_to_take_batches() -> None:
    (lever,) = named(rank_opportunities(Observations(14, hours=nightly(400))), "calls that could be batched")
    assert lever.saves_usd == 28 * Decimal("0.5") * 30 / 14
    assert "mostly at 02:00 UTC" in lever.evidence and "index" in lever.what


def test_what_is_a_batch_already_is_not_told_to_become_one() -> None:
    """Lines of batches name no feature."""
    hours = [ActiveHours("support", "", "own", 14, 14 * 400, Decimal(28), 2, 14 * 400)]
    already = spent(batch_calls=14 * 400, batch_usd=Decimal(28))
    assert named(rank_opportunities(Observations(14, hours=hours), row=already), "calls that could be batched") == []
    half = spent(batch_calls=14 * 200, batch_usd=Decimal(7))
    (lever,) = named(rank_opportunities(Observations(14, hours=hours), row=half), "calls that could be batched")
    assert lever.saves_usd == 21 * Decimal("0.5") * 30 / 14 and lever.evidence.startswith("2,800 calls in 14 of")
    (index,) = named(
        rank_opportunities(Observations(14, hours=nightly(400)), row=already), "calls that could be batched"
    )
    assert index.saves_usd == 28 * Decimal("0.5") * 30 / 14, "calls that name a feature are none of those"


def test_what_guardrails_ask_for_each_call_is_none_to_batch() -> None:
    """Their judge is asked as often, and bears the feature of the calls that it judges."""
    judged = [dataclasses.replace(each, deployment="judge") for each in nightly(400)]
    places = {**PLACES, "judge": replace(PLACES["own"], name="judge")}
    rows = [spent(), spent(deployment="judge", purpose="guardrail", calls=5600, cost_usd=Decimal(28))]
    found = rank_levers(rows, [declared()], places, Observations(14, hours=[*nightly(400), *judged]))
    assert [each.deployment for each in named(found, "calls that could be batched")] == ["own"]
    rows[0] = spent(deployment="judge", calls=5600, cost_usd=Decimal(84))
    (lever,) = named(
        rank_levers(rows, [declared()], places, Observations(14, hours=judged)), "calls that could be batched"
    )
    assert lever.saves_usd == 21 * Decimal("0.5") * 30 / 14 and lever.evidence.startswith("2,800 calls")


def test_what_the_gateway_replays_at_night_is_nobody_s_to_batch() -> None:
    (mine,) = nightly(400)
    replayed = dataclasses.replace(mine, feature="experiment/replay")
    assert named(rank_opportunities(Observations(14, hours=[replayed])), "calls that could be batched") == []


@pytest.mark.parametrize(
    ("hours", "days"), [(nightly(10), 14), (nightly(400, tuple(range(8, 18))), 14), (nightly(400, days=3), 3)]
)
def test_calls_of_people_over_the_day_are_no_batch(hours: list[ActiveHours], days: int) -> None:
    assert named(rank_opportunities(Observations(days, hours=hours)), "calls that could be batched") == []


def test_without_a_price_of_batches_nothing_is_promised() -> None:
    assert batch_discount(RATES) == Decimal("0.5")
    assert batch_discount(Rates(input=PICO, output=PICO)) == 0
    listed = replace(RATES, source="genai-prices 0.2.3 openai/gpt-4.1-mini")
    assert batch_discount(listed) == 0, "calls cost there what they cost anywhere"
    assert batch_discount(listed, ["batches"]) == batch_discount(RATES, ["batches"]) == Decimal("0.5")
    places = {"own": replace(PLACES["own"], rates=Rates(input=PICO, output=PICO))}
    found = rank_levers([spent()], [declared()], places, Observations(14, hours=nightly(400)))
    assert named(found, "calls that could be batched") == []


def shared(team: str, workload: str, count: int, document: str = "d") -> list[GroundedCall]:
    passages = ((document, "a.md", 1, 9), ("e", "b.md", 3, 4))
    return [GroundedCall(workload, passages, None, team, Decimal(2))] * count


def test_the_same_passages_for_several_teams_are_told_with_what_asking_again_cost() -> None:
    calls = shared("care", "support", 20) + shared("sales", "sales-help", 5) + shared("care", "support", 9, "alone")
    (lever,) = named(rank_opportunities(Observations(15, grounded=calls)), "the same asked by several teams")
    assert lever.saves_usd == 24 * 2 * 2
    assert "care, sales" in lever.what and "25 calls" in lever.evidence and "24 of them" in lever.evidence


def test_a_sample_of_the_same_passages_stands_for_all_calls() -> None:
    """Of support 40,000 calls were answered and a thousand looked at; of sales all."""
    calls = shared("care", "support", 20) + shared("sales", "sales-help", 5)
    looked = Observations(30, grounded=calls, sampled={"support": 1000, "sales-help": 30})
    rows = [spent(calls=50_000, unanswered=10_000), spent(workload="sales-help", calls=20), spent(purpose="judge")]
    (lever,) = named(rank_levers(rows, [declared()], PLACES, looked), "the same asked by several teams")
    assert lever.saves_usd == (20 * 40 + 5) * Decimal(2) * 24 / 25


@pytest.mark.parametrize(("only", "count"), [(None, 1), ("sales-help", 1), ("support", 1), ("returns", 0), ("", 0)])
def test_what_is_about_several_workloads_is_told_for_each_of_them(only: str | None, count: int) -> None:
    looked = Observations(15, grounded=shared("care", "support", 20) + shared("sales", "sales-help", 20))
    found = named(rank_levers([], [declared()], PLACES, looked, (), only), "the same asked by several teams")
    assert [each.about for each in found] == [("sales-help", "support")] * count


@pytest.mark.parametrize(
    "calls",
    [
        shared("care", "support", 40) + shared("care", "returns", 40),
        shared("care", "support", 40) + shared("sales", "sales-help", 40, "other"),
        shared("care", "support", 4) + shared("sales", "sales-help", 4),
        shared("care", "support", 40) + shared("", "nobody", 40),
    ],
)
def test_one_team_other_passages_or_few_calls_are_no_duplicates(calls: list[GroundedCall]) -> None:
    assert named(rank_opportunities(Observations(15, grounded=calls)), "the same asked by several teams") == []


@pytest.mark.parametrize(("rescued", "calls", "count"), [(3, 200, 1), (120, 200, 0), (0, 5, 0)])
def test_retries_are_judged_by_what_they_rescue(rescued: int, calls: int, count: int) -> None:
    found = RetryOutcomes("support", calls, rescued, Decimal(7))
    told_of = named(rank_opportunities(Observations(30, retried=[found])), "retries that never help")
    assert [each.saves_usd for each in told_of] == [Decimal(7)] * count
    assert all(f"{rescued} of {calls}" in each.evidence for each in told_of)


@pytest.mark.parametrize(("rescued", "retries"), [(3, "retries that never help"), (120, "useless retries")])
def test_no_dollar_of_failed_attempts_is_told_twice(rescued: int, retries: str) -> None:
    looked = Observations(
        30,
        retried=[RetryOutcomes("support", 200, rescued, Decimal(7))],
        lost=[FailedRetries("support", "own", 9, Decimal(7))],
    )
    found = rank_opportunities(looked, row=spent(failed_usd=Decimal(10), failed_attempts=12))
    (first,) = named(found, "failed attempts")
    assert (first.saves_usd, first.evidence) == (Decimal(3), "3 attempts cost $3.0000")
    assert {each.lever: each.saves_usd for each in found if "retries" in each.lever} == {retries: Decimal(7)}


def test_of_a_workload_without_retries_only_what_failed_is_told() -> None:
    looked = Observations(30, lost=[FailedRetries("other", "own", 9, Decimal(7))])
    found = rank_opportunities(looked, row=spent(failed_usd=Decimal(10), failed_attempts=12, unanswered=900))
    assert [(each.lever, each.workload, each.saves_usd) for each in found] == [
        ("failed attempts", "support", Decimal(10)), ("useless retries", "other", Decimal(7)),
    ]  # fmt: skip


# what stands ready --------------------------------------------------------------------------------------------------


def line(term: str, usd: int, workload: str = "support", deployment: str = "rack") -> Line:
    return Line(
        term=term, workload=workload, amount=usd * PICO, basis="allocated", rule="", source="", deployment=deployment
    )


def test_idle_capacity_is_the_book_s_own_line() -> None:
    lines = [line("capacity", 40), line("idle", 60, "")]
    (lever,) = named(rank_opportunities(Observations(15), lines=lines), "idle capacity")
    assert lever.saves_usd == 120 and "60%" in lever.evidence and "rack" in lever.what
    assert (
        named(rank_opportunities(Observations(15), lines=[line("capacity", 90), line("idle", 10, "")]), "idle capacity")
        == []
    )
    assert named(rank_opportunities(Observations(15), lines=[line("capacity", 90)]), "idle capacity") == []


def test_a_credit_makes_no_capacity_more_idle() -> None:
    lines = [line("capacity", 80), line("idle", 20, ""), line("credit", -60)]
    assert named(rank_opportunities(Observations(15), lines=lines), "idle capacity") == []


@pytest.mark.parametrize(("reads", "paid", "count"), [(0, 12, 1), (2, 12, 0), (0, 0, 0)])
def test_content_that_nobody_reads_costs_its_logs(reads: int, paid: int, count: int) -> None:
    kept = StoredContent("support", 3.2, 9000, reads)
    told_of = named(
        rank_opportunities(Observations(30, content=[kept]), lines=[line("logs", paid)]), "logs nobody reads"
    )
    assert [each.saves_usd for each in told_of] == [Decimal(12)] * count


def test_the_most_money_comes_first_and_cents_are_left_out() -> None:
    looked = Observations(
        30,
        hours=nightly(400),
        retried=[RetryOutcomes("support", 100, 0, Decimal("0.001"))],
        content=[StoredContent("support", 1, 9, 0)],
    )
    found = rank_opportunities(looked, lines=[line("logs", 5), line("idle", 900, "")])
    amounts = [each.saves_usd for each in found]
    assert amounts == sorted(amounts, reverse=True) and len(found) == 3
    assert all(each.evidence and each.proof and each.effort in ("small", "medium") for each in found)
