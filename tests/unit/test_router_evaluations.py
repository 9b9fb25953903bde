"""A router is kept by an interval, and whoever approves it reads how it was evaluated from its very bytes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.unit.test_routing_model import make_matrix

from groundplan.api.routing.evaluations import _router_json, evaluation_sentences
from groundplan.economics.routing.learn.evaluate import (
    HeldOutResult,
    held_out_result,
    interval,
    least_prompts,
    lowest_shown_point,
)
from groundplan.economics.routing.learn.fit import train
from groundplan.economics.routing.model import Matrix, Sample
from groundplan.economics.routing.versions import registry

TRAINED = {
    "from": "the set a.jsonl", "prompts": "900", "groups": "800", "trained": "2026-11-20", "against": "large",
    "calibration": "0.01000", "saved at 0.99": "0.4200", "kept at 0.99": "0.9960", "low at 0.99": "0.9912",
    "high at 0.99": "1.0008", "ridge saved at 0.99": "0.3000",
}  # fmt: skip


def test_an_interval_holds_what_is_true_and_too_few_prompts_show_nothing() -> None:
    assert interval(1.0, 0.0, 240, 240)[0] < 0.99, "no loss in 240 prompts does not show that there is less than 1 %"
    assert interval(1.0, 0.0, 400, 400)[0] >= 0.99
    assert interval(1.0, 0.0, 30, 1)[0] == float("-inf")
    assert (least_prompts(0.99), least_prompts(0.95), least_prompts(1.0)) == (387, 80, None)
    assert interval(1.0, 0.0, 387, 387)[0] >= 0.99 > interval(1.0, 0.0, 386, 386)[0]
    dice, covered = np.random.default_rng(5), 0
    for loss in (0.002, 0.01, 0.05):
        for lost in dice.binomial(500, loss, 300):
            share = lost / 500
            error = float(np.sqrt(share * (1 - share) / 499))
            covered += interval(1 - share, error, 500, 500)[0] <= 1 - loss
    assert covered / 900 > 0.96


def test_one_large_group_among_small_ones_says_little_of_what_is_kept() -> None:
    """Its error cannot be seen in itself: Student's t over 41 groups held the truth in 65 % of such sets."""
    dice, sizes = np.random.default_rng(4), np.array([260] + [1] * 40)
    groups = [f"g{group}" for group in np.repeat(np.arange(41), sizes)]
    samples = tuple(Sample(str(i), group, "p") for i, group in enumerate(groups))
    every = np.clip(0.95 + 0.05 * dice.standard_normal(100_000), 0, 1)
    held = 0
    for _ in range(200):
        right = dice.random(300) < np.repeat(dice.choice(every, 41), sizes)
        scores = np.stack([np.ones(300), right.astype(np.float64)], axis=1)
        matrix = Matrix(samples, ("large", "small"), scores, np.ones((300, 2)))
        held += int(held_out_result(matrix, 0, np.ones(300, dtype=np.int64)).low <= every.mean())
    assert held / 200 > 0.95


def test_the_lowest_point_whose_interval_holds_is_what_keeps_a_share() -> None:
    def kept(saved: float, low: float) -> HeldOutResult:
        return HeldOutResult(saved, low + 0.01, 0.005, low, low + 0.02)

    found = {"0.95": kept(0.6, 0.94), "0.98": kept(0.5, 0.971), "0.99": kept(0.3, 0.988), "1": kept(0.0, 1.0)}
    assert lowest_shown_point(found, 0.95) == "0.98", "its own point keeps 95 %, and does not show it"
    assert lowest_shown_point(found, 0.98) == "0.99"
    assert lowest_shown_point(found, 0.99) is None, "what saves nothing is no router"


def test_what_approvers_see_is_what_was_written_into_the_router(tmp_path: Path) -> None:
    router = replace(
        train(make_matrix(60), None, (0.95,), name="support"), points={"0.99": (0.1, 0.0)}, trained=TRAINED
    )
    version = registry.save_router(tmp_path, router)
    digest = registry.router_digest(tmp_path, version)
    found = _router_json(tmp_path, version, digest, 0.98)
    assert (found["state"], found["digest"]) == ("known", digest)
    evaluation = found["evaluation"]
    assert (evaluation["point"], evaluation["kept"], evaluation["low"]) == ("0.99", 0.996, 0.9912)
    assert (evaluation["prompts"], evaluation["against"], evaluation["shown"]) == (900, "large", True)
    (line,) = evaluation_sentences(found, None, [])
    assert "keeps 99.6% (95 %: 99.1% to 100.1%) of large on 900 prompts that it had not seen" in line
    assert "is shown. It saves 42.0%; a ridge regression saves 30.0%." in line
    assert (
        "strongest model takes every call"
        in evaluation_sentences(_router_json(tmp_path, version, None, 1.0), None, [])[0]
    )
    floor = {"dimension": "tone", "floor": 0.9, "judged": 40, "share": 0.7, "low": 0.55, "high": 0.82, "kept": "no"}
    lines = evaluation_sentences(found, _router_json(tmp_path, version, digest, 0.99), [floor])
    assert lines[1].startswith("Now decides: support@1 keeps 99.6%")
    assert lines[-1] == "tone: floor 90%, 70.0% (55.0% to 82.0%) of 40: not kept."


@pytest.mark.parametrize("state", ["absent", "other", "unreadable", "silent"])
def test_what_is_not_known_of_a_router_is_said(tmp_path: Path, state: str) -> None:
    version, digest = "support@1", None
    if state == "unreadable":
        (tmp_path / "support@1.router").write_bytes(b"no router")
    elif state != "absent":
        registry.save_router(
            tmp_path, replace(train(make_matrix(60), None, (0.95,), name="support"), points={"0.99": (0.1, 0.0)})
        )
        digest = "ab" * 32 if state == "other" else None
    found = _router_json(tmp_path, version, digest, 0.99)
    assert found["state"] == ("known" if state == "silent" else state)
    (line,) = evaluation_sentences(found, None, [])
    assert {"absent": "copy its file", "other": "is asked for", "unreadable": "train it again",
            "silent": "does not say how it was evaluated"}[state] in line  # fmt: skip
