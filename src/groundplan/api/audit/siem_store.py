"""The SQL of the position up to which security events were sent."""

from __future__ import annotations

from typing import Any

from psycopg import Connection


def claim_position(conn: Connection[Any]) -> int | None:
    """Claim the next leaf to send for one minute; None if another process sends. Its claim may be a little later than
    our transaction began; one that is later by a minute came from a clock that was set back since."""
    row = conn.execute(
        """UPDATE siem_position SET claimed_at = now() WHERE claimed_at IS NULL
             OR claimed_at NOT BETWEEN now() - interval '1 minute' AND now() + interval '1 minute' RETURNING leaf"""
    ).fetchone()
    return None if row is None else int(row[0])


def sent_position(conn: Connection[Any]) -> int:
    """The leaf before which everything was sent."""
    row = conn.execute("SELECT leaf FROM siem_position").fetchone()
    return 0 if row is None else int(row[0])


def advance_position(conn: Connection[Any], start: int, leaf: int) -> None:
    """Move the position from `start` to `leaf`, unless another process has moved it."""
    conn.execute("UPDATE siem_position SET leaf = %s, sent_at = now() WHERE leaf = %s", (leaf, start))


def release_claim(conn: Connection[Any], start: int) -> None:
    """Release the claim of `start`, unless another process has moved the position."""
    conn.execute("UPDATE siem_position SET claimed_at = NULL WHERE leaf = %s", (start,))
