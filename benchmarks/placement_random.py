"""Random companies with every rule on, placed and judged twice: by the verifier, and by a reading of the declarations.

    python benchmarks/placement_random.py --companies 2000 --json
    python benchmarks/placement_random.py --companies 100000 --seed 10000 --processes 2 --progress FILE --json

Up to 60 workloads and 15 sites each. `violations` must be 0. Companies without any placement are counted as
`infeasible` where that is proven, as `undecided` where the work limit came first. `gap` is over the placed ones.

One seed of each `--every` (20) has more: its company holds the units of some sites for all workloads over the hours of
a day, and rents more only beyond them; and another one is planned as facts besides: own units that are shared over the
week and extended by rented ones, commitments, changes of place in steps, purposes. That plan is judged by both
verifiers of the product; one that these refuse counts as a violation. `facts` says how often each was there.

With `--progress`, what is done stands in a file, a line for each hundred companies, and a run that was stopped goes on
from there; lines of another solver, verifier or generator (by the digest of their sources) do not count.
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

from benchmarks.placement_instances.random_company import breaches, random_company
from benchmarks.placement_instances.random_facts import random_facts

from groundplan import placement
from groundplan.core.errors import Conflict, Invalid
from groundplan.placement.planner import CompanyPlan, build_claim, plan_company
from groundplan.placement.problem import WorkLimit
from groundplan.placement.solve.optimise import optimise
from groundplan.placement.verify import verify
from groundplan.placement.verify.company import find_violations as judged_by_facts

CHUNK = 100
EVERY = 20
"""seeds of which one shares hardware and is planned as facts, too"""
LARGEST = (30, 10)
"""workloads and sites of a company of facts"""
WORK_OF_FACTS = 10
"""times the work of arrays"""
SEEN = ("companies", "placed", "nowhere", "conflict", "undecided", "own", "beyond", "committed", "ramps", "purposes")
"""Counts of companies planned as facts: what became of them, and plans in which own units are shared over the week,
units are rented beyond own ones, a term is signed, a change of place goes in steps, a purpose excludes a place"""


def digest() -> str:
    """Of the sources that place, judge and make companies."""
    product, made = Path(next(iter(placement.__path__))), Path(__file__).with_name("placement_instances")
    total = hashlib.sha256()
    for path in [*sorted(product.rglob("*.py")), *sorted(made.glob("*.py"))]:
        total.update(path.read_bytes())
    return total.hexdigest()[:16]


def judged(span: tuple[int, int], work: int, every: int) -> dict[str, Any]:
    """Place the companies of seeds first..first + companies."""
    first, companies = span
    wrong: list[str] = []
    gaps: list[float] = []
    counts = {"placed": 0, "infeasible": 0, "undecided": 0, "optimal": 0}
    seen = dict.fromkeys(SEEN, 0)
    cpu = time.process_time()
    for seed in range(first, first + companies):
        company = random_company(seed, shared=seed % every == 0)
        solution = optimise(company.problem, WorkLimit(work=work))
        report = verify(company.problem, solution)
        wrong += [f"{seed}: {each.kind}: {each.message}" for each in report.violations]
        if not solution.is_found:
            counts["infeasible" if solution.stop_reason == "infeasible" else "undecided"] += 1
            continue
        wrong += [f"{seed}: {each}" for each in breaches(company, solution)]
        counts["placed"] += 1
        counts["optimal"] += solution.stop_reason == "optimal"
        if solution.gap is not None:
            gaps.append(round(float(solution.gap), 6))
    for seed in range(first, first + companies):
        if seed % every == 0:
            wrong += [f"{seed} as facts: {each}" for each in of_facts(seed, work * WORK_OF_FACTS, seen)]
    cpu = round(time.process_time() - cpu, 3)
    return {"first": first, "companies": companies, **counts, "facts": seen, "cpu": cpu, "gaps": gaps, "wrong": wrong}


def of_facts(seed: int, work: int, seen: dict[str, int]) -> list[str]:
    """What is wrong with the plan of a company of facts; `seen` is counted up."""
    company = random_facts(seed, *LARGEST)
    seen["companies"] += 1
    try:
        plan = plan_company(company, WorkLimit(work=work, gap=1e-4))
    except Conflict as error:
        told = error.code == "placement_nowhere"
        seen["nowhere" if told else "undecided" if "in time" in error.message else "conflict"] += 1
        return []
    except Invalid as error:
        return [error.message]
    seen["placed"] += 1
    for name in _over_time(plan):
        seen[name] += 1
    wrong = [*verify(plan.framed.problem, plan.solution).violations, *judged_by_facts(company, build_claim(plan))]
    return [f"{each.kind}: {each.message}" for each in wrong]


def _over_time(plan: CompanyPlan) -> Iterator[str]:
    """Which of what exists only in facts a plan has."""
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
    rules = (rule for every in plan.framed.candidates.by_workload.values() for c in every for rule in c.rules)
    if any(rule.startswith(("the site is for", "the model is for")) for rule in rules):
        yield "purposes"


def spans(first: int, companies: int) -> Iterator[tuple[int, int]]:
    """(seed, how many) of each hundred."""
    for begin in range(first, first + companies, CHUNK):
        yield begin, min(CHUNK, first + companies - begin)


def done_before(path: Path | None, mark: str) -> dict[tuple[int, int], dict[str, Any]]:
    """What a progress file holds of this code and work; a last line cut short is left out."""
    found: dict[tuple[int, int], dict[str, Any]] = {}
    if path is None or not path.exists():
        return found
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if row.get("mark") == mark:
            found[row["first"], row["companies"]] = row
    return found


def all_of(wanted: Iterable[tuple[int, int]], work: int, every: int, processes: int) -> Iterator[dict[str, Any]]:
    """Each chunk as it is done, in processes of their own where more than one is asked for."""
    if processes == 1:
        yield from (judged(span, work, every) for span in wanted)
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for each in as_completed([pool.submit(partial(judged, work=work, every=every), span) for span in wanted]):
            yield each.result()


def run(
    first: int, companies: int, work: int, processes: int = 1, progress: Path | None = None, every: int = EVERY
) -> dict[str, Any]:
    """All companies, those of the progress file counted as they stand there."""
    begun, mark = time.perf_counter(), f"{digest()} work {work} every {every}"
    before = done_before(progress, mark)
    wanted = list(spans(first, companies))
    rows = [before[span] for span in wanted if span in before]
    left = [span for span in wanted if span not in before]
    for row in all_of(left, work, every, processes):
        rows.append(row)
        if progress is not None:
            with progress.open("a", encoding="utf-8") as file:
                file.write(json.dumps({**row, "mark": mark}) + "\n")
    gaps = [gap for row in rows for gap in row["gaps"]]
    wrong = [text for row in rows for text in row["wrong"]]
    names = ("companies", "placed", "infeasible", "undecided", "optimal")
    return {
        **{name: sum(row[name] for row in rows) for name in names},
        "violations": len(wrong),
        "facts": {name: sum(row["facts"][name] for row in rows) for name in SEEN},
        "gap_median": statistics.median(gaps) if gaps else None,
        "gap_worst": max(gaps, default=None),
        "seconds": round(time.perf_counter() - begun, 3),
        "cpu_seconds": round(sum(row["cpu"] for row in rows), 3),
        "taken_over": companies - sum(each for _, each in left),
        "first_violations": wrong[:20],
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
    given = parser.parse_args()
    result = run(given.seed, given.companies, given.work, given.processes, given.progress, given.every)
    print(json.dumps(result, indent=2 if given.json else None))
    return 0 if result["violations"] == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
