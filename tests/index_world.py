"""A company's documents in a database, search over every edition of their index, and a process that builds editions.

`python -m tests.index_world URL CHARACTERS DELAY` builds the edition with passages of `CHARACTERS` until it serves,
with `DELAY` seconds for each request for embeddings.
"""

from __future__ import annotations

import hashlib
import re
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
from psycopg_pool import ConnectionPool

from groundplan.blueprint.model import Source
from groundplan.knowledge.index import index_store
from groundplan.knowledge.index.compare import Examined
from groundplan.knowledge.index.model import Edition, Embedding, IndexSettings, serving_edition
from groundplan.knowledge.index.switch import SwitchActor
from groundplan.knowledge.index.upkeep import DeclaredIndex, Step, Tools, keep_up
from groundplan.knowledge.ingest import ingest_source
from groundplan.knowledge.intake.vectors import embed_pending
from groundplan.knowledge.model import Embedder, Vectors
from groundplan.knowledge.retrieval import search_store
from groundplan.knowledge.retrieval.editions import Editions
from groundplan.knowledge.retrieval.projection import Projection
from groundplan.knowledge.retrieval.replication import Follower
from groundplan.knowledge.retrieval.search import Search, SearchResult
from groundplan.knowledge.retrieval.self_check import Examiner, ExamineRequest
from groundplan.knowledge.retrieval.wire import SearchRequest
from groundplan.knowledge.sources.folder import FolderConnector
from groundplan.testing.database import Database

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
ACTOR = SwitchActor("system", NOW)
SOURCE = Source(name="s", path="s", sensitivity="internal", owner="ana@acme.example", readers=["public"])
SHORT_CHARACTERS, LONG_CHARACTERS = 120, 400


class WordHashEmbedder:
    """An embedder of any dimension whose vectors are the closer the more words two texts share. `delay`: seconds that
    each request takes."""

    def __init__(self, dimension: int = 384, delay: float = 0.0) -> None:
        self.dimension, self.delay = dimension, delay

    def embed(self, texts: Sequence[str]) -> Vectors:
        time.sleep(self.delay)
        rows = np.full((len(texts), self.dimension), 1e-3, dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in re.findall(r"\w+", text.lower()):
                row[int.from_bytes(hashlib.sha256(word.encode()).digest()[:4]) % self.dimension] += 1
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def paragraph(number: int) -> str:
    """A document that is one passage where passages have `LONG_CHARACTERS`, and several where they have
    `SHORT_CHARACTERS`. The word `zebraNUMBER` occurs in no other document."""
    sentences = [f"Rule {number} says in part {part} what zebra{number} has to do there." for part in range(5)]
    return f"# Rule {number}\n\n{' '.join(sentences)}\n"


class IndexWorld:
    """Replicates and searches in this process; editions may be built by another process."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database, self.folder = database, folder
        folder.mkdir()
        self.conn = psycopg.connect(database.urls["control"], autocommit=True)
        self.pool: ConnectionPool[Any] = ConnectionPool(
            database.urls["search"], kwargs={"autocommit": True}, min_size=1, max_size=2, open=True
        )
        self.editions = Editions(Projection())
        self.follower = Follower(lambda: database.urls["control"], self.editions)
        self.create_embedder: Callable[[Embedding], Embedder] = lambda one: WordHashEmbedder(one.dimension)
        self.search = Search(
            self.pool, WordHashEmbedder(), self.editions, deployed=lambda embedding: self.create_embedder(embedding)
        )
        self.examiner = Examiner(self.search.queries, lambda: database.urls["control"])
        self.follower.start()

    def write(self, number: int, text: str | None = None) -> None:
        (self.folder / f"{number:03}.md").write_text(paragraph(number) if text is None else text)

    def ingest(self) -> None:
        ingest_source(self.conn, SOURCE, FolderConnector(self.folder))
        for edition in index_store.editions(self.conn):
            if edition.settings.embedding is None:
                embed_pending(self.conn, WordHashEmbedder(), edition.id)

    def keep_up(self, settings: IndexSettings, actor: SwitchActor = ACTOR, *, by_hand: bool = False) -> list[Step]:
        return keep_up(self.conn, DeclaredIndex(settings, by_hand), self.tools(), actor)

    def keep_up_until_serving(self, settings: IndexSettings, actor: SwitchActor = ACTOR) -> int:
        """Keep the index up to date until an edition with these settings serves; returns its number."""
        deadline = time.monotonic() + 30
        while (serving := serving_edition(index_store.editions(self.conn))).settings != settings:
            assert time.monotonic() < deadline, self.states()
            self.keep_up(settings, actor)
            time.sleep(0.02)
        return serving.id

    def tools(self) -> Tools:
        return Tools(self.embedder, self.examine, lambda _: None)

    def embedder(self, edition: Edition) -> Embedder:
        embedding = edition.settings.embedding
        return WordHashEmbedder() if embedding is None else self.create_embedder(embedding)

    def examine(self, edition: int, samples: Sequence[tuple[str, str]]) -> Examined:
        answer = self.examiner.examine(ExamineRequest(edition, list(samples)))
        return Examined(answer.recall, answer.found, answer.rank, answer.questions)

    def states(self) -> dict[int, str]:
        return {one.id: one.state for one in index_store.editions(self.conn)}

    def query(self, text: str, *, k: int = 20, edition: int | None = None) -> SearchResult:
        return self.search.answer(
            SearchRequest(
                workload="", person=None, query=text, sources=["s"], k=k, max_bytes=1 << 20, context=0, edition=edition
            )
        )

    def passages_of_document(self, number: int, *, edition: int | None = None) -> set[str]:
        """The passages of a document that a search for its own word finds."""
        passages = self.query(f"zebra{number}", edition=edition).passages
        return {one.text for one in passages if one.path == f"{number:03}.md"}

    def wait_until_followed(self) -> None:
        """Wait until the follower has replicated every change."""
        deadline = time.monotonic() + 20
        while any(search_store.count_pending(self.conn, one.cursor, one.edition) for one in self.editions.projections):
            assert time.monotonic() < deadline, "the follower does not catch up"
            time.sleep(0.02)

    def audited_actions(self) -> list[str]:
        rows = self.conn.execute("SELECT action FROM audit_entry WHERE action LIKE 'index.%'")
        return [action for (action,) in rows]

    def close(self) -> None:
        self.follower.stop()
        self.pool.close()
        self.conn.close()


def main(url: str, characters: int, delay: float) -> None:
    """Keep up the index until its edition with passages of `characters` serves."""
    declared_index = DeclaredIndex(IndexSettings(characters=characters))
    tools = Tools(
        lambda _: WordHashEmbedder(delay=delay), lambda _, samples: Examined(1, 1, 1, len(samples)), lambda _: None
    )
    with psycopg.connect(url, autocommit=True) as conn:
        while not index_store.take_lead(conn):
            time.sleep(0.01)
        while serving_edition(index_store.editions(conn)).settings != declared_index.settings:
            keep_up(conn, declared_index, tools, SwitchActor("system", datetime.now(UTC), timedelta(days=1)))
            time.sleep(0.01)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
