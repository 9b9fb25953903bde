"""How fast and how right search is on a company of any size whose permissions follow its topics.

Fills a PostgreSQL of its own, starts the search service on it, and asks real questions (embedded with each search) as
people who may see from a ten-thousandth of everything to all of it, some of them of one source of five or of some
documents only (`of`). Recall is told for each of these bands, from `--compared` questions: `recall@10` is the part of
the exact ten nearest chunks that a person may see which are among the first ten of the vector ranking, `candidates@10`
the part among the hundred that it proposes (both before words are added; vectors know no `path`), `answers@10` the part
of the ten passages that an exhaustive search would answer with (`knowledge_exact`: exact similarities and all words of
everything visible, put together as the product does) which the service answers with. `recall` sums them up: the least
band, the bands of 2 to 20 % and the conjunctions by themselves.

Latencies are those of a client over HTTP: `bands` one question after the other; `clients` so many programs that ask
again as soon as they are answered, so its longer times are queues: see `qps`; `people` ask again a second later, on
average. `cpu_ms` is what the service and PostgreSQL compute for a search (the embedding of the question included),
which other load on the machine does not change much; `valid` says whether there was so little of it that times count.
"""

from __future__ import annotations

import argparse
import json
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
from threadpoolctl import threadpool_limits

from groundplan.core.endpoints import Endpoint, lookup
from groundplan.core.home import Home
from groundplan.core.settings import child_environment, load_settings
from groundplan.knowledge.embedding.encoder import Encoder
from groundplan.knowledge.embedding.openvino_encoder import load_encoder, load_question_encoder
from groundplan.knowledge.model import Chunk, Document, Readers, Vectors
from groundplan.knowledge.retrieval import search_store, vectors
from groundplan.knowledge.retrieval.projection import Projection
from groundplan.knowledge.retrieval.projection_file import ProjectionFile
from groundplan.knowledge.retrieval.propose import CANDIDATES
from groundplan.knowledge.retrieval.replication import apply_next_changes
from groundplan.knowledge.retrieval.wire import SearchRequest, Where
from groundplan.knowledge.retrieval.words import Analyzer
from groundplan.runtime.models import MINILM, ensure
from groundplan.testing import document_rows
from groundplan.testing.database import Database, cluster

if str(Path(__file__).parents[1]) not in sys.path:
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import knowledge_exact as exact
from benchmarks.asked_often import ask_often
from benchmarks.knowledge_corpus import BANDS, SOURCES, Corpus, make
from benchmarks.knowledge_machine import Watch, run

TARGETS = {
    100_000: {"p50_ms": 12, "p95_ms": 25, "recall@10": 0.98},
    1_000_000: {"p95_ms": 60, "recall@10": 0.98},
}
CONJUNCTIONS = {
    "source": (0.01, 0.02, 0.05, 0.1, 0.2, 1.0),
    "path": (0.02, 0.1, 1.0),
}
"""Bands that are asked of one source of five, or of the documents whose paths begin with `PATH`, too."""
PATH = "d19"
MIDDLE = (0.02, 0.2)
LEAST_CHUNKS = 1000
_WARM = 3
"""Questions of each band whose times do not count."""
_TEN = 10
_LEAST_BAND = 10
_TOGETHER = 20
PAUSE = 1.0
"""Seconds from an answer to the next question of `people`."""


@dataclass(frozen=True, slots=True)
class Bed:
    """What is measured on. `questions` embeds as the service does what it is asked."""

    database: Database
    corpus: Corpus
    endpoint: Endpoint
    index: Projection
    questions: Encoder
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

    def stock(self) -> exact.Stock:
        """Everything, for the exhaustive search. The rows of the projection are the chunks of the corpus in order."""
        held = self.index.view.columns.chunks[: self.index.view.size]
        wanted = np.frombuffer(b"".join(id.bytes for id in self.corpus.ids), np.uint8).reshape(-1, 16)
        if not np.array_equal(held, wanted):
            raise SystemExit("the projection does not hold the chunks of the corpus in their order")
        return exact.Stock(self.index.view, self.corpus.text, self.corpus.place)


@dataclass(frozen=True, slots=True)
class Band:
    """Who asks, by the part of everything that they may see, and of what: all, one source, or some paths."""

    visible: float
    of: str = "all"

    @property
    def sources(self) -> tuple[str, ...]:
        return (SOURCES[2],) if self.of == "source" else SOURCES

    @property
    def where(self) -> Where:
        return Where(path=PATH) if self.of == "path" else Where()


