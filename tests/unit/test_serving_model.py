"""The serving model: shipped arrays answer as physics demands, unmeasured hardware says so, own traffic corrects."""

from __future__ import annotations

import csv
import gzip
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from benchmarks.serving_model import CANDIDATES, errors_with_best_candidates
from benchmarks.serving_rows import read_rows
from benchmarks.serving_train import flatten
from hypothesis import given, settings
from hypothesis import strategies as st

from groundplan.core.errors import Invalid
from groundplan.placement.reference.store import reference_origins
from groundplan.placement.serving.calibrate import ObservedDay, calibrate
from groundplan.placement.serving.fitted import BLEND_WEIGHTS, fits_memory, shipped_model
from groundplan.placement.serving.model import Engine, Estimate, Serving, Setting, find_hardware, find_shape
from groundplan.placement.serving.physics import roofline


def setting(
    model: str = "meta-llama/Llama-3.1-70B", hardware: str = "h100-sxm", concurrency: float = 16, tensor: int = 4
) -> Setting:
    shape, machine = find_shape(model), find_hardware(hardware)
    assert shape is not None and machine is not None
    return Setting(shape, machine, "fp8", "vllm", 1024, 512, concurrency, Engine(tensor), rank_batch=concurrency)


def test_the_shipped_model_answers_without_any_learning_library() -> None:
    answer = shipped_model().predict(setting())
    assert answer.basis == "measured" and answer.measured and answer.fits
    assert 5 < answer.per_token.middle < 60 and 30 < answer.first_token.middle < 3000
    assert answer.per_token.low < answer.per_token.middle < answer.per_token.high


def test_more_at_once_takes_longer_and_faster_memory_less() -> None:
    answers = shipped_model().predict_many([setting(concurrency=each) for each in (4, 32, 128)])
    times = [answer.per_token.middle for answer in answers]
    assert times == sorted(times)
    assert shipped_model().predict(setting(hardware="h200-sxm")).per_token.middle < answers[1].per_token.middle


@pytest.mark.parametrize("name", ["a10g", "l4", "cpu", "jetson-orin"])
def test_hardware_that_was_never_measured_says_so_with_a_wide_interval(name: str) -> None:
    answer = shipped_model().predict(setting("meta-llama/Llama-3.1-8B", name, 4, 1))
    assert answer.basis == "not measured" and not answer.measured
    assert answer.per_token.high / answer.per_token.low > 10


def test_what_does_not_fit_into_memory_is_told() -> None:
    assert fits_memory(setting(tensor=4)) and not fits_memory(setting(tensor=1, model="deepseek-ai/DeepSeek-R1"))


@given(st.floats(1, 2000), st.sampled_from([1, 2, 4, 8]), st.sampled_from(["h100-sxm", "b200-sxm", "l4"]))
@settings(max_examples=60, deadline=None)
def test_the_roofline_is_a_finite_positive_time(concurrency: float, tensor: int, name: str) -> None:
    line = roofline(setting(hardware=name, concurrency=concurrency, tensor=tensor))
    assert 0 < line.decode <= line.per_token < 1e7 and 0 < line.prefill <= line.first_token < 1e9


def test_flattened_trees_walk_as_the_trees_do() -> None:
    tree = {
        "split_feature": 1,
        "threshold": 0.5,
        "left_child": {"leaf_value": 2.0},
        "right_child": {
            "split_feature": 0,
            "threshold": -1.0,
            "left_child": {"leaf_value": 3.0},
            "right_child": {"leaf_value": 5.0},
        },
    }
    trees = flatten([{"tree_structure": tree}, {"tree_structure": {"leaf_value": 10.0}}], 0.5)
    found = trees.predict(np.array([[0.0, 0.5], [-1.0, 0.6], [0.0, 9.0]]))
    assert found.tolist() == [6.0, 6.5, 7.5]


def estimate(value: float) -> Estimate:
    return Estimate(value, value / 2, value * 2)


def test_own_traffic_corrects_the_model_and_shows_its_error() -> None:
    told = Serving(estimate(200), estimate(10), "measured", True)
    days = [ObservedDay(f"2026-11-{day:02}", 300 + day, 12, told) for day in range(1, 21)]
    found = calibrate(days)
    assert found is not None and found.days == 20
    assert found.before[0] > 0.3 and found.after[0] < 0.15 and found.after[1] < found.before[1]
    corrected = found.apply(told)
    assert corrected.basis == "own traffic" and 260 < corrected.first_token.middle < 320
    assert corrected.first_token.high < told.first_token.high * 1.5
    assert calibrate([]) is None
    few = calibrate(days[:1])
    assert few is not None and few.first_token < found.first_token


