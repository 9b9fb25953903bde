"""Generalised assignment instances in OR-Library's format, solved and verified: objective, bound, seconds of each.

    python benchmarks/placement_gap.py FILE... --seconds 60 --json

`seconds` is the time of solving an instance, without verification. `proof` says whether the bound follows from dual
multipliers that were recomputed in exact arithmetic, or only from branching. With `--best best_known.csv` each
objective is compared with the best known one. Files with several instances give several lines.

`--baselines` also solves each instance with plain CP-SAT and plain HiGHS, one after the other with the same limit, and
reports `never_above` (our objective is not above theirs) and `strictly_below` (below both; only where neither of them
proves its optimum). `--computing` counts CPU seconds over all threads instead of elapsed ones, so that other load does
not matter. On an idle machine elapsed time is fairest.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

if str(Path(__file__).parents[1]) not in sys.path:
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.placement_baselines import BaselineResult, solve_with_cp_sat, solve_with_highs
from benchmarks.placement_instances.assignment import read_assignments

from groundplan.core.errors import GroundplanError
from groundplan.placement.problem import Problem, WorkLimit
from groundplan.placement.solve.backends import import_solver
from groundplan.placement.solve.optimise import optimise
from groundplan.placement.verify import verify


def measure_instance(file: Path, number: int, problem: Problem, limit: WorkLimit) -> dict[str, Any]:
    """Solve and verify one instance."""
    started, cpu = time.perf_counter(), time.process_time()
    solution = optimise(problem, limit)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    report = verify(problem, solution)
    return {
        "file": str(file),
        "instance": number,
        "objective": solution.cost if solution.is_found else None,
        "bound": solution.bound,
        "seconds": round(seconds, 3),
        "verified": report.is_verified and solution.is_found,
        "proof": report.proof,
        "bound_recomputed": report.bound,
        "stopped": solution.stop_reason,
        "cpu_seconds": round(cpu, 3),
        "violations": [f"{violation.kind}: {violation.message}" for violation in report.violations],
    }


def compare_baselines(problem: Problem, limit: WorkLimit, ours: int | None) -> dict[str, Any]:
    """The results of both baselines with the same limit, and whether our objective is above or below theirs."""
    baselines: dict[str, BaselineResult] = {
        "cp_sat": solve_with_cp_sat(problem, limit),
        "highs": solve_with_highs(problem, limit),
    }
    objectives = [result.objective for result in baselines.values() if result.objective is not None]
    neither_proves = not any(result.optimal for result in baselines.values())
    return {
        "baselines": {name: asdict(result) for name, result in baselines.items()},
        "never_above": ours is not None and all(ours <= result for result in objectives),
        "neither_proves": neither_proves,
        "strictly_below": ours is not None and all(ours < result for result in objectives) if neither_proves else None,
    }


def comparison_summary(lines: list[dict[str, Any]]) -> dict[str, int]:
    """Totals over all instances."""
    neither_proves = [line for line in lines if line["neither_proves"]]
    return {
        "instances": len(lines),
        "never_above": sum(line["never_above"] for line in lines),
        "neither_proves": len(neither_proves),
        "strictly_below": sum(bool(line["strictly_below"]) for line in neither_proves),
    }


def read_best_known(path: Path | None) -> dict[str, int]:
    """The last part of an instance's path -> its best known objective."""
    if path is None:
        return {}
    with path.open(encoding="utf-8") as lines:
        return {Path(row["Path"]).name: int(row["Best known solution value"]) for row in csv.DictReader(lines)}


def main() -> int:
    """Read the arguments, print one line or the JSON of all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each instance")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work", type=int, help="a deterministic limit instead of the clock")
    parser.add_argument("--best", type=Path, help="best_known.csv to compare with")
    parser.add_argument("--baselines", action="store_true", help="plain CP-SAT and plain HiGHS beside it")
    parser.add_argument("--computing", action="store_true", help="seconds are those of computing, not of the clock")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    seconds = None if arguments.work else arguments.seconds
    limit = WorkLimit(seconds=seconds, work=arguments.work, threads=arguments.threads, use_cpu_time=arguments.computing)
    for name in ("highspy", "ortools.sat.python.cp_model"):
        import_solver(name)
    known = read_best_known(arguments.best)
    lines: list[dict[str, Any]] = []
    try:
        for file in arguments.files:
            for number, problem in enumerate(read_assignments(file), start=1):
                line = measure_instance(file, number, problem, limit)
                if file.name in known and line["objective"] is not None:
                    line["above_best"] = line["objective"] / known[file.name] - 1
                if arguments.baselines:
                    line |= compare_baselines(problem, limit, line["objective"])
                lines.append(line)
                if not arguments.json:
                    print(line, flush=True)
    except GroundplanError as error:
        print(f"{error}", file=sys.stderr)
        return 2
    if arguments.json:
        body: dict[str, Any] = {"instances": lines}
        print(json.dumps(body | ({"beside": comparison_summary(lines)} if arguments.baselines else {}), indent=2))
    return 0 if all(line["verified"] for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
