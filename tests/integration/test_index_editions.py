"""Editions of the search index on a real PostgreSQL: made beside each other, compared, switched, gone back, killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from tests.index_world import ACTOR, LONG_CHARACTERS, NOW, SHORT_CHARACTERS, IndexWorld, WordHashEmbedder, paragraph

from groundplan.core.errors import Conflict, Unavailable
from groundplan.knowledge.deletion.delete import DeletionReason, delete
from groundplan.knowledge.index import build, compare, index_store, switch
from groundplan.knowledge.index.model import Embedding, IndexSettings, serving_edition
from groundplan.knowledge.index.upkeep import Step, begin_edition
from groundplan.knowledge.intake import intake_store
from groundplan.knowledge.model import Embedder
from groundplan.knowledge.retrieval import question
from groundplan.knowledge.retrieval.replication import Follower
from groundplan.testing.database import Database

SMALL = IndexSettings(characters=SHORT_CHARACTERS)
DEFAULT = IndexSettings()
ROOT = Path(__file__).parents[2]


@pytest.fixture
def world(database: Database, tmp_path: Path) -> Iterator[IndexWorld]:
    made = IndexWorld(database, tmp_path / "s")
    for number in range(12):
        made.write(number)
    made.ingest()
    try:
        yield made
    finally:
        made.close()


def test_another_edition_is_built_compared_switched_to_gone_back_from_and_removed(world: IndexWorld) -> None:
    whole = world.passages_of_document(3)
    assert len(whole) == 1
    assert world.keep_up_until_serving(SMALL) == 2
    assert world.states() == {1: "kept", 2: "serving"}
    parts = world.passages_of_document(3)
    assert len(parts) > 2
    assert "".join("".join(sorted(parts)).split()) != ""
    assert all(len(text) <= SHORT_CHARACTERS for text in parts)
    compared = index_store.editions(world.conn)[1].compared
    assert compared is not None
    assert compared["against"] == []
    assert compared["own"]["documents"] == compared["serving"]["documents"] == 12  # type: ignore[index]
    assert compared["own"]["recall"] == 1.0  # type: ignore[index]
    assert world.keep_up(SMALL) == []

    before = switch.previous_edition(world.conn)
    switch.request_switch(world.conn, before.id, ACTOR, declined=True)
    assert switch.previous_edition(world.conn).id == before.id, "whoever goes back at the same time goes there, too"
    deadline = time.monotonic() + 60
    while not switch.finish_switch(world.conn, before.id, ACTOR):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert world.passages_of_document(3) == whole
    assert world.keep_up(SMALL) == []  # what somebody went back from is not switched to by itself again
    assert world.states() == {1: "serving", 2: "kept"}
    with pytest.raises(Conflict, match="no edition is kept"):  # whoever presses twice does not undo what they did
        switch.previous_edition(world.conn)

    later = replace(ACTOR, at=NOW + timedelta(days=31))
    world.keep_up(DEFAULT, later)
    assert world.states() == {1: "serving"}
    assert world.conn.execute("SELECT count(*) FROM chunk WHERE edition = 2").fetchone() == (0,)
    assert {"index.begun", "index.switching", "index.switched", "index.dropped"} == set(world.audited_actions())


def test_what_changes_meanwhile_is_in_every_edition_and_what_is_deleted_in_none(world: IndexWorld) -> None:
    id = begin_edition(world.conn, SMALL, ACTOR)
    world.write(3, paragraph(3).replace("has to do", "must never do"))
    world.write(50)
    (world.folder / "007.md").unlink()
    world.ingest()  # before anything of the new edition is built
    rows = world.conn.execute(
        """SELECT c.edition, count(*) FROM chunk c JOIN document d ON d.id = c.document_id
           WHERE d.path = '050.md' GROUP BY 1"""
    ).fetchall()
    assert {edition for edition, _ in rows} == {1, id}
    assert world.keep_up_until_serving(SMALL) == id
    assert all("must never do" in text or "Rule 3 says" not in text for text in world.passages_of_document(3))
    assert world.passages_of_document(50)
    assert not world.passages_of_document(7)
    documents = world.conn.execute("SELECT id FROM document WHERE path = '005.md'").fetchone()
    assert documents is not None
    delete(world.conn, [documents[0]], DeletionReason("operator", "asked for", NOW, world.folder.parent))
    switch.request_switch(world.conn, 1, ACTOR, declined=True)
    while not switch.finish_switch(world.conn, 1, ACTOR):
        time.sleep(0.02)
    assert world.passages_of_document(3)
    assert world.passages_of_document(50)
    assert not world.passages_of_document(5)
    assert not world.passages_of_document(7)


def test_an_edition_that_lacks_something_is_not_switched_to(world: IndexWorld) -> None:
    id = begin_edition(world.conn, SMALL, ACTOR)
    edition = index_store.read_edition(world.conn, id)
    assert edition is not None
    with pytest.raises(Conflict):
        switch.request_switch(world.conn, id, ACTOR)
    assert build.build(world.conn, edition, WordHashEmbedder())
    world.conn.execute(
        "DELETE FROM chunk USING document d WHERE d.id = document_id AND d.path = '004.md' AND edition = %s", (id,)
    )
    world.wait_until_followed()
    figures = compare.compare_edition(world.conn, edition, world.examine, lambda _: None, NOW)
    assert figures["missing"] == ["s/004.md"]
    assert "it lacks s/004.md" in figures["against"]
    assert world.keep_up(SMALL) == []
    told = world.conn.execute("SELECT message FROM finding WHERE kind = 'knowledge.index' AND closed_at IS NULL")
    assert any("s/004.md" in message for (message,) in told)
    switch.request_switch(world.conn, id, ACTOR)
    deadline = time.monotonic() + 60
    while world.states()[id] == "switching":
        assert time.monotonic() < deadline
        assert not switch.finish_switch(world.conn, id, ACTOR)
        time.sleep(0.02)
    assert world.states() == {1: "serving", id: "building"}
    assert world.keep_up_until_serving(SMALL) == id
    assert world.passages_of_document(4)


def test_what_was_held_of_an_edition_before_says_nothing_of_what_it_is_now(
    world: IndexWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else one that was just made anew would be found worse by a service that has not read it yet, for good."""
    monkeypatch.setattr(question, "_WAIT_SECONDS", 0.2)
    id = begin_edition(world.conn, SMALL, ACTOR)
    edition = index_store.read_edition(world.conn, id)
    assert edition is not None and build.build(world.conn, edition, WordHashEmbedder())
    while id not in world.editions.complete_editions:
        time.sleep(0.02)
    world.wait_until_followed()
    world.follower.stop()
    intake_store.notify_followers(world.conn)
    world.follower._thread.join(60)
    world.write(12)
    world.ingest()
    with pytest.raises(Unavailable, match="not read whole"):
        compare.compare_edition(world.conn, edition, world.examine, lambda _: None, NOW)
    world.follower = Follower(lambda: world.database.urls["control"], world.editions)
    world.follower.start()
    monkeypatch.undo()
    assert compare.compare_edition(world.conn, edition, world.examine, lambda _: None, NOW)["against"] == []


