"""Proposals promise what they can keep, and experiments may be looked at every day."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundplan.core.errors import Invalid
from groundplan.economics.experiment.sequential import Tally, difference, mean_range
from groundplan.economics.experiment.verdict import CANDIDATE, CONTROL, Rule, arm, verdict
from groundplan.economics.replay.model import Judged
from groundplan.economics.replay.quality import propose


def answers(kept: int, of: int, segment: str = "orders", reviewed: bool | None = None) -> list[Judged]:
    return [Judged(f"{segment}{i}", segment, i < kept, 0.010, 0.002, reviewed) for i in range(of)]


def tally(hits: int, of: int) -> Tally:
    return Tally(of, float(hits), float(hits))


def test_a_proposal_says_share_interval_saving_and_where_it_is_worse() -> None:
    judged = answers(290, 300) + answers(30, 100, "refunds")
    found = propose(judged, "large", "small", {"orders": 9000, "refunds": 1000})
    assert found.quality.value == pytest.approx(0.9 * 290 / 300 + 0.1 * 0.3, abs=0.02)
    assert found.quality.low < found.quality.value < found.quality.high
    assert found.saving.value == pytest.approx(80, rel=0.02)
    assert [segment.name for segment in found.worse] == ["refunds"]
    assert found.agreement.text.startswith("unknown")
    assert "saves $80 a month, worse on refunds" in found.sentence


def test_reviews_correct_a_judge_that_is_too_kind() -> None:
    kind = [Judged(str(i), "s", True, 1, 0, i % 2 == 0 if i < 100 else None) for i in range(300)]
    blind = propose([Judged(j.call, j.segment, j.kept, 1, 0) for j in kind], "a", "b", {})
    seen = propose(kind, "a", "b", {})
    assert blind.quality.low > 0.97
    assert seen.quality.high - seen.quality.low > 5 * (blind.quality.high - blind.quality.low)
    assert (seen.agreement.reviewed, seen.agreement.same) == (100, 50)


def test_too_little_is_refused() -> None:
    with pytest.raises(Invalid, match="too few"):
        propose(answers(9, 10), "a", "b", {})


def test_the_interval_covers_what_is_true() -> None:
    dice = np.random.default_rng(4)
    inside = 0
    for case in range(60):
        truth = float(dice.uniform(0.6, 0.98))
        judged = []
        for i in range(250):
            good = bool(dice.random() < truth)
            told = good if dice.random() < 0.9 else not good
            judged.append(Judged(str(i), "all", told, 1, 0, good if dice.random() < 0.3 else None))
        found = propose(judged, "a", "b", {}, seed=case).quality
        inside += found.low <= truth <= found.high
    assert inside >= 54


def test_looking_every_day_does_not_find_what_is_not_there() -> None:
    dice = np.random.default_rng(5)
    alarms = 0
    for _ in range(100):
        a = b = Tally()
        found = False
        for _ in range(40):
            a = a.merged(tally(int(dice.binomial(25, 0.8)), 25))
            b = b.merged(tally(int(dice.binomial(25, 0.8)), 25))
            told = difference(a, b)
            found |= told.low > 0 or told.high < 0
        alarms += found
    assert alarms <= 8


def test_a_real_difference_is_found_and_in_the_interval() -> None:
    told = difference(tally(700, 1000), tally(800, 1000))
    assert told.low > 0
    assert told.low < 0.1 < told.high


@given(st.integers(0, 400), st.integers(1, 400))
def test_a_mean_is_within_its_range(hits: int, of: int) -> None:
    hits = min(hits, of)
    found = mean_range(tally(hits, of))
    assert 0 <= found.low <= found.value <= found.high <= 1


@given(st.lists(st.floats(0, 1), max_size=30))
def test_a_tally_does_not_depend_on_how_it_was_split(values: list[float]) -> None:
    whole, one, other = Tally(), Tally(), Tally()
    for i, value in enumerate(values):
        whole = whole.plus(value)
        one, other = (one.plus(value), other) if i % 2 else (one, other.plus(value))
    both = one.merged(other)
    assert both.count == whole.count
    assert both.total == pytest.approx(whole.total)


def test_callers_stay_in_their_arm_and_the_share_is_kept() -> None:
    rule = Rule("try-small", 0.3)
    arms = [arm(rule, f"person {i}") for i in range(2000)]
    assert arms == [arm(rule, f"person {i}") for i in range(2000)]
    assert 0.26 < arms.count(CANDIDATE) / 2000 < 0.34
    assert arms != [arm(Rule("another", 0.3), f"person {i}") for i in range(2000)]


@pytest.mark.parametrize(
    ("control", "candidate", "guard", "spent", "state"),
    [
        (tally(80, 100), tally(79, 100), None, 0, "running"),
        (tally(800, 1000), tally(600, 1000), None, 0, "worse"),
        (tally(600, 1000), tally(800, 1000), None, 0, "better"),
        (tally(48000, 60000), tally(48000, 60000), None, 0, "kept"),
        (tally(600, 1000), tally(800, 1000), (tally(900, 1000), tally(600, 1000)), 0, "guard"),
        (tally(80, 100), tally(80, 100), None, 50, "budget"),
    ],
)
def test_experiments_end_by_themselves(
    control: Tally, candidate: Tally, guard: tuple[Tally, Tally] | None, spent: float, state: str
) -> None:
    guards = {} if guard is None else {"thanks": {CONTROL: guard[0], CANDIDATE: guard[1]}}
    rule = Rule("x", 0.5, budget_usd=50)
    found = verdict(rule, {CONTROL: control, CANDIDATE: candidate}, guards=guards, spent_usd=spent)
    assert found.state == state
    assert found.ended == (state != "running")
    assert found.reason
