"""The SQL of evidence that no other module reads: indexed sources, findings, kills, keys, active people, the log."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from psycopg import Connection

from groundplan.core.audit.store import next_leaf
from groundplan.core.database import select


def sources(conn: Connection[Any], names: list[str]) -> dict[str, dict[str, Any]]:
    """Name -> {indexed, findings, owner_present} of those of these sources that are in the database."""
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
    """Subject -> the number of open critical or high findings about it and the subjects below it."""
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


def lifted_kills(conn: Connection[Any], since: datetime) -> dict[str, str]:
    """Scope -> id of the newest kill of exactly that scope that was lifted since then."""
    rows = conn.execute(
        "SELECT DISTINCT ON (scope) scope, id FROM kill_switch WHERE lifted_at >= %s ORDER BY scope, lifted_at DESC",
        (since,),
    ).fetchall()
    return {scope: str(id) for scope, id in rows}


def keys_without_expiry(conn: Connection[Any], before: datetime) -> dict[str, tuple[str, ...]]:
    """Workload -> prefixes of its unrevoked keys that never expire and were created before then."""
    rows = conn.execute(
        """SELECT workload, array_agg(prefix ORDER BY prefix) FROM api_key
           WHERE revoked_at IS NULL AND expires_at IS NULL AND created_at < %s GROUP BY workload""",
        (before,),
    ).fetchall()
    return {workload: tuple(prefixes) for workload, prefixes in rows}


def active_emails(conn: Connection[Any], emails: list[str]) -> frozenset[str]:
    """Those of these e-mail addresses that belong to active people."""
    rows = conn.execute("SELECT email FROM person WHERE email = ANY(%s) AND active", (emails,)).fetchall()
    return frozenset(email for (email,) in rows)


def log_size(conn: Connection[Any]) -> int:
    """The number of entries that have a place in the log."""
    return next_leaf(conn)


def has_complete_log(conn: Connection[Any]) -> bool:
    """Whether the log's first entry is in the database or in the archive."""
    query = "SELECT 1 FROM audit_entry WHERE leaf_index = 0 UNION ALL SELECT 1 FROM archived_range WHERE first = 0"
    return conn.execute(query).fetchone() is not None
