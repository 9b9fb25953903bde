"""Whether the quality that a savings proposal states is true: how often its interval covers the known truth.

    python benchmarks/savings.py --json                     200 generated cases
    python benchmarks/savings.py --matrix MATRIX.jsonl      cases sampled from an evaluation set, which is the truth

A case has segments of different quality, a judge with an error rate of its own, and human reviews of some of its
verdicts. `otherwise` has further cases, in which the judge's errors differ by segment, hardly anybody reviews, or
people choose what they review. Also measured: false alarms of experiments that are checked daily.
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


def judge_verdict(truth: bool, right: tuple[float, float], rng: np.random.Generator) -> bool:
    """The verdict of a judge on an answer, given how often it is right about good and about bad answers."""
    return bool(rng.random() < (right[0] if truth else 1 - right[1]))


ReviewRule = Callable[[np.random.Generator, bool, bool], bool]
"""Whether people review an answer, by the judge's verdict and by whether the answer is as good."""


def review_at_random(rng: np.random.Generator) -> ReviewRule:
    """Review a tenth, a fifth or two fifths of the answers, at random."""
    share = float(rng.choice([0.1, 0.2, 0.4]))
    return lambda rng, verdict, good: bool(rng.random() < share)  # noqa: ARG005 -- whichever they are


def review_few(rng: np.random.Generator) -> ReviewRule:
    """Review no answer, or fewer than ten."""
    share = float(rng.choice([0.0, 0.004]))
    return lambda rng, verdict, good: bool(rng.random() < share)  # noqa: ARG005 -- whichever they are


def review_called_worse(rng: np.random.Generator) -> ReviewRule:
    """Review mostly answers that the judge called worse."""
    share = float(rng.choice([0.1, 0.2]))
    return lambda rng, verdict, good: bool(rng.random() < (share / 4 if verdict else 4 * share))  # noqa: ARG005 -- the same


def review_wrong(rng: np.random.Generator) -> ReviewRule:
    """Review wrong answers twice as often as right ones, whatever the judge's verdict."""
    share = float(rng.choice([0.1, 0.2]))
    return lambda rng, verdict, good: bool(rng.random() < (share if good else 2 * share))  # noqa: ARG005 -- the same


def generate_case(
    rng: np.random.Generator,
    review_rule: Callable[[np.random.Generator], ReviewRule] = review_at_random,
    *,
    by_segment: bool = False,
) -> tuple[Proposal, float]:
    """One case: the proposal from a sample, and the true share over all calls. `by_segment`: the judge's error rates
    differ by segment."""
    calls = dict(zip(SEGMENTS, rng.dirichlet(np.ones(4)) * 30_000, strict=True))
    truth = dict(zip(SEGMENTS, rng.beta(12, rng.uniform(0.5, 4), 4), strict=True))
    shared_judge = _draw_judge(rng)
    right = {segment: _draw_judge(rng) if by_segment else shared_judge for segment in SEGMENTS}
    reviews = review_rule(rng)
    total = sum(calls.values())
    judged = []
    for segment in SEGMENTS:
        for number in range(max(15, int(rng.integers(200, 900) * calls[segment] / total))):
            good = bool(rng.random() < truth[segment])
            verdict = judge_verdict(good, right[segment], rng)
            reviewed = good if reviews(rng, verdict, good) else None
            judged.append(Judged(f"{segment}{number}", segment, verdict, 0.01, 0.002, reviewed))
    proposal = propose(judged, "large", "small", calls, seed=int(rng.integers(1 << 30)))
    return proposal, sum(calls[name] * truth[name] for name in SEGMENTS) / total


def _draw_judge(rng: np.random.Generator) -> tuple[float, float]:
    """How often a random judge is right about good, and about bad answers."""
    return float(rng.uniform(0.85, 0.99)), float(rng.uniform(0.75, 0.97))


def as_assumed(rng: np.random.Generator) -> tuple[Proposal, float]:
    """A case as the method assumes it: one judge for all segments, and reviews at random."""
    return generate_case(rng)


VIOLATED_ASSUMPTIONS: Mapping[str, Callable[[np.random.Generator], tuple[Proposal, float]]] = {
    "judge_errs_by_segment": lambda rng: generate_case(rng, by_segment=True),
    "fewer_than_ten_reviews": lambda rng: generate_case(rng, review_few),
    "reviews_of_what_was_called_worse": lambda rng: generate_case(rng, review_called_worse, by_segment=True),
    "reviews_of_what_is_wrong": lambda rng: generate_case(rng, review_wrong, by_segment=True),
}
"""Cases that violate an assumption of the method."""


