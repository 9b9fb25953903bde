"""Facts in conflict and newer versions, as a search tells them: to whoever may read both documents, to nobody else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import date
from typing import Any
from uuid import UUID

import numpy as np
import psycopg
import pytest
from psycopg_pool import ConnectionPool

from groundplan.core.ids import new_id
from groundplan.knowledge import store
from groundplan.knowledge.deletion import deletion_store
from groundplan.knowledge.model import DIMENSION, Chunk, Readers, Vectors
from groundplan.knowledge.quality.assess import assess
from groundplan.knowledge.retrieval.projection import Projection
from groundplan.knowledge.retrieval.replication import apply_next_changes
from groundplan.knowledge.retrieval.search import Search, SearchResult
from groundplan.knowledge.retrieval.wire import SearchRequest, Where
from groundplan.knowledge.retrieval.words import Analyzer
from groundplan.testing import document_rows
from groundplan.testing.database import Database
from groundplan.testing.document_rows import Document

DAY = date(2026, 11, 25)


class Alike:
    """Everything means the same: words alone decide."""

    def embed(self, texts: Any) -> Vectors:
        row = np.zeros(DIMENSION, dtype=np.float32)
        row[0] = 1
        return np.tile(row, (len(texts), 1))


class Company:
    """Two versions of the rules for leave, and people who may read one, both or none."""

    def __init__(self, database: Database) -> None:
        self.conn = psycopg.connect(database.urls["control"], autocommit=True)
        self.people = {name: new_id() for name in ("both", "one", "none")}
        for name, id in self.people.items():
            self.conn.execute("INSERT INTO person (id, email, name) VALUES (%s, %s, 'p')", (id, f"{name}@acme.example"))
        store.put_source(self.conn, "s", path="s", sensitivity="internal", owner="dana@acme.example")
        self.ids = {
            "new": self.put(
                "leave-2026.md", "Leave 2026", "Staff have 30 days of paid leave in a year.", "both", "one"
            ),
            "old": self.put("leave-2024.md", "Leave 2024", "Staff have 25 days of paid leave in a year.", "both"),
        }
        self.index, self.analyzer = Projection(), Analyzer()
        self.pool: ConnectionPool[Any] = ConnectionPool(
            database.urls["search"], kwargs={"autocommit": True}, min_size=1, max_size=1, open=True
        )
        self.search = Search(self.pool, Alike(), self.index)

    def put(self, path: str, title: str, text: str, *readers: str) -> UUID:
        names = frozenset(f"{name}@acme.example" for name in readers)
        made = Document(path, title, text, text, Readers(names), markdown=False)
        with self.conn.transaction():
            chunk = Chunk(0, text, 0, len(text), 1, 1)
            id = document_rows.put_document(self.conn, "s", made, [chunk], Alike().embed([text]))
            self.conn.execute("UPDATE document SET content = %s WHERE id = %s", (text, id))
        return id

    def ask(self, who: str, workload: str = "w", sources: Sequence[str] = ("s",), **more: Any) -> SearchResult:
        while apply_next_changes(self.conn, self.index, self.analyzer):
            pass
        asked = SearchRequest(
            workload=workload, person=str(self.people[who]), query="How many days of paid leave?",
            sources=list(sources), k=4, **more,
        )  # fmt: skip
        return self.search.answer(asked)

    def supersede(self) -> None:
        self.conn.execute("UPDATE document SET superseded_by = %s WHERE id = %s", (self.ids["new"], self.ids["old"]))


@pytest.fixture
def company(database: Database) -> Iterator[Company]:
    with ExitStack() as stack:
        made = Company(database)
        stack.callback(made.conn.close)
        stack.callback(made.pool.close)
        yield made


def test_both_sources_of_a_conflict_are_named_to_readers_of_both(company: Company) -> None:
    assert company.ask("both").conflicts == [], "nobody looked yet"
    assess(company.conn, "s", DAY)
    (told,) = company.ask("both").conflicts
    assert {told.path, told.other_path} == {"leave-2026.md", "leave-2024.md"}
    assert {told.says, told.other_says} == {
        "Staff have 30 days of paid leave in a year.", "Staff have 25 days of paid leave in a year."
    }  # fmt: skip
    assert [one.path for one in company.ask("one").passages] == ["leave-2026.md"]
    assert company.ask("one").conflicts == [], "the other document is not theirs to know of"
    company.conn.execute(
        """INSERT INTO document_conflict SELECT other, other_version, other_says, one, one_version, one_says, 1
           FROM document_conflict"""
    )
    assert len(company.ask("both").conflicts) == 1, "found from either side, it is told once"
    company.conn.execute("DELETE FROM document_conflict WHERE one = %s", (company.ids["new"],))
    assert company.ask("none") == SearchResult([])
    with psycopg.connect(company.conn.info.dsn, password=company.conn.info.password) as control:
        assert control.execute("SELECT count(*) FROM document_conflict").fetchone() == (1,)


def test_a_conflict_applies_only_to_the_versions_in_which_it_was_found(company: Company) -> None:
    assess(company.conn, "s", DAY)
    company.put("leave-2024.md", "Leave 2024", "Staff have 30 days of paid leave in a year.", "both")
    assert company.ask("both").conflicts == []
    assess(company.conn, "s", DAY)
    assert company.conn.execute("SELECT * FROM document_conflict").fetchall() == [], "and is gone with the next look"


def test_a_newer_version_is_named_where_the_older_one_would_have_been_returned(company: Company) -> None:
    assert company.ask("both").newer == []
    company.supersede()
    found = company.ask("both")
    assert [one.path for one in found.passages] == ["leave-2026.md"]
    (told,) = found.newer
    assert (told.path, told.newer_path) == ("leave-2024.md", "leave-2026.md")
    assert len(company.ask("both", where=Where(path="leave-2024")).newer) == 1
    assert company.ask("both", where=Where(path="leave-2026")).newer == [], "only of what was asked about"
    assert company.ask("one").newer == [], "who may not read the older one does not know of it"
    assert company.ask("none").newer == []
    company.conn.execute(
        "DELETE FROM document_reader WHERE document_id = %s AND reader = 'both@acme.example'", (company.ids["new"],)
    )
    left = company.ask("both")
    assert left.passages == [] and left.newer == [], "nor who may not read the newer one of that"


@pytest.mark.parametrize("elsewhere", ["old", "new"])
def test_sources_outside_the_workload_are_not_mentioned(company: Company, elsewhere: str) -> None:
    """Whoever asks may read both documents; what asks is declared for one of their sources only."""
    assess(company.conn, "s", DAY)
    store.put_source(company.conn, "t", path="t", sensitivity="internal", owner="dana@acme.example")
    company.conn.execute("UPDATE document SET source = 't' WHERE id = %s", (company.ids[elsewhere],))
    assert len(company.ask("both", sources=("s", "t")).conflicts) == 1
    found = company.ask("both")
    assert len(found.passages) == 1 and found.conflicts == []
    company.supersede()
    assert len(company.ask("both", sources=("s", "t")).newer) == 1
    assert company.ask("both").newer == []


def test_a_withheld_newer_version_is_named_with_the_reason(company: Company) -> None:
    company.supersede()
    for state, days, reason in (("approved", -1, "expired"), ("retired", 1, "retired"), ("approved", 1, "")):
        company.conn.execute(
            "UPDATE document SET state = %s, valid_until = (now() AT TIME ZONE 'UTC')::date + %s WHERE id = %s",
            (state, days, company.ids["new"]),
        )
        found = company.ask("both")
        assert [one.path for one in found.passages] == (["leave-2026.md"] if not reason else [])
        assert [(one.newer_path, one.reason) for one in found.newer] == [("leave-2026.md", reason)]
        assert company.ask("one").newer == []
    company.conn.execute(
        "UPDATE document SET valid_until = '2020-01-01', workloads = '{other}' WHERE path = 'leave-2026.md'"
    )
    assert company.ask("both").newer == [], "of what is not for this workload at all nothing is told"


def test_identity_and_permissions_are_read_in_one_snapshot(company: Company) -> None:
    """Refused before by its readers, after by a group: a mixture of both moments would have let them in."""
    group, one = new_id(), company.people["one"]
    company.conn.execute("INSERT INTO people_group (id, name, type) VALUES (%s, 'g', 'group')", (group,))
    open_but = Readers(frozenset({"everyone"}), frozenset({"g"}))
    company.put("other.md", "Other", "Nothing of leave.", "none")
    with company.conn.transaction():
        id = company.conn.execute("SELECT id FROM document WHERE path = 'other.md'").fetchone()
        assert id is not None
        document_rows.set_readers(company.conn, id[0], open_but)
    with company.search._reader_transaction(one, "w") as (conn, standing):
        company.conn.execute(
            "INSERT INTO membership (id, group_id, person_id) VALUES (%s, %s, %s)", (new_id(), group, one)
        )
        with company.conn.transaction():
            document_rows.set_readers(company.conn, company.ids["old"], open_but)
        assert standing.acls
        read = {path for (path,) in conn.execute("SELECT path FROM document").fetchall()}
    assert "leave-2024.md" not in read, "at no moment might they read it"
    assert "other.md" in read, "that moment is the beginning"


def test_conflicts_of_a_deleted_document_are_deleted(company: Company) -> None:
    assess(company.conn, "s", DAY)
    company.conn.execute("UPDATE document SET deleted_at = now() WHERE id = %s", (company.ids["old"],))
    assert company.conn.execute("SELECT * FROM document_conflict").fetchall() == []
    assert "document_conflict" in deletion_store.TABLES, "and off the disk with the others"


def test_a_hidden_contradiction_changes_nothing(company: Company) -> None:
    """A hidden document that contradicts changes nothing of what is told."""
    before = company.ask("one")
    assess(company.conn, "s", DAY)
    company.supersede()
    assert company.ask("one") == before
