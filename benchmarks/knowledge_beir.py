"""Whether words and vectors together ever rank below the better of the two, on any set in the BEIR format.

FOLDER has corpus.jsonl, queries.jsonl and qrels/*.tsv. Without one, a set is generated from the documentation that
comes with Python: documents are the docstrings after their first paragraph (and paragraphs of the language reference
that answer nothing), with three kinds of queries: `summary` is that first paragraph, `words` the four rarest words in
any order, `quoted` 3 to 14 consecutive words. The set is written as such a folder (`--keep DIR` keeps it) and read like
any other.

`answered` is nDCG@10 of the search service's answers over HTTP, `words` and `vectors` that of its rankings alone.
`difference` is that of the answers to the better of these two by question, with 95 % bounds from resampled questions;
`never_below` is whether its mean is nowhere below 0.
"""

from __future__ import annotations

import argparse
import inspect
import json
import random
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics
from types import ModuleType
from typing import Any
from uuid import UUID

import numpy as np
import psycopg
from psycopg_pool import ConnectionPool
from threadpoolctl import threadpool_limits

from groundplan.core.home import Home
from groundplan.core.settings import load_settings
from groundplan.knowledge.embedding.openvino_encoder import load_encoder, load_question_encoder
from groundplan.knowledge.evaluation import trial_store
from groundplan.knowledge.evaluation.beir import LabelledCorpus, read_corpus
from groundplan.knowledge.evaluation.measure import confidence_interval, measure
from groundplan.knowledge.retrieval import search_store
from groundplan.knowledge.retrieval.projection import Projection
from groundplan.knowledge.retrieval.propose import ProposalRequest, propose
from groundplan.knowledge.retrieval.replication import apply_next_changes
from groundplan.knowledge.retrieval.wire import SearchRequest
from groundplan.knowledge.retrieval.words import Analyzer
from groundplan.runtime.models import MINILM, ensure
from groundplan.testing.database import cluster

if str(Path(__file__).parents[1]) not in sys.path:
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.knowledge_machine import Watch, run_details
from benchmarks.knowledge_scale import Client, run_search_service
from benchmarks.knowledge_texts import modules

WAYS = ("answered", "words", "vectors")
DEPTH = 100
_BATCH = 256

Rankings = dict[str, dict[str, float]]
"""Query -> document -> score."""


@dataclass(frozen=True, slots=True)
class Docstring:
    """A docstring: its first paragraph, and the text after it."""

    name: str
    summary: str
    body: str


def docstrings() -> list[Docstring]:
    """The docstrings of the standard library, each text once."""
    by_body: dict[str, Docstring] = {}
    for module in modules():
        for name, text in _docstrings_of(module):
            summary, _, body = text.strip().partition("\n\n")
            summary, body = " ".join(summary.split()), " ".join(body.split())
            if 25 <= len(summary) <= 200 and 120 <= len(body) <= 1500:
                by_body.setdefault(body, Docstring(name, summary, body))
    summary_counts = Counter(docstring.summary for docstring in by_body.values())
    return [docstring for docstring in by_body.values() if summary_counts[docstring.summary] == 1]


def _docstrings_of(module: ModuleType) -> Iterator[tuple[str, str]]:
    for name, value in vars(module).items():
        if inspect.isclass(value) or inspect.isroutine(value):
            yield f"{module.__name__}.{name}", inspect.getdoc(value) or ""
        if inspect.isclass(value):
            for inner, member in vars(value).items():
                docstring = getattr(member, "__doc__", None)
                if inspect.isroutine(member) and isinstance(docstring, str):
                    yield f"{module.__name__}.{name}.{inner}", inspect.cleandoc(docstring)


