"""Questions without an answer become findings, by topic, for whoever owns the knowledge that is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from psycopg import Connection

from groundplan.knowledge.citations.support import content_words
from groundplan.knowledge.model import Embedder
from groundplan.knowledge.signals import signal_store
from groundplan.knowledge.signals.topics import MIN_QUESTIONS, Question, Topic, find_topics
from groundplan.ledger import finding_store
from groundplan.ledger.finding import Finding

KIND = "knowledge.unanswered"
DAYS = 30
Unseal = Callable[[str], str | None]


def unanswered_topics(
    conn: Connection[Any], workload: str, sources: Sequence[str], now: datetime, embedder: Embedder, unseal: Unseal
) -> list[Finding]:
    """The topics of a workload that now are. What was erased cannot be unsealed, and is gone.

    Raises `Unavailable` where nothing embeds.
    """
    kept = signal_store.unanswered_questions(conn, workload, now - timedelta(days=DAYS))
    asked = [(person, text) for person, sealed in kept if (text := unseal(sealed)) is not None]
    if not asked:
        return []
    found = find_topics(
        [_question(person, text) for person, text in asked], embedder.embed([text for _, text in asked])
    )
    return list(_findings(conn, workload, sources, found))


def unrecorded_topics(conn: Connection[Any], workload: str, sources: Sequence[str], now: datetime) -> list[Finding]:
    """Of a workload that keeps no content: that questions found nothing, for nobody can say what they were about."""
    questions = signal_store.count_unrecorded(conn, workload, now - timedelta(days=DAYS))
    if questions < MIN_QUESTIONS:
        return []
    nearest = signal_store.nearest_source(conn, sources, ())
    return [
        Finding(
            kind=KIND, subject=f"workload/{workload}", severity="low", owner=nearest[1] if nearest else None,
            message=f"{questions} questions of {DAYS} days were not answered; what they were about is not kept",
            hint="Say `keep: {content: redacted, for: 30d}` in the workload, and they are grouped by topic.",
            detail={"questions": questions},
        )
    ]  # fmt: skip


def put_topics(conn: Connection[Any], found: Sequence[Finding]) -> None:
    """All that now is, of every workload: other topics close."""
    finding_store.replace_findings(conn, found, kinds=[KIND])


def _question(person: UUID, text: str) -> Question:
    return Question(person, tuple(content_words(text)))


def _findings(
    conn: Connection[Any], workload: str, sources: Sequence[str], found: Sequence[Topic]
) -> Iterator[Finding]:
    for topic in found:
        about = ", ".join(topic.words)
        nearest = signal_store.nearest_source(conn, sources, topic.words)
        source, owner = nearest if nearest is not None else ("", None)
        yield Finding(
            kind=KIND, subject=f"workload/{workload}", severity="medium", owner=owner, mark=" ".join(topic.words),
            message=f"{topic.questions} questions of {topic.people} people about {about} were not answered",
            hint=f"Add what is missing to {source or 'a source of the workload'}, or say where it is.",
            detail={"words": list(topic.words), "questions": topic.questions, "people": topic.people, "source": source},
        )  # fmt: skip
