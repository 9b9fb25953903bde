"""Latency and recall of search on a company of any size whose permissions follow its topics.

Fills a PostgreSQL of its own, starts the search service on it, and asks real questions (embedded with each search) as
people who may see from a ten-thousandth of everything to all of it, some questions limited to one source of five or to
some documents (`of`). Recall is reported for each of these bands, from `--compared` questions: `recall@10` is the share
of the exact ten nearest visible chunks that are among the first ten of the vector ranking, `candidates@10` the share
among its hundred candidates (both before words are added; vectors know no `path`), `answers@10` the share of the ten
passages of an exhaustive search (`knowledge_exact`: exact similarities and all words of everything visible, combined as
the product does) that the service returns. `recall` sums them up: the worst band, the bands of 2 to 20 % and the
conjunctions separately.

Latencies are those of a client over HTTP: `bands` with one question after the other; `clients` with so many programs
that ask again as soon as they are answered, so that longer times are queues: see `qps`; `people` ask again a second
later, on average. `cpu_ms` is the CPU of the service and PostgreSQL for a search (including the embedding of the
question), which other load on the machine does not change much; `valid` says whether that load was small enough for
times to count.
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
from numpy.typing import NDArray
from psycopg_pool import ConnectionPool
from threadpoolctl import threadpool_limits

from groundplan.core.endpoints import Endpoint, lookup
from groundplan.core.home import Home
from groundplan.core.settings import child_environment, load_settings
from groundplan.knowledge.embedding.encoder import Encoder
from groundplan.knowledge.embedding.openvino_encoder import load_encoder, load_question_encoder
from groundplan.knowledge.model import Chunk, Readers, Vectors
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
from groundplan.testing.document_rows import Document

if str(Path(__file__).parents[1]) not in sys.path:
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import knowledge_exact as exact
from benchmarks.asked_often import ask_often
from benchmarks.knowledge_corpus import BANDS, SOURCES, Corpus, build_corpus
from benchmarks.knowledge_machine import Watch, run_details

TARGETS = {
    100_000: {"p50_ms": 12, "p95_ms": 25, "recall@10": 0.98},
    1_000_000: {"p95_ms": 60, "recall@10": 0.98},
}
CONJUNCTIONS = {
    "source": (0.01, 0.02, 0.05, 0.1, 0.2, 1.0),
    "path": (0.02, 0.1, 1.0),
}
"""Bands that are also measured on one source of five, and on the documents whose paths begin with `PATH`."""
PATH = "d19"
MIDDLE = (0.02, 0.2)
MIN_CHUNKS = 1000
_WARM_UP = 3
"""Questions of each band that are not timed."""
_TOP = 10
_MIN_ROWS = 10
_QUESTIONS_A_BATCH = 20
PEOPLE_PAUSE = 1.0
"""Seconds from an answer to the next question of `people`."""


@dataclass(frozen=True, slots=True)
class SearchSetup:
    """The search to measure: a filled database, its projection and a running service. `questions` is the encoder that
    the service uses for questions."""

    database: Database
    corpus: Corpus
    endpoint: Endpoint
    index: Projection
    questions: Encoder
    pool: ConnectionPool[Any]

    def cpu_seconds(self) -> float:
        """CPU seconds of the service and its connections to PostgreSQL so far."""
        busy = sum(psutil.Process(self.endpoint.pid).cpu_times()[:2])
        with psycopg.connect(self.database.superuser) as conn:
            connections = conn.execute(
                """SELECT pid FROM pg_stat_activity
                   WHERE application_name = 'groundplan_search' AND datname = current_database()"""
            )
            for (pid,) in connections:
                busy += sum(psutil.Process(pid).cpu_times()[:2])
        return float(busy)

    def exhaustive_search(self) -> exact.ExhaustiveSearch:
        """The exhaustive search over all chunks. The rows of the projection are the chunks of the corpus in order."""
        projected = self.index.view.columns.chunks[: self.index.view.size]
        expected = np.frombuffer(b"".join(chunk_id.bytes for chunk_id in self.corpus.ids), np.uint8).reshape(-1, 16)
        if not np.array_equal(projected, expected):
            raise SystemExit("the projection does not hold the chunks of the corpus in their order")
        return exact.ExhaustiveSearch(self.index.view, self.corpus.text, self.corpus.sort_key)


@dataclass(frozen=True, slots=True)
class Band:
    """The person who asks, by the share of everything that they may see; `of`: all, source, or path."""

    visible: float
    of: str = "all"

    @property
    def sources(self) -> tuple[str, ...]:
        return (SOURCES[2],) if self.of == "source" else SOURCES

    @property
    def where(self) -> Where:
        return Where(path=PATH) if self.of == "path" else Where()


ALL_BANDS = [Band(visible) for visible in BANDS] + [
    Band(visible, of) for of, bands in CONJUNCTIONS.items() for visible in bands
]


@contextmanager
def search_setup(chunks: int, folder: Path) -> Iterator[tuple[SearchSetup, dict[str, float]]]:
    """A filled database, its projection, and a running service."""
    settings = load_settings()
    with cluster(folder / "pg") as server, server.database() as database:
        started = time.perf_counter()
        corpus = build_corpus(database.superuser, chunks)
        filled = time.perf_counter()
        home = Home(folder / "home")
        home.create()
        projection_file = ProjectionFile(home.search)
        index, analyzer = projection_file.load(), Analyzer()
        with psycopg.connect(database.urls["control"], autocommit=True) as conn:
            while apply_next_changes(conn, index, analyzer):
                pass
        projected = time.perf_counter()
        projection_file.save()
        times = {"fill_s": round(filled - started, 1), "project_s": round(projected - filled, 1)}
        pool: ConnectionPool[Any] = ConnectionPool(
            database.urls["search"], kwargs={"autocommit": True}, min_size=1, max_size=2, open=True
        )
        model = ensure(settings.models, MINILM.name)
        questions = load_question_encoder(model, load_encoder(model))
        with pool, run_search_service(database, home) as endpoint:
            times["start_s"] = round(time.perf_counter() - projected, 1)
            yield SearchSetup(database, corpus, endpoint, index, questions, pool), times


@contextmanager
def run_search_service(database: Database, home: Home) -> Iterator[Endpoint]:
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
    """A persistent connection to the service by a plain socket, since the CPU time of an HTTP library on these cores is
    not the service's."""

    def __init__(self, endpoint: Endpoint) -> None:
        address = urlsplit(endpoint.url)
        self._socket = socket.create_connection((address.hostname or "127.0.0.1", address.port or 80), timeout=30)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._head = f"POST /search HTTP/1.1\r\nHost: search\r\nAuthorization: Bearer {endpoint.token}\r\n".encode()

    def ask(self, request: SearchRequest) -> tuple[float, list[Any]]:
        """(milliseconds, passages)"""
        body = msgspec.json.encode(request)
        sent = self._head + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        started = time.perf_counter()
        self._socket.sendall(sent)
        answer = self._socket.recv(1 << 20)
        while (missing := _missing(answer)) > 0:
            if not (received := self._socket.recv(missing)):
                raise SystemExit(f"the service hung up after {answer[:300]!r}")
            answer += received
        milliseconds = (time.perf_counter() - started) * 1000
        if not answer.startswith(b"HTTP/1.1 200 "):
            raise SystemExit(f"search answered {answer[:300]!r}")
        return milliseconds, msgspec.json.decode(answer.partition(b"\r\n\r\n")[2])["passages"]


