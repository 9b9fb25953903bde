"""Fits the serving model to measured rows, and cross-validates it with whole models and hardware left out.

Needs the extra `groundplan[placement]`. `fitted` evaluates the result. Cross-validation fits again for each group that
is left out; no row is predicted by a fit that was trained on it.
"""

from __future__ import annotations

import importlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.serving_rows import MeasuredRows
from numpy.typing import NDArray

from groundplan.core.errors import Invalid
from groundplan.placement.serving.fitted import BLEND_WEIGHTS, KINDS, TIMES, FittedTime, ServingModel
from groundplan.placement.serving.physics import components, features, roofline
from groundplan.placement.serving.trees import Floats, Trees

RIDGE = 3.0
ROUNDS = 200
SEEDS = 2
MIN_ROWS = 100
"""rows of a kind of serving; with fewer, its model is fitted to all rows"""
FOLDS = 8
_SETTINGS = {
    "objective": "l1", "learning_rate": 0.06, "num_leaves": 15, "min_child_samples": 15, "feature_fraction": 0.4,
    "bagging_fraction": 0.7, "bagging_freq": 1, "lambda_l2": 1, "max_bin": 63, "verbose": -1, "num_threads": 1,
    "deterministic": True, "force_row_wise": True,
}  # fmt: skip
_LOSS: dict[str, dict[str, Any]] = {"per_token": {}, "first_token": {"objective": "huber", "alpha": 0.3}}
"""first tokens are noisy: absolute deviations alone ignore how far off an entire campaign of rows is"""
Mask = NDArray[np.bool_]


class Table:
    """Features, rooflines and logarithms of measured rows, computed once for many fits."""

    def __init__(self, rows: MeasuredRows) -> None:
        rooflines = [roofline(row) for row in rows.settings]
        self.rows = rows
        self.features = np.array(
            [features(setting, roofline_) for setting, roofline_ in zip(rows.settings, rooflines, strict=True)]
        )
        self.base = {time: np.log([getattr(roofline_, time) for roofline_ in rooflines]) for time in TIMES}
        by_row = [components(setting, roofline_) for setting, roofline_ in zip(rows.settings, rooflines, strict=True)]
        self.components = {time: np.array([row[time] for row in by_row]) for time in TIMES}
        self.logs = {"per_token": np.log(rows.per_token), "first_token": np.log(rows.first_token)}
        self.families, self.hardware, self.split = rows.families, rows.hardware, rows.split

    def kind(self, kind: str) -> Mask:
        return self.split if kind == "split" else ~self.split


def fit_time(table: Table, time: str, rows: Mask) -> FittedTime:
    """The model of one time, fitted to the chosen rows. Families are weighted by the root of their number of rows."""
    lightgbm = _import_library("lightgbm")
    inputs, logs, base = table.features[rows], table.logs[time][rows], table.base[time][rows]
    weights = _family_weights(table.families[rows])
    centre, scale = table.features.mean(axis=0), table.features.std(axis=0) + 1e-9
    weight = _fit_least_deviations(np.c_[np.ones(len(inputs)), (inputs - centre) / scale], logs, weights)
    sums = _fit_non_negative(table.components[time][rows], np.exp(logs), weights)
    structures: list[dict[str, Any]] = []
    for seed in range(SEEDS):
        dataset = lightgbm.Dataset(inputs, logs - base, weight=weights)
        structures += lightgbm.train({**_SETTINGS, **_LOSS[time], "seed": seed}, dataset, ROUNDS).dump_model()[
            "tree_info"
        ]
    return FittedTime(centre, scale, weight, sums, flatten(structures, 1 / SEEDS), BLEND_WEIGHTS)


def fit_model(table: Table, rows: Mask) -> ServingModel:
    """The models of all times, fitted to the chosen rows, without spread."""
    parts, level = {}, {}
    for kind in KINDS:
        of_kind = rows & table.kind(kind)
        training_rows = of_kind if of_kind.sum() >= MIN_ROWS else rows
        for time in TIMES:
            parts[time, kind] = fit_time(table, time, training_rows)
            level[f"{time} {kind}"] = float(np.median((table.logs[time] - table.base[time])[training_rows]))
    return ServingModel(parts, frozenset(table.families[rows]), frozenset(table.hardware[rows]), {}, level)


def cross_validate(table: Table, groups: NDArray[Any]) -> dict[str, Floats]:
    """Time -> log(measured / predicted) of every row, by fits trained without its group."""
    errors: dict[str, Floats] = {time: np.zeros(len(groups)) for time in TIMES}
    for group in sorted(set(groups)):
        is_held_out = groups == group
        fitted = fit_model(table, ~is_held_out)
        for kind in KINDS:
            chosen = is_held_out & table.kind(kind)
            for time in TIMES if chosen.any() else ():
                part, parts = fitted.parts[time, kind], table.components[time][chosen]
                predicted = part.predict(table.features[chosen], table.base[time][chosen], parts)
                errors[time][chosen] = table.logs[time][chosen] - predicted
    return errors


