"""Whether what came since an answer was made may bear on it, as the search service tells it along with the live
permissions: on a real PostgreSQL, with the embedded model."""

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
BY_WORDS = "# Register\n\nEmployees: 4,711. Boilers: 12. Turbines: 3.\n"
BY_MEANING = "# Vacation\n\nStaff may take off twenty-eight workdays annually as holidays.\n"
BETTER = "# Parents\n\nEmployees who became parents have twelve more days of paid leave.\n"
UNLIKE = "# Boilers\n\nPressure of the boiler is read twice a shift and entered into its log.\n"


class Answer:
    """What an answer rests on, and up to when nothing bears on it."""

    def __init__(self, world: World, name: str = "ben", sources: tuple[str, ...] = ("handbook",)) -> None:
        self.world, self.name, self.sources = world, name, list(sources)
        found = self.search()
        self.state, self.chunks = found.state, [one.chunk for one in found.passages]
        assert self.state and self.chunks

    @property
    def number(self) -> int:
        """Of the last change up to which it is known to stand."""
        return int(self.state.split()[0])

    def search(self) -> SearchResult:
        asked = SearchRequest(
            workload="w", person=str(self.world.people[self.name]), query=QUESTION, sources=self.sources, stated=True
        )
        return self.world.search.answer(asked)

    def look(self, **more: bool) -> bool:
        """Whether it stands without its question being searched again; then it does up to now."""
        asked = ConfirmRequest(
            person=str(self.world.people[self.name]), chunks=self.chunks, sources=self.sources, workload="w",
            since=Since(state=self.state, query=QUESTION, sources=self.sources, **more),
        )  # fmt: skip
        told = self.world.search.confirm(asked)
        assert sorted(told.readable) == sorted(self.chunks), "as it was"
        self.state = told.state or self.state
        return bool(told.state)


@pytest.fixture
def answer(world: World) -> Answer:
    world.ingest()
    return Answer(world)


def follow(world: World) -> None:
    while apply_next_changes(world.control, world.index, world.analyzer):
        pass


def document(world: World, path: str) -> UUID:
    row = world.control.execute("SELECT id FROM document WHERE path = %s", (path,)).fetchone()
    assert row is not None
    found: UUID = row[0]
    return found


@pytest.mark.parametrize(("text", "stands"), [(BY_WORDS, False), (BY_MEANING, False), (UNLIKE, True)])
def test_what_shares_words_or_its_subject_with_the_question_may_bear_on_its_answer(
    answer: Answer, text: str, stands: bool
) -> None:
    assert answer.look(), "nothing came"
    before = answer.number
    answer.world.write("handbook/new.md", text)
    answer.world.ingest()
    assert answer.look() is stands
    assert (answer.number > before) is stands, "what was looked at once is not looked at again"
    if not stands:
        answer.state = answer.search().state
        assert answer.look(), "what was searched once is not searched again"


def test_what_the_index_does_not_know_yet_is_looked_at_until_it_does(answer: Answer) -> None:
    """Words would not find it before."""
    world, behind = answer.world, answer.world.index.cursor
    for text, stands in ((UNLIKE, True), (BY_WORDS, False)):
        world.write("handbook/new.md", text)
        ingest_sources(world.database.urls["control"], [source()], world.encoder, IngestContext(world.workspace, TODAY))
        assert answer.look() is stands
        assert answer.number == int(answer.search().state.split()[0]) == behind
    follow(world)
    assert int(answer.search().state.split()[0]) == world.index.cursor > behind


@pytest.mark.parametrize("how", ["searched", "looked at"])
def test_a_vector_that_comes_after_its_passage_is_an_addition(answer: Answer, how: str) -> None:
    """By words the document bears on nothing."""
    world = answer.world
    world.write("handbook/new.md", BY_MEANING)
    ingest_source(world.control, source(), FolderConnector(world.workspace / "handbook"))
    follow(world)
    before = answer.number
    if how == "searched":
        answer.state = answer.search().state
    assert answer.look() and answer.number > before
    embed_pending(world.control, world.encoder)
    assert not answer.look()
    follow(world)
    assert "new.md" in {one.path for one in answer.search().passages}


