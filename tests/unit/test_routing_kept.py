"""What a router really keeps is judged by chances that are known, of prompts that it was not trained on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from benchmarks import routing_kept
from benchmarks.routing_kept import KeptResult, measure_set, summarize
from benchmarks.routing_sets import GeneratedSet
from benchmarks.routing_sets import make_set as made_set

from groundplan.economics.routing.learn import evaluate
from groundplan.economics.routing.learn.fit import train
from groundplan.economics.routing.model import Matrix, Router

ROWS, EVALUATION_ROWS = 120, 80


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Judged by fewer prompts, so that a set takes a second."""
    monkeypatch.setattr(routing_kept, "EVALUATION_ROWS", EVALUATION_ROWS)


def found(kept: float, ridge_kept: float, **more: Any) -> KeptResult:
    settings = {"kind": "close", "rows": 300, "models": 2, "seed": 0, "saved": 0.5, "ridge_saved": 0.25, **more}
    return KeptResult(kept=kept, ridge_kept=ridge_kept, **settings)


def test_a_share_below_what_was_promised_is_counted() -> None:
    sets = [found(0.98, 1.0), found(0.99, 0.9), found(1.03, 0.8), found(1.0, 1.0, saved=0.1)]
    assert summarize(sets) == {
        "sets": 4, "kept": 1.0, "below": 0.25, "saved": 0.4, "ridge_kept": 0.925, "ridge_below": 0.5,
        "ridge_saved": 0.25,
    }  # fmt: skip


def test_it_is_trained_on_the_first_prompts_and_judged_by_the_chances_of_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Matrix] = []
    judged: list[Matrix] = []
    sets: list[GeneratedSet] = []

    def learned(matrix: Matrix, vectors: None, keeps: Sequence[float], *, seed: int) -> Router:
        seen.append(matrix)
        return train(matrix, vectors, keeps, seed=seed)

    def kept_by(matrix: Matrix, strongest: int, picked: Any) -> Any:
        judged.append(matrix)
        return kept(matrix, strongest, picked)

    def drawn(kind: Any, seed: int) -> GeneratedSet:
        sets.append(made_set(kind, seed))
        return sets[-1]

    kept = evaluate.held_out_result
    for name, stand in (("train", learned), ("held_out_result", kept_by), ("make_set", drawn)):
        monkeypatch.setattr(routing_kept, name, stand)
    measure_set("close", ROWS, 3, 4)
    (trained,), (whole,) = seen, sets
    assert [each.id for each in trained.samples] == [f"r{at}" for at in range(ROWS)]
    assert len(judged) == 2, "the router and the ridge"
    for matrix in judged:
        assert [each.id for each in matrix.samples] == [f"r{at}" for at in range(ROWS, ROWS + EVALUATION_ROWS)]
        columns = [int(model.rpartition("-")[2]) for model in matrix.models]
        assert sorted(columns) == [0, 1, 2]
        np.testing.assert_array_equal(matrix.scores, whole.chances[ROWS:][:, columns])
        np.testing.assert_allclose(matrix.costs, whole.costs[ROWS:][:, columns])


def test_the_same_seed_finds_the_same_and_another_one_another_set() -> None:
    first, again, other = (measure_set("close", ROWS, 2, seed) for seed in (1, 1, 2))
    assert first == again
    assert replace(first, seed=2) != other
    for each in (first, other):
        assert each.kept > 0 and each.ridge_kept > 0 and each.saved < 1 and each.ridge_saved < 1
        assert each.saved or each.kept == pytest.approx(1.0), "whoever saves nothing asks the strongest for everything"


def test_the_command_tells_all_together_and_apart(capsys: pytest.CaptureFixture[str]) -> None:
    chosen = ["--kinds", "close", "topics", "--rows", str(ROWS), "--models", "2", "--seeds", "0"]
    assert routing_kept.main([*chosen, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert [each["kind"] for each in figures["each"]] == ["close", "topics"]
    assert {"all", "kind close", "kind topics", f"rows {ROWS}", "models 2", "machine", "commit", "each"} == set(figures)
    assert figures["all"]["sets"] == 2 and figures["kind close"]["sets"] == 1
    assert figures["all"]["kept"] == pytest.approx(np.mean([each["kept"] for each in figures["each"]]), abs=1e-4)
    assert figures["kind topics"] == summarize([KeptResult(**figures["each"][1])])
    assert routing_kept.main(chosen[:2] + chosen[3:]) == 0
    assert capsys.readouterr().out.startswith("all: {")
    with pytest.raises(SystemExit):
        routing_kept.main(["--kinds", "unheard"])
