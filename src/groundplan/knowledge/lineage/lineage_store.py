"""The SQL of lineage: from an answer to what it rested on, and from a document to the answers that used it."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from psycopg import Connection

from groundplan.core.database import select

Conn = Connection[Any]
MAX_ROWS: Final = 10_000
"""Calls of one export."""


def passages_of_call(conn: Conn, call: UUID) -> list[dict[str, Any]]:
    """Each passage of an answer, and each document that contradicts one (`role`: `conflict`, without lines), with the
    document as it was then and as it is now."""
    return select(
        conn,
        """SELECT (p.passage ->> 0)::uuid AS document, p.passage ->> 1 AS path,
                 coalesce(p.passage ->> 4, 'passage') AS role,
                 (p.passage ->> 2)::int AS first_line, (p.passage ->> 3)::int AS last_line, d.source, d.title,
                 d.version AS version_now, d.state, d.owner, d.sensitivity, d.superseded_by, d.deleted_at,
                 v.version AS version_then, v.digest AS digest_then,
                 d.version IS DISTINCT FROM v.version AS changed_since
               FROM call c, jsonb_array_elements(c.detail -> 'sources') WITH ORDINALITY AS p(passage, place)
                 LEFT JOIN document d ON d.id = (p.passage ->> 0)::uuid
                 LEFT JOIN LATERAL (SELECT version, digest FROM document_version x
                   WHERE x.document_id = d.id AND x.at <= c.at ORDER BY version DESC LIMIT 1) v ON true
               WHERE c.id = %s ORDER BY p.place""",
        (call,),
    )


def answers_using(conn: Conn, document: UUID, *, limit: int = 100) -> list[dict[str, Any]]:
    """The newest answers that were given passages of a document, and which lines, or (`role`: `conflict`) what it says
    against a passage; no question and no answer."""
    mark = json.dumps([[str(document)]])
    return select(
        conn,
        """SELECT c.id AS call, c.at, c.workload, c.status, p.email AS person,
                 array_remove(array_agg((s.passage ->> 2) || '-' || (s.passage ->> 3)), NULL) AS lines,
                 coalesce(min(s.passage ->> 4), 'passage') AS role
               FROM call c LEFT JOIN person p ON p.id = c.person_id,
                 jsonb_array_elements(c.detail -> 'sources') AS s(passage)
               WHERE c.detail -> 'sources' <> '[]' AND c.detail -> 'sources' @> %s AND s.passage ->> 0 = %s
               GROUP BY c.id, c.at, c.workload, c.status, p.email ORDER BY c.at DESC LIMIT %s""",
        (mark, str(document), limit),
    )


def calls_since(conn: Conn, since: datetime, until: datetime, limit: int | None = MAX_ROWS) -> list[dict[str, Any]]:
    """Grounded calls with what they used, each with the version of its document then, for export, the oldest first."""
    return select(
        conn,
        """SELECT c.id, c.at, c.workload, c.status, c.model, c.duration_ms, ARRAY(
                 SELECT jsonb_build_object('document', p.passage ->> 0, 'first_line', (p.passage ->> 2)::int,
                   'last_line', (p.passage ->> 3)::int, 'role',
                   coalesce(p.passage ->> 4, 'passage'), 'version', (SELECT max(x.version) FROM document_version x
                     WHERE x.document_id = (p.passage ->> 0)::uuid AND x.at <= c.at))
                 FROM jsonb_array_elements(c.detail -> 'sources') WITH ORDINALITY AS p(passage, place)
                 ORDER BY p.place) AS passages
               FROM call c WHERE c.at >= %s AND c.at < %s AND c.detail -> 'sources' <> '[]' ORDER BY c.at LIMIT %s""",
        (since, until, limit),
    )


def calls_page(
    conn: Conn, since: datetime, until: datetime, limit: int = MAX_ROWS
) -> tuple[list[dict[str, Any]], datetime | None]:
    """As `calls_since`, about `most` of them, and where there may be more the time to go on since."""
    calls = calls_since(conn, since, until, limit)
    if len(calls) < limit:
        return calls, None
    following = calls[-1]["at"]
    # those of that very moment may not be all: they come with the next
    if complete := [call for call in calls if call["at"] != following]:
        return complete, following
    # a moment that has more than that comes whole
    after = following + timedelta(microseconds=1)
    return calls_since(conn, following, after, None), after


def documents_of(conn: Conn, ids: list[str]) -> dict[str, dict[str, Any]]:
    """Source, path, title, version, owner, and when each version was read, of documents by id; those that are gone are
    left out."""
    rows = select(
        conn,
        """SELECT d.id::text, d.source, d.path, d.title, d.version, d.owner,
                 ARRAY(SELECT version FROM document_version v WHERE v.document_id = d.id ORDER BY version) AS numbers,
                 ARRAY(SELECT at FROM document_version v WHERE v.document_id = d.id ORDER BY version) AS times
               FROM document d WHERE d.id = ANY(%s::uuid[]) AND d.deleted_at IS NULL""",
        (ids,),
    )
    return {row["id"]: row | {"versions": dict(zip(row["numbers"], row["times"], strict=True))} for row in rows}
