"""Taking a folder over: what changes with it, what is inherited, what a bad document costs, going on after a kill."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests import knowledge_files as files
from tests.integration.nursery import run_code

from groundplan.blueprint.model import Governed, Source
from groundplan.core.ids import new_id
from groundplan.knowledge.deletion.delete import DeletionReason, delete
from groundplan.knowledge.governance.decide import DecisionContext, decide
from groundplan.knowledge.ingest import IngestSettings, ingest_source
from groundplan.knowledge.intake import run
from groundplan.knowledge.model import IngestReport
from groundplan.knowledge.quality.assess import assess
from groundplan.knowledge.sources.folder import FolderConnector
from groundplan.knowledge.sources.model import Content
from groundplan.knowledge.sources.sql import Layout, SqlConnector, Sqlite
from groundplan.testing import document_rows
from groundplan.testing.database import Database

TODAY = date(2026, 11, 25)
ACL = """# file: .
# owner: ana@acme.example
# group: staff
user::rwx
group::r-x
other::--x

# file: pay.md
# owner: hana@acme.example
# group: hr
user::rw-
user:ben@acme.example:---
group::r--
group:audit:r--
mask::r--
other::---
"""


class World:
    def __init__(self, database: Database, folder: Path) -> None:
        self.control = psycopg.connect(database.urls["control"], autocommit=True)
        self.folder = folder
        self.source = Source(name="s", path="s", sensitivity="internal", owner="ana@acme.example", readers=["everyone"])
        self.review_days: int | None = None

    def write(self, path: str, text: str | bytes) -> Path:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode() if isinstance(text, str) else text)
        return file

    def ingest(self, **governed: Any) -> IngestReport:
        source = Source(
            name="s", path="s", sensitivity="internal", owner="ana@acme.example", readers=["everyone"],
            governed=Governed(**governed),
        )  # fmt: skip
        return ingest_source(
            self.control, source, FolderConnector(self.folder), IngestSettings(review_days=self.review_days)
        )

    def one(self, path: str, columns: str) -> Any:
        row = self.control.execute(f"SELECT {columns} FROM document WHERE path = %s", (path,)).fetchone()
        return row[0] if row and len(row) == 1 else row

    def live(self) -> set[str]:
        rows = self.control.execute("SELECT path FROM document WHERE deleted_at IS NULL")
        return {path for (path,) in rows}

    def readers(self, path: str) -> set[str]:
        rows = self.control.execute(
            """SELECT CASE WHEN r.deny THEN '!' ELSE '' END || r.reader FROM document_reader r
               JOIN document d ON d.id = r.document_id WHERE d.path = %s""",
            (path,),
        )
        return {name for (name,) in rows}

    def findings(self) -> dict[tuple[str, str], tuple[str, str]]:
        rows = self.control.execute("SELECT kind, subject, message, hint FROM finding WHERE closed_at IS NULL")
        return {(kind, subject.removeprefix("source/s/")): (message, hint) for kind, subject, message, hint in rows}


@pytest.fixture
def world(database: Database, tmp_path: Path) -> Iterator[World]:
    world = World(database, tmp_path / "s")
    world.folder.mkdir()
    yield world
    world.control.close()


def test_only_what_changed_is_read_again(world: World) -> None:
    world.write("a.md", "# A\n\none\n")
    world.write("b/c.md", "# C\n\ntwo\n")
    assert (world.ingest().added, world.live()) == (2, {"a.md", "b/c.md"})
    chunks = world.control.execute("SELECT id FROM chunk ORDER BY id").fetchall()
    again = world.ingest()
    assert (again.added, again.changed, again.deleted, again.read) == (0, 0, 0, 2)
    assert world.control.execute("SELECT id FROM chunk ORDER BY id").fetchall() == chunks
    os.utime(world.folder / "a.md", (1, 1))
    assert world.ingest().changed == 0
    world.write("a.md", "# A\n\nother\n")
    (world.folder / "b/c.md").unlink()
    third = world.ingest()
    assert (third.changed, third.deleted, world.live()) == (1, 1, {"a.md"})
    assert world.one("a.md", "version") == 2
    versions = world.control.execute(
        "SELECT v.version FROM document_version v JOIN document d ON d.id = document_id AND path = 'a.md'"
    )
    assert sorted(versions.fetchall()) == [(1,), (2,)]


class Counted(FolderConnector):
    """A folder that notes what is read of it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.reads: list[str] = []

    def read(self, key: str) -> Content:
        self.reads.append(key)
        return super().read(key)


