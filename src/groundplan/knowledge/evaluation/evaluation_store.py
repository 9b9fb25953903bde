"""The SQL of evaluations, as role control."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psycopg import Connection

Conn = Connection[Any]


def sensitivities(conn: Conn, documents: Sequence[str]) -> dict[str, str]:
    """`SOURCE/PATH` -> its sensitivity, of those that are there."""
    rows = conn.execute(
        """SELECT source || '/' || path, coalesce(sensitivity, 'restricted') FROM document
           WHERE deleted_at IS NULL AND source || '/' || path = ANY(%s)""",
        (list(documents),),
    ).fetchall()
    return dict(rows)