EVERY = [Band(one) for one in BANDS] + [Band(one, of) for of, bands in CONJUNCTIONS.items() for one in bands]


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
        saved = ProjectionFile(home.search)
        index, analyzer = saved.load(), Analyzer()
        with psycopg.connect(database.urls["control"], autocommit=True) as conn:
            while apply_next_changes(conn, index, analyzer):
                pass
        projected = time.perf_counter()
        saved.save()
        times = {"fill_s": round(filled - begun, 1), "project_s": round(projected - filled, 1)}
        pool: ConnectionPool[Any] = ConnectionPool(
            database.urls["search"], kwargs={"autocommit": True}, min_size=1, max_size=2, open=True
        )
        model = ensure(settings.models, MINILM.name)
        questions = load_question_encoder(model, load_encoder(model))
        with pool, service(database, home) as endpoint:
            times["start_s"] = round(time.perf_counter() - projected, 1)
            yield Bed(database, corpus, endpoint, index, questions, pool), times


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
        ask_often(endpoint)
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


def request(bed: Bed, band: Band, question: str, context: int = 1) -> SearchRequest:
    """A question of the person of a band."""
    return SearchRequest(
        workload="w", person=str(bed.corpus.people[band.visible]), query=question, sources=list(band.sources),
        where=band.where, k=_TEN, max_bytes=40_000 if context else 1 << 20, context=context,
    )  # fmt: skip


def spread(times: list[float]) -> dict[str, float]:
    """Percentiles in milliseconds."""
    return {
        "p50_ms": round(float(np.percentile(times, 50)), 2),
        "p95_ms": round(float(np.percentile(times, 95)), 2),
        "n": len(times),
    }


def ranked(bed: Bed, band: Band, question: Vectors) -> list[int]:
    """The rows that the vector stage proposes for the person of a band, in its own order."""
    with bed.pool.connection() as conn, conn.transaction():
        standing = search_store.assume_reader(conn, bed.corpus.people[band.visible], "w")
    view = bed.index.view
    seen = view.visible_rows(frozenset(band.sources), frozenset(standing.acls))
    near, _ = vectors.nearest(view.columns.encoded, question, seen.mask, seen.count, CANDIDATES)
    found: list[int] = near.tolist()
    return found


def shared(wanted: list[Any], given: list[Any]) -> float:
    """The part of what is wanted that is given."""
    return len(set(wanted).intersection(given)) / max(1, len(set(wanted)))


def recall(bed: Bed, band: Band, questions: list[str], embedded: Vectors) -> dict[str, Any]:
    """Means over the questions: of the vector ranking's first ten and of its hundred against the exact ten nearest, and
    of the ten passages that the service answers with against those of an exhaustive search."""
    rows = bed.corpus.visible(band.visible, SOURCES.index(band.sources[0]) if band.of == "source" else None)
    asked_of = bed.corpus.under(PATH)[rows] if band.of == "path" else None
    found: dict[str, list[float]] = {"recall@10": [], "candidates@10": [], "answers@10": []}
    client, analyzer, stock = Client(bed.endpoint), Analyzer(), bed.stock()
    for at in range(0, len(questions), _TOGETHER):
        some, own = questions[at : at + _TOGETHER], embedded[at : at + _TOGETHER]
        every = exact.similarities(bed.corpus.vectors, own, rows)
        for question, vector, similar in zip(some, own, every, strict=True):
            if asked_of is None:
                near, best = ranked(bed, band, vector), exact.nearest(similar, rows, _TEN)
                found["recall@10"].append(shared(best, near[:_TEN]))
                found["candidates@10"].append(shared(best, near))
            wanted = stock.answers(question, analyzer.terms(question), similar, rows, _TEN, asked_of)
            if wanted:
                _, passages = client.ask(request(bed, band, question, context=0))
                found["answers@10"].append(shared(wanted, [one["text"] for one in passages]))
    return {name: round(float(np.mean(values)), 4) for name, values in found.items() if values} | {
        "compared": len(found["answers@10"])
    }


