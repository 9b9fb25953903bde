"""Markdown documents ingested per second on one core: parsed, checked, chunked, stored and indexed.

    python benchmarks/knowledge_ingest.py [--documents 3000] [--core 0] [--json]

Everything runs on one core (`sched_setaffinity`, inherited): this process, the confined parser, and a PostgreSQL of its
own. Timed from the first file until the last document can be found by its words: reading, front matter, digests, exact
and near duplicates, chunks, permissions, one batch after the other, then the word index, which follows the database.
Not timed: vectors and the scan for personal data, which follow in the background. `per_cpu_second` divides by the CPU
seconds of all these processes, which other load on the machine does not change.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import psutil
import psycopg

from groundplan.blueprint.model import Source
from groundplan.core.ids import new_id
from groundplan.knowledge.ingest import ingest_source
from groundplan.knowledge.quality.assess import assess
from groundplan.knowledge.retrieval.projection import Projection
from groundplan.knowledge.retrieval.replication import apply_next_changes
from groundplan.knowledge.retrieval.words import Analyzer
from groundplan.knowledge.sources.folder import FolderConnector
from groundplan.testing.database import cluster
from groundplan.testing.documents import generate_documents

if str(Path(__file__).parents[1]) not in sys.path:
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.knowledge_machine import run_details


def measure(count: int, core: int) -> dict[str, object]:
    os.sched_setaffinity(0, {core})
    with (
        tempfile.TemporaryDirectory() as name,
        cluster(Path(name) / "cluster") as running,
        running.database() as database,
    ):
        folder = Path(name) / "documents"
        sizes = _write_documents(folder, count)
        conn = psycopg.connect(database.urls["control"], autocommit=True)
        for number in range(40):  # the owners that documents name: an unknown owner would be a finding each
            row = (new_id(), f"owner{number}@acme.example", "P")
            conn.execute("INSERT INTO person (id, email, name) VALUES (%s, %s, %s)", row)
        source = Source(name="bench", path="x", sensitivity="internal", owner="ana@acme.example", readers=["everyone"])
        cpu_before, started = _cpu_seconds(Path(name)), time.monotonic()
        report = ingest_source(conn, source, FolderConnector(folder))
        stored = time.monotonic()
        assess(conn, "bench", datetime.now(UTC).date())
        assessed = time.monotonic()
        index, analyzer = Projection(), Analyzer()
        while apply_next_changes(conn, index, analyzer):
            pass
        ended = time.monotonic()
        cpu = _cpu_seconds(Path(name)) - cpu_before
        conn.close()
    assert (report.added, report.failed) == (count, 0)
    return {
        "documents_per_second": round(count / (ended - started), 1),
        "per_cpu_second": round(count / cpu, 1),
        "documents": count,
        "chunks": report.chunks,
        "median_bytes": round(statistics.median(sizes)),
        "seconds": {
            "parsed_and_stored": round(stored - started, 2),
            "duplicates_and_checks": round(assessed - stored, 2),
            "word_index": round(ended - assessed, 2),
        },
        "cpu_seconds": round(cpu, 2),
        **run_details(f"generated: {count} Markdown documents"),
        "machine": f"{platform.machine()}, one of {psutil.cpu_count()} cores, Python {platform.python_version()}",
        "load_average": os.getloadavg()[0],
    }


def _write_documents(folder: Path, count: int) -> list[int]:
    sizes = []
    for document in generate_documents(count):
        file = folder / document.path
        file.parent.mkdir(parents=True, exist_ok=True)
        sizes.append(file.write_bytes(document.text.encode()))
    return sizes


def _cpu_seconds(folder: Path) -> float:
    """CPU seconds of this process, of its children past and present, and of the server whose files are in `folder`."""
    own = os.times()
    total = own.user + own.system + own.children_user + own.children_system
    child_pids = {child.pid for child in psutil.Process().children(recursive=True)}
    for process in psutil.process_iter():
        try:
            if process.pid in child_pids or (process.pid != os.getpid() and Path(process.cwd()).is_relative_to(folder)):
                times = process.cpu_times()
                total += times.user + times.system
        except (psutil.NoSuchProcess, psutil.AccessDenied, FileNotFoundError):
            continue
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=3000)
    parser.add_argument("--core", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    arguments = parser.parse_args()
    figures = measure(arguments.documents, arguments.core)
    if arguments.json:
        print(json.dumps(figures))
        return
    for key, value in figures.items():
        print(f"{key:22} {value}")


if __name__ == "__main__":
    main()
