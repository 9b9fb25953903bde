"""The SQL with which the shipper writes calls, attempts and charges, takes releases over and fences dead workers.

Every statement but COPY may be repeated: rows are keyed by (call, attempt), movements by their id. A row that says
`settled` or `crashed` is never changed, but where a journal comes back (`late_journal_store`). What the rows say is
decided elsewhere (`shipper`, `recovery`).
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, LiteralString
from uuid import UUID, uuid5

import msgspec
from psycopg import Connection

from groundplan.core.copy_rows import copy_rows, copy_statement
from groundplan.core.ids import new_id
from groundplan.core.money import from_decimal, to_decimal
from groundplan.gateway.budgets.grant_store import INSERT_MOVEMENT, LOCK_PERIOD, RETURN_TO_PERIOD, SHRINK_SLICE
from groundplan.gateway.budgets.leases import Key, is_quota
from groundplan.ledger.model import Release

TOGETHER = 500
"""Budgets that are locked at once for what goes back to them."""
_encode = msgspec.json.Encoder().encode

Row = tuple[Any, ...]
Conn = Connection[tuple[Any, ...]]

_CALL = (
    "id",
    "at",
    "workload",
    "person_id",
    "key_id",
    "team",
    "endpoint",
    "status",
    "http_status",
    "error_code",
    "model",
    "deployment",
    "site",
    "cost_usd",
    "reserved_usd",
    "prompt_tokens",
    "completion_tokens",
    "cache",
    "blueprint",
    "epoch",
    "demo",
    "duration_ms",
    "first_byte_ms",
    "detail",
    "saved_usd",
    "prefix_saved_usd",
)
_ATTEMPT = (
    "call_id",
    "number",
    "at",
    "deployment",
    "site",
    "model",
    "state",
    "outcome",
    "http_status",
    "reserved_usd",
    "cost_usd",
    "usage",
    "estimated",
    "flags",
    "duration_ms",
    "epoch",
    "started_ms",
    "connect_ms",
    "first_byte_ms",
    "workload",
    "blueprint",
    "demo",
    "parts",
    "purpose",
    "tier",
)
_CHARGE = ("call_id", "attempt", "budget", "period", "cost_usd")

_SETTLE_OPEN = """ON CONFLICT (call_id, number) DO UPDATE SET state = EXCLUDED.state, outcome = EXCLUDED.outcome,
    http_status = EXCLUDED.http_status, cost_usd = EXCLUDED.cost_usd, usage = EXCLUDED.usage,
    estimated = EXCLUDED.estimated, flags = EXCLUDED.flags, duration_ms = EXCLUDED.duration_ms,
    started_ms = EXCLUDED.started_ms, connect_ms = EXCLUDED.connect_ms, first_byte_ms = EXCLUDED.first_byte_ms,
    parts = EXCLUDED.parts, tier = EXCLUDED.tier
    WHERE attempt.state = 'open' AND EXCLUDED.state <> 'open'
      OR attempt.state = 'crashed' AND EXCLUDED.state = 'settled'"""


_NUL = (b"\\u0000", b"\\ufffd")
"""PostgreSQL has no NUL in text; a caller's odd path must not stop the ledger."""
_NESTED = frozenset({"detail", "usage", "parts", "flags"})
"""Columns that hold JSON or a list of names."""


@dataclass(frozen=True, slots=True)
class Insert:
    """Two ways of writing rows of a table: `copy` only new ones, for less; `statement` also those that are there."""

    named: Callable[..., msgspec.Struct]
    """Gives the values of a row the names of their columns."""
    statement: bytes
    """Takes rows as JSON; the table's row type gives the types."""
    copy: bytes
    nested: tuple[int, ...]
    """Which values of a row are JSON or a list."""


def _insert(table: str, columns: tuple[str, ...], conflict: str) -> Insert:
    names = ", ".join(columns)
    rows = f"json_populate_recordset(NULL::{table}, %s::json)"
    return Insert(
        msgspec.defstruct(table, columns, frozen=True, gc=False),
        f"INSERT INTO {table} ({names}) SELECT {names} FROM {rows} {conflict}".encode(),
        copy_statement(table, columns),
        tuple(place for place, column in enumerate(columns) if column in _NESTED),
    )


INSERT_CALLS = _insert("call", _CALL, "ON CONFLICT (id) DO NOTHING")
INSERT_ATTEMPTS = _insert("attempt", _ATTEMPT, _SETTLE_OPEN)
INSERT_CHARGES = _insert("charge", _CHARGE, "ON CONFLICT DO NOTHING")


