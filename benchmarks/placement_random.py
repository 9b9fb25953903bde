"""Random companies with all rules, placed and checked twice: by the verifier, and by re-reading the declarations.

    python benchmarks/placement_random.py --companies 2000 --json
    python benchmarks/placement_random.py --companies 100000 --seed 10000 --processes 2 --progress FILE --json

Up to 60 workloads and 15 sites each. `violations` must be 0. Companies without any placement are counted as
`infeasible` where that is proven, as `undecided` where the work limit came first. `gap` is over the placed ones.

Every 20th seed (`--every`) has more. Its company shares the units of some sites between workloads over the hours of a
day, and rents more only beyond them. A second company of that seed is planned from facts: own units that are shared
over the week and extended by rented ones, commitments, moves in steps, purposes. Both verifiers of the product check
that plan; one that they refuse counts as a violation. `facts` counts how often each feature occurred.

With `--progress`, results are kept in a file, one line per hundred companies, and a stopped run resumes from it; lines
of another solver, verifier or generator (by the digest of their sources) do not count.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

if str(Path(__file__).parents[1]) not in sys.path:
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.placement_instances.random_company import find_breaches, random_company
from benchmarks.placement_instances.random_facts import random_facts

from groundplan import placement
from groundplan.core.errors import Conflict, Invalid
from groundplan.placement.planner import CompanyPlan, build_claim, plan_company
from groundplan.placement.problem import WorkLimit
from groundplan.placement.solve.optimise import optimise
from groundplan.placement.verify import verify
from groundplan.placement.verify.company import find_violations

CHUNK = 100
EVERY = 20
"""one seed in so many shares hardware, and has a second company planned from facts"""
MAX_FACTS_SIZE = (30, 10)
"""most workloads and sites of a company of facts"""
FACTS_WORK_FACTOR = 10
"""factor on the work limit for companies of facts"""
FACT_COUNTS = (
    "companies",
    "placed",
    "nowhere",
    "conflict",
    "undecided",
    "own",
    "beyond",
    "committed",
    "ramps",
    "purposes",
)
"""counts of companies planned from facts: their outcomes, and plans in which own units are shared over the week, units
are rented beyond own ones, a term is signed, a move goes in steps, a purpose excludes a place"""


def source_digest() -> str:
    """The digest of the sources of solver, verifiers and generators."""
    product, instances = Path(next(iter(placement.__path__))), Path(__file__).with_name("placement_instances")
    digest = hashlib.sha256()
    for path in [*sorted(product.rglob("*.py")), *sorted(instances.glob("*.py"))]:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def check_companies(seed_span: tuple[int, int], work: int, every: int) -> dict[str, Any]:
    """Place and verify the companies of one span of seeds, (first, number)."""
    first, companies = seed_span
    violations: list[str] = []
    gaps: list[float] = []
    outcome_counts = {"placed": 0, "infeasible": 0, "undecided": 0, "optimal": 0}
    fact_counts = dict.fromkeys(FACT_COUNTS, 0)
    cpu_seconds = time.process_time()
    for seed in range(first, first + companies):
        company = random_company(seed, shared=seed % every == 0)
        solution = optimise(company.problem, WorkLimit(work=work))
        report = verify(company.problem, solution)
        violations += [f"{seed}: {each.kind}: {each.message}" for each in report.violations]
        if not solution.is_found:
            outcome_counts["infeasible" if solution.stop_reason == "infeasible" else "undecided"] += 1
            continue
        violations += [f"{seed}: {each}" for each in find_breaches(company, solution)]
        outcome_counts["placed"] += 1
        outcome_counts["optimal"] += solution.stop_reason == "optimal"
        if solution.gap is not None:
            gaps.append(round(float(solution.gap), 6))
    for seed in range(first, first + companies):
        if seed % every == 0:
            violations += [
                f"{seed} as facts: {each}" for each in check_facts(seed, work * FACTS_WORK_FACTOR, fact_counts)
            ]
    cpu_seconds = round(time.process_time() - cpu_seconds, 3)
    return {
        "first": first,
        "companies": companies,
        **outcome_counts,
        "facts": fact_counts,
        "cpu": cpu_seconds,
        "gaps": gaps,
        "wrong": violations,
    }


def check_facts(seed: int, work: int, fact_counts: dict[str, int]) -> list[str]:
    """The violations of the plan of a company of facts; `fact_counts` is updated."""
    company = random_facts(seed, *MAX_FACTS_SIZE)
    fact_counts["companies"] += 1
    try:
        plan = plan_company(company, WorkLimit(work=work, gap=1e-4))
    except Conflict as error:
        is_nowhere = error.code == "placement_nowhere"
        fact_counts["nowhere" if is_nowhere else "undecided" if "in time" in error.message else "conflict"] += 1
        return []
    except Invalid as error:
        return [error.message]
    fact_counts["placed"] += 1
    for name in _features_used(plan):
        fact_counts[name] += 1
    violations = [*verify(plan.framed.problem, plan.solution).violations, *find_violations(company, build_claim(plan))]
    return [f"{each.kind}: {each.message}" for each in violations]


def _features_used(plan: CompanyPlan) -> Iterator[str]:
    """The features of a plan that only companies of facts have."""
    pools = plan.framed.pools
    if any(name in pools and pools[name].is_own for name in plan.shared_hardware):
        yield "own"
    if any(
        pool.own_amounts_before and (name in plan.bought or name in plan.shared_hardware)
        for name, pool in pools.items()
    ):
        yield "beyond"
    if any(each.months for each in plan.shared_hardware.values()):
        yield "committed"
    if any(each.origin is not None for each in build_claim(plan).placed.values()):
        yield "ramps"
    rules = (
        rule
        for candidates in plan.framed.candidates.by_workload.values()
        for candidate in candidates
        for rule in candidate.rules
    )
    if any(rule.startswith(("the site is for", "the model is for")) for rule in rules):
        yield "purposes"


def seed_spans(first: int, companies: int) -> Iterator[tuple[int, int]]:
    """(first seed, number) of each hundred seeds."""
    for first_seed in range(first, first + companies, CHUNK):
        yield first_seed, min(CHUNK, first + companies - first_seed)


def read_progress(path: Path | None, mark: str) -> dict[tuple[int, int], dict[str, Any]]:
    """The rows of a progress file that belong to this code and work limit; an incomplete last line is ignored."""
    rows: dict[tuple[int, int], dict[str, Any]] = {}
    if path is None or not path.exists():
        return rows
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if row.get("mark") == mark:
            rows[row["first"], row["companies"]] = row
    return rows


def run_spans(all_spans: Iterable[tuple[int, int]], work: int, every: int, processes: int) -> Iterator[dict[str, Any]]:
    """The result of each span as it is done, in separate processes if more than one is asked for."""
    if processes == 1:
        yield from (check_companies(seed_span, work, every) for seed_span in all_spans)
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for future in as_completed(
            [pool.submit(partial(check_companies, work=work, every=every), seed_span) for seed_span in all_spans]
        ):
            yield future.result()


def run(
    first: int, companies: int, work: int, processes: int = 1, progress: Path | None = None, every: int = EVERY
) -> dict[str, Any]:
    """The totals of all companies, including the rows of the progress file."""
    started, mark = time.perf_counter(), f"{source_digest()} work {work} every {every}"
    earlier = read_progress(progress, mark)
    all_spans = list(seed_spans(first, companies))
    rows = [earlier[seed_span] for seed_span in all_spans if seed_span in earlier]
    remaining = [seed_span for seed_span in all_spans if seed_span not in earlier]
    for row in run_spans(remaining, work, every, processes):
        rows.append(row)
        if progress is not None:
            with progress.open("a", encoding="utf-8") as file:
                file.write(json.dumps({**row, "mark": mark}) + "\n")
    gaps = [gap for row in rows for gap in row["gaps"]]
    violations = [text for row in rows for text in row["wrong"]]
    names = ("companies", "placed", "infeasible", "undecided", "optimal")
    return {
        **{name: sum(row[name] for row in rows) for name in names},
        "violations": len(violations),
        "facts": {name: sum(row["facts"][name] for row in rows) for name in FACT_COUNTS},
        "gap_median": statistics.median(gaps) if gaps else None,
        "gap_worst": max(gaps, default=None),
        "seconds": round(time.perf_counter() - started, 3),
        "cpu_seconds": round(sum(row["cpu"] for row in rows), 3),
        "taken_over": companies - sum(count for _, count in remaining),
        "first_violations": violations[:20],
    }


def main() -> int:
    """Read the arguments, print the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--companies", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1, help="of the first company")
    parser.add_argument("--work", type=int, default=1)
    parser.add_argument("--every", type=int, default=EVERY, help="seeds of which one has more")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--progress", type=Path, help="a file to go on from")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    result = run(
        arguments.seed, arguments.companies, arguments.work, arguments.processes, arguments.progress, arguments.every
    )
    print(json.dumps(result, indent=2 if arguments.json else None))
    return 0 if result["violations"] == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
