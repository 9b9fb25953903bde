"""Permissions as they change, against a slow and obvious reference: the next question sees exactly what is allowed now.

People, groups in groups, refusals over permissions, grants on the source, what is public, links that were opened; with
the projection up to date or behind, whoever asks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from psycopg_pool import ConnectionPool

from groundplan.core.ids import new_id
from groundplan.knowledge import store
from groundplan.knowledge.model import Chunk, Readers, Vectors, by_grant
from groundplan.knowledge.retrieval import search_store
from groundplan.knowledge.retrieval.projection import Projection
from groundplan.knowledge.retrieval.replication import apply_next_changes
from groundplan.knowledge.retrieval.search import Search
from groundplan.knowledge.retrieval.wire import SearchRequest
from groundplan.knowledge.retrieval.words import Analyzer
from groundplan.release.store import set_source_grants
from groundplan.testing import document_rows
from groundplan.testing.database import Database
from groundplan.testing.document_rows import Document

PEOPLE = ("ann", "bob", "cay")
GROUPS = ("g0", "g1", "g2")
DOCUMENTS = ("d0", "d1", "d2", "d3")
LINKS = ("l0", "l1")
TEXT = "The rule about leave."
_NAMES = ("everyone", "public", *GROUPS, *(f"{one}@acme.example" for one in PEOPLE))
_allowed = st.frozensets(st.sampled_from((*_NAMES, *(f"link/{one}" for one in LINKS), by_grant("s"))), max_size=3)
_denied = st.frozensets(st.sampled_from(_NAMES), max_size=1)
_person, _group = st.sampled_from(PEOPLE), st.sampled_from(GROUPS)


def today() -> date:
    return datetime.now(UTC).date()


class Alike:
    """An embedder to which all texts mean the same."""

    def embed(self, texts: Sequence[str]) -> Vectors:
        rows = np.zeros((len(texts), 384), dtype=np.float32)
        rows[:, 0] = 1
        return rows


class Model:
    """The reference."""

    def __init__(self) -> None:
        self.active = set(PEOPLE)
        self.members: set[tuple[str, str]] = set()
        self.readers: dict[str, Readers] = {}
        self.grants: dict[str, date] = {}
        """Who has one, until its last day."""
        self.links: set[tuple[str, str]] = set()
        self.withdrawn: set[str] = set()

    def names(self, person: str | None) -> set[str]:
        if person is None:
            return {"public"}
        if person not in self.active:
            return set()
        mine = {person}
        for _ in GROUPS:
            mine |= {group for group, member in self.members if member in mine}
        names = (mine - {person}) | {"everyone", "public", f"{person}@acme.example"}
        if any(last >= today() for name, last in self.grants.items() if name in names):
            names.add(by_grant("s"))
        return names | {
            f"link/{link}" for link, holder in self.links if holder == person and link not in self.withdrawn
        }

    def visible(self, person: str | None) -> set[str]:
        names = self.names(person)
        return {one for one, readers in self.readers.items() if readers.allow & names and not readers.deny & names}


class Machine(RuleBasedStateMachine):
    """Changes one thing at a time in both."""

    database: Database
    pool: ConnectionPool[Any]

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.conn = psycopg.connect(self.database.urls["control"], autocommit=True)
        tables = "chunk, document_reader, document, membership, link_holder, shared_link, source_grant, source"
        with psycopg.connect(self.database.superuser, autocommit=True) as admin:
            admin.execute(f"TRUNCATE {tables}, people_group, person, acl, acl_name RESTART IDENTITY CASCADE")
        self.people = {name: new_id() for name in PEOPLE}
        self.groups = {name: new_id() for name in GROUPS}
        self.documents: dict[str, UUID] = {}
        for name, id in self.people.items():
            row = (id, f"{name}@acme.example", name)
            self.conn.execute("INSERT INTO person (id, email, name) VALUES (%s, %s, %s)", row)
        for name, id in self.groups.items():
            self.conn.execute("INSERT INTO people_group (id, name, type) VALUES (%s, %s, 'group')", (id, name))
        for name in LINKS:
            digest = hashlib.sha256(name.encode()).digest()
            self.conn.execute("INSERT INTO shared_link (name, digest) VALUES (%s, %s)", (name, digest))
        store.put_source(self.conn, "s", path="s", sensitivity="internal", owner="dana@acme.example")
        self.index, self.analyzer = Projection(), Analyzer()
        self.search = Search(self.pool, Alike(), self.index)

    def teardown(self) -> None:
        self.conn.close()

    @initialize(readers=st.lists(st.tuples(_allowed, _denied), min_size=2, max_size=4))
    def start(self, readers: list[tuple[frozenset[str], frozenset[str]]]) -> None:
        for name, (allow, deny) in zip(DOCUMENTS, readers, strict=False):
            self.put(name, allow, deny)

    @rule(name=st.sampled_from(DOCUMENTS), allow=_allowed, deny=_denied)
    def put(self, name: str, allow: frozenset[str], deny: frozenset[str]) -> None:
        readers = Readers(allow, deny)
        text = f"{TEXT} {name}"
        document = Document(name, "Leave", text, name, readers, markdown=False)
        with self.conn.transaction():
            parts, vectors = [Chunk(0, text, 0, len(text), 1, 1)], Alike().embed([text])
            self.documents[name] = document_rows.put_document(self.conn, "s", document, parts, vectors)
        self.model.readers[name] = readers

    @rule(name=st.sampled_from(DOCUMENTS), allow=_allowed, deny=_denied)
    def change_readers(self, name: str, allow: frozenset[str], deny: frozenset[str]) -> None:
        if name in self.documents:
            with self.conn.transaction():
                document_rows.set_readers(self.conn, self.documents[name], Readers(allow, deny))
            self.model.readers[name] = Readers(allow, deny)

    @rule(name=st.sampled_from(DOCUMENTS))
    def delete(self, name: str) -> None:
        if name in self.documents:
            with self.conn.transaction():
                document_rows.delete_document(self.conn, self.documents.pop(name))
            del self.model.readers[name]

    @rule(group=_group, member=st.sampled_from((*PEOPLE, *GROUPS)))
    def join_or_leave(self, group: str, member: str) -> None:
        """Groups may be in each other, even in circles."""
        person, inner = self.people.get(member), self.groups.get(member)
        if (group, member) in self.model.members:
            self.conn.execute(
                """DELETE FROM membership WHERE group_id = %s
                     AND person_id IS NOT DISTINCT FROM %s AND member_group_id IS NOT DISTINCT FROM %s""",
                (self.groups[group], person, inner),
            )
        else:
            self.conn.execute(
                "INSERT INTO membership (id, group_id, person_id, member_group_id) VALUES (%s, %s, %s, %s)",
                (new_id(), self.groups[group], person, inner),
            )
        self.model.members ^= {(group, member)}

    @rule(person=_person)
    def leave_or_come_back(self, person: str) -> None:
        self.model.active ^= {person}
        row = (person in self.model.active, self.people[person])
        self.conn.execute("UPDATE person SET active = %s WHERE id = %s", row)

    @rule(grants=st.dictionaries(st.sampled_from(_NAMES), st.sampled_from((-1, 0, 5)), max_size=2))
    def grant(self, grants: dict[str, int]) -> None:
        grants.pop("public", None)
        self.model.grants = {name: today() + timedelta(days=days) for name, days in grants.items()}
        set_source_grants(self.conn, [("s", name, last.isoformat()) for name, last in self.model.grants.items()])

    @rule(link=st.sampled_from(LINKS), person=_person)
    def open_link(self, link: str, person: str) -> None:
        self.conn.execute(
            "INSERT INTO link_holder (link, person_id) VALUES (%s, %s) ON CONFLICT DO NOTHING",
            (link, self.people[person]),
        )
        self.model.links.add((link, person))

    @rule(link=st.sampled_from(LINKS))
    def withdraw_link(self, link: str) -> None:
        self.conn.execute("UPDATE shared_link SET withdrawn_at = now() WHERE name = %s", (link,))
        self.model.withdrawn.add(link)

    @rule()
    def follow(self) -> None:
        while apply_next_changes(self.conn, self.index, self.analyzer):
            pass

    @invariant()
    def the_next_question_sees_what_is_allowed(self) -> None:
        for name in (*PEOPLE, None):
            person = None if name is None else str(self.people[name])
            asked = SearchRequest(workload="w", person=person, query="rule about leave", sources=["s"], k=20)
            day = today()
            found = {one.path for one in self.search.passages(asked)}
            assert found == self.model.visible(name) or day != today(), name

    @invariant()
    def words_are_weighed_by_what_may_be_read_now_and_said_so_before(self) -> None:
        """However far behind the projection is."""
        view = self.index.view
        held = {view.chunk_id(row): int(view.columns.lengths[row]) for row in range(view.size)}
        for name in (*PEOPLE, None):
            with self.pool.connection() as conn, conn.transaction():
                standing = search_store.assume_reader(
                    conn, None if name is None else self.people[name], "w", None, view.cursor
                )
                readable = {id for (id,) in conn.execute("SELECT id FROM chunk WHERE text <> ''")}
            assert standing.changed is not None
            seen = view.visible_rows({"s"}, standing.acls, standing.changed)
            rows = range(view.size) if seen.mask is None else np.flatnonzero(seen.mask).tolist()
            assert {view.chunk_id(row) for row in rows} == readable & held.keys(), name
            assert (seen.count, seen.tokens) == (len(rows), sum(held[view.chunk_id(row)] for row in rows))


@pytest.fixture
def pool(database: Database) -> Iterator[ConnectionPool[Any]]:
    with ConnectionPool(
        database.urls["search"], kwargs={"autocommit": True}, min_size=1, max_size=1, open=True
    ) as made:
        yield made


def test_the_next_question_sees_exactly_what_is_allowed_now(database: Database, pool: ConnectionPool[Any]) -> None:
    class Here(Machine):
        pass

    Here.database, Here.pool = database, pool
    run_state_machine_as_test(
        Here,
        settings=settings(
            max_examples=12, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


def test_the_search_role_cannot_get_past_row_security(database: Database) -> None:
    with psycopg.connect(database.urls["search"], autocommit=True) as conn:
        flags = "rolsuper, rolbypassrls, rolcreaterole, rolcreatedb, rolreplication"
        assert conn.execute(f"SELECT {flags} FROM pg_roles WHERE rolname = current_user").fetchone() == (False,) * 5
        owned = conn.execute("SELECT count(*) FROM pg_class WHERE pg_get_userbyid(relowner) = current_user").fetchone()
        assert owned == (0,)
        forced = conn.execute(
            "SELECT relname, relrowsecurity, relforcerowsecurity FROM pg_class WHERE relname IN ('chunk', 'document')"
        ).fetchall()
        assert sorted(forced) == [("chunk", True, True), ("document", True, True)]
        member = conn.execute(
            """SELECT count(*) FROM pg_roles r WHERE r.rolname <> current_user AND (r.rolsuper OR r.rolbypassrls)
                 AND pg_has_role(current_user, r.oid, 'MEMBER')"""
        ).fetchone()
        assert member == (0,)
        for statement in (
            "SET row_security = off; SELECT * FROM chunk",
            "ALTER TABLE chunk DISABLE ROW LEVEL SECURITY",
            "DROP POLICY chunk_reader ON chunk",
            "UPDATE document SET acl = 1",
            "INSERT INTO acl_name VALUES ('public', false, 1)",
            "SELECT digest FROM shared_link",
            "SET ROLE groundplan_owner",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute(statement)


def test_what_changed_is_told_to_search_alone_and_without_a_word_of_it(database: Database) -> None:
    with psycopg.connect(database.urls["control"], autocommit=True) as conn:
        store.put_source(conn, "s", path="s", sensitivity="internal", owner="dana@acme.example")
        hr = Readers(frozenset({"hr"}))
        with conn.transaction():
            ids = [
                document_rows.put_document(
                    conn, "s", Document(path, TEXT, TEXT, path, hr, markdown=False), [], Alike().embed([])
                )
                for path in ("a", "b")
            ]
    told = "SELECT changed_after(%s, 1, %s)"
    with psycopg.connect(database.urls["search"], autocommit=True) as conn:
        row = conn.execute(told, (0, 10)).fetchone()
        assert row is not None
        assert row[0].keys() == {str(id) for id in ids}, "new ones too, whoever may read them"
        assert min(row[0].values()) > 0
        last = conn.execute("SELECT last_value FROM chunk_change").fetchone()
        assert last is not None
        assert conn.execute(told, (*last, 10)).fetchone() == (None,)
        row = conn.execute(told, (0, 1)).fetchone()
        assert row is not None
        assert len(row[0]) == 1
        assert conn.execute("SELECT count(*) FROM document").fetchone() == (0,)
    for role in ("control", "gateway", "shipper"):
        with psycopg.connect(database.urls[role], autocommit=True) as conn:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute(told, (0, 10))


def test_what_was_worked_out_for_one_person_counts_for_no_other(database: Database) -> None:
    ann, bob = new_id(), new_id()
    with psycopg.connect(database.urls["control"], autocommit=True) as conn:
        for id, name in ((ann, "ann"), (bob, "bob")):
            row = (id, f"{name}@acme.example", name)
            conn.execute("INSERT INTO person (id, email, name) VALUES (%s, %s, %s)", row)
        store.put_source(conn, "s", path="s", sensitivity="internal", owner="dana@acme.example")
        document = Document("d", "t", TEXT, "x", Readers(frozenset({"ann@acme.example"})), markdown=False)
        with conn.transaction():
            document_rows.put_document(conn, "s", document, [Chunk(0, TEXT, 0, 5, 1, 1)], Alike().embed([TEXT]))
    with psycopg.connect(database.urls["search"]) as conn:
        for person, seen in ((ann, 1), (bob, 0), (ann, 1)):
            document_rows.act_for(conn, person)
            assert conn.execute("SELECT count(*) FROM chunk").fetchone() == (seen,)
        conn.execute("SELECT set_config('groundplan.acls', %s, true)", (f"{bob}:{{1,2,3}}",))
        assert conn.execute("SELECT count(*) FROM chunk").fetchone() == (1,), "it is kept for bob, and ann asks"
