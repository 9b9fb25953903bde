"""Several searches at once: one computes at a time, and none waits for what another one waits for."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg_pool import ConnectionPool

from groundplan.core.ids import new_id
from groundplan.knowledge import store
from groundplan.knowledge.model import DIMENSION, Chunk, Readers, Vectors
from groundplan.knowledge.retrieval import search
from groundplan.knowledge.retrieval.projection import Projection
from groundplan.knowledge.retrieval.replication import apply_next_changes
from groundplan.knowledge.retrieval.search import Search
from groundplan.knowledge.retrieval.wire import SearchRequest
from groundplan.knowledge.retrieval.words import Analyzer
from groundplan.testing import document_rows
from groundplan.testing.database import Database
from groundplan.testing.document_rows import Document

LEAVE = "Staff have thirty days of paid leave."
TOGETHER = 3
SECONDS = 20.0


class Embedder:
    """Everything means the same. What is asked about `later` waits until somebody lets it go on."""

    def __init__(self) -> None:
        self.waits, self.go_on = threading.Event(), threading.Event()

    def embed(self, texts: Any) -> Vectors:
        if any("later" in text for text in texts):
            self.waits.set()
            assert self.go_on.wait(SECONDS)
        row = np.zeros(DIMENSION, dtype=np.float32)
        row[0] = 1
        return np.tile(row, (len(texts), 1))


class World:
    """One document, somebody who may read it, and a search of as many connections as ask together."""

    def __init__(self, conn: psycopg.Connection[Any], pool: ConnectionPool[Any]) -> None:
        self.embedder, self.index = Embedder(), Projection()
        self.search = Search(pool, self.embedder, self.index)
        self.person = new_id()
        conn.execute("INSERT INTO person (id, email, name) VALUES (%s, 'a@acme.example', 'A')", (self.person,))
        store.put_source(conn, "s", path="s", sensitivity="internal", owner="a@acme.example")
        document = Document("leave.md", "Leave", LEAVE, LEAVE, Readers(frozenset({"a@acme.example"})), markdown=False)
        document_rows.put_document(
            conn, "s", document, [Chunk(0, LEAVE, 0, len(LEAVE), 1, 1)], self.embedder.embed([LEAVE])
        )
        while apply_next_changes(conn, self.index, Analyzer()):
            pass

    def ask(self, question: str) -> list[str]:
        request = SearchRequest(workload="w", person=str(self.person), query=question, sources=["s"], k=4)
        return [one.path for one in self.search.passages(request)]


@pytest.fixture
def world(database: Database) -> Iterator[World]:
    with (
        psycopg.connect(database.urls["control"], autocommit=True) as conn,
        ConnectionPool(
            database.urls["search"], kwargs={"autocommit": True}, min_size=TOGETHER, max_size=TOGETHER, open=True
        ) as pool,
    ):
        yield World(conn, pool)


def test_waiting_for_a_vector_blocks_no_other_search(world: World) -> None:
    with ThreadPoolExecutor(2) as threads:
        waiting = threads.submit(world.ask, "How many days of leave later?")
        try:
            assert world.embedder.waits.wait(SECONDS)
            assert threads.submit(world.ask, "How many days of leave?").result(SECONDS) == ["leave.md"]
            assert not waiting.done()
        finally:
            world.embedder.go_on.set()
        assert waiting.result(SECONDS) == ["leave.md"]


@pytest.mark.parametrize("half", ["propose_by_words", "complete_proposal"])
def test_one_search_computes_at_a_time(world: World, monkeypatch: pytest.MonkeyPatch, half: str) -> None:
    computing: list[int] = []
    most: list[int] = []
    computed = getattr(search, half)

    def watched(*given: Any) -> Any:
        computing.append(1)
        most.append(len(computing))
        time.sleep(0.05)
        try:
            return computed(*given)
        finally:
            computing.pop()

    monkeypatch.setattr(search, half, watched)
    with ThreadPoolExecutor(TOGETHER) as threads:
        found = list(threads.map(world.ask, ["How many days of leave?"] * 2 * TOGETHER))
    assert found == [["leave.md"]] * 2 * TOGETHER
    assert len(most) == 2 * TOGETHER
    assert max(most) == 1
