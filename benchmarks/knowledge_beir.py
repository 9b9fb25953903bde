"""Whether words and vectors together are ever below the better of the two, on any set in the shape of BEIR.

FOLDER has corpus.jsonl, queries.jsonl and qrels/*.tsv. Without one, a set is made from the documentation that comes
with Python: documents are what a docstring says after its first paragraph (and paragraphs of the language reference
that answer nothing), asked in three ways: `summary` by that first paragraph, `words` by its four rarest words in any
order, `quoted` by 3 to 14 words in a row. It is written as such a folder (`--keep DIR` keeps it) and read like any
other.

`answered` is nDCG@10 of what the search service answers with over HTTP, `words` and `vectors` of its rankings alone.
`difference` is that of answers to the better of these two by question, with the bounds of 95 % by drawing the questions
again; `never_below` is whether its mean is nowhere below 0.
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
    """A docstring: its first paragraph, and what it says after that."""

    name: str
    summary: str
    body: str


def docstrings() -> list[Docstring]:
    """Of the standard library, each text once."""
    found: dict[str, Docstring] = {}
    for module in modules():
        for name, text in _docstrings_of(module):
            summary, _, body = text.strip().partition("\n\n")
            summary, body = " ".join(summary.split()), " ".join(body.split())
            if 25 <= len(summary) <= 200 and 120 <= len(body) <= 1500:
                found.setdefault(body, Docstring(name, summary, body))
    unique = Counter(one.summary for one in found.values())
    return [one for one in found.values() if unique[one.summary] == 1]


def _docstrings_of(module: ModuleType) -> Iterator[tuple[str, str]]:
    for name, one in vars(module).items():
        if inspect.isclass(one) or inspect.isroutine(one):
            yield f"{module.__name__}.{name}", inspect.getdoc(one) or ""
        if inspect.isclass(one):
            for inner, member in vars(one).items():
                told = getattr(member, "__doc__", None)
                if inspect.isroutine(member) and isinstance(told, str):
                    yield f"{module.__name__}.{name}.{inner}", inspect.cleandoc(told)


def write_set(folder: Path, documents: int, asked: int, seed: int = 11) -> None:
    """Write a set."""
    chance = random.Random(seed)
    told = docstrings()
    chance.shuffle(told)
    told = told[: documents * 2 // 3]
    others = [" ".join(one.split()) for text in topics.values() for one in re.split(r"\n\s*\n", text)]
    others = [one for one in dict.fromkeys(others) if 120 <= len(one) <= 1500]
    chance.shuffle(others)
    corpus = [(f"d{number}", one.name, one.body) for number, one in enumerate(told)]
    corpus += [(f"o{number}", "", one) for number, one in enumerate(others[: documents - len(told)])]
    often = Counter(word for _, _, text in corpus for word in set(_words(text)))
    queries = []
    for number, one in enumerate(told[:asked]):
        queries += [
            (f"summary-{number}", one.summary, number),
            (f"words-{number}", " ".join(_rare(one.body, often, chance)), number),
            (f"quoted-{number}", _quote(one.body, chance), number),
        ]
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    with (folder / "corpus.jsonl").open("w", encoding="utf-8") as out:
        out.writelines(json.dumps({"_id": id, "title": title, "text": text}) + "\n" for id, title, text in corpus)
    with (folder / "queries.jsonl").open("w", encoding="utf-8") as out:
        out.writelines(json.dumps({"_id": id, "text": text}) + "\n" for id, text, _ in queries)
    with (folder / "qrels" / "test.tsv").open("w", encoding="utf-8") as out:
        out.write("query-id\tcorpus-id\tscore\n")
        out.writelines(f"{id}\td{number}\t1\n" for id, _, number in queries)


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z]{4,}", text.lower())


def _rare(text: str, often: Mapping[str, int], chance: random.Random) -> list[str]:
    """Its four rarest words that others have too, in any order."""
    known = sorted({word for word in _words(text) if often[word] > 1}, key=lambda word: (often[word], word))[:4]
    chance.shuffle(known)
    return known


def _quote(text: str, chance: random.Random) -> str:
    words = text.split()
    size = chance.randint(3, 14)
    start = chance.randrange(max(1, len(words) - size))
    return " ".join(words[start : start + size])


def rank_all(labelled: LabelledCorpus, folder: Path) -> dict[str, Rankings]:
    """Take the corpus over, and rank the documents for each query: answers, words alone, vectors alone."""
    model = ensure(load_settings().models, MINILM.name)
    encoder = load_encoder(model)
    asking, analyzer, index = load_question_encoder(model, encoder), Analyzer(), Projection()
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
                rankings["answered"][id] = {one["path"]: 1 / (1 + at) for at, one in enumerate(passages)}
                wanted = ProposalRequest(
                    analyzer.terms(text), asking.embed([text.strip()])[0], frozenset({trial_store.SOURCE}), acls, DEPTH
                )
                proposed = propose(index.view, wanted)
                for way, scores in (("words", proposed.words), ("vectors", proposed.nearest)):
                    order = sorted(scores, key=lambda row, scores=scores: (-scores[row], row))[:DEPTH]  # type: ignore[misc]
                    rankings[way][id] = {
                        names[index.view.chunk_id(row)]: 1 / (1 + place) for place, row in enumerate(order)
                    }
    return rankings


def _ingest(conn: psycopg.Connection[Any], embed: Any, labelled: LabelledCorpus) -> None:
    trial_store.reset(conn)
    items = [item for item in labelled.items if item.text.strip()]
    for start in range(0, len(items), _BATCH):
        some = items[start : start + _BATCH]
        with conn.transaction():
            trial_store.add_documents(
                conn, [(item.id, item.title, item.text) for item in some], embed([item.text for item in some])
            )
    trial_store.mark_complete(conn, labelled.digest)


def figures(labelled: LabelledCorpus, rankings: Mapping[str, Rankings]) -> dict[str, Any]:
    """nDCG@10 of each way, and what answers have more than the better of the two rankings."""
    own = {way: measure(labelled.relevant, rankings[way]).by_question for way in WAYS}
    kinds: dict[str, list[str]] = {"all": list(labelled.relevant)}
    for id in labelled.relevant:
        if re.fullmatch(r"(summary|words|quoted)-\d+", id):
            kinds.setdefault(id.partition("-")[0], []).append(id)
    told: dict[str, Any] = {}
    for kind, ids in kinds.items():
        gains = {way: np.array([own[way][id]["ndcg@10"] for id in ids]) for way in WAYS}
        better = max(("words", "vectors"), key=lambda way: float(gains[way].mean()))
        more = gains["answered"] - gains[better]
        told[kind] = {
            **{way: round(float(values.mean()), 4) for way, values in gains.items()},
            "questions": len(ids),
            "difference": {"mean": round(float(more.mean()), 4), "bounds": list(confidence_interval(more.tolist()))},
        }
    return {"ndcg@10": told, "never_below": all(one["difference"]["mean"] >= 0 for one in told.values())}


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
            found = figures(labelled, rank_all(labelled, Path(name)))
    made = "the documentation of Python" if options.folder is None else folder.name
    output = found | {
        "documents": len(labelled.items),
        "queries": len(labelled.queries),
        **watch.figures(),
        **run_details(f"{made}: {len(labelled.items)} documents, {len(labelled.queries)} queries"),
    }
    print(json.dumps(output, indent=None if options.json else 2))


if __name__ == "__main__":
    main()
