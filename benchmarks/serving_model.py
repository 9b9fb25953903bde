"""How far off the serving model is: whole models and hardware types left out in turn, and on rows of another file.

    python benchmarks/serving_model.py ROWS.csv.gz [--test OTHER.csv.gz] [--ship FOLDER] --json

`--nested` says how far the shares of the three fits flatter: for each group that is left out, they are chosen on the
other groups alone, for both times at once, by the least sum of median errors of aggregated rows over their targets.
There are ten to choose from: equal ones, and those where one fit counts twice, four times or alone. Few, since the
least of many medians is mostly luck.

Errors are |predicted / measured - 1|; R1 and V3 are one family. Intervals are made from rows that were left out, never
from those that a fit has seen; the coverage of left-out groups is that of intervals from the other groups.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

if str(Path(__file__).parents[1]) not in sys.path:
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import serving_train
from benchmarks.serving_rows import Measured, read_rows

from groundplan.core.errors import GroundplanError
from groundplan.placement.serving.fitted import KINDS, TIMES, ServingModel
from groundplan.placement.serving.model import find_hardware
from groundplan.placement.serving.trees import Floats

ONE_FIT = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
CANDIDATES = (
    (1 / 3, 1 / 3, 1 / 3),
    *(tuple(np.roll((lead, rest, rest), at)) for lead, rest in ((1 / 2, 1 / 4), (2 / 3, 1 / 6)) for at in range(3)),
    *ONE_FIT,
)
TARGETS = {"per_token": 0.15, "first_token": 0.30}
SHORT = {"per_token": "tpot", "first_token": "ttft"}


def errors(logs: Floats, mask: NDArray[np.bool_]) -> dict[str, float]:
    """Median and mean of |predicted / measured - 1| where `logs` is log(measured / predicted)."""
    off = np.abs(np.exp(-logs[mask]) - 1)
    return {"median": round(float(np.median(off)), 4), "mean": round(float(off.mean()), 4), "rows": int(mask.sum())}


def coverage(table: serving_train.Table, logs: Floats, groups: NDArray[Any], basis: str) -> float:
    """Share of rows inside intervals that were made from the errors of the other groups."""
    inside = np.zeros(len(logs), dtype=bool)
    for group in set(groups):
        for kind in KINDS:
            own = (groups == group) & table.kind(kind)
            others = (groups != group) & table.kind(kind)
            others = others if others.sum() >= serving_train.LEAST_ROWS else groups != group
            low, high = np.quantile(logs[others], serving_train.tails(basis))
            inside[own] = (logs[own] >= low) & (logs[own] <= high)
    return round(float(inside.mean()), 4)


def validated(table: serving_train.Table) -> tuple[dict[str, Any], dict[str, dict[str, Floats]]]:
    """The figures of each way of leaving out, and the errors behind them."""
    groups: dict[str, NDArray[Any]] = {
        "measured": serving_train.folds(table),
        "new model": table.families,
        "new hardware": table.hardware,
    }
    found: dict[str, Any] = {}
    behind: dict[str, dict[str, Floats]] = {}
    for basis, each in groups.items():
        note(f"{basis}: {len(set(each))} groups are left out in turn")
        behind[basis] = serving_train.left_out(table, each)
        found[basis.replace(" ", "_")] = {
            SHORT[time]: {
                "aggregated": errors(behind[basis][time], ~table.split),
                "all": errors(behind[basis][time], np.ones(len(each), dtype=bool)),
                "coverage90": coverage(table, behind[basis][time], each, basis),
            }
            for time in TIMES
        }
    return found, behind


def nested(table: serving_train.Table, groups: NDArray[Any]) -> dict[str, float]:
    """Median error of aggregated rows with shares that the left-out group had no part in."""
    logs: dict[str, list[Floats]] = {each: [np.zeros(len(groups)) for _ in ONE_FIT] for each in TIMES}
    for group in sorted(set(groups)):
        out = (groups == group) & ~table.split
        fitted = serving_train.fit(table, groups != group)
        for each in TIMES if out.any() else ():
            base, parts = table.base[each][out], table.components[each][out]
            for at, shares in enumerate(ONE_FIT):
                part = replace(fitted.parts[each, "whole"], shares=shares)
                logs[each][at][out] = part.predict(table.features[out], base, parts)
    off = [
        {each: np.abs(np.exp(np.tensordot(shares, np.array(logs[each]), 1) - table.logs[each]) - 1) for each in TIMES}
        for shares in CANDIDATES
    ]
    return chosen_elsewhere(~table.split, groups, off)


def chosen_elsewhere(whole: NDArray[np.bool_], groups: NDArray[Any], off: list[dict[str, Floats]]) -> dict[str, float]:
    """Each group's errors are of the candidate that is best on the other groups."""
    found = {each: np.zeros(len(groups)) for each in TIMES}
    for group in sorted(set(groups)):
        own = groups == group
        best = min(off, key=lambda one: sum(float(np.median(one[t][whole & ~own])) / TARGETS[t] for t in TIMES))
        for each in TIMES:
            found[each][own] = best[each][own]
    return {SHORT[each]: round(float(np.median(found[each][whole])), 4) for each in TIMES}