def draw_cases(path: Path, rng: np.random.Generator, cases: int) -> list[tuple[Proposal, float]]:
    """Cases from an evaluation set: two of its models, a sample of its rows, a fallible judge."""
    matrix = read_matrix(path)
    count = len(matrix.samples)
    drawn = []
    for _ in range(cases):
        strong, weak = rng.choice(len(matrix.models), 2, replace=False)
        as_good = matrix.scores[:, weak] >= matrix.scores[:, strong]
        right = (float(rng.uniform(0.85, 0.99)), float(rng.uniform(0.75, 0.97)))
        rows = rng.choice(count, min(count, 400), replace=False)
        judged = [
            Judged(
                matrix.samples[i].id, "all", judge_verdict(bool(as_good[i]), right, rng),
                float(matrix.costs[i, strong]), float(matrix.costs[i, weak]),
                bool(as_good[i]) if rng.random() < 0.25 else None,
            )
            for i in rows
        ]  # fmt: skip
        proposal = propose(judged, matrix.models[strong], matrix.models[weak], {"all": 30_000.0})
        drawn.append((proposal, float(as_good.mean())))
    return drawn


def coverage(cases: Sequence[tuple[Proposal, float]]) -> dict[str, Any]:
    """How often the interval covers the truth: of all cases, and of those not marked as the judge's view alone."""
    is_covered = [proposal.quality.low <= truth <= proposal.quality.high for proposal, truth in cases]
    known_covered = [covered for (proposal, _), covered in zip(cases, is_covered, strict=True) if proposal.known]
    widths = [proposal.quality.high - proposal.quality.low for proposal, _ in cases]
    return {
        "cases": len(cases),
        "covered": round(float(np.mean(is_covered)), 4),
        "said_unknown": len(cases) - len(known_covered),
        "covered_or_said_unknown": round((sum(known_covered) + len(cases) - len(known_covered)) / len(cases), 4),
        "stated_level": cases[0][0].quality.level,
        "median_width": round(float(np.median(widths)), 4),
        "mean_error": round(float(np.mean([proposal.quality.value - truth for proposal, truth in cases])), 4),
    }


def merged(one: Tally, other: Tally) -> Tally:
    """The sum of both tallies."""
    return Tally(one.count + other.count, one.total + other.total, one.squares + other.squares)


def measure_peeking(rng: np.random.Generator, runs: int = 400, days: int = 40, calls_a_day: int = 50) -> dict[str, Any]:
    """How often an experiment without a difference, checked every day, ever declares one."""
    ours = naive = 0
    for _ in range(runs):
        level = float(rng.uniform(0.5, 0.97))
        a, b, declared, naive_declared = Tally(), Tally(), False, False
        for _ in range(days):
            for arm in (0, 1):
                hits = int(rng.binomial(calls_a_day, level))
                batch = Tally(calls_a_day, float(hits), float(hits))
                a, b = (merged(a, batch), b) if arm == 0 else (a, merged(b, batch))
            interval = difference(a, b)
            declared |= interval.low > 0 or interval.high < 0
            share = (a.total + b.total) / (a.count + b.count)
            naive_declared |= abs(b.mean - a.mean) > 1.96 * (2 * share * (1 - share) / a.count) ** 0.5
        ours, naive = ours + declared, naive + naive_declared
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
    options = parser.parse_args(arguments)
    if options.cases < 1:
        parser.error("--cases must be 1 or more")
    rng = np.random.default_rng(options.seed)
    try:
        if options.matrix is not None:
            cases = draw_cases(options.matrix, rng, options.cases)
        else:
            cases = [as_assumed(rng) for _ in range(options.cases)]
    except GroundplanError as error:
        sys.stderr.write(f"savings: {error}\n")
        return error.exit_code
    figures = coverage(cases) | {"target": 0.9}
    if options.matrix is None:
        figures["otherwise"] = {
            name: coverage([make(rng) for _ in range(options.cases)]) for name, make in VIOLATED_ASSUMPTIONS.items()
        }
    figures |= {"experiments": measure_peeking(rng), "seed": options.seed}
    figures["example"] = cases[0][0].sentence
    figures["machine"] = machine()
    figures["commit"] = commit()
    if options.json:
        print(json.dumps(figures))
    else:
        for key, value in figures.items():
            print(f"{key}: {json.dumps(value)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
