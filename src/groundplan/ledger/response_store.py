"""The SQL of stored responses: added, found and deleted by gateways, deleted by the control process when they may no
longer be kept.

Their content is sealed; this module does not open it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg import Connection

from groundplan.ledger import retention
from groundplan.ledger.stored_owner import OWNED, Owner


@dataclass(frozen=True, slots=True)
class Row:
    """A stored response. `owner` is the key that requested it, or the first key from which that one was rotated."""

    id: str
    workload: str
    owner: UUID
    deployment: str
    expires_at: datetime
    sealed: str


def add(conn: Connection[Any], row: Row) -> bool:
    """Store a response; False if the id is taken, since ids may come from an upstream."""
    done = conn.execute(
        """INSERT INTO stored_response (id, workload, owner, deployment, expires_at, sealed)
           VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (id) DO NOTHING""",
        (row.id, row.workload, row.owner, row.deployment, row.expires_at, row.sealed),
    )
    return done.rowcount > 0


def find(conn: Connection[Any], id: str, owner: Owner) -> Row | None:
    """A response of this owner that has not expired; None if there is none."""
    found = conn.execute(
        f"""SELECT id, workload, owner, deployment, expires_at, sealed FROM stored_response
            WHERE id = %(id)s AND {OWNED}""",
        owner.parameters(id=id),
    ).fetchone()
    return None if found is None else Row(*found)


def delete(conn: Connection[Any], id: str, owner: Owner) -> bool:
    """Delete a response of this owner; False if there was none."""
    done = conn.execute(f"DELETE FROM stored_response WHERE id = %(id)s AND {OWNED}", owner.parameters(id=id))
    return done.rowcount > 0


def apply_rules(conn: Connection[Any], rules: Sequence[tuple[str, bool, int]]) -> dict[str, int]:
    """See `retention`."""
    return retention.apply_rules(conn, "stored_response", rules)
