"""The SQL of evidence that no other part reads: sources as they are indexed, and people who are here."""

from __future__ import annotations

from typing import Any

from psycopg import Connection
from psycopg.rows import dict_row


def sources(conn: Connection[Any], names: list[str]) -> dict[str, dict[str, Any]]:
    """name -> {indexed, findings, owner_present} of the sources that are in the database."""
    with conn.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(
            """SELECT s.name, s.indexed_at IS NOT NULL AS indexed,
                 (SELECT count(*) FROM finding f WHERE f.closed_at IS NULL
                    AND (f.subject = 'source/' || s.name OR f.subject LIKE 'source/' || s.name || '/%%')) AS findings,
                 EXISTS (SELECT 1 FROM person p WHERE p.email = s.owner AND p.active) AS owner_present
               FROM source s WHERE s.name = ANY(%s)""",
            (names,),
        ).fetchall()
    return {row["name"]: row for row in rows}
