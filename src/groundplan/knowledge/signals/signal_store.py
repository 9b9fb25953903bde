"""The SQL of signals, as role control: keeping them, adding them up, and who owns what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from psycopg import Connection

from groundplan.core.database import select
from groundplan.core.ids import new_id

Conn = Connection[Any]
UNANSWERED = "unanswered"
KEPT_DAYS = 400
"""More than a year, so that it can be compared with the last one."""


@dataclass(frozen=True, slots=True)
class Signal:
    """`asked` is sealed; without it there is no person either."""

    workload: str
    kind: str
    document: UUID | None = None
    rank: int | None = None
    call: UUID | None = None
    person: UUID | None = None
    asked: str | None = None
    until: datetime | None = None
    id: UUID = field(default_factory=new_id)


def add_signal(conn: Conn, one: Signal) -> UUID:
    """Keep it, once however often it is told; its id."""
    conn.execute(
        """INSERT INTO knowledge_signal (id, workload, kind, document_id, rank, call_id, person_id, asked, expires_at)
           VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING""",
        (one.id, one.workload, one.kind, one.document, one.rank, one.call, one.person, one.asked, one.until),
    )
    return one.id


def unanswered_questions(conn: Conn, workload: str, since: datetime, limit: int = 1000) -> list[tuple[UUID, str]]:
    """(person, sealed question) of the newest that are kept."""
    return conn.execute(
        """SELECT person_id, asked FROM knowledge_signal WHERE workload = %s AND kind = 'unanswered' AND at >= %s
             AND asked IS NOT NULL ORDER BY at DESC LIMIT %s""",
        (workload, since, limit),
    ).fetchall()


def count_unrecorded(conn: Conn, workload: str, since: datetime) -> int:
    """How many questions found nothing of which it is not known what was asked."""
    row = conn.execute(
        """SELECT count(*) FROM knowledge_signal WHERE workload = %s AND kind = 'unanswered' AND at >= %s
             AND asked IS NULL""",
        (workload, since),
    ).fetchone()
    return int(row[0]) if row else 0


def forget_expired(conn: Conn, now: datetime) -> int:
    """What was asked is gone after its time; that something was asked stays, for `KEPT_DAYS`, as do looks at citations.
    How many questions were forgotten."""
    old = now - timedelta(days=KEPT_DAYS)
    conn.execute("DELETE FROM call_citation WHERE at < %s", (old,))
    conn.execute("DELETE FROM knowledge_signal WHERE at < %s", (old,))
    return conn.execute(
        "UPDATE knowledge_signal SET asked = NULL, person_id = NULL, expires_at = NULL WHERE expires_at <= %s", (now,)
    ).rowcount


def forget_disabled(conn: Conn, kept: Sequence[tuple[str, int]]) -> None:
    """What was asked is forgotten where its workload is not among `kept` (workload, seconds) any more, or it is older
    than that is kept now."""
    conn.execute(
        """UPDATE knowledge_signal s SET asked = NULL, person_id = NULL, expires_at = NULL WHERE expires_at IS NOT NULL
             AND (expires_at <= now() OR NOT EXISTS (
               SELECT 1 FROM unnest(%s::text[], %s::bigint[]) r (workload, seconds)
               WHERE r.workload = s.workload AND s.at + make_interval(secs => r.seconds) > now()))""",
        ([workload for workload, _ in kept], [seconds for _, seconds in kept]),
    )


def nearest_source(conn: Conn, sources: Sequence[str], words: Sequence[str]) -> tuple[str, str] | None:
    """(source, owner) of the source that is nearest to the words by the titles and paths of its documents; where no
    document names them, the first of the sources."""
    row = conn.execute(
        """SELECT s.name, s.owner FROM source s
           LEFT JOIN document d ON d.source = s.name AND d.deleted_at IS NULL
             AND EXISTS (SELECT FROM unnest(%(words)s::text[]) w WHERE strpos(lower(d.title || ' ' || d.path), w) > 0)
           WHERE s.name = ANY(%(sources)s) GROUP BY s.name, s.owner
           ORDER BY count(d.id) DESC, array_position(%(sources)s::text[], s.name) LIMIT 1""",
        {"sources": list(sources), "words": list(words)},
    ).fetchone()
    return None if row is None else (row[0], row[1])


def signals_by_document(conn: Conn, since: datetime, limit: int = 200) -> list[dict[str, Any]]:
    """Of each document: clicks and thumbs, and in how many citations answers said what it says, or did not."""
    return select(
        conn,
        """WITH told AS (
                 SELECT document_id AS id, count(*) FILTER (WHERE kind = 'click') AS clicks,
                   count(*) FILTER (WHERE kind = 'up') AS up, count(*) FILTER (WHERE kind = 'down') AS down
                 FROM knowledge_signal WHERE at >= %(since)s AND document_id IS NOT NULL GROUP BY 1),
               cited AS (
                 SELECT document::uuid AS id, count(*) AS cited,
                   count(*) FILTER (WHERE supported = false) AS unsupported
                 FROM call_citation WHERE at >= %(since)s AND document ~ '^[0-9a-f-]{36}$' GROUP BY 1)
               SELECT d.id, d.source, d.path, d.title, coalesce(t.clicks, 0) AS clicks, coalesce(t.up, 0) AS up,
                 coalesce(t.down, 0) AS down, coalesce(c.cited, 0) AS cited, coalesce(c.unsupported, 0) AS unsupported
               FROM told t FULL JOIN cited c ON c.id = t.id JOIN document d ON d.id = coalesce(t.id, c.id)
               ORDER BY coalesce(t.down, 0) DESC, coalesce(c.unsupported, 0) DESC, coalesce(t.clicks, 0) DESC, d.path
               LIMIT %(limit)s""",
        {"since": since, "limit": limit},
    )


def signals_by_workload(conn: Conn, since: datetime) -> list[dict[str, Any]]:
    """Of each workload how many signals of each kind."""
    return select(
        conn,
        """SELECT workload, count(*) FILTER (WHERE kind = 'click') AS clicks,
                 count(*) FILTER (WHERE kind = 'up') AS up, count(*) FILTER (WHERE kind = 'down') AS down,
                 count(*) FILTER (WHERE kind = 'unanswered') AS unanswered,
                 count(*) FILTER (WHERE kind = 'unanswered' AND asked IS NULL) AS not_kept
               FROM knowledge_signal WHERE at >= %s GROUP BY workload ORDER BY workload""",
        (since,),
    )
