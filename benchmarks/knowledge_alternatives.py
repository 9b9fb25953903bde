"""What the two libraries would cost that the field uses for copies and for checks of tables: `datasketch`, `pandera`.

Neither is a dependency: `pip install datasketch pandera pandas` beside the project first. `sketch` is a MinHash of 126
permutations over pairs of words, by what the product uses (rensa) and by datasketch: CPU milliseconds a document, and
the mean error of the likeness of pairs of documents of which one was edited. `table` are the same four checks of a
column, by the product and by pandera, told row by row. `import` is the CPU time and memory of a process that imports
each library.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from array import array
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

if str(Path(__file__).parents[1]) not in sys.path:
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.knowledge_texts import passages
from benchmarks.provenance import commit

from groundplan.knowledge.parsing.model import Table
from groundplan.knowledge.parsing.prepare import shingles, sketch, words_of
from groundplan.knowledge.quality.forms import FormChecker
from groundplan.knowledge.quality.tables import check_table

PERMUTATIONS = 126
IMPORT = """
import sys, time
def size():
    with open("/proc/self/statm") as told:
        return int(told.read().split()[1]) / 256
before, begun = size(), time.process_time()
__import__(sys.argv[1])
print(time.process_time() - begun, size() - before)
"""
CHECK = {"column": "bar", "type": "number", "at_least": 0, "at_most": 16, "nulls": 0.01, "matches": r"[0-9.]+"}


def documents(count: int) -> list[list[str]]:
    """Of some 300 words each."""
    found: list[list[str]] = []
    words: list[str] = []
    for text in passages():
        words += words_of(text)
        if len(words) >= 300:
            found.append(words[:300])
            words = []
        if len(found) == count:
            break
    return found


def edited(words: Sequence[str], share: float, chance: random.Random) -> list[str]:
    return [f"w{chance.randrange(10**6)}" if chance.random() < share else word for word in words]


def by_datasketch(words: list[str]) -> Any:
    from datasketch import MinHash  # noqa: PLC0415 -- no dependency

    made = MinHash(num_perm=PERMUTATIONS, seed=1)
    made.update_batch([one.encode() for one in shingles(words)])
    return made


def spent(work: Callable[[list[str]], Any], given: Sequence[list[str]]) -> tuple[float, list[Any]]:
    """CPU milliseconds for each, and what came out."""
    work(given[0])
    begun = time.process_time()
    made = [work(one) for one in given]
    return (time.process_time() - begun) * 1000 / len(given), made


def sketches(count: int) -> dict[str, Any]:
    chance = random.Random(1)
    first = documents(count)
    second = [edited(words, 0.2 * number / count, chance) for number, words in enumerate(first)]
    true = [len(shingles(a) & shingles(b)) / len(shingles(a) | shingles(b)) for a, b in zip(first, second, strict=True)]
    ours, made = spent(sketch, first + second)
    numbers = [array("I", one) for one in made]
    likeness = [
        sum(a == b for a, b in zip(one, other, strict=True)) / PERMUTATIONS
        for one, other in zip(numbers[:count], numbers[count:], strict=True)
    ]
    theirs, hashed = spent(by_datasketch, first + second)
    other_likeness = [one.jaccard(other) for one, other in zip(hashed[:count], hashed[count:], strict=True)]
    return {
        "documents": 2 * count,
        "rensa": {"cpu_ms": round(ours, 4), "error": _error(likeness, true)},
        "datasketch": {"cpu_ms": round(theirs, 4), "error": _error(other_likeness, true)},
        "ratio": round(theirs / ours, 1),
    }


def _error(found: Sequence[float], true: Sequence[float]) -> float:
    return round(sum(abs(a - b) for a, b in zip(found, true, strict=True)) / len(true), 4)


def tables(rows: int) -> dict[str, Any]:
    import pandas  # noqa: PLC0415 -- no dependency
    from pandera import pandas as pandera  # noqa: PLC0415 -- no dependency

    chance = random.Random(1)
    cells = [f"{chance.uniform(0, 16):.2f}" for _ in range(rows)]
    for number in range(0, rows, 100):
        cells[number] = ("", "17.5", "n/a")[number // 100 % 3]
    table, now = Table(name="t", columns=["id", "bar"], rows=[[str(n), cell] for n, cell in enumerate(cells)]), _NOW

    def ours() -> dict[str, int]:
        return {
            code: detail.get("rows", 1) for code, _, detail in check_table(table, CHECK, FormChecker().misfits, now)
        }

    schema = pandera.DataFrameSchema(
        {"bar": pandera.Column(float, [pandera.Check.ge(0), pandera.Check.le(16)], nullable=True, coerce=False)}
    )

    def theirs() -> dict[str, int]:
        frame = pandas.DataFrame(table.rows, columns=table.columns)
        text = frame["bar"].where(frame["bar"] != "")
        frame["bar"] = pandas.to_numeric(text, errors="coerce")
        wrong = int((frame["bar"].isna() & text.notna()).sum())
        try:
            schema.validate(frame, lazy=True)
        except pandera.errors.SchemaErrors as error:
            return {"type": wrong, "range": len(error.failure_cases)}
        return {"type": wrong}

    found: dict[str, Any] = {"rows": rows}
    for name, work in (("own", ours), ("pandera", theirs)):
        told = work()
        begun = time.process_time()
        for _ in range(5):
            work()
        found[name] = {"cpu_ms": round((time.process_time() - begun) * 200, 2), "found": told}
    return found


_NOW = datetime(2026, 11, 25, tzinfo=UTC)


def imported(name: str) -> dict[str, float]:
    told = subprocess.run([sys.executable, "-c", IMPORT, name], capture_output=True, text=True, check=True).stdout
    seconds, mebibytes = map(float, told.split())
    return {"cpu_s": round(seconds, 3), "mib": round(mebibytes, 1)}


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=400)
    parser.add_argument("--rows", type=int, default=5000)
    given = parser.parse_args()
    names = ("rensa", "datasketch", "groundplan.knowledge.quality.tables", "pandera.pandas")
    found = {
        "sketch": sketches(given.documents),
        "table": tables(given.rows),
        "import": {name: imported(name) for name in names},
        "commit": commit(),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
