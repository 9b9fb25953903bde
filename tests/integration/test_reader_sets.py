"""Sets of readers come and go with the documents that have them, whoever changes what at the same time."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import IsolationLevel

from groundplan.core.ids import new_id
from groundplan.knowledge import store
from groundplan.knowledge.model import Readers
from groundplan.knowledge.retrieval import search_store
from groundplan.testing import document_rows
from groundplan.testing.database import Database
from groundplan.testing.document_rows import Document

NAMES = ("everyone", "ann@acme.example", "bob@acme.example", "g")


class World:
    def __init__(self, database: Database) -> None:
        self.database = database
        self.conn = psycopg.connect(database.urls["control"], autocommit=True)
        self.ann = new_id()
        self.conn.execute("INSERT INTO person (id, email, name) VALUES (%s, 'ann@acme.example', 'A')", (self.ann,))
        store.put_source(self.conn, "s", path="s", sensitivity="internal", owner="dana@acme.example")
        self.documents = [self.put(f"d{number}") for number in range(5)]

    def put(self, path: str) -> UUID:
        made = Document(path, "T", "", path, Readers(frozenset({"everyone"})), markdown=False)
        with self.conn.transaction():
            return document_rows.put_document(self.conn, "s", made, [], None)  # type: ignore[arg-type]

    def sets(self) -> set[tuple[tuple[str, ...], tuple[str, ...]]]:
        rows = self.conn.execute("SELECT allow, deny FROM acl").fetchall()
        named = self.conn.execute("SELECT count(*) FROM acl_name").fetchone()
        assert named == (sum(len(allow) + len(deny) for allow, deny in rows),), "and no name without its set"
        return {(tuple(allow), tuple(deny)) for allow, deny in rows}

    def used(self) -> set[tuple[tuple[str, ...], tuple[str, ...]]]:
        """What the readers of each document are, from the rows that say so."""
        rows = self.conn.execute(
            """SELECT array_agg(r.reader ORDER BY r.reader COLLATE "C") FILTER (WHERE NOT r.deny),
                 array_agg(r.reader ORDER BY r.reader COLLATE "C") FILTER (WHERE r.deny)
               FROM document d LEFT JOIN document_reader r ON r.document_id = d.id GROUP BY d.id"""
        ).fetchall()
        return {(tuple(allow or ()), tuple(deny or ())) for allow, deny in rows}


@pytest.fixture
def world(database: Database) -> Iterator[World]:
    made = World(database)
    with closing(made.conn):
        yield made


def test_a_set_goes_with_its_last_document_and_not_before(world: World) -> None:
    one, two, *others = world.documents
    readers = Readers(frozenset({"bob@acme.example"}), frozenset({"g"}))
    for document in (one, two):
        with world.conn.transaction():
            document_rows.set_readers(world.conn, document, readers)
        assert world.sets() == world.used()
    world.conn.execute("DELETE FROM document WHERE id = %s", (two,))
    assert world.sets() == world.used() == {(("bob@acme.example",), ("g",)), (("everyone",), ())}
    with world.conn.transaction(force_rollback=True):
        world.conn.execute("DELETE FROM document_reader WHERE document_id = %s", (one,))
        assert world.sets() == world.used() == {((), ()), (("everyone",), ())}
    assert world.sets() == world.used()
    world.conn.execute("UPDATE document_reader SET reader = 'everyone' WHERE document_id = %s AND NOT deny", (one,))
    assert world.sets() == world.used()
    world.conn.execute("DELETE FROM source")
    assert (world.sets(), len(others)) == (set(), 3)


def test_many_at_a_time_leave_what_the_last_of_each_said_and_a_search_never_sees_half_of_it(world: World) -> None:
    failed: list[BaseException] = []
    writing = threading.Event()
    writing.set()
    with closing(psycopg.connect(world.database.superuser, autocommit=True)) as admin:  # so that one view has both
        admin.execute("GRANT SELECT ON document_reader TO groundplan_search")

    def write(seed: int) -> None:
        chance = random.Random(seed)
        try:
            with closing(psycopg.connect(world.database.urls["control"], autocommit=True)) as conn:
                for _ in range(60):
                    allow = frozenset(chance.sample(NAMES, chance.randint(0, 2)))
                    deny = frozenset(chance.sample(NAMES[1:], chance.randint(0, 1)))
                    with conn.transaction():
                        for document in chance.sample(world.documents, chance.randint(1, 2)):
                            document_rows.set_readers(conn, document, Readers(allow, deny))
        except psycopg.Error as error:
            failed.append(error)

    def look() -> int:
        looked = 0
        with closing(psycopg.connect(world.database.urls["search"], autocommit=True)) as conn:
            conn.isolation_level = IsolationLevel.REPEATABLE_READ
            while writing.is_set() or looked < 20:
                with conn.transaction():
                    search_store.assume_reader(conn, world.ann, "w")
                    assert _readable(conn) == _allowed(conn), "what is worked out is what the rows say, at each moment"
                looked += 1
        return looked

    threads = [threading.Thread(target=write, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()

    def wait() -> None:
        for each in threads:
            each.join()
        writing.clear()

    waiting = threading.Thread(target=wait)
    waiting.start()
    try:
        look()
    finally:
        waiting.join()
    assert failed == []
    assert world.sets() == world.used()


def _readable(conn: Any) -> set[UUID]:
    return {id for (id,) in conn.execute("SELECT id FROM document").fetchall()}


def _allowed(conn: Any) -> set[UUID]:
    """The documents that name ann, by their rows alone: slow and obvious."""
    allow: set[UUID] = set()
    deny: set[UUID] = set()
    for document, reader, refused in conn.execute("SELECT document_id, reader, deny FROM document_reader").fetchall():
        if reader in ("everyone", "ann@acme.example"):
            (deny if refused else allow).add(document)
    return allow - deny
