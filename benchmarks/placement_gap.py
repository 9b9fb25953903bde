"""Generalised assignment instances in OR-Library's format, solved and verified: objective, bound, seconds of each.

    python benchmarks/placement_gap.py FILE... --seconds 60 --json

`seconds` is the whole time of an instance with reading and solving; verification comes after it. `proof` says whether
the bound follows from dual multipliers that were recomputed in exact arithmetic, or only from branching. With `--best
best_known.csv` each objective is compared with the best known one. Files with several instances give several lines.

`--baselines` solves each instance with plain CP-SAT and plain HiGHS too, one after the other with the same limit, and
says `never_above` (our objective is not above theirs) and `strictly_below` (below both; asked only where neither of
them proves its optimum). `--computing` counts seconds in which the process computes on all threads, not the clock's:
then other load takes nothing from anyone. Fairest on a machine at rest is the clock.
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

from benchmarks.placement_baselines import Plain, cp_sat, highs
from benchmarks.placement_instances.assignment import read_assignments

from groundplan.core.errors import GroundplanError
from groundplan.placement.problem import Problem, WorkLimit
from groundplan.placement.solve.backends import import_solver
from groundplan.placement.solve.optimise import optimise
from groundplan.placement.verify import verify


def measured(file: Path, number: int, problem: Problem, limit: WorkLimit) -> dict[str, Any]:
    """Solve one instance and let the verifier judge it."""
    begun, cpu = time.perf_counter(), time.process_time()
    solution = optimise(problem, limit)
    seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
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
        "violations": [f"{each.kind}: {each.message}" for each in report.violations],
    }


def beside(problem: Problem, limit: WorkLimit, ours: int | None) -> dict[str, Any]:
    """Both plain solvers with the same limit, and whether we are above or below them."""
    others: dict[str, Plain] = {"cp_sat": cp_sat(problem, limit), "highs": highs(problem, limit)}
    found = [each.objective for each in others.values() if each.objective is not None]
    open_ = not any(each.optimal for each in others.values())
    return {
        "baselines": {name: asdict(each) for name, each in others.items()},
        "never_above": ours is not None and all(ours <= each for each in found),
        "neither_proves": open_,
        "strictly_below": ours is not None and all(ours < each for each in found) if open_ else None,
    }


def summary(lines: list[dict[str, Any]]) -> dict[str, int]:
    """Over all instances."""
    open_ = [line for line in lines if line["neither_proves"]]
    return {
        "instances": len(lines),
        "never_above": sum(line["never_above"] for line in lines),
        "neither_proves": len(open_),
        "strictly_below": sum(bool(line["strictly_below"]) for line in open_),
    }


def best_known(path: Path | None) -> dict[str, int]:
    """Best known objective by the last part of the instance's path."""
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
    given = parser.parse_args()
    seconds = None if given.work else given.seconds
    limit = WorkLimit(seconds=seconds, work=given.work, threads=given.threads, use_cpu_time=given.computing)
    for name in ("highspy", "ortools.sat.python.cp_model"):
        import_solver(name)
    known = best_known(given.best)
    found: list[dict[str, Any]] = []
    try:
        for file in given.files:
            for number, problem in enumerate(read_assignments(file), start=1):
                line = measured(file, number, problem, limit)
                if file.name in known and line["objective"] is not None:
                    line["above_best"] = line["objective"] / known[file.name] - 1
                if given.baselines:
                    line |= beside(problem, limit, line["objective"])
                found.append(line)
                if not given.json:
                    print(line, flush=True)
    except GroundplanError as error:
        print(f"{error}", file=sys.stderr)
        return 2
    if given.json:
        body: dict[str, Any] = {"instances": found}
        print(json.dumps(body | ({"beside": summary(found)} if given.baselines else {}), indent=2))
    return 0 if all(line["verified"] for line in found) else 1


if __name__ == "__main__":
    sys.exit(main())
