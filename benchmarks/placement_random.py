"""Random companies with every rule on, placed and judged twice: by the verifier, and by a reading of the declarations.

    python benchmarks/placement_random.py --companies 2000 --json

Up to 60 workloads and 15 sites each. `violations` must be 0. Companies without any placement are counted as
`infeasible` where that is proven, as `undecided` where the work limit came first. `gap` is over the placed ones.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from typing import Any

from groundplan.placement.generate.random_company import breaches, random_company
from groundplan.placement.problem import WorkLimit
from groundplan.placement.solve.optimise import optimise
from groundplan.placement.verify import verify


def judged(companies: int, first: int, work: int) -> dict[str, Any]:
    """Place that many companies from seed `first` on."""
    wrong: list[str] = []
    gaps: list[float] = []
    counts = {"placed": 0, "infeasible": 0, "undecided": 0, "optimal": 0}
    begun, cpu = time.perf_counter(), time.process_time()
    for seed in range(first, first + companies):
        company = random_company(seed)
        solution = optimise(company.problem, WorkLimit(work=work))
        report = verify(company.problem, solution)
        wrong += [f"{seed}: {each.kind}: {each.what}" for each in report.violations]
        if not solution.found:
            counts["infeasible" if solution.stopped == "infeasible" else "undecided"] += 1
            continue
        wrong += [f"{seed}: {each}" for each in breaches(company, solution)]
        counts["placed"] += 1
        counts["optimal"] += solution.stopped == "optimal"
        if solution.gap is not None:
            gaps.append(float(solution.gap))
    return {
        "companies": companies,
        "violations": len(wrong),
        **counts,
        "gap_median": statistics.median(gaps) if gaps else None,
        "gap_worst": max(gaps, default=None),
        "seconds": round(time.perf_counter() - begun, 3),
        "cpu_seconds": round(time.process_time() - cpu, 3),
        "first_violations": wrong[:20],
    }


def main() -> int:
    """Read the arguments, print the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--companies", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1, help="of the first company")
    parser.add_argument("--work", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    result = judged(given.companies, given.seed, given.work)
    print(json.dumps(result, indent=2 if given.json else None))
    return 0 if result["violations"] == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
