"""Ingestion and search on a real PostgreSQL: who sees what, at once, and what happens when something is missing."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import psycopg
import pytest
from msgspec.structs import replace
from psycopg_pool import ConnectionPool
from threadpoolctl import threadpool_limits

from groundplan.blueprint.model import Source
from groundplan.core.errors import Invalid, Unavailable
from groundplan.core.ids import new_id
from groundplan.core.settings import load_settings
from groundplan.gateway.search_app import configure
from groundplan.knowledge.embedding.encoder import EmbeddedTexts, Encoder
from groundplan.knowledge.model import Chunk, IngestReport, Readers
from groundplan.knowledge.retrieval import question, search_store
from groundplan.knowledge.retrieval.editions import Editions
from groundplan.knowledge.retrieval.fuse import Weights
from groundplan.knowledge.retrieval.projection import Projection
from groundplan.knowledge.retrieval.projection_file import FORMAT, ProjectionFile
from groundplan.knowledge.retrieval.replication import Follower, apply_next_changes, is_plausible
from groundplan.knowledge.retrieval.search import Search
from groundplan.knowledge.retrieval.search_store import AccessSnapshot
from groundplan.knowledge.retrieval.wire import Passage, SearchRequest, Where
from groundplan.knowledge.retrieval.words import Analyzer
from groundplan.knowledge.service import IngestContext, ingest_sources
from groundplan.runtime.models import MINILM, ensure
from groundplan.testing import document_rows
from groundplan.testing.database import Database
from groundplan.testing.document_rows import Document

TODAY = date(2026, 11, 25)
TRAVEL = "---\nreview_by: 2025-01-31\n---\n# Travel\n\nTrains are preferred to planes below 600 km.\n"
FILES = {
    "handbook/leave.md": "# Leave\n\nEmployees have 28 days of paid leave a year.\n\n## Sick\n\nCall your lead.\n",
    "handbook/travel.md": TRAVEL,
    "handbook/travel-copy.md": TRAVEL,
    "handbook/hr/.readers": "hr\n",
    "handbook/hr/pay.md": "# Pay bands\n\nBand 4 of the salary table starts at 61,000 euros.\n",
    "handbook/bad.md": "---\nreaders: everyone\n---\n# Not a list\n",
}


class Remembering(Encoder):
    """The embedded model, asked once for each text: most tests have the same documents, and each takes milliseconds."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._known: dict[str, tuple[Any, int]] = {}

    def embed_counted(self, texts: Sequence[str]) -> EmbeddedTexts:
        new = list({text: None for text in texts if text not in self._known})
        if new:
            found = super().embed_counted(new)
            self._known.update(zip(new, zip(found.vectors, found.tokens, strict=True), strict=True))
        if not texts:
            return super().embed_counted(texts)
        vectors, tokens = zip(*(self._known[text] for text in texts), strict=True)
        return EmbeddedTexts(np.stack(vectors), tokens)