def test_what_a_parser_refused_is_given_to_it_again_once_it_has_changed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = files.pdf()[:300]
    world.write("a.pdf", broken)
    world.write("b.md", "---\nsensitivty: restricted\n---\n# B\n")
    world.write("c.md", "# C\n")

    def look() -> list[str]:
        folder = Counted(world.folder)
        report = ingest_source(world.control, world.source, folder, IngestSettings())
        told = {path: message for (_, path), (message, _) in world.findings().items()}
        assert (report.failed, sorted(told)) == (2, ["a.pdf", "b.md"])
        assert told["a.pdf"] == "a.pdf is not searched: it is not a PDF, or needs a password"
        return sorted(folder.reads)

    assert look() == ["a.pdf", "b.md", "c.md"]
    assert look() == ["b.md"], "what its own words, or folders above it, keep out may be let in by others"
    world.write("a.pdf", broken + b" ")
    assert look() == ["a.pdf", "b.md"]
    assert look() == ["b.md"]
    monkeypatch.setattr(run, "_PROCESS", "another")
    assert look() == ["a.pdf", "b.md"], "another process may have what it takes to read it"
    world.write("a.pdf", files.pdf())
    assert ingest_source(world.control, world.source, FolderConnector(world.folder), IngestSettings()).failed == 1
    assert world.live() == {"a.pdf", "c.md"} and set(world.findings()) == {("knowledge.unreadable", "b.md")}


def test_what_holds_is_inherited_and_says_where_from(world: World) -> None:
    world.write("a.md", "# A\n")
    world.write(
        "in/.governed.yaml", "sensitivity: confidential\nsteward: dana@acme.example\npurposes: [support, sales]\n"
    )
    world.write("in/b.md", "---\nowner: fay@acme.example\npurposes: [support]\nvalid_until: 2027-01-31\n---\n# B\n")
    world.write("in/c.pdf", files.pdf())
    world.write("in/.c.pdf.governed.yaml", "state: draft\nlicence: CC-BY-4.0\n")
    world.review_days = 365
    world.ingest(retain_days=700)
    assert world.one("a.md", "sensitivity, owner, purposes, review_days") == ("internal", "ana@acme.example", None, 365)
    assert world.one("in/b.md", "sensitivity, steward, owner, purposes, valid_until") == (
        "confidential", "dana@acme.example", "fay@acme.example", ["support"], date(2027, 1, 31),
    )  # fmt: skip
    origins = world.one("in/b.md", "origins")
    assert {key: origins[key]["from"] for key in ("sensitivity", "owner", "review_days")} == {
        "sensitivity": "folder/in", "owner": "document", "review_days": "source/s",
    }  # fmt: skip
    assert world.one("in/c.pdf", "state, licence") == ("draft", "CC-BY-4.0")
    assert world.one("a.md", "retain_until") > TODAY


def test_a_document_cannot_open_itself_further(world: World) -> None:
    world.write("a.md", "---\nstate: approved\nsensitivity: public\npurposes: [sales, marketing]\n---\n# A\n")
    world.ingest(state="draft", purposes=["support", "sales"])
    assert world.one("a.md", "state, sensitivity, purposes") == ("draft", "internal", ["sales"])
    assess(world.control, "s", TODAY)
    told = [message for (kind, _), (message, _) in world.findings().items() if kind == "knowledge.metadata"]
    assert told
    assert "wider" in told[0]


def test_a_change_of_the_source_reaches_documents_that_did_not_change(world: World) -> None:
    world.write("a.md", "# A\n")
    world.write("b.md", "---\nstate: retired\n---\n# B\n")
    world.ingest()
    assert (world.one("a.md", "state"), world.one("b.md", "state")) == ("approved", "retired")
    world.ingest(state="draft", legal_hold=True)
    assert world.one("a.md", "state, legal_hold, version") == ("draft", True, 1)
    assert world.one("b.md", "state") == "retired"


def test_an_approval_is_about_the_content_that_was_seen(world: World) -> None:
    world.write("a.md", "# A\n")
    world.ingest(state="draft")
    world.control.execute(
        """UPDATE document SET decided = jsonb_build_object('state', jsonb_build_object(
             'value', 'approved', 'by', 'dana@acme.example', 'digest', digest))"""
    )
    world.ingest(state="draft")
    assert world.one("a.md", "state, origins -> 'state' ->> 'from'") == ("approved", "decision of dana@acme.example")
    world.write("a.md", "# A\n\nand more\n")
    world.ingest(state="draft")
    assert world.one("a.md", "state") == "draft"


