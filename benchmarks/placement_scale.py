"""A large random company from a published generator, placed and verified: proven gap, seconds, memory.

    python benchmarks/placement_scale.py --workloads 10000 --sites 200 --seconds 10 --json

Three capacities at each site, opening costs and move costs; `--seed` and `--tightness` choose the company (see
benchmarks/placement_instances/companies.py). `gap` is (cost - bound) / bound as a fraction, with the bound recomputed
by the verifier from dual multipliers in exact arithmetic; `claimed_gap` includes bounds proven only by branching.
`--lose` closes the site with the most workloads and places these anew. Seconds are those of solving, without generating
the company. `--computing` counts CPU seconds over all threads, so that other load does not matter.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

if str(Path(__file__).parents[1]) not in sys.path:
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.placement_instances.companies import large_company

from groundplan.placement.problem import Problem, Solution, WorkLimit
from groundplan.placement.solve.backends import import_solver
from groundplan.placement.solve.optimise import optimise
from groundplan.placement.solve.site_loss import solve_site_loss
from groundplan.placement.verify import verify


def solve_and_verify(problem: Problem, limit: WorkLimit) -> tuple[Solution, dict[str, Any]]:
    """Solve and verify; returns the solution and its figures."""
    started, cpu = time.perf_counter(), time.process_time()
    solution = optimise(problem, limit)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    started = time.perf_counter()
    report = verify(problem, solution)
    verify_seconds = time.perf_counter() - started
    cost, bound = solution.cost, report.bound or 0
    return solution, {
        "gap": (cost - bound) / bound if solution.is_found and bound > 0 else None,
        "seconds": round(seconds, 3),
        "verified": report.is_verified and solution.is_found,
        "cpu_seconds": round(cpu, 3),
        "verify_seconds": round(verify_seconds, 3),
        "claimed_gap": float(solution.gap) if solution.gap is not None else None,
        "cost": cost,
        "bound": bound,
        "stopped": solution.stop_reason,
        "work": solution.work,
        "options": len(problem.options.part),
        "memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "violations": [f"{violation.kind}: {violation.message}" for violation in report.violations],
    }


def lose_site(problem: Problem, solution: Solution) -> dict[str, Any]:
    """Close the site with the most parts and place these anew."""
    site = int(np.bincount(problem.options.site[solution.choice]).argmax())
    started, cpu = time.perf_counter(), time.process_time()
    loss = solve_site_loss(problem, solution, site)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    report = verify(loss.problem, loss.solution)
    return {
        "seconds": round(seconds, 3),
        "cpu_seconds": round(cpu, 3),
        "there": loss.parts_at_site,
        "moved": loss.moved_parts,
        "fewest": loss.min_moved_parts,
        "verified": report.is_verified and loss.solution.is_found,
    }


def main() -> int:
    """Read the arguments, print the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", type=int, default=10_000)
    parser.add_argument("--sites", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--work", type=int, help="a deterministic limit instead of the clock")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tightness", type=float, default=0.7)
    parser.add_argument("--stop-at", type=float, default=0.0, help="stop early at this proven gap, a fraction")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--computing", action="store_true", help="seconds are those of computing, not of the clock")
    parser.add_argument("--lose", action="store_true", help="then lose the fullest site")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    for name in ("highspy", "ortools.sat.python.cp_model"):
        import_solver(name)
    problem = large_company(arguments.workloads, arguments.sites, seed=arguments.seed, tightness=arguments.tightness)
    seconds = None if arguments.work else arguments.seconds
    limit = WorkLimit(
        seconds=seconds,
        work=arguments.work,
        gap=arguments.stop_at,
        threads=arguments.threads,
        use_cpu_time=arguments.computing,
    )
    solution, result = solve_and_verify(problem, limit)
    result |= {
        "workloads": arguments.workloads,
        "sites": arguments.sites,
        "seed": arguments.seed,
        "tightness": arguments.tightness,
    }
    if arguments.lose and solution.is_found:
        result["lost"] = lose_site(problem, solution)
    print(json.dumps(result, indent=2 if arguments.json else None))
    return 0 if result["verified"] else 1


if __name__ == "__main__":
    sys.exit(main())
