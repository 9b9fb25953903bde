"""The SQL of editions, as role control. Every function runs in the caller's transaction.

Callers that change the state of an edition or write its passages hold the lock of changes
(`intake_store.lock_changes`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from psycopg import Connection
from psycopg.types.json import Jsonb

from groundplan.knowledge.halfvec import Halfvec
from groundplan.knowledge.index.model import COMPLETE_STATES, Edition, IndexSettings, State, describe
from groundplan.knowledge.parsing.model import Piece

FOLLOWER = "groundplan search: "
"""Prefix of the application name of a search service's connection; the editions that it holds completely follow."""

Conn = Connection[Any]


def editions(conn: Conn, states: Collection[str] | None = None) -> list[Edition]:
    """The editions in these states, oldest first; None: all except dropped ones."""
    rows = conn.execute(
        """SELECT id, settings, state, created_at, served_at, until, declined, compared FROM search_edition
           WHERE CASE WHEN %(all)s THEN state <> 'dropped' ELSE state = ANY(%(states)s) END ORDER BY id""",
        {"all": states is None, "states": list(states or ())},
        prepare=True,
    ).fetchall()
    return [Edition(row[0], msgspec.convert(row[1], IndexSettings), *row[2:]) for row in rows]


def read_edition(conn: Conn, id: int) -> Edition | None:
    """An edition by its number; None if there is none."""
    return next((each for each in editions(conn, [*COMPLETE_STATES, "building", "dropped"]) if each.id == id), None)


def create_edition(conn: Conn, settings: IndexSettings) -> int:
    """Insert an edition in state `building`; returns its number."""
    model, chunking = describe(settings)
    row = conn.execute(
        """INSERT INTO search_edition (model, chunking, state, settings, dimension)
           VALUES (%s, %s, 'building', %s, %s) RETURNING id""",
        (model, chunking, Jsonb(msgspec.to_builtins(settings)), settings.dimension),
    ).fetchone()
    assert row is not None
    return int(row[0])


def put_state(conn: Conn, id: int, state: State, *, until: datetime | None = None, declined: bool = False) -> None:
    """Set the state of an edition. Serving records its time; building discards an earlier comparison."""
    conn.execute(
        """UPDATE search_edition SET state = %(state)s, until = %(until)s, declined = %(declined)s,
             compared = CASE WHEN %(state)s IN ('building', 'ready') THEN NULL ELSE compared END,
             served_at = CASE WHEN %(state)s = 'serving' THEN now() ELSE served_at END WHERE id = %(id)s""",
        {"id": id, "state": state, "until": until, "declined": declined},
    )


def set_declined(conn: Conn, id: int, *, declined: bool) -> None:
    """Set whether somebody went back from an edition."""
    conn.execute("UPDATE search_edition SET declined = %s WHERE id = %s", (declined, id))


def put_compared(conn: Conn, id: int, compared: Mapping[str, Any]) -> None:
    conn.execute("UPDATE search_edition SET compared = %s WHERE id = %s", (Jsonb(dict(compared)), id))


# --- building


def uncut_documents(conn: Conn, edition: int, after: UUID, limit: int) -> list[tuple[UUID, str, str | None]]:
    """(document, source, media) of the next documents that are in the serving edition but not in this one."""
    return conn.execute(
        """SELECT d.id, d.source, d.media FROM document d
           WHERE d.id > %(after)s
             AND EXISTS (SELECT FROM chunk c WHERE c.document_id = d.id AND c.edition = serving_edition())
             AND NOT EXISTS (SELECT FROM chunk c WHERE c.document_id = d.id AND c.edition = %(edition)s)
           ORDER BY d.id LIMIT %(limit)s""",
        {"edition": edition, "after": after, "limit": limit},
    ).fetchall()


def pieces_of(conn: Conn, documents: Sequence[UUID]) -> dict[UUID, list[Piece]]:
    """The passages of documents in the serving edition, in order; a document without text has none."""
    rows = conn.execute(
        """SELECT document_id, number, text, start_char, end_char, start_line, end_line, headings, head FROM chunk
           WHERE document_id = ANY(%s) AND edition = serving_edition() AND text <> '' ORDER BY document_id, number""",
        (list(documents),),
    )
    found: dict[UUID, list[Piece]] = {id: [] for id in documents}
    for id, *rest in rows:
        found[id].append(Piece(*rest))
    return found


def copy_passages(conn: Conn, edition: int, documents: Sequence[UUID], *, vectors: bool) -> None:
    """Copy the passages of documents from the serving edition, with or without their vectors."""
    conn.execute(
        """INSERT INTO chunk (id, document_id, number, text, start_char, end_char, start_line, end_line, headings,
             head, embedding, edition, changed)
           SELECT gen_random_uuid(), document_id, number, text, start_char, end_char, start_line, end_line, headings,
             head, CASE WHEN %(vectors)s THEN embedding END, %(edition)s, nextval('chunk_change')
           FROM chunk WHERE document_id = ANY(%(ids)s) AND edition = serving_edition() ORDER BY document_id, number""",
        {"edition": edition, "ids": list(documents), "vectors": vectors},
    )


def count_missing(conn: Conn, edition: int) -> tuple[int, int]:
    """(number of documents that are in the serving edition but not in this one, of its passages without a vector)."""
    row = conn.execute(
        """SELECT (SELECT count(*) FROM (SELECT document_id FROM chunk WHERE edition = serving_edition()
               EXCEPT SELECT document_id FROM chunk WHERE edition = %(edition)s) AS missing),
             (SELECT count(*) FROM chunk WHERE edition = %(edition)s AND embedding IS NULL AND text <> '')""",
        {"edition": edition},
    ).fetchone()
    assert row is not None
    return int(row[0]), int(row[1])