def bands(bed: Bed, asked: int, compared: int) -> list[dict[str, Any]]:
    """Recall and latency by visibility, and of conjunctions (visibility and one source of five, or some paths)."""
    found: list[dict[str, Any]] = []
    # one by one, as the service embeds them
    embedded = np.stack([bed.questions.embed([one])[0] for one in bed.corpus.questions[:compared]])
    for band in EVERY:
        rows = bed.corpus.visible(band.visible, SOURCES.index(band.sources[0]) if band.of == "source" else None)
        if len(rows) < _LEAST_BAND:
            continue
        questions = bed.corpus.questions[:asked]
        before = bed.cpu_seconds()
        client = Client(bed.endpoint)
        times = [client.ask(request(bed, band, one))[0] for one in questions]
        cpu_ms = (bed.cpu_seconds() - before) * 1000 / len(questions)
        found.append(
            {
                "visible": band.visible,
                "of": band.of,
                "rows": len(rows),
                **recall(bed, band, bed.corpus.questions[:compared], embedded),
                **spread(times[_WARM:]),
                "cpu_ms": round(cpu_ms, 2),
            }
        )
    return found


def summary(found: list[dict[str, Any]], target: float = 0.98) -> dict[str, Any]:
    """The least and the mean of each recall: of all bands, those of 2 to 20 %, those of a source or of paths."""
    parts = {
        "every_band": found,
        "visible_2_to_20_percent": [one for one in found if MIDDLE[0] <= one["visible"] <= MIDDLE[1]],
        "conjunctions": [one for one in found if one["of"] != "all"],
    }
    told: dict[str, Any] = {}
    for part, some in parts.items():
        told[part] = {}
        for name in ("recall@10", "candidates@10", "answers@10"):
            values = [one[name] for one in some if name in one]
            if values:
                told[part][name] = {"least": min(values), "mean": round(float(np.mean(values)), 4)}
    least = [one["least"] for name, one in told["every_band"].items() if name != "candidates@10"]
    return told | {"target": target, "met": bool(least) and min(least) >= target}


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
            band = Band(chance.choice(BANDS))
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
                    document_rows.put_document(conn, "wiki", document, [Chunk(0, text, 0, len(text), 1, 1)], vectors)
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
        while not self._done.wait(10.0):
            total = 0
            for one in (own, *own.children(recursive=True)):
                with suppress(psutil.Error):
                    total += one.memory_full_info().pss
            self.bytes = max(self.bytes, total)


def measure(chunks: int, asked: int, compared: int, seconds: float, folder: Path) -> dict[str, Any]:
    """All figures."""
    begun = time.perf_counter()
    with threadpool_limits(limits=1, user_api="blas"), Watch() as watch, Peak() as peak:
        with bed(chunks, folder) as (made, times):
            of_bands = bands(made, asked, compared)
            told = {
                "chunks": chunks,
                "documents": len(made.corpus.acl),
                "readers_sets": len(set(made.corpus.acl.tolist())),
                "real_embeddings": made.corpus.real,
                **times,
                "recall": summary(of_bands),
                "bands": of_bands,
                "clients": {str(count): clients(made, count, seconds) for count in (1, 8, 32)},
                "people": {str(count): clients(made, count, 2 * seconds, PAUSE) for count in (8, 32)},
                "ingesting": while_ingesting(made, seconds, 50),
            }
    return told | {
        "peak_gib": round(peak.bytes / 2**30, 2),
        "duration_s": round(time.perf_counter() - begun, 1),
        "target": TARGETS.get(chunks),
        **watch.told(),
        **run(
            f"generated: {chunks} chunks, {told['real_embeddings']} real embeddings moved, readers that follow topics"
        ),
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chunks", type=int, default=100_000, help="passages in the index")
    parser.add_argument("--asked", type=int, default=100, help="questions for the latency of each band")
    parser.add_argument("--compared", type=int, default=100, help="questions for the recall of each band")
    parser.add_argument("--seconds", type=float, default=8.0, help="how long each number of clients asks")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    for name, least in (("chunks", LEAST_CHUNKS), ("asked", _WARM + 1), ("compared", 1), ("seconds", 0.1)):
        if getattr(options, name) < least:
            parser.error(f"--{name}: at least {least}")
    with tempfile.TemporaryDirectory(prefix="bench-knowledge-") as folder:
        figures = measure(options.chunks, options.asked, options.compared, options.seconds, Path(folder))
    print(json.dumps(figures, indent=None if options.json else 2))


if __name__ == "__main__":
    main()
