"""Whether the quality that a savings proposal states is true: how often its interval covers answers that are known.

    python benchmarks/savings.py --json                     200 generated cases
    python benchmarks/savings.py --matrix MATRIX.jsonl      cases drawn from an evaluation set, whose whole is the truth

A case has segments of different quality, a judge that errs by an amount of its own, and reviews of some of its verdicts
by people. Beside these `otherwise` has cases in which the judge errs by segment, hardly anybody reviews, or people pick
what they review. Tests of experiments that are looked at daily are measured beside it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

if str(Path(__file__).parents[1]) not in sys.path:
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.provenance import commit, machine

from groundplan.core.errors import GroundplanError
from groundplan.economics.experiment.sequential import Tally, difference
from groundplan.economics.replay.model import Judged, Proposal
from groundplan.economics.replay.quality import propose
from groundplan.economics.routing.learn.evaluation_set import read_matrix

SEGMENTS = ("refunds", "orders", "accounts", "other")


def sees(truth: bool, right: tuple[float, float], dice: np.random.Generator) -> bool:
    """What a judge says that is right so often about good and about bad answers."""
    return bool(dice.random() < (right[0] if truth else 1 - right[1]))


Pick = Callable[[np.random.Generator, bool, bool], bool]
"""Whether people review an answer, of which the judge said this, and which is as good or not."""


def at_random(dice: np.random.Generator) -> Pick:
    """A tenth, a fifth or two fifths of them, whichever they are."""
    share = float(dice.choice([0.1, 0.2, 0.4]))
    return lambda dice, told, good: bool(dice.random() < share)  # noqa: ARG005 -- whichever they are


def few(dice: np.random.Generator) -> Pick:
    """Nobody, or so few that they are fewer than ten."""
    share = float(dice.choice([0.0, 0.004]))
    return lambda dice, told, good: bool(dice.random() < share)  # noqa: ARG005 -- whichever they are


def called_worse(dice: np.random.Generator) -> Pick:
    """What the judge called worse, mostly."""
    share = float(dice.choice([0.1, 0.2]))
    return lambda dice, told, good: bool(dice.random() < (share / 4 if told else 4 * share))  # noqa: ARG005 -- the same


def looks_wrong(dice: np.random.Generator) -> Pick:
    """What is wrong, twice as often as what is right, whatever the judge said."""
    share = float(dice.choice([0.1, 0.2]))
    return lambda dice, told, good: bool(dice.random() < (share if good else 2 * share))  # noqa: ARG005 -- the same


def generated(
    dice: np.random.Generator, pick: Callable[[np.random.Generator], Pick] = at_random, *, apart: bool = False
) -> tuple[Proposal, float]:
    """One case: the proposal from a sample, and the true share over all calls. `apart`: the judge errs otherwise in
    every segment."""
    calls = dict(zip(SEGMENTS, dice.dirichlet(np.ones(4)) * 30_000, strict=True))
    truth = dict(zip(SEGMENTS, dice.beta(12, dice.uniform(0.5, 4), 4), strict=True))
    same = _judge(dice)
    right = {segment: _judge(dice) if apart else same for segment in SEGMENTS}
    reviews = pick(dice)
    total = sum(calls.values())
    judged = []
    for segment in SEGMENTS:
        for number in range(max(15, int(dice.integers(200, 900) * calls[segment] / total))):
            good = bool(dice.random() < truth[segment])
            told = sees(good, right[segment], dice)
            known = good if reviews(dice, told, good) else None
            judged.append(Judged(f"{segment}{number}", segment, told, 0.01, 0.002, known))
    found = propose(judged, "large", "small", calls, seed=int(dice.integers(1 << 30)))
    return found, sum(calls[name] * truth[name] for name in SEGMENTS) / total


def _judge(dice: np.random.Generator) -> tuple[float, float]:
    """How often one is right about good, and about bad answers."""
    return float(dice.uniform(0.85, 0.99)), float(dice.uniform(0.75, 0.97))


def as_assumed(dice: np.random.Generator) -> tuple[Proposal, float]:
    """One judge for all segments, and reviews of whichever answers."""
    return generated(dice)


OTHERWISE: Mapping[str, Callable[[np.random.Generator], tuple[Proposal, float]]] = {
    "judge_errs_by_segment": lambda dice: generated(dice, apart=True),
    "fewer_than_ten_reviews": lambda dice: generated(dice, few),
    "reviews_of_what_was_called_worse": lambda dice: generated(dice, called_worse, apart=True),
    "reviews_of_what_is_wrong": lambda dice: generated(dice, looks_wrong, apart=True),
}
"""Cases in which something is not as one would like."""


def drawn(path: Path, dice: np.random.Generator, cases: int) -> list[tuple[Proposal, float]]:
    """Cases from an evaluation set: two of its models, a sample of its rows, a judge that errs."""
    matrix = read_matrix(path)
    count = len(matrix.samples)
    found = []
    for _ in range(cases):
        strong, weak = dice.choice(len(matrix.models), 2, replace=False)
        kept = matrix.scores[:, weak] >= matrix.scores[:, strong]
        right = (float(dice.uniform(0.85, 0.99)), float(dice.uniform(0.75, 0.97)))
        rows = dice.choice(count, min(count, 400), replace=False)
        judged = [
            Judged(
                matrix.samples[i].id, "all", sees(bool(kept[i]), right, dice), float(matrix.costs[i, strong]),
                float(matrix.costs[i, weak]), bool(kept[i]) if dice.random() < 0.25 else None,
            )
            for i in rows
        ]  # fmt: skip
        proposal = propose(judged, matrix.models[strong], matrix.models[weak], {"all": 30_000.0})
        found.append((proposal, float(kept.mean())))
    return found


def covered(cases: Sequence[tuple[Proposal, float]]) -> dict[str, Any]:
    """How often the interval holds the truth: of all cases, and of those not said to be the judge's own view."""
    inside = [p.quality.low <= truth <= p.quality.high for p, truth in cases]
    known = [held for (p, _), held in zip(cases, inside, strict=True) if p.known]
    widths = [p.quality.high - p.quality.low for p, _ in cases]
    return {
        "cases": len(cases),
        "covered": round(float(np.mean(inside)), 4),
        "said_unknown": len(cases) - len(known),
        "covered_or_said_unknown": round((sum(known) + len(cases) - len(known)) / len(cases), 4),
        "stated_level": cases[0][0].quality.level,
        "median_width": round(float(np.median(widths)), 4),
        "mean_error": round(float(np.mean([p.quality.value - truth for p, truth in cases])), 4),
    }


