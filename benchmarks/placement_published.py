"""Two published problems: Mélange's example, and the small program for which one HiGHS release returns a wrong optimum.

    python benchmarks/placement_published.py --melange melange_example.json --lp aibrix_azureconv_5rps.lp --json

The files are not shipped; without them the exit status is 2.
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

from benchmarks.placement_divided import solve_divided
from benchmarks.placement_instances.fleet import Machine, fleet_problem

from groundplan.placement.problem import WorkLimit
from groundplan.placement.solve.backends import import_solver, quiet_highs
from groundplan.placement.solve.optimise import optimise
from groundplan.placement.verify import verify


def solve_melange(path: Path) -> dict[str, Any]:
    """Dollars an hour by the number of slices; for divisible loads also the remaining headroom."""
    arguments = json.loads(path.read_text(encoding="utf-8"))
    rate = Fraction(str(arguments["total_request_rate"]))
    rates = [rate * Fraction(str(machine)) for row in arguments["workload_distribution"] for machine in row]
    machines = {
        name: Machine(
            round(Fraction(str(machine["cost"])) * 100),
            tuple(Fraction(str(throughput)) for row in machine["tputs"] for throughput in row),
        )
        for name, machine in arguments["gpu_info"].items()
    }
    results: dict[str, Any] = {}
    for slices in (1, 2, 3, 4, 5, 8):
        problem = fleet_problem(machines, rates, slices)
        solution = optimise(problem, WorkLimit(work=40))
        report = verify(problem, solution)
        results[f"slices_{slices}"] = {
            "usd_hour": solution.cost / 100,
            "machines": dict(zip(machines, (int(n) for n in solution.units), strict=True)),
            "verified": report.is_verified,
            "proof": report.proof,
            "optimal": solution.stop_reason == "optimal",
        }
    division = solve_divided(fleet_problem(machines, rates, 1))
    assert division is not None
    results["continuous"] = {
        "usd_hour": division.cost / 100,
        "machines": dict(zip(machines, (int(n) for n in division.units), strict=True)),
        "headroom": division.headroom,
    }
    return results


def solve_small_program(path: Path) -> dict[str, Any]:
    """The optimum of the small program by the pinned HiGHS, and its version."""
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
    arguments = parser.parse_args()
    for path in (arguments.melange, arguments.lp):
        if not path.is_file():
            print(f"{path} is not there; give the path of the published file", file=sys.stderr)
            return 2
    result = {"melange": solve_melange(arguments.melange), "small_program": solve_small_program(arguments.lp)}
    print(json.dumps(result, indent=2 if arguments.json else None))
    return 0


if __name__ == "__main__":
    sys.exit(main())
