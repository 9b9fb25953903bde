"""Training sets from what calls showed: right on average, no leak between folds, and refused where they are thin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundplan.core.errors import Invalid
from groundplan.economics.routing.learn.evaluate import apply
from groundplan.economics.routing.learn.evaluation_set import ContextRow, folds_of, question_key
from groundplan.economics.routing.learn.evidence import (
    COMMON_QUESTION_UNITS,
    LEAST_UNITS,
    MIN_VERDICTS,
    Pair,
    Verdict,
    count_chosen,
    group_rows,
    matrix_from_pairs,
    matrix_from_verdicts,
)
from groundplan.economics.routing.learn.fit import train
from groundplan.economics.routing.model import Context, Matrix, Sample

EASY, HARD = "what are your opening hours on day {}", "prove that the sum of {} odd numbers is even"


def pair(number: int, **changes: Any) -> Pair:
    hard = number % 3 == 0
    made = Pair(
        id=str(number), prompt=(HARD if hard else EASY).format(number), unit=f"u{number // 2}",
        context=ContextRow(1 + number % 4, 10 * number, [0.9, 0.2]), shown="large", beside="small", kept=not hard,
        torn=False,
        accepted=None, shown_usd=0.01, beside_usd=0.001,
    )  # fmt: skip
    return msgspec.structs.replace(made, **changes)


def drawn(count: int, share: float, seed: int = 1) -> tuple[list[Verdict], list[tuple[float, float]]]:
    """(verdicts of calls whose arm chance drew, the true chance of a good answer of each by large and small)"""
    dice = np.random.default_rng(seed)
    found, truth = [], []
    for number in range(count):
        hard = bool(dice.random() < 0.4)
        good = (0.95, 0.15 if hard else 0.93)
        candidate = bool(dice.random() < share)
        size = float(dice.uniform(0.5, 1.5))
        found.append(
            Verdict(
                id=str(number), prompt=(HARD if hard else EASY).format(number), unit=f"u{number}",
                context=ContextRow(1), model="small" if candidate else "large", candidate=candidate, share=share,
                accepted=bool(dice.random() < good[int(candidate)]), cost_usd=size * (0.001 if candidate else 0.01),
            )
        )  # fmt: skip
        truth.append(good)
    return found, truth


def test_a_judged_pair_says_how_both_models_did() -> None:
    pairs = [pair(number) for number in range(240)]
    pairs[1] = pair(1, accepted=False)
    pairs[2] = pair(2, accepted=True, kept=False)
    matrix = matrix_from_pairs([*pairs, *(pair(i, beside="other") for i in range(1000, 1050))], "support")
    assert matrix.models == ("large", "small")
    assert matrix.scores[:4].tolist() == [[1, 0], [0, 0], [1, 0], [1, 0]]
    assert matrix.scores[4].tolist() == [1, 1]
    assert matrix.costs[0].tolist() == [0.01, 0.001]
    assert matrix.samples[5].context == Context(2, 50, (0.9, 0.2))
    assert len(matrix.samples) == 240


@pytest.mark.parametrize("share", [0.5, 0.2])
def test_verdicts_of_one_model_each_tell_of_both_without_bias(share: float) -> None:
    verdicts, truth = drawn(6000, share)
    matrix = matrix_from_verdicts(verdicts, "support")
    assert matrix.models == ("large", "small")
    hard = np.array([low < 0.5 for _, low in truth])
    for rows in (hard, ~hard):
        told, error = matrix.scores[rows].mean(axis=0), matrix.scores[rows].std(axis=0) / np.sqrt(rows.sum())
        assert np.abs(told - np.array(truth)[rows].mean(axis=0)) == pytest.approx(0, abs=float(4 * error.max()))
    assert matrix.costs.mean(axis=0) == pytest.approx([0.01, 0.001], rel=0.05)


def test_a_router_learned_from_verdicts_keeps_what_it_says() -> None:
    verdicts, _ = drawn(700, 0.5)
    learned = matrix_from_verdicts(verdicts, "support")
    router = train(learned, None, (0.95,))
    fresh, truth = drawn(1000, 0.5, seed=2)
    samples = tuple(Sample(each.id, each.unit, each.prompt) for each in fresh)
    asked = Matrix(samples, learned.models, np.array(truth), np.tile([0.01, 0.001], (1000, 1)))
    picked = apply(router, asked, None, (0.95,))[0]["0.95"]
    rows = np.arange(1000)
    assert asked.costs[rows, picked].sum() < 0.8 * asked.costs[:, 0].sum()
    assert asked.scores[rows, picked].mean() > 0.93 * asked.scores[:, 0].mean()


def test_calls_that_chance_gave_to_others_are_dropped_or_refused() -> None:
    verdicts, _ = drawn(900, 0.5)
    some = [msgspec.structs.replace(v, model="third") if i % 50 == 0 else v for i, v in enumerate(verdicts)]
    assert len(matrix_from_verdicts(some, "support").samples) == 900 - 18
    many = [msgspec.structs.replace(v, model="third") if i % 9 == 0 else v for i, v in enumerate(verdicts)]
    with pytest.raises(Invalid, match="answered by other models") as told:
        matrix_from_verdicts(many, "support")
    assert told.value.code == "evidence_mixed"
    assert told.value.hint


REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "no pair": (lambda: matrix_from_pairs([], "support"), "no judged pair"),
    "few pairs": (
        lambda: matrix_from_pairs([pair(i) for i in range(MIN_VERDICTS - 1)], "support"),
        f"{MIN_VERDICTS} are needed",
    ),
    "few people": (
        lambda: matrix_from_pairs([pair(i, unit=f"u{i % (LEAST_UNITS - 1)}") for i in range(300)], "support"),
        "people or conversations",
    ),
    "no verdict": (lambda: matrix_from_verdicts([], "support"), "0 verdicts in the control arm"),
    "one arm": (
        lambda: matrix_from_verdicts([v for v in drawn(900, 0.5)[0] if not v.candidate], "support"),
        "0 verdicts in the candidate's arm",
    ),
    "a tiny share": (lambda: matrix_from_verdicts(drawn(900, 0.01)[0], "support"), "0 verdicts"),
    "the same model": (
        lambda: matrix_from_verdicts([msgspec.structs.replace(v, model="one") for v in drawn(900, 0.5)[0]], "support"),
        "both arms",
    ),
}


@pytest.mark.parametrize("which", sorted(REFUSED))
def test_what_is_too_thin_is_refused_with_what_to_do(which: str) -> None:
    make, said_ = REFUSED[which]
    with pytest.raises(Invalid, match=said_) as told:
        make()
    assert told.value.code == "evidence_thin"
    assert "groundplan experiments" in (told.value.hint or "") or "Wait" in (told.value.hint or "")


def test_a_judge_that_contradicts_itself_proves_nothing() -> None:
    with pytest.raises(Invalid) as told:
        matrix_from_pairs([pair(i, torn=i % 2 == 0) for i in range(240)], "support")
    assert told.value.code == "judge_unfit"
    assert len(matrix_from_pairs([pair(i, torn=i % 3 == 0) for i in range(240)], "support").samples) == 240


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=2, max_size=60), st.integers(0, 3))
def test_no_question_is_in_two_folds_whoever_asked_it(asked: list[tuple[int, int]], seed: int) -> None:
    rows = [
        pair(number, prompt=f"  Question {question}" + "?" * (number % 2), unit=f"u{unit}")
        for number, (question, unit) in enumerate(asked)
    ]
    groups = group_rows(rows)
    order = [groups[row.id] for row in rows]
    held = [{question_key(rows[i].prompt) for i in fold} for fold in folds_of(order, seed=seed)]
    assert sum(map(len, held)) == len(set().union(*held))
    folds = folds_of(order, seed=seed)
    common = {
        same
        for same in held[0].union(*held)
        if len({r.unit for r in rows if question_key(r.prompt) == same}) > COMMON_QUESTION_UNITS
    }
    people = [{rows[i].unit for i in fold if question_key(rows[i].prompt) not in common} for fold in folds]
    assert sum(map(len, people)) == len(set().union(*people)), "nobody is in two, but for questions that everybody asks"
    for row in rows:
        if not any(question_key(o.prompt) == question_key(row.prompt) and o.unit != row.unit for o in rows):
            assert groups[row.id].startswith("of ")


def test_a_question_that_everybody_asks_joins_nobody() -> None:
    rows = [
        pair(number, prompt="hello" if number % 2 else f"question {number}", unit=f"u{number // 2}")
        for number in range(60)
    ]
    assert len(set(group_rows(rows).values())) == 31
    two = [
        pair(1, unit="a", prompt="x"),
        pair(2, unit="b", prompt="X?"),
        pair(3, unit="b", prompt="y"),
        pair(4, unit="c"),
    ]
    assert len({group_rows(two)[row.id] for row in two}) == 2, (
        "who asked the same is in one fold, with all that they asked"
    )


def test_calls_that_a_router_chose_for_are_no_evidence() -> None:
    pairs = [pair(number, by=("learned", "order", "rule legal", "unsure")[number % 4]) for number in range(600)]
    matrix = matrix_from_pairs(pairs, "support")
    assert len(matrix.samples) == 300 and count_chosen(pairs) == 300
    with pytest.raises(Invalid, match="sent elsewhere") as told:
        matrix_from_pairs([pair(number, by="learned" if number > 100 else "") for number in range(600)], "support")
    assert told.value.code == "evidence_chosen"
    assert "--ab" in (told.value.hint or "")