def test_what_a_person_may_not_read_or_a_workload_does_not_search_bears_on_nothing(world: World) -> None:
    world.ingest()
    ben, hana = Answer(world), Answer(world, "hana")
    world.write("handbook/hr/new.md", BY_WORDS)
    world.ingest()
    assert ben.look() and not hana.look()
    world.write("archive/new.md", BY_WORDS)
    archive = Source(name="archive", path="./archive", sensitivity="internal", owner="d@acme.example",
                     readers=["everyone"])  # fmt: skip
    world.ingest(archive)
    assert ben.look(), "of another source"
    world.control.execute("DELETE FROM document_reader WHERE document_id = %s", (document(world, "hr/new.md"),))
    both = Answer(world, sources=("handbook", "archive"))
    assert both.look()
    world.write("archive/more.md", BY_WORDS)
    world.ingest(archive)
    assert ben.look() and not both.look()


def test_who_joins_the_readers_of_what_came_since_has_the_question_searched_again(answer: Answer) -> None:
    world = answer.world
    world.write("handbook/hr/fees/.readers", "hr-leads\n")
    world.write("handbook/hr/fees/new.md", BY_WORDS)
    world.ingest()
    assert answer.look(), "not readable"
    world.join("hr-leads", "ben")
    world.control.execute("DELETE FROM membership WHERE group_id = %s", (world.groups["hr"],))
    assert not answer.look(), "that readers' set was made since the answer was"


def test_whoever_may_read_more_than_before_has_the_question_searched_again(answer: Answer) -> None:
    world = answer.world
    assert answer.look()
    world.join("hr", "ben")
    assert not answer.look(), "another readers' set"
    answer.state = answer.search().state
    assert answer.look()
    world.write("handbook/secret.md", BY_WORDS)
    world.write("handbook/secret.md.readers", "hana@acme.example\n")
    world.ingest()
    world.control.execute("DELETE FROM document_reader WHERE document_id = %s", (document(world, "secret.md"),))
    answer.state = answer.search().state
    assert answer.look()
    with world.control.transaction():
        store.put_readers(world.control, {document(world, "secret.md"): Readers(frozenset({"hr"}))})
    assert not answer.look(), "a document that was there"


def by_ana() -> DecisionContext:
    return DecisionContext("operator", "ana@acme.example", "seen", datetime.now(UTC))


def approved(world: World, _: Path) -> None:
    decide(world.control, document(world, "new.md"), "state", "approved", by_ana())


def valid(world: World, _: Path) -> None:
    decide(world.control, document(world, "new.md"), "valid_from", "2020-01-01", by_ana())


def holding_again(world: World, home: Path) -> None:
    delete(world.control, [document(world, "newest.md")], DeletionReason("operator", "wrong", datetime.now(UTC), home))


def scored(world: World, _: Path) -> None:
    assess(world.control, "handbook", TODAY)


def scanned(world: World, _: Path) -> None:
    scan_pending(world.control, glossary([]))


@pytest.mark.parametrize(
    ("said", "comes"),
    [("state: draft", approved), ("valid_from: 2999-01-01", valid), ("", holding_again), ("", scored), ("", scanned)],
)
def test_what_becomes_effective_is_an_addition(
    world: World, tmp_path: Path, said: str, comes: Callable[[World, Path], None]
) -> None:
    floor, needs_scan = 0.5 if comes is scored else 0.0, comes is scanned
    world.control.execute("INSERT INTO workload_need (workload, quality_floor, scanned) VALUES ('w', %s, %s)",
                          (floor, needs_scan))  # fmt: skip
    world.write("handbook/new.md", f"---\n{said}\n---\n" + BETTER)
    if comes is holding_again:
        world.write("handbook/newest.md", "---\nsupersedes: [new.md]\n---\n# Nothing\n\nOf anything else.\n")
    world.ingest()
    if comes in (scored, scanned):  # as a new version is until it was looked at
        world.control.execute("UPDATE document SET quality = NULL, scanned_at = NULL WHERE path = 'new.md'")
    answer = Answer(world)
    assert "new.md" not in {one.path for one in answer.search().passages} and answer.look()
    comes(world, tmp_path)
    assert not answer.look()
    follow(world)
    assert "new.md" in {one.path for one in answer.search().passages}
    again = answer.search().state
    scored(world, tmp_path)
    scanned(world, tmp_path)
    assert answer.search().state == again, "what was effective already is no addition"