def test_a_newer_version_supersedes_once_it_is_approved(world: World) -> None:
    world.write("old/travel-2021.md", "# Travel\n\n41 EUR\n")
    new = "---\nstate: {}\nsupersedes: [travel-2021.md]\n---\n# Travel\n\n52 EUR\n"
    world.write("old/travel.md", new.format("draft"))
    world.ingest()
    assert world.one("old/travel-2021.md", "superseded_by") is None
    world.write("old/travel.md", new.format("approved"))
    world.ingest()
    newer = world.one("old/travel.md", "id")
    assert world.one("old/travel-2021.md", "superseded_by") == newer
    for over in ("state: approved\nvalid_until: 2024-12-31", "state: retired", "state: superseded"):
        world.write("old/travel.md", new.replace("state: {}", over))
        world.ingest()
        assert world.one("old/travel-2021.md", "superseded_by") == newer, "nobody said that the older one holds again"
    (world.folder / "old/travel.md").unlink()
    world.ingest()
    assert world.one("old/travel-2021.md", "superseded_by") is None


def test_what_an_unreadable_version_replaced_stays_out(world: World) -> None:
    world.write("old.md", "# Travel\n\n41 EUR\n")
    world.write("new.md", "---\nsupersedes: [old.md]\n---\n# Travel\n\n52 EUR\n")
    world.ingest()
    newer = world.one("new.md", "id")
    world.write("new.md", "---\nsupersedes: [old.md]\nvalid_until: soon\n---\n# Travel\n\n53 EUR\n")
    for _ in range(2):
        world.ingest()
        assert (world.live(), world.one("old.md", "superseded_by")) == ({"old.md"}, newer)
    world.write("new.md", "---\nsupersedes: [old.md]\n---\n# Travel\n\n53 EUR\n")
    world.ingest()
    assert (world.live(), world.one("old.md", "superseded_by")) == ({"old.md", "new.md"}, newer)
    world.write("new.md", "---\nvalid_until: soon\n---\n# Travel\n\n53 EUR\n")
    world.ingest()
    (world.folder / "new.md").unlink()
    world.ingest()
    assert world.one("old.md", "superseded_by") is None, "it is gone, as if it had been readable"
    assert world.one("new.md", "title, supersedes, declared") == ("new.md", [], {})
    assert world.control.execute("SELECT cause FROM tombstone").fetchall() == [("gone",)], "with a receipt"


def test_the_oldest_of_three_versions_stays_out_where_the_one_in_the_middle_goes(world: World, tmp_path: Path) -> None:
    for number in (1, 2, 3, 4):
        front = f"---\nsupersedes: [v{number - 1}.md]\n---\n" if number > 1 else ""
        world.write(f"v{number}.md", f"{front}# Travel\n\n4{number} EUR\n")
    world.ingest()
    for number in (2, 3):
        (world.folder / f"v{number}.md").unlink()
    world.ingest()
    newest = world.one("v4.md", "id")
    assert (world.live(), world.one("v1.md", "superseded_by")) == ({"v1.md", "v4.md"}, newest)
    world.ingest()
    assert world.one("v1.md", "superseded_by, decided #>> '{superseded_by,by}'") == (newest, "system")
    (world.folder / "v4.md").unlink()
    world.ingest()
    assert world.one("v1.md", "superseded_by") is None
    for number in (2, 3):
        world.write(f"v{number}.md", f"---\nsupersedes: [v{number - 1}.md]\n---\n# Travel\n\n4{number} EUR\n")
    world.ingest()
    assert world.one("v1.md", "superseded_by") == world.one("v2.md", "id")
    delete(
        world.control, [world.one("v2.md", "id")], DeletionReason("operator", "asked for", datetime.now(UTC), tmp_path)
    )
    assert world.one("v1.md", "superseded_by") == world.one("v3.md", "id"), "at once"
    world.ingest()
    assert world.one("v1.md", "superseded_by") == world.one("v3.md", "id")


