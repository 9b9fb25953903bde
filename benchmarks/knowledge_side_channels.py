"""Whether anything in an answer reveals documents that the person may not read.

The two companies of a pair are the same but for hidden documents. Both are asked each question, in random order, by a
person who may not read these; classifiers then try to tell from an answer whether the hidden documents exist: from its
scores, from everything else in it (`counts`), from its duration, and from all of it. The answer is the search service's
own bytes, with every field of `SearchAnswer`: the number of items, each number, and of each text its length and a
checksum; of ids, which are random for each company, only their presence. `auc` is that of the better of two classifiers
(linear, boosted trees) on a pair of companies that it was not trained on, the mean of all pairs; 0.5 is chance.
`pairs_that_differ: 0` means that answers are equal to the last digit in every pair.

Any two companies differ a little in time, hidden documents or not: each has its own processes and files at random
places in memory. So there are several pairs, and one more without anything hidden. `told_apart` is the AUC of a
classifier that has learned from other answers of the same companies: `by_hidden` of each pair on average, `by_nothing`
of the two that are the same.

Other load hides small differences in time, so a run under load proves nothing: `valid` is then false, and the program
says so and exits with 2.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg_pool import ConnectionPool
from threadpoolctl import threadpool_limits

from groundplan.core.ids import new_id
from groundplan.core.settings import load_settings
from groundplan.gateway.search_app import configure
from groundplan.knowledge import store
from groundplan.knowledge.embedding.encoder import Encoder
from groundplan.knowledge.embedding.openvino_encoder import OpenVinoEncoder, load_question_encoder
from groundplan.knowledge.model import Chunk, Readers
from groundplan.knowledge.retrieval.editions import Editions
from groundplan.knowledge.retrieval.endpoint import KnowledgeService
from groundplan.knowledge.retrieval.projection import Projection
from groundplan.knowledge.retrieval.replication import Follower, apply_next_changes
from groundplan.knowledge.retrieval.search import Search
from groundplan.knowledge.retrieval.self_check import Examiner
from groundplan.knowledge.retrieval.wire import Conflict, Newer, Passage, SearchAnswer, SearchRequest, Step, Withheld
from groundplan.knowledge.retrieval.words import Analyzer
from groundplan.runtime.models import MINILM, ensure
from groundplan.testing import document_rows
from groundplan.testing.database import Cluster, Database, cluster
from groundplan.testing.document_rows import Document

if str(Path(__file__).parents[1]) not in sys.path:
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.knowledge_machine import Watch, run_details

SUBJECTS = ("leave", "travel", "salary", "laptop", "office", "training", "bonus", "contract")
QUERIES = [f"What is the {one} rule for {other}?" for one in SUBJECTS for other in SUBJECTS if one != other]
TARGET = 0.55
FOLDS = 5
PAIRS_OF_COMPANIES = 8
WARM_UP_TURNS = 20
"""Questions to each company before the measurement."""
ITEMS: Final[Mapping[str, type[msgspec.Struct]]] = {
    "passages": Passage, "withheld": Withheld, "conflicts": Conflict, "newer": Newer, "steps": Step,
}  # fmt: skip
"""Name of a list in an answer -> type of its items."""
IDS: Final = frozenset({"document", "chunk", "other_document", "newer_document"})
SCORES: Final = frozenset({"score", "similarity", "confidence"})
STATISTICS: Final = ("first", "last", "mean", "spread")
TIME: Final = "milliseconds"

Values = NDArray[np.float64]


def feature_names() -> list[str]:
    """The names of the numbers that are taken from an answer, in order: every field that it has; the time comes
    last."""
    names: list[str] = []
    for field in msgspec.structs.fields(SearchAnswer):
        if field.name in ITEMS:
            names.append(f"{field.name}.count")
            item_fields = [
                item_field.name
                for item_field in msgspec.structs.fields(ITEMS[field.name])
                if item_field.name not in IDS
            ]
            names += [
                f"{field.name}.{item_field}.{statistic}" for item_field in item_fields for statistic in STATISTICS
            ]
        else:
            names.append(field.name)
    return [*names, "bytes", TIME]


def answer_features(answer: bytes, milliseconds: float) -> list[float]:
    """The features of an answer in the order of `feature_names`. A field that is left out counts as -1."""
    decoded: dict[str, Any] = json.loads(answer)
    features: list[float] = []
    for field in msgspec.structs.fields(SearchAnswer):
        if field.name in ITEMS:
            items: Sequence[Mapping[str, Any]] = decoded[field.name]
            features.append(float(len(items)))
            for inner in msgspec.structs.fields(ITEMS[field.name]):
                if inner.name not in IDS:
                    item_values = [encode_value(item.get(inner.name)) for item in items] or [0.0]
                    features += [
                        item_values[0],
                        item_values[-1],
                        float(np.mean(item_values)),
                        float(np.std(item_values)),
                    ]
        else:
            features.append(encode_value(decoded.get(field.name)))
    return [*features, float(len(answer)), milliseconds]


def encode_value(value: object) -> float:
    """A value as a number; for a text its length, with a checksum as the fraction."""
    if isinstance(value, str):
        return len(value) + zlib.crc32(value.encode()) / 2**32
    if isinstance(value, (bool, int, float)):
        return float(value)
    return -1.0


def _feature_group(name: str) -> str:
    if name == TIME:
        return "timing"
    return "scores" if SCORES.intersection(name.split(".")) else "counts"


class Company:
    """A company with `hidden` documents about every subject that only another person may read."""

    def __init__(self, database: Database, encoder: Encoder, hidden: int, questions: Encoder | None = None) -> None:
        self.person = new_id()
        texts = [
            f"The {subject} rule number {n} is about {subject} and sometimes {SUBJECTS[n]}."
            for n in range(6)
            for subject in SUBJECTS
        ]
        secrets = [f"Secret {n}: {' '.join([SUBJECTS[n % 8]] * (1 + n % 5))} rule rule." for n in range(hidden)]
        self.index, analyzer = Projection(), Analyzer()
        with psycopg.connect(database.urls["control"], autocommit=True) as conn:
            conn.execute("INSERT INTO person (id, email, name) VALUES (%s, 'a@acme.example', 'a')", (self.person,))
            store.put_source(conn, "s", path="s", sensitivity="internal", owner="dana@acme.example")
            for reader, kind, documents in (("boss@acme.example", "h", secrets), ("everyone", "d", texts)):
                vectors = encoder.embed(documents)
                for number, text in enumerate(documents):
                    readers = Readers(frozenset({reader}))
                    document = Document(f"{kind}{number:03}", "Rule", text, text, readers, markdown=False)
                    with conn.transaction():
                        chunk = Chunk(0, text, 0, len(text), 1, 1)
                        document_rows.put_document(conn, "s", document, [chunk], vectors[number : number + 1])
            while apply_next_changes(conn, self.index, analyzer):
                pass
            store.analyze_if_new(conn)
        self.pool: ConnectionPool[Any] = ConnectionPool(
            database.urls["search"], kwargs={"autocommit": True}, configure=configure, min_size=1, max_size=1, open=True
        )
        search = Search(self.pool, questions or encoder, self.index)

        def url() -> str:
            return database.urls["control"]

        # the follower is not started: nothing changes here
        follower = Follower(url, Editions(self.index))
        self.service = KnowledgeService(search, encoder, follower, Examiner(search.queries, url), encoder)

    def body(self, query: str, k: int = 8) -> bytes:
        """The request for a question of the person who may not read the hidden documents."""
        return msgspec.json.encode(
            SearchRequest(
                workload="w", person=str(self.person), query=query, sources=["s"], k=k, max_bytes=9000, explain=True
            )
        )

    def ask(self, query: str, k: int = 8) -> tuple[object, ...]:
        """Each field of the answer, without ids."""
        decoded = json.loads(self.service.search(self.body(query, k)))
        return tuple(
            [{key: value for key, value in item.items() if key not in IDS} for item in value]
            if isinstance(value, list)
            else value
            for value in decoded.values()
        )


@contextmanager
def build_companies(server: Cluster, hidden: Sequence[int]) -> Iterator[list[Company]]:
    """One company for each number, with so many hidden documents."""
    with ExitStack() as stack:
        stack.enter_context(threadpool_limits(limits=1, user_api="blas"))
        model = ensure(load_settings().models, MINILM.name)
        encoder = OpenVinoEncoder(model, threads=1)
        questions = load_question_encoder(model, encoder)
        companies = [Company(stack.enter_context(server.database()), encoder, count, questions) for count in hidden]
        for company in companies:
            stack.callback(company.pool.close)
        yield companies


def collect_answers(companies: Sequence[Company], turns: int, seed: int = 5) -> tuple[Values, NDArray[np.int64]]:
    """(features, pair of companies) of each answer: consecutive companies are a pair, and consecutive rows are the
    answers of a pair to the same question, without and with the hidden documents."""
    rng = random.Random(seed)
    rows: list[list[float]] = []
    pair_of_row: list[int] = []
    pairs = list(range(len(companies) // 2))
    for turn in range(turns + WARM_UP_TURNS):
        rng.shuffle(pairs)
        for pair in pairs:
            query, first = rng.choice(QUERIES), rng.randrange(2)
            features: dict[int, list[float]] = {}
            for member in (first, 1 - first):
                company = companies[2 * pair + member]
                body = company.body(query)
                started = time.perf_counter()
                answer = company.service.search(body)
                features[member] = answer_features(answer, (time.perf_counter() - started) * 1000)
            if turn >= WARM_UP_TURNS:
                rows += [features[0], features[1]]
                pair_of_row += [pair, pair]
    return np.array(rows), np.array(pair_of_row)


def auc(values: Values, groups: NDArray[np.int64]) -> float:
    """The AUC of the better of two classifiers, on groups of answers that it was not trained on: the mean of all
    groups. The first of every two answers is of a company without hidden documents."""
    from sklearn.ensemble import HistGradientBoostingClassifier  # noqa: PLC0415 -- an extra
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415
    from sklearn.metrics import roc_auc_score  # noqa: PLC0415
    from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict  # noqa: PLC0415
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415

    varied = values[:, values.std(axis=0) > 0]
    if not varied.shape[1]:
        return 0.5
    labels = np.arange(len(values)) % 2
    aucs: list[float] = []
    for model in (
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)),
        HistGradientBoostingClassifier(max_iter=40, random_state=0),
    ):
        with threadpool_limits(limits=1), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Could not find the number of physical cores")
            probabilities = cross_val_predict(
                model, varied, labels, groups=groups, cv=LeaveOneGroupOut(), method="predict_proba"
            )[:, 1]
        by_group = [
            roc_auc_score(labels[groups == group], probabilities[groups == group]) for group in np.unique(groups)
        ]
        aucs.append(float(np.mean(by_group)))
    return round(max(aucs), 4)


def distinguishability(values: Values) -> float:
    """The `auc` for two companies of a classifier that was trained on other answers of the same two."""
    return auc(values, np.repeat(np.arange(len(values) // 2), 2) % FOLDS)


def figures(values: Values, pairs: NDArray[np.int64]) -> dict[str, Any]:
    """The AUC from each part of the answers, and from all of them. The last pair of companies has no hidden
    documents."""
    last = pairs.max()
    same_companies, values, pairs = values[pairs == last], values[pairs < last], pairs[pairs < last]
    values_by_pair = [values[pairs == pair_values] for pair_values in range(last)]
    parts = np.array([_feature_group(name) for name in feature_names()])
    without_time = values[:, parts != "timing"]
    by_part = {part: values[:, parts == part] for part in ("scores", "counts", "timing")} | {"all": values}
    return {
        "pairs": len(values) // 2,
        "fields": len(SearchAnswer.__struct_fields__),
        "features": int(values.shape[1]),
        "pairs_that_differ": int((without_time[0::2] != without_time[1::2]).any(axis=1).sum()),
        "pairs_of_companies": len(values_by_pair),
        "auc": {part: auc(part_values, pairs) for part, part_values in by_part.items()},
        "told_apart": {
            "by_hidden": round(float(np.mean([distinguishability(pair_values) for pair_values in values_by_pair])), 4),
            "by_nothing": distinguishability(same_companies),
        },
        "slower_with_hidden_ms": [
            round(float(np.median(pair_values[1::2, -1] - pair_values[0::2, -1])), 3) for pair_values in values_by_pair
        ],
        "slower_with_nothing_ms": round(float(np.median(same_companies[1::2, -1] - same_companies[0::2, -1])), 3),
        "milliseconds": {
            name: round(float(np.median(values[at::2, -1])), 3) for at, name in enumerate(("without", "with_hidden"))
        },
    }


def main() -> None:
    """Print the figures; exit with 1 if something is revealed, with 2 if the machine was too busy to measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--pairs", type=int, default=10_000, help="questions that are asked of both companies of a pair"
    )
    parser.add_argument("--hidden", type=int, default=40, help="hidden documents beside 48 visible ones")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-side-") as folder, cluster(Path(folder) / "pg") as server:
        hidden = [0, options.hidden] * PAIRS_OF_COMPANIES + [0, 0]
        with build_companies(server, hidden) as companies, Watch() as watch:
            started = time.monotonic()
            values, pairs = collect_answers(companies, -(-options.pairs // PAIRS_OF_COMPANIES))
            duration = time.monotonic() - started
    result = {
        **figures(values, pairs),
        "hidden": options.hidden,
        "seconds": round(duration, 1),
        "target": TARGET,
        **watch.figures(),
        **run_details(
            f"generated: companies of 48 visible documents, {options.hidden} hidden ones in one of each pair"
        ),
    }
    print(json.dumps(result, indent=None if options.json else 2))
    if max(result["auc"].values()) > TARGET:
        sys.exit(1)
    if not result["valid"]:
        sys.stderr.write(f"not valid: others took {result['others_share']:.0%} of the machine meanwhile\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
