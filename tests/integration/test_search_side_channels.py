"""What a person may not see changes nothing that they can: two companies that differ in hidden documents only answer
the same, to the last digit. How long an answer takes is told apart in ten thousand pairs (soak)."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg_pool import ConnectionPool
from threadpoolctl import threadpool_limits

from groundplan.core.ids import new_id
from groundplan.core.settings import load_settings
from groundplan.knowledge import store
from groundplan.knowledge.embedding.openvino_encoder import OpenVinoEncoder
from groundplan.knowledge.model import Chunk, Document, Readers, SearchRequest
from groundplan.knowledge.retrieval.follow import take_batch
from groundplan.knowledge.retrieval.projection import Projection
from groundplan.knowledge.retrieval.search import Search
from groundplan.knowledge.retrieval.words import Analyzer
from groundplan.runtime.models import MINILM, ensure
from groundplan.testing.database import Cluster, Database

SUBJECTS = ("leave", "travel", "salary", "laptop", "office", "training", "bonus", "contract")
QUERIES = [f"What is the {one} rule for {other}?" for one in SUBJECTS for other in SUBJECTS if one != other]


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
        self.pool: ConnectionPool[Any] = ConnectionPool(
            database.urls["search"], kwargs={"autocommit": True}, min_size=1, max_size=1, open=True
        )
        self.search = Search(self.pool, encoder, self.index)

    def ask(self, query: str, k: int = 8) -> tuple[object, ...]:
        """All that a caller is told, but ids."""
        asked = SearchRequest(
            workload="w", person=str(self.person), query=query, sources=["s"], k=k, max_bytes=9000, explain=True
        )
        found = self.search.answer(asked)
        told = [(one.path, one.score, one.text, one.start_char, one.version) for one in found.passages]
        return (told, found.confidence, found.abstained, found.withheld)


@pytest.fixture
def companies(postgres_cluster: Cluster) -> Iterator[tuple[Company, Company]]:
    with ExitStack() as stack:
        stack.enter_context(threadpool_limits(limits=1, user_api="blas"))
        encoder = OpenVinoEncoder(ensure(load_settings().models, MINILM.name), threads=1)
        made = [Company(stack.enter_context(postgres_cluster.database()), encoder, hidden) for hidden in (0, 40)]
        for one in made:
            stack.callback(one.pool.close)
        yield made[0], made[1]


def test_hidden_documents_change_no_answer(companies: tuple[Company, Company]) -> None:
    without, with_hidden = companies
    assert with_hidden.index.count == without.index.count + 40
    for query in QUERIES[::3]:
        found = without.ask(query)
        assert found == with_hidden.ask(query)
        assert found[0], "something is found"
    assert without.ask("secret") == with_hidden.ask("secret"), "a word that stands in hidden documents only"


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_ten_thousand_pairs_cannot_be_told_apart(companies: tuple[Company, Company]) -> None:
    chance = random.Random(5)
    took: tuple[list[float], list[float]] = ([], [])
    for number in range(10_000):
        query = chance.choice(QUERIES)
        first = chance.randrange(2)
        for which in (first, 1 - first):
            begun = time.perf_counter()
            companies[which].ask(query)
            if number >= 100:
                took[which].append(time.perf_counter() - begun)
    assert max(auc(*took), auc(*reversed(took))) <= 0.55


def auc(low: list[float], high: list[float]) -> float:
    """The part of all pairs in which the second is larger: what the best threshold could tell."""
    order = np.argsort(np.concatenate([low, high]), kind="stable")
    ranks = np.empty(len(order))
    ranks[order] = np.arange(1, len(order) + 1)
    return float((ranks[len(low) :].sum() - len(high) * (len(high) + 1) / 2) / (len(low) * len(high)))


def test_a_difference_would_be_told() -> None:
    assert auc([1, 2, 3], [4, 5, 6]) == 1
    assert auc([1, 3, 5], [2, 4, 6]) == pytest.approx(2 / 3)
