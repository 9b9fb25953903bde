"""A document that was renamed or moved: what was decided about it goes with it where it narrows, no less is known."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from tests.knowledge_intake import Intake, source

from groundplan.knowledge.deletion.delete import DeletionReason, delete, readmit
from groundplan.knowledge.governance.decide import DecisionContext, decide
from groundplan.knowledge.governance.declared_store import put_declared_sources
from groundplan.knowledge.ingest import IngestSettings, ingest_source
from groundplan.knowledge.intake import run as intake_run
from groundplan.knowledge.sources.folder import FolderConnector
from groundplan.testing.database import Database

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)


@pytest.fixture
def intake(database: Database) -> Iterator[Intake]:
    intake = Intake(database)
    yield intake
    intake.close()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    folder = tmp_path / "s"
    (folder / "in").mkdir(parents=True)
    (folder / "in" / "pay.md").write_text("# Pay\n\nBands of 2026.\n")
    return folder


def decide_value(intake: Intake, path: str, name: str, value: Any) -> None:
    id: UUID = intake.document_columns(path, "id")
    with intake.conn.transaction():
        decide(intake.conn, id, name, value, DecisionContext("operator", "ana@acme.example", "so it is", NOW))


def ingest(intake: Intake, folder: Path, **governed: Any) -> None:
    intake.ingest(FolderConnector(folder), **governed)


@pytest.mark.parametrize("to", ["a-first/pay.md", "z-last/pay.md", "in/bands.md"])
def test_a_document_that_was_moved_stays_rejected(intake: Intake, place: Path, to: str) -> None:
    ingest(intake, place)
    decide_value(intake, "in/pay.md", "state", "rejected")
    decide_value(intake, "in/pay.md", "sensitivity", "restricted")
    (place / to).parent.mkdir(exist_ok=True)
    (place / "in/pay.md").rename(place / to)
    ingest(intake, place)
    assert intake.live_paths() == {to}
    assert intake.document_columns(to, "state, sensitivity") == ("rejected", "restricted")
    assert intake.document_columns(to, "origins #>> '{state,from}'") == "decision of ana@acme.example"
    ingest(intake, place)
    assert intake.document_columns(to, "state, sensitivity") == ("rejected", "restricted"), (
        "nor does it end with the next look"
    )
    told = intake.conn.execute("SELECT count(*) FROM audit_entry WHERE action = 'knowledge.carried'").fetchone()
    assert told == (2,)


def test_a_rejection_holds_when_it_comes_back_under_another_name(intake: Intake, place: Path) -> None:
    ingest(intake, place)
    decide_value(intake, "in/pay.md", "state", "rejected")
    data = (place / "in/pay.md").read_bytes()
    (place / "in/pay.md").unlink()
    ingest(intake, place)
    (place / "in/again.md").write_bytes(data)
    ingest(intake, place)
    assert intake.document_columns("in/again.md", "state") == "rejected"


def test_nothing_that_was_decided_opens_a_document_at_its_new_place(intake: Intake, place: Path) -> None:
    (place / "shut").mkdir()
    (place / "shut" / ".governed.yaml").write_text("sensitivity: restricted\npurposes: [hr]\n")
    ingest(intake, place, state="draft")
    for name, value in (("state", "approved"), ("sensitivity", "public"), ("purposes", ["hr", "sales"])):
        decide_value(intake, "in/pay.md", name, value)
    (place / "in/pay.md").rename(place / "shut/pay.md")
    ingest(intake, place, state="draft")
    assert intake.document_columns("shut/pay.md", "state, sensitivity, purposes") == ("draft", "restricted", ["hr"])
    assert intake.document_columns("shut/pay.md", "decided") == {}, "what holds there is not decided about it"


def test_a_copy_is_another_document(intake: Intake, place: Path) -> None:
    ingest(intake, place)
    decide_value(intake, "in/pay.md", "state", "retired")
    (place / "in/copy.md").write_bytes((place / "in/pay.md").read_bytes())
    ingest(intake, place)
    assert (intake.document_columns("in/copy.md", "state"), intake.document_columns("in/pay.md", "state")) == (
        "approved",
        "retired",
    )


def test_the_original_of_a_copy_that_was_deleted_or_retired_may_be_moved(intake: Intake, place: Path) -> None:
    for name in ("copy", "other"):
        (place / f"{name}.md").write_bytes((place / "in/pay.md").read_bytes())
    ingest(intake, place)
    why = DeletionReason(by="operator", reason="one is enough", at=NOW, home=place.parent)
    delete(intake.conn, [intake.document_columns("copy.md", "id")], why)
    decide_value(intake, "other.md", "state", "retired")
    for name in ("copy", "other"):
        (place / f"{name}.md").unlink()
    ingest(intake, place)
    (place / "in/pay.md").rename(place / "in/bands.md")
    ingest(intake, place)
    assert (intake.live_paths(), intake.document_columns("in/bands.md", "state")) == ({"in/bands.md"}, "approved")


def test_two_with_the_same_bytes_keep_what_was_decided_about_each(intake: Intake, place: Path) -> None:
    (place / "in/old.md").write_bytes((place / "in/pay.md").read_bytes())
    ingest(intake, place)
    decide_value(intake, "in/old.md", "state", "retired")
    (place / "in").rename(place / "moved")
    ingest(intake, place)
    assert [intake.document_columns(f"moved/{name}.md", "state") for name in ("old", "pay")] == ["retired", "approved"]


def test_a_hold_and_a_newer_version_go_with_it(intake: Intake, place: Path) -> None:
    (place / "in/new.md").write_text("# Pay\n\nBands of 2027.\n")
    ingest(intake, place)
    decide_value(intake, "in/pay.md", "legal_hold", True)
    decide_value(intake, "in/pay.md", "superseded_by", str(intake.document_columns("in/new.md", "id")))
    (place / "in").rename(place / "moved")
    ingest(intake, place)
    assert intake.live_paths() == {"moved/new.md", "moved/pay.md"}
    # the newer one was moved as well, and is another document now
    assert intake.document_columns("moved/pay.md", "legal_hold, state") == (True, "superseded")


def test_what_was_deleted_stays_deleted_under_another_name(intake: Intake, place: Path) -> None:
    ingest(intake, place)
    why = DeletionReason(by="operator", reason="not ours", at=NOW, home=place.parent)
    delete(intake.conn, [intake.document_columns("in/pay.md", "id")], why)
    (place / "a.md").write_bytes((place / "in/pay.md").read_bytes())
    ingest(intake, place)
    assert intake.live_paths() == {"a.md"}, "a copy is another document"
    (place / "a.md").unlink()
    ingest(intake, place)
    (place / "in/pay.md").rename(place / "b.md")
    ingest(intake, place)
    assert intake.live_paths() == set()
    assert "deleted here under another name" in intake.findings()["knowledge.unreadable", "b.md"]
    readmit(intake.conn, "s", "in/pay.md", why)
    ingest(intake, place)
    assert intake.live_paths() == {"b.md"}


def test_what_was_decided_about_an_empty_file_is_about_no_other(intake: Intake, place: Path) -> None:
    (place / "one.md").touch()
    (place / "two.md").write_text("\n")
    ingest(intake, place)
    decide_value(intake, "one.md", "state", "rejected")
    why = DeletionReason(by="operator", reason="not ours", at=NOW, home=place.parent)
    delete(intake.conn, [intake.document_columns("two.md", "id")], why)
    for name in ("one", "two"):
        (place / f"{name}.md").unlink()
    ingest(intake, place)
    (place / "three.md").touch()
    (place / "four.md").write_text("\n")
    ingest(intake, place)
    assert intake.live_paths() == {"in/pay.md", "three.md", "four.md"}
    (place / "three.md").write_text("# Three\n\nWritten since.\n")
    ingest(intake, place)
    assert intake.document_columns("three.md", "state") == "approved"


def test_what_was_replaced_is_not_found_again_where_it_is_filed_away(intake: Intake, place: Path) -> None:
    (place / "in/new.md").write_text("---\nsupersedes: [pay.md]\n---\n# Pay\n\nBands of 2027.\n")
    ingest(intake, place)
    newer = intake.document_columns("in/new.md", "id")
    (place / "archive").mkdir()
    (place / "in/pay.md").rename(place / "archive/pay.md")
    ingest(intake, place)
    assert (intake.live_paths(), intake.document_columns("archive/pay.md", "superseded_by")) == (
        {"archive/pay.md", "in/new.md"},
        newer,
    )
    ingest(intake, place)
    assert intake.document_columns("archive/pay.md", "superseded_by") == newer, "nor with the next look"
    decide_value(intake, "archive/pay.md", "superseded_by", None)
    ingest(intake, place)
    assert intake.document_columns("archive/pay.md", "superseded_by") is None, "somebody said that it holds"


def test_two_versions_that_are_moved_together_are_told_apart_by_what_they_say(intake: Intake, place: Path) -> None:
    (place / "in/new.md").write_text("---\nsupersedes: [pay.md]\n---\n# Pay\n\nBands of 2027.\n")
    ingest(intake, place)
    (place / "in").rename(place / "moved")
    ingest(intake, place)
    assert intake.document_columns("moved/pay.md", "superseded_by") == intake.document_columns("moved/new.md", "id")
    (place / "moved/new.md").unlink()
    ingest(intake, place)
    assert intake.document_columns("moved/pay.md", "superseded_by") is None, (
        "what it was replaced by before is gone as well"
    )


def serve(intake: Intake, *names: str) -> None:
    """A workspace with these sources is served."""
    with intake.conn.transaction():
        put_declared_sources(intake.conn, [source(name) for name in names])


def test_a_source_that_is_declared_under_another_name_keeps_what_was_decided(intake: Intake, place: Path) -> None:
    for name in ("gone.md", "held.md", "other.md"):
        (place / "in" / name).write_text(f"# {name}\n\nSays {name}.\n")
    serve(intake, "s")
    ingest(intake, place)
    decide_value(intake, "in/pay.md", "state", "rejected")
    decide_value(intake, "in/pay.md", "sensitivity", "restricted")
    decide_value(intake, "in/held.md", "legal_hold", True)
    why = DeletionReason(by="operator", reason="not ours", at=NOW, home=place.parent)
    delete(intake.conn, [intake.document_columns("in/gone.md", "id")], why)
    serve(intake, "s", "copy")
    ingest_source(intake.conn, source("copy"), FolderConnector(place), IngestSettings())
    assert intake.live_paths("copy") == {f"in/{name}.md" for name in ("gone", "held", "other", "pay")}, "another source"
    serve(intake, "renamed")
    ingest_source(intake.conn, source("renamed"), FolderConnector(place), IngestSettings())
    assert intake.live_paths("renamed") == {"in/held.md", "in/other.md", "in/pay.md"}
    rows = intake.conn.execute(
        "SELECT path, state, sensitivity, legal_hold FROM document WHERE source = 'renamed' AND deleted_at IS NULL"
    )
    assert sorted(rows) == [
        ("in/held.md", "approved", "internal", True),
        ("in/other.md", "approved", "internal", False),
        ("in/pay.md", "rejected", "restricted", False),
    ]
    assert "deleted here under another name" in intake.findings("renamed")["knowledge.unreadable", "in/gone.md"]
    readmit(intake.conn, "s", "in/gone.md", why)
    ingest_source(intake.conn, source("renamed"), FolderConnector(place), IngestSettings())
    assert "in/gone.md" in intake.live_paths("renamed")


def test_approvals_hold_when_documents_are_processed_otherwise(
    intake: Intake, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after an upgrade that reads some format better."""
    ingest(intake, place, state="draft")
    decide_value(intake, "in/pay.md", "state", "approved")
    monkeypatch.setattr(intake_run, "PROCESSING", "another")
    report = ingest_source(intake.conn, source(state="draft"), FolderConnector(place), IngestSettings())
    assert (report.changed, intake.document_columns("in/pay.md", "chunked, state")) == (1, ("another", "approved"))


def test_a_sidecar_that_was_left_behind_is_told(intake: Intake, place: Path) -> None:
    (place / "in/.pay.md.governed.yaml").write_text("readers: [hr]\n")
    (place / "in/.governed.yaml").write_text("sensitivity: confidential\n")
    ingest(intake, place)
    assert not [kind for kind, _ in intake.findings() if kind == "knowledge.sidecar"]
    (place / "in/pay.md").rename(place / "in/bands.md")
    ingest(intake, place)
    assert [path for kind, path in intake.findings() if kind == "knowledge.sidecar"] == ["in/.pay.md.governed.yaml"]
    (place / "in/.pay.md.governed.yaml").rename(place / "in/.bands.md.governed.yaml")
    ingest(intake, place)
    assert not [kind for kind, _ in intake.findings() if kind == "knowledge.sidecar"]
    assert intake.readers("in/bands.md") == {"hr"}
