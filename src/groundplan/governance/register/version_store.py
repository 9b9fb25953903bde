"""The SQL of versions that upstreams report, read for findings. Gateways write them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from psycopg import Connection
from psycopg.rows import tuple_row

from groundplan.governance.register.versions import Version


def reported_versions(conn: Connection[Any]) -> list[Version]:
    """All reported versions, earliest first."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        rows = cursor.execute(
            "SELECT deployment, asked, model, fingerprint, first_at, last_at FROM model_reported ORDER BY first_at"
        ).fetchall()
    return [Version(*row) for row in rows]


def approved_models(conn: Connection[Any]) -> dict[str, datetime]:
    """Digest of each approved model -> when it was last approved."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        rows = cursor.execute(
            "SELECT digest, max(decided_at) FROM change WHERE type = 'model' AND state = 'applied' GROUP BY digest"
        ).fetchall()
    return dict(rows)
