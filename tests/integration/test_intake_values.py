"""What documents and their names may say: unseen characters, unknown names, no date; and who parsed them."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg
import pypdfium2
import pytest
from tests import knowledge_files as files
from tests.forked_parsers import without_forking
from tests.knowledge_intake import Intake, ScriptedConnector

from groundplan.core.ids import new_id
from groundplan.knowledge.parsing.model import Job
from groundplan.knowledge.parsing.prepare import parse_job
from groundplan.knowledge.quality.assess import assess, scan_pending
from groundplan.knowledge.quality.text import glossary
from groundplan.knowledge.sources.folder import FolderConnector
from groundplan.testing import document_rows
from groundplan.testing.database import Database


@pytest.fixture
def intake(database: Database) -> Iterator[Intake]:
    intake = Intake(database)
    yield intake
    intake.close()


HOSTILE = {
    "front.md": b'---\ntitle: "a\\0b"\ntags: ["x\\0y", {"k\\0": "\\0"}]\n---\n# A\n\nfirst\n',
    "title.json": b'{"title": "a\\u0000b", "k\\u0000ey\\nx": "second\\u0000", "half": "\\ud800"}',
    "beside.pdf.md": b"# B\n\nthird\n",
    "mail.eml": b"From: a@x.example\nSubject: =?utf-8?q?a=00b?=\nContent-Type: multipart/mixed; boundary=b\n\n"
    b"--b\n\nfourth\n--b\nContent-Disposition: attachment; filename*=utf-8''c%00d\n\nx\n--b--\n",
    "page.html": b"<title>a\0b</title><p>fifth &#0; &#xD800;</p>",
    "table.csv": b"na\0me,x\nsixth\0,1\n",
    "number.md": b"---\nn: 99999999999999999999999999\n---\n# N\n\nseventh\n",
}  # fmt: skip


def test_unseen_characters_stop_nothing(intake: Intake, tmp_path: Path) -> None:
    for name, data in HOSTILE.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / ".beside.pdf.md.governed.yaml").write_text('licence: "a\\0b"\nnote: {"x\\0": ["\\0"]}\n')
    report = intake.ingest(FolderConnector(tmp_path))
    assert (intake.findings(), report.added, report.failed) == ({}, len(HOSTILE), 0)
    assert intake.document_columns("front.md", "title") == "a b"
    assert intake.document_columns("title.json", "title") == "a b"
    assert intake.document_text("title.json") == "title: a b\nk ey x: second \nhalf:"
    assert intake.document_columns("beside.pdf.md", "licence") == "a b"
    assert "\0" not in str(intake.document_columns("mail.eml", "notes, title"))


def test_readers_with_unseen_characters_are_not_guessed(intake: Intake, tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# A\n")
    (tmp_path / ".readers").write_bytes(b"hr\0\n")
    intake.ingest(FolderConnector(tmp_path))
    assert intake.live_paths() == set()
    assert ".readers of its folder cannot be read" in intake.findings()["knowledge.unreadable", "a.md"]


def test_values_without_end_are_refused() -> None:
    names = "abcdefghij"
    lines = ["---", "a: &a [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]" for a, b in pairwise(names)]
    with pytest.raises(Exception, match="without end"):
        parse_job(Job(key="a.md", data="\n".join([*lines, "---", "# A"]).encode()))


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are bytes on Linux")
def test_a_name_that_is_not_utf_8_costs_its_document(intake: Intake, tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# A\n")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.md")).write_text("# B\n")
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/f\xfcr"))
    folder.mkdir()
    (folder / "c.md").write_text("# C\n")
    intake.ingest(FolderConnector(tmp_path))
    assert intake.live_paths() == {"a.md"}
    told = "its name is not UTF-8, or longer than 1000 characters"
    assert intake.findings() == {
        ("knowledge.unreadable", "caf\\xe9.md"): f"caf\\xe9.md is not searched: {told}",
        ("knowledge.unreadable", "f\\xfcr/c.md"): f"f\\xfcr/c.md is not searched: {told}",
    }
    intake.ingest(ScriptedConnector({"a\0b": b"# A", "x" * 1001: b"# B", "c": b"# C"}))
    assert intake.live_paths() == {"c"}


def test_a_document_without_a_date_is_kept_from_when_it_was_first_seen(intake: Intake) -> None:
    today = datetime.now(UTC).date()
    given = ScriptedConnector({"a": b"# A\n\nIt is so.\n", "b": b"# B\n\nIt is other.\n"})
    intake.ingest(given, retain_days=100)
    assert intake.document_columns("a", "modified_at").date() == today
    intake.conn.execute("UPDATE document SET modified_at = now() - interval '30 days'")
    intake.ingest(given, retain_days=90)
    assert intake.document_columns("a", "retain_until") == today + timedelta(days=60), "not from today at every look"
    given.texts["a"] = b"---\nlicence: MIT\n---\n# A\n\nIt is so.\n"
    given.texts["b"] = b"# B\n\nIt is new.\n"
    intake.ingest(given, retain_days=90)
    assert intake.document_columns("a", "version, retain_until") == (2, today + timedelta(days=60)), (
        "its words are the same"
    )
    assert intake.document_columns("b", "version, retain_until") == (2, today + timedelta(days=90))
    intake.conn.execute("UPDATE document SET modified_at = now() - interval '400 days', review_days = 365")
    assess(intake.conn, "s", datetime.now(UTC).date())
    assert {about for kind, about in intake.findings() if kind == "knowledge.stale"} == {"a", "b"}
    told = datetime(2026, 1, 2, tzinfo=UTC)
    given.modified_at, given.texts["a"] = (lambda _: told), b"# A\n\nThird.\n"
    intake.ingest(given, retain_days=90)
    assert intake.document_columns("a", "modified_at") == told


@pytest.mark.parametrize("said", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2999-01-01T00:00:00Z"])
def test_a_time_that_cannot_be_is_not_kept(intake: Intake, said: str) -> None:
    """A year before the first would be kept, and never given again: neither to a search nor to the next look."""
    given = ScriptedConnector({"a": b"# A\n\nIt is so.\n"}, modified_at=lambda _: datetime.fromisoformat(said))
    assert intake.ingest(given).failed == 0
    assert intake.document_columns("a", "modified_at").date() == datetime.now(UTC).date()
    assert intake.ingest(given).failed == 0


def visible_paths(intake: Intake, person: object) -> set[str]:
    with psycopg.connect(intake.database.urls["search"]) as conn:
        document_rows.act_for(conn, person)  # type: ignore[arg-type]
        return {path for (path,) in conn.execute("SELECT path FROM document")}


def test_a_misspelt_refusal_refuses_everybody(intake: Intake) -> None:
    intake.add_group("contractors")
    ana, ben = new_id(), new_id()
    for id, name in ((ana, "ana"), (ben, "ben")):
        intake.conn.execute(
            "INSERT INTO person (id, email, name) VALUES (%s, %s, %s)", (id, f"{name}@acme.example", name)
        )
    intake.conn.execute(
        """INSERT INTO membership (id, group_id, person_id)
           SELECT %s, id, %s FROM people_group WHERE name = 'contractors'""",
        (new_id(), ben),
    )
    given = ScriptedConnector(
        {name: f"# {name}\n\nThis is {name}.\n".encode() for name in ("right", "wrong", "left", "open", "full")},
        governed_values={
            "right": {"deny": ["contractors"]}, "wrong": {"deny": ["contracters"]},
            "left": {"deny": ["gone@acme.example"]}, "full": {"deny": ["B <b@acme.example>"]},
        },
    )  # fmt: skip
    intake.ingest(given)
    assert (visible_paths(intake, ana), visible_paths(intake, ben)) == ({"right", "left", "open"}, {"left", "open"})
    found = {about: message for (kind, about), message in intake.findings().items() if "unknown" in kind}
    assert found == {
        "reader:!contracters": "'contracters' is refused by wrong, but is no group, team or person",
        "reader:!b <b@acme.example>": "'b <b@acme.example>' is refused by full, but is no group, team or person",
        "reader:!gone@acme.example": "'gone@acme.example' is refused by left, but is no group, team or person",
    }
    assess(intake.conn, "s", datetime.now(UTC).date())
    assert ("knowledge.reader_unknown", "reader:!contracters") in intake.findings(), "a look does not close it"
    intake.add_group("contracters")
    intake.ingest(given)
    assert visible_paths(intake, ana) == {"right", "wrong", "left", "open"}
    assert ("knowledge.reader_unknown", "reader:!contracters") not in intake.findings()


UNCONFINED = """
import sys
from groundplan.knowledge.parsing import worker
worker.confine = lambda memory: False
raise SystemExit(worker.main())
"""


def test_a_parser_that_the_kernel_does_not_confine_is_told(
    intake: Intake, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "a.md").write_text("# A\n")
    intake.ingest(FolderConnector(tmp_path))
    assert (intake.document_columns("a.md", "confined"), intake.findings()) == (True, {})
    real = subprocess.Popen

    def popen(command: list[str], **rest: Any) -> Any:
        assert command[-2] == "groundplan.knowledge.parsing.worker"
        return real([command[0], "-I", "-c", UNCONFINED], **rest)

    monkeypatch.setattr(subprocess, "Popen", popen)
    (tmp_path / "b.md").write_text("# B\n")
    with without_forking():
        intake.ingest(FolderConnector(tmp_path))
    assert (intake.document_columns("a.md", "confined"), intake.document_columns("b.md", "confined")) == (True, False)
    assert intake.findings() == {
        ("knowledge.unconfined", ""): "1 document was read by a parser that the kernel does not confine"
    }
    monkeypatch.undo()
    (tmp_path / "b.md").write_text("# B\n\nnew\n")
    intake.ingest(FolderConnector(tmp_path))
    assert intake.findings() == {}


def test_notes_tell_tables_that_were_not_looked_for() -> None:
    book = pypdfium2.PdfDocument.new()
    book.import_pages(pypdfium2.PdfDocument(files.pdf(table=True)), [0] * 62)
    written = io.BytesIO()
    book.save(written)
    found = parse_job(Job(key="a.pdf", data=written.getvalue(), tables=True))
    assert len(found.tables) == 60
    assert found.notes == ["what may be tables on 2 pages, from page 61 on, is read as text only"]


@pytest.mark.parametrize("before", range(372, 402, 3))
def test_personal_data_is_found_where_a_passage_ends(intake: Intake, before: int) -> None:
    """A line that is longer than a passage is cut after a word, and so may an account number be."""
    words = ("word " * 100)[:before]
    intake.ingest(ScriptedConnector({"a.md": f"{words} DE89 3704 0044 0532 0130 00 {words}".encode()}))
    scan_pending(intake.conn, glossary(()))
    assert intake.document_columns("a.md", "personal") == {"iban": 1}
    assert intake.conn.execute("SELECT count(*) > 1 FROM chunk").fetchone() == (True,)