def _missing(answer: bytes) -> int:
    """The least number of bytes of an answer that are still missing."""
    head, end, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)\ncontent-length: *(\d+)", head)
    return int(length[1]) - len(body) if end and length else 1


def band_request(setup: SearchSetup, band: Band, question: str, context: int = 1) -> SearchRequest:
    """The request for a question of a band's person."""
    return SearchRequest(
        workload="w", person=str(setup.corpus.people[band.visible]), query=question, sources=list(band.sources),
        where=band.where, k=_TOP, max_bytes=40_000 if context else 1 << 20, context=context,
    )  # fmt: skip


def percentiles(times: list[float]) -> dict[str, float]:
    """Percentiles in milliseconds."""
    return {
        "p50_ms": round(float(np.percentile(times, 50)), 2),
        "p95_ms": round(float(np.percentile(times, 95)), 2),
        "n": len(times),
    }


def nearest(
    encoded: vectors.EncodedVectors,
    question: Vectors,
    mask: NDArray[np.bool_] | None,
    count: int,
    limit: int,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """(rows, similarity) of about the `limit` nearest of the `count` masked rows (None: all), by this ranking
    alone."""
    rows, near = vectors.nearest_candidates(encoded, question, mask, count, limit)
    rows = rows[vectors.largest_indices(near, limit)]
    near = vectors.similarity(encoded, question, rows)
    order = np.lexsort((rows, -near))
    return rows[order], near[order]


def nearest_rows(setup: SearchSetup, band: Band, question: Vectors) -> list[int]:
    """The rows that the vector ranking alone proposes for a band's person, in its order."""
    with setup.pool.connection() as conn, conn.transaction():
        standing = search_store.assume_reader(conn, setup.corpus.people[band.visible], "w")
    view = setup.index.view
    visible = view.visible_rows(frozenset(band.sources), frozenset(standing.acls))
    candidates, _ = nearest(view.columns.encoded, question, visible.mask, visible.count, CANDIDATES)
    rows: list[int] = candidates.tolist()
    return rows


def overlap(expected: list[Any], found: list[Any]) -> float:
    """The share of `expected` that is in `found`."""
    return len(set(expected).intersection(found)) / max(1, len(set(expected)))


def measure_recall(setup: SearchSetup, band: Band, questions: list[str], embedded: Vectors) -> dict[str, Any]:
    """Mean recall over the questions: of the vector ranking's first ten, and of its hundred, against the exact ten
    nearest; and of the service's ten passages against those of an exhaustive search."""
    rows = setup.corpus.visible(band.visible, SOURCES.index(band.sources[0]) if band.of == "source" else None)
    matching = setup.corpus.with_path_prefix(PATH)[rows] if band.of == "path" else None
    recalls: dict[str, list[float]] = {"recall@10": [], "candidates@10": [], "answers@10": []}
    client, analyzer, exhaustive_search = Client(setup.endpoint), Analyzer(), setup.exhaustive_search()
    for start in range(0, len(questions), _QUESTIONS_A_BATCH):
        batch, batch_vectors = (
            questions[start : start + _QUESTIONS_A_BATCH],
            embedded[start : start + _QUESTIONS_A_BATCH],
        )
        all_similarities = exact.similarities(setup.corpus.vectors, batch_vectors, rows)
        for question, vector, similar in zip(batch, batch_vectors, all_similarities, strict=True):
            if matching is None:
                ranked, best = nearest_rows(setup, band, vector), exact.nearest(similar, rows, _TOP)
                recalls["recall@10"].append(overlap(best, ranked[:_TOP]))
                recalls["candidates@10"].append(overlap(best, ranked))
            expected = exhaustive_search.answers(question, analyzer.terms(question), similar, rows, _TOP, matching)
            if expected:
                _, passages = client.ask(band_request(setup, band, question, context=0))
                recalls["answers@10"].append(overlap(expected, [passage["text"] for passage in passages]))
    return {name: round(float(np.mean(values)), 4) for name, values in recalls.items() if values} | {
        "compared": len(recalls["answers@10"])
    }


def measure_bands(setup: SearchSetup, timed: int, compared: int) -> list[dict[str, Any]]:
    """Recall and latency by visibility, and of conjunctions (visibility and one source of five, or some paths)."""
    rows_by_band: list[dict[str, Any]] = []
    # one question at a time, as the service embeds them
    embedded = np.stack([setup.questions.embed([question])[0] for question in setup.corpus.questions[:compared]])
    for band in ALL_BANDS:
        rows = setup.corpus.visible(band.visible, SOURCES.index(band.sources[0]) if band.of == "source" else None)
        if len(rows) < _MIN_ROWS:
            continue
        questions = setup.corpus.questions[:timed]
        cpu_before = setup.cpu_seconds()
        client = Client(setup.endpoint)
        times = [client.ask(band_request(setup, band, question))[0] for question in questions]
        cpu_ms = (setup.cpu_seconds() - cpu_before) * 1000 / len(questions)
        rows_by_band.append(
            {
                "visible": band.visible,
                "of": band.of,
                "rows": len(rows),
                **measure_recall(setup, band, setup.corpus.questions[:compared], embedded),
                **percentiles(times[_WARM_UP:]),
                "cpu_ms": round(cpu_ms, 2),
            }
        )
    return rows_by_band


def summarise_recall(bands: list[dict[str, Any]], target: float = 0.98) -> dict[str, Any]:
    """The least and the mean of each recall: of all bands, of those of 2 to 20 %, of those of a source or of paths."""
    groups = {
        "every_band": bands,
        "visible_2_to_20_percent": [band for band in bands if MIDDLE[0] <= band["visible"] <= MIDDLE[1]],
        "conjunctions": [band for band in bands if band["of"] != "all"],
    }
    result: dict[str, Any] = {}
    for group, selected in groups.items():
        result[group] = {}
        for name in ("recall@10", "candidates@10", "answers@10"):
            values = [band[name] for band in selected if name in band]
            if values:
                result[group][name] = {"least": min(values), "mean": round(float(np.mean(values)), 4)}
    least = [band["least"] for name, band in result["every_band"].items() if name != "candidates@10"]
    return result | {"target": target, "met": bool(least) and min(least) >= target}


def measure_clients(setup: SearchSetup, count: int, seconds: float, pause: float = 0.0) -> dict[str, float]:
    """`count` people at once, each asking again when answered, or `pause` seconds later on average; bands and questions
    are random."""
    times: list[float] = []
    stop = time.perf_counter() + seconds

    def ask(seed: int) -> None:
        client, rng = Client(setup.endpoint), random.Random(seed)
        while True:
            if pause:
                time.sleep(rng.expovariate(1 / pause))
            if time.perf_counter() >= stop:
                return
            band = Band(rng.choice(BANDS))
            milliseconds, _ = client.ask(band_request(setup, band, rng.choice(setup.corpus.questions)))
            times.append(milliseconds)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {**percentiles(times), "qps": round(len(times) / seconds, 1)}


def measure_while_ingesting(setup: SearchSetup, seconds: float, a_second: int) -> dict[str, float]:
    """Figures of one client while documents are stored, followed and projected."""
    done = threading.Event()
    stored = [0]

    def write() -> None:
        with psycopg.connect(setup.database.urls["control"], autocommit=True) as conn:
            while not done.wait(1 / a_second):
                text = f"Release note {stored[0]} about the scheduler and its queues."
                embedding = setup.corpus.vectors[stored[0] : stored[0] + 1].astype(np.float32)
                document = Document(
                    f"new{stored[0]}", "New", text, "x", Readers(frozenset({"group-1"})), markdown=False
                )
                with conn.transaction():
                    document_rows.put_document(conn, "wiki", document, [Chunk(0, text, 0, len(text), 1, 1)], embedding)
                stored[0] += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        figures = measure_clients(setup, 1, seconds)
    finally:
        done.set()
        writer.join()
    return {**figures, "documents_a_second": round(stored[0] / seconds, 1)}


class PeakMemory:
    """Measures the largest memory of this process and its children together; shared pages count once."""

    def __init__(self) -> None:
        self.bytes = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._poll, daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _poll(self) -> None:
        own = psutil.Process()
        while not self._done.wait(10.0):
            total = 0
            for process in (own, *own.children(recursive=True)):
                with suppress(psutil.Error):
                    total += process.memory_full_info().pss
            self.bytes = max(self.bytes, total)


def measure(chunks: int, timed: int, compared: int, seconds: float, folder: Path) -> dict[str, Any]:
    """All figures."""
    started = time.perf_counter()
    with threadpool_limits(limits=1, user_api="blas"), Watch() as watch, PeakMemory() as peak:
        with search_setup(chunks, folder) as (setup, times):
            by_band = measure_bands(setup, timed, compared)
            figures = {
                "chunks": chunks,
                "documents": len(setup.corpus.acl),
                "readers_sets": len(set(setup.corpus.acl.tolist())),
                "real_embeddings": setup.corpus.real_count,
                **times,
                "recall": summarise_recall(by_band),
                "bands": by_band,
                "clients": {str(count): measure_clients(setup, count, seconds) for count in (1, 8, 32)},
                "people": {str(count): measure_clients(setup, count, 2 * seconds, PEOPLE_PAUSE) for count in (8, 32)},
                "ingesting": measure_while_ingesting(setup, seconds, 50),
            }
    return figures | {
        "peak_gib": round(peak.bytes / 2**30, 2),
        "duration_s": round(time.perf_counter() - started, 1),
        "target": TARGETS.get(chunks),
        **watch.figures(),
        **run_details(
            f"generated: {chunks} chunks, {figures['real_embeddings']} real embeddings moved, readers "
            "that follow topics"
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
    for name, least in (("chunks", MIN_CHUNKS), ("asked", _WARM_UP + 1), ("compared", 1), ("seconds", 0.1)):
        if getattr(options, name) < least:
            parser.error(f"--{name}: at least {least}")
    with tempfile.TemporaryDirectory(prefix="bench-knowledge-") as folder:
        figures = measure(options.chunks, options.asked, options.compared, options.seconds, Path(folder))
    print(json.dumps(figures, indent=None if options.json else 2))


if __name__ == "__main__":
    main()
