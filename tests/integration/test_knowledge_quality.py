"""Every kind of finding on a generated company: what was planted is found, and nothing else is."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests import knowledge_files as files
from tests.knowledge_intake import Intake

from groundplan.blueprint.model import Source, Term
from groundplan.core.ids import new_id
from groundplan.knowledge.governance.decide import DecisionContext, decide
from groundplan.knowledge.ingest import ingest_source
from groundplan.knowledge.quality import assess as quality_assess
from groundplan.knowledge.quality import quality_store
from groundplan.knowledge.quality.assess import AllDocuments, assess, scan_pending
from groundplan.knowledge.quality.model import KINDS, document_score
from groundplan.knowledge.quality.text import glossary
from groundplan.knowledge.sources.folder import FolderConnector
from groundplan.testing import document_rows
from groundplan.testing.database import Cluster, Database
from groundplan.testing.documents import edit_words, generate_documents, rewrite_lines

NOW = datetime.now(UTC)
TODAY = NOW.date()
TERMS = [Term(name="pump", title="pump", meaning="Moves liquids", forbidden=["pumping machine"], synonyms=["pumps"])]
CHECKS: list[dict[str, Any]] = [
    {"column": "id", "unique": True}, {"column": "bar", "type": "number", "at_most": 16, "sensor": True, "stuck": 4},
]  # fmt: skip
SECRET = "AKIA" + "ABCDEFGHIJKLMNOP"
GOOD_TABLE = "id,bar\n1,4.0\n2,4.5\n3,4.2\n4,4.9\n5,4.1\n"
BAD_TABLE = "id,bar\n1,4.0\n1,99\n3,5\n4,5\n5,5\n6,5\n"


class Corpus:
    """40 documents that are well kept, and one planted document for each thing that can be wrong."""

    def __init__(self, database: Database, root: Path) -> None:
        self.conn = psycopg.connect(database.urls["control"], autocommit=True)
        self.database, self.root = database, root
        self.made = list(generate_documents(40, seed=21))
        for made in self.made:
            self.write(f"kept/{made.path}", made.text)
        for n, email in enumerate(("ana", *[f"owner{n}" for n in range(40)])):
            self.conn.execute(
                "INSERT INTO person (id, email, name) VALUES (%s, %s, 'P')", (new_id(), f"{email}@acme.example")
            )
            assert n < 50
        self.plant()
        self.source = Source(
            name="s", path="s", sensitivity="internal", owner="ana@acme.example", readers=["everyone"], checks=CHECKS
        )
        self.read()
        self.first = self.findings()  # before a test mends some of what was planted

    def write(self, path: str, text: str | bytes) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode() if isinstance(text, str) else text)

    def plant(self) -> None:
        dice = random.Random(5)
        one, two, three = (made.body for made in self.made[:3])
        self.write("planted/stale.md", f"---\nreview_by: {TODAY - timedelta(days=9)}\n---\n" + self.fresh(1))
        self.write("planted/expired.md", f"---\nvalid_until: {TODAY - timedelta(days=1)}\n---\n" + self.fresh(2))
        self.write("planted/a-copy-of-what-is-kept-elsewhere-already.md", one)
        self.write("planted/almost-a-copy-of-what-is-kept-elsewhere.md", edit_words(two, 0.1, dice))
        self.write("planted/same-frame-only.md", rewrite_lines(three, 1.0, dice))
        self.write("planted/rules.md", "---\ntitle: House rules\nsupersedes: [rules-old.md]\n---\n" + self.fresh(3))
        self.write("planted/rules-old.md", "---\ntitle: House rules before\n---\n" + self.fresh(4))
        meals = "The daily allowance for meals during travel abroad is {} euros.\n"
        self.write("planted/meals.md", "---\ntitle: Meals policy\n---\n" + meals.format(64) + self.fresh(5))
        self.write("planted/meals-2021.md", "---\ntitle: Meals policy (2021)\n---\n" + meals.format(50) + self.fresh(6))
        self.write("planted/misspelt.md", "---\nreveiw_by: 2027-01-31\n---\n" + self.fresh(7))
        self.write("planted/orphan.md", "---\nowner: left@acme.example\n---\n" + self.fresh(15))
        self.write("planted/levels.md", "# Levels\n\n#### Too deep\n\n" + self.fresh(8).partition("\n")[2])
        self.write("planted/half.csv", "a,b\n1,2\n3\n")
        self.write("planted/personal.md", self.fresh(9) + "\nAsk Ben at ben.okafor@example.com or +46 70 123 45 67.\n")
        self.write("planted/held/.governed.yaml", "sensitivity: confidential\n")
        self.write("planted/held/personal-but-confidential.md", self.fresh(10) + "\nben.okafor@example.com\n")
        self.write("planted/secret.md", self.fresh(11) + f"\nThe key is {SECRET}.\n")
        self.write("planted/words.md", self.fresh(12) + "\nEach pumping machine is checked. A pump is fine.\n")
        self.write("planted/reader.md", "---\nreaders: [everyone, no-such-team]\n---\n" + self.fresh(13))
        self.write("planted/nobody.md", "---\nreaders: [gone-team]\n---\n" + self.fresh(14))
        self.write("planted/readings.csv", BAD_TABLE)
        self.write("kept/readings.csv", GOOD_TABLE)
        self.write("planted/broken.docx", b"PK broken")
        self.write("planted/tool.bin", b"\x00")
        self.write("kept/word.docx", files.word_document())

    @staticmethod
    def fresh(seed: int) -> str:
        return next(generate_documents(1, seed=1000 + seed)).body

    def read(self) -> None:
        ingest_source(self.conn, self.source, FolderConnector(self.root))
        scan_pending(self.conn, glossary(TERMS))
        self.outcome = assess(self.conn, "s", TODAY)

    def findings(self) -> list[tuple[Any, ...]]:
        return self.conn.execute(
            "SELECT kind, subject, message, hint, owner, fix FROM finding WHERE closed_at IS NULL"
        ).fetchall()


def by_kind(findings: list[tuple[Any, ...]]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for kind, subject, *_ in findings:
        found.setdefault(kind, set()).add(subject.removeprefix("source/s/"))
    return found


@pytest.fixture(scope="module")
def corpus(postgres_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Corpus]:
    with postgres_cluster.database() as database:
        found = Corpus(database, tmp_path_factory.mktemp("corpus"))
        yield found
        found.conn.close()


PLANTED = {
    "knowledge.stale": {"stale.md"},
    "knowledge.expired": {"expired.md"},
    "knowledge.duplicate": {"a-copy-of-what-is-kept-elsewhere-already.md"},
    "knowledge.near_duplicate": {"almost-a-copy-of-what-is-kept-elsewhere.md"},
    "knowledge.superseded": {"rules-old.md"},
    "knowledge.versions": {"meals-2021.md"},
    "knowledge.conflict": {"meals-2021.md"},
    "knowledge.owner": {"orphan.md"},
    "knowledge.metadata": {"misspelt.md"},
    "knowledge.structure": {"levels.md"},
    "knowledge.incomplete": {"half.csv"},
    "knowledge.personal_data": {"personal.md"},
    "knowledge.secret": {"secret.md"},
    "knowledge.glossary": {"words.md"},
    "knowledge.reader_unknown": {"reader.md", "nobody.md"},
    "knowledge.nobody": {"nobody.md"},
    "knowledge.sensor": {"readings.csv"},
    "knowledge.unreadable": {"broken.docx"},
    "knowledge.unsupported": {"tool.bin"},
}


@pytest.mark.parametrize("kind", PLANTED)
def test_what_was_planted_is_found_and_nothing_else(corpus: Corpus, kind: str) -> None:
    told = by_kind(corpus.first)
    found = {path.removeprefix("planted/") for path in told.get(kind, ())}
    # edited in one word of ten, numbers among them, that one contradicts its original as well
    also = told["knowledge.near_duplicate"] if kind == "knowledge.conflict" else set()
    found -= {path.removeprefix("planted/") for path in also}
    assert found == PLANTED[kind]


def test_declared_checks_of_tables_fail_where_they_should(corpus: Corpus) -> None:
    """Also a table without the column is told; the good one is not."""
    assert by_kind(corpus.first)["knowledge.table"] == {"planted/readings.csv", "planted/half.csv"}


def test_every_kind_is_told_with_what_to_do_and_a_fix_names_its_document(corpus: Corpus) -> None:
    rows = corpus.first
    assert all(message and hint and owner for _, _, message, hint, owner, _ in rows)
    elsewhere = {"knowledge.deleted_at_source"}  # test_knowledge_deletion
    assert {kind for kind, *_ in rows} == set(KINDS) - elsewhere, "each kind has a case, and all other documents none"
    fixes = [fix for *_, fix in rows if fix]
    assert {fix["do"] for fix in fixes} == {"review", "delete", "supersede", "retire", "reject", "sensitivity"}
    assert all(fix["document"] for fix in fixes)


def test_scores_follow_findings_and_a_source_has_a_trend(corpus: Corpus) -> None:
    def quality(path: str) -> float:
        row = corpus.conn.execute("SELECT quality FROM document WHERE path = %s", (path,)).fetchone()
        assert row is not None
        return round(float(row[0]), 2)

    assert quality(f"kept/{corpus.made[10].path}") == 1.0
    assert quality("planted/secret.md") == document_score(["knowledge.secret"]) == 0.4
    assert 0.7 < corpus.outcome["score"] < 0.95
    assert quality_store.score_trend(corpus.conn, "s") == [
        (TODAY, corpus.outcome["score"], corpus.outcome["documents"])
    ]


def test_a_floor_and_a_demanded_scan_keep_back_what_does_not_reach_them(corpus: Corpus) -> None:
    corpus.conn.execute("INSERT INTO workload_need (workload, quality_floor, scanned) VALUES ('w', 0.65, true)")
    row = corpus.conn.execute("SELECT id FROM person LIMIT 1").fetchone()
    assert row is not None

    def seen(workload: str) -> set[str]:
        with psycopg.connect(corpus.database.urls["search"]) as conn:
            document_rows.act_for(conn, row[0], workload)
            return {path for (path,) in conn.execute("SELECT path FROM document")}

    assert {"planted/secret.md", "planted/stale.md"} <= seen("other")
    assert "planted/secret.md" not in seen("w")
    assert {"planted/stale.md", f"kept/{corpus.made[10].path}"} <= seen("w")
    with corpus.conn.transaction(force_rollback=True):
        corpus.conn.execute("UPDATE document SET scanned_at = NULL WHERE path = 'planted/stale.md'")
    corpus.write("planted/new.md", corpus.fresh(30))
    ingest_source(corpus.conn, corpus.source, FolderConnector(corpus.root))
    assert "planted/new.md" in seen("other")
    assert "planted/new.md" not in seen("w"), "not scanned, not scored"
    corpus.read()
    assert "planted/new.md" in seen("w")


def test_what_was_mended_closes_by_itself(corpus: Corpus) -> None:
    corpus.write("planted/words.md", corpus.fresh(12) + "\nEach pump is checked.\n")
    corpus.write("planted/broken.docx", files.word_document(title="Mended"))
    corpus.write("planted/readings.csv", GOOD_TABLE + "9,4.4\n")
    later = time.time() + 5
    os.utime(corpus.root / "planted/words.md", (later, later))
    corpus.read()
    found = by_kind(corpus.findings())
    assert "planted/words.md" not in found.get("knowledge.glossary", ())
    assert "planted/broken.docx" not in found.get("knowledge.unreadable", ())
    assert "planted/readings.csv" not in found.get("knowledge.sensor", set()) | found.get("knowledge.table", set())


class Counting(psycopg.Connection[Any]):
    """Notes of which documents passages are asked for, one by one."""

    asked: list[Any]

    def execute(self, query: Any, params: Any = None, **more: Any) -> psycopg.Cursor[Any]:
        if "string_agg(text" in str(query) and len(params[0]) == 1:
            self.asked.append(params[0][0])
        return super().execute(query, params, **more)


def test_of_documents_that_are_nearly_the_same_each_is_read_and_told_once(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = "Everybody who works here at the plant has paid leave of {} days in each year that begins."
    for number in range(12):
        (tmp_path / f"{number}.md").write_text(f"# Leave\n\n{rule.format(20 + number)}\n")
    source = Source(name="s", path="s", sensitivity="internal", owner="ana@acme.example", readers=["everyone"])
    with Counting.connect(database.urls["control"], autocommit=True) as conn:
        conn.asked = []
        ingest_source(conn, source, FolderConnector(tmp_path))
        scan_pending(conn, glossary(TERMS))
        conn.asked.clear()
        assess(conn, "s", TODAY)
        kinds = conn.execute("SELECT kind FROM finding WHERE closed_at IS NULL").fetchall()
        told = [kind for (kind,) in kinds]
        assert told.count("knowledge.near_duplicate") == told.count("knowledge.conflict") == 11, "one for each copy"
        pairs = conn.execute("SELECT count(*) FROM document_conflict").fetchone()
        assert pairs == (12 * 11 // 2,), "a search tells of each"
        assert len(conn.asked) == len(set(conn.asked)) == 12
        everywhere = AllDocuments(conn)
        assess(conn, "s", TODAY, everywhere)
        monkeypatch.setattr(
            quality_assess, "near_duplicates", lambda *_: pytest.fail("once for all sources of a round")
        )
        assert assess(conn, "s", TODAY, everywhere)["findings"] == 22


@pytest.mark.parametrize(
    ("here", "there"),
    [
        ("", "supersedes: [leave-2026.md]"),
        ("state: rejected", ""),
        ("state: draft", ""),
        ("valid_from: 2999-01-01", ""),
    ],
)
@pytest.mark.parametrize("same", [True, False])
def test_what_does_not_hold_speaks_against_nothing_that_does(
    database: Database, tmp_path: Path, here: str, there: str, same: bool
) -> None:
    """What holds was told as its copy, or as an older version of it, with a proposal to delete or replace it."""
    rule = "Everybody who works here at the plant has paid leave of {} days in each year that begins."
    holds = "new/leave-of-this-year.md"
    for path, head, days in (("leave-2026.md", here, 25), (holds, there, 25 if same else 28)):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        title = "Leave" if path == holds else "Leave 2999"
        (tmp_path / path).write_text(f"---\ntitle: {title}\n{head}\n---\n# Leave\n\n{rule.format(days)}\n")
    intake = Intake(database)
    intake.ingest(FolderConnector(tmp_path))
    assess(intake.conn, "s", TODAY)
    rows = intake.conn.execute("SELECT kind, subject, fix FROM finding WHERE closed_at IS NULL").fetchall()
    assert {kind for kind, subject, _ in rows if subject == f"source/s/{holds}"} <= {"knowledge.owner"}
    (kept,) = intake.conn.execute("SELECT id FROM document WHERE path = %s", (holds,)).fetchall()
    assert not any(fix and fix["document"] == str(kept[0]) for *_, fix in rows)
    intake.close()


def test_what_is_retired_as_its_finding_says_asks_for_nothing_more(database: Database, tmp_path: Path) -> None:
    """Which also was to be reviewed, and is past its day: its findings stayed, whatever was decided."""
    old = "title: Leave 2021\nreview_by: 2022-12-31\nvalid_until: 2023-12-31"
    for path, head in (("old.md", old), ("new.md", "title: Leave\nsupersedes: [old.md]")):
        (tmp_path / path).write_text(f"---\n{head}\n---\n# Leave\n\n{path} says how many days of leave there are.\n")
    intake = Intake(database)

    def told() -> set[str]:
        intake.ingest(FolderConnector(tmp_path))
        assess(intake.conn, "s", TODAY)
        rows = intake.conn.execute("SELECT kind, subject FROM finding WHERE closed_at IS NULL").fetchall()
        return {kind for kind, subject in rows if subject == "source/s/old.md"} - {"knowledge.owner"}

    assert told() == {"knowledge.superseded", "knowledge.stale", "knowledge.expired"}
    (id,) = intake.conn.execute("SELECT id FROM document WHERE path = 'old.md'").fetchone() or (None,)
    decide(intake.conn, id, "state", "retired", DecisionContext("operator", "the operator", "kept as a record", NOW))
    assert told() == set()
    intake.close()


def test_minutes_of_several_days_are_no_versions_of_each_other(database: Database, tmp_path: Path) -> None:
    rates = "\n\n".join(
        f"Row {number}: {number * 7} euros are paid for each hour of shift {number}." for number in range(9)
    )
    for month, seed in ((1, 41), (2, 42), (3, 43)):
        said = next(generate_documents(1, seed=seed)).body
        (tmp_path / f"minutes-{month}.md").write_text(f"---\ntitle: Minutes 2026-0{month}-05\n---\n{said}\n")
        (tmp_path / f"rates-{month}.md").write_text(f"---\ntitle: Rates 2026-0{month}-05\n---\n{rates} {month}\n")
    intake = Intake(database)
    intake.ingest(FolderConnector(tmp_path))
    assess(intake.conn, "s", TODAY)
    told = intake.conn.execute("SELECT subject FROM finding WHERE kind = 'knowledge.versions' ORDER BY 1").fetchall()
    assert told == [("source/s/rates-1.md",), ("source/s/rates-2.md",)]
    intake.close()


def test_what_is_proposed_for_copies_keeps_the_newer_and_takes_nothing_from_anybody(
    database: Database, tmp_path: Path
) -> None:
    body = "It is paid at {} percent of the hourly wage from the third hour on.\n\n" + "\n\n".join(
        f"Rule {number}: hours of week {number} are written down on the same day and signed by the line lead."
        for number in range(12)
    )
    (tmp_path / "overtime-25.md").write_text(f"# Overtime 2025\n\n{body.format(150)}\n")
    (tmp_path / "overtime-2026.md").write_text(f"# Overtime 2026\n\n{body.format(175)}\n")
    (tmp_path / "note.md").write_text("# Note\n\nThe lift of building two is closed on Friday.\n")
    (tmp_path / "note-again.md").write_text("# Note\n\nThe lift of building two is closed on Friday.\n")
    (tmp_path / "few").mkdir()
    (tmp_path / "few/.readers").write_text("hr\n")
    (tmp_path / "few/note-for-few.md").write_text("# Note\n\nThe lift of building two is closed on Friday.\n")
    intake = Intake(database)
    intake.add_group("hr")
    intake.ingest(FolderConnector(tmp_path))
    assess(intake.conn, "s", TODAY)
    ids = {path: str(id) for path, id in intake.conn.execute("SELECT path, id FROM document")}
    rows = intake.conn.execute("SELECT kind, subject, fix FROM finding WHERE closed_at IS NULL").fetchall()
    fixes = {(kind, subject.removeprefix("source/s/")): fix for kind, subject, fix in rows}
    older = {"do": "supersede", "document": ids["overtime-25.md"], "by": ids["overtime-2026.md"]}
    assert fixes == {
        ("knowledge.versions", "overtime-25.md"): older,
        ("knowledge.near_duplicate", "overtime-25.md"): older,
        ("knowledge.conflict", "overtime-25.md"): None,
        ("knowledge.duplicate", "note-again.md"): {"do": "delete", "document": ids["note-again.md"]},
        ("knowledge.duplicate", "few/note-for-few.md"): None,
    }
    intake.close()
