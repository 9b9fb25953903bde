"""A company's documents in a database, search over every edition of them, and a process that makes editions.

`python -m tests.index_world URL CHARACTERS` makes the edition with so many characters until it serves, slowly.
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
WHO = SwitchActor("system", NOW)
SOURCE = Source(name="s", path="s", sensitivity="internal", owner="ana@acme.example", readers=["public"])
SHORT, LONG = 120, 400


class ByWords:
    """An embedder of any dimension to which texts are alike by the words that they share."""

    def __init__(self, dimension: int = 384, pause: float = 0.0) -> None:
        self.dimension, self.pause = dimension, pause

    def embed(self, texts: Sequence[str]) -> Vectors:
        time.sleep(self.pause)
        rows = np.full((len(texts), self.dimension), 1e-3, dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in re.findall(r"\w+", text.lower()):
                row[int.from_bytes(hashlib.sha256(word.encode()).digest()[:4]) % self.dimension] += 1
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def paragraph(number: int) -> str:
    """A document of one passage of `LONG` and several of `SHORT` characters; each sentence has its own word."""
    sentences = [f"Rule {number} says in part {part} what zebra{number} has to do there." for part in range(5)]
    return f"# Rule {number}\n\n{' '.join(sentences)}\n"


class IndexWorld:
    """Follows and searches in this process; who makes editions may be another."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database, self.folder = database, folder
        folder.mkdir()
        self.conn = psycopg.connect(database.urls["control"], autocommit=True)
        self.pool: ConnectionPool[Any] = ConnectionPool(
            database.urls["search"], kwargs={"autocommit": True}, min_size=1, max_size=2, open=True
        )
        self.editions = Editions(Projection())
        self.follower = Follower(lambda: database.urls["control"], self.editions)
        self.deployed: Callable[[Embedding], Embedder] = lambda one: ByWords(one.dimension)
        self.search = Search(self.pool, ByWords(), self.editions, deployed=lambda embedding: self.deployed(embedding))
        self.examiner = Examiner(self.search.queries, lambda: database.urls["control"])
        self.follower.start()

    def write(self, number: int, text: str | None = None) -> None:
        (self.folder / f"{number:03}.md").write_text(paragraph(number) if text is None else text)

    def ingest(self) -> None:
        ingest_source(self.conn, SOURCE, FolderConnector(self.folder))
        for edition in index_store.editions(self.conn):
            if edition.settings.embedding is None:
                embed_pending(self.conn, ByWords(), edition.id)

    def keep_up(self, settings: IndexSettings, who: SwitchActor = WHO, *, by_hand: bool = False) -> list[Step]:
        return keep_up(self.conn, DeclaredIndex(settings, by_hand), self.tools(), who)

    def until_serving(self, settings: IndexSettings, who: SwitchActor = WHO) -> int:
        """Keep up until an edition with these settings serves; its number."""
        deadline = time.monotonic() + 30
        while (now := serving_edition(index_store.editions(self.conn))).settings != settings:
            assert time.monotonic() < deadline, self.states()
            self.keep_up(settings, who)
            time.sleep(0.02)
        return now.id

    def tools(self) -> Tools:
        return Tools(self.embedder, self.examine, lambda _: None)

    def embedder(self, edition: Edition) -> Embedder:
        own = edition.settings.embedding
        return ByWords() if own is None else self.deployed(own)

    def examine(self, edition: int, samples: Sequence[tuple[str, str]]) -> Examined:
        answer = self.examiner.examine(ExamineRequest(edition, list(samples)))
        return Examined(answer.recall, answer.found, answer.rank, answer.questions)

    def states(self) -> dict[int, str]:
        return {one.id: one.state for one in index_store.editions(self.conn)}

    def ask(self, query: str, *, k: int = 20, edition: int | None = None) -> SearchResult:
        return self.search.answer(
            SearchRequest(
                workload="", person=None, query=query, sources=["s"], k=k, max_bytes=1 << 20, context=0, edition=edition
            )
        )

    def pieces(self, number: int, *, edition: int | None = None) -> set[str]:
        """The passages that are found of a document by its own word."""
        found = self.ask(f"zebra{number}", edition=edition).passages
        return {one.text for one in found if one.path == f"{number:03}.md"}

    def settle(self) -> None:
        """Until the follower has everything that is there."""
        deadline = time.monotonic() + 20
        while any(search_store.count_pending(self.conn, one.cursor, one.edition) for one in self.editions.projections):
            assert time.monotonic() < deadline, "the follower does not catch up"
            time.sleep(0.02)

    def audited(self) -> list[str]:
        rows = self.conn.execute("SELECT action FROM audit_entry WHERE action LIKE 'index.%'")
        return [action for (action,) in rows]

    def close(self) -> None:
        self.follower.stop()
        self.pool.close()
        self.conn.close()


def main(url: str, characters: int, pause: float) -> None:
    """Keep the index up to `characters` until it serves."""
    wanted = DeclaredIndex(IndexSettings(characters=characters))
    tools = Tools(lambda _: ByWords(pause=pause), lambda _, samples: Examined(1, 1, 1, len(samples)), lambda _: None)
    with psycopg.connect(url, autocommit=True) as conn:
        while not index_store.take_lead(conn):
            time.sleep(0.01)
        while serving_edition(index_store.editions(conn)).settings != wanted.settings:
            keep_up(conn, wanted, tools, SwitchActor("system", datetime.now(UTC), timedelta(days=1)))
            time.sleep(0.01)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
