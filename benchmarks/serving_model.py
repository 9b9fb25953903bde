"""Errors of the serving model: with whole models and hardware types left out in turn, and on rows of another file.

    python benchmarks/serving_model.py ROWS.csv.gz [--test OTHER.csv.gz] [--ship FOLDER] --json

`--nested` measures how optimistic the chosen weights of the three fits are: for each group that is left out, they are
chosen on the other groups alone, for both times at once, by the least sum of median errors of aggregated rows over
their targets. There are ten candidates: equal weights, and those where one fit counts twice, four times or alone. Few,
since the least of many medians is mostly luck.

Errors are |predicted / measured - 1|; R1 and V3 are one family. Intervals come from rows that were left out, never from
those that a fit was trained on; the coverage of left-out groups is that of intervals from the other groups.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
from numpy.typing import NDArray

if str(Path(__file__).parents[1]) not in sys.path:
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import serving_train
from benchmarks.serving_rows import MeasuredRows, read_rows

from groundplan.core.errors import GroundplanError
from groundplan.placement.serving.fitted import KINDS, TIMES, ServingModel
from groundplan.placement.serving.model import find_hardware
from groundplan.placement.serving.trees import Floats

SINGLE_FITS = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
CANDIDATES = (
    (1 / 3, 1 / 3, 1 / 3),
    *(tuple(np.roll((lead, rest, rest), at)) for lead, rest in ((1 / 2, 1 / 4), (2 / 3, 1 / 6)) for at in range(3)),
    *SINGLE_FITS,
)
TARGETS = {"per_token": 0.15, "first_token": 0.30}
SHORT_NAMES = {"per_token": "tpot", "first_token": "ttft"}


def error_figures(logs: Floats, mask: NDArray[np.bool_]) -> dict[str, float]:
    """Median and mean of |predicted / measured - 1| where `logs` is log(measured / predicted)."""
    relative_errors = np.abs(np.exp(-logs[mask]) - 1)
    return {
        "median": round(float(np.median(relative_errors)), 4),
        "mean": round(float(relative_errors.mean()), 4),
        "rows": int(mask.sum()),
    }


def coverage(table: serving_train.Table, logs: Floats, groups: NDArray[Any], basis: str) -> float:
    """The share of rows inside intervals derived from the errors of the other groups."""
    is_inside = np.zeros(len(logs), dtype=bool)
    for group in set(groups):
        for kind in KINDS:
            group_rows = (groups == group) & table.kind(kind)
            others = (groups != group) & table.kind(kind)
            others = others if others.sum() >= serving_train.MIN_ROWS else groups != group
            low, high = np.quantile(logs[others], serving_train.interval_percentiles(basis))
            is_inside[group_rows] = (logs[group_rows] >= low) & (logs[group_rows] <= high)
    return round(float(is_inside.mean()), 4)


def cross_validation_figures(table: serving_train.Table) -> tuple[dict[str, Any], dict[str, dict[str, Floats]]]:
    """The figures of each kind of cross-validation, and the errors they are calculated from."""
    groups: dict[str, NDArray[Any]] = {
        "measured": serving_train.folds(table),
        "new model": table.families,
        "new hardware": table.hardware,
    }
    figures: dict[str, Any] = {}
    left_out_errors: dict[str, dict[str, Floats]] = {}
    for basis, labels in groups.items():
        log_progress(f"{basis}: {len(set(labels))} groups are left out in turn")
        left_out_errors[basis] = serving_train.cross_validate(table, labels)
        figures[basis.replace(" ", "_")] = {
            SHORT_NAMES[time]: {
                "aggregated": error_figures(left_out_errors[basis][time], ~table.split),
                "all": error_figures(left_out_errors[basis][time], np.ones(len(labels), dtype=bool)),
                "coverage90": coverage(table, left_out_errors[basis][time], labels, basis),
            }
            for time in TIMES
        }
    return figures, left_out_errors


def nested_errors(table: serving_train.Table, groups: NDArray[Any]) -> dict[str, float]:
    """The median error of aggregated rows, with weights chosen without the left-out group."""
    logs: dict[str, list[Floats]] = {time: [np.zeros(len(groups)) for _ in SINGLE_FITS] for time in TIMES}
    for group in sorted(set(groups)):
        is_held_out = (groups == group) & ~table.split
        fitted = serving_train.fit_model(table, groups != group)
        for time in TIMES if is_held_out.any() else ():
            base, parts = table.base[time][is_held_out], table.components[time][is_held_out]
            for fit, shares in enumerate(SINGLE_FITS):
                part = replace(fitted.parts[time, "whole"], shares=shares)
                logs[time][fit][is_held_out] = part.predict(table.features[is_held_out], base, parts)
    relative_errors = [
        {time: np.abs(np.exp(np.tensordot(shares, np.array(logs[time]), 1) - table.logs[time]) - 1) for time in TIMES}
        for shares in CANDIDATES
    ]
    return errors_with_best_candidates(~table.split, groups, relative_errors)


def errors_with_best_candidates(
    is_aggregated: NDArray[np.bool_], groups: NDArray[Any], relative_errors: list[dict[str, Floats]]
) -> dict[str, float]:
    """The median errors, each group with the candidate that is best on the other groups."""
    errors = {time: np.zeros(len(groups)) for time in TIMES}
    for group in sorted(set(groups)):
        in_group = groups == group
        best = min(
            relative_errors,
            key=lambda candidate: sum(
                float(np.median(candidate[name][is_aggregated & ~in_group])) / TARGETS[name] for name in TIMES
            ),
        )
        for time in TIMES:
            errors[time][in_group] = best[time][in_group]
    return {SHORT_NAMES[time]: round(float(np.median(errors[time][is_aggregated])), 4) for time in TIMES}


def held_out_figures(fitted: ServingModel, rows: MeasuredRows) -> dict[str, Any]:
    """The figures on rows of another file; unseen models are predicted with the intervals for these."""
    answers = fitted.predict_many(rows.settings)
    figures: dict[str, Any] = {"rows": len(rows.settings)}
    bases = [answer.basis for answer in answers]
    figures["basis"] = {name: bases.count(name) for name in sorted(set(bases))}
    for time in TIMES:
        truth = getattr(rows, time)
        guesses = [getattr(answer, time) for answer in answers]
        logs = np.log(truth / np.array([guess.middle for guess in guesses]))
        inside = [guess.low <= true <= guess.high for guess, true in zip(guesses, truth, strict=True)]
        name = SHORT_NAMES[time]
        all_rows, is_aggregated = error_figures(logs, np.ones(len(logs), dtype=bool)), ~rows.split
        figures |= {f"{name}_median_error": all_rows["median"], f"{name}_mean_error": all_rows["mean"]}
        figures[f"{name}_coverage90"] = round(float(np.mean(inside)), 4)
        if is_aggregated.any():
            figures[f"{name}_median_error_aggregated"] = error_figures(logs, is_aggregated)["median"]
    return figures


def unmeasured_figures(fitted: ServingModel, rows: MeasuredRows) -> dict[str, Any]:
    """The predictions for hardware of which there are no rows."""
    figures = {}
    for name in ("a10g", "l4", "cpu", "jetson-orin"):
        hardware = find_hardware(name)
        assert hardware is not None
        setting = next(setting for setting in rows.settings if not setting.split)
        answer = fitted.predict(_with_hardware(setting, hardware))
        width = answer.per_token.high / answer.per_token.low
        figures[name] = {"basis": answer.basis, "per_token_high_over_low": round(width, 1)}
    return figures


def _with_hardware(setting: Any, hardware: Any) -> Any:
    return type(setting)(**{**{name: getattr(setting, name) for name in setting.__slots__}, "hardware": hardware})


def write_shipped_model(fitted: ServingModel, folder: Path, figures: dict[str, Any], rows: int) -> None:
    """Write the model that the product plans with, and its metadata."""
    serving_train.write_model(fitted, folder)
    metadata = {
        "source": "fitted to rows of NVIDIA AIConfigurator's silicon_sample.csv (Apache-2.0), commit 095f58a5",
        "as_of": "2026-04-27",
        "valid_days": 365,
        "note": f"fitted to {rows} rows by benchmarks/serving_model.py; spread: log(measured / predicted)",
        "families": sorted(fitted.families),
        "hardware": sorted(fitted.hardware),
        "spread": {name: [round(value, 4) for value in pair] for name, pair in sorted(fitted.spread.items())},
        "level": {name: round(value, 4) for name, value in fitted.level.items()},
        "validated": figures,
    }
    text = json.dumps(metadata, indent=1, sort_keys=True) + "\n"
    (folder / "serving_model.json").write_text(text, encoding="utf-8")


def log_progress(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("rows", type=Path)
    parser.add_argument("--test", type=Path)
    parser.add_argument("--ship", type=Path, help="write the fitted model into this folder")
    parser.add_argument("--nested", action="store_true", help="shares chosen without the group that is left out")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    try:
        body = run_benchmark(arguments.rows, arguments.test, arguments.ship, arguments.nested)
    except GroundplanError as error:
        log_progress(f"error: {error}")
        return error.exit_code
    print(json.dumps(body, indent=2) if arguments.json else json.dumps(body))
    return 0


def run_benchmark(path: Path, test: Path | None, folder: Path | None, is_nested: bool = False) -> dict[str, Any]:
    started = process_time()
    table = serving_train.Table(read_rows(path))
    test_rows = read_rows(test) if test is not None else None
    figures, left_out_errors = cross_validation_figures(table)
    all_rows = np.ones(len(table.split), dtype=bool)
    without_spread = serving_train.fit_model(table, all_rows)
    fitted = ServingModel(
        without_spread.parts,
        without_spread.families,
        without_spread.hardware,
        serving_train.error_percentiles(table, left_out_errors),
        without_spread.level,
    )
    body: dict[str, Any] = {
        "rows": len(all_rows),
        "left_out": figures,
        "unmeasured": unmeasured_figures(fitted, table.rows),
    }
    # without another file, the test is on folds of configurations that no fit has seen
    body["test"] = held_out_figures(fitted, test_rows) if test_rows is not None else fold_figures(figures)
    if is_nested:
        groups = {"new_model": table.families, "new_hardware": table.hardware}
        body["nested"] = {name: nested_errors(table, labels) for name, labels in groups.items()}
    if folder is not None:
        write_shipped_model(fitted, folder, figures, len(all_rows))
    body["cpu_seconds"] = round(process_time() - started, 1)
    return body


def fold_figures(figures: dict[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = {"of": "folds of configurations of the same file"}
    for name in SHORT_NAMES.values():
        values = figures["measured"][name]
        result |= {f"{name}_median_error": values["all"]["median"], f"{name}_mean_error": values["all"]["mean"]}
        result[f"{name}_coverage90"] = values["coverage90"]
    return result


if __name__ == "__main__":
    raise SystemExit(main())