def test_by_hand_it_waits_for_somebody_and_a_worse_one_always(world: IndexWorld) -> None:
    for _ in range(3):
        world.keep_up(SMALL, by_hand=True)
        world.wait_until_followed()
    assert world.states() == {1: "serving", 2: "ready"}
    messages = world.conn.execute("SELECT message FROM finding WHERE kind = 'knowledge.index'").fetchall()
    assert any("is ready and no worse" in message for (message,) in messages)
    # a search service that does not hold it yet keeps everybody from switching
    with psycopg.connect(world.database.urls["control"], application_name=f"{index_store.FOLLOWER}1"):
        switch.request_switch(world.conn, 2, ACTOR)
        world.wait_until_followed()
        assert not switch.finish_switch(world.conn, 2, ACTOR)
        assert world.states() == {1: "serving", 2: "switching"}
    world.keep_up_until_serving(SMALL)
    assert world.keep_up(IndexSettings(characters=200), by_hand=True)[0] == Step("create")
    assert world.keep_up(SMALL) == [Step("drop", 3)]
    assert world.states() == {1: "kept", 2: "serving"}
    own = {
        "changed": 0,
        "without_vector": 0,
        "questions": 9,
        "recall": 0.99,
        "found": 0.9,
        "labelled": {"ndcg@10": 0.5},
    }
    better = {**own, "labelled": {"ndcg@10": 0.6}}
    assert compare.objections({"missing": [], "own": own, "serving": own}) == []
    assert "nDCG@10" in compare.objections({"missing": [], "own": own, "serving": better})[0]
    assert "ten nearest" in compare.objections({"missing": [], "own": {**own, "recall": 0.9}, "serving": own})[0]
    assert "by their headings" in compare.objections({"missing": [], "own": {**own, "found": 0.8}, "serving": own})[0]


class Away:
    """A deployment that does not answer."""

    def embed(self, _: object) -> Embedder:
        raise Unavailable("embed-eu does not embed: the gateway answered 503", code="index_embedding", hint="Wait.")