class World:
    """A workspace, a database with people, and everything that searches it, in this process."""

    def __init__(self, database: Database, folder: Path, encoder: Encoder) -> None:
        self.database = database
        self.workspace = folder / "workspace"
        self.encoder = encoder
        self.index = Projection()
        self.analyzer = Analyzer()
        self.control = psycopg.connect(database.urls["control"], autocommit=True)
        self.pool: ConnectionPool[Any] = ConnectionPool(
            database.urls["search"], kwargs={"autocommit": True}, min_size=1, max_size=2, open=True
        )
        self.search = Search(self.pool, encoder, self.index)
        for path, text in FILES.items():
            self.write(path, text)
        self.people = {name: self.person(name) for name in ("ben", "hana")}
        self.groups = {name: self.group(name) for name in ("hr", "hr-leads")}
        self.join("hr", "hr-leads", is_group=True)
        self.join("hr-leads", "hana")

    def write(self, path: str, text: str) -> None:
        (self.workspace / path).parent.mkdir(parents=True, exist_ok=True)
        (self.workspace / path).write_text(text, encoding="utf-8")

    def person(self, name: str) -> UUID:
        id = new_id()
        self.control.execute(
            "INSERT INTO person (id, email, name) VALUES (%s, %s, %s)", (id, f"{name}@acme.example", name)
        )
        return id

    def group(self, name: str) -> UUID:
        id = new_id()
        self.control.execute("INSERT INTO people_group (id, name, type) VALUES (%s, %s, 'group')", (id, name))
        return id

    def join(self, group: str, member: str, *, is_group: bool = False) -> None:
        row = (
            new_id(),
            self.groups[group],
            *((None, self.groups[member]) if is_group else (self.people[member], None)),
        )
        self.control.execute(
            "INSERT INTO membership (id, group_id, person_id, member_group_id) VALUES (%s, %s, %s, %s)", row
        )

    def ingest(self, *sources: Source) -> IngestReport:
        declared = sources or (source(),)
        report = ingest_sources(
            self.database.urls["control"], declared, self.encoder, IngestContext(self.workspace, TODAY)
        )[0]
        while apply_next_changes(self.control, self.index, self.analyzer):
            pass
        return report

    def ask(self, name: str | None, query: str, **more: Any) -> list[Passage]:
        person = None if name is None else str(self.people[name])
        request = SearchRequest(workload="w", person=person, query=query, sources=["handbook"], **more)
        return self.search.passages(request)

    def paths(self, name: str | None, query: str) -> set[str]:
        return {passage.path for passage in self.ask(name, query)}

    def findings(self) -> set[tuple[str, str]]:
        rows = self.control.execute("SELECT kind, subject FROM finding WHERE closed_at IS NULL")
        return {(kind, subject) for kind, subject in rows}

    def close(self) -> None:
        self.pool.close()
        self.control.close()


def source(readers: list[str] | None = None) -> Source:
    return Source(
        name="handbook",
        path="./handbook",
        sensitivity="internal",
        owner="dana@acme.example",
        readers=["everyone"] if readers is None else readers,
    )


@pytest.fixture(scope="module")
def encoder() -> Iterator[Encoder]:
    with threadpool_limits(limits=1, user_api="blas"):
        yield Remembering(ensure(load_settings().models, MINILM.name))


@pytest.fixture
def world(database: Database, tmp_path: Path, encoder: Encoder) -> Iterator[World]:
    made = World(database, tmp_path, encoder)
    try:
        yield made
    finally:
        made.close()


def test_a_question_finds_its_passage_with_file_and_lines(world: World) -> None:
    report = world.ingest()
    assert (report.read, report.added, report.failed) == (4, 4, 1)
    (first, *_) = world.ask("ben", "How many vacation days do I get?")
    assert (first.path, first.source, first.title) == ("leave.md", "handbook", "Leave")
    lines = FILES["handbook/leave.md"].splitlines()
    assert first.text == "\n".join(lines[first.start_line - 1 : first.end_line])
    assert "28 days" in first.text


def test_just_ingested_documents_are_counted(world: World) -> None:
    """Else PostgreSQL plans a search as if there were nothing, until it counts by itself."""
    world.ingest()
    rows = world.control.execute(
        "SELECT relname, reltuples FROM pg_class WHERE oid IN ('document'::regclass, 'chunk'::regclass)"
    ).fetchall()
    assert {name for name, count in rows if count > 0} == {"document", "chunk"}


def test_only_readers_see_a_document_by_words_and_by_meaning(world: World) -> None:
    world.ingest()
    for query in ("salary table band 4", "What are people in the fourth grade paid?"):
        assert "hr/pay.md" in world.paths("hana", query)
        assert "hr/pay.md" not in world.paths("ben", query)
    assert world.paths(None, "salary table band 4") == set()
    stranger = SearchRequest(workload="w", person=str(new_id()), query="leave", sources=["handbook"])
    assert world.search.passages(stranger) == []


def test_a_passage_names_its_duplicates_to_people_who_may_read_them(world: World) -> None:
    world.write("handbook/hr/leave.md", FILES["handbook/leave.md"])
    world.ingest()

    def told(name: str) -> list[tuple[str, list[str]]]:
        found = world.ask(name, "How many days of paid leave do employees have?", k=1)
        return [(one.path, [place.path for place in one.also]) for one in found]

    assert told("ben") == [("leave.md", [])]
    assert told("hana") == [("leave.md", ["hr/leave.md"])]