@pytest.mark.parametrize("length", [2, 3, 5])
def test_of_versions_that_replace_each_other_in_a_circle_the_newest_holds(world: World, length: int) -> None:
    for number in range(length):
        world.write(f"v{number}.md", f"---\nsupersedes: [v{(number + 1) % length}.md]\n---\n# V{number}\n")
        at = 1_700_000_000 + (number * 7 + 3) % length * 86_400
        os.utime(world.folder / f"v{number}.md", (at, at))
    world.write("other.md", "---\nsupersedes: [before.md]\n---\n# Other\n")
    world.write("before.md", "# Before\n")
    newest = max(range(length), key=lambda number: (number * 7 + 3) % length)
    for _ in range(2):
        world.ingest()
        rows = world.control.execute("SELECT path FROM document WHERE superseded_by IS NULL")
        assert {path for (path,) in rows} == {f"v{newest}.md", "other.md"}


def test_readers_by_files_and_by_access_lists(world: World) -> None:
    world.write("a.md", "# A\n")
    world.write("pay.md", "# Pay\n")
    world.write("in/.readers", "hr\n!ben@acme.example\n")
    world.write("in/b.md", "# B\n")
    world.write("in/c.md", "---\nreaders: [finance]\ndeny: [interns]\n---\n# C\n")
    world.control.execute("INSERT INTO people_group (id, type, name) VALUES (%s, 'group', 'interns')", (new_id(),))
    world.ingest()
    assert world.readers("a.md") == {"everyone", "source/s"}
    assert world.readers("in/b.md") == {"hr", "!ben@acme.example"}
    assert world.readers("in/c.md") == {"finance", "!interns", "!ben@acme.example"}
    world.write(".acl", ACL)
    world.ingest()
    assert world.readers("pay.md") == {"hana@acme.example", "hr", "audit", "!ben@acme.example"}
    assert world.readers("a.md") == {"ana@acme.example", "staff"}
    world.write(".acl", ACL.replace("other::--x", "other::---"))
    world.ingest()
    assert world.readers("pay.md") == {"!ben@acme.example"}, "nobody there is known to pass the folder"
    world.write(".acl", "# file: .\n# owner: root\n# group: root\nuser::---\ngroup::---\nother::---\n")
    world.ingest()
    assert world.readers("a.md") == set(), "a list that names nobody lets nobody read, whatever the source says"
    world.write(".acl", "# file: .\nnonsense\n")
    world.ingest()
    assert world.live() == set()


def test_rows_of_a_table_are_read_by_whom_each_allows(world: World, database: Database, tmp_path: Path) -> None:
    people = {name: new_id() for name in ("ana", "ben")}
    for name, id in people.items():
        row = (id, f"{name}@acme.example", name)
        world.control.execute("INSERT INTO person (id, email, name) VALUES (%s, %s, %s)", row)
    table = tmp_path / "pay.db"

    def change(statement: str) -> dict[str, set[str]]:
        with closing(sqlite3.connect(table)) as db, db:
            db.executescript(statement)
        ingest_source(world.control, world.source, SqlConnector(Sqlite(table), Layout("pay", readers="who")))
        found = {}
        for name, id in people.items():
            with psycopg.connect(database.urls["search"]) as conn:
                document_rows.act_for(conn, id)
                found[name] = {text.split()[-1] for (text,) in conn.execute("SELECT text FROM chunk")}
        return found

    ana, ben = (f"{name}@acme.example" for name in people)
    assert change(
        f"""CREATE TABLE pay (id TEXT PRIMARY KEY, amount INT, who TEXT);
            INSERT INTO pay VALUES ('1', 100, '{ana}'), ('2', 200, '{ben}'), ('3', 300, 'everyone'),
              ('4', 400, 'everyone, !{ben}'), ('5', 500, NULL)"""
    ) == {"ana": {"100", "300", "400"}, "ben": {"200", "300"}}
    assert change(f"UPDATE pay SET who = '{ben}' WHERE id IN ('1', '4')") == {
        "ana": {"300"}, "ben": {"100", "200", "300", "400"},
    }  # fmt: skip


def test_each_bad_document_is_one_finding_that_says_what_to_do(world: World) -> None:
    world.write("good.md", "# Good\n")
    for name, data in {
        "bomb.xlsx": files.zip_bomb(), "macro.docx": files.with_macro(files.word_document()), "latin.md": b"caf\xe9",
        "scan.pdf": files.picture_pdf(), "tool.exe": b"MZ", "front.md": b"---\nreview_by: soon\n---\n# X\n",
    }.items():  # fmt: skip
        world.write(name, data)
    with (world.folder / "line.txt").open("wb") as file:
        file.truncate(2 << 30)
    report = world.ingest()
    assert (report.added, report.failed, world.live()) == (1, 7, {"good.md"})
    found = world.findings()
    assert len(found) == 7
    assert all(hint for _, hint in found.values())
    assert found["knowledge.unreadable", "front.md"][1] == "Write `review_by: 2027-01-31`."
    world.write("latin.md", "café")
    world.ingest()
    assert "latin.md" in world.live()
    assert ("knowledge.unreadable", "latin.md") not in world.findings()