def row(**changes: str) -> dict[str, str]:
    names = (
        "silicon_data_source backend model_path system precision mode isl osl gemm_quant_mode batch_size tp_size"
        " attention_dp_size moe_tp_size moe_ep_size silicon_ttft_ms silicon_tpot_ms"
    )
    plain = dict.fromkeys(names.split(), "1")
    given_ = {
        "model_path": "Qwen/Qwen3-32B",
        "system": "h100_sxm",
        "mode": "agg",
        "precision": "fp8",
        "backend": "vllm",
    }
    return {**plain, **given_, **changes}


def write(path: Path, rows: list[dict[str, str]]) -> Path:
    with gzip.open(path, "wt", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_rows_are_read_and_wrong_ones_told_by_line(tmp_path: Path) -> None:
    rows = read_rows(write(tmp_path / "rows.csv.gz", [row(), row(silicon_ttft_ms="80.5")]))
    assert rows.first_token.tolist() == [1.0, 80.5] and set(rows.families) == {"qwen3-32b"}
    for changes in ({"silicon_tpot_ms": "-1"}, {"isl": "many"}, {"model_path": "unknown/thing"}, {"system": "abacus"}):
        with pytest.raises(Invalid) as refused:
            read_rows(write(tmp_path / "wrong.csv.gz", [row(), row(**changes)]))
        assert str(refused.value.where) == "wrong.csv.gz:3"


@pytest.mark.parametrize(
    ("written", "units", "data"),
    [
        (("64", "1", "8", "8"), 8, 1),
        (("16", "1", "4", "4"), 4, 1),
        (("1", "64", "8", "8"), 8, 8),
        (("4", "4", "1", "16"), 4, 4),
        (("2", "2", "1", "4"), 2, 2),
        (("8", "1", "8", "1"), 8, 1),
        (("8", "1", "1", "8"), 8, 1),
        (("1", "8", "1", "8"), 8, 8),
        (("4", "", "2", "2"), 4, 1),
    ],
)
def test_workers_that_a_dump_squared_are_read_as_they_ran(
    tmp_path: Path, written: tuple[str, ...], units: int, data: int
) -> None:
    names = ("tp_size", "attention_dp_size", "moe_tp_size", "moe_ep_size")
    told = row(**dict(zip(names, written, strict=True)), silicon_data_source="x; silicon_concurrency=64; y")
    (found,) = read_rows(write(tmp_path / "rows.csv.gz", [told])).settings
    assert (found.decode.units, found.decode.data, found.concurrency) == (units, data, 64)
    assert found.rank_batch == 64 / data


def test_reference_facts_have_source_and_date_and_grow_old() -> None:
    found = reference_origins()
    assert {"prices", "latency", "egress", "carbon", "hardware", "serving_model"} <= {each.name for each in found}
    assert all(each.source for each in found)
    assert all(
        each.is_stale(date(2099, 1, 1)) and not replace(each, valid_days=10**5).is_stale(each.until) for each in found
    )


def test_a_group_has_no_part_in_choosing_what_it_is_judged_by() -> None:
    groups = np.array(["a"] * 3 + ["b"] * 2 + ["c"] * 2)
    flatters_a = np.array([0.0, 0.0, 0.0, 0.2, 0.2, 0.2, 0.2])
    steady = np.array([0.3, 0.3, 0.3, 0.1, 0.1, 0.1, 0.1])
    off = [{"per_token": each, "first_token": each} for each in (flatters_a, steady)]
    whole = np.ones(7, dtype=bool)
    # chosen on everything, the second would give 0.1; a alone is judged by it, b and c by what is best without them
    assert errors_with_best_candidates(whole, groups, off) == {"tpot": 0.2, "ttft": 0.2}
    assert errors_with_best_candidates(whole & (groups != "b"), groups, off)["tpot"] == 0.3


def test_the_shipped_shares_are_among_those_that_are_judged() -> None:
    assert any(np.allclose(BLEND_WEIGHTS, each) for each in CANDIDATES)
    assert all(sum(each) == pytest.approx(1) and min(each) >= 0 for each in CANDIDATES)
