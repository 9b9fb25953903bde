"""Proposals promise what they can keep, and experiments may be looked at every day."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest
from benchmarks.savings import merged
from hypothesis import given
from hypothesis import strategies as st

from groundplan.core.errors import Invalid
from groundplan.economics.experiment.sequential import Tally, difference, mean_range
from groundplan.economics.experiment.verdict import (
    CANDIDATE,
    CONTROL,
    GUARDS,
    Rule,
    ab_verdict,
    assign_arm,
    shadow_verdict,
)
from groundplan.economics.replay.model import Judged, Proposal
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


def test_what_a_judge_leaves_open_may_be_good_or_not() -> None:
    """Equal answers need no judge: what it leaves open is not like the rest."""
    whole = propose(answers(200, 200), "a", "b", {})
    left = propose(answers(200, 200), "a", "b", {}, left_open={"orders": 50, "never sampled": 9})
    assert whole.quality.low > 0.97 and "open" not in whole.sentence
    assert left.quality.low < 0.82 and left.quality.high > 0.98
    assert (left.left_open, left.judged) == (50, 200)
    assert "its judge left 50 of 250 answers open; by the judge alone" in left.sentence
    few = propose(answers(200, 200), "a", "b", {}, left_open={"orders": 1})
    assert "open" not in few.sentence and few.quality.low > 0.96
    apart = propose(answers(200, 200) + answers(200, 200, "refunds"), "a", "b", {}, left_open={"refunds": 200})
    assert (
        apart.quality.low < 0.78
        and apart.saving == propose(answers(200, 200) + answers(200, 200, "refunds"), "a", "b", {}).saving
    )


def test_a_shadow_whose_judge_leaves_pairs_open_concludes_nothing_from_the_others() -> None:
    rule = Rule("x", 1, tolerance=0.1)
    assert shadow_verdict(rule, tally(300, 300)).state == "kept"
    left = shadow_verdict(rule, tally(300, 300), {"orders": tally(100, 100)}, left_open={"": 100, "orders": 60})
    assert left.state == "running" and left.quality.count == 300
    assert left.quality.low < 0.75 and left.quality.high > 0.99
    assert left.segments["orders"].low < 0.62
    assert shadow_verdict(rule, tally(300, 300), left_open={"": 3}).state == "kept"
    assert shadow_verdict(rule, tally(100, 300), left_open={"": 100}).state == "worse", "also if all of them are good"


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
            a = merged(a, tally(int(dice.binomial(25, 0.8)), 25))
            b = merged(b, tally(int(dice.binomial(25, 0.8)), 25))
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
        this = Tally(1, value, value * value)
        whole = merged(whole, this)
        one, other = (merged(one, this), other) if i % 2 else (one, merged(other, this))
    both = merged(one, other)
    assert both.count == whole.count
    assert both.total == pytest.approx(whole.total)


def test_callers_stay_in_their_arm_and_the_share_is_kept() -> None:
    rule = Rule("try-small", 0.3)
    arms = [assign_arm(rule, f"person {i}") for i in range(2000)]
    assert arms == [assign_arm(rule, f"person {i}") for i in range(2000)]
    assert 0.26 < arms.count(CANDIDATE) / 2000 < 0.34
    assert arms != [assign_arm(Rule("another", 0.3), f"person {i}") for i in range(2000)]


@pytest.mark.parametrize(
    ("control", "candidate", "guard", "spent", "state"),
    [
        (tally(80, 100), tally(79, 100), None, 0, "running"),
        (tally(800, 1000), tally(600, 1000), None, 0, "worse"),
        (tally(600, 1000), tally(800, 1000), None, 0, "better"),
        (tally(48000, 60000), tally(48000, 60000), None, 0, "kept"),
        (tally(600, 1000), tally(800, 1000), (tally(900, 1000), tally(600, 1000)), 0, "guard"),
        (tally(80, 100), tally(80, 100), None, 50, "budget"),
        (tally(600, 1000), tally(800, 1000), None, 50, "better"),
    ],
)
def test_experiments_end_by_themselves(
    control: Tally, candidate: Tally, guard: tuple[Tally, Tally] | None, spent: int, state: str
) -> None:
    guards = {} if guard is None else {"thanks": {CONTROL: guard[0], CANDIDATE: guard[1]}}
    rule = Rule("x", 0.5, budget_usd=Decimal(50))
    found = ab_verdict(rule, {CONTROL: control, CANDIDATE: candidate}, guards=guards, spent_usd=Decimal(spent))
    assert found.state == state
    assert found.ended == (state != "running")
    assert found.reason


@pytest.mark.parametrize("of", ["fast", "cheap"])
def test_a_guard_that_stops_it_is_named_in_words(of: str) -> None:
    rule, fell = Rule("x", 0.5, tolerance=0.5), {CONTROL: tally(900, 1000), CANDIDATE: tally(600, 1000)}
    same = {CONTROL: tally(900, 1000), CANDIDATE: tally(900, 1000)}
    for found in (ab_verdict(rule, same, guards={of: fell}), shadow_verdict(rule, tally(900, 1000), guards={of: fell})):
        assert found.state == "guard" and found.reason.startswith(f"{GUARDS[of]} fell by at least ")
    assert GUARDS["cheap"] == "how cheap calls are", "more of it is better, as of the others"


def test_what_was_seen_of_a_guard_or_segment_does_not_depend_on_what_is_seen_later() -> None:
    rule, arms = Rule("x", 0.5), {CONTROL: tally(400, 500), CANDIDATE: tally(390, 500)}
    alone = ab_verdict(rule, arms, {"refunds": arms}, {"fast": arms})
    more = ab_verdict(rule, arms, {"refunds": arms, "orders": arms, "other": arms}, dict.fromkeys(GUARDS, arms))
    assert alone.guards["fast"] == more.guards["fast"]
    assert alone.segments["refunds"] == more.segments["refunds"]
    widths = [more.segments[name].high - more.segments[name].low for name in ("refunds", "orders", "other")]
    assert widths == sorted(set(widths)), "later ones have less of the error"
    kept = tally(450, 500)
    beside = shadow_verdict(rule, kept, {"refunds": kept, "orders": kept}, {"fast": arms})
    assert shadow_verdict(rule, kept, {"refunds": kept}).segments["refunds"] == beside.segments["refunds"]
    assert beside.guards["fast"] == alone.guards["fast"]


def test_guards_that_come_in_one_after_the_other_stop_no_more_often_than_is_said() -> None:
    """Five in a hundred experiments at most, though guards begin on different days."""
    dice = np.random.default_rng(6)
    stopped = 0
    for _ in range(200):
        seen: dict[str, dict[str, Tally]] = {}
        over = False
        for day in range(30):
            for name in list(GUARDS)[: 1 + day // 5]:
                arms = seen.setdefault(name, {CONTROL: Tally(), CANDIDATE: Tally()})
                for each in arms:
                    arms[each] = merged(arms[each], tally(int(dice.binomial(30, 0.9)), 30))
            found = ab_verdict(Rule("x", 0.5, guard_tolerance=1e-9), {}, guards=seen)
            over |= any(each.high < 0 for each in found.guards.values())
        stopped += over
    assert stopped <= 10


def test_the_share_of_a_shadow_may_be_looked_at_every_day() -> None:
    dice = np.random.default_rng(7)
    outside = 0
    for _ in range(200):
        truth, seen, over = float(dice.uniform(0.6, 0.98)), Tally(), False
        for _ in range(40):
            seen = merged(seen, tally(int(dice.binomial(20, truth)), 20))
            told = mean_range(seen)
            over |= not told.low <= truth <= told.high
        outside += over
    assert outside <= 10


@pytest.mark.parametrize("truth", [0.9, 0.95, 0.98, 0.99, 0.5])
def test_a_share_at_the_limit_may_be_looked_at_after_every_pair(truth: float) -> None:
    """As it is, every few seconds: of 400 experiments whose candidate is just not good enough one in twenty may end."""
    dice = np.random.default_rng(11)
    rule = Rule("m", 1.0, tolerance=1 - truth)
    ended = 0
    for hits in (dice.random((400, 600)) < truth).cumsum(axis=1):
        looks = [at for at in range(20, 600, 10) if hits[at - 1] >= truth * at]  # elsewhere it is surely not kept
        ended += any(shadow_verdict(rule, tally(int(hits[at - 1]), at)).state == "kept" for at in looks)
    assert ended <= 20


def test_a_good_candidate_is_still_found_soon() -> None:
    for share, tolerance, pairs in ((0.97, 0.1, 150), (0.99, 0.05, 250), (1.0, 0.02, 500), (0.8, 0.1, 300)):
        found = shadow_verdict(Rule("m", 1.0, tolerance), tally(round(share * pairs), pairs))
        assert found.state == ("kept" if share > 1 - tolerance else "worse"), share


@given(st.integers(0, 300), st.integers(0, 300), st.sampled_from((0.9, 0.95, 0.999)))
def test_what_is_excluded_has_been_bet_against_in_vain(hits: int, misses: int, level: float) -> None:
    found = mean_range(tally(hits, hits + misses), level)
    other = mean_range(tally(misses, hits + misses), level)
    assert found.low == pytest.approx(1 - other.high, abs=1e-9) and 0 <= found.low <= found.high <= 1
    assert found.low <= mean_range(tally(hits, hits + misses), 0.5).low
    if hits + misses == 0:
        assert (found.low, found.high) == (0, 1)


@pytest.mark.parametrize(("hits", "misses"), [(160, 0), (97, 3), (30, 30), (3, 97), (588, 12)])
@pytest.mark.parametrize("level", [0.9, 0.95, 0.999])
def test_at_the_edge_the_bet_has_won_what_the_level_allows(hits: int, misses: int, level: float) -> None:
    """By numbers: bets on every mean, as many on each as Jeffreys has it, which is evenly on the angle of its sine."""
    angles = (np.arange(200_000) + 0.5) / 200_000 * np.pi / 2
    bets, against = np.sin(angles) ** 2, np.cos(angles) ** 2
    found = mean_range(tally(hits, hits + misses), level)
    for edge in (found.low, found.high):
        if 0 < edge < 1:
            with np.errstate(divide="ignore"):
                won = np.exp(hits * np.log(bets / edge) + misses * np.log(against / (1 - edge))).mean()
            assert won == pytest.approx(1 / (1 - level), rel=1e-4)


def told_of(saving: float = 950.0) -> Proposal:
    found = propose(answers(290, 300) + answers(30, 100, ""), "large", "small", {"orders": 900, "": 100})
    assert [segment.name for segment in found.worse] == [""]
    return replace(found, saving=replace(found.saving, value=saving))


def test_a_segment_without_a_name_and_small_amounts_are_told_in_words() -> None:
    assert "of calls, saves $950 a month, worse on calls without a feature" in told_of().sentence
    for saving, said in ((12.3, "saves $12 a month"), (0.42, "saves $0.42 a month"),
                         (0.001, "saves less than $0.01 a month"), (-1.0, "saves nothing")):  # fmt: skip
        assert f"of calls, {said}, worse" in told_of(saving=saving).sentence


def test_what_was_judged_of_some_features_is_not_said_of_all() -> None:
    calls = {"orders": 600.0, "refunds": 200.0, "never sampled": 200.0}
    found = propose(answers(95, 100) + answers(95, 100, "refunds"), "large", "small", calls)
    assert found.covered == pytest.approx(0.8)
    assert "of support calls (80% of all: no other feature was judged), saves" in found.told("support")
    assert found.saving.value == pytest.approx(800 * 0.008, rel=0.05)
    assert "of all" not in propose(answers(95, 100), "large", "small", {"orders": 600.0}).sentence


def test_where_a_segment_is_surely_worse_the_reason_says_so() -> None:
    rule, same = Rule("x", 0.5), {CONTROL: tally(48000, 60000), CANDIDATE: tally(48000, 60000)}
    bad = {CONTROL: tally(900, 1000), CANDIDATE: tally(600, 1000)}
    found = ab_verdict(rule, same, {"orders": same, "refunds": bad})
    assert found.state == "kept" and found.reason.endswith("; surely worse on refunds")
    assert "surely worse" not in ab_verdict(rule, same, {"orders": same}).reason
    shadow = shadow_verdict(
        Rule("x", 1, tolerance=0.1), tally(4900, 5000), {"orders": tally(10, 10), "refunds": tally(50, 100)}
    )
    assert shadow.state == "kept" and shadow.reason.endswith("; surely worse on refunds")
