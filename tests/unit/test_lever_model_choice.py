"""What a choice of models saved: against the strongest alone, checks included; and who is kept out although cheaper."""

from __future__ import annotations

from dataclasses import replace

import pytest
from msgspec import structs

from groundplan.blueprint.model import Rates
from groundplan.core.money import PICO
from groundplan.economics.levers.model_choice import (
    Answer,
    Place,
    check_floor,
    compare_places,
    describe_savings,
    routing_savings,
    strongest_place,
)
from groundplan.economics.prices.time_of_day import with_windows

MTOK = 1_000_000
SMALL = Place("small", "acme/small", Rates(input=PICO, output=2 * PICO), {"tone": 0.93})
LARGE = Place("large", "acme/large", Rates(input=5 * PICO, output=10 * PICO), {"tone": 0.96})
TINY = Place("tiny", "acme/tiny", Rates(input=PICO // 10, output=PICO // 10), {"tone": 0.4}, "its tone is 40%")
COUNTS = {"input": MTOK, "output": MTOK}


def test_an_answer_of_the_small_model_saves_what_the_large_one_would_have_cost() -> None:
    by_small = Answer("small", 3 * PICO, COUNTS, 3 * PICO)
    by_large = Answer("large", 15 * PICO, COUNTS, 15 * PICO)
    found = routing_savings([by_small, by_large], [SMALL, LARGE, TINY])
    assert found is not None and found.strongest == "large"
    assert (found.alone, found.cost, found.by_routing, found.by_cache) == (30 * PICO, 18 * PICO, 12 * PICO, 0)


def test_a_price_by_the_request_counts_answers_of_places_without_one() -> None:
    by_call = replace(LARGE, rates=structs.replace(LARGE.rates, request=PICO))
    answers = [Answer("small", 3 * PICO, COUNTS, 3 * PICO)] * 2
    found = routing_savings(answers, [SMALL, by_call])
    assert found is not None and (found.alone, found.by_routing) == (32 * PICO, 26 * PICO)
    assert [(each.place.name, each.cost) for each in compare_places(answers, [SMALL, by_call])] == [
        ("small", 6 * PICO), ("large", 32 * PICO)
    ]  # fmt: skip


def test_a_price_by_time_of_day_is_that_of_each_answer() -> None:
    night = structs.replace(LARGE.rates, input=PICO, output=4 * PICO)
    by_hour = replace(LARGE, rates=with_windows(LARGE.rates, [(0, 6 * 60, night)]))
    answers = [Answer("small", 3 * PICO, COUNTS, 3 * PICO, at_ms=hour * 3_600_000) for hour in (3, 12)]
    found = routing_savings(answers, [SMALL, by_hour])
    assert found is not None and (found.alone, found.by_routing) == (20 * PICO, 14 * PICO)
    assert [each.cost for each in compare_places(answers, [SMALL, by_hour])] == [6 * PICO, 20 * PICO]


def test_a_price_of_long_prompts_is_that_of_each_answer() -> None:
    long = structs.replace(TINY.rates, input=PICO, output=4 * PICO)
    tiny = replace(TINY, rates=structs.replace(TINY.rates, long=long, long_above=1_000))
    prompts = ({"input": 1_001, "output": 1_000}, {"input": 400, "cache_read": 600, "output": 1_000})
    answers = [Answer("small", 10 * PICO, counts, 10 * PICO) for counts in prompts]
    (found,) = compare_places(answers, [tiny])
    assert found.cost == 5_001 * PICO // MTOK + 2_000 * PICO // 10 // MTOK


def test_a_try_that_did_not_pass_and_its_judge_are_taken_off() -> None:
    escalated = Answer("large", 15 * PICO + 3 * PICO + PICO, COUNTS, 15 * PICO)
    found = routing_savings([escalated], [SMALL, LARGE])
    assert found is not None and found.by_routing == -4 * PICO
    assert describe_savings(found, []) == [], "nothing was saved"


def test_answers_from_the_cache_are_told_apart() -> None:
    kept = Answer("", 0, {}, 0, cached=True, saved=3 * PICO)
    found = routing_savings([Answer("small", 3 * PICO, COUNTS, 3 * PICO), kept], [SMALL, LARGE])
    assert found is not None
    assert (found.by_routing, found.by_cache, found.answers, found.cached) == (12 * PICO, 3 * PICO, 2, 1)
    assert describe_savings(found, [])[0] == (
        "Of the $18.00 that large alone would have cost for 2 answers, choosing models saved $12.00 and answers from "
        "the cache $3.00 (1 of them)."
    )


def test_who_is_below_a_floor_is_named_with_what_it_would_have_saved() -> None:
    answers = [Answer("small", 3 * PICO, COUNTS, 3 * PICO)]
    others = compare_places(answers, [SMALL, LARGE, TINY])
    assert [(each.place.name, each.saves, each.answers) for each in others] == [
        ("tiny", 3 * PICO - PICO // 5, 0), ("small", 0, 1), ("large", -12 * PICO, 0),
    ]  # fmt: skip
    lines = describe_savings(routing_savings(answers, [SMALL, LARGE, TINY]), others)
    assert lines[-1] == (
        "tiny (acme/tiny) would have been $2.80 cheaper and takes none of these calls: its tone is 40%."
    )
    assert all("large (" not in line for line in lines), "what is dearer needs no reason"


def test_the_strongest_may_take_calls() -> None:
    assert strongest_place([], [TINY]) is None and routing_savings([], [TINY]) is None
    unknown = [Place(name, name, each.rates, {}) for name, each in (("small", SMALL), ("large", LARGE))]
    best = strongest_place([Answer("small", 3, COUNTS, 3)], unknown)
    assert best is not None and best.name == "large", "of unknown ones the dearest"


@pytest.mark.parametrize(
    ("share", "low", "high", "judged", "kept"),
    [
        (0.96, 0.9, 0.99, 50, "yes"),
        (0.93, 0.88, 0.97, 50, "unknown"),
        (0.7, 0.6, 0.8, 50, "no"),
        (1.0, 0.5, 1.0, 4, "unknown"),
    ],
)
def test_a_floor_is_kept_by_what_was_accepted(share: float, low: float, high: float, judged: int, kept: str) -> None:
    assert check_floor("tone", 0.95, share, low, high, judged).kept == kept
