"""The SQL of evidence that no other part reads: sources as they are indexed, and people who are here."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from psycopg import Connection

from groundplan.core.audit.store import next_leaf
from groundplan.core.database import select


def sources(conn: Connection[Any], names: list[str]) -> dict[str, dict[str, Any]]:
    """name -> {indexed, findings, owner_present} of the sources that are in the database."""
    rows = select(
        conn,
        """SELECT s.name, s.indexed_at IS NOT NULL AS indexed, coalesce(f.findings, 0) AS findings,
                 EXISTS (SELECT 1 FROM person p WHERE p.email = s.owner AND p.active) AS owner_present
               FROM source s LEFT JOIN (
                 SELECT split_part(subject, '/', 2) AS source, count(*) AS findings FROM finding
                 WHERE closed_at IS NULL AND starts_with(subject, 'source/') GROUP BY 1) f ON f.source = s.name
               WHERE s.name = ANY(%s)""",
        (names,),
    )
    return {row["name"]: row for row in rows}


def grave_findings(conn: Connection[Any]) -> dict[str, int]:
    """subject -> how many critical or high findings are open about it and what is below it."""
    rows = conn.execute(
        """SELECT subject, count(*) FROM finding WHERE closed_at IS NULL AND severity IN ('critical', 'high')
           GROUP BY subject"""
    ).fetchall()
    found: dict[str, int] = {}
    for subject, count in rows:
        above = ""
        for part in subject.split("/"):
            above = f"{above}/{part}" if above else part
            found[above] = found.get(above, 0) + count
    return found


def stopped(conn: Connection[Any], since: datetime) -> dict[str, str]:
    """By scope the newest kill of exactly that scope that was lifted again since then, by id."""
    rows = conn.execute(
        "SELECT DISTINCT ON (scope) scope, id FROM kill_switch WHERE lifted_at >= %s ORDER BY scope, lifted_at DESC",
        (since,),
    ).fetchall()
    return {scope: str(id) for scope, id in rows}


def endless_keys(conn: Connection[Any], before: datetime) -> dict[str, tuple[str, ...]]:
    """By workload the prefixes of keys in use that never end and were made before then."""
    rows = conn.execute(
        """SELECT workload, array_agg(prefix ORDER BY prefix) FROM api_key
           WHERE revoked_at IS NULL AND expires_at IS NULL AND created_at < %s GROUP BY workload""",
        (before,),
    ).fetchall()
    return {workload: tuple(prefixes) for workload, prefixes in rows}


def active(conn: Connection[Any], emails: list[str]) -> frozenset[str]:
    """Those of these e-mail addresses whose people are here."""
    rows = conn.execute("SELECT email FROM person WHERE email = ANY(%s) AND active", (emails,)).fetchall()
    return frozenset(email for (email,) in rows)


def log_size(conn: Connection[Any]) -> int:
    """Entries that have a place in the log."""
    return next_leaf(conn)


def log_complete(conn: Connection[Any]) -> bool:
    """Whether the log's first entry is there, or where the first ones have left for."""
    query = "SELECT 1 FROM audit_entry WHERE leaf_index = 0 UNION ALL SELECT 1 FROM archived_range WHERE first = 0"
    return conn.execute(query).fetchone() is not None