_BACK: LiteralString = """unnest(%(ids)s::uuid[], %(budgets)s::text[], %(periods)s::text[], %(amounts)s::numeric[])
    AS k (id, budget, period, usd)"""
_LOCK_ALL: LiteralString = (
    "SELECT 1 FROM budget_period p JOIN "
    + _BACK
    + ' USING (budget, period) ORDER BY p.budget COLLATE "C", p.period COLLATE "C" FOR UPDATE OF p'
)
_MOVE_ALL: LiteralString = (
    """INSERT INTO budget_movement (id, epoch, budget, period, amount_usd, type)
    SELECT k.id, %(epoch)s, k.budget, k.period, k.usd, 'recovered' FROM """
    + _BACK
    + " ON CONFLICT (id) DO NOTHING"
)
_GIVE_BACK_ALL: LiteralString = (
    "UPDATE budget_period p SET granted_usd = p.granted_usd - k.usd FROM "
    + _BACK
    + " WHERE p.budget = k.budget AND p.period = k.period"
)
_SHRINK_ALL: LiteralString = (
    "UPDATE budget_slice s SET released_usd = s.released_usd + k.usd FROM "
    + _BACK
    + " WHERE s.epoch = %(epoch)s AND s.budget = k.budget AND s.period = k.period"
)


def limit_idle_transactions(conn: Conn) -> None:
    """A shipper that is stopped in the middle of a transaction must not hold its locks for long."""
    conn.execute("SET idle_in_transaction_session_timeout = '5s'")


def _lock_briefly(conn: Conn) -> None:
    """From here on this transaction keeps workers from their budgets."""
    conn.execute("SET LOCAL idle_in_transaction_session_timeout = '1s'")


def insert_rows(conn: Conn, insert: Insert, rows: Sequence[Row]) -> None:
    """Many rows with one statement; rows of one statement have different keys."""
    if rows:
        conn.execute(insert.statement, (as_json(insert, rows),))


def as_json(insert: Insert, rows: Sequence[Row]) -> str:
    """Rows as their columns are named."""
    return _encode([insert.named(*row) for row in rows]).replace(*_NUL).decode()


def copy_new(conn: Conn, insert: Insert, rows: Iterable[Row]) -> None:
    """Rows that are not there yet. Raises `psycopg.errors.UniqueViolation` where one is."""
    copy_rows(conn, insert.copy, [_flat(row, insert.nested) for row in rows] if insert.nested else list(rows))


def _flat(row: Row, nested: tuple[int, ...]) -> list[Any]:
    """With PostgreSQL's text of what is JSON or a list."""
    values = list(row)
    for place in nested:
        value = values[place]
        if type(value) is list:
            values[place] = f"{{{','.join(map(_quoted, value))}}}"
        elif value is not None:
            values[place] = _encode(value).replace(*_NUL).decode()
    return values


def _quoted(name: str) -> str:
    """An element of a list as PostgreSQL writes it."""
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


def position(conn: Conn, epoch: UUID) -> tuple[int, int, bool, int]:
    """(segment, offset, done, gaps) up to which an epoch was taken over; (0, 0, False, 0) for a new one."""
    row = conn.execute("SELECT segment, position, done, gaps FROM shipped WHERE epoch = %s", (epoch,)).fetchone()
    return (int(row[0]), int(row[1]), bool(row[2]), int(row[3])) if row else (0, 0, False, 0)


def vanished(conn: Conn, home: str, there: Iterable[UUID]) -> list[UUID]:
    """Workers of this HOME that were silent for a minute, of which not all was taken over, and that are not `there`:
    their journals are deleted. Also those of a HOME that was declared lost."""
    rows = conn.execute(
        """SELECT g.epoch FROM gateway g LEFT JOIN shipped s USING (epoch) LEFT JOIN lost_worker l USING (epoch)
           WHERE ((g.host = %s AND g.home = %s) OR l.epoch IS NOT NULL)
             AND s.done IS NOT TRUE AND g.epoch <> ALL(%s) AND g.heartbeat_at < now() - interval '1 minute'""",
        (socket.gethostname(), home, list(there)),
    ).fetchall()
    return [epoch for (epoch,) in rows]


