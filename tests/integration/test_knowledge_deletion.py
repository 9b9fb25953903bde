"""Deleted is deleted: from search at once, from the disk in time, after a restore once more; what is on hold stays."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import sql
from psycopg.types.json import Jsonb

from groundplan.blueprint.model import Connector, Governed, Source
from groundplan.core.errors import Conflict, GroundplanError, Invalid, NotFound
from groundplan.core.ids import new_id
from groundplan.core.letters import name_pattern
from groundplan.knowledge.deletion import deletion_store, tombstones
from groundplan.knowledge.deletion.delete import (
    DeletionReason,
    delete,
    delete_expired,
    erase_from_disk,
    forget_names,
    readmit,
    replay_tombstones,
)
from groundplan.knowledge.deletion.mentions import count_named, documents_mentioning, path_mentions
from groundplan.knowledge.deletion.places import ClosedPlaces, path_digest
from groundplan.knowledge.governance import governed_store
from groundplan.knowledge.governance.decide import DecisionContext, decide
from groundplan.knowledge.ingest import ingest_source
from groundplan.knowledge.lineage import lineage_store
from groundplan.knowledge.lineage.openlineage import events
from groundplan.knowledge.quality.assess import assess
from groundplan.knowledge.sources import push_store
from groundplan.knowledge.sources.folder import FolderConnector
from groundplan.knowledge.sources.push import PushConnector
from groundplan.testing import document_rows
from groundplan.testing.database import Database

NOW = datetime.now(UTC)


class World:
    def __init__(self, database: Database, folder: Path) -> None:
        self.database = database
        self.control = psycopg.connect(database.urls["control"], autocommit=True)
        self.home, self.folder = folder / "home", folder / "s"
        self.home.mkdir()
        self.folder.mkdir()
        self.person = new_id()
        self.control.execute(
            "INSERT INTO person (id, email, name) VALUES (%s, 'ana@acme.example', 'Ana')", (self.person,)
        )

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text, encoding="utf-8")

    def ingest(self, **governed: Any) -> None:
        source = Source(
            name="s", path="s", sensitivity="internal", owner="ana@acme.example", readers=["everyone"],
            governed=Governed(**governed),
        )  # fmt: skip
        ingest_source(self.control, source, FolderConnector(self.folder))

    def id(self, path: str) -> UUID:
        row = self.control.execute("SELECT id FROM document WHERE path = %s", (path,)).fetchone()
        assert row is not None
        return UUID(str(row[0]))

    def why(self, at: datetime = NOW) -> DeletionReason:
        return DeletionReason(f"person:{self.person}", "asked for", at, self.home)

    def decide(self, path: str, name: str, value: Any, reason: str = "looked at") -> dict[str, Any]:
        with self.control.transaction():
            said = DecisionContext(f"person:{self.person}", "dana@acme.example", reason, NOW)
            return decide(self.control, self.id(path), name, value, said)

    def seen(self) -> set[str]:
        """What a search reads as Ana."""
        with psycopg.connect(self.database.urls["search"]) as conn:
            document_rows.act_for(conn, self.person)
            rows = conn.execute("SELECT d.path FROM chunk c JOIN document d ON d.id = c.document_id WHERE c.text <> ''")
            return {path for (path,) in rows}

    def actions(self) -> list[str]:
        return [action for (action,) in self.control.execute("SELECT action FROM audit_entry ORDER BY queued")]


@pytest.fixture
def world(database: Database, tmp_path: Path) -> Iterator[World]:
    world = World(database, tmp_path)
    world.write("a.md", "# A\n\nThe plans of the zanzibar project.\n")
    world.write("b.md", "# B\n\nOther plans.\n")
    world.ingest()
    yield world
    world.control.close()


def test_a_deleted_document_is_gone_at_once_and_stays_away(world: World) -> None:
    assert world.seen() == {"a.md", "b.md"}
    cleared: list[str] = []
    delete(world.control, [world.id("a.md")], world.why(), lambda _, source, __: cleared.append(source))
    assert (world.seen(), cleared) == ({"b.md"}, ["s"])
    world.ingest()
    world.write("a.md", "# A\n\nThe plans of the zanzibar project, once more.\n")
    world.ingest()
    assert world.seen() == {"b.md"}
    told = world.control.execute("SELECT kind, hint FROM finding WHERE closed_at IS NULL").fetchall()
    assert [kind for kind, _ in told] == ["knowledge.deleted_at_source"]
    with pytest.raises(NotFound):
        delete(world.control, [world.id("a.md")], world.why())
    readmit(world.control, "s", "a.md", world.why())
    world.ingest()
    assert world.seen() == {"a.md", "b.md"}
    assert {"knowledge.deleted", "knowledge.readmitted"} <= set(world.actions())


def test_findings_keep_no_text_of_a_deleted_document(world: World) -> None:
    for year, most in ((2024, 100), (2025, 120)):
        world.write(
            f"travel-{year}.md", f"# Travel {year}\n\nThe zanzibar allowance is {most} EUR for each whole day.\n"
        )
    world.ingest()
    assess(world.control, "s", NOW.date())
    quoted = "SELECT kind FROM finding f WHERE f::text LIKE '%%zanzibar allowance%%' ORDER BY kind"
    assert set(world.control.execute(quoted).fetchall()) == {("knowledge.conflict",)}
    delete(world.control, [world.id("travel-2024.md")], world.why())
    assert world.control.execute(quoted).fetchall() == []


def test_a_person_is_found_however_their_name_is_laid_out(world: World) -> None:
    for name, text in {
        "line": "Ask Ana\nCosta.", "bold": "**Ana** _Costa_", "table": "| a | b |\n| --- | --- |\n| Ana | Costa |",
        "address": "ana_costa@acme.example", "wide": "\uff21\uff2e\uff21 costa",
        "cut": f"{'word ' * 78}Ana Costa {'word ' * 78}", "other": "Ana. Costa",
    }.items():  # fmt: skip
        world.write(f"{name}.md", f"# Text\n\n{text}\n")
    world.ingest()
    world.write("title.md", "---\ntitle: Letter to ana_costa@acme.example\n---\nHello.\n")
    (world.folder / "letters").mkdir()
    for name in ("Ana_Costa", "ana-costa", "2026.ana.costa", "ana-costello"):
        world.write(f"letters/{name}.md", "# Letter\n\nHello.\n")
    world.ingest()
    found = {path for _, _, path, _ in documents_mentioning(world.control, ["ana costa", "ana_costa@acme"])}
    assert found == {
        "line.md", "bold.md", "table.md", "address.md", "wide.md", "cut.md", "title.md", "letters/Ana_Costa.md",
        "letters/ana-costa.md", "letters/2026.ana.costa.md",
    }  # fmt: skip
    named = {path for path in found if path_mentions(path, ["ana costa", "ana_costa@acme"])}
    assert named == {path for path in found if path.startswith("letters/")}
    assert documents_mentioning(world.control, ["%%%%", "____", "| *", "no_such"]) == []


def test_a_name_ending_like_another_is_not_matched(world: World) -> None:
    """Else an erasure of Ana takes what is about Hana with it, for good."""
    for path, text in {
        "hana.md": "Ask hana@acme.example, Hana Costa or Johana Costa.", "other.md": "Ask dr.ana@acme.example.",
        "ana.md": "Ask <ana@acme.example>.", "costas.md": "Ana Costas Antrag.", "colon.md": "mailto:ANA@acme.example",
        "letters/hana-costa.md": "Hello.", "letters/ana-costa.md": "Hello.",
    }.items():  # fmt: skip
        (world.folder / path).parent.mkdir(exist_ok=True)
        world.write(path, f"# Text\n\n{text}\n")
    world.ingest()
    words = ["ana@acme.example", "Ana Costa"]
    found = {path for _, _, path, _ in documents_mentioning(world.control, words)}
    assert found == {"ana.md", "costas.md", "colon.md", "letters/ana-costa.md"}
    assert [path for path in ("letters/hana-costa.md", "letters/ana-costa.md") if path_mentions(path, words)] == [
        "letters/ana-costa.md"
    ]


@pytest.mark.parametrize(
    ("name", "said", "found"),
    [
        ("ana@acme.example", "hana@acme.example", False),
        ("ana@acme.example", "x-ana@acme.example", False),
        ("ana@acme.example", "-ana@acme.example", True),
        ("ana@acme.example", r"Hello.\nana@acme.example", True),  # in JSON
        ("ana@acme.example", r"\342\200\234ana@acme.example", True),  # in PostgreSQL's bytes
        ("ana@acme.example", "\u8054\u7cfbana@acme.example", True),
        ("Анна Мороз", "Жанна Мороз", False),
        ("Анна Мороз", "анна мороза", True),
        ("\u738b\u4f1f", "\u8bf7\u95ee\u738b\u4f1f", True),
        ("a.b (c) [d]*", "see A.B (C) [D]*", True),
    ],
)
def test_a_name_matches_only_at_the_start_of_a_word(world: World, name: str, said: str, found: bool) -> None:
    """As documents are searched, by PostgreSQL, and as kept texts are."""
    assert (re.search(name_pattern(name), said, re.IGNORECASE) is not None) is found
    asked = world.control.execute("SELECT %s::text ~* ANY(%s)", (said.casefold(), [name_pattern(name.casefold())]))
    assert asked.fetchone() == (found,)


LONG = 398 * "\u3042" + "\u7530\u4e2d\u592a\u90ce" + 300 * "\u3042"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Zo\u00eb M\u00fcller", "Ask Zoe\u0308 Mu\u0308ller."),  # as letters are in files from macOS
        ("Zoe\u0308 Mu\u0308ller", "ASK ZO\u00cb M\u00dcLLER."),
        ("Pat O'Brien", "Ask Pat O\u2019Brien."),  # as word processors write it
        ("Anne\u2010Marie O\u2019Roy", "Ask ANNE-MARIE O'ROY."),
        ("Anne-Marie Roy", "Ask Anne\u2011Marie\u00a0Roy."),
        ("\u738b\u4f1f", "\u8bf7\u95ee\u738b\u4f1f\u3002"),
        ("\u7530\u4e2d\u592a\u90ce", LONG),  # a passage ends in it
        ("\u7530\u4e2d \u592a\u90ce", "\u7530\u4e2d\n\u592a\u90ce\u3055\u3093"),
        ("Ana Costa", "---\nauthor: Ana Costa\n---\nHello."),
    ],
)
def test_a_person_is_found_however_their_name_is_typed(world: World, name: str, said: str) -> None:
    world.write("named.md", said if said.startswith("---") else f"# Text\n\n{said}\n")
    world.write("Mu\u0308ller O\u2019Brien.md", "# Text\n\nHello.\n")
    world.ingest()
    assert [path for _, _, path, _ in documents_mentioning(world.control, [name])] == ["named.md"]
    assert path_mentions("letters/Mu\u0308ller O\u2019Brien.md", ["m\u00fcller o'brien"])
    assert documents_mentioning(world.control, [name[:-1] + "\u00df", name[:1]]) == []


def test_an_unreadable_document_is_still_found_by_its_title(world: World) -> None:
    """Its title and values stay, for when it can be read again."""
    world.write("c.md", "---\ntitle: About Ana Costa\n---\n# C\n")
    world.ingest()
    world.write("c.md", "---\ntitle: About Ana Costa\nvalid_until: soon\n---\n# C\n")
    world.ingest()
    assert world.seen() == {"a.md", "b.md"}
    found = documents_mentioning(world.control, ["Ana Costa"])
    assert [(path, held) for _, _, path, held in found] == [("c.md", False)]
    delete(world.control, [found[0][0]], world.why())
    assert documents_mentioning(world.control, ["Ana Costa"]) == []
    rows = world.control.execute("SELECT title, declared, unreadable FROM document WHERE path = 'c.md'").fetchall()
    assert rows == [("c.md", {}, False)]
    world.write("c.md", "# C\n")
    world.ingest()
    assert world.seen() == {"a.md", "b.md"}, "its place stays empty"


def test_owners_and_readers_of_a_document_are_no_mentions(world: World) -> None:
    world.write("own.md", "---\nowner: bob@acme.example\nreaders: [hr, bob@acme.example]\n---\n# Own\n")
    world.write("read.md", "---\nreaders: [hr, bob@acme.example]\n---\n# Read\n")
    world.ingest()
    assert documents_mentioning(world.control, ["bob@acme.example"]) == []
    assert count_named(world.control, "bob@acme.example") == 2
    assert count_named(world.control, "bo@acme.example") == 0


def names_left(world: World, name: str) -> set[str]:
    """Tables in which a row says it, and the list of deletions."""
    tables = [
        table
        for (table,) in world.control.execute(
            "SELECT relname FROM pg_stat_user_tables WHERE has_table_privilege(relid, 'SELECT')"
        )
    ]
    found = set()
    for table in tables:
        query = sql.SQL("SELECT count(*) FROM {} t WHERE t::text ILIKE %s").format(sql.Identifier(table))
        if world.control.execute(query, (f"%{name}%",)).fetchone() != (0,):
            found.add(table)
    file = world.home / tombstones.FILE
    return found | ({"list"} if file.exists() and name in file.read_text().lower() else set())


def rested(world: World, document: UUID, path: str) -> UUID:
    """A call that was given a passage of a document."""
    call = new_id()
    detail = {"sources": [[str(new_id()), "other.md", 1, 2], [str(document), path, 3, 4]], "flags": []}
    with psycopg.connect(world.database.superuser, autocommit=True) as conn:
        conn.execute(
            """INSERT INTO call (id, at, workload, endpoint, status, http_status, cost_usd, reserved_usd, blueprint,
                 epoch, detail) VALUES (%s, now(), 'w', 'chat', 'ok', 200, 0, 0, 1, %s, %s)""",
            (call, new_id(), Jsonb(detail)),
        )
    return call


def test_names_of_deleted_paths_are_erased_and_the_paths_stay_closed(world: World) -> None:
    for name in ("zanzibar-doe.md", "gone-zanzibar-doe.md"):
        world.write(name, "# Letter\n\nTBD\n")
    world.ingest()
    assess(world.control, "s", NOW.date())
    ids = [world.id("zanzibar-doe.md"), world.id("gone-zanzibar-doe.md")]
    calls = [rested(world, ids[0], "zanzibar-doe.md") for _ in range(2)]
    (world.folder / "gone-zanzibar-doe.md").unlink()
    world.ingest()
    delete(world.control, [ids[0]], world.why())
    world.ingest()
    assert names_left(world, "zanzibar-doe") >= {"document", "tombstone", "finding", "call", "list"}
    assert forget_names(world.control, world.home, ids) == 2
    assert names_left(world, "zanzibar-doe") == set()
    (stone,) = deletion_store.tombstones(world.control)
    assert stone.salt is not None and tombstones.read_tombstones(world.home)[stone.id].path == stone.path
    for call in calls:
        assert [one[1:] for one in passages(world, call)] == [("other.md", 1, 2), (str(ids[0]), 3, 4)]
    (rest,) = [row for row in lineage_store.passages_of_call(world.control, calls[0]) if row["document"] == ids[0]]
    assert rest["path"] == str(ids[0])

    world.write("zanzibar-doe.md", "# Letter\n\nAgain.\n")
    world.write("gone-zanzibar-doe.md", "# Letter\n\nBack.\n")
    world.ingest()
    assert world.seen() == {"a.md", "b.md", "gone-zanzibar-doe.md"}, "what went at its source may come back"
    assert names_left(world, "/zanzibar-doe") == {"finding"}, "for whoever has to take the file away"
    (world.folder / "zanzibar-doe.md").unlink()
    world.ingest()
    assert names_left(world, "/zanzibar-doe") == set()
    world.write("zanzibar-doe.md", "# Letter\n\nAgain.\n")
    readmit(world.control, "s", "zanzibar-doe.md", world.why())
    world.ingest()
    assert "zanzibar-doe.md" in world.seen()


def passages(world: World, call: UUID) -> list[tuple[Any, ...]]:
    row = world.control.execute("SELECT detail -> 'sources' FROM call WHERE id = %s", (call,)).fetchone()
    assert row is not None
    return [tuple(one) for one in row[0]]


def test_an_older_database_loses_the_names_again(world: World) -> None:
    """As it was before the deletion, before the name went, and with the name at another document."""
    world.write("zanzibar-doe.md", "# Letter\n")
    world.ingest()
    id = world.id("zanzibar-doe.md")
    (stone,) = delete(world.control, [id], world.why())
    forget_names(world.control, world.home, [id])
    with psycopg.connect(world.database.superuser, autocommit=True) as conn:
        conn.execute("DELETE FROM tombstone")
        conn.execute("UPDATE document SET path = 'zanzibar-doe.md', title = 'Letter' WHERE id = %s", (id,))
        world.ingest()
        assert "zanzibar-doe.md" in world.seen()
        assert replay_tombstones(world.control, world.home, NOW) == 1
        assert (world.seen(), names_left(world, "zanzibar-doe")) == ({"a.md", "b.md"}, set())

        conn.execute("UPDATE tombstone SET path = 'zanzibar-doe.md', salt = NULL WHERE id = %s", (stone.id,))
        conn.execute("UPDATE document SET path = 'zanzibar-doe.md' WHERE id = %s", (id,))
        assert replay_tombstones(world.control, world.home, NOW) == 0
        assert names_left(world, "zanzibar-doe") == set()

        conn.execute("UPDATE document SET path = 'zanzibar-doe.md' WHERE path = 'b.md'")
    assert replay_tombstones(world.control, world.home, NOW) == 1
    assert (world.seen(), names_left(world, "zanzibar-doe")) == ({"a.md"}, set())


def test_a_crash_before_the_list_is_written_leaves_no_name_in_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    delete(world.control, [world.id("a.md")], world.why())
    with monkeypatch.context() as patch:
        patch.setattr(tombstones, "replace_names", lambda *_: None)
        forget_names(world.control, world.home, [world.id("a.md")])
    assert names_left(world, "a.md") == {"list"}
    file = world.home / tombstones.FILE
    file.write_text(file.read_text() + '{"id": "torn')
    replay_tombstones(world.control, world.home, NOW)
    assert names_left(world, "a.md") == set()
    assert len(tombstones.read_tombstones(world.home)) == 1


@given(st.lists(st.tuples(st.text(), st.sampled_from([None, b"salt", b"other"])), max_size=8), st.text())
def test_a_path_is_closed_by_its_name_or_digest(places: list[tuple[str, bytes | None]], other: str) -> None:
    closed = ClosedPlaces((path if salt is None else path_digest(path, salt), salt) for path, salt in places)
    assert all(path in closed for path, _ in places)
    assert (other in closed) == (other in {path for path, _ in places})


def has_word(file: Path) -> bool:
    try:
        return file.is_file() and b"zanzibar" in file.read_bytes()
    except FileNotFoundError:  # the server put it away
        return False


def test_a_deleted_document_leaves_nothing_on_disk_and_has_a_receipt(world: World, postgres_cluster: Any) -> None:
    def on_disk() -> bool:
        """In this database's files, and in those that all of the server's share."""
        with psycopg.connect(world.database.superuser, autocommit=True) as conn:
            conn.execute("CHECKPOINT")
            row = conn.execute("SELECT oid::text FROM pg_database WHERE datname = current_database()").fetchone()
        assert row is not None
        base = postgres_cluster.home.postgres / "data"
        folders = [each for each in base.iterdir() if each.is_dir() and each.name not in ("pg_wal", "base")]
        return any(has_word(file) for folder in (*folders, base / "base" / row[0]) for file in folder.rglob("*"))

    with psycopg.connect(world.database.superuser, autocommit=True) as conn:
        conn.execute("ANALYZE")  # as the server does by itself: samples of what the tables hold are kept beside them
    assert on_disk()
    delete(world.control, [world.id("a.md")], world.why())
    assert erase_from_disk(world.control, NOW) == 1
    assert not on_disk()
    (stone,) = deletion_store.tombstones(world.control)
    assert stone.erased_at is not None
    assert stone.erased_at <= stone.due
    assert world.actions()[-1] == "knowledge.erased"
    assert erase_from_disk(world.control, NOW) == 0


def test_each_deleted_document_is_logged_by_its_digest_however_many(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("groundplan.knowledge.deletion.delete.RECEIPT_DOCUMENTS", 2)
    for number in range(3):
        world.write(f"{number}.md", f"# {number}\n")
    world.ingest()
    stones = delete(world.control, [world.id(f"{number}.md") for number in range(3)], world.why())
    assert erase_from_disk(world.control, NOW) == 3
    for action in ("knowledge.deleted", "knowledge.erased"):
        rows = world.control.execute(
            "SELECT id, convert_from(body, 'UTF8') FROM audit_entry WHERE action = %s", (action,)
        ).fetchall()
        told = {id: json.loads(body)["detail"]["digests"] for id, body in rows}
        assert sorted(map(len, told.values())) == [1, 2]
        assert sorted(chain.from_iterable(told.values())) == sorted(stone.digest for stone in stones)
    receipts: dict[str, UUID] = dict(world.control.execute("SELECT digest, receipt FROM tombstone").fetchall())
    assert all(digest in told[receipt] for digest, receipt in receipts.items()), "each by the entry that names it"


def test_an_open_snapshot_delays_the_erasure_receipt(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with psycopg.connect(world.database.superuser) as reader:
        reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        reader.execute("SELECT count(*) FROM person")
        delete(world.control, [world.id("a.md")], world.why())
        with monkeypatch.context() as patch:
            patch.setattr(deletion_store, "_PAUSES", (0.0, 0.05))
            assert erase_from_disk(world.control, NOW) == 0
        (stone,) = deletion_store.tombstones(world.control)
        assert stone.erased_at is None
    assert erase_from_disk(world.control, NOW) == 1


def test_without_a_table_rewrite_nothing_counts_as_erased(world: World) -> None:
    """As before PostgreSQL 17, where only its owner may: whoever else asks for it gets a warning and nothing more."""
    role = world.control.info.user
    delete(world.control, [world.id("a.md")], world.why())
    with psycopg.connect(world.database.superuser, autocommit=True) as conn:
        conn.execute(sql.SQL("REVOKE MAINTAIN ON finding FROM {}").format(sql.Identifier(role)))
        assert erase_from_disk(world.control, NOW) == 0
        assert deletion_store.tombstones(world.control)[0].erased_at is None
        assert "knowledge.erased" not in world.actions()
        conn.execute(sql.SQL("GRANT MAINTAIN ON finding TO {}").format(sql.Identifier(role)))
    assert erase_from_disk(world.control, NOW) == 1


def test_a_legal_hold_prevents_every_deletion(world: World) -> None:
    world.decide("a.md", "legal_hold", True, "case 7")
    for ids in ([world.id("a.md")], [world.id("b.md"), world.id("a.md")]):
        with pytest.raises(Conflict) as caught:
            delete(world.control, ids, world.why())
        assert caught.value.code == "legal_hold"
    assert world.seen() == {"a.md", "b.md"}
    world.decide("a.md", "legal_hold", False, "closed")
    delete(world.control, [world.id("a.md")], world.why())


def test_a_deletion_is_repeated_after_a_restore(world: World) -> None:
    """The database as it was before the deletion, with the list as it is now."""
    (stone,) = delete(world.control, [world.id("a.md")], world.why())
    listed = tombstones.read_tombstones(world.home)
    assert set(listed) == {stone.id}
    with psycopg.connect(world.database.superuser, autocommit=True) as conn:
        conn.execute("DELETE FROM tombstone")
    world.ingest()
    assert world.seen() == {"a.md", "b.md"}
    assert replay_tombstones(world.control, world.home, NOW) == 1
    assert world.seen() == {"b.md"}
    world.ingest()
    assert world.seen() == {"b.md"}
    assert replay_tombstones(world.control, world.home, NOW) == 0


def test_a_readmitted_document_returns_without_its_deleted_content(world: World) -> None:
    """The list says that the place is open; an older database has what was deleted there."""
    deleted = (world.folder / "a.md").read_text()
    delete(world.control, [world.id("a.md")], world.why())
    readmit(world.control, "s", "a.md", world.why())
    with psycopg.connect(world.database.superuser, autocommit=True) as conn:
        conn.execute("DELETE FROM tombstone")
    world.ingest()
    assert world.seen() == {"a.md", "b.md"}
    assert replay_tombstones(world.control, world.home, NOW) == 1
    assert world.seen() == {"b.md"}
    world.write("a.md", "# A\n\nWhat it says since.\n")
    world.ingest()
    assert (world.seen(), replay_tombstones(world.control, world.home, NOW)) == ({"a.md", "b.md"}, 0)
    world.write("a.md", deleted)
    world.ingest()
    assert replay_tombstones(world.control, world.home, NOW) == 0, "whoever let it in again may say it again"


def test_a_withdrawn_document_stays_withdrawn_in_an_older_database(world: World) -> None:
    """Nobody tells again that a pushed document went."""
    source = Source(
        name="p", path="", sensitivity="internal", owner="ana@acme.example", readers=["everyone"],
        connector=Connector(type="push", settings={}),
    )  # fmt: skip

    def push(text: str | None) -> set[str]:
        if text is None:
            push_store.withdraw_document(world.control, "p", "x.md")
        elif text:
            push_store.put_document(world.control, "p", "x.md", push_store.Pushed(text.encode(), "md", None, {}, NOW))
        ingest_source(world.control, source, PushConnector(world.control, "p"))
        return world.seen() - {"a.md", "b.md"}

    assert push("# X\n\nThe first.\n") == {"x.md"}
    world.decide("x.md", "licence", "CC0-1.0")
    assert push(None) == set()
    replay_tombstones(world.control, world.home, NOW)
    assert [stone.cause for stone in tombstones.read_tombstones(world.home).values()] == ["gone"]
    with psycopg.connect(world.database.superuser, autocommit=True) as conn:
        conn.execute("DELETE FROM tombstone")
    assert push("# X\n\nThe first.\n") == {"x.md"}, "as a restore brings it back"
    assert replay_tombstones(world.control, world.home, NOW) == 1
    assert (world.seen(), push("")) == ({"a.md", "b.md"}, set())
    assert world.control.execute("SELECT 1 FROM pushed").fetchall() == []
    assert push("# X\n\nThe second.\n") == {"x.md"}
    assert world.control.execute("SELECT licence FROM document WHERE path = 'x.md'").fetchall() == [("CC0-1.0",)]
    assert replay_tombstones(world.control, world.home, NOW) == 0


def test_a_lost_deletion_list_is_rewritten_and_a_torn_line_is_ignored(world: World) -> None:
    (stone,) = delete(world.control, [world.id("a.md")], world.why())
    (world.home / tombstones.FILE).write_text('{"id": "torn', encoding="utf-8")
    replay_tombstones(world.control, world.home, NOW)
    assert set(tombstones.read_tombstones(world.home)) == {stone.id}


def test_documents_past_retention_are_deleted_unless_held(world: World) -> None:
    world.ingest(retain_days=100)
    world.control.execute("UPDATE document SET retain_until = %s", (NOW.date() - timedelta(days=1),))
    world.decide("b.md", "legal_hold", True, "case 7")
    assert delete_expired(world.control, world.why()) == 1
    assert world.seen() == {"b.md"}
    assert delete_expired(world.control, world.why()) == 0


def test_a_decision_applies_is_shown_and_can_be_reverted(world: World) -> None:
    def decided(name: str, value: Any) -> dict[str, Any]:
        return world.decide("a.md", name, value)

    after = decided("state", "rejected")
    assert (after["state"], after["origins"]["state"]["from"]) == ("rejected", "decision of dana@acme.example")
    assert world.seen() == {"b.md"}
    assert governed_store.withheld_reason(world.control, world.id("a.md"), "w") == "rejected"
    world.ingest()
    assert world.seen() == {"b.md"}
    decided("state", None)
    world.ingest()
    assert world.seen() == {"a.md", "b.md"}
    decided("superseded_by", str(world.id("b.md")))
    world.ingest()
    assert world.seen() == {"b.md"}
    assert governed_store.withheld_reason(world.control, world.id("a.md"), "w") == "superseded"
    for name, value in (
        ("state", "good"),
        ("valid_until", "soon"),
        ("purposes", "x"),
        ("superseded_by", "no"),
        ("colour", 1),
    ):
        with pytest.raises(Invalid):
            decided(name, value)
    with pytest.raises(GroundplanError):
        decided("superseded_by", str(world.id("a.md")))


def test_two_documents_cannot_supersede_each_other(world: World) -> None:
    """Neither would ever be found."""
    world.write("c.md", "# C\n")
    world.ingest()
    world.decide("a.md", "superseded_by", str(world.id("b.md")))
    world.decide("b.md", "superseded_by", str(world.id("c.md")))
    for older, newer in (("b.md", "a.md"), ("c.md", "a.md"), ("c.md", "b.md")):
        with pytest.raises(Invalid, match="superseded_by") as caught:
            world.decide(older, "superseded_by", str(world.id(newer)))
        assert "reject" in (caught.value.hint or "")
    world.ingest()
    assert world.seen() == {"c.md"}
    world.decide("b.md", "superseded_by", None)
    world.decide("c.md", "superseded_by", str(world.id("b.md")))
    world.ingest()
    assert world.seen() == {"b.md"}


def test_deeply_nested_groups_are_resolved_quickly(world: World) -> None:
    """Twelve layers of six groups, each in all of the next: two thousand million ways, and one is told."""
    layers = [[new_id() for _ in range(6)] for _ in range(12)]
    for number, layer in enumerate(layers):
        for place, id in enumerate(layer):
            name = f"g{number}-{place}"
            world.control.execute("INSERT INTO people_group (id, name, type) VALUES (%s, %s, 'group')", (id, name))
            for below in layers[number - 1] if number else []:
                row = (new_id(), id, below)
                world.control.execute("INSERT INTO membership (id, group_id, member_group_id) VALUES (%s, %s, %s)", row)
    row = (new_id(), layers[0][0], world.person)
    world.control.execute("INSERT INTO membership (id, group_id, person_id) VALUES (%s, %s, %s)", row)
    world.write("a.md", "---\nreaders: [g11-3]\n---\n# A\n")
    world.ingest()
    world.control.execute("SET statement_timeout = '10s'")
    (by,) = governed_store.why_readable(world.control, world.id("a.md"), world.person)["by"]
    assert (len(by["through"]), by["through"][0], by["through"][-1]) == (12, "g0-0", "g11-3")
    (who,) = governed_store.who_may_read(world.control, world.id("a.md"))
    assert who["through"]["g11-3"] == by["through"]


def test_who_may_read_and_why(world: World) -> None:
    group, outer = new_id(), new_id()
    for id, name in ((group, "hr"), (outer, "staff")):
        world.control.execute("INSERT INTO people_group (id, name, type) VALUES (%s, %s, 'group')", (id, name))
    world.control.execute(
        "INSERT INTO membership (id, group_id, person_id) VALUES (%s, %s, %s)", (new_id(), group, world.person)
    )
    world.control.execute(
        "INSERT INTO membership (id, group_id, member_group_id) VALUES (%s, %s, %s)", (new_id(), outer, group)
    )
    world.write("a.md", "---\nreaders: [staff]\n---\n# A\n")
    world.ingest()
    told = governed_store.why_readable(world.control, world.id("a.md"), world.person)
    assert told == {"readable": True, "by": [{"reader": "staff", "refuses": False, "through": ["hr", "staff"]}]}
    assert [row["email"] for row in governed_store.who_may_read(world.control, world.id("a.md"))] == [
        "ana@acme.example"
    ]
    (who,) = governed_store.who_may_read(world.control, world.id("a.md"))
    assert (who["by"], who["through"], who["grants"]) == (["staff"], {"staff": ["hr", "staff"]}, [])
    world.write("a.md", "---\nreaders: [nobody]\n---\n# A\n")
    world.ingest()
    until = NOW.date() + timedelta(days=3)
    world.control.execute("INSERT INTO source_grant VALUES ('s', 'staff', %s), ('t', 'staff', NULL)", (until,))
    for reader in ("source/s", "source/t"):
        row = (world.id("a.md"), reader)
        world.control.execute("INSERT INTO document_reader (document_id, reader) VALUES (%s, %s)", row)
    told = governed_store.why_readable(world.control, world.id("a.md"), world.person)
    grant = {"to": "staff", "until": until.isoformat()}
    by = {"reader": "source/s", "refuses": False, "through": ["hr", "staff"], "grant": grant}
    assert told == {"readable": True, "by": [by]}, "and a grant on another source gives nothing of this one"
    assert [row["by"] for row in governed_store.who_may_read(world.control, world.id("a.md"))] == [["source/s"]]
    (who,) = governed_store.who_may_read(world.control, world.id("a.md"))
    assert who["grants"] == [{"to": "staff", "through": ["hr", "staff"]}]
    world.control.execute("UPDATE source_grant SET until = %s WHERE source = 's'", (NOW.date() - timedelta(days=1),))
    assert not governed_store.why_readable(world.control, world.id("a.md"), world.person)["readable"]
    world.write("a.md", "---\nreaders: [staff]\ndeny: [hr]\n---\n# A\n")
    world.ingest()
    assert not governed_store.why_readable(world.control, world.id("a.md"), world.person)["readable"]
    assert governed_store.who_may_read(world.control, world.id("a.md")) == []


def test_lineage_is_paged_without_missing_calls(world: World) -> None:
    """Also where more calls than a page holds are of one moment."""
    moments = [NOW, *[NOW + timedelta(seconds=1)] * 5, NOW + timedelta(seconds=2), NOW + timedelta(seconds=2)]
    calls = {new_id(): at for at in moments}
    for id, at in calls.items():
        world.control.execute(
            """INSERT INTO call (id, at, workload, person_id, endpoint, status, http_status, cost_usd, reserved_usd,
                 blueprint, epoch, detail) VALUES (%s, %s, 'w', %s, 'chat', 'ok', 200, 0, 0, 1, %s, %s)""",
            (id, at, world.person, new_id(), Jsonb({"sources": [[str(world.id("a.md")), "a.md", 1, 3]]})),
        )
    for most in (1, 2, 3, 8, 9):
        told: list[Any] = []
        since: datetime | None = NOW
        while since is not None:
            found, since = lineage_store.calls_page(world.control, since, NOW + timedelta(minutes=1), most)
            told += [each["id"] for each in found]
        assert sorted(told) == sorted(calls), most


def test_answers_and_documents_link_to_each_other(world: World) -> None:
    call, other = new_id(), new_id()
    for id, path in ((call, "a.md"), (other, "b.md")):
        world.control.execute(
            """INSERT INTO call (id, at, workload, person_id, endpoint, status, http_status, cost_usd, reserved_usd,
                 blueprint, epoch, detail) VALUES (%s, now(), 'w', %s, 'chat', 'ok', 200, 0, 0, 1, %s, %s)""",
            (id, world.person, new_id(), Jsonb({"sources": [[str(world.id(path)), path, 1, 3]]})),
        )
    (rested,) = lineage_store.passages_of_call(world.control, call)
    assert (rested["path"], rested["version_then"], rested["changed_since"]) == ("a.md", 1, False)
    (used,) = lineage_store.answers_using(world.control, world.id("a.md"))
    assert (used["call"], used["person"], used["lines"]) == (call, "ana@acme.example", ["1-3"])
    world.write("a.md", "# A\n\nother\n")
    world.ingest()
    (rested,) = lineage_store.passages_of_call(world.control, call)
    assert (rested["version_then"], rested["version_now"], rested["changed_since"]) == (1, 2, True)
    calls = lineage_store.calls_since(world.control, NOW - timedelta(days=1), NOW + timedelta(days=1))
    ids = [each["document"] for one in calls for each in one["passages"]]
    documents = lineage_store.documents_of(world.control, ids)
    every = list(events("acme", calls, documents))
    for one in every:
        conforms(one)
    first, _ = (one for one in every if one["eventType"] != "START" and one["job"]["name"].startswith("workload/"))
    assert first["eventType"] == "COMPLETE"
    assert first["inputs"][0]["namespace"] == "groundplan/acme/s"
    assert first["inputs"][0]["facets"]["version"]["datasetVersion"] == "1", "as it was then"
    assert first["run"]["runId"] == str(call)
    # from the answer back to the source, each step being the output of a run
    made = {(one["outputs"][0]["namespace"], one["outputs"][0]["name"]): one for one in every}
    way, at = [], ("groundplan/acme", f"answer/{call}")
    while at in made:
        way.append(made[at]["job"]["name"])
        at = (made[at]["inputs"][-1]["namespace"], made[at]["inputs"][-1]["name"])
    assert way == ["workload/w", "retrieval/w", "cut/s", "read/s"]
    assert at == ("groundplan/acme", "source/s")
    assert [one["eventType"] for one in every].count("START") * 2 == len(every)
    assert date.fromisoformat(first["eventTime"][:10])
    assert "a.md" in json.dumps(every)
    delete(world.control, [world.id("a.md")], world.why())
    left = json.dumps(list(events("acme", calls, lineage_store.documents_of(world.control, ids))))
    assert "a.md" not in left and "b.md" in left, "of a deleted document its id alone"


FACETS: dict[str, dict[str, type]] = {
    "documentation": {"description": str}, "version": {"datasetVersion": str}, "dataSource": {"name": str, "uri": str},
    "ownership": {"owners": list}, "parent": {"run": dict, "job": dict},
}  # fmt: skip
"""What the published specification asks of the facets that we tell (OpenLineage 2-0-2, facets 1-0-0)."""


def conforms(event: dict[str, Any]) -> None:
    """What the published specification requires of a RunEvent."""
    assert set(event) == {"eventType", "eventTime", "producer", "schemaURL", "run", "job", "inputs", "outputs"}
    assert event["eventType"] in ("START", "RUNNING", "COMPLETE", "ABORT", "FAIL", "OTHER")
    assert datetime.fromisoformat(event["eventTime"]).tzinfo is not None
    assert event["schemaURL"] == "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"
    assert str(UUID(event["run"]["runId"])) == event["run"]["runId"]
    told = [event["job"], *event["inputs"], *event["outputs"]]
    assert all(isinstance(one["namespace"], str) and isinstance(one["name"], str) and one["name"] for one in told)
    for facets in [one.get("facets", {}) for one in (event["run"], *told)]:
        for name, facet in facets.items():
            assert facet["_producer"] == event["producer"]
            kind = facet["_schemaURL"].rpartition("/")[2]
            assert facet["_schemaURL"] == f"https://openlineage.io/spec/facets/1-0-0/{kind}.json#/$defs/{kind}"
            assert all(isinstance(facet[key], type_) for key, type_ in FACETS[name].items())
    parent = event["run"].get("facets", {}).get("parent")
    assert parent is None or (UUID(parent["run"]["runId"]) and parent["job"]["namespace"] and parent["job"]["name"])
