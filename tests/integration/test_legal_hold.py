"""What a legal hold keeps outlasts what happens at the source, is found by no search, and goes when the hold ends."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.errors import InsufficientPrivilege, LockNotAvailable
from tests.integration.test_knowledge_deletion import NOW, World
from tests.knowledge_intake import source

from groundplan.core.errors import NotFound
from groundplan.knowledge.deletion import deletion_store, legal_hold_store
from groundplan.knowledge.deletion.delete import erase_from_disk, replay_tombstones
from groundplan.knowledge.deletion.legal_hold import keep_versions_before_removal, release_ended_holds
from groundplan.knowledge.deletion.mentions import documents_mentioning, pushed_mentioning
from groundplan.knowledge.governance.decide import DecisionContext, decide
from groundplan.knowledge.ingest import ingest_source
from groundplan.knowledge.sources import push_store
from groundplan.knowledge.sources.push import PushConnector
from groundplan.testing.database import Database


@pytest.fixture
def world(database: Database, tmp_path: Path) -> Iterator[World]:
    world = World(database, tmp_path)
    world.write("a.md", "# A\n\nThe plans of the zanzibar project.\n")
    world.write("b.md", "# B\n\nOther plans.\n")
    world.ingest()
    yield world
    world.control.close()


def held_texts(world: World) -> dict[tuple[str, str], str]:
    """(path, cause) -> the last line of what is kept."""
    rows = world.control.execute("SELECT path, cause, text FROM held_version").fetchall()
    return {(path, cause): text.splitlines()[-1] for path, cause, text in rows}


def finding_messages(world: World) -> set[str]:
    rows = world.control.execute(
        "SELECT message FROM finding WHERE kind = %s AND closed_at IS NULL", (legal_hold_store.FINDING,)
    )
    return {message for (message,) in rows}


def texts(world: World) -> str:
    with psycopg.connect(world.database.urls["search"]) as conn:
        conn.execute("SELECT set_config('groundplan.person', %s, true)", (str(world.person),))
        return " ".join(text for (text,) in conn.execute("SELECT text FROM chunk"))


def held(world: World, path: str) -> Any:
    row = world.control.execute(
        "SELECT legal_hold, origins #>> '{legal_hold,from}' FROM document WHERE path = %s", (path,)
    ).fetchone()
    assert row is not None
    return row


def test_what_a_document_said_outlasts_change_rename_and_loss(world: World) -> None:
    world.decide("a.md", "legal_hold", True, "case 7")
    world.write("b.md", "---\nlegal_hold: true\n---\n# B\n\nThe first word.\n")
    world.ingest()
    assert held_texts(world) == {}, "nothing held has changed yet"
    world.write("a.md", "# A\n\nNothing of it.\n")
    world.write("b.md", "# B\n\nAnother word.\n")
    world.ingest()
    assert held_texts(world) == {
        ("a.md", "changed"): "The plans of the zanzibar project.", ("b.md", "changed"): "The first word."
    }  # fmt: skip
    assert held(world, "b.md") == (True, "document"), "who may write a document does not end its hold"
    world.ingest()
    count = world.control.execute("SELECT count(*) FROM held_version").fetchone()
    assert count == (2,), "and what did not change since is not kept twice"

    (world.folder / "a.md").rename(world.folder / "moved.md")
    (world.folder / "b.md").write_bytes(b"# B \xff\n")
    world.ingest()
    assert held_texts(world)["a.md", "gone"] == "Nothing of it."
    assert held_texts(world)["b.md", "unreadable"] == "Another word."
    assert world.seen() == {"moved.md"}
    assert not {"zanzibar", "first", "Another"} & set(texts(world).split())
    with psycopg.connect(world.database.urls["search"]) as conn, pytest.raises(InsufficientPrivilege):
        conn.execute("SELECT FROM held_version")
    assert finding_messages(world) == {
        "a.md changed and went at its source while a legal hold keeps it: what it said is kept",
        "b.md changed and became unreadable at its source while a legal hold keeps it: what it said is kept",
    }
    mentioned = documents_mentioning(world.control, ["zanzibar"])
    assert mentioned == [(world.id("a.md"), "s", "a.md", True)], "somebody's erasure is told what stays"
    assert release_ended_holds(world.control, world.why()) == 0


def test_it_goes_with_a_receipt_once_a_decision_ends_the_hold(world: World) -> None:
    world.decide("a.md", "legal_hold", True, "case 7")
    (world.folder / "a.md").unlink()
    world.ingest()
    with pytest.raises(NotFound):
        world.decide("a.md", "state", "approved")
    assert (release_ended_holds(world.control, world.why()), erase_from_disk(world.control, NOW)) == (0, 0)
    world.decide("a.md", "legal_hold", False, "closed")
    assert release_ended_holds(world.control, world.why()) == 1
    assert (held_texts(world), finding_messages(world)) == ({}, set())
    (stone,) = deletion_store.tombstones(world.control)
    assert (stone.path, stone.cause, stone.lifted_at is None) == ("a.md", "hold_ended", False)
    assert erase_from_disk(world.control, NOW) == 1
    assert world.actions()[-2:] == ["knowledge.deleted", "knowledge.erased"]
    assert world.control.execute("SELECT title, owner FROM document WHERE path = 'a.md'").fetchone() == ("a.md", None)
    with pytest.raises(NotFound):
        world.decide("a.md", "legal_hold", True)
    world.write("a.md", "# A\n\nAnew.\n")
    world.ingest()
    assert world.seen() == {"a.md", "b.md"}, "its place is open"


def test_a_hold_of_the_source_stands_until_it_is_declared_without(world: World) -> None:
    world.ingest(legal_hold=True)
    (world.folder / "a.md").unlink()
    world.ingest(legal_hold=True)
    assert set(held_texts(world)) == {("a.md", "gone")}
    assert release_ended_holds(world.control, world.why()) == 0, "also while the source is declared no more"
    row = world.control.execute("SELECT * FROM held_version").fetchone()
    assert row is not None
    world.ingest()
    assert release_ended_holds(world.control, world.why()) == 1
    assert held_texts(world) == {}
    with psycopg.connect(world.database.superuser, autocommit=True) as conn:  # as a backup of before has it
        conn.execute("DELETE FROM tombstone")
        conn.execute(
            """INSERT INTO held_version (id, source, path, title, text, cause) VALUES (%s, 's', 'a.md', 'A', 'zanzibar',
               'gone')""",
            (row[0],),
        )
    assert replay_tombstones(world.control, world.home, NOW) == 1
    assert held_texts(world) == {}
    assert [stone.cause for stone in deletion_store.tombstones(world.control)] == ["hold_ended"]


def test_a_hold_that_a_folder_no_longer_says_stands_until_a_decision(world: World) -> None:
    (world.folder / ".governed.yaml").write_text("legal_hold: true\n")
    world.ingest()
    assert held(world, "b.md") == (True, "folder/.")
    (world.folder / ".governed.yaml").unlink()
    world.ingest()
    assert held(world, "b.md") == (True, "folder/.")
    world.decide("b.md", "legal_hold", False, "closed")
    world.ingest()
    assert held(world, "b.md")[0] is False


def test_what_was_pushed_is_kept_as_it_was_sent(world: World) -> None:
    declared = source("p", legal_hold=True)
    ingest_source(world.control, declared, PushConnector(world.control, "p"))

    def put(text: bytes) -> None:
        push_store.put_document(world.control, "p", "n.md", push_store.Pushed(text, "md", None, {}, NOW))

    for text in (b"# N\n\nfirst\n", b"# N\n\nfirst\n", b"# N\n\nsecond\n"):
        put(text)
    push_store.withdraw_document(world.control, "p", "n.md")
    ingest_source(world.control, declared, PushConnector(world.control, "p"))
    rows = world.control.execute("SELECT data, cause FROM held_version ORDER BY at, id").fetchall()
    assert [(bytes(data), cause) for data, cause in rows] == [
        (b"# N\n\nfirst\n", "changed"), (b"# N\n\nsecond\n", "gone")
    ]  # fmt: skip
    assert [held for *_, held in documents_mentioning(world.control, ["second"])] == [True]


def test_what_goes_at_its_source_leaves_the_disk_with_a_receipt_and_may_come_back(world: World) -> None:
    (world.folder / "a.md").unlink()
    world.ingest()
    row = world.control.execute("SELECT title, declared, owner FROM document WHERE path = 'a.md'").fetchone()
    assert row == ("a.md", {}, None)
    waiting, due, erased = deletion_store.source_deletions(world.control)
    assert (waiting, erased) == (1, 0)
    assert due is not None
    assert deletion_store.tombstones(world.control) == [], "nobody decided it"
    assert erase_from_disk(world.control, datetime.now(UTC)) == 0, "tables are not written anew for it before they must"
    world.write("a.md", "# A\n\nIt is back.\n")
    world.ingest()
    assert world.seen() == {"a.md", "b.md"}
    assert erase_from_disk(world.control, due - timedelta(hours=1)) == 1
    assert deletion_store.source_deletions(world.control) == (0, None, 1)
    assert world.actions()[-1] == "knowledge.erased"


def test_whom_the_bytes_of_what_was_pushed_name_is_told_also_beyond_ascii(world: World) -> None:
    declared = source("p", legal_hold=True)
    ingest_source(world.control, declared, PushConnector(world.control, "p"))
    for text in ("of J\u00f6rg M\u00fcller, 100 % of C:\\files", "of nobody"):
        put = push_store.Pushed(text.encode(), "md", None, {}, NOW)
        push_store.put_document(world.control, "p", "n.md", put)
    for word in ("J\u00f6rg M\u00fcller", "J\u00d6RG M\u00dcLLER", "m\u00fcller", "100 % of", "c:\\files"):
        assert [held for *_, held in documents_mentioning(world.control, [word])] == [True], word
    assert documents_mentioning(world.control, ["M\u00f6ller", "100 ? of"]) == []


def test_a_hold_is_decided_before_or_after_what_it_keeps_is_destroyed_and_not_meanwhile(world: World) -> None:
    """Else it would stand, and what it keeps be gone."""
    declared = source("p")
    ingest_source(world.control, declared, PushConnector(world.control, "p"))
    push_store.put_document(world.control, "p", "n.md", push_store.Pushed(b"# N\n\nfirst\n", "md", None, {}, NOW))
    ingest_source(world.control, declared, PushConnector(world.control, "p"))

    def waits(path: str, value: bool) -> None:
        with psycopg.connect(world.database.urls["control"]) as other:
            other.execute("SET lock_timeout = '50ms'")
            with pytest.raises(LockNotAvailable):
                said = DecisionContext(f"person:{world.person}", "dana@acme.example", "case 7", NOW)
                decide(other, world.id(path), "legal_hold", value, said)

    with world.control.transaction():
        assert keep_versions_before_removal(world.control, {world.id("a.md"): "gone"}) == 0
        waits("a.md", True)
    with world.control.transaction():
        legal_hold_store.keep_pushed_bytes(world.control, "p", "n.md", "changed", b"other")
        waits("n.md", True)
    world.decide("a.md", "legal_hold", True, "case 7")
    (world.folder / "a.md").unlink()
    world.ingest()
    with world.control.transaction():
        assert legal_hold_store.ended_versions(world.control) == []
        waits("a.md", False)


def test_what_was_pushed_names_somebody_by_what_no_search_shows(world: World) -> None:
    def put(path: str, data: bytes, media: str, told: dict[str, Any] | None = None) -> None:
        push_store.put_document(world.control, "p", path, push_store.Pushed(data, media, None, told or {}, NOW))

    page = "<p>Hello.</p><!-- by J\u00f6rg M\u00fcller -->".encode()
    put("shown.html", page, "html")
    put("broken.md", b"---\nreaders: [\n---\nBy J\xc3\xb6rg M\xc3\xbcller.\n", "md")
    put("told.md", b"---\n[\n---\n", "md", {"author": "J\u00f6rg M\u00fcller"})
    put("other.md", b"---\n[\n---\nOf nobody.\n", "md")
    ingest_source(world.control, source("p"), PushConnector(world.control, "p"))
    names = ["j\u00f6rg m\u00fcller"]
    assert [path for _, _, path, _ in documents_mentioning(world.control, names)] == ["shown.html"]
    assert pushed_mentioning(world.control, names) == [("p", "broken.md", False), ("p", "told.md", False)]
    world.control.execute("UPDATE source SET legal_hold = true WHERE name = 'p'")
    assert {held for *_, held in pushed_mentioning(world.control, names)} == {True}
    assert pushed_mentioning(world.control, ["M\u00f6ller"]) == []