def is_left(conn: Conn, epoch: UUID) -> bool:
    """Whether a worker that vanished is still to be written off; until the transaction ends, by nobody else."""
    conn.execute("SELECT 1 FROM gateway WHERE epoch = %s FOR UPDATE", (epoch,))
    # asked only now: what another one did while this waited is not seen by the statement that waits
    return not position(conn, epoch)[2]


def is_heard(conn: Conn, epoch: UUID, home: str) -> bool:
    """Whether the worker of a journal that nobody here writes was heard of a moment ago. It has just died; or HOME is a
    copy of another one, whose worker goes on: what it spends from here on is in its own journal alone, so nobody else
    may close its books. Where it has another HOME, or machine, whoever has that comes first. What was heard later than
    now was so by the clock of a server before this one."""
    row = conn.execute(
        """SELECT 1 FROM gateway WHERE epoch = %s AND state = 'live' AND heartbeat_at < now() + interval '2 seconds'
             AND heartbeat_at > now() - CASE WHEN (host, home) = (%s, %s) OR host = '' THEN interval '2 seconds'
                                             ELSE interval '1 minute' END""",
        (epoch, socket.gethostname(), home),
    ).fetchone()
    return row is not None


def set_position(conn: Conn, epoch: UUID, place: tuple[int, int], gaps: int, *, done: bool = False) -> None:
    """Say how far an epoch was taken over."""
    conn.execute(
        """INSERT INTO shipped (epoch, segment, position, gaps, done) VALUES (%s, %s, %s, %s, %s)
           ON CONFLICT (epoch) DO UPDATE SET segment = EXCLUDED.segment, position = EXCLUDED.position,
           gaps = EXCLUDED.gaps, done = EXCLUDED.done""",
        (epoch, *place, gaps, done),
    )


def apply_releases(conn: Conn, epoch: UUID, releases: Iterable[Release]) -> None:
    """Give back what the worker released and could not tell any more; locks in one order for all. For what it told,
    which is nearly all, no budget is locked: workers would wait for this process, which everybody goes before."""
    waiting = {UUID(bytes=record.id): record for record in releases}
    told = conn.execute("SELECT id FROM budget_movement WHERE id = ANY(%s)", (list(waiting),)).fetchall()
    for (id,) in told:
        del waiting[id]
    _lock_briefly(conn)
    for record in sorted(waiting.values(), key=lambda release: (release.budget, release.period)):
        key, amount = (record.budget, record.period), to_decimal(record.amount)
        conn.execute(LOCK_PERIOD, key)
        moved = conn.execute(INSERT_MOVEMENT, (UUID(bytes=record.id), epoch, *key, amount, "release"))
        if moved.rowcount == 1:
            lacking = record.amount - _held(conn, epoch, key)
            if lacking > 0:
                _book_grant(conn, epoch, key, lacking)
            conn.execute(RETURN_TO_PERIOD, (amount, *key))
            conn.execute(SHRINK_SLICE, (amount, epoch, *key))


def _held(conn: Conn, epoch: UUID, key: tuple[str, str]) -> int:
    """Picodollars that the worker has been granted and not released, as far as the database knows."""
    row = conn.execute(
        "SELECT granted_usd - released_usd FROM budget_slice WHERE epoch = %s AND budget = %s AND period = %s",
        (epoch, *key),
    ).fetchone()
    return from_decimal(row[0]) if row else 0


def _book_grant(conn: Conn, epoch: UUID, key: tuple[str, str], amount: int) -> None:
    """Book what the journal shows that the worker held, and the database does not know.

    That is so after a restore: the journal goes on a little after the rows were copied, and grants of that time are
    only in it, by what was spent or released of them. The limit of a period that is new here is told by the next grant.
    """
    usd = to_decimal(amount)
    conn.execute(
        """INSERT INTO gateway (epoch, host, home, pid, state) VALUES (%s, '', '', 0, 'fenced')
           ON CONFLICT (epoch) DO NOTHING""",
        (epoch,),
    )
    conn.execute(
        """INSERT INTO budget_period AS p (budget, period, limit_usd, granted_usd) VALUES (%s, %s, %s, %s)
           ON CONFLICT (budget, period) DO UPDATE SET granted_usd = p.granted_usd + EXCLUDED.granted_usd""",
        (*key, usd, usd),
    )
    conn.execute(
        """INSERT INTO budget_slice AS s (epoch, budget, period, granted_usd) VALUES (%s, %s, %s, %s)
           ON CONFLICT (epoch, budget, period) DO UPDATE SET granted_usd = s.granted_usd + EXCLUDED.granted_usd""",
        (epoch, *key, usd),
    )
    conn.execute(INSERT_MOVEMENT, (new_id(), epoch, *key, usd, "grant"))


