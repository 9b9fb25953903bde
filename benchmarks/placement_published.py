"""Two published checks: Mélange's example, and the small problem on which one HiGHS release answers wrong.

    python benchmarks/placement_published.py --melange melange_example.json --lp aibrix_azureconv_5rps.lp --json

The example's files are not shipped; without them this says so and ends with 2.
"""

from __future__ import annotations

import argparse
import json
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

if str(Path(__file__).parents[1]) not in sys.path:
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.placement_divided import divided
from benchmarks.placement_instances.fleet import Machine, fleet

from groundplan.placement.problem import WorkLimit
from groundplan.placement.solve.backends import import_solver, quiet_highs
from groundplan.placement.solve.optimise import optimise
from groundplan.placement.verify import verify


def melange(path: Path) -> dict[str, Any]:
    """Dollars an hour by slices, and continuous with the headroom that leaves."""
    given = json.loads(path.read_text(encoding="utf-8"))
    rate = Fraction(str(given["total_request_rate"]))
    rates = [rate * Fraction(str(each)) for row in given["workload_distribution"] for each in row]
    machines = {
        name: Machine(
            round(Fraction(str(each["cost"])) * 100), tuple(Fraction(str(t)) for row in each["tputs"] for t in row)
        )
        for name, each in given["gpu_info"].items()
    }
    found: dict[str, Any] = {}
    for slices in (1, 2, 3, 4, 5, 8):
        problem = fleet(machines, rates, slices)
        solution = optimise(problem, WorkLimit(work=40))
        report = verify(problem, solution)
        found[f"slices_{slices}"] = {
            "usd_hour": solution.cost / 100,
            "machines": dict(zip(machines, (int(n) for n in solution.units), strict=True)),
            "verified": report.is_verified,
            "proof": report.proof,
            "optimal": solution.stop_reason == "optimal",
        }
    division = divided(fleet(machines, rates, 1))
    assert division is not None
    found["continuous"] = {
        "usd_hour": division.cost / 100,
        "machines": dict(zip(machines, (int(n) for n in division.units), strict=True)),
        "headroom": division.headroom,
    }
    return found


def small_program(path: Path) -> dict[str, Any]:
    """The optimum by the pinned HiGHS, and its version."""
    lib = import_solver("highspy")
    solver = quiet_highs(lib)
    solver.readModel(str(path))
    solver.run()
    return {"objective": solver.getInfo().objective_function_value, "highs": solver.version()}


def main() -> int:
    """Read the arguments, print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--melange", type=Path, required=True)
    parser.add_argument("--lp", type=Path, required=True)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    for path in (given.melange, given.lp):
        if not path.is_file():
            print(f"{path} is not there; give the path of the published file", file=sys.stderr)
            return 2
    result = {"melange": melange(given.melange), "small_program": small_program(given.lp)}
    print(json.dumps(result, indent=2 if given.json else None))
    return 0


if __name__ == "__main__":
    sys.exit(main())
