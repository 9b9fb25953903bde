"""The SQL of stored chat completions: added, found, changed and deleted by gateways, deleted by the control process
when they may no longer be kept.

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

_COLUMNS = "call_id, id, workload, owner, deployment, model, expires_at, sealed"


@dataclass(frozen=True, slots=True)
class Row:
    """A stored completion. `owner` is the key that requested it, or the first key from which that one was rotated; `id`
    is the upstream's."""

    call: UUID
    id: str
    workload: str
    owner: UUID
    deployment: str
    model: str
    expires_at: datetime
    sealed: str


def add(conn: Connection[Any], row: Row) -> bool:
    """Store a completion; False if its key has one with this id."""
    done = conn.execute(
        f"INSERT INTO stored_completion ({_COLUMNS}) VALUES (%s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
        (row.call, row.id, row.workload, row.owner, row.deployment, row.model, row.expires_at, row.sealed),
    )
    return done.rowcount == 1


def find(conn: Connection[Any], id: str, owner: Owner, *, lock: bool = False) -> Row | None:
    """A completion of this owner that has not expired; with `lock` its row is locked for this transaction."""
    found = conn.execute(
        f"SELECT {_COLUMNS} FROM stored_completion WHERE id = %(id)s AND {OWNED}{' FOR UPDATE' if lock else ''}",
        owner.parameters(id=id),
    ).fetchone()
    return None if found is None else Row(*found)


def page(
    conn: Connection[Any],
    owner: Owner,
    model: str | None,
    after: UUID | None,
    most: int,
    most_bytes: int,
    *,
    newest_first: bool,
) -> list[Row]:
    """A page of this owner's completions by time of creation, after that of the call `after`: at most `most`
    completions, and at most `most_bytes` bytes (but always one)."""
    sign, order = ("<", "DESC") if newest_first else (">", "ASC")
    # only what is asked for, so that each page begins where it is and not at the first of all
    wanted = OWNED
    wanted += " AND model = %(model)s" if model is not None else ""
    wanted += f" AND call_id {sign} %(after)s" if after is not None else ""
    rows = conn.execute(
        f"""SELECT {_COLUMNS} FROM (
              SELECT {_COLUMNS}, sum(octet_length(sealed)) OVER (ORDER BY call_id {order}
                ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
              FROM stored_completion WHERE {wanted} ORDER BY call_id {order} LIMIT %(most)s) s
            WHERE coalesce(before, 0) < %(most_bytes)s ORDER BY call_id {order}""",
        owner.parameters(model=model, after=after, most=most, most_bytes=most_bytes),
    ).fetchall()
    return [Row(*row) for row in rows]


def change(conn: Connection[Any], call: UUID, sealed: str) -> None:
    conn.execute("UPDATE stored_completion SET sealed = %s WHERE call_id = %s", (sealed, call))


def delete(conn: Connection[Any], id: str, owner: Owner) -> bool:
    """Delete a completion of this owner; False where there was none."""
    done = conn.execute(f"DELETE FROM stored_completion WHERE id = %(id)s AND {OWNED}", owner.parameters(id=id))
    return done.rowcount > 0


def apply_rules(conn: Connection[Any], rules: Sequence[tuple[str, bool, int]]) -> dict[str, int]:
    """See `retention`."""
    return retention.apply_rules(conn, "stored_completion", rules)