def fence(conn: Conn, epoch: UUID) -> None:
    """Nothing is granted to this epoch any more; waits for a grant that is just being made."""
    conn.execute(
        """UPDATE gateway SET ready = false, state = CASE state WHEN 'live' THEN 'fenced' ELSE state END
           WHERE epoch = %s""",
        (epoch,),
    )


@contextmanager
def closing(conn: Conn, epoch: UUID) -> Iterator[bool]:
    """Whether nobody else closes the books of this epoch meanwhile: what another one gives back that is gone, and whose
    last statement is still on its way, is not seen before that has come, and would be given back twice."""
    (alone,) = conn.execute("SELECT pg_try_advisory_lock(hashtextextended(%s, 385))", (str(epoch),)).fetchone() or (0,)
    try:
        yield bool(alone)
    finally:
        if alone and not conn.closed:
            conn.execute("SELECT pg_advisory_unlock(hashtextextended(%s, 385))", (str(epoch),))


def end_open(conn: Conn, epoch: UUID) -> None:
    """What is shown as open of a worker that is dead, and is not in its journal (any more), counts at its bound: nobody
    will tell more of it. What it held of budgets is written off."""
    conn.execute(
        """UPDATE attempt SET state = 'crashed', outcome = 'crashed', cost_usd = reserved_usd, estimated = true,
             flags = '{crash}', parts = CASE WHEN reserved_usd = 0 THEN '{}'
               ELSE jsonb_build_object('bound', jsonb_build_array(0, (reserved_usd * 1e12)::bigint)) END
           WHERE epoch = %s AND state = 'open'""",
        (epoch,),
    )


def return_unspent(conn: Conn, epoch: UUID, *, write_off: bool, added_up: Mapping[Key, int] | None = None) -> int:
    """Close the slices of a fenced epoch whose calls are all in the ledger; what was not spent goes back. `added_up`:
    what is left of them (`left`), where that is known. Very many go back in parts, each in a transaction of its own
    unless the caller has one: what a failure leaves is what is `left` the next time.

    With `write_off` (records are missing) nothing goes back: what cannot be proven unspent counts as spent. What was
    spent beyond what the database knows to be granted is taken from the budget either way. Returns the picodollars that
    went back, negative where more was taken.
    """
    back = dict(added_up if added_up is not None else left(conn, epoch))
    close_slices(conn, epoch)  # of very many keys that takes a while, in which no budget is locked
    beyond = [key for key, amount in back.items() if amount < 0]
    if booked := sorted(set(beyond) - _sliced(conn, epoch, beyond)):
        with conn.transaction():
            _lock_briefly(conn)
            for key in booked:
                _book_grant(conn, epoch, key, -back.pop(key))
            close_slices(conn, epoch)
    if write_off:
        back = {key: min(0, amount) for key, amount in back.items()}
    keys = sorted(key for key, amount in back.items() if amount)
    for at in range(0, len(keys), TOGETHER):
        _return(conn, epoch, {key: back[key] for key in keys[at : at + TOGETHER]})
    conn.execute("SELECT close_limits(%s)", (epoch,))
    return sum(back.values())


def close_slices(conn: Conn, epoch: UUID) -> None:
    """Of budgets. May be repeated, and come before what is left of them is returned."""
    conn.execute("UPDATE budget_slice SET closed = true WHERE epoch = %s AND NOT closed", (epoch,))


def _return(conn: Conn, epoch: UUID, back: Mapping[Key, int]) -> None:
    """Amounts of slices to their budgets, in few statements and a moment: workers wait for some of these."""
    values = {
        "epoch": epoch,
        "ids": [uuid5(epoch, f"recovered {budget} {period}") for budget, period in back],
        "budgets": [budget for budget, _ in back],
        "periods": [period for _, period in back],
        "amounts": [to_decimal(amount) for amount in back.values()],
    }
    with conn.transaction():
        _lock_briefly(conn)
        for statement in (_LOCK_ALL, _MOVE_ALL, _GIVE_BACK_ALL, _SHRINK_ALL):
            conn.execute(statement, values)


