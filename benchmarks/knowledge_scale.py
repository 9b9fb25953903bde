"""How fast and how right search is on a company of any size whose permissions follow its topics.

Fills a PostgreSQL of its own, starts the search service on it, and asks real questions (embedded with each search) as
people who may see from a ten-thousandth of everything to all of it. `recall@10` is the part of the ten nearest visible
chunks, by all exact similarities, that the vector stage proposes to PostgreSQL. Latencies are those of a client over
HTTP: `bands` one question after the other; `clients` so many programs that ask again as soon as they are answered, so
its longer times are queues: see `qps`; `people` ask again a second later, on average. `cpu_ms` is what the service and
PostgreSQL compute for a search (the embedding of the question included), which other load on the machine does not
change much.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import numpy as np
import psutil
import psycopg
from psycopg_pool import ConnectionPool

from groundplan.core.endpoints import Endpoint, lookup
from groundplan.core.home import Home
from groundplan.core.settings import child_environment, load_settings
from groundplan.knowledge import store
from groundplan.knowledge.embedding.encoder import Encoder
from groundplan.knowledge.embedding.openvino_encoder import load
from groundplan.knowledge.model import Chunk, Document, Readers
from groundplan.knowledge.retrieval import search_store
from groundplan.knowledge.retrieval.follow import take_batch
from groundplan.knowledge.retrieval.projection import Projection
from groundplan.knowledge.retrieval.saved import Saved
from groundplan.knowledge.retrieval.search import Search
from groundplan.knowledge.retrieval.wire import SearchRequest
from groundplan.knowledge.retrieval.words import Analyzer
from groundplan.runtime.models import MINILM, ensure
from groundplan.testing.database import Database, cluster

if str(Path(__file__).parents[1]) not in sys.path:
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.knowledge_corpus import BANDS, SOURCES, Corpus, make

TARGETS = {
    100_000: {"p50_ms": 12, "p95_ms": 25, "recall@10": 0.98},
    1_000_000: {"p95_ms": 60, "recall@10": 0.98},
}
_LEAST_BAND = 10
PAUSE = 1.0
"""Seconds from an answer to the next question of `people`."""


@dataclass(frozen=True, slots=True)
class Bed:
    """What is measured on."""

    database: Database
    corpus: Corpus
    endpoint: Endpoint
    search: Search
    index: Projection
    encoder: Encoder
    pool: ConnectionPool[Any]

    def cpu_seconds(self) -> float:
        """What the service and its connections to PostgreSQL have computed so far."""
        busy = sum(psutil.Process(self.endpoint.pid).cpu_times()[:2])
        with psycopg.connect(self.database.superuser) as conn:
            connections = conn.execute(
                """SELECT pid FROM pg_stat_activity
                   WHERE application_name = 'groundplan_search' AND datname = current_database()"""
            )
            for (pid,) in connections:
                busy += sum(psutil.Process(pid).cpu_times()[:2])
        return float(busy)


@contextmanager
def bed(chunks: int, folder: Path) -> Iterator[tuple[Bed, dict[str, float]]]:
    """A filled database, its projection, and a running service."""
    settings = load_settings()
    with cluster(folder / "pg") as server, server.database() as database:
        begun = time.perf_counter()
        corpus = make(database.superuser, chunks)
        filled = time.perf_counter()
        home = Home(folder / "home")
        home.create()
        saved = Saved(home.search)
        index, analyzer = saved.load(), Analyzer()
        with psycopg.connect(database.urls["control"], autocommit=True) as conn:
            while take_batch(conn, index, analyzer):
                pass
        projected = time.perf_counter()
        saved.save()
        times = {"fill_s": round(filled - begun, 1), "project_s": round(projected - filled, 1)}
        pool: ConnectionPool[Any] = ConnectionPool(
            database.urls["search"], kwargs={"autocommit": True}, min_size=1, max_size=2, open=True
        )
        encoder = load(ensure(settings.models, MINILM.name))
        with pool, service(database, home) as endpoint:
            times["start_s"] = round(time.perf_counter() - projected, 1)
            yield Bed(database, corpus, endpoint, Search(pool, encoder, index), index, encoder, pool), times


@contextmanager
def service(database: Database, home: Home) -> Iterator[Endpoint]:
    """The search service of a HOME on a database."""
    process = subprocess.Popen(
        [sys.executable, "-m", "groundplan.gateway.search_app", "--home", str(home.root)],
        env=child_environment({"GROUNDPLAN_DATABASE_URL": database.dsn}),
    )
    try:
        while (endpoint := lookup(home, "search")) is None:
            if process.poll() is not None:
                raise SystemExit("the search service did not start")
            time.sleep(0.1)
        yield endpoint
    finally:
        process.kill()
        process.wait()


class Client:
    """One connection to the service that is kept, on the bare socket: what a library of HTTP computes on these cores is
    no time of the service."""

    def __init__(self, endpoint: Endpoint) -> None:
        address = urlsplit(endpoint.url)
        self._socket = socket.create_connection((address.hostname or "127.0.0.1", address.port or 80), timeout=30)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._head = f"POST /search HTTP/1.1\r\nHost: search\r\nAuthorization: Bearer {endpoint.token}\r\n".encode()

    def ask(self, request: SearchRequest) -> tuple[float, list[Any]]:
        """(milliseconds, passages)"""
        body = msgspec.json.encode(request)
        sent = self._head + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        begun = time.perf_counter()
        self._socket.sendall(sent)
        answer = self._socket.recv(1 << 20)
        while (missing := _missing(answer)) > 0:
            if not (more := self._socket.recv(missing)):
                raise SystemExit(f"the service hung up after {answer[:300]!r}")
            answer += more
        took = (time.perf_counter() - begun) * 1000
        if not answer.startswith(b"HTTP/1.1 200 "):
            raise SystemExit(f"search answered {answer[:300]!r}")
        return took, msgspec.json.decode(answer.partition(b"\r\n\r\n")[2])["passages"]


def _missing(answer: bytes) -> int:
    """How many bytes of an answer are still to come, at least."""
    head, end, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)\ncontent-length: *(\d+)", head)
    return int(length[1]) - len(body) if end and length else 1


def request(bed: Bed, band: float, question: str, sources: tuple[str, ...] = SOURCES) -> SearchRequest:
    """A question of the person of a band."""
    return SearchRequest(
        workload="w", person=str(bed.corpus.people[band]), query=question, sources=list(sources), k=10, max_bytes=40_000
    )


def spread(times: list[float]) -> dict[str, float]:
    """Percentiles in milliseconds."""
    return {
        "p50_ms": round(float(np.percentile(times, 50)), 2),
        "p95_ms": round(float(np.percentile(times, 95)), 2),
        "n": len(times),
    }


def recall(bed: Bed, band: float, questions: list[str], source: int | None = None) -> float:
    """Mean part of the exact ten that the vector stage proposes."""
    rows = bed.corpus.visible(band, source)
    sources = SOURCES if source is None else (SOURCES[source],)
    found = []
    vectors = bed.encoder.embed(questions)
    wanted = bed.corpus.nearest(vectors, rows, 10)
    with bed.pool.connection() as conn:
        for question, vector, exact in zip(questions, vectors, wanted, strict=True):
            with conn.transaction():
                standing = search_store.stand_for(conn, bed.corpus.people[band], "w")
            proposed = bed.search.propose(question, vector, list(sources), standing)
            near = {proposed.view.chunk(row) for row in proposed.near}
            found.append(len(near.intersection(exact)) / max(1, len(exact)))
    return round(float(np.mean(found)), 4)


def bands(bed: Bed, asked: int) -> list[dict[str, Any]]:
    """Recall and latency by visibility, and of conjunctions (visibility and one source of five)."""
    found: list[dict[str, Any]] = []
    for band in BANDS:
        for source in (None, 2) if band in (0.02, 0.1, 0.2) else (None,):
            rows = bed.corpus.visible(band, source)
            if len(rows) < _LEAST_BAND:
                continue
            sources = SOURCES if source is None else (SOURCES[source],)
            questions = bed.corpus.questions[:asked]
            before = bed.cpu_seconds()
            client = Client(bed.endpoint)
            times = [client.ask(request(bed, band, one, sources))[0] for one in questions]
            cpu_ms = (bed.cpu_seconds() - before) * 1000 / len(questions)
            found.append(
                {
                    "visible": band,
                    "conjunction": source is not None,
                    "rows": len(rows),
                    "recall@10": recall(bed, band, questions[: max(20, asked // 3)], source),
                    **spread(times[3:]),
                    "cpu_ms": round(cpu_ms, 2),
                }
            )
    return found


def clients(bed: Bed, count: int, seconds: float, pause: float = 0.0) -> dict[str, float]:
    """So many people at once, each asking again when answered, or `pause` seconds later on average; bands and questions
    at random."""
    times: list[float] = []
    stop = time.perf_counter() + seconds

    def ask(seed: int) -> None:
        client, chance = Client(bed.endpoint), random.Random(seed)
        while True:
            if pause:
                time.sleep(chance.expovariate(1 / pause))
            if time.perf_counter() >= stop:
                return
            band = chance.choice(BANDS)
            took, _ = client.ask(request(bed, band, chance.choice(bed.corpus.questions)))
            times.append(took)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {**spread(times), "qps": round(len(times) / seconds, 1)}


def while_ingesting(bed: Bed, seconds: float, a_second: int) -> dict[str, float]:
    """One client, while documents are stored, followed and projected."""
    done = threading.Event()
    stored = [0]

    def write() -> None:
        with psycopg.connect(bed.database.urls["control"], autocommit=True) as conn:
            while not done.wait(1 / a_second):
                text = f"Release note {stored[0]} about the scheduler and its queues."
                vectors = bed.corpus.vectors[stored[0] : stored[0] + 1].astype(np.float32)
                document = Document(
                    f"new{stored[0]}", "New", text, "x", Readers(frozenset({"group-1"})), markdown=False
                )
                with conn.transaction():
                    store.put_document(conn, "wiki", document, [Chunk(0, text, 0, len(text), 1, 1)], vectors)
                stored[0] += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        figures = clients(bed, 1, seconds)
    finally:
        done.set()
        writer.join()
    return {**figures, "documents_a_second": round(stored[0] / seconds, 1)}


class Peak:
    """The most memory that this process and its children have together while it runs, each shared page once."""

    def __init__(self) -> None:
        self.bytes = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _look(self) -> None:
        own = psutil.Process()
        while not self._done.wait(2.0):
            total = 0
            for one in (own, *own.children(recursive=True)):
                with suppress(psutil.Error):
                    total += one.memory_full_info().pss
            self.bytes = max(self.bytes, total)


def measure(chunks: int, asked: int, seconds: float, folder: Path) -> dict[str, Any]:
    """All figures."""
    begun = time.perf_counter()
    with Peak() as peak, bed(chunks, folder) as (made, times):
        told = {
            "chunks": chunks,
            "documents": len(made.corpus.acl),
            "readers_sets": len(set(made.corpus.acl.tolist())),
            **times,
            "bands": bands(made, asked),
            "clients": {str(count): clients(made, count, seconds) for count in (1, 8, 32)},
            "people": {str(count): clients(made, count, 2 * seconds, PAUSE) for count in (8, 32)},
            "ingesting": while_ingesting(made, seconds, 50),
            "load_average": os.getloadavg()[0],
        }
    return told | {
        "peak_gib": round(peak.bytes / 2**30, 2),
        "duration_s": round(time.perf_counter() - begun, 1),
        "target": TARGETS.get(chunks),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "commit": commit(),
    }


def commit() -> str:
    """The commit of this checkout, or unknown."""
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chunks", type=int, default=100_000, help="passages in the index")
    parser.add_argument("--asked", type=int, default=60, help="questions for each band")
    parser.add_argument("--seconds", type=float, default=8.0, help="how long each number of clients asks")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-knowledge-") as folder:
        figures = measure(options.chunks, options.asked, options.seconds, Path(folder))
    print(json.dumps(figures, indent=None if options.json else 2))


if __name__ == "__main__":
    main()
