"""The cost of the two libraries that are usual for near-duplicates and for checks of tables: `datasketch`, `pandera`.

Neither is a dependency: run `pip install datasketch pandera pandas` first. `sketch` is a MinHash of 126 permutations
over pairs of words, by the product's library (rensa) and by datasketch: CPU milliseconds a document, and the mean error
of the estimated similarity of a document to an edited copy. `table` are the same four checks of a column, by the
product and by pandera, row by row. `import` is the CPU time and memory that importing each library takes in a process.
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
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) / 256
size_before, started = size(), time.process_time()
__import__(sys.argv[1])
print(time.process_time() - started, size() - size_before)
"""
CHECK = {"column": "bar", "type": "number", "at_least": 0, "at_most": 16, "nulls": 0.01, "matches": r"[0-9.]+"}


def documents(count: int) -> list[list[str]]:
    """`count` documents of 300 words each."""
    word_lists: list[list[str]] = []
    words: list[str] = []
    for text in passages():
        words += words_of(text)
        if len(words) >= 300:
            word_lists.append(words[:300])
            words = []
        if len(word_lists) == count:
            break
    return word_lists


def edit_words(words: Sequence[str], share: float, rng: random.Random) -> list[str]:
    return [f"w{rng.randrange(10**6)}" if rng.random() < share else word for word in words]


def sketch_by_datasketch(words: list[str]) -> Any:
    from datasketch import MinHash  # noqa: PLC0415 -- no dependency

    minhash = MinHash(num_perm=PERMUTATIONS, seed=1)
    minhash.update_batch([shingle.encode() for shingle in shingles(words)])
    return minhash


def measure_work(work: Callable[[list[str]], Any], word_lists: Sequence[list[str]]) -> tuple[float, list[Any]]:
    """(mean CPU milliseconds, results) of the work on each document."""
    work(word_lists[0])
    started = time.process_time()
    results = [work(words) for words in word_lists]
    return (time.process_time() - started) * 1000 / len(word_lists), results


def compare_sketches(count: int) -> dict[str, Any]:
    rng = random.Random(1)
    originals = documents(count)
    copies = [edit_words(words, 0.2 * number / count, rng) for number, words in enumerate(originals)]
    true_similarity = [
        len(shingles(a) & shingles(b)) / len(shingles(a) | shingles(b)) for a, b in zip(originals, copies, strict=True)
    ]
    rensa_ms, rensa_sketches = measure_work(sketch, originals + copies)
    signatures = [array("I", one) for one in rensa_sketches]
    rensa_similarity = [
        sum(a == b for a, b in zip(one, other, strict=True)) / PERMUTATIONS
        for one, other in zip(signatures[:count], signatures[count:], strict=True)
    ]
    datasketch_ms, minhashes = measure_work(sketch_by_datasketch, originals + copies)
    datasketch_similarity = [
        one.jaccard(other) for one, other in zip(minhashes[:count], minhashes[count:], strict=True)
    ]
    return {
        "documents": 2 * count,
        "rensa": {"cpu_ms": round(rensa_ms, 4), "error": _mean_error(rensa_similarity, true_similarity)},
        "datasketch": {"cpu_ms": round(datasketch_ms, 4), "error": _mean_error(datasketch_similarity, true_similarity)},
        "ratio": round(datasketch_ms / rensa_ms, 1),
    }


def _mean_error(estimated: Sequence[float], true: Sequence[float]) -> float:
    return round(sum(abs(a - b) for a, b in zip(estimated, true, strict=True)) / len(true), 4)


def compare_table_checks(rows: int) -> dict[str, Any]:
    import pandas  # noqa: PLC0415 -- no dependency
    from pandera import pandas as pandera  # noqa: PLC0415 -- no dependency

    rng = random.Random(1)
    cells = [f"{rng.uniform(0, 16):.2f}" for _ in range(rows)]
    for number in range(0, rows, 100):
        cells[number] = ("", "17.5", "n/a")[number // 100 % 3]
    table, now = Table(name="t", columns=["id", "bar"], rows=[[str(n), cell] for n, cell in enumerate(cells)]), _NOW

    def check_by_product() -> dict[str, int]:
        return {
            code: detail.get("rows", 1) for code, _, detail in check_table(table, CHECK, FormChecker().misfits, now)
        }

    schema = pandera.DataFrameSchema(
        {"bar": pandera.Column(float, [pandera.Check.ge(0), pandera.Check.le(16)], nullable=True, coerce=False)}
    )

    def check_by_pandera() -> dict[str, int]:
        frame = pandas.DataFrame(table.rows, columns=table.columns)
        text = frame["bar"].where(frame["bar"] != "")
        frame["bar"] = pandas.to_numeric(text, errors="coerce")
        misfits = int((frame["bar"].isna() & text.notna()).sum())
        try:
            schema.validate(frame, lazy=True)
        except pandera.errors.SchemaErrors as error:
            return {"type": misfits, "range": len(error.failure_cases)}
        return {"type": misfits}

    figures: dict[str, Any] = {"rows": rows}
    for name, work in (("own", check_by_product), ("pandera", check_by_pandera)):
        findings = work()
        started = time.process_time()
        for _ in range(5):
            work()
        figures[name] = {"cpu_ms": round((time.process_time() - started) * 200, 2), "found": findings}
    return figures


_NOW = datetime(2026, 11, 25, tzinfo=UTC)


def measure_import(name: str) -> dict[str, float]:
    output = subprocess.run([sys.executable, "-c", IMPORT, name], capture_output=True, text=True, check=True).stdout
    seconds, mebibytes = map(float, output.split())
    return {"cpu_s": round(seconds, 3), "mib": round(mebibytes, 1)}


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=400)
    parser.add_argument("--rows", type=int, default=5000)
    arguments = parser.parse_args()
    names = ("rensa", "datasketch", "groundplan.knowledge.quality.tables", "pandera.pandas")
    figures = {
        "sketch": compare_sketches(arguments.documents),
        "table": compare_table_checks(arguments.rows),
        "import": {name: measure_import(name) for name in names},
        "commit": commit(),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