def test_a_scan_or_score_by_which_no_workload_may_use_more_is_no_addition(world: World, tmp_path: Path) -> None:
    world.control.execute("INSERT INTO workload_need (workload, quality_floor, scanned) VALUES ('w', 1.5, false)")
    world.ingest()
    before = world.control.execute("SELECT max(noted) FROM document").fetchone()
    world.control.execute("UPDATE document SET quality = NULL, scanned_at = NULL WHERE deleted_at IS NULL")
    scanned(world, tmp_path)
    scored(world, tmp_path)
    left = "SELECT count(*) FROM document WHERE quality IS NULL OR scanned_at IS NULL"
    assert world.control.execute(left).fetchone() == (0,)
    assert world.control.execute("SELECT max(noted) FROM document").fetchone() == before


def test_a_day_a_switched_edition_and_a_feed_that_went_back_need_a_search(
    answer: Answer,
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
        assert not answer.look()
    answer.state = state
    assert answer.look()
    # PostgreSQL says which day it is, since it decides by it what holds
    assert answer.world.control.execute("SELECT (now() AT TIME ZONE 'UTC')::date").fetchone() == (
        stood(answer.world).today,
    )


def stood(world: World) -> AccessSnapshot:
    with world.pool.connection() as conn, conn.transaction():
        return search_store.assume_reader(conn, world.people["ben"], "w")


@pytest.mark.parametrize(("bound", "most"), [("MAX_CHANGES", 6), ("MAX_PASSAGES", 1)])
def test_of_much_that_came_nothing_is_looked_at(
    answer: Answer, bound: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(still_valid, bound, most)
    for name, stands in (("one", True), ("two", False)):
        answer.world.write(f"handbook/{name}.md", UNLIKE.replace("boiler", name))
        before = answer.state
        answer.world.ingest()
        assert answer.look() is stands
        answer.state = before


def test_what_the_company_says_otherwise_bears_on_an_answer_where_a_search_looks_for_it(answer: Answer) -> None:
    answer.world.control.execute("INSERT INTO glossary_term (name, said) VALUES ('leave', '{paid leave,furlough}')")
    answer.world.write("handbook/new.md", "# Boilers\n\nFurlough of the boiler: pressure 3, valve 4, turbine 7.\n")
    answer.world.ingest()
    before = answer.state
    assert answer.look()
    answer.state = before
    assert not answer.look(synonyms=True)


def test_a_conflict_that_is_found_later_is_a_change_of_both_documents(world: World) -> None:
    rule = "# Leave {}\n\nEmployees have {} days of paid leave a year. Leave is asked for in the portal of the staff.\n"
    for year, days in ((2024, 25), (2026, 30)):
        world.write(f"handbook/leave-{year}.md", rule.format(year, days))
    world.ingest()
    world.control.execute("DELETE FROM document_conflict")
    answer = Answer(world)
    assert answer.look() and not answer.search().conflicts
    for new in (True, False):
        before = world.control.execute("SELECT max(noted) FROM document").fetchone()
        assess(world.control, "handbook", TODAY)
        assert (world.control.execute("SELECT max(noted) FROM document").fetchone() != before) is new
        assert answer.look() is not new
        follow(world)
        answer.state = answer.search().state
        assert answer.search().conflicts