def peeking(dice: np.random.Generator, runs: int = 400, days: int = 40, calls_a_day: int = 50) -> dict[str, Any]:
    """Experiments without a difference, looked at every day: how often one is ever declared."""
    ours = naive = 0
    for _ in range(runs):
        level = float(dice.uniform(0.5, 0.97))
        a, b, seen, fooled = Tally(), Tally(), False, False
        for _ in range(days):
            for arm in (0, 1):
                hits = int(dice.binomial(calls_a_day, level))
                new = Tally(calls_a_day, float(hits), float(hits))
                a, b = (a.merged(new), b) if arm == 0 else (a, b.merged(new))
            found = difference(a, b)
            seen |= found.low > 0 or found.high < 0
            share = (a.total + b.total) / (a.count + b.count)
            fooled |= abs(b.mean - a.mean) > 1.96 * (2 * share * (1 - share) / a.count) ** 0.5
        ours, naive = ours + seen, naive + fooled
    return {
        "runs": runs,
        "looks": days,
        "false_alarms": round(ours / runs, 4),
        "stated": 0.05,
        "fixed_sample_test_false_alarms": round(naive / runs, 4),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--matrix", type=Path)
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    if given.cases < 1:
        parser.error("--cases must be 1 or more")
    dice = np.random.default_rng(given.seed)
    try:
        if given.matrix is not None:
            cases = drawn(given.matrix, dice, given.cases)
        else:
            cases = [as_assumed(dice) for _ in range(given.cases)]
    except GroundplanError as error:
        sys.stderr.write(f"savings: {error}\n")
        return error.exit_code
    told = covered(cases) | {"target": 0.9}
    if given.matrix is None:
        told["otherwise"] = {
            name: covered([make(dice) for _ in range(given.cases)]) for name, make in OTHERWISE.items()
        }
    told |= {"experiments": peeking(dice), "seed": given.seed}
    told["example"] = cases[0][0].sentence
    told["machine"] = machine()
    told["commit"] = commit()
    if given.json:
        print(json.dumps(told))
    else:
        for key, value in told.items():
            print(f"{key}: {json.dumps(value)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
