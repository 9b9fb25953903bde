"""Declared checks hold for tables that did not change too: since they were declared, and as days go by."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from dulwich import porcelain
from tests.knowledge_intake import Intake

from groundplan.blueprint.model import Source
from groundplan.knowledge import ingest
from groundplan.knowledge.ingest import ingest_source
from groundplan.knowledge.intake.content import checks_fingerprint
from groundplan.knowledge.sources import sql
from groundplan.knowledge.sources.folder import FolderConnector
from groundplan.knowledge.sources.git import GitConnector
from groundplan.knowledge.sources.model import Connector
from groundplan.knowledge.sources.sql import Layout, SqlConnector, Sqlite
from groundplan.testing.database import Database

NOW = datetime.now(UTC)
FRESH = {"column": "at", "fresh": 86_400_000}


@pytest.fixture
def intake(database: Database) -> Iterator[Intake]:
    intake = Intake(database)
    yield intake
    intake.close()


def ingest_and_find(intake: Intake, connector: Connector, *checks: dict[str, Any]) -> dict[tuple[str, str], str]:
    source = Source(
        name="s", path="s", sensitivity="internal", owner="ana@acme.example", readers=["everyone"], checks=list(checks)
    )
    ingest_source(intake.conn, source, connector)
    return {key: message for key, message in intake.findings().items() if key[0] == "knowledge.table"}


@pytest.mark.parametrize("kind", ["folder", "git"])
def test_a_check_is_about_files_that_did_not_change(intake: Intake, tmp_path: Path, kind: str) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / "old.csv").write_text(f"id,at\n1,{(NOW - timedelta(days=2)).isoformat()}\n1,\n")
    (work / "text.md").write_text("# Text\n")
    if kind == "git":
        porcelain.init(str(work))
        porcelain.add(str(work), [str(work / "old.csv"), str(work / "text.md")])
        who = b"a <a@x.example>"
        porcelain.commit(str(work), message=b"a", author=who, committer=who)

    def again(*checks: dict[str, Any]) -> dict[tuple[str, str], str]:
        connector: Connector = (
            FolderConnector(work) if kind == "folder" else GitConnector(str(work), tmp_path / "mirrors")
        )
        return ingest_and_find(intake, connector, *checks)

    assert again() == {}
    assert "the newest 'at' is of" in again(FRESH)["knowledge.table", "old.csv"]
    assert "more than once" in again({"column": "id", "unique": True})["knowledge.table", "old.csv"]
    assert again({"column": "id", "type": "integer"}) == {}, "one that is taken back is told no more"
    assert intake.document_columns("old.csv", "version") == 1


@pytest.mark.parametrize("kind", ["folder", "git"])
def test_what_a_run_found_before_it_was_cut_off_is_told_by_the_next(
    intake: Intake, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if it were killed between the last document and its conclusion."""
    work = tmp_path / "work"
    work.mkdir()
    (work / "a.csv").write_text("id\n1\n1\n")
    (work / "bad.md").write_bytes(b"\xff is no UTF-8")
    if kind == "git":
        porcelain.init(str(work))
        porcelain.add(str(work), [str(work / "a.csv"), str(work / "bad.md")])
        porcelain.commit(str(work), message=b"a", author=b"a <a@x.example>", committer=b"a <a@x.example>")
    check = {"column": "id", "unique": True}

    def again() -> dict[tuple[str, str], str]:
        return ingest_and_find(
            intake, FolderConnector(work) if kind == "folder" else GitConnector(str(work), tmp_path / "mirrors"), check
        )

    def cut_off(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(ingest, "_record_results", cut_off)
        with pytest.raises(KeyboardInterrupt):
            again()
    assert intake.live_paths() == {"a.csv"}
    assert "more than once" in again()["knowledge.table", "a.csv"]
    assert ("knowledge.unreadable", "bad.md") in intake.findings()


def test_how_fresh_a_table_is_is_looked_at_each_day() -> None:
    day = date(2026, 11, 26)
    assert checks_fingerprint([FRESH], day) != checks_fingerprint([FRESH], day + timedelta(days=1))
    assert checks_fingerprint([{"column": "id"}], day) == checks_fingerprint(
        [{"column": "id"}], day + timedelta(days=1)
    )
    assert checks_fingerprint([], day) is None


def test_a_table_that_is_checked_in_part_says_so(
    intake: Intake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql, "MAX_CHECKED", 2)
    with closing(sqlite3.connect(tmp_path / "a.db")) as db:
        db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, at TEXT)")
        for number, days in enumerate((9, 5), 1):
            db.execute("INSERT INTO t VALUES (?, ?)", (number, (NOW - timedelta(days=days)).isoformat()))
        db.commit()
        connector = SqlConnector(Sqlite(tmp_path / "a.db"), Layout("t"))
        assert "the newest 'at'" in ingest_and_find(intake, connector, FRESH)["knowledge.table", ""]
        db.execute("INSERT INTO t VALUES (3, ?)", (NOW.isoformat(),))
        db.commit()
        told = ingest_and_find(intake, SqlConnector(Sqlite(tmp_path / "a.db"), Layout("t")), FRESH)
    assert told == {("knowledge.table", ""): "only the first 2 rows of t are checked, and not how fresh it is"}
