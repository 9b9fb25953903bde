"""Questions that nothing answers: kept no longer than they may be, told by topic and never one by one, to who owns the
gap."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import numpy as np
import psycopg
from hypothesis import given
from hypothesis import strategies as st

from groundplan.core.ids import new_id
from groundplan.knowledge import store
from groundplan.knowledge.model import DIMENSION, Vectors
from groundplan.knowledge.signals import gather, signal_store
from groundplan.knowledge.signals.signal_store import Signal
from groundplan.knowledge.signals.topics import MIN_PEOPLE, MIN_QUESTIONS, Question, find_topics
from groundplan.ledger import finding_store
from groundplan.testing.database import Database

NOW = datetime.now(UTC)
ANA, BEN = UUID(int=1), UUID(int=2)


class BySubject:
    """Texts about the same subject are the same direction."""

    def embed(self, texts: Sequence[str]) -> Vectors:
        rows = np.zeros((len(texts), DIMENSION), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            row[0 if "parking" in text else 1 if "pension" in text else 2] = 1
        return rows


def test_topics_are_of_several_questions_of_several_people() -> None:
    parking = [Question(who, ("parking", word)) for who, word in ((ANA, "place"), (BEN, "place"), (ANA, "bicycle"))]
    pension = [Question(ANA, ("pension", "secret")) for _ in range(5)]
    vectors = BySubject().embed(["parking"] * 3 + ["pension"] * 5)
    (topic,) = find_topics([*parking, *pension], vectors)
    assert (topic.words, topic.questions, topic.people) == (("parking", "place"), 3, 2)


def test_a_thousand_questions_about_as_many_things_are_grouped_at_once() -> None:
    vectors = np.random.default_rng(7).normal(size=(1000, DIMENSION)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    began = time.process_time()
    assert find_topics([Question(ANA, ("a",))] * 1000, vectors) == []
    assert time.process_time() - began < 1.5, "each is held against all middles at once; it took four seconds"


@given(st.lists(st.tuples(st.sampled_from([ANA, BEN]), st.sampled_from("abc"), st.integers(0, 2)), max_size=20))
def test_no_word_of_one_person_alone_is_told(asked: list[tuple[UUID, str, int]]) -> None:
    questions = [Question(person, (word,)) for person, word, _ in asked]
    vectors = np.zeros((len(asked), DIMENSION), dtype=np.float32)
    for row, (_, _, subject) in zip(vectors, asked, strict=True):
        row[subject] = 1
    for topic in find_topics(questions, vectors):
        assert topic.questions >= MIN_QUESTIONS and topic.people >= MIN_PEOPLE
        for word in topic.words:
            assert len({person for person, said, _ in asked if said == word}) >= MIN_PEOPLE


def test_a_gap_is_told_to_whoever_owns_it_and_closes_when_it_is_old(database: Database) -> None:
    with psycopg.connect(database.urls["control"], autocommit=True) as conn:
        for name, owner, title in (("handbook", "ana@acme.example", "Leave"), ("site", "sam@acme.example", "Parking")):
            store.put_source(conn, name, path=name, sensitivity="internal", owner=owner)
            conn.execute(
                "INSERT INTO document (id, source, path, title, digest) VALUES (%s, %s, 'x.md', %s, 'd')",
                (new_id(), name, title),
            )
        until = NOW + timedelta(days=5)
        for person, text in ((ANA, "Where is parking?"), (BEN, "May I use parking?"), (BEN, "Is parking free?")):
            signal_store.add_signal(conn, Signal("w", "unanswered", person=person, asked=text, until=until))
        signal_store.add_signal(conn, Signal("w2", "unanswered"))
        told = gather.unanswered_topics(conn, "w", ["handbook", "site"], NOW, BySubject(), lambda sealed: sealed)
        gather.put_topics(conn, told)
        (found,) = finding_store.list_findings(conn, kinds=[gather.KIND])
        assert found["message"] == "3 questions of 2 people about parking were not answered"
        assert (found["owner"], found["subject"]) == ("sam@acme.example", "workload/w")
        assert "free" not in str(found), "no question is repeated"
        assert gather.unanswered_topics(conn, "w", ["handbook"], NOW, BySubject(), lambda _: None) == [], (
            "what was erased is gone"
        )
        assert signal_store.forget_expired(conn, until + timedelta(seconds=1)) == 3
        gather.put_topics(
            conn, gather.unanswered_topics(conn, "w", ["handbook"], NOW, BySubject(), lambda sealed: sealed)
        )
        assert finding_store.list_findings(conn, kinds=[gather.KIND]) == []
        with psycopg.connect(database.urls["gateway"], autocommit=True) as gateway:
            gateway.execute(
                """INSERT INTO call_citation
                     (call_id, number, passage, start_char, end_char, answer_start, answer_end, at)
                   SELECT gen_random_uuid(), 0, 1, 0, 1, 0, 1, %s - make_interval(days => d) FROM unnest(%s) d""",
                (NOW, [1, signal_store.KEPT_DAYS + 1]),
            )
        signal_store.forget_expired(conn, NOW)
        assert conn.execute("SELECT count(*) FROM call_citation").fetchone() == (1,)
        left = signal_store.signals_by_workload(conn, NOW - timedelta(days=1))
        assert [(row["workload"], row["unanswered"]) for row in left] == [("w", 3), ("w2", 1)], "that it happened stays"
