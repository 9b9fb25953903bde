"""Random companies with every rule on, placed and judged twice: by the verifier, and by a reading of the declarations.

    python benchmarks/placement_random.py --companies 2000 --json
    python benchmarks/placement_random.py --companies 100000 --seed 10000 --processes 2 --progress FILE --json

Up to 60 workloads and 15 sites each. `violations` must be 0. Companies without any placement are counted as
`infeasible` where that is proven, as `undecided` where the work limit came first. `gap` is over the placed ones.

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

from groundplan import placement
from groundplan.placement.generate.random_company import breaches, random_company
from groundplan.placement.problem import WorkLimit
from groundplan.placement.solve.optimise import optimise
from groundplan.placement.verify import verify

CHUNK = 100
JUDGED = ("assemble.py", "problem.py", "generate", "solve", "verify")
"""of placement: what a result depends on"""


def digest() -> str:
    """Of the sources that place, judge and make companies."""
    folder = Path(next(iter(placement.__path__)))
    files = [
        path for name in JUDGED for path in ([folder / name] if name.endswith(".py") else folder.glob(f"{name}/*.py"))
    ]
    total = hashlib.sha256()
    for path in sorted(files):
        total.update(path.read_bytes())
    return total.hexdigest()[:16]


def judged(span: tuple[int, int], work: int) -> dict[str, Any]:
    """Place the companies of seeds first..first + companies."""
    first, companies = span
    wrong: list[str] = []
    gaps: list[float] = []
    counts = {"placed": 0, "infeasible": 0, "undecided": 0, "optimal": 0}
    cpu = time.process_time()
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
            gaps.append(round(float(solution.gap), 6))
    cpu = round(time.process_time() - cpu, 3)
    return {"first": first, "companies": companies, **counts, "cpu": cpu, "gaps": gaps, "wrong": wrong}


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


def all_of(wanted: Iterable[tuple[int, int]], work: int, processes: int) -> Iterator[dict[str, Any]]:
    """Each chunk as it is done, in processes of their own where more than one is asked for."""
    if processes == 1:
        yield from (judged(span, work) for span in wanted)
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for each in as_completed([pool.submit(partial(judged, work=work), span) for span in wanted]):
            yield each.result()


def run(first: int, companies: int, work: int, processes: int = 1, progress: Path | None = None) -> dict[str, Any]:
    """All companies, those of the progress file counted as they stand there."""
    begun, mark = time.perf_counter(), f"{digest()} work {work}"
    before = done_before(progress, mark)
    wanted = list(spans(first, companies))
    rows = [before[span] for span in wanted if span in before]
    left = [span for span in wanted if span not in before]
    for row in all_of(left, work, processes):
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
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--progress", type=Path, help="a file to go on from")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    result = run(given.seed, given.companies, given.work, given.processes, given.progress)
    print(json.dumps(result, indent=2 if given.json else None))
    return 0 if result["violations"] == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
