"""Generalised assignment instances in OR-Library's format, solved and verified: objective, bound, seconds of each.

    python benchmarks/placement_gap.py FILE... --seconds 60 --json

`seconds` is the whole time of an instance with reading and solving; verification comes after it. `proof` says whether
the bound follows from dual multipliers that were recomputed in exact arithmetic, or only from branching. With `--best
best_known.csv` each objective is compared with the best known one. Files with several instances give several lines.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from pathlib import Path
from typing import Any

from groundplan.core.errors import GroundplanError
from groundplan.placement.generate.assignment import read_assignments
from groundplan.placement.problem import Problem, WorkLimit
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
        "objective": solution.cost if solution.found else None,
        "bound": solution.bound,
        "seconds": round(seconds, 3),
        "verified": report.verified and solution.found,
        "proof": report.proof,
        "bound_recomputed": report.bound,
        "stopped": solution.stopped,
        "cpu_seconds": round(cpu, 3),
        "violations": [f"{each.kind}: {each.what}" for each in report.violations],
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
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    limit = WorkLimit(seconds=None if given.work else given.seconds, work=given.work, threads=given.threads)
    known = best_known(given.best)
    found: list[dict[str, Any]] = []
    try:
        for file in given.files:
            for number, problem in enumerate(read_assignments(file), start=1):
                line = measured(file, number, problem, limit)
                if file.name in known and line["objective"] is not None:
                    line["above_best"] = line["objective"] / known[file.name] - 1
                found.append(line)
                if not given.json:
                    print(line, flush=True)
    except GroundplanError as error:
        print(f"{error}", file=sys.stderr)
        return 2
    if given.json:
        print(json.dumps({"instances": found}, indent=2))
    return 0 if all(line["verified"] for line in found) else 1


if __name__ == "__main__":
    sys.exit(main())
