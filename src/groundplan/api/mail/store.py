"""The SQL of queued and sent mail. Rules are in `smtp`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg import Connection

from groundplan.core.ids import new_id


@dataclass(frozen=True, slots=True)
class QueuedMail:
    """One mail to send. `path` is the page of the console that it links to."""

    id: UUID
    email: str
    subject: str
    path: str
    tries: int


def queue_mail(conn: Connection[Any], mark: str, person_id: UUID, subject: str, path: str, now: datetime) -> bool:
    """Queue a mail unless one with the same `mark` was queued before. Returns whether it is new."""
    result = conn.execute(
        """INSERT INTO mail (id, mark, person_id, subject, path, queued_at, next_try)
           VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT (mark) DO NOTHING""",
        (new_id(), mark, person_id, subject, path, now, now),
    )
    return bool(result.rowcount)


def queue_mails(conn: Connection[Any], mails: Sequence[tuple[str, UUID, str, str]], now: datetime) -> None:
    """As `queue_mail`, for many (mark, person, subject, path) in one statement."""
    if mails:
        marks, people, subjects, paths = map(list, zip(*mails, strict=True))
        conn.execute(
            """INSERT INTO mail (id, mark, person_id, subject, path, queued_at, next_try)
               SELECT *, %s, %s FROM unnest(%s::uuid[], %s::text[], %s::uuid[], %s::text[], %s::text[])
               ON CONFLICT (mark) DO NOTHING""",
            (now, now, [new_id() for _ in mails], marks, people, subjects, paths),
        )


def take_next(conn: Connection[Any], now: datetime, again: datetime) -> QueuedMail | None:
    """Take the next mail to send, which no other process takes until `again`; None if none is due."""
    row = conn.execute(
        """WITH waiting AS (
             SELECT m.id, p.email, m.subject, m.path, m.tries FROM mail m JOIN person p ON p.id = m.person_id
             WHERE m.sent_at IS NULL AND m.next_try <= %s AND p.active ORDER BY m.queued_at
             LIMIT 1 FOR UPDATE OF m SKIP LOCKED)
           UPDATE mail SET next_try = %s FROM waiting WHERE mail.id = waiting.id RETURNING waiting.*""",
        (now, again),
    ).fetchone()
    return QueuedMail(*row) if row else None


def mark_sent(conn: Connection[Any], id: UUID, now: datetime) -> None:
    conn.execute("UPDATE mail SET sent_at = %s, problem = NULL WHERE id = %s", (now, id))


def mark_failed(conn: Connection[Any], id: UUID, next_try: datetime, problem: str) -> None:
    conn.execute(
        "UPDATE mail SET tries = tries + 1, next_try = %s, problem = %s WHERE id = %s", (next_try, problem, id)
    )


def forget_before(conn: Connection[Any], before: datetime) -> None:
    """Delete mail that was queued before this moment, sent or not."""
    conn.execute("DELETE FROM mail WHERE queued_at < %s", (before,))