def test_a_revoked_membership_applies_to_the_next_search(world: World) -> None:
    world.ingest()
    assert "hr/pay.md" in world.paths("hana", "salary table")
    world.control.execute("DELETE FROM membership WHERE member_group_id = %s", (world.groups["hr-leads"],))
    assert "hr/pay.md" not in world.paths("hana", "salary table")
    world.join("hr", "hana")
    assert "hr/pay.md" in world.paths("hana", "salary table")
    world.control.execute("UPDATE person SET active = false WHERE id = %s", (world.people["hana"],))
    assert world.paths("hana", "salary table") == set()


def test_scores_reflect_changes_before_the_index_does(world: World) -> None:
    """Of words that only other documents have in common with an answer."""
    for number in range(6):
        world.write(f"handbook/days{number}.md", f"# Days {number}\n\nPaid days of leave, and days, number {number}.\n")
    world.ingest()
    ids: dict[str, UUID] = dict(world.control.execute("SELECT path, id FROM document").fetchall())
    hr, everyone, nobody = frozenset({"hr"}), frozenset({"everyone"}), frozenset[str]()
    other = Document("days3.md", "Other", "Nothing of that.", "x", Readers(everyone), markdown=True)
    parts, vectors = [Chunk(0, other.text, 0, len(other.text), 1, 1)], world.encoder.embed([other.text])
    steps: dict[str, Callable[[psycopg.Connection[Any]], object]] = {
        "narrowed": lambda conn: document_rows.set_readers(conn, ids["days0.md"], Readers(hr)),
        "refused": lambda conn: document_rows.set_readers(conn, ids["days1.md"], Readers(everyone, everyone)),
        "closed": lambda conn: document_rows.set_readers(conn, ids["days2.md"], Readers(nobody)),
        "opened": lambda conn: document_rows.set_readers(conn, ids["days0.md"], Readers(everyone)),
        # what it says now is found by its vector, and counts for nothing until the index has it
        "other text": lambda conn: document_rows.put_document(conn, "handbook", other, parts, vectors),
        "deleted": lambda conn: document_rows.delete_document(conn, ids["days4.md"]),
    }

    def told() -> list[tuple[str, float]]:
        asked = world.ask("ben", "paid days of leave", k=50)
        return [(one.path, one.score) for one in asked if one.path in ("leave.md", "days5.md")]

    scores = told()
    for name, step in steps.items():
        with world.control.transaction():
            step(world.control)
        at_once = told()
        assert at_once != scores, f"{name}: what words weigh has changed"
        if name == "other text":
            with world.control.transaction():
                document_rows.delete_document(world.control, ids["days3.md"])
        while apply_next_changes(world.control, world.index, world.analyzer):
            pass
        scores = told()
        assert at_once == scores, name