def tested(fitted: ServingModel, rows: Measured) -> dict[str, Any]:
    """The figures on rows of another file; what it is asked about unseen models is answered with their intervals."""
    answers = fitted.predict_many(rows.settings)
    found: dict[str, Any] = {"rows": len(rows.settings)}
    bases = [answer.basis for answer in answers]
    found["basis"] = {name: bases.count(name) for name in sorted(set(bases))}
    for each in TIMES:
        truth = getattr(rows, each)
        guesses = [getattr(answer, each) for answer in answers]
        logs = np.log(truth / np.array([guess.middle for guess in guesses]))
        inside = [guess.low <= true <= guess.high for guess, true in zip(guesses, truth, strict=True)]
        name = SHORT[each]
        whole, agg = errors(logs, np.ones(len(logs), dtype=bool)), ~rows.split
        found |= {f"{name}_median_error": whole["median"], f"{name}_mean_error": whole["mean"]}
        found[f"{name}_coverage90"] = round(float(np.mean(inside)), 4)
        if agg.any():
            found[f"{name}_median_error_aggregated"] = errors(logs, agg)["median"]
    return found


def unmeasured(fitted: ServingModel, rows: Measured) -> dict[str, Any]:
    """What is answered about hardware that no row is of."""
    found = {}
    for name in ("a10g", "l4", "cpu", "jetson-orin"):
        machine = find_hardware(name)
        assert machine is not None
        setting = next(each for each in rows.settings if not each.split)
        answer = fitted.predict(_with(setting, machine))
        width = answer.per_token.high / answer.per_token.low
        found[name] = {"basis": answer.basis, "per_token_high_over_low": round(width, 1)}
    return found


def _with(setting: Any, machine: Any) -> Any:
    return type(setting)(**{**{n: getattr(setting, n) for n in setting.__slots__}, "hardware": machine})


def ship(fitted: ServingModel, folder: Path, figures: dict[str, Any], rows: int) -> None:
    """The model that the product plans with, and what is known of it."""
    serving_train.write(fitted, folder)
    told = {
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
    text = json.dumps(told, indent=1, sort_keys=True) + "\n"
    (folder / "serving_model.json").write_text(text, encoding="utf-8")


def note(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("rows", type=Path)
    parser.add_argument("--test", type=Path)
    parser.add_argument("--ship", type=Path, help="write the fitted model into this folder")
    parser.add_argument("--nested", action="store_true", help="shares chosen without the group that is left out")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    try:
        body = measure(given.rows, given.test, given.ship, given.nested)
    except GroundplanError as error:
        note(f"error: {error}")
        return error.exit_code
    print(json.dumps(body, indent=2) if given.json else json.dumps(body))
    return 0


def measure(path: Path, test: Path | None, folder: Path | None, chosen: bool = False) -> dict[str, Any]:
    began = time.process_time()
    table = serving_train.Table(read_rows(path))
    other = read_rows(test) if test is not None else None
    figures, behind = validated(table)
    everything = np.ones(len(table.split), dtype=bool)
    plain = serving_train.fit(table, everything)
    fitted = ServingModel(plain.parts, plain.families, plain.hardware, serving_train.spread(table, behind), plain.level)
    body: dict[str, Any] = {"rows": len(everything), "left_out": figures, "unmeasured": unmeasured(fitted, table.rows)}
    # without another file, the test is on folds of configurations that no fit has seen
    body["test"] = tested(fitted, other) if other is not None else folded(figures)
    if chosen:
        groups = {"new_model": table.families, "new_hardware": table.hardware}
        body["nested"] = {name: nested(table, each) for name, each in groups.items()}
    if folder is not None:
        ship(fitted, folder, figures, len(everything))
    body["cpu_seconds"] = round(time.process_time() - began, 1)
    return body


def folded(figures: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"of": "folds of configurations of the same file"}
    for name in SHORT.values():
        each = figures["measured"][name]
        found |= {f"{name}_median_error": each["all"]["median"], f"{name}_mean_error": each["all"]["mean"]}
        found[f"{name}_coverage90"] = each["coverage90"]
    return found


if __name__ == "__main__":
    raise SystemExit(main())
