"""The watch over spending: six kinds are told with their size, quiet days are quiet, and causes name what changed."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import pytest

from groundplan.core.money import PICO
from groundplan.economics.anomaly import loop as loops
from groundplan.economics.anomaly.cause import (
    LargestCall,
    Slice,
    describe_alarm,
    find_causes,
    is_single_call,
    seasonal_level,
    spend_components,
)
from groundplan.economics.anomaly.daylight_saving import align_to_daylight_saving
from groundplan.economics.anomaly.detect import Baseline, detect
from groundplan.economics.anomaly.loop import Loop, is_loop, stopped
from groundplan.economics.anomaly.model import Alarm, Hour, Kind, Minute

Counted = TypeVar("Counted", Hour, Minute)
START = datetime(2026, 1, 5, tzinfo=UTC)
NOW = START + timedelta(days=28, hours=11)
KNOWN = frozenset({"ana", "bo"})


def hour(place: int) -> Hour:
    wobble = 1 + 0.04 * ((place * 7919) % 11 - 5) / 5
    calls = round(600 * wobble)
    return Hour(START + timedelta(hours=place), calls, calls * PICO // 100, calls * 1000, calls // 2,
                {"small": calls // 2, "cache": calls - calls // 2})  # fmt: skip


PAST = Baseline(hour(place) for place in range(28 * 24))


def test_the_past_of_thousands_of_workloads_is_kept_as_numbers() -> None:
    tracemalloc.start()
    kept = [Baseline(hour(place) for place in range(28 * 24)) for _ in range(3)]
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held / len(kept) < 40 * 28 * 24, "bytes"


def minutes(**changed: Any) -> list[Minute]:
    """An hour of ten calls a minute, of which the last fifteen minutes differ."""
    usual: dict[str, Any] = {"calls": 10, "cost": PICO // 10, "tokens": 10_000, "cached": 5,
                             "by_model": {"small": 5, "cache": 5}, "by_caller": {"ana": 6, "bo": 4}}  # fmt: skip
    made = []
    for place in range(60):
        at = NOW + timedelta(minutes=place)
        made.append(Minute(at, **(usual if place < 45 else {**usual, **changed})))
    return made


def times(one: Counted, factor: int) -> Counted:
    mix = {name: calls * factor for name, calls in one.by_model.items()}
    return replace(one, calls=one.calls * factor, cost=one.cost * factor, tokens=one.tokens * factor,
                   cached=one.cached * factor, by_model=mix)  # fmt: skip


def kinds(found: list[Alarm]) -> set[str]:
    return {alarm.kind for alarm in found}


def test_a_usual_hour_is_not_told() -> None:
    assert detect(PAST, minutes(), KNOWN, {"ana": 9.0, "bo": 6.0}) == []


def test_an_ordinary_day_after_a_holiday_is_not_told() -> None:
    """A hundred calls a minute, of which hardly any were made on the day before."""
    past = [times(hour(place), 10 if place < 27 * 24 else 1) for place in range(28 * 24)]
    usual = Baseline(past)
    assert detect(usual, [times(each, 10) for each in minutes()], KNOWN, {"ana": 90.0, "bo": 60.0}) == []
    twice = [times(each, 10 if place < 45 else 25) for place, each in enumerate(minutes())]
    assert "spend" in kinds(detect(usual, twice, KNOWN, {"ana": 900.0, "bo": 900.0}))


def at_night(calls: int, cost: int) -> list[Minute]:
    """One call in each of the last minutes before two o'clock at night."""
    night = START + timedelta(days=28, hours=1)
    one = Minute(night, 1, cost, 1000, 0, {"small": 1})
    return [
        replace(one if place >= 60 - calls else Minute(night, 0, 0, 0, 0), at=night + timedelta(minutes=place))
        for place in range(60)
    ]