def test_a_search_waits_for_a_lagging_index_and_is_refused_if_it_stays_behind(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.ingest()
    monkeypatch.setattr(search_store, "MAX_CHANGED", 1)
    monkeypatch.setattr(question, "_WAIT_SECONDS", 0.2)
    with world.control.transaction():
        for (id,) in world.control.execute("SELECT id FROM document").fetchall():
            document_rows.set_readers(world.control, id, Readers(frozenset({"hr"})))
    with pytest.raises(Unavailable) as refused:
        world.ask("hana", "paid leave")
    assert (refused.value.code, refused.value.retry_after) == ("search_index", 1.0)
    monkeypatch.setattr(question, "_WAIT_SECONDS", 60.0)
    with ThreadPoolExecutor(1) as asking:
        waiting = asking.submit(world.paths, "hana", "paid leave")
        while apply_next_changes(world.control, world.index, world.analyzer):
            pass
        assert "leave.md" in waiting.result()
    assert world.paths("ben", "paid leave") == set()


def test_the_word_index_cannot_show_what_postgresql_hides(world: World) -> None:
    world.ingest()
    vector = world.encoder.embed(["salary band"])[0]
    every = AccessSnapshot(tuple(world.index.view.classes.acls.tolist()), 1)
    assert len(world.search.propose("salary band", vector, ["handbook"], every).words) == 1
    assert world.search.propose("salary band", vector, ["other"], every).words == {}
    world.write("handbook/hr/.readers", "!ben@acme.example\n")
    assert world.ingest().readers_changed == 1
    assert "hr/pay.md" in world.paths("hana", "salary band")
    assert "hr/pay.md" not in world.paths("ben", "salary band")


def test_many_hidden_documents_do_not_hide_a_readable_one(world: World) -> None:
    for number in range(120):
        world.write(f"handbook/hr/file{number}.md", f"# Bonus {number}\n\nBonus bonus rule {number}.\n")
    world.write("handbook/open.md", "# Open\n\n" + "Among many other words the bonus is told here. " * 3)
    world.ingest()
    assert world.paths("ben", "bonus") == {"open.md"}


def test_changes_are_replicated_and_deleted_documents_destroyed(world: World) -> None:
    world.ingest()
    assert world.ingest().added == 0
    world.write("handbook/leave.md", "# Leave\n\nEmployees have 30 days of paid leave a year.\n")
    (world.workspace / "handbook/hr/pay.md").unlink()
    old = {passage.chunk for passage in world.ask("ben", "paid leave")}
    report = world.ingest()
    assert (report.changed, report.deleted, report.added) == (1, 1, 0)
    (first, *_) = world.ask("ben", "How many days of paid leave?")
    assert "30 days" in first.text
    assert first.chunk not in old
    assert "hr/pay.md" not in world.paths("hana", "salary table band 4")
    left = world.control.execute(
        "SELECT c.text FROM chunk c JOIN document d ON d.id = c.document_id WHERE d.path = 'hr/pay.md'"
    ).fetchall()
    assert left == [("",)]
    world.write("handbook/hr/pay.md", FILES["handbook/hr/pay.md"])
    assert world.ingest().added == 1
    assert "hr/pay.md" in world.paths("hana", "salary table band 4")


def test_findings_open_once_and_close_when_they_no_longer_hold(world: World) -> None:
    world.ingest(source(["everyone", "nobody-knows"]))
    opened = {
        ("knowledge.stale", "source/handbook/travel.md"),
        ("knowledge.stale", "source/handbook/travel-copy.md"),
        ("knowledge.duplicate", "source/handbook/travel-copy.md"),
        ("knowledge.unreadable", "source/handbook/bad.md"),
        ("knowledge.reader_unknown", "source/handbook/reader:nobody-knows"),
    }
    found = world.findings()
    assert found == opened
    world.ingest(source(["everyone", "nobody-knows"]))
    assert world.control.execute("SELECT count(*) FROM finding").fetchone() == (5,)
    for name in ("travel.md", "travel-copy.md", "bad.md"):
        (world.workspace / "handbook" / name).unlink()
    world.ingest()
    assert world.findings() == set()


def test_a_document_that_can_no_longer_be_read_for_certain_leaves_search(world: World) -> None:
    world.ingest()
    world.write("handbook/leave.md", "---\nreaders: hr\n---\n# Leave\n\nEmployees have 28 days of paid leave.\n")
    assert world.ingest().failed == 2
    assert "leave.md" not in world.paths("ben", "paid leave")


def test_current_documents_rank_before_overdue_ones(world: World) -> None:
    for year, euros, review in ((2021, 41, "2022-12-31"), (2026, 52, "2099-12-31")):
        world.write(
            f"handbook/meals-{year}.md", f"---\nreview_by: {review}\n---\n# Meals\n\nThe allowance is {euros} EUR.\n"
        )
    world.ingest()
    found = [one.path for one in world.ask("ben", "meals allowance")]
    assert found[:2] == ["meals-2026.md", "meals-2021.md"]
    asked = SearchRequest(
        workload="w", person=str(world.people["ben"]), query="What allowances for a MEAL?", sources=["handbook"]
    )
    explained = world.search.passages(replace(asked, explain=True))[:2]
    assert [(one.words, one.overdue) for one in explained] == [
        (["allowances", "MEAL"], year < 2026) for year in (2026, 2021)
    ]
    assert not any(one.words or one.overdue for one in world.search.passages(asked)), "only where it is asked for"


def test_a_missing_folder_changes_nothing_and_is_reported(world: World) -> None:
    world.ingest()
    shutil.move(world.workspace / "handbook", world.workspace / "away")
    assert world.ingest().deleted == 0
    assert ("knowledge.source_missing", "source/handbook") in world.findings()
    assert "leave.md" in world.paths("ben", "paid leave")


def test_ingestion_is_in_the_audit_log_without_names(world: World) -> None:
    world.ingest()
    world.ingest()
    rows = world.control.execute("SELECT subject, body FROM audit_entry WHERE action = 'knowledge.ingested'").fetchall()
    assert [subject for subject, _ in rows] == ["source/handbook"]
    assert b"acme.example" not in bytes(rows[0][1])


def test_passages_fit_the_limit_and_invalid_searches_are_refused(world: World) -> None:
    world.ingest()
    assert world.ask("ben", "leave", max_bytes=10) == []
    assert len(world.ask("ben", "leave travel", k=1)) == 1
    # the same text in two documents is given once
    assert len([one for one in world.ask("ben", "trains or planes") if "600 km" in one.text]) == 1
    assert world.ask("ben", "the of and") == []
    assert world.ask("ben", "   ") == []
    for bad in ({"k": -1}, {"k": 1000}, {"max_bytes": -1}):
        with pytest.raises(Invalid):
            world.ask("ben", "leave", **bad)
    with pytest.raises(Invalid):
        world.search.passages(SearchRequest(workload="w", person="ben", query="x", sources=["handbook"]))


def test_without_postgresql_no_search_is_answered(world: World) -> None:
    world.ingest()
    world.pool.close()
    with pytest.raises(Unavailable) as caught:
        world.ask("ben", "paid leave")
    assert caught.value.code == "search_cut_off"
    assert caught.value.retry_after


def test_the_follower_catches_up_within_a_second_and_starts_over_on_another_database(world: World) -> None:
    other = Projection()
    follower = Follower(lambda: world.database.urls["control"], Editions(other))
    follower.start()
    try:
        world.ingest()
        deadline = time.monotonic() + 30
        while other.count != world.index.count and time.monotonic() < deadline:
            time.sleep(0.02)
        assert other.count == world.index.count > 0
    finally:
        follower.stop()
    assert is_plausible(world.control, world.index)
    world.control.execute("DELETE FROM chunk WHERE changed = (SELECT max(changed) FROM chunk)")
    assert not is_plausible(world.control, world.index)


def test_the_search_role_cannot_see_without_a_person_nor_write(world: World) -> None:
    world.ingest()
    with psycopg.connect(world.database.urls["search"], autocommit=True) as conn:
        assert conn.execute("SELECT count(*) FROM chunk").fetchone() == (0,)
        assert conn.execute("SELECT count(*) FROM document").fetchone() == (0,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute("UPDATE chunk SET text = ''")


def test_the_projection_is_stored_on_disk_and_rebuilt_if_damaged(world: World, tmp_path: Path) -> None:
    world.ingest()
    folder = tmp_path / "kept"
    saved = ProjectionFile(folder)
    index = saved.load()
    while apply_next_changes(world.control, index, world.analyzer):
        pass
    saved.save()
    again = ProjectionFile(folder).load()
    assert (again.cursor, again.count) == (index.cursor, index.count)
    assert is_plausible(world.control, again)
    world.search = Search(world.pool, world.encoder, again)
    assert "hr/pay.md" in world.paths("hana", "salary table band 4")
    world.write("handbook/leave.md", "# Leave\n\nNobody works on the second Friday of brumaire.\n")
    world.ingest()
    while apply_next_changes(world.control, again, world.analyzer):
        pass
    assert again.count == world.index.count
    assert world.paths("ben", "brumaire") == {"leave.md"}
    for damage in ("terms", "state.json", "bits.npy", "segment0_rows.npy"):
        saved.save()
        (folder / f"projection-{FORMAT}" / damage).write_bytes(b"{")
        assert ProjectionFile(folder).load().count == 0


def test_below_the_floor_no_passage_is_returned_and_that_is_reported(world: World) -> None:
    world.ingest()
    person = str(world.people["ben"])
    for floor, abstained in ((0.1, False), (0.99, True)):
        request = SearchRequest(workload="w", person=person, query="paid leave", sources=["handbook"], floor=floor)
        found = world.search.answer(request)
        assert (found.abstained, not found.passages) == (abstained, abstained)
        assert 0.3 < found.confidence < 0.99
    assert not world.search.answer(replace(request, floor=0.0, query="the of and")).abstained


def test_a_search_for_a_past_time_and_withheld_passages_named_only_to_their_readers(world: World) -> None:
    world.ingest()
    world.control.execute("UPDATE document SET modified_at = '2026-03-01' WHERE path = 'leave.md'")
    person = str(world.people["ben"])
    request = SearchRequest(workload="w", person=person, query="paid leave", sources=["handbook"], explain=True)
    march, april = datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC)

    def within(**where: Any) -> set[str]:
        return {one.path for one in world.search.passages(replace(request, where=Where(**where)))}

    assert within(after=march, before=april) == {"leave.md"}
    assert "leave.md" not in within(after=april)
    every = within()
    assert within(path="lea", owner="dana@acme.example", media="md", sensitivity=["public", "internal"]) == {"leave.md"}
    for other in ({"path": "eave"}, {"owner": "ana@acme.example"}, {"media": "pdf"}, {"sensitivity": ["public"]}):
        assert within(**other) == set(), other
    assert within(path="hr/") == set(), "a filter opens nothing"
    assert within(sensitivity=["internal"]) == every
    world.control.execute("UPDATE document SET state = 'retired' WHERE path IN ('leave.md', 'hr/pay.md')")
    found = world.search.answer(request)
    assert "leave.md" not in {one.path for one in found.passages}
    assert [(one.path, one.reason) for one in found.withheld] == [("leave.md", "retired")]
    for where, told in ((Where(path="le"), ["leave.md"]), (Where(path="tra"), []), (Where(media="pdf"), [])):
        kept_back = world.search.answer(replace(request, where=where)).withheld
        assert [one.path for one in kept_back] == told, "only of what was asked about"
    withheld = world.search.answer(replace(request, query="salary table band 4")).withheld
    assert "hr/pay.md" not in {one.path for one in withheld}


def test_public_documents_need_no_person(world: World) -> None:
    world.ingest(source(["public"]))
    assert "leave.md" in world.paths(None, "paid leave")
    assert world.paths(None, "salary table band 4").isdisjoint({"hr/pay.md"})
    gone = world.people["ben"]
    world.control.execute("UPDATE person SET active = false WHERE id = %s", (gone,))
    assert world.paths("ben", "paid leave") == set(), "who has left is not nobody in particular"


def test_a_filtered_document_is_found_however_rare_among_the_matches(world: World) -> None:
    for number in range(130):
        world.write(f"handbook/many/{number}.md", f"# Leave {number}\n\nPaid leave, paid leave: {number} days of it.\n")
    world.write("handbook/rare/one.md", "# Trains\n\nWho rides a train on leave asks first.\n")
    world.write("handbook/many/less.md", "# Trains\n\nWho rides a train on leave asks twice.\n")
    world.ingest()
    request = SearchRequest(
        workload="w", person=str(world.people["ben"]), query="paid leave", sources=["handbook"],
        where=Where(path="rare/"),
    )  # fmt: skip
    assert [one.path for one in world.search.passages(request)] == ["rare/one.md"]
    assert world.search.passages(replace(request, person=str(new_id()))) == []
    # most of what is asked about is kept back, and better
    world.control.execute("UPDATE document SET state = 'retired' WHERE path LIKE 'many/%' AND path <> 'many/less.md'")
    asked = replace(request, where=Where(path="many/"))
    assert [one.path for one in world.search.passages(asked)] == ["many/less.md"]


def test_changed_attributes_of_a_document_apply_at_once(world: World) -> None:
    """The index is told, and until it knows, whatever changed is looked at."""
    for number in range(130):
        world.write(f"handbook/many/{number}.md", f"# Leave {number}\n\nPaid leave, paid leave: {number} days of it.\n")
    world.write("handbook/gliders.md", "# Gliders\n\nNobody takes a glider to a customer.\n")
    world.ingest()
    ben = str(world.people["ben"])

    def asked(where: Where) -> set[str]:
        request = SearchRequest(workload="w", person=ben, query="glider", sources=["handbook"], where=where, k=20)
        return {one.path for one in world.search.passages(request)}

    may = datetime(2026, 5, 1, tzinfo=UTC)
    for column, value, where in (
        ("owner", "eve@acme.example", Where(owner="eve@acme.example")),
        ("sensitivity", "confidential", Where(path="gl", sensitivity=["confidential"])),
        ("media", "odt", Where(media="odt")),
        ("modified_at", may, Where(path="gl", after=may, before=may + timedelta(seconds=1))),
        ("path", "rails.md", Where(path="ra")),
    ):
        assert asked(where) == set(), column
        before = world.index.view
        world.control.execute(f"UPDATE document SET {column} = %s WHERE path = 'gliders.md'", (value,))
        wanted = {"rails.md"} if column == "path" else {"gliders.md"}
        assert world.index.view is before and asked(where) == wanted, f"{column}: at once"
        while apply_next_changes(world.control, world.index, world.analyzer):
            pass
        first, _ = world.index.view.documents.matching(where)
        assert (len(first), asked(where)) == (1, wanted), f"{column}: known to the index"
        if column == "sensitivity":
            assert asked(Where(path="gl", sensitivity=["internal"])) == set()


def test_documents_outside_the_path_filter_are_not_read(world: World) -> None:
    """However many a source has: one plan for all paths would read each of them."""
    for number in range(30):
        world.write(f"handbook/many/{number}.md", f"# Leave {number}\n\nPaid leave: {number} days of it.\n")
    world.write("handbook/rare/one.md", "# Trains\n\nWho rides a train on leave asks first.\n")
    world.ingest()

    def looked() -> int:
        conn.execute("SELECT pg_stat_force_next_flush()")
        found = conn.execute(
            "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_user_tables WHERE relname = 'document'"
        ).fetchone()
        return int(found[0]) if found else -1

    with psycopg.connect(world.database.urls["search"], autocommit=True) as conn:
        configure(conn)
        before = looked()
        with conn.transaction():
            search_store.assume_reader(conn, world.people["ben"], "w")
            assert len(search_store.matching_documents(conn, Where(path="rare/"), ["handbook"])) == 1
        assert looked() - before == 1


def test_rows_of_a_long_table_are_returned_with_its_header(world: World) -> None:
    rows = "".join(f"| P{number} | {number}.5 | runs |\n" for number in range(40))
    world.write("handbook/pumps.md", f"# Readings\n\n| pump | pressure | state |\n| --- | --- | --- |\n{rows}")
    world.ingest()
    (found, *_) = world.ask("ben", "pressure of pump P37", k=1, context=0)
    assert (found.path, found.head) == ("pumps.md", "| pump | pressure | state |")
    assert "| P37 | 37.5 | runs |" in found.text and "pressure" not in found.text
    assert len(found.text) == found.end_char - found.start_char


def test_questions_in_scripts_without_spaces_are_found_by_their_words(world: World) -> None:
    world.write(
        "handbook/zh.md", "# 假期\n\n员工每年有二十八天带薪年假，申请须提前两周。\n\n# 差旅\n\n报销差旅费须提交发票。\n"
    )
    world.write("handbook/ja.md", "# 休暇\n\n有給休暇は年に28日です。VPNの設定は部長に聞いてください。\n")
    world.ingest()
    for asked, path, words in (
        ("带薪年假有几天？", "zh.md", ["带薪", "薪年", "年假"]),
        ("差旅费怎么报销", "zh.md", ["差旅", "旅费", "报销"]),
        ("ＶＰＮの設定", "ja.md", ["VPN", "の設", "設定"]),
    ):
        first = world.ask("ben", asked, explain=True)[0]
        assert (first.path, first.words) == (path, words)


def test_words_and_vectors_are_combined_by_weights(world: World) -> None:
    """With none for words and neighbours a score is the similarity, as benchmarks that choose weights rely on."""
    world.ingest()
    request = SearchRequest(
        workload="w", person=str(world.people["ben"]), query="paid leave", sources=["handbook"], explain=True
    )
    alone = Search(world.pool, world.encoder, world.index, weights=Weights(0.0, 0.0)).passages(request)
    current = [one for one in alone if one.path == "leave.md"]  # what is overdue counts half
    assert [one.similarity for one in current] == pytest.approx([one.score for one in current], abs=0.01)
    assert world.search.passages(request)[0].score > alone[0].score + 0.5
