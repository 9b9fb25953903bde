"""Whether anything that a person is told betrays documents that they may not read.

Two companies are the same but for hidden documents. Each question is asked of both, in an order that is drawn, by a
person who may not read them; classifiers then try to say from an answer whether the hidden documents were there: from
its scores, from its counts, from how long it took, and from all of it. `auc` is that of the better of two classifiers
(linear, boosted trees) on questions that it was not trained on; 0.5 is chance. Scores and counts that are equal to the
last digit in every pair are told as `pairs_that_differ: 0`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg_pool import ConnectionPool
from threadpoolctl import threadpool_limits

from groundplan.core.ids import new_id
from groundplan.core.settings import load_settings
from groundplan.knowledge import store
from groundplan.knowledge.embedding.openvino_encoder import OpenVinoEncoder
from groundplan.knowledge.model import Chunk, Document, Readers
from groundplan.knowledge.retrieval.follow import take_batch
from groundplan.knowledge.retrieval.projection import Projection
from groundplan.knowledge.retrieval.search import Result, Search
from groundplan.knowledge.retrieval.wire import SearchRequest
from groundplan.knowledge.retrieval.words import Analyzer
from groundplan.runtime.models import MINILM, ensure
from groundplan.testing.database import Cluster, Database, cluster

if str(Path(__file__).parents[1]) not in sys.path:
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.knowledge_scale import commit

SUBJECTS = ("leave", "travel", "salary", "laptop", "office", "training", "bonus", "contract")
QUERIES = [f"What is the {one} rule for {other}?" for one in SUBJECTS for other in SUBJECTS if one != other]
TARGET = 0.55
FOLDS = 5
WARM = 100
"""Pairs that are asked before those that count."""
SCORES = ("top", "last", "mean", "spread", "confidence")
COUNTS = ("passages", "bytes", "withheld", "conflicts", "newer", "abstained")
TIMES = ("milliseconds",)

Values = NDArray[np.float64]


class Company:
    """`hidden` documents about every subject that only somebody else may read."""

    def __init__(self, database: Database, encoder: OpenVinoEncoder, hidden: int) -> None:
        self.person = new_id()
        texts = [
            f"The {one} rule number {n} is about {one} and sometimes {SUBJECTS[n]}."
            for n in range(6)
            for one in SUBJECTS
        ]
        secret = [f"Secret {n}: {' '.join([SUBJECTS[n % 8]] * (1 + n % 5))} rule rule." for n in range(hidden)]
        self.index, analyzer = Projection(), Analyzer()
        with psycopg.connect(database.urls["control"], autocommit=True) as conn:
            conn.execute("INSERT INTO person (id, email, name) VALUES (%s, 'a@acme.example', 'a')", (self.person,))
            store.put_source(conn, "s", path="s", sensitivity="internal", owner="dana@acme.example")
            for reader, kind, some in (("boss@acme.example", "h", secret), ("everyone", "d", texts)):
                vectors = encoder.embed(some)
                for number, text in enumerate(some):
                    readers = Readers(frozenset({reader}))
                    made = Document(f"{kind}{number:03}", "Rule", text, text, readers, markdown=False)
                    with conn.transaction():
                        chunk = Chunk(0, text, 0, len(text), 1, 1)
                        store.put_document(conn, "s", made, [chunk], vectors[number : number + 1])
            while take_batch(conn, self.index, analyzer):
                pass
            store.count_first(conn)
        self.pool: ConnectionPool[Any] = ConnectionPool(
            database.urls["search"], kwargs={"autocommit": True}, min_size=1, max_size=1, open=True
        )
        self.search = Search(self.pool, encoder, self.index)

    def answer(self, query: str, k: int = 8) -> Result:
        """As the person who may not read what is hidden."""
        return self.search.answer(
            SearchRequest(
                workload="w", person=str(self.person), query=query, sources=["s"], k=k, max_bytes=9000, explain=True
            )
        )

    def ask(self, query: str, k: int = 8) -> tuple[object, ...]:
        """All that a caller is told, but ids."""
        found = self.answer(query, k)
        told = [(one.path, one.score, one.text, one.start_char, one.version) for one in found.passages]
        return (told, found.confidence, found.abstained, found.withheld, found.conflicts, found.newer)


@contextmanager
def companies(server: Cluster, hidden: int) -> Iterator[tuple[Company, Company]]:
    """One without hidden documents, one with so many."""
    with ExitStack() as stack:
        stack.enter_context(threadpool_limits(limits=1, user_api="blas"))
        encoder = OpenVinoEncoder(ensure(load_settings().models, MINILM.name), threads=1)
        made = [Company(stack.enter_context(server.database()), encoder, count) for count in (0, hidden)]
        for one in made:
            stack.callback(one.pool.close)
        yield made[0], made[1]


def features(found: Result, milliseconds: float) -> list[float]:
    """In the order of `SCORES`, `COUNTS`, `TIMES`."""
    scores = [one.score for one in found.passages] or [0.0]
    size = sum(len(one.text.encode()) for one in found.passages)
    return [
        scores[0], scores[-1], float(np.mean(scores)), float(np.std(scores)), found.confidence,
        len(found.passages), size, len(found.withheld), len(found.conflicts), len(found.newer), float(found.abstained),
        milliseconds,
    ]  # fmt: skip


def asked(both: tuple[Company, Company], pairs: int, seed: int = 5) -> tuple[Values, NDArray[np.int64]]:
    """(features, pair) of each answer: those of a pair follow each other, without what is hidden and with it."""
    chance = random.Random(seed)
    rows: list[list[float]] = []
    for number in range(pairs + WARM):
        query, first = chance.choice(QUERIES), chance.randrange(2)
        own: dict[int, list[float]] = {}
        for which in (first, 1 - first):
            begun = time.perf_counter()
            found = both[which].answer(query)
            own[which] = features(found, (time.perf_counter() - begun) * 1000)
        if number >= WARM:
            rows += [own[0], own[1]]
    return np.array(rows), np.repeat(np.arange(pairs), 2)


def auc(values: Values, pairs: NDArray[np.int64]) -> float:
    """Of the better of two classifiers, on pairs that it was not trained on."""
    from sklearn.ensemble import HistGradientBoostingClassifier  # noqa: PLC0415 -- an extra
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415
    from sklearn.metrics import roc_auc_score  # noqa: PLC0415
    from sklearn.model_selection import GroupKFold, cross_val_predict  # noqa: PLC0415
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415

    labels = np.arange(len(values)) % 2
    found: list[float] = []
    for model in (
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)),
        HistGradientBoostingClassifier(max_iter=40, random_state=0),
    ):
        with threadpool_limits(limits=1), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Could not find the number of physical cores")
            said = cross_val_predict(model, values, labels, groups=pairs, cv=GroupKFold(FOLDS), method="predict_proba")
        found.append(float(roc_auc_score(labels, said[:, 1])))
    return round(max(found), 4)


def figures(values: Values, pairs: NDArray[np.int64]) -> dict[str, Any]:
    """What classifiers can tell from each part of what is told, and from all."""
    names = (*SCORES, *COUNTS, *TIMES)
    parts = {"scores": SCORES, "counts": COUNTS, "timing": TIMES, "all": names}
    told = values[:, : len(SCORES) + len(COUNTS)]
    return {
        "pairs": len(values) // 2,
        "pairs_that_differ": int((told[0::2] != told[1::2]).any(axis=1).sum()),
        "auc": {part: auc(values[:, [names.index(one) for one in own]], pairs) for part, own in parts.items()},
        "milliseconds": {
            name: round(float(np.median(values[at::2, -1])), 3) for at, name in enumerate(("without", "with_hidden"))
        },
    }


def main() -> None:
    """Print the figures; exit 1 where something can be told."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=10_000, help="questions that are asked of both companies")
    parser.add_argument("--hidden", type=int, default=40, help="hidden documents beside 48 visible ones")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-side-") as folder, cluster(Path(folder) / "pg") as server:
        with companies(server, options.hidden) as both:
            begun = time.monotonic()
            values, pairs = asked(both, options.pairs)
            took = time.monotonic() - begun
    result = {
        **figures(values, pairs),
        "hidden": options.hidden,
        "seconds": round(took, 1),
        "target": TARGET,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "load_average": os.getloadavg()[0],
        "commit": commit(),
    }
    print(json.dumps(result, indent=None if options.json else 2))
    sys.exit(1 if max(result["auc"].values()) > TARGET else 0)


if __name__ == "__main__":
    main()
