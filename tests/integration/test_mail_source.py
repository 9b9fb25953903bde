"""Archives of e-mail: where messages begin, whose they are, and what a hostile one costs."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
from tests.knowledge_intake import Intake

from groundplan.api.knowledge import store as shown
from groundplan.core.errors import Invalid, Unavailable
from groundplan.knowledge.quality.assess import assess, scan_pending
from groundplan.knowledge.quality.grouped_findings import MAX_SINGLE
from groundplan.knowledge.quality.text import glossary
from groundplan.knowledge.sources.mail import MailConnector
from groundplan.testing.database import Database

DAY = "Tue Nov 24 10:00:00 2026"


def message(id: str, text: str, sender: str = "ana@acme.example") -> str:
    head = f"From: {sender}\nTo: ben@acme.example\nMessage-ID: <{id}>\nSubject: {id}"
    return f"{head}\nContent-Type: text/plain; charset=utf-8\n\n{text}\n"


def mbox(path: Path, *messages: str) -> Path:
    path.write_bytes("".join(f"From ana {DAY}\n{each}\n" for each in messages).encode())
    return path


@pytest.fixture
def intake(database: Database) -> Iterator[Intake]:
    intake = Intake(database)
    yield intake
    intake.close()


def test_a_paragraph_that_begins_with_from_is_text(intake: Intake, tmp_path: Path) -> None:
    body = "Greetings.\n\nFrom São Paulo they come on Tuesday.\n\n>From here quoted\n>>From twice"
    box = mbox(tmp_path / "box", message("a", body), message("b", "The other."))
    assert intake.ingest(MailConnector(box, participants=True)).failed == 0
    assert intake.live_paths() == {"a.eml", "b.eml"}
    text = intake.document_text("a.eml")
    assert "From São Paulo they come on Tuesday." in text
    assert "\nFrom here quoted\n>From twice" in text
    assert intake.readers("a.eml") == {"ana@acme.example", "ben@acme.example"}


def test_a_message_is_as_old_as_it_says_but_never_of_a_day_to_come(intake: Intake, tmp_path: Path) -> None:
    dated = [
        message(f"m{number}", "Hello.").replace("Subject:", f"Date: {day}\nSubject:", 1)
        for number, day in enumerate(("Tue, 5 May 2020 10:00:00 +0200", "Tue, 5 May 2093 10:00:00 -0000", "soon"))
    ]
    archive = mbox(tmp_path / "mail", *dated)
    intake.ingest(MailConnector(archive))
    years = intake.conn.execute("SELECT extract(year FROM modified_at)::int, modified_at <= now() FROM document")
    found = sorted(years.fetchall())
    assert found[0] == (2020, True)
    assert len(found) == 3
    assert all(seen and year > 2020 for year, seen in found[1:]), "else as old as it was first seen"


def test_first_lines_as_programs_write_them(tmp_path: Path) -> None:
    box = tmp_path / "box"
    heads = [
        "From - Tue Nov 24 10:00:00 2026", "From 12@xxx Tue Nov 24 10:00:00 +0000 2026",
        "From ana at acme.example  Tue Nov  4 10:00:00 2026", "From ana@x Tue, 24 Nov 2026 10:00:00",
        "From ana@x  Tue Nov 24 10:00:00 CET 2026\r",
    ]  # fmt: skip
    box.write_bytes("".join(f"{head}\n{message(f'm{n}', 'x')}\n" for n, head in enumerate(heads)).encode())
    assert [change.key for change in MailConnector(box).changes(None)] == [f"m{n}.eml" for n in range(len(heads))]


@pytest.mark.parametrize("mark", ["X-Mozilla-Status: 0009", "X-Mozilla-Status: 000b\r", "X-Status: AD", "x-status: D"])
def test_a_message_that_was_deleted_is_gone_before_its_file_is_packed_anew(
    intake: Intake, tmp_path: Path, mark: str
) -> None:
    """As Thunderbird and others delete: the message stays in the file, with a mark."""
    first, other = message("a", "The first."), message("b", "X-Status: D is text here.")
    read = "X-Mozilla-Status: 0001\nX-Status: A"
    box = mbox(tmp_path / "box", f"{read}\n{first}", other)
    intake.ingest(MailConnector(box))
    assert intake.live_paths() == {"a.eml", "b.eml"}
    mbox(box, f"{mark}\n{first}", other)
    intake.ingest(MailConnector(box))
    assert intake.live_paths() == {"b.eml"}


def test_a_message_in_the_trash_of_a_maildir_is_gone(intake: Intake, tmp_path: Path) -> None:
    for folder in ("new", "cur"):
        (tmp_path / "m" / folder).mkdir(parents=True)
    for name in ("1.a:2,S", "2.T:2,FS", "3.c:2,ST"):
        (tmp_path / "m/cur" / name).write_text(message(name[0], "Text."))
    intake.ingest(MailConnector(tmp_path / "m"))
    assert intake.live_paths() == {"1.eml", "2.eml"}


def test_mailboxes_in_a_maildir_are_read_but_for_what_was_thrown_away(intake: Intake, tmp_path: Path) -> None:
    boxes = ("", ".Sent", ".Projects.2026", ".Trash", ".Projects.Trash", ".Junk", "plain", ".no")
    for number, box in enumerate(boxes):
        folder = tmp_path / "m" / box / ("cur" if box != ".no" else "tmp")
        folder.mkdir(parents=True)
        (folder / f"{number}.a:2,S").write_text(message(f"m{number}", "Text."))
    (tmp_path / "m" / ".Link").symlink_to(tmp_path / "m" / ".Trash")
    intake.ingest(MailConnector(tmp_path / "m"))
    assert intake.live_paths() == {"m0.eml", "m1.eml", "m2.eml"}


def test_a_foreign_message_with_a_known_id_replaces_nothing(intake: Intake, tmp_path: Path) -> None:
    true = message("a@acme", "Pay to account 1.")
    box = mbox(tmp_path / "box", true)
    intake.ingest(MailConnector(box, participants=True))
    forged = message("a@acme", "Pay to account 2.", "mallory@evil.example")
    mbox(box, true, forged, true)
    assert intake.ingest(MailConnector(box, participants=True)).changed == 0
    assert "account 1" in intake.document_text("a@acme.eml")
    (other,) = intake.live_paths() - {"a@acme.eml"}
    assert "account 2" in intake.document_text(other)
    assert intake.readers(other) == {"mallory@evil.example", "ben@acme.example"}
    folder = tmp_path / "maildir"
    for name in ("cur", "new", "tmp"):
        (folder / name).mkdir(parents=True)
    (folder / "new/1700000002.x").write_text(forged)
    (folder / "cur/1700000001.y:2,S").write_text(true)
    connector = MailConnector(folder)
    assert len(list(connector.changes(None))) == 2
    assert b"account 1" in connector.read("a@acme.eml").data


def test_who_takes_part_is_found_by_the_confined_parser(tmp_path: Path) -> None:
    """Whoever a display name looks like is nobody, and a head that cannot be understood lets nobody in."""
    head = "From: =?utf-8?q?eve=40acme.example=2C?= <Ana@ACME.example>\n"
    head += "To: b@x.example, =?utf-8?q?J=C3=BCrg?= <j@x.example>\n"
    box = mbox(tmp_path / "box", f"{head}Cc: Team: c@x.example, d@x.example;\nMessage-ID: <a>\n\nHi\n")
    connector = MailConnector(box, participants=True)
    list(connector.changes(None))
    assert connector.read("a.eml").governed_values["readers"] == [
        "ana@acme.example", "b@x.example", "c@x.example", "d@x.example", "j@x.example",
    ]  # fmt: skip
    connector.close()
    mbox(box, "\n\nno head at all\n")
    connector = MailConnector(box, participants=True)
    (change,) = connector.changes(None)
    with pytest.raises(Invalid):
        connector.read(change.key)
    connector.close()


@pytest.mark.parametrize("size", [200 << 20, pytest.param(2 << 30, marks=pytest.mark.soak)])
def test_an_endless_line_costs_one_message(intake: Intake, tmp_path: Path, size: int) -> None:
    box = mbox(tmp_path / "box", message("a", "Before."), message("big", "x"))
    with box.open("ab") as file:
        file.truncate(file.tell() + size)
        file.seek(0, os.SEEK_END)
        file.write(f"\n\nFrom ana {DAY}\n{message('z', 'After.')}".encode())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    report = intake.ingest(MailConnector(box))
    assert (report.added, report.failed, intake.live_paths()) == (2, 1, {"a.eml", "z.eml"})
    assert "larger than 64 MiB" in intake.findings()["knowledge.unreadable", "big.eml"]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 150 << 10


@pytest.mark.parametrize("kind", ["no mbox", "no maildir", "nothing"])
def test_what_is_no_archive_deletes_nothing(intake: Intake, tmp_path: Path, kind: str) -> None:
    box = mbox(tmp_path / "box", message("a", "A."))
    intake.ingest(MailConnector(box))
    box.unlink()
    if kind == "no mbox":
        box.write_text("Dear Ana,\n\nFrom here on this is a letter.\n")
    elif kind == "no maildir":
        box.mkdir()
    intake.ingest(MailConnector(box))
    assert intake.live_paths() == {"a.eml"}
    assert ("knowledge.source_missing", "") in intake.findings()


def test_an_archive_that_changes_while_it_is_read(tmp_path: Path) -> None:
    box = mbox(tmp_path / "box", message("a", "A."), message("b", "B."))
    connector = MailConnector(box)
    list(connector.changes(None))
    mbox(box, message("c", "C."), message("b", "B."))
    with pytest.raises(Unavailable):
        connector.read("a.eml")


def assessed(intake: Intake, box: Path) -> tuple[list[tuple[object, ...]], dict[str, int], set[float]]:
    """(subject, owner, message) of the findings of personal data, what the score is made of, scores of documents."""
    intake.ingest(MailConnector(box))
    scan_pending(intake.conn, glossary([]))
    assess(intake.conn, "s", date(2026, 11, 25))
    told = intake.conn.execute(
        """SELECT subject, owner, message, fix IS NULL FROM finding
           WHERE closed_at IS NULL AND kind = 'knowledge.personal_data' ORDER BY subject"""
    ).fetchall()
    ((parts,),) = intake.conn.execute("SELECT parts FROM source_quality").fetchall()
    scores = {score for (score,) in intake.conn.execute("SELECT quality FROM document WHERE deleted_at IS NULL")}
    return told, parts, scores


def test_addresses_in_every_message_are_one_task_and_each_message_is_worth_as_little(
    intake: Intake, tmp_path: Path
) -> None:
    texts = ["orchid", "barrel", "candle", "dragon", "engine"]
    many = [message(f"m{n}", f"{texts[n % 5]} {n * 7919} of {texts[n % 3]} and {n}.") for n in range(MAX_SINGLE + 5)]
    told, parts, before = assessed(intake, mbox(tmp_path / "box", *many[:MAX_SINGLE]))
    assert len(told) == parts["knowledge.personal_data"] == MAX_SINGLE
    assert told[0][0] == "source/s/m0.eml" and not told[0][3], "each with a fix of its own"
    told, parts, after = assessed(intake, mbox(tmp_path / "box", *many))
    ((subject, owner, text, without_fix),) = told
    assert (subject, owner, without_fix) == ("source/s", "ana@acme.example", True)
    assert str(text).startswith(f"{MAX_SINGLE + 5} documents in s are public or internal and hold personal data: ")
    assert "e-mail addresses" in str(text)
    assert parts["knowledge.personal_data"] == MAX_SINGLE + 5 and max(after) == max(before) <= 0.7
    assert len(shown.documents(intake.conn, "s", holds="personal_data")) == MAX_SINGLE + 5
    intake.conn.execute("UPDATE document SET sensitivity = 'confidential' WHERE path IN ('m0.eml', 'm1.eml')")
    assert len(shown.documents(intake.conn, "s", holds="personal_data")) == MAX_SINGLE + 3
    told, _, _ = assessed(intake, mbox(tmp_path / "box", *many[:2]))
    assert told == [] or all(subject != "source/s" for subject, *_ in told), "the task closes with what it was for"
