"""The benchmarks of routing and of savings proposals: what they print, and how they refuse."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks import routing, savings
from tests.unit.test_routing_model import make_matrix

from groundplan.economics.routing.learn.evaluate import evaluate
from groundplan.economics.routing.model import TOKENS, Floats


def a_set(folder: Path, rows: int = 60) -> Path:
    matrix, path = make_matrix(rows), folder / "set.jsonl"
    lines = [
        {
            "id": sample.id,
            "group": sample.group,
            "prompt": sample.prompt,
            "scores": dict(zip(matrix.models, scores, strict=True)),
            "costs": dict(zip(matrix.models, costs, strict=True)),
        }
        for sample, scores, costs in zip(matrix.samples, matrix.scores.tolist(), matrix.costs.tolist(), strict=True)
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def test_routing_prints_what_is_saved_and_kept_beside_both_ridges(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert routing.main([str(a_set(tmp_path)), "--text-only", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    for percent in ("99", "98", "95"):
        for name in ("saved", "kept", "ridge_saved", "ridge_kept", "tuned_ridge_saved", "mixed_saved"):
            assert isinstance(printed[f"{name}_at_{percent}"], float)
        assert {f"times_ridge_at_{percent}", f"times_stronger_ridge_at_{percent}"} <= set(printed)
    assert (printed["rows"], printed["embedding"], printed["best_single"]) == (60, False, "large")
    assert (printed["folds_by"], printed["rows_left_out"], printed["models_left_out"]) == ("groups", 0, [])
    assert 0.5 <= printed["same_choice_by_one_choice_for_all"] <= 1
    assert printed["abstained_on_nonsense"] == printed["abstained_on_other_languages"] == 1.0
    assert printed["decision_ms_p50"] > 0.05, "a decision and no early return, also where nothing was proven"


def test_the_factor_is_against_the_stronger_ridge() -> None:
    found = evaluate(make_matrix(120), None, (0.99, 0.98, 0.95))
    half, twice = (
        {name: replace(each, saved=each.saved * times) for name, each in found.routed.items()} for times in (0.5, 2.0)
    )
    for plain, tuned in ((half, twice), (twice, half)):
        printed = routing.evaluation_figures(replace(found, ridge=plain, tuned=tuned), None)
        assert printed["times_stronger_ridge_at_95"] == 0.5
        assert printed["times_ridge_at_95"] == (2.0 if plain is half else 0.5)


def nothing(folder: Path) -> None:
    return None


def broken(folder: Path) -> None:
    for name in ("mmlu", "gsm8k"):
        (folder / f"routellm_{name}.csv.gz").write_bytes(gzip.compress(b"x" * 4000)[:40])


def of_others(folder: Path) -> None:
    for name in ("mmlu", "gsm8k"):
        (folder / f"routellm_{name}.csv.gz").write_bytes(gzip.compress(b"prompt,other\nq,True\n"))


def no_gzip(folder: Path) -> None:
    for name in ("mmlu", "gsm8k"):
        (folder / f"routellm_{name}.csv.gz").write_bytes(b"prompt")


@pytest.mark.parametrize("make", [nothing, broken, of_others, no_gzip], ids=["absent", "cut", "other", "plain"])
def test_a_folder_without_its_files_is_refused_in_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], make: Any
) -> None:
    make(tmp_path)
    assert routing.main(["--routellm", str(tmp_path), "--text-only"]) != 0
    printed = capsys.readouterr().err
    assert printed.startswith("routing: ") and "routellm_" in printed


@pytest.mark.parametrize("main", [routing.main, savings.main])
def test_a_set_that_cannot_be_used_is_refused_in_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], main: Any
) -> None:
    option = ["--matrix"] if main is savings.main else ["--text-only"]
    few = tmp_path / "few.jsonl"
    few.write_text("\n".join(a_set(tmp_path).read_text().splitlines()[:12]))
    for path, said in ((tmp_path / "absent.jsonl", "cannot be read"), (few, "too few")):
        assert main([*option, str(path)]) != 0
        assert said in capsys.readouterr().err


def test_embeddings_are_kept_for_the_very_prompts_they_are_of(tmp_path: Path) -> None:
    class Counting:
        asked = 0

        def truncate(self, text: str, most: int) -> str:
            assert most == TOKENS
            return text

        def embed(self, texts: Sequence[str]) -> Floats:
            self.asked += 1
            return np.zeros((len(texts), 4), dtype=np.float32) + self.asked

    encoder: Any = Counting()
    one, other = make_matrix(40, seed=1), make_matrix(40, seed=2)
    cache = tmp_path / "not" / "there"
    for _ in range(2):
        assert routing.cached_embeddings(encoder, one, cache, "set").tolist() == [[1.0] * 4] * 40  # type: ignore[union-attr]
    assert routing.cached_embeddings(encoder, other, cache, "set").tolist() == [[2.0] * 4] * 40  # type: ignore[union-attr]
    assert encoder.asked == 2


def test_savings_prints_coverage_of_every_kind_of_case(capsys: pytest.CaptureFixture[str]) -> None:
    assert savings.main(["--cases", "4", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert set(printed["otherwise"]) == set(savings.VIOLATED_ASSUMPTIONS)
    for each in (printed, *printed["otherwise"].values()):
        assert each["cases"] == 4 and 0 <= each["covered"] <= each["covered_or_said_unknown"] <= 1
    assert printed["otherwise"]["fewer_than_ten_reviews"]["said_unknown"] == 4
    with pytest.raises(SystemExit):
        savings.main(["--cases", "0"])


@pytest.mark.parametrize("kind", ["as_assumed", *sorted(savings.VIOLATED_ASSUMPTIONS)])
def test_the_stated_interval_holds_the_truth_or_is_said_to_be_unknown(kind: str) -> None:
    make = savings.VIOLATED_ASSUMPTIONS.get(kind, savings.as_assumed)
    dice = np.random.default_rng(11)
    cases = [make(dice) for _ in range(60)]
    printed = savings.coverage(cases)
    assert printed["covered_or_said_unknown"] >= 0.87
    for proposal, _ in cases:
        assert ("by the judge alone" in proposal.sentence) is (proposal.agreement.reviewed < 10)
    if kind != "fewer_than_ten_reviews":
        assert printed["median_width"] < 0.25
