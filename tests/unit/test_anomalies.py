"""The watch over spending: six kinds are told with their size, quiet days are quiet, and causes name what changed."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import pytest

from groundplan.core.money import PICO
from groundplan.economics.anomaly import loop as loops
from groundplan.economics.anomaly.cause import Slice, causes, level, told
from groundplan.economics.anomaly.detect import Baseline, detect
from groundplan.economics.anomaly.loop import Loop, stopped, sure
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
    found = causes(before, during, 10, 1)
    assert (found[0].dimension, found[0].value, found[0].new) == ("prompt", "faq@2", True)
    assert [cause.value for cause in found if cause.dimension == "team"] == ["support"]
    assert not [cause for cause in found if cause.dimension == "model"]


@pytest.mark.parametrize(("kind", "usual"), [("tokens_per_call", 100.0), ("spend", 330.0)])
def test_who_asks_most_at_noon_every_day_is_no_cause_of_what_is_unusual_at_noon(kind: Kind, usual: float) -> None:
    """At noon there are three times as many calls as in the mean of a day; those of sales have become long."""
    before = [replace(part(2400), calls=2400), replace(part(240, team="sales"), calls=240)]
    during = [replace(part(300), calls=300), replace(part(120, team="sales"), calls=30)]
    alarm, hours = Alarm(kind, NOW, 2 * usual, usual, 2.0), (24.0, 1.0)
    noon = level(alarm, before, during, hours)
    assert noon == pytest.approx(3)
    (cause,) = causes(before, during, *hours, noon)
    assert (cause.dimension, cause.value, cause.new) == ("team", "sales", False)
    (wrong,) = causes(before, during, *hours)
    assert wrong.value == "support", "without the hour of the day whoever asks most would be named"
    assert level(replace(alarm, kind="runaway"), before, during, hours) == level(alarm, [], during, hours) == 1.0


def test_the_sentence_says_when_how_much_and_why() -> None:
    alarm = Alarm("tokens_per_call", NOW, 3300.0, 1000.0, 2.0)
    text = told(alarm, causes([part(10)], [part(40, prompt="faq@2")], 10, 1))
    assert text == "since 11:00 +2,300 tokens a call: prompt faq@2 (new)"


def loop(**changed: Any) -> Loop:
    """Twelve calls in three minutes of one conversation, then no more room."""
    end = NOW + timedelta(minutes=3)
    return replace(Loop("w", "bo", "care", "", 12, NOW, end, PICO, 100.0, 700.0, 11, 2, end), **changed)


def test_a_caller_that_its_budget_stopped_was_in_a_loop_where_its_conversation_grew_or_it_was_fast() -> None:
    alarm = stopped(loop(), 3.0)
    assert alarm is not None and (alarm.kind, alarm.subject, alarm.seen) == ("runaway", "bo", 4.0)
    assert "each longer than the one before: 100 to 700 tokens a prompt" in loops.told(alarm, loop(), "bo")
    fast = loop(rises=0, calls=120)
    assert stopped(fast, 3.0) is not None and stopped(fast, 6.0) is None, "it often makes as many"
    for unlike in (
        {"rises": 6}, {"last_tokens": 190.0}, {"calls": 9, "rises": 8}, {"last": NOW + timedelta(minutes=5)},
        {"stopped": None}, {"first_tokens": 0.0},
    ):  # fmt: skip
        assert stopped(loop(**unlike), 3.0) is None, unlike


def test_a_caller_that_nothing_usual_is_known_of_is_in_a_loop_where_it_is_very_fast_or_its_conversation_grows() -> None:
    steady = Alarm("runaway", NOW, 25.0, 0.0, 1.25, "bo")
    assert not sure(steady, loop(rises=6)) and not sure(steady, None), "a new application calls as often as it calls"
    assert sure(steady, loop())
    assert sure(replace(steady, seen=160.0), None) and not sure(replace(steady, seen=159.0), None)
    assert sure(replace(steady, usual=2.0), None), "it never made as many"
    assert "makes 25 calls a minute, and was not known before" in loops.told(steady, loop(stopped=None), "bo")