def left(conn: Conn, epoch: UUID) -> dict[Key, int]:
    """Picodollars that an epoch was granted of each (budget, period), without what it released and what its calls cost,
    those too that have left for an archive: negative where a provider billed more than its bound, or where the database
    does not know of the grant. What is even is left out: of keys that each have a budget a day, nearly all."""
    rows = conn.execute(
        """SELECT budget, period, coalesce(s.usd, 0) - coalesce(c.usd, 0) FROM (
             SELECT budget, period, granted_usd - released_usd AS usd FROM budget_slice WHERE epoch = %(epoch)s) s
           FULL JOIN (
             SELECT budget, period, sum(cost_usd) AS usd FROM (
               SELECT c.budget, c.period, c.cost_usd FROM charge c
                 JOIN attempt a ON a.call_id = c.call_id AND a.number = c.attempt WHERE a.epoch = %(epoch)s
               UNION ALL SELECT budget, period, cost_usd FROM archived_charge WHERE epoch = %(epoch)s) e
             GROUP BY 1, 2) c USING (budget, period)
           WHERE coalesce(s.usd, 0) <> coalesce(c.usd, 0)""",
        {"epoch": epoch},
    ).fetchall()
    return {(budget, period): from_decimal(usd) for budget, period, usd in rows if not is_quota(budget)}


def spent_of(conn: Conn, epoch: UUID, calls: Sequence[UUID]) -> dict[Key, int]:
    """What these calls of an epoch cost, by (budget, period); none of them has left."""
    rows = conn.execute(
        """SELECT c.budget, c.period, sum(c.cost_usd) FROM charge c
             JOIN attempt a ON a.call_id = c.call_id AND a.number = c.attempt
           WHERE a.epoch = %s AND c.call_id = ANY(%s) GROUP BY 1, 2""",
        (epoch, list(calls)),
    ).fetchall()
    return {(budget, period): from_decimal(cost) for budget, period, cost in rows if not is_quota(budget)}


def _sliced(conn: Conn, epoch: UUID, keys: Sequence[Key]) -> set[Key]:
    """Those of these of which the epoch has a slice."""
    rows = conn.execute(
        """SELECT budget, period FROM budget_slice
           WHERE epoch = %s AND (budget, period) IN (SELECT * FROM unnest(%s::text[], %s::text[]))""",
        (epoch, [budget for budget, _ in keys], [period for _, period in keys]),
    ).fetchall()
    return {(budget, period) for budget, period in rows}


def report_gap(conn: Conn, epoch: UUID, segment: int) -> None:
    """A finding that records are missing in a segment of an epoch; once, however often it is told."""
    _report(
        conn,
        epoch,
        f"gap {segment}",
        f"Records are missing in journal segment {segment:08d}: the disk returned damaged data.",
        "The segment is kept beside the journal as .quarantined and the worker's budget slices are written off. "
        "Compare the provider's invoice, and check the disk.",
    )


def report_lost(conn: Conn, epoch: UUID, segments: str) -> None:
    """The same of what was taken over, and deleted, before the database was restored to an earlier moment."""
    _report(
        conn,
        epoch,
        f"lost {segments}",
        f"Calls of a gateway worker are missing: the ledger had taken over {segments}, and the database does not have "
        "that any more. It was restored, or another one took over that lacked what was committed last.",
        "The worker's budget slices are written off, but what it had spent beyond them can be spent again. The audit "
        "log in HOME tells of these calls; compare the provider's invoice (`groundplan cost reconcile`).",
    )


def report_older(conn: Conn, epoch: UUID) -> None:
    """The same of a journal that ends before what was taken over of it."""
    _report(
        conn,
        epoch,
        "older",
        "A journal ends before what the ledger has of it: its volume was restored from a snapshot, or the disk lost "
        "what was written last. Calls that came after that may be missing.",
        "The worker's budget slices are written off. Compare the provider's invoice (`groundplan cost reconcile`) for "
        "the time between the last call of this worker and its end.",
    )


def _report(conn: Conn, epoch: UUID, what: str, message: str, hint: str) -> None:
    conn.execute(
        """INSERT INTO finding (id, kind, severity, subject, message, hint)
           VALUES (%s, 'journal_gap', 'high', %s, %s, %s) ON CONFLICT (id) DO NOTHING""",
        (uuid5(epoch, what), f"gateway/{epoch}", message, hint),
    )


def blueprint_body(conn: Conn, number: int) -> bytes | None:
    """The body of a blueprint, or None."""
    row = conn.execute("SELECT body FROM blueprint WHERE number = %s", (number,)).fetchone()
    return bytes(row[0]) if row else None