def test_what_can_no_longer_be_read_for_certain_is_taken_out(world: World) -> None:
    world.write("a.md", "# A\n")
    world.ingest()
    world.write("a.md", "---\nreaders: everyone\n---\n# A\n")
    world.ingest()
    assert world.live() == set()


CHILD = """
import os, sys
from pathlib import Path
import psycopg
from groundplan.blueprint.model import Source
from groundplan.knowledge.ingest import ingest_source
from groundplan.knowledge.intake import batch
from groundplan.knowledge.sources.folder import FolderConnector

class Dying(psycopg.Connection):
    left = int(sys.argv[3])
    def execute(self, *arguments, **options):
        Dying.left -= 1
        if Dying.left == 0:
            os.kill(os.getpid(), 9)
        return super().execute(*arguments, **options)

batch.BATCH = 20
source = Source(name="s", path="s", sensitivity="internal", owner="ana@acme.example", readers=["everyone"])
ingest_source(Dying.connect(sys.argv[1], autocommit=True), source, FolderConnector(Path(sys.argv[2])))
"""


def test_a_run_that_is_killed_anywhere_is_gone_on_with(world: World, database: Database) -> None:
    """Killed before its 4th statement, 18th, ...: every document is there once in the end, with its passages."""
    for number in range(120):
        world.write(f"d{number % 7}/n{number:03}.md", f"# Note {number}\n\nThis is note {number}.\n")
    grown = [0]
    for statement in (4, 18, 24, 29, 34):
        ended = run_code(CHILD, database.urls["control"], str(world.folder), str(statement))
        assert ended == -signal.SIGKILL
        row = world.control.execute("SELECT count(*) FROM document").fetchone()
        assert row is not None
        grown.append(row[0])
    assert grown == sorted(grown)
    assert 20 < grown[-1] < 120
    report = world.ingest()
    assert (report.read, report.added, report.changed) == (120, 120 - grown[-1], 0)
    assert world.control.execute("SELECT count(*), count(DISTINCT document_id) FROM chunk").fetchone() == (120, 120)
    assert world.control.execute("SELECT max(version) FROM document").fetchone() == (1,)


def test_a_review_is_asked_for_after_the_days_of_the_source(world: World) -> None:
    old = world.write("a.md", "# A\n")
    world.write("b.md", "# B\n\nother\n")
    stamp = time.time() - timedelta(days=400).total_seconds()
    os.utime(old, (stamp, stamp))
    world.review_days = 365
    world.ingest()
    assess(world.control, "s", datetime.now(UTC).date())
    assert {subject for kind, subject in world.findings() if kind == "knowledge.stale"} == {"a.md"}


def test_days_beyond_the_calendar_cost_nobody_anything(world: World) -> None:
    """What one document says of itself must not stop the look at all of them."""
    world.write("a.md", "---\nreview_every: 4000000d\nretain: 100000000d\n---\n# A\n")
    world.write("b.md", "# B\n\nTBD\n")
    assert world.ingest().failed == 0
    assert world.one("a.md", "retain_until") == date.max
    assert assess(world.control, "s", TODAY)["documents"] == 2
    with world.control.transaction():
        said = DecisionContext("operator", "ana@acme.example", "seen", datetime.now(UTC))
        decide(world.control, world.one("b.md", "id"), "reviewed", "9999-12-31", said)
    assert assess(world.control, "s", TODAY)["documents"] == 2


def test_a_review_by_a_person_counts_from_its_day(world: World) -> None:
    world.write("a.md", "---\nreview_by: 2025-01-31\n---\n# A\n")
    world.ingest()
    assess(world.control, "s", TODAY)
    assert ("knowledge.stale", "a.md") in world.findings()
    said = DecisionContext("operator", "the operator", "still right", datetime.now(UTC))
    with world.control.transaction():
        decide(world.control, world.one("a.md", "id"), "reviewed", TODAY.isoformat(), said)
    world.ingest()
    assess(world.control, "s", TODAY)
    assert ("knowledge.stale", "a.md") not in world.findings()
    assess(world.control, "s", TODAY + timedelta(days=366))
    assert ("knowledge.stale", "a.md") in world.findings()
