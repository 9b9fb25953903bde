"""The SQL of responses that are generated in the background: written by gateways, deleted by the control process when
they may no longer be kept.

Their content is sealed; this module does not open it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, LiteralString
from uuid import UUID

from psycopg import Connection
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from groundplan.ledger import retention
from groundplan.ledger.stored_owner import Owner

Conn = Connection[Any]
CHANNEL: Final = "groundplan_background"
"""NOTIFY channel. The payload is the id of a cancelled response or, after `FOLLOWED`, of one whose events another
worker follows."""
FOLLOWED: Final = "+"
QUEUED, RUNNING, CANCELLED, FAILED = "queued", "in_progress", "cancelled", "failed"
OPEN: Final = frozenset({QUEUED, RUNNING})
RETRIES_PER_SECOND: Final = 40
"""The most retries a second for the waiting responses of one workload: each costs a claim, a call up to its refusal,
and a written row."""
MAX_SPREAD_SECONDS: Final = 25.0
"""The longest delay of a response in favour of others; it is varied by a fifth, so that they are not retried
together."""
_IS_DUE: Final = "(due IS NULL OR due <= now() OR due > now() + interval '1 minute')"
"""Of a response that is queued. One that was not postponed is due whatever the time `at` says, which is the clock's of
a gateway; a delay longer than any comes from a clock of PostgreSQL that was set back since."""
_OPEN: Final = "status IN ('queued', 'in_progress')"
_COLUMNS: Final = (
    "id, call_id, workload, owner, key_id, person, said, at, expires_at, sealed, failed, ended, status, waits"
)
_MINE: Final = (
    "id = %(id)s AND owner = %(owner)s AND person = %(person)s AND workload = %(workload)s AND expires_at > now()"
)


@dataclass(frozen=True, slots=True)
class Row:
    """A background response.

    `owner` is the key that requested it, or the first key from which that one was rotated. `failed` is the error,
    sealed; None if a worker ended before it could record one. `ended` is the number of the last event. `call_id` is the
    call that generates the response; None while it waits again. `waits` says what refused it last, while it is
    `queued`.
    """

    id: str
    call_id: UUID | None
    workload: str
    owner: UUID
    key_id: UUID
    person: str
    said: dict[str, str]
    at: datetime
    expires_at: datetime
    sealed: str
    failed: str | None = None
    ended: int | None = None
    status: str = QUEUED
    waits: dict[str, str] | None = None


def add(conn: Conn, row: Row, epoch: UUID | None, most: int, most_bytes: int) -> bool:
    """Add a response; False if the workload already has `most` open responses, or open ones with `most_bytes` in all.
    With an `epoch` that worker claims the response at once."""
    status = QUEUED if epoch is None else RUNNING
    done = conn.execute(
        f"""INSERT INTO background_response (id, call_id, workload, owner, key_id, person, said, at, expires_at, sealed,
              status, epoch)
            SELECT %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s FROM (
              SELECT count(*) AS there, coalesce(sum(octet_length(sealed)), 0) AS bytes FROM background_response
              WHERE workload = %s AND {_OPEN}) o WHERE there < %s AND bytes < %s""",
        (
            row.id, row.call_id, row.workload, row.owner, row.key_id, row.person, Jsonb(row.said), row.at,
            row.expires_at, row.sealed, status, epoch, row.workload, most, most_bytes,
        ),
    )  # fmt: skip
    return done.rowcount > 0


def find(conn: Conn, id: str, owner: Owner) -> Row | None:
    """A response of this owner that has not expired; None if there is none."""
    with conn.cursor(row_factory=class_row(Row)) as cursor:
        return cursor.execute(
            f"SELECT {_COLUMNS} FROM background_response WHERE {_MINE}", owner.parameters(id=id)
        ).fetchone()


def status(conn: Conn, id: str) -> str:
    """The status of a response; empty if it does not exist."""
    row = conn.execute("SELECT status FROM background_response WHERE id = %s", (id,)).fetchone()
    return "" if row is None else str(row[0])


def claim(conn: Conn, epoch: UUID, calls: Sequence[UUID]) -> list[Row]:
    """Claim for this worker the responses that have waited longest: one for each id in `calls`, since each run is a new
    call."""
    with conn.cursor(row_factory=class_row(Row)) as cursor:
        return cursor.execute(
            f"""WITH due AS MATERIALIZED (
                  SELECT id FROM background_response
                  WHERE status = 'queued' AND {_IS_DUE} AND expires_at > now()
                  ORDER BY coalesce(due, at) LIMIT %s FOR UPDATE SKIP LOCKED),
                numbered AS (SELECT id AS due_id, row_number() OVER () AS number FROM due)
                UPDATE background_response SET status = 'in_progress', epoch = %s, call_id = coalesce(call_id, made)
                FROM numbered JOIN unnest(%s::uuid[]) WITH ORDINALITY n (made, place) ON place = number
                WHERE id = due_id RETURNING {_COLUMNS}""",
            (len(calls), epoch, list(calls)),
        ).fetchall()


def running_rows(conn: Conn, epoch: UUID, known: Sequence[str]) -> list[Row]:
    """The responses claimed for this worker, except those with `known` ids."""
    with conn.cursor(row_factory=class_row(Row)) as cursor:
        return cursor.execute(
            f"SELECT {_COLUMNS} FROM background_response WHERE status = 'in_progress' AND epoch = %s AND id <> ALL(%s)",
            (epoch, list(known)),
        ).fetchall()


def has_due(conn: Conn, seconds: float) -> bool:
    """Whether any response is due within this many seconds."""
    row = conn.execute(
        f"""SELECT EXISTS (SELECT FROM background_response WHERE status = 'queued' AND expires_at > now()
             AND ({_IS_DUE} OR due < now() + %s * interval '1 second'))""",
        (seconds,),
    ).fetchone()
    return row is not None and bool(row[0])


def recover_orphaned(conn: Conn) -> None:
    """Recover the responses of workers that have ended and whose journals were taken over. Responses whose call was
    sent fail, since it is not sent again; the others, and those that were certainly not billed, are queued again."""
    conn.execute(
        """UPDATE background_response b SET
             status = CASE WHEN o.sent THEN 'failed' ELSE 'queued' END, epoch = CASE WHEN o.sent THEN b.epoch END,
             call_id = CASE WHEN o.sent THEN b.call_id END
           FROM (
             SELECT r.id, s.gaps > 0 OR EXISTS (
                 SELECT FROM attempt a WHERE a.call_id = r.call_id AND a.outcome <> 'not_billed') AS sent
             FROM background_response r JOIN shipped s ON s.epoch = r.epoch AND s.done
             WHERE r.status = 'in_progress' FOR UPDATE OF r SKIP LOCKED) o
           WHERE b.id = o.id AND b.status = 'in_progress'"""
    )


def finish(conn: Conn, id: str, epoch: UUID, status: str, failed: str | None, ended: int) -> bool:
    """Finish a response; False if it no longer belongs to this worker, or was cancelled."""
    done = conn.execute(
        """UPDATE background_response SET status = %s, failed = %s, ended = %s
           WHERE id = %s AND epoch = %s AND status = 'in_progress'""",
        (status, failed, ended, id, epoch),
    )
    return done.rowcount > 0


def requeue(conn: Conn, id: str, epoch: UUID, waits: dict[str, str], seconds: float) -> None:
    """Queue a response of this worker again, unless it was cancelled. It waits for at least `seconds`, and longer if so
    many responses of its workload wait that all workers together would exceed `RETRIES_PER_SECOND`."""
    conn.execute(
        """UPDATE background_response b
           SET status = 'queued', epoch = NULL, call_id = NULL, waits = %(waits)s, due = now() + interval '1 second'
             * greatest(%(seconds)s, least((
                 SELECT count(*) FROM background_response o WHERE o.status = 'queued' AND o.workload = b.workload
               ) / %(tries)s::float, %(most)s) * (0.8 + 0.4 * random()))
           WHERE id = %(id)s AND epoch = %(epoch)s AND status = 'in_progress'""",
        {
            "waits": Jsonb(waits),
            "seconds": seconds,
            "id": id,
            "epoch": epoch,
            "tries": RETRIES_PER_SECOND,
            "most": MAX_SPREAD_SECONDS,
        },
    )


def cancel(conn: Conn, id: str, owner: Owner) -> bool:
    """Cancel a response of this owner and notify its worker; False if it was not open."""
    cancelled: LiteralString = f"UPDATE background_response SET status = 'cancelled' WHERE {_MINE} AND {_OPEN}"
    return _execute_and_notify(conn, cancelled, owner.parameters(id=id))


def cancel_for_all(conn: Conn, id: str) -> bool:
    """`cancel` for any owner."""
    cancelled: LiteralString = f"UPDATE background_response SET status = 'cancelled' WHERE id = %(id)s AND {_OPEN}"
    return _execute_and_notify(conn, cancelled, {"id": id})


def delete(conn: Conn, id: str, owner: Owner) -> bool:
    """Delete a response of this owner and notify its worker; False if there was none."""
    deleted: LiteralString = f"DELETE FROM background_response WHERE {_MINE}"
    return _execute_and_notify(conn, deleted, owner.parameters(id=id))


def _execute_and_notify(conn: Conn, statement: LiteralString, parameters: dict[str, object]) -> bool:
    """Execute a statement on one response and notify its worker; False if no response matched."""
    changed = conn.execute(statement, parameters).rowcount > 0
    if changed:
        conn.execute("SELECT pg_notify(%s, %s)", (CHANNEL, parameters["id"]))
    return changed


def no_longer_owned(conn: Conn, epoch: UUID, ids: Sequence[str]) -> list[str]:
    """Those of `ids` that no longer belong to this worker."""
    rows = conn.execute(
        """SELECT id FROM unnest(%s::text[]) m (id) WHERE NOT EXISTS (
             SELECT FROM background_response b WHERE b.id = m.id AND b.epoch = %s AND b.status = 'in_progress')""",
        (list(ids), epoch),
    ).fetchall()
    return [id for (id,) in rows]


def add_events(conn: Conn, id: str, number: int, upto: int, sealed: str) -> None:
    """Store the events `number` to `upto` of a response in progress."""
    conn.execute(
        """INSERT INTO background_event (id, number, upto, sealed)
           SELECT id, %s, %s, %s FROM background_response WHERE id = %s AND status = 'in_progress'
           ON CONFLICT (id, number) DO NOTHING""",
        (number, upto, sealed, id),
    )


def events_after(conn: Conn, id: str, after: int) -> list[str]:
    """The stored parts, sealed, with events after the number `after`."""
    rows = conn.execute(
        "SELECT sealed FROM background_event WHERE id = %s AND upto > %s ORDER BY number", (id, after)
    ).fetchall()
    return [sealed for (sealed,) in rows]


def notify_followed(conn: Conn, id: str) -> None:
    """Notify the worker of a response that another worker follows its events."""
    conn.execute("SELECT pg_notify(%s, %s)", (CHANNEL, FOLLOWED + id))


def apply_rules(conn: Conn, rules: retention.Rules) -> dict[str, int]:
    """See `retention`."""
    return retention.apply_rules(conn, "background_response", rules)
