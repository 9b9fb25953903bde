"""Confirmation of cached answers by the search service: whether a change since an answer was made may be relevant to
it, on a real PostgreSQL with the embedded model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from uuid import UUID

import pytest
from tests.integration.test_search import TODAY, World, encoder, source, world

from groundplan.blueprint.model import Source
from groundplan.knowledge import store
from groundplan.knowledge.deletion.delete import DeletionReason, delete
from groundplan.knowledge.governance.decide import DecisionContext, decide
from groundplan.knowledge.ingest import ingest_source
from groundplan.knowledge.intake.vectors import embed_pending
from groundplan.knowledge.model import Readers
from groundplan.knowledge.quality.assess import assess, scan_pending
from groundplan.knowledge.quality.text import glossary
from groundplan.knowledge.retrieval import search_store, still_valid
from groundplan.knowledge.retrieval.replication import apply_next_changes
from groundplan.knowledge.retrieval.search import SearchResult
from groundplan.knowledge.retrieval.search_store import AccessSnapshot
from groundplan.knowledge.retrieval.still_valid import AnswerState
from groundplan.knowledge.retrieval.wire import ConfirmRequest, SearchRequest, Since
from groundplan.knowledge.service import IngestContext, ingest_sources
from groundplan.knowledge.sources.folder import FolderConnector

__all__ = ["encoder", "world"]
QUESTION = "How many days of paid leave do employees have?"
SHARES_WORDS = "# Register\n\nEmployees: 4,711. Boilers: 12. Turbines: 3.\n"
SHARES_MEANING = "# Vacation\n\nStaff may take off twenty-eight workdays annually as holidays.\n"
MORE_RELEVANT = "# Parents\n\nEmployees who became parents have twelve more days of paid leave.\n"
UNRELATED = "# Boilers\n\nPressure of the boiler is read twice a shift and entered into its log.\n"


class CachedAnswer:
    """The passages of an answer, and the state of the index up to which it is confirmed."""

    def __init__(self, world: World, name: str = "ben", sources: tuple[str, ...] = ("handbook",)) -> None:
        self.world, self.name, self.sources = world, name, list(sources)
        result = self.search()
        self.state, self.chunks = result.state, [one.chunk for one in result.passages]
        assert self.state and self.chunks

    @property
    def confirmed_change(self) -> int:
        """Number of the last change up to which the answer is confirmed."""
        return int(self.state.split()[0])

    def search(self) -> SearchResult:
        request = SearchRequest(
            workload="w", person=str(self.world.people[self.name]), query=QUESTION, sources=self.sources, stated=True
        )
        return self.world.search.answer(request)

    def confirm(self, **more: bool) -> bool:
        """Whether the service confirms the answer without a new search; if so, its state becomes the current one."""
        request = ConfirmRequest(
            person=str(self.world.people[self.name]), chunks=self.chunks, sources=self.sources, workload="w",
            since=Since(state=self.state, query=QUESTION, sources=self.sources, **more),
        )  # fmt: skip
        confirmation = self.world.search.confirm(request)
        assert sorted(confirmation.readable) == sorted(self.chunks), "as it was"
        self.state = confirmation.state or self.state
        return bool(confirmation.state)


@pytest.fixture
def answer(world: World) -> CachedAnswer:
    world.ingest()
    return CachedAnswer(world)


def apply_pending_changes(world: World) -> None:
    while apply_next_changes(world.control, world.index, world.analyzer):
        pass


def document_id(world: World, path: str) -> UUID:
    row = world.control.execute("SELECT id FROM document WHERE path = %s", (path,)).fetchone()
    assert row is not None
    found: UUID = row[0]
    return found


@pytest.mark.parametrize(("text", "stands"), [(SHARES_WORDS, False), (SHARES_MEANING, False), (UNRELATED, True)])
def test_a_document_sharing_words_or_meaning_with_the_question_needs_a_search(
    answer: CachedAnswer, text: str, stands: bool
) -> None:
    assert answer.confirm(), "nothing came"
    before = answer.confirmed_change
    answer.world.write("handbook/new.md", text)
    answer.world.ingest()
    assert answer.confirm() is stands
    assert (answer.confirmed_change > before) is stands, "what was looked at once is not looked at again"
    if not stands:
        answer.state = answer.search().state
        assert answer.confirm(), "what was searched once is not searched again"


def test_changes_not_yet_in_the_index_are_checked_until_they_are(answer: CachedAnswer) -> None:
    """Words would not find it before."""
    world, behind = answer.world, answer.world.index.cursor
    for text, stands in ((UNRELATED, True), (SHARES_WORDS, False)):
        world.write("handbook/new.md", text)
        ingest_sources(world.database.urls["control"], [source()], world.encoder, IngestContext(world.workspace, TODAY))
        assert answer.confirm() is stands
        assert answer.confirmed_change == int(answer.search().state.split()[0]) == behind
    apply_pending_changes(world)
    assert int(answer.search().state.split()[0]) == world.index.cursor > behind


@pytest.mark.parametrize("how", ["searched", "looked at"])
def test_a_vector_added_after_its_passage_counts_as_a_change(answer: CachedAnswer, how: str) -> None:
    """By words the document bears on nothing."""
    world = answer.world
    world.write("handbook/new.md", SHARES_MEANING)
    ingest_source(world.control, source(), FolderConnector(world.workspace / "handbook"))
    apply_pending_changes(world)
    before = answer.confirmed_change
    if how == "searched":
        answer.state = answer.search().state
    assert answer.confirm() and answer.confirmed_change > before
    embed_pending(world.control, world.encoder)
    assert not answer.confirm()
    apply_pending_changes(world)
    assert "new.md" in {one.path for one in answer.search().passages}


def test_unreadable_or_unsearched_documents_need_no_search(world: World) -> None:
    world.ingest()
    ben, hana = CachedAnswer(world), CachedAnswer(world, "hana")
    world.write("handbook/hr/new.md", SHARES_WORDS)
    world.ingest()
    assert ben.confirm() and not hana.confirm()
    world.write("archive/new.md", SHARES_WORDS)
    archive = Source(name="archive", path="./archive", sensitivity="internal", owner="d@acme.example",
                     readers=["everyone"])  # fmt: skip
    world.ingest(archive)
    assert ben.confirm(), "of another source"
    world.control.execute("DELETE FROM document_reader WHERE document_id = %s", (document_id(world, "hr/new.md"),))
    both = CachedAnswer(world, sources=("handbook", "archive"))
    assert both.confirm()
    world.write("archive/more.md", SHARES_WORDS)
    world.ingest(archive)
    assert ben.confirm() and not both.confirm()


def test_joining_the_readers_of_a_new_document_needs_a_search(answer: CachedAnswer) -> None:
    world = answer.world
    world.write("handbook/hr/fees/.readers", "hr-leads\n")
    world.write("handbook/hr/fees/new.md", SHARES_WORDS)
    world.ingest()
    assert answer.confirm(), "not readable"
    world.join("hr-leads", "ben")
    world.control.execute("DELETE FROM membership WHERE group_id = %s", (world.groups["hr"],))
    assert not answer.confirm(), "that readers' set was made since the answer was"


def test_gaining_read_access_needs_a_search(answer: CachedAnswer) -> None:
    world = answer.world
    assert answer.confirm()
    world.join("hr", "ben")
    assert not answer.confirm(), "another readers' set"
    answer.state = answer.search().state
    assert answer.confirm()
    world.write("handbook/secret.md", SHARES_WORDS)
    world.write("handbook/secret.md.readers", "hana@acme.example\n")
    world.ingest()
    world.control.execute("DELETE FROM document_reader WHERE document_id = %s", (document_id(world, "secret.md"),))
    answer.state = answer.search().state
    assert answer.confirm()
    with world.control.transaction():
        store.put_readers(world.control, {document_id(world, "secret.md"): Readers(frozenset({"hr"}))})
    assert not answer.confirm(), "a document that was there"


def decision_by_ana() -> DecisionContext:
    return DecisionContext("operator", "ana@acme.example", "seen", datetime.now(UTC))


def approve(world: World, _: Path) -> None:
    decide(world.control, document_id(world, "new.md"), "state", "approved", decision_by_ana())


def make_valid(world: World, _: Path) -> None:
    decide(world.control, document_id(world, "new.md"), "valid_from", "2020-01-01", decision_by_ana())


def delete_successor(world: World, home: Path) -> None:
    delete(
        world.control, [document_id(world, "newest.md")], DeletionReason("operator", "wrong", datetime.now(UTC), home)
    )


def assess_quality(world: World, _: Path) -> None:
    assess(world.control, "handbook", TODAY)


def scan(world: World, _: Path) -> None:
    scan_pending(world.control, glossary([]))


@pytest.mark.parametrize(
    ("said", "comes"),
    [
        ("state: draft", approve),
        ("valid_from: 2999-01-01", make_valid),
        ("", delete_successor),
        ("", assess_quality),
        ("", scan),
    ],
)
def test_a_document_that_becomes_effective_counts_as_a_change(
    world: World, tmp_path: Path, said: str, comes: Callable[[World, Path], None]
) -> None:
    floor, needs_scan = 0.5 if comes is assess_quality else 0.0, comes is scan
    world.control.execute("INSERT INTO workload_need (workload, quality_floor, scanned) VALUES ('w', %s, %s)",
                          (floor, needs_scan))  # fmt: skip
    world.write("handbook/new.md", f"---\n{said}\n---\n" + MORE_RELEVANT)
    if comes is delete_successor:
        world.write("handbook/newest.md", "---\nsupersedes: [new.md]\n---\n# Nothing\n\nOf anything else.\n")
    world.ingest()
    if comes in (assess_quality, scan):  # as a new version is until it was looked at
        world.control.execute("UPDATE document SET quality = NULL, scanned_at = NULL WHERE path = 'new.md'")
    answer = CachedAnswer(world)
    assert "new.md" not in {one.path for one in answer.search().passages} and answer.confirm()
    comes(world, tmp_path)
    assert not answer.confirm()
    apply_pending_changes(world)
    assert "new.md" in {one.path for one in answer.search().passages}
    again = answer.search().state
    assess_quality(world, tmp_path)
    scan(world, tmp_path)
    assert answer.search().state == again, "what was effective already is no addition"


def test_a_scan_or_score_that_permits_nothing_new_is_no_change(world: World, tmp_path: Path) -> None:
    world.control.execute("INSERT INTO workload_need (workload, quality_floor, scanned) VALUES ('w', 1.5, false)")
    world.ingest()
    before = world.control.execute("SELECT max(noted) FROM document").fetchone()
    world.control.execute("UPDATE document SET quality = NULL, scanned_at = NULL WHERE deleted_at IS NULL")
    scan(world, tmp_path)
    assess_quality(world, tmp_path)
    left = "SELECT count(*) FROM document WHERE quality IS NULL OR scanned_at IS NULL"
    assert world.control.execute(left).fetchone() == (0,)
    assert world.control.execute("SELECT max(noted) FROM document").fetchone() == before


def test_a_new_day_a_switched_edition_or_a_reset_feed_needs_a_search(
    answer: CachedAnswer,
) -> None:
    standing = AccessSnapshot((2, 1), 1, newest_change=9, today=date(2026, 11, 25))
    same = AnswerState.current(5, 2, standing, ["b", "a"])
    assert same == AnswerState.current(5, 2, replace(standing, acls=(1, 2)), ["a", "b"]) == AnswerState.parse(str(same))
    assert same == AnswerState.current(5, 2, replace(standing, acls=(1, 2, 3)), ["a", "b"]), "a set that was made later"
    for other in (
        replace(standing, today=date(2026, 11, 26)),
        replace(standing, edition=2),
        replace(standing, acls=(1,)),
    ):
        assert AnswerState.current(5, 2, other, ["a", "b"]) != same
    assert AnswerState.current(5, 2, standing, ["a"]) != same, "a source that was stopped"
    assert [AnswerState.parse(text) for text in ("", "x", "1 2", "-1 2 a", "\u0661 2 a")] == [None] * 5

    state = answer.state
    for wrong in ("", "0", f"{int(state.split()[0]) + 1000} {state.partition(' ')[2]}"):
        answer.state = wrong
        assert not answer.confirm()
    answer.state = state
    assert answer.confirm()
    # PostgreSQL says which day it is, since it decides by it what holds
    assert answer.world.control.execute("SELECT (now() AT TIME ZONE 'UTC')::date").fetchone() == (
        stood(answer.world).today,
    )


def stood(world: World) -> AccessSnapshot:
    with world.pool.connection() as conn, conn.transaction():
        return search_store.assume_reader(conn, world.people["ben"], "w")


@pytest.mark.parametrize(("bound", "most"), [("MAX_CHANGES", 6), ("MAX_PASSAGES", 1)])
def test_too_many_changes_need_a_search_without_being_checked(
    answer: CachedAnswer, bound: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(still_valid, bound, most)
    for name, stands in (("one", True), ("two", False)):
        answer.world.write(f"handbook/{name}.md", UNRELATED.replace("boiler", name))
        before = answer.state
        answer.world.ingest()
        assert answer.confirm() is stands
        answer.state = before


def test_company_synonyms_count_as_shared_words_where_search_uses_them(answer: CachedAnswer) -> None:
    answer.world.control.execute("INSERT INTO glossary_term (name, said) VALUES ('leave', '{paid leave,furlough}')")
    answer.world.write("handbook/new.md", "# Boilers\n\nFurlough of the boiler: pressure 3, valve 4, turbine 7.\n")
    answer.world.ingest()
    before = answer.state
    assert answer.confirm()
    answer.state = before
    assert not answer.confirm(synonyms=True)


def test_a_later_found_conflict_changes_both_documents(world: World) -> None:
    rule = "# Leave {}\n\nEmployees have {} days of paid leave a year. Leave is asked for in the portal of the staff.\n"
    for year, days in ((2024, 25), (2026, 30)):
        world.write(f"handbook/leave-{year}.md", rule.format(year, days))
    world.ingest()
    world.control.execute("DELETE FROM document_conflict")
    answer = CachedAnswer(world)
    assert answer.confirm() and not answer.search().conflicts
    for new in (True, False):
        before = world.control.execute("SELECT max(noted) FROM document").fetchone()
        assess(world.control, "handbook", TODAY)
        assert (world.control.execute("SELECT max(noted) FROM document").fetchone() != before) is new
        assert answer.confirm() is not new
        apply_pending_changes(world)
        answer.state = answer.search().state
        assert answer.search().conflicts
