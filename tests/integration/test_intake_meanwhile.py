"""What people do while a source is read holds at once: the run knows documents as they were when it began."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import psycopg
import pytest
from tests.integration.interleaved import Halt, run_concurrently, wait_until_blocked
from tests.knowledge_intake import Intake, ScriptedConnector, source

from groundplan.blueprint.model import Connector, Source
from groundplan.core.audit import SYSTEM
from groundplan.core.errors import Conflict
from groundplan.core.ids import new_id
from groundplan.identity import service as identity
from groundplan.knowledge.deletion import tombstones
from groundplan.knowledge.deletion.delete import DeletionReason, delete, readmit, replay_tombstones
from groundplan.knowledge.governance import governed_store
from groundplan.knowledge.governance.decide import DecisionContext, decide
from groundplan.knowledge.governance.declared_store import put_declared_sources
from groundplan.knowledge.ingest import ingest_source
from groundplan.knowledge.intake import batch, intake_store
from groundplan.knowledge.intake.concurrent_changes import Redeclared
from groundplan.knowledge.quality import assess as assessing
from groundplan.knowledge.quality import quality_store
from groundplan.knowledge.quality.text import glossary
from groundplan.knowledge.sources.model import Change, Content, Cursor, FolderRules
from groundplan.testing import document_rows
from groundplan.testing.database import Database

NOW = datetime.now(UTC)


class Meanwhile(ScriptedConnector):
    """Something happens when a document is read, or its folders are looked at."""

    def __init__(
        self, texts: dict[str, bytes], *, read: Mapping[str, Callable[[], object]] | None = None,
        folder_rules: Mapping[str, Callable[[], object]] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(texts)
        self._read, self._folder_rules = read or {}, folder_rules or {}

    def read(self, key: str) -> Content:
        found = super().read(key)
        self._read.get(key, lambda: None)()
        return found

    def folder_rules(self, key: str) -> Sequence[FolderRules]:
        found = super().folder_rules(key)
        self._folder_rules.get(key, lambda: None)()
        return found


class World(Intake):
    def __init__(self, database: Database, home: Path) -> None:
        super().__init__(database)
        self.home = home
        self.other = psycopg.connect(database.urls["control"], autocommit=True)
        self.person = new_id()
        self.conn.execute("INSERT INTO person (id, email, name) VALUES (%s, 'ana@acme.example', 'Ana')", (self.person,))

    def close(self) -> None:
        self.other.close()
        super().close()

    def id(self, path: str) -> UUID:
        return UUID(str(self.document_columns(path, "id")))

    def decide(self, path: str, name: str, value: Any) -> None:
        with self.other.transaction():
            decide(self.other, self.id(path), name, value, DecisionContext(SYSTEM, "ana@acme.example", "seen", NOW))

    def delete(self, path: str) -> None:
        delete(self.other, [self.id(path)], self.why())

    def why(self) -> DeletionReason:
        return DeletionReason(SYSTEM, "asked for", NOW, self.home)

    def seen(self, workload: str = "") -> set[str]:
        """What a search reads."""
        with psycopg.connect(self.database.urls["search"]) as conn:
            document_rows.act_for(conn, self.person, workload)
            rows = conn.execute("SELECT d.path FROM chunk c JOIN document d ON d.id = c.document_id WHERE c.text <> ''")
            return {path for (path,) in rows}


@pytest.fixture
def world(database: Database, tmp_path: Path) -> Iterator[World]:
    world = World(database, tmp_path)
    yield world
    world.close()


def texts(round: int, *names: str) -> dict[str, bytes]:
    return {name: f"# {name}\n\nRound {round}.\n".encode() for name in names}


def test_what_was_rejected_meanwhile_stays_rejected(world: World) -> None:
    world.ingest(ScriptedConnector(texts(1, "a.md", "b.md")))
    world.ingest(Meanwhile(texts(2, "a.md", "b.md"), read={"a.md": lambda: world.decide("a.md", "state", "rejected")}))
    assert (world.seen(), world.document_columns("a.md", "state, version")) == ({"b.md"}, ("rejected", 2))
    assert world.document_text("a.md").endswith("Round 2."), "the new text is kept, and not given"
    world.ingest(ScriptedConnector(texts(2, "a.md", "b.md")))
    assert world.seen() == {"b.md"}


def test_what_was_decided_meanwhile_holds_of_a_document_that_did_not_change(world: World) -> None:
    world.ingest(ScriptedConnector(texts(1, "a.md", "b.md")))
    closes = Meanwhile(
        texts(1, "a.md", "b.md"), folder_rules={"b.md": lambda: world.decide("b.md", "sensitivity", "restricted")}
    )
    world.ingest(closes, licence="CC0-1.0")
    assert world.document_columns("b.md", "licence, sensitivity") == ("CC0-1.0", "restricted")
    assert world.document_columns("a.md", "licence, sensitivity") == ("CC0-1.0", "internal")


def test_what_was_deleted_meanwhile_does_not_come_back(world: World) -> None:
    world.ingest(ScriptedConnector(texts(1, "a.md", "b.md", "c.md")))
    report = world.ingest(
        Meanwhile(texts(2, "a.md", "b.md", "c.md"), read={"b.md": lambda: world.delete("b.md")}), licence="CC0-1.0"
    )
    assert (world.seen(), world.live_paths()) == ({"a.md", "c.md"}, {"a.md", "c.md"})
    assert world.document_text("b.md") == "", "nothing of either text"
    assert (report.added, report.changed) == (0, 2)
    assert ("knowledge.deleted_at_source", "b.md") in world.findings()
    readmit(world.other, "s", "b.md", world.why())
    assert world.ingest(ScriptedConnector(texts(2, "a.md", "b.md", "c.md"))).added == 1
    assert world.seen() == {"a.md", "b.md", "c.md"}


def test_the_list_of_deletions_is_replayed_as_somebody_deletes_the_same(database: Database, world: World) -> None:
    """After a restore: neither waits for the other."""
    world.ingest(ScriptedConnector(texts(1, "a.md")))
    world.delete("a.md")
    with psycopg.connect(database.superuser) as conn:
        conn.execute("DELETE FROM tombstone")
    world.ingest(ScriptedConnector(texts(1, "a.md")))
    assert world.live_paths() == {"a.md"}
    halt = Halt(world.conn, "pg_advisory_xact_lock")
    with run_concurrently(lambda: replay_tombstones(world.conn, world.home, NOW)) as replaying:
        halt.wait_until_reached()
        with run_concurrently(lambda: world.delete("a.md")) as deleting:
            wait_until_blocked(database, world.other, unless=deleting.done)
            halt.resume()
            deleting.result()
            replaying.result()
    assert world.live_paths() == set()


def test_what_was_deleted_meanwhile_gets_no_readers_by_what_its_folder_says(world: World) -> None:
    world.ingest(ScriptedConnector(texts(1, "a.md")))
    world.ingest(Meanwhile(texts(1, "a.md"), folder_rules={"a.md": lambda: world.delete("a.md")}), licence="CC0-1.0")
    assert (world.live_paths(), world.readers("a.md"), world.document_columns("a.md", "licence")) == (
        set(),
        set(),
        None,
    )


def test_a_superseded_version_is_not_given_while_its_source_is_read(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "BATCH", 1)
    old, new = b"# Travel\n\n100 EUR.\n", b"---\nsupersedes: [a-old.md]\n---\n# Travel\n\n120 EUR.\n"
    seen: list[set[str]] = []
    rest = texts(1, *(f"z{number:02}.md" for number in range(40)))
    look = {"z39.md": lambda: seen.append(world.seen() & {"a-old.md", "b-new.md"})}
    world.ingest(Meanwhile({"a-old.md": old, "b-new.md": new, **rest}, read=look))
    world.ingest(Meanwhile({"a-old.md": old + b"More.\n", "b-new.md": new, **texts(2, *rest)}, read=look))
    later = {"a-old.md": old, "c.md": b"---\nsupersedes: [d.md]\n---\n# C\n", "d.md": b"# D\n", **texts(3, *rest)}
    look = {"z39.md": lambda: seen.append(world.seen() & {"a-old.md", "c.md", "d.md"})}
    world.ingest(Meanwhile({**later, "b-new.md": new}, read=look))
    assert seen == [{"b-new.md"}, {"b-new.md"}, {"c.md"}]
    world.decide("z00.md", "superseded_by", str(world.id("c.md")))
    look = {"z39.md": lambda: seen.append(world.seen() & {"z00.md", "z01.md"})}
    world.ingest(Meanwhile({**later, "b-new.md": new, **texts(4, *rest)}, read=look))
    assert seen[3] == {"z01.md"}, "whom somebody decided to be superseded stays so"
    world.ingest(ScriptedConnector({"a-old.md": old, "d.md": b"# D\n"}))
    assert world.seen() == {"a-old.md", "d.md"}, "what replaced them is gone"


def test_what_is_written_while_another_text_was_looked_at_is_neither_scanned_nor_scored(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.conn.execute("INSERT INTO workload_need (workload, scanned, quality_floor) VALUES ('w', true, 0.5)")
    world.ingest(ScriptedConnector(texts(1, "a.md", "b.md")))
    looks = quality_store.assessed_documents

    def changed(*_: Any) -> dict[str, int]:
        monkeypatch.setattr(assessing, "count_personal", lambda _: {})
        ingest_source(world.other, source(), ScriptedConnector(texts(2, "a.md", "b.md")))
        return {"old": 1}

    monkeypatch.setattr(assessing, "count_personal", changed)
    assessing.scan_pending(world.conn, glossary([]))
    for path in ("a.md", "b.md"):
        assert world.document_columns(path, "version, scanned_at IS NOT NULL, personal") == (2, True, {}), (
            "looked at once more"
        )

    def late(conn: Any, name: str) -> Any:
        found = looks(conn, name)
        world.other.execute("UPDATE document SET version = 3, quality = NULL WHERE path = 'a.md'")
        return found

    monkeypatch.setattr(quality_store, "assessed_documents", late)
    assessing.assess(world.conn, "s", date(2026, 11, 27))
    assert (world.document_columns("a.md", "quality"), world.document_columns("b.md", "quality")) == (None, 1.0)
    assert world.seen("w") == {"b.md"}


@pytest.mark.parametrize("what", ["decide", "delete"])
def test_who_decides_and_who_writes_do_not_wait_for_each_other(world: World, what: str) -> None:
    world.ingest(ScriptedConnector(texts(1, "a.md")))
    failed: list[BaseException] = []

    def act() -> None:
        try:
            world.decide("a.md", "state", "rejected") if what == "decide" else world.delete("a.md")
        except psycopg.Error as error:
            failed.append(error)

    acting = threading.Thread(target=act)
    with world.conn.transaction():
        intake_store.lock_changes(world.conn)
        acting.start()
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'advisory'"
        until = time.monotonic() + 10
        while world.conn.execute(waiting).fetchone() == (0,):
            assert time.monotonic() < until, "it does not wait for what is being written"
            time.sleep(0.02)
        world.conn.execute("UPDATE document SET lines = 7 WHERE path = 'a.md'")
    acting.join(20)
    assert failed == []
    assert world.seen() == set()
    assert len(tombstones.read_tombstones(world.home)) == (what == "delete")


def declared(world: World, governed: dict[str, Any] | None = None, **more: Any) -> Source:
    """What is served declares the source so from now on."""
    made = msgspec.structs.replace(source(**governed or {}), **more)
    with world.other.transaction():
        put_declared_sources(world.other, [made])
    return made


def test_whom_a_declaration_lets_read_no_more_finds_nothing_at_once(world: World) -> None:
    own = b"---\nreaders: [everyone, ana@acme.example]\n---\n# Own\n\nRound 1.\n"
    declared(world)
    rest = {"own.md": own, "deny.md": b"---\ndeny: [x@acme.example]\n---\nHi."}
    world.ingest(ScriptedConnector({**texts(1, "a.md", "gone.md"), **rest}))
    world.ingest(ScriptedConnector({**texts(1, "a.md"), **rest}))
    assert world.seen() == {"a.md", "own.md", "deny.md"}
    anew = declared(world, readers=["hr", "ops"])
    assert world.seen() == {"own.md"}
    assert (world.readers("a.md"), world.readers("deny.md")) == ({"source/s"}, {"source/s", "!x@acme.example"})
    assert world.readers("own.md") == {"everyone", "ana@acme.example"}
    assert governed_store.who_may_read(world.conn, world.id("a.md")) == []
    assert ingest_source(world.conn, anew, ScriptedConnector({**texts(1, "a.md"), "own.md": own})).failed == 0
    assert (world.readers("a.md"), world.seen()) == ({"hr", "ops", "source/s"}, {"own.md"})
    again = declared(world)
    assert world.seen() == {"own.md"}, "who may read it again does so once it was looked at"
    ingest_source(world.conn, again, ScriptedConnector({**texts(1, "a.md"), "own.md": own}))
    assert world.seen() == {"a.md", "own.md"}


def test_what_a_declaration_narrows_holds_at_once_below_what_was_decided(world: World) -> None:
    declared(world, {"purposes": ["support", "sales"]})
    world.ingest(ScriptedConnector(texts(1, "a.md", "b.md", "c.md")), purposes=["support", "sales"])
    for name, value in (("state", "approved"), ("sensitivity", "public"), ("purposes", ["sales", "support"])):
        world.decide("b.md", name, value)
    world.decide("c.md", "state", "approved")
    world.conn.execute("UPDATE document SET digest = 'another' WHERE path = 'c.md'")
    values = "state, sensitivity, purposes, workloads, residency"
    told = {path: world.document_columns(path, "noted") for path in ("a.md", "b.md")}
    declared(world, {"state": "draft", "purposes": ["sales"], "residency": ["EU"]}, sensitivity="confidential")
    assert world.document_columns("a.md", "noted") > told["a.md"], "the index is told of another sensitivity"
    assert world.document_columns("b.md", "noted") == told["b.md"]
    assert world.document_columns("a.md", values) == ("draft", "confidential", ["sales"], None, ["EU"])
    assert world.document_columns("b.md", values) == ("approved", "public", ["sales", "support"], None, ["EU"])
    assert world.document_columns("c.md", values) == ("draft", "confidential", ["sales"], None, ["EU"]), (
        "another text was approved"
    )
    declared(world, {"workloads": ["w"]})
    assert world.document_columns("a.md", values) == ("draft", "confidential", ["sales"], ["w"], ["EU"]), (
        "wider with the next look"
    )


def test_a_legal_hold_is_there_with_the_declaration(world: World) -> None:
    world.ingest(ScriptedConnector(texts(1, "a.md")))
    declared(world, {"legal_hold": True})
    with pytest.raises(Conflict):
        world.delete("a.md")


def test_a_run_under_another_declaration_writes_nothing_more(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "BATCH", 1)
    first = declared(world)
    names = [f"n{number:02}.md" for number in range(40)]
    before: list[set[str]] = []

    def narrow() -> None:
        before.append(world.live_paths())
        declared(world, readers=["hr"])

    with pytest.raises(Redeclared):
        ingest_source(world.conn, first, Meanwhile(texts(1, *names), read={"n30.md": narrow}))
    assert before == [world.live_paths()] and 0 < len(world.live_paths()) < 31
    assert (world.seen(), world.findings()) == (set(), {})
    with pytest.raises(Redeclared):
        ingest_source(world.conn, first, ScriptedConnector(texts(1, *names)))
    anew = msgspec.structs.replace(source(), readers=["hr"])
    assert ingest_source(world.conn, anew, ScriptedConnector(texts(1, *names))).failed == 0
    assert (len(world.live_paths()), world.seen()) == (40, set())
    with world.other.transaction():
        put_declared_sources(world.other, [])
    assert world.conn.execute("SELECT health FROM source").fetchall() == [("undeclared",)]
    assert ingest_source(world.conn, first, ScriptedConnector(texts(2, *names))).failed == 0, "nothing says otherwise"
    assert world.conn.execute("SELECT health FROM source").fetchall() == [("ok",)]


def test_what_another_version_wrote_of_a_declaration_stops_no_run(world: World) -> None:
    first = declared(world)
    for change in ("said::jsonb - 'pdf'", "said::jsonb || '{\"later\": 1}'", "'{}'"):
        world.conn.execute(f"UPDATE source_declared SET said = ({change})::text".encode())
        assert ingest_source(world.conn, first, ScriptedConnector(texts(1, "a.md"))).failed == 0


def test_who_deletes_and_who_releases_take_their_locks_in_one_order(world: World) -> None:
    """A release declares its sources before it numbers a change of policy, as for owners who are nominated."""
    declared(world)
    world.ingest(ScriptedConnector(texts(1, "a.md")))
    failed: list[BaseException] = []

    def clear(conn: Any, _: str, actor: str) -> None:
        identity.clear_answers(conn, actor, "w")

    def act() -> None:
        try:
            delete(world.other, [world.id("a.md")], world.why(), clear)
        except psycopg.Error as error:
            failed.append(error)

    deleting = threading.Thread(target=act)
    with psycopg.connect(world.database.urls["control"]) as conn:
        put_declared_sources(conn, [source()])
        deleting.start()
        until = time.monotonic() + 10
        while world.conn.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone() == (0,):
            assert time.monotonic() < until
            time.sleep(0.02)
        identity.clear_answers(conn, SYSTEM, "w")
    deleting.join(20)
    assert (failed, world.seen()) == ([], set())


class Touched(Meanwhile):
    """Of the same content under other versions."""

    def changes(self, cursor: Cursor | None) -> Iterator[Change]:
        for each in super().changes(cursor):
            yield replace(each, version=f"{each.version} anew")


def test_versions_are_noted_behind_whoever_changes_documents(world: World) -> None:
    """Else each has locked a row that the other one waits for."""
    names = [f"n{number:02}.md" for number in range(20)]
    world.ingest(ScriptedConnector(texts(1, *names)))

    def meanwhile() -> None:
        world.other.execute("BEGIN")
        intake_store.lock_changes(world.other)
        world.other.execute("UPDATE document SET title = title WHERE path = 'n10.md'")

    with run_concurrently(lambda: world.ingest(Touched(texts(1, *names), folder_rules={"n19.md": meanwhile}))) as run:
        wait_until_blocked(world.database, world.conn, unless=run.done)
        world.other.execute("SELECT FROM document FOR UPDATE NOWAIT")
        world.other.execute("COMMIT")
        assert run.result().failed == 0
    assert str(world.document_columns("n10.md", "token")).endswith(" anew")


def test_how_far_a_place_was_read_says_nothing_of_another_one(world: World) -> None:
    """As of another folder of the same repository, whose documents did not change since that commit."""
    told = texts(1, "a.md", "b.md")
    first = declared(world, connector=Connector(type="git", settings={"folder": "one"}))
    reading = ScriptedConnector(told, is_complete=False)
    for _ in range(2):
        assert ingest_source(world.conn, first, reading).failed == 0
    assert reading.cursors == [None, {"number": 1}]
    declared(world, connector=first.connector, readers=["hr"])
    kept = world.conn.execute("SELECT cursor FROM source").fetchone()
    assert kept == ({"number": 1},), "it is the same place"
    declared(world, connector=first.connector)

    def move() -> None:
        declared(world, connector=Connector(type="git", settings={"folder": "two"}))

    with pytest.raises(Redeclared):
        ingest_source(world.conn, first, Touched(told, folder_rules={"b.md": move}))
    assert world.conn.execute("SELECT cursor FROM source").fetchone() == (None,)