def write_set(folder: Path, documents: int, queried: int, seed: int = 11) -> None:
    """Write a generated set of `documents` documents, with three queries for each of `queried` of them."""
    rng = random.Random(seed)
    chosen = docstrings()
    rng.shuffle(chosen)
    chosen = chosen[: documents * 2 // 3]
    others = [" ".join(item.split()) for text in topics.values() for item in re.split(r"\n\s*\n", text)]
    others = [item for item in dict.fromkeys(others) if 120 <= len(item) <= 1500]
    rng.shuffle(others)
    corpus = [(f"d{number}", item.name, item.body) for number, item in enumerate(chosen)]
    corpus += [(f"o{number}", "", item) for number, item in enumerate(others[: documents - len(chosen)])]
    frequencies = Counter(word for _, _, text in corpus for word in set(_words(text)))
    queries = []
    for number, item in enumerate(chosen[:queried]):
        queries += [
            (f"summary-{number}", item.summary, number),
            (f"words-{number}", " ".join(_rarest_words(item.body, frequencies, rng)), number),
            (f"quoted-{number}", _quote(item.body, rng), number),
        ]
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    with (folder / "corpus.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(
            json.dumps({"_id": query_id, "title": title, "text": text}) + "\n" for query_id, title, text in corpus
        )
    with (folder / "queries.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"_id": query_id, "text": text}) + "\n" for query_id, text, _ in queries)
    with (folder / "qrels" / "test.tsv").open("w", encoding="utf-8") as file:
        file.write("query-id\tcorpus-id\tscore\n")
        file.writelines(f"{query_id}\td{number}\t1\n" for query_id, _, number in queries)


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z]{4,}", text.lower())


def _rarest_words(text: str, frequencies: Mapping[str, int], rng: random.Random) -> list[str]:
    """The four rarest words of a text that other documents have too, in any order."""
    rarest = sorted(
        {word for word in _words(text) if frequencies[word] > 1}, key=lambda word: (frequencies[word], word)
    )[:4]
    rng.shuffle(rarest)
    return rarest


def _quote(text: str, rng: random.Random) -> str:
    words = text.split()
    size = rng.randint(3, 14)
    start = rng.randrange(max(1, len(words) - size))
    return " ".join(words[start : start + size])


def rank_all(labelled: LabelledCorpus, folder: Path) -> dict[str, Rankings]:
    """Ingest the corpus, and rank the documents for each query: by answers, words alone, vectors alone."""
    model = ensure(load_settings().models, MINILM.name)
    encoder = load_encoder(model)
    question_encoder, analyzer, index = load_question_encoder(model, encoder), Analyzer(), Projection()
    rankings: dict[str, Rankings] = {way: {} for way in WAYS}
    with cluster(folder / "pg") as server, server.database() as database:
        with psycopg.connect(database.urls["control"], autocommit=True) as conn:
            _ingest(conn, encoder.embed, labelled)
            while apply_next_changes(conn, index, analyzer):
                pass
            rows = conn.execute("SELECT c.id, d.path FROM chunk c JOIN document d ON d.id = c.document_id").fetchall()
            names: dict[UUID, str] = dict(rows)
        home = Home(folder / "home")
        home.create()
        pool: ConnectionPool[Any] = ConnectionPool(
            database.urls["search"], kwargs={"autocommit": True}, min_size=1, max_size=1, open=True
        )
        with pool, run_search_service(database, home) as endpoint:
            with pool.connection() as conn, conn.transaction():
                acls = frozenset(search_store.assume_reader(conn, None, "").acls)
            client = Client(endpoint)
            for id, text in labelled.queries.items():
                request = SearchRequest(
                    workload="", person=None, query=text, sources=[trial_store.SOURCE], k=50, max_bytes=1 << 20,
                    context=0,
                )  # fmt: skip
                _, passages = client.ask(request)
                rankings["answered"][id] = {passage["path"]: 1 / (1 + rank) for rank, passage in enumerate(passages)}
                proposal_request = ProposalRequest(
                    analyzer.terms(text),
                    question_encoder.embed([text.strip()])[0],
                    frozenset({trial_store.SOURCE}),
                    acls,
                    DEPTH,
                )
                proposed = propose(index.view, proposal_request)
                for way, scores in (("words", proposed.words), ("vectors", proposed.nearest)):
                    order = sorted(scores, key=lambda row, scores=scores: (-scores[row], row))[:DEPTH]  # type: ignore[misc]
                    rankings[way][id] = {
                        names[index.view.chunk_id(row)]: 1 / (1 + rank) for rank, row in enumerate(order)
                    }
    return rankings


def _ingest(conn: psycopg.Connection[Any], embed: Any, labelled: LabelledCorpus) -> None:
    trial_store.reset(conn)
    items = [item for item in labelled.items if item.text.strip()]
    for start in range(0, len(items), _BATCH):
        batch = items[start : start + _BATCH]
        with conn.transaction():
            trial_store.add_documents(
                conn, [(item.id, item.title, item.text) for item in batch], embed([item.text for item in batch])
            )
    trial_store.mark_complete(conn, labelled.digest)


def figures(labelled: LabelledCorpus, rankings: Mapping[str, Rankings]) -> dict[str, Any]:
    """nDCG@10 of each way, and the difference of answers to the better of the two rankings."""
    by_question = {way: measure(labelled.relevant, rankings[way]).by_question for way in WAYS}
    kinds: dict[str, list[str]] = {"all": list(labelled.relevant)}
    for id in labelled.relevant:
        if re.fullmatch(r"(summary|words|quoted)-\d+", id):
            kinds.setdefault(id.partition("-")[0], []).append(id)
    by_kind: dict[str, Any] = {}
    for kind, ids in kinds.items():
        gains = {way: np.array([by_question[way][id]["ndcg@10"] for id in ids]) for way in WAYS}
        better = max(("words", "vectors"), key=lambda way: float(gains[way].mean()))
        difference = gains["answered"] - gains[better]
        by_kind[kind] = {
            **{way: round(float(values.mean()), 4) for way, values in gains.items()},
            "questions": len(ids),
            "difference": {
                "mean": round(float(difference.mean()), 4),
                "bounds": list(confidence_interval(difference.tolist())),
            },
        }
    return {"ndcg@10": by_kind, "never_below": all(row["difference"]["mean"] >= 0 for row in by_kind.values())}


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "folder", type=Path, nargs="?", help="corpus.jsonl, queries.jsonl, qrels/*.tsv; else one is made"
    )
    parser.add_argument("--documents", type=int, default=3000, help="of the set that is made")
    parser.add_argument("--asked", type=int, default=300, help="documents that are asked for, in each of three ways")
    parser.add_argument("--keep", type=Path, help="where the set that is made is written")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-beir-") as name, Watch() as watch:
        folder = options.folder or options.keep or Path(name) / "set"
        if options.folder is None:
            write_set(folder, options.documents, options.asked)
        labelled = read_corpus(folder)
        with threadpool_limits(limits=1, user_api="blas"):
            results = figures(labelled, rank_all(labelled, Path(name)))
    source = "the documentation of Python" if options.folder is None else folder.name
    output = results | {
        "documents": len(labelled.items),
        "queries": len(labelled.queries),
        **watch.figures(),
        **run_details(f"{source}: {len(labelled.items)} documents, {len(labelled.queries)} queries"),
    }
    print(json.dumps(output, indent=None if options.json else 2))


if __name__ == "__main__":
    main()