def test_vectors_of_a_deployment_have_their_own_length_and_words_serve_while_it_is_away(world: IndexWorld) -> None:
    embedding = Embedding(workload="index", deployment="embed-eu", model="acme/e5", dimension=100)
    settings = IndexSettings(embedding=embedding)
    edition = world.keep_up_until_serving(settings)
    dimensions = world.conn.execute("SELECT edition, vector_dims(embedding) FROM chunk GROUP BY 1, 2 ORDER BY 1")
    assert dimensions.fetchall() == [(1, 384), (edition, 100)]
    near = world.query("what has zebra6 to do")
    assert near.degraded == ""
    assert near.passages[0].path == "006.md"
    world.create_embedder = lambda _: Away()  # type: ignore[assignment,return-value]
    by_words = world.query("zebra6 rule")
    assert "503" in by_words.degraded
    assert by_words.passages[0].path == "006.md"
    assert by_words.confidence > 0
    world.write(60)
    world.ingest()
    world.keep_up(settings)
    kinds = world.conn.execute("SELECT message FROM finding WHERE kind = 'knowledge.index' AND closed_at IS NULL")
    assert any("embed-eu does not embed" in message for (message,) in kinds)
    world.wait_until_followed()
    assert world.query("zebra60").passages[0].path == "060.md"
    assert world.query("what has zebra6 to do").degraded == ""  # a question that was asked before is known
    world.create_embedder = lambda one: WordHashEmbedder(one.dimension)
    world.keep_up(settings)
    assert world.conn.execute(
        "SELECT count(*) FROM finding WHERE kind = 'knowledge.index' AND closed_at IS NULL"
    ).fetchone() == (0,)
    bare = world.conn.execute("SELECT count(*) FROM chunk WHERE embedding IS NULL AND text <> ''").fetchone()
    assert bare == (0,)


def test_search_reads_only_whole_editions_and_the_last_line_holds_to_it(world: IndexWorld) -> None:
    world.keep_up_until_serving(SMALL)
    begin_edition(world.conn, IndexSettings(characters=200), ACTOR)
    with closing(psycopg.connect(world.database.urls["search"], autocommit=True)) as conn:
        for edition, wanted in ((1, 1), (2, 2), (3, 2), ("x", 2), ("", 2)):
            with conn.transaction():
                conn.execute("SELECT set_config('groundplan.edition', %s, true)", (str(edition),))
                seen = {row for (row,) in conn.execute("SELECT DISTINCT edition FROM chunk")}
            assert seen == {wanted}, edition


Answer = tuple[int, frozenset[str]]


def _all(world: IndexWorld) -> set[Answer]:
    return {(number, frozenset(world.passages_of_document(number))) for number in range(12)}


def _killed(world: IndexWorld, kills: int, seed: int) -> tuple[int, list[Answer]]:
    """Make the edition by processes that are killed; (kills that came in time, what was answered meanwhile)."""
    chance, stop = random.Random(seed), threading.Event()
    answers: list[Answer] = []

    def ask() -> None:
        own = random.Random(seed)
        while not stop.is_set():
            number = own.randrange(12)
            answers.append((number, frozenset(world.passages_of_document(number))))

    asking = threading.Thread(target=ask)
    asking.start()
    in_time = 0
    try:
        for turn in range(kills + 1):
            command = (sys.executable, "-m", "tests.index_world", world.database.urls["control"], str(SHORT_CHARACTERS))
            pause = "0.02" if turn else "30"  # so that the first process is still building when it is killed
            process = subprocess.Popen(
                [*command, pause],
                cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
            )  # fmt: skip
            if turn < kills:
                _wait_for_lead(world)
                time.sleep(chance.random() * 0.25)
                if process.poll() is None:
                    process.send_signal(signal.SIGKILL)
                    in_time += 1
            process.wait(120)
            if serving_edition(index_store.editions(world.conn)).settings == SMALL:
                break
        asked, deadline = len(answers), time.monotonic() + 60
        while len(answers) < max(21, asked + 13):  # also of what serves now
            assert time.monotonic() < deadline, answers
            time.sleep(0.02)
    finally:
        stop.set()
        asking.join()
    return in_time, answers


def _wait_for_lead(world: IndexWorld) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        held = world.conn.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = 1768846456")
        if held.fetchone() == (1,):
            return
        time.sleep(0.005)


@pytest.mark.parametrize("kills", [1, pytest.param(40, marks=pytest.mark.soak)])
def test_killed_while_building_and_switching_a_search_always_answers_from_one_whole_index(
    world: IndexWorld, kills: int
) -> None:
    before = _all(world)
    in_time, answers = _killed(world, kills, seed=kills)
    after = _all(world)
    assert not before & after
    assert set(answers) <= before | after, [one for one in answers if one not in before | after][:3]
    assert len(answers) > 20
    assert {*before} & {*answers}
    assert {*after} & {*answers}
    assert in_time >= 1
    states = world.states()
    second = max(states)  # not 2 where its number was taken by what a kill undid
    assert states == {1: "kept", second: "serving"} and second > 1
    assert index_store.count_missing(world.conn, second) == (0, 0)
    assert all(len(world.passages_of_document(number)) > 2 for number in range(12))
    assert LONG_CHARACTERS > SHORT_CHARACTERS