def folds(table: Table) -> NDArray[np.int64]:
    """A fold for each configuration: the same setting under other loads is never on both sides."""
    keys = [
        f"{setting.shape.family} {setting.hardware.name} {setting.engine} {setting.precision} "
        f"{setting.prompt} {setting.output} {setting.decode} {setting.prefill}"
        for setting in table.rows.settings
    ]
    fold_of_key = {key: index % FOLDS for index, key in enumerate(sorted(set(keys)))}
    return np.array([fold_of_key[key] for key in keys])


def interval_percentiles(basis: str) -> tuple[float, float]:
    """The percentiles that bound 90 % of the rows; wider ones for unseen groups, whose errors the other groups
    underestimate."""
    return (0.05, 0.95) if basis == "measured" else (0.025, 0.975)


def error_percentiles(table: Table, errors: dict[str, dict[str, Floats]]) -> dict[str, tuple[float, float]]:
    """`time kind basis` -> 5th and 95th percentile of the error, from rows that were left out in that way. The fits
    do not predict hardware that was never measured."""
    percentiles = {}
    for basis in ("measured", "new model"):
        for time, values in errors[basis].items():
            for kind in KINDS:
                of_kind = values[table.kind(kind)]
                errors_used = of_kind if len(of_kind) >= MIN_ROWS else values
                low, high = np.quantile(errors_used, interval_percentiles(basis))
                percentiles[f"{time} {kind} {basis}"] = (float(low), float(high))
    return percentiles


def write_model(fitted: ServingModel, folder: Path) -> None:
    """Write the arrays of a fitted model, as `fitted.shipped_model` reads them."""
    arrays: dict[str, Any] = {}
    for (time, kind), part in fitted.parts.items():
        prefix = f"{time}.{kind}."
        for name in ("centre", "scale", "weight", "sums"):
            arrays[prefix + name] = getattr(part, name)
        for name in ("roots", "feature", "threshold", "left", "right", "value", "depth"):
            arrays[prefix + name] = getattr(part.trees, name)
    np.savez_compressed(folder / "serving_model.npz", **arrays)


def _family_weights(families: NDArray[Any]) -> Floats:
    count = Counter(families)
    mean = len(families) / len(count)
    return np.array([(mean / count[each]) ** 0.5 for each in families])


def _fit_least_deviations(data: Floats, logs: Floats, weights: Floats) -> Floats:
    """Fit weights by least absolute deviations with a ridge, by iterative reweighting."""
    reweighting: Floats = np.ones(len(data))
    weight: Floats = np.zeros(data.shape[1])
    for _ in range(8):
        weighted = data * (reweighting * weights)[:, None]
        weight = np.asarray(
            np.linalg.solve(weighted.T @ data + RIDGE * np.eye(data.shape[1]), weighted.T @ logs), dtype=np.float64
        )
        reweighting = 1 / np.maximum(np.abs(logs - data @ weight), 0.05)
    return weight


def _fit_non_negative(component_times: Floats, times: Floats, weights: Floats) -> Floats:
    """Fit non-negative weights by least absolute relative deviations, by iterative reweighting (NNLS)."""
    nnls = _import_library("scipy.optimize").nnls
    largest = component_times.max(axis=0) + 1e-12
    reweighting: Floats = np.ones(len(times))
    solution: Floats = np.zeros(component_times.shape[1])
    for _ in range(12):
        root = np.sqrt(weights * reweighting) / times
        solution = np.asarray(
            nnls(component_times / largest * root[:, None], times * root, maxiter=2000)[0], dtype=np.float64
        )
        reweighting = 1 / np.maximum(np.abs(component_times / largest @ solution / times - 1), 0.07)
    scaled: Floats = solution / largest
    return scaled


def _import_library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Invalid(
            "fitting the serving model needs a library that is not installed",
            code="extra_missing",
            hint="pip install 'groundplan[placement]'. The shipped model needs nothing more.",
        ) from error


def flatten(structures: list[dict[str, Any]], share: float) -> Trees:
    """Convert trees from LightGBM's dump to arrays; every value is multiplied by `share`."""
    nodes: list[tuple[int, float, int, int, float]] = []
    max_depth = 1

    def walk(node: dict[str, Any], depth: int) -> int:
        nonlocal max_depth
        max_depth = max(max_depth, depth)
        index = len(nodes)
        nodes.append((0, np.inf, index, index, 0.0))
        if "split_feature" not in node:
            nodes[index] = (0, np.inf, index, index, float(node["leaf_value"]) * share)
            return index
        left, right = walk(node["left_child"], depth + 1), walk(node["right_child"], depth + 1)
        nodes[index] = (int(node["split_feature"]), float(node["threshold"]), left, right, 0.0)
        return index

    roots = [walk(each["tree_structure"], 1) for each in structures]
    feature, threshold, left, right, value = (np.array(column) for column in zip(*nodes, strict=True))
    return Trees(
        np.array(roots, dtype=np.int32), feature.astype(np.int16), threshold.astype(np.float32),
        left.astype(np.int32), right.astype(np.int32), value.astype(np.float32), max_depth,
    )  # fmt: skip