@pytest.mark.parametrize("least", [0, 1])
def test_some_calls_at_an_hour_at_which_there_are_none_are_not_told(least: int) -> None:
    """An office that is empty at night, or nearly: whoever works late spends as much a call as by day."""
    past = [
        hour(place)
        if 7 <= place % 24 < 18
        else Hour(START + timedelta(hours=place), least, least * 1000, least * 10, 0)
        for place in range(28 * 24)
    ]
    usual = Baseline(past)
    for calls in (1, 5, 20):
        assert detect(usual, at_night(calls, PICO // 100), KNOWN) == [], calls
    loud = [replace(each, calls=3, cost=3 * PICO // 100) for each in at_night(60, PICO // 100)]
    assert "spend" in kinds(detect(usual, loud, KNOWN)), "much of it is"


def office(place: int, begins: int) -> Hour:
    """Nine hours a day from Monday to Friday, as wide as people are."""
    day, of_day = divmod(place, 24)
    calls = round(600 * (1 + 0.04 * ((place * 7919) % 11 - 5) / 5)) if day % 7 < 5 and 0 <= of_day - begins < 9 else 4
    return Hour(START + timedelta(hours=place), calls, calls * PICO // 100, calls * 1000, calls // 2,
                {"small": calls // 2, "cache": calls - calls // 2})  # fmt: skip


@pytest.mark.parametrize("weeks", [1, 2, 3])
@pytest.mark.parametrize("later", [1, -1])
def test_an_office_that_opens_by_another_clock_is_as_usual(later: int, weeks: int) -> None:
    """From some Sunday on it opens an hour sooner or later by UTC, as it does twice a year."""
    change = (28 - 7 * weeks) * 24 + 6 * 24
    past = [office(place, 8 + (later if place >= change else 0)) for place in range(28 * 24 + 24)]
    usual, was = Baseline(past), Baseline(office(place, 8) for place in range(29 * 24))
    first, last = (8 + later, 17 + later - 1)
    for begins in (first, last):
        at = START + timedelta(days=29, hours=begins)
        now = [replace(each, at=at + timedelta(minutes=place)) for place, each in enumerate(minutes())]
        assert detect(usual, now, KNOWN, {"ana": 9.0, "bo": 6.0}) == [], begins
        if begins == (last if later > 0 else first):
            assert kinds(detect(was, now, KNOWN, {"ana": 9.0, "bo": 6.0})) == {"spend"}, "by the clock of before"
        twice = [replace(each, cost=3 * each.cost) for each in now]
        assert "spend" in kinds(detect(usual, twice, KNOWN, {"ana": 9.0, "bo": 6.0}))


def test_a_day_of_another_shape_is_no_other_clock() -> None:
    hours = [office(place, 8) for place in range(27 * 24)] + [hour(place) for place in range(27 * 24, 29 * 24)]
    assert align_to_daylight_saving(hours) == hours
    assert align_to_daylight_saving(hours[: 3 * 24]) == hours[: 3 * 24]
    assert align_to_daylight_saving([]) == []


def test_the_first_monday_after_a_launch_is_no_news() -> None:
    """From Friday at four on: till Monday there was an office for an hour, and a weekend."""
    past = Baseline(office(place, 8) for place in range(4 * 24 + 16, 7 * 24 + 9))
    begins = START + timedelta(days=7, hours=9)
    monday = [replace(each, at=begins + timedelta(minutes=place)) for place, each in enumerate(minutes())]
    assert detect(past, monday, KNOWN, {"ana": 9.0, "bo": 6.0}) == []
    dear = [replace(each, cost=4 * each.cost) for each in monday]
    assert kinds(detect(past, dear, KNOWN, {"ana": 9.0, "bo": 6.0})) == {"spend"}


def test_a_call_that_costs_something_where_none_did_is_not_told() -> None:
    free = Baseline(replace(hour(place), cost=0) for place in range(28 * 24))
    usual = [replace(each, cost=0) for each in minutes()]
    assert detect(free, [*usual[:-1], replace(usual[-1], cost=PICO // 1000)], KNOWN, {"ana": 9.0, "bo": 6.0}) == []
    paid = [replace(each, cost=each.calls * PICO // 100) for each in minutes()]
    assert kinds(detect(free, paid, KNOWN, {"ana": 9.0, "bo": 6.0})) == {"spend"}


@pytest.mark.parametrize(
    ("kind", "changed"),
    [
        ("spend", {"calls": 60, "cost": 6 * PICO // 10, "tokens": 60_000, "cached": 30}),
        ("tokens_per_call", {"tokens": 30_000}),
        ("cache_rate", {"cached": 0}),
        ("mix", {"by_model": {"large": 5, "cache": 5}}),
        ("new_caller", {"by_caller": {"ana": 6, "stranger": 4}}),
        ("runaway", {"by_caller": {"ana": 6, "bo": 90}}),
    ],
)
def test_each_kind_is_told_by_its_name(kind: str, changed: dict[str, Any]) -> None:
    found = detect(PAST, minutes(**changed), KNOWN, {"ana": 9.0, "bo": 6.0})
    assert kind in kinds(found)
    alarm = next(each for each in found if each.kind == kind)
    assert alarm.score >= 1 and NOW + timedelta(minutes=40) <= alarm.since <= NOW + timedelta(minutes=50)
    if kind == "tokens_per_call":
        assert alarm.seen == pytest.approx(3000, rel=0.1) and round(alarm.usual) == 1000
    if kind in ("mix", "new_caller", "runaway"):
        assert alarm.subject == {"mix": "large", "new_caller": "stranger", "runaway": "bo"}[kind]


def test_a_cache_that_is_turned_on_is_no_other_model() -> None:
    without = Baseline(
        replace(hour(place), cached=0, by_model={"small": hour(place).calls}) for place in range(28 * 24)
    )
    usual = minutes(by_model={"small": 1, "cache": 9}, cached=9)
    before = [replace(each, by_model={"small": 10}, cached=0) for each in usual[:45]]
    assert detect(without, [*before, *usual[45:]], KNOWN, {"ana": 9.0, "bo": 6.0}) == []


def test_without_history_only_a_loop_is_told() -> None:
    loop = minutes(cost=PICO * 50, by_caller={"stranger": 300})
    assert kinds(detect(Baseline([]), loop)) == {"runaway"}
    assert detect(PAST, []) == []


def test_each_caller_in_a_loop_is_told() -> None:
    loops = minutes(by_caller={"ana": 6, "bo": 90, "stranger": 150})
    found = [alarm for alarm in detect(PAST, loops, KNOWN, {"ana": 9.0, "bo": 6.0}) if alarm.kind == "runaway"]
    assert [(alarm.subject, alarm.usual) for alarm in found] == [("bo", 6.0), ("stranger", 0.0)]


def part(cost: int, **values: str) -> Slice:
    return Slice({"team": "support", "model": "small", "prompt": "faq@1", **values}, 10, cost * PICO, 100)


def test_a_cause_is_what_holds_most_of_the_excess() -> None:
    before = [part(10), part(10, team="sales")]
    during = [part(1), part(40, prompt="faq@2"), part(1, team="sales")]
    found = find_causes(before, during, 10, 1)
    assert (found[0].dimension, found[0].value, found[0].new) == ("prompt", "faq@2", True)
    assert [cause.value for cause in found if cause.dimension == "team"] == ["support"]
    assert not [cause for cause in found if cause.dimension == "model"]


def test_what_holds_no_more_than_before_is_no_cause() -> None:
    """Everybody asks ten times as much: neither who always asked most, nor the prompt before the new one."""
    before = [part(90), part(10, team="sales")]
    assert find_causes(before, [part(90), part(10, team="sales")], 10, 1) == []
    (cause,) = find_causes(before, [part(40), part(60, team="sales")], 10, 1)
    assert (cause.value, round(cause.share, 2)) == ("sales", 0.66)
    rolled = [part(90), part(10, prompt="faq@2")]
    assert find_causes([part(90)], rolled, 10, 1, 0.0) == [], "most calls still have the prompt that they always had"


def test_what_moved_to_a_cheaper_model_is_the_cause_of_another_mix_and_not_what_costs_more() -> None:
    large, small = {"model": "large"}, {"model": "small"}
    before = [replace(part(100, **large), calls=100), replace(part(100, team="sales", **large), calls=100)]
    moved = replace(part(2, team="sales", **small), calls=100)
    during = [replace(part(105, **large), calls=101), moved]
    ((first, team),) = [[(c.dimension, c.value, c.new) for c in find_causes(before, during, 1, 1, 1.0, "small")]]
    assert (first, team) == (("model", "small", True), ("team", "sales", False))
    by_cost = {cause.value for cause in find_causes(before, during, 1, 1)}
    assert "support" in by_cost and "sales" not in by_cost, "weighed by cost it would be who moved nothing"


@pytest.mark.parametrize(("kind", "usual"), [("tokens_per_call", 100.0), ("spend", 330.0)])
def test_who_asks_most_at_noon_every_day_is_no_cause_of_what_is_unusual_at_noon(kind: Kind, usual: float) -> None:
    """At noon there are three times as many calls as in the mean of a day; those of sales have become long."""
    before = [replace(part(2400), calls=2400), replace(part(240, team="sales"), calls=240)]
    during = [replace(part(300), calls=300), replace(part(120, team="sales"), calls=30)]
    alarm, hours = Alarm(kind, NOW, 2 * usual, usual, 2.0), (24.0, 1.0)
    noon = seasonal_level(alarm, before, during, hours)
    assert noon == pytest.approx(3)
    (cause,) = find_causes(before, during, *hours, noon)
    assert (cause.dimension, cause.value, cause.new) == ("team", "sales", False)
    assert find_causes(before, during, *hours) == [], "without the hour of the day whoever asks most holds the most"
    assert (
        seasonal_level(replace(alarm, kind="runaway"), before, during, hours)
        == seasonal_level(alarm, [], during, hours)
        == 1.0
    )


def test_the_sentence_says_when_how_much_and_why() -> None:
    alarm = Alarm("tokens_per_call", NOW, 3300.0, 1000.0, 2.0)
    text = describe_alarm(alarm, find_causes([part(10)], [part(40, prompt="faq@2")], 10, 1))
    assert text == "since 11:00 +2,300 tokens a call: prompt faq@2 (new)"


def test_more_spending_is_told_with_what_it_is_made_of() -> None:
    """Also where every dimension has one value: more of the same callers have a cause, too."""
    alarm, hours = Alarm("spend", NOW, 4.0, 1.0, 2.0), (24.0, 1.0)
    usual = [replace(part(24), calls=240, tokens=240_000)]

    def why(cost: int, calls: int, tokens: int, times: float = 1.0) -> str:
        during = [replace(part(cost), calls=calls, tokens=tokens)]
        return describe_alarm(alarm, [], None, spend_components(alarm, usual, during, hours, times))

    begun = "since 11:00 $4.00 an hour instead of $1.00"
    assert why(4, 40, 40_000) == f"{begun}: 40 calls an hour instead of 10"
    assert why(4, 40, 40_000, 0.0) == f"{begun}: 40 calls an hour instead of 0"
    assert why(4, 10, 40_000) == f"{begun}: +3,000 tokens a call"
    assert why(4, 10, 10_000) == f"{begun}: each token costs 300% more"
    assert (
        why(4, 20, 30_000) == f"{begun}: 20 calls an hour instead of 10, +500 tokens a call, each token costs 33% more"
    )
    assert spend_components(alarm, [], [part(4)], hours, 1.0) == ["10 calls an hour instead of 0"]
    assert spend_components(replace(alarm, kind="mix"), usual, [part(40)], hours, 1.0) == []


def test_one_call_is_told_where_it_is_most_of_what_is_unusual() -> None:
    spend, long = Alarm("spend", NOW, 600.0, 1.0, 9.0), Alarm("tokens_per_call", NOW, 3000.0, 1000.0, 2.0)
    during, minute = [part(10)], 1 / 60
    assert is_single_call(spend, during, LargestCall("c", 6 * PICO, 100), minute)
    assert not is_single_call(spend, during, LargestCall("c", 4 * PICO, 100), minute), "$9.98 more than usual"
    assert is_single_call(long, during, LargestCall("c", 0, 11_000), minute)
    assert not is_single_call(long, during, LargestCall("c", 0, 9_000), minute), (
        "20,000 tokens more than usual in ten calls"
    )
    assert not is_single_call(replace(spend, kind="mix"), during, LargestCall("c", 6 * PICO, 100), minute)
    assert not is_single_call(spend, during, None, minute)
    text = describe_alarm(spend, [], LargestCall("c", 6 * PICO, 100))
    assert text == "since 11:00 one call of 100 tokens for $6.00 is most of what is unusual"


def loop(**changed: Any) -> Loop:
    """Twelve calls in three minutes of one conversation, then no more room."""
    end = NOW + timedelta(minutes=3)
    return replace(Loop("w", "bo", "care", "", 12, NOW, end, PICO, 100.0, 700.0, 11, 2, end), **changed)


def test_a_caller_that_its_budget_stopped_was_in_a_loop_where_its_conversation_grew_or_it_was_fast() -> None:
    alarm = stopped(loop(), 3.0)
    assert alarm is not None and (alarm.kind, alarm.subject, alarm.seen) == ("runaway", "bo", 4.0)
    assert "each longer than the one before: 100 to 700 tokens a prompt" in loops.describe_loop(alarm, loop(), "bo")
    assert loops.describe_loop(alarm, loop(refused=1), "bo").endswith("and 1 of its calls was refused since")
    fast = loop(rises=0, calls=120)
    assert stopped(fast, 3.0) is not None and stopped(fast, 6.0) is None, "it often makes as many"
    for unlike in (
        {"rises": 6}, {"last_tokens": 190.0}, {"calls": 9, "rises": 8}, {"last": NOW + timedelta(minutes=5)},
        {"stopped": None}, {"first_tokens": 0.0},
    ):  # fmt: skip
        assert stopped(loop(**unlike), 3.0) is None, unlike


def test_a_caller_that_nothing_usual_is_known_of_is_in_a_loop_where_it_is_very_fast_or_its_conversation_grows() -> None:
    steady = Alarm("runaway", NOW, 25.0, 0.0, 1.25, "bo")
    assert not is_loop(steady, loop(rises=6)) and not is_loop(steady, None), (
        "a new application calls as often as it calls"
    )
    assert is_loop(steady, loop())
    assert is_loop(replace(steady, seen=160.0), None) and not is_loop(replace(steady, seen=159.0), None)
    assert is_loop(replace(steady, usual=2.0), None), "it never made as many"
    assert "makes 25 calls a minute, and was not known before" in loops.describe_loop(steady, loop(stopped=None), "bo")
