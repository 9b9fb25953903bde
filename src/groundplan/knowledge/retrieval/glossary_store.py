"""The SQL of the glossary in search, as role `search`."""

from __future__ import annotations

from typing import Any

from psycopg import Connection

Conn = Connection[Any]


def synonym_groups(conn: Conn) -> list[tuple[str, ...]]:
    """Of each term all that is said for it, itself first."""
    rows = conn.execute("SELECT said FROM glossary_term ORDER BY name", prepare=True).fetchall()
    return [tuple(said) for (said,) in rows]
