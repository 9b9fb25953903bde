"""The company's synonyms in search: what is said otherwise is found, after what is said as asked, and tells nothing of
documents that the person may not read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg_pool import ConnectionPool

from groundplan.blueprint.model import Term
from groundplan.core.ids import new_id
from groundplan.knowledge import store
from groundplan.knowledge.model import DIMENSION, Chunk, Readers, Vectors
from groundplan.knowledge.retrieval.projection import Projection
from groundplan.knowledge.retrieval.replication import apply_next_changes
from groundplan.knowledge.retrieval.search import Search, SearchResult
from groundplan.knowledge.retrieval.synonyms import MAX_VARIANTS, Synonyms
from groundplan.knowledge.retrieval.wire import SearchRequest
from groundplan.knowledge.retrieval.words import MAX_TERMS, Analyzer, query_terms
from groundplan.release.store import set_glossary
from groundplan.testing import document_rows
from groundplan.testing.database import Cluster, Database
from groundplan.testing.document_rows import Document

TERMS = [
    Term(name="leave", title="annual leave", meaning="Days off.", synonyms=["PTO", "holidays"], forbidden=["break"]),
    Term(name="plain", title="badge", meaning="Opens doors."),
]
TEXTS = (
    "Annual leave is thirty days.", "The holidays of the year are listed.", "The badge opens doors.",
    "Ask for PTO early.", " ".join(f"word{n}" for n in range(MAX_TERMS - 1)),
)  # fmt: skip


class Nothing:
    """Vectors that are near to no other: words alone find."""

    def __init__(self) -> None:
        self._number = 0

    def embed(self, texts: Any) -> Vectors:
        rows = np.zeros((len(texts), DIMENSION), dtype=np.float32)
        for row in rows:
            row[self._number % DIMENSION] = 1
            self._number += 1
        return rows


class Company:
    def __init__(self, database: Database, hidden: tuple[str, ...]) -> None:
        self.person = new_id()
        self.index, analyzer = Projection(), Analyzer()
        with psycopg.connect(database.urls["control"], autocommit=True) as conn:
            conn.execute("INSERT INTO person (id, email, name) VALUES (%s, 'a@acme.example', 'a')", (self.person,))
            store.put_source(conn, "s", path="s", sensitivity="internal", owner="dana@acme.example")
            embed = Nothing()
            texts = [(text, "everyone") for text in TEXTS] + [(text, "boss@acme.example") for text in hidden]
            for number, (text, reader) in enumerate(texts):
                readers = Readers(frozenset({reader}))
                made = Document(f"d{number:03}", "Rule", text, text, readers, markdown=False)
                with conn.transaction():
                    chunk = Chunk(0, text, 0, len(text), 1, 1)
                    document_rows.put_document(conn, "s", made, [chunk], embed.embed([text]))
            set_glossary(conn, TERMS)
            while apply_next_changes(conn, self.index, analyzer):
                pass
        self.pool: ConnectionPool[Any] = ConnectionPool(
            database.urls["search"], kwargs={"autocommit": True}, min_size=1, max_size=1, open=True
        )

    def ask(self, query: str, *, synonyms: bool = True) -> SearchResult:
        request = SearchRequest(
            workload="w", person=str(self.person), query=query, sources=["s"], k=8, synonyms=synonyms, explain=True
        )
        far = np.zeros(DIMENSION, dtype=np.float32)
        far[DIMENSION - 1] = 1

        class Far:
            def embed(self, texts: Any) -> Vectors:
                return np.tile(far, (len(texts), 1))

        return Search(self.pool, Far(), self.index).answer(request)

    def found(self, query: str, *, synonyms: bool = True) -> list[str]:
        return [passage.text for passage in self.ask(query, synonyms=synonyms).passages]


@pytest.fixture
def companies(postgres_cluster: Cluster) -> Iterator[tuple[Company, Company]]:
    secrets = tuple(f"PTO of the board number {n}, holidays and annual leave zebra." for n in range(12))
    with ExitStack() as stack:
        made = [Company(stack.enter_context(postgres_cluster.database()), hidden) for hidden in ((), secrets)]
        for one in made:
            stack.callback(one.pool.close)
        yield made[0], made[1]


def test_synonyms_match_after_exact_words(companies: tuple[Company, Company]) -> None:
    plain, with_hidden = companies
    assert plain.found("PTO", synonyms=False) == ["Ask for PTO early."]
    found = plain.found("PTO")
    assert found[0] == "Ask for PTO early."
    assert set(found) == {"Ask for PTO early.", "Annual leave is thirty days.", "The holidays of the year are listed."}
    assert plain.found("badge") == ["The badge opens doors."], "a term without synonyms is asked as it is"
    assert plain.found("break") == [], "what is forbidden is no synonym"
    for query in ("PTO", "annual leave", "How many holidays?", "badge", "zebra PTO"):
        without, other = plain.ask(query), with_hidden.ask(query)
        told = [[(one.path, one.score, one.text) for one in each.passages] for each in (without, other)]
        assert told[0] == told[1], "hidden documents change no digit"
        assert (without.confidence, without.withheld) == (other.confidence, other.withheld)


def test_words_of_hidden_documents_take_no_place_in_the_ranking(companies: tuple[Company, Company]) -> None:
    plain, with_hidden = companies
    many = " ".join(f"word{n}" for n in range(MAX_TERMS - 1))
    for query in (f"zebra {many} badge", f"{many} badge", f"zebra board {many} badge"):
        assert [one.score for one in plain.ask(query).passages] == [
            one.score for one in with_hidden.ask(query).passages
        ]


def test_terms_beyond_the_limit_do_not_depend_on_the_index() -> None:
    terms = [f"t{n}" for n in range(MAX_TERMS + 5)]
    assert query_terms(terms, {"t0": 7, f"t{MAX_TERMS}": 8}) == {7: 1}


def test_phrases_are_replaced_as_units() -> None:
    made = Synonyms([("annual leave", "pto"), ("leave", "go"), ("laptop", "notebook", "portable computer")])
    assert made.variants(["my", "annual", "leave"]) == [["my", "pto"]]
    assert made.variants(["a", "notebook"]) == [["a", "laptop"], ["a", "portable", "computer"]]
    assert made.variants(["nothing", "here"]) == []
    assert Synonyms().variants(["a"]) == []


@given(st.lists(st.sampled_from("abcd"), max_size=12))
def test_variants_are_few_and_differ_from_the_question(question: list[str]) -> None:
    found = Synonyms([("a b", "c"), ("d", "a", "b b")]).variants(question)
    assert len(found) <= MAX_VARIANTS
    assert all(variant != question for variant in found)