def editions_to_remove(conn: Conn) -> list[int]:
    """Dropped editions whose passages may not all be deleted yet."""
    rows = conn.execute("SELECT id FROM search_edition WHERE state = 'dropped' AND NOT detail ? 'removed' ORDER BY id")
    return [id for (id,) in rows]


def remove_passages(conn: Conn, edition: int, limit: int) -> int:
    """Delete up to `limit` passages of an edition; returns their number."""
    return conn.execute(
        "DELETE FROM chunk WHERE id IN (SELECT id FROM chunk WHERE edition = %s LIMIT %s)", (edition, limit)
    ).rowcount


def mark_removed(conn: Conn, edition: int) -> None:
    """Record that all passages of a dropped edition are deleted."""
    conn.execute(
        "UPDATE search_edition SET detail = detail || jsonb_build_object('removed', now()) WHERE id = %s", (edition,)
    )


# --- comparing and switching


def edition_sizes(conn: Conn) -> dict[int, dict[str, int]]:
    """Edition -> number of documents, of passages, and of passages without a vector."""
    rows = conn.execute(
        """SELECT edition, count(DISTINCT document_id), count(*), count(*) FILTER (WHERE embedding IS NULL)
           FROM chunk WHERE text <> '' GROUP BY edition"""
    )
    return {id: {"documents": docs, "passages": all, "without_vector": bare} for id, docs, all, bare in rows}


@dataclass(frozen=True, slots=True)
class Counts:
    """The contents of an edition. `characters`: without white space."""

    documents: int
    passages: int
    characters: int
    without_vector: int
    changed: int = 0
    """Number of documents whose characters, without white space, differ from the serving edition."""


def compare_counts(conn: Conn, edition: int) -> Counts:
    """The counts of an edition; it reads all texts of this and the serving edition."""
    row = conn.execute(
        r"""WITH own AS (
             SELECT document_id, count(*) FILTER (WHERE text <> '') AS passages,
               sum(length(regexp_replace(text, '\s', '', 'g'))) AS characters,
               count(*) FILTER (WHERE text <> '' AND embedding IS NULL) AS bare
             FROM chunk WHERE edition = %(edition)s GROUP BY document_id),
           other AS (
             SELECT document_id, sum(length(regexp_replace(text, '\s', '', 'g'))) AS characters
             FROM chunk WHERE edition = serving_edition() GROUP BY document_id)
           SELECT count(*) FILTER (WHERE own.passages > 0), coalesce(sum(own.passages), 0),
             coalesce(sum(own.characters), 0), coalesce(sum(own.bare), 0),
             count(*) FILTER (WHERE own.characters <> other.characters)
           FROM own LEFT JOIN other USING (document_id)""",
        {"edition": edition},
    ).fetchone()
    assert row is not None
    return Counts(*map(int, row))


def missing_documents(conn: Conn, edition: int, limit: int = 20) -> list[str]:
    """`SOURCE/PATH` of documents that are in the serving edition but not in this one."""
    rows = conn.execute(
        """SELECT d.source || '/' || d.path FROM document d WHERE d.id IN (
             SELECT document_id FROM chunk WHERE edition = serving_edition() AND text <> ''
             EXCEPT SELECT document_id FROM chunk WHERE edition = %s AND text <> '') ORDER BY 1 LIMIT %s""",
        (edition, limit),
    )
    return [name for (name,) in rows]


def heading_samples(conn: Conn, limit: int) -> list[tuple[str, str]]:
    """(title and headings of a passage, its document) of some documents, always the same ones."""
    rows = conn.execute(
        """SELECT q, id FROM (
             SELECT DISTINCT ON (d.id) d.id::text, md5(d.id::text) AS place,
               array_to_string(ARRAY[d.title] || c.headings[2:], ' ') AS q
             FROM document d JOIN chunk c ON c.document_id = d.id AND c.edition = serving_edition() AND c.text <> ''
             WHERE d.deleted_at IS NULL ORDER BY d.id, md5(c.id::text)) AS drawn
           WHERE length(q) > 3 ORDER BY place LIMIT %s""",
        (limit,),
    )
    return [(text, id) for text, id in rows]


def nearest_exact(conn: Conn, edition: int, vector: Halfvec, limit: int) -> list[UUID]:
    """The nearest passages of an edition by an exact scan, regardless of their readers."""
    rows = conn.execute(
        """SELECT id FROM chunk WHERE edition = %s AND embedding IS NOT NULL AND text <> ''
           ORDER BY embedding <=> %s::halfvec, id LIMIT %s""",
        (edition, vector, limit),
    )
    return [id for (id,) in rows]


def documents_of(conn: Conn, chunks: Sequence[UUID]) -> dict[UUID, UUID]:
    """Passage -> its document."""
    return dict(conn.execute("SELECT id, document_id FROM chunk WHERE id = ANY(%s)", (list(chunks),)).fetchall())


def connected_followers(conn: Conn) -> list[frozenset[int]]:
    """For each connected search service, the editions that it holds completely."""
    rows = conn.execute(
        """SELECT application_name FROM pg_stat_activity
           WHERE datname = current_database() AND usename = current_user AND starts_with(application_name, %s)""",
        (FOLLOWER,),
    )
    return [frozenset(int(part) for part in name.removeprefix(FOLLOWER).split()) for (name,) in rows]


def take_lead(conn: Conn) -> bool:
    """Take the session lock for building editions; False if another process holds it."""
    row = conn.execute("SELECT pg_try_advisory_lock(1768846456, 1)").fetchone()
    return row is not None and bool(row[0])
