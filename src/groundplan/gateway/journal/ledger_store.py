"""The SQL with which the shipper writes calls, attempts and charges, applies releases and fences dead workers.

Every statement but COPY may be repeated: rows are keyed by (call, attempt), movements by their id. A row in the state
`settled` or `crashed` is never changed, except where a lost journal comes back (`late_journal_store`). `shipper` and
`recovery` decide what the rows contain.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
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

RETURN_BATCH = 500
"""Budgets that are locked together to return amounts to them."""
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
"""PostgreSQL text cannot contain NUL; a client's odd path must not stop the ledger."""
_NESTED = frozenset({"detail", "usage", "parts", "flags"})
"""Columns of JSON, or of a list of names."""


@dataclass(frozen=True, slots=True)
class Insert:
    """Two ways to write rows of a table: `copy` for new rows only, cheaper; `statement` also for existing ones."""

    row_type: Callable[..., msgspec.Struct]
    """Struct that names the values of a row by their columns."""
    statement: bytes
    """Takes rows as JSON; the table's row type gives the types."""
    copy: bytes
    nested: tuple[int, ...]
    """Positions of values that are JSON or a list."""


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


_RETURNED: LiteralString = """unnest(%(ids)s::uuid[], %(budgets)s::text[], %(periods)s::text[], %(amounts)s::numeric[])
    AS k (id, budget, period, usd)"""
_LOCK_ALL: LiteralString = (
    "SELECT 1 FROM budget_period p JOIN "
    + _RETURNED
    + ' USING (budget, period) ORDER BY p.budget COLLATE "C", p.period COLLATE "C" FOR UPDATE OF p'
)
_INSERT_MOVEMENTS: LiteralString = (
    """INSERT INTO budget_movement (id, epoch, budget, period, amount_usd, type)
    SELECT k.id, %(epoch)s, k.budget, k.period, k.usd, 'recovered' FROM """
    + _RETURNED
    + " ON CONFLICT (id) DO NOTHING"
)
_RETURN_ALL: LiteralString = (
    "UPDATE budget_period p SET granted_usd = p.granted_usd - k.usd FROM "
    + _RETURNED
    + " WHERE p.budget = k.budget AND p.period = k.period"
)
_SHRINK_ALL: LiteralString = (
    "UPDATE budget_slice s SET released_usd = s.released_usd + k.usd FROM "
    + _RETURNED
    + " WHERE s.epoch = %(epoch)s AND s.budget = k.budget AND s.period = k.period"
)


def limit_idle_transactions(conn: Conn) -> None:
    """Keep a shipper that is stopped in a transaction from holding its locks for long."""
    conn.execute("SET idle_in_transaction_session_timeout = '5s'")


def _lock_briefly(conn: Conn) -> None:
    """Limit how long this transaction may stand still, since from here on it locks budgets that workers need."""
    conn.execute("SET LOCAL idle_in_transaction_session_timeout = '1s'")


def insert_rows(conn: Conn, insert: Insert, rows: Sequence[Row]) -> None:
    """Write many rows with one statement; their keys must differ."""
    if rows:
        conn.execute(insert.statement, (as_json(insert, rows),))


def as_json(insert: Insert, rows: Sequence[Row]) -> str:
    """Return rows as JSON objects by column name."""
    return _encode([insert.row_type(*row) for row in rows]).replace(*_NUL).decode()


def copy_new(conn: Conn, insert: Insert, rows: Iterable[Row]) -> None:
    """Copy rows that do not exist yet. Raises `psycopg.errors.UniqueViolation` where one does."""
    copy_rows(conn, insert.copy, [_copy_values(row, insert.nested) for row in rows] if insert.nested else list(rows))


def _copy_values(row: Row, nested: tuple[int, ...]) -> list[Any]:
    """Return a row with JSON and lists as PostgreSQL's text."""
    values = list(row)
    for place in nested:
        value = values[place]
        if type(value) is list:
            values[place] = f"{{{','.join(map(_quote_element, value))}}}"
        elif value is not None:
            values[place] = _encode(value).replace(*_NUL).decode()
    return values


def _quote_element(name: str) -> str:
    """Return an element of a list as PostgreSQL writes it."""
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


def position(conn: Conn, epoch: UUID) -> tuple[int, int, bool, int]:
    """Return (segment, offset, done, gaps) up to which an epoch is shipped; (0, 0, False, 0) for a new one."""
    row = conn.execute("SELECT segment, position, done, gaps FROM shipped WHERE epoch = %s", (epoch,)).fetchone()
    return (int(row[0]), int(row[1]), bool(row[2]), int(row[3])) if row else (0, 0, False, 0)


def vanished_epochs(conn: Conn, home: str, there: Iterable[UUID]) -> list[UUID]:
    """Return epochs of this HOME's workers that were silent for a minute, are not fully shipped, and are not in
    `there`: their journals are deleted. Includes the workers of a HOME that was declared lost."""
    rows = conn.execute(
        """SELECT g.epoch FROM gateway g LEFT JOIN shipped s USING (epoch) LEFT JOIN lost_worker l USING (epoch)
           WHERE ((g.host = %s AND g.home = %s) OR l.epoch IS NOT NULL)
             AND s.done IS NOT TRUE AND g.epoch <> ALL(%s) AND g.heartbeat_at < now() - interval '1 minute'""",
        (socket.gethostname(), home, list(there)),
    ).fetchall()
    return [epoch for (epoch,) in rows]


def is_unfinished(conn: Conn, epoch: UUID) -> bool:
    """Whether a vanished worker is still to be written off; locks it against others until the transaction ends."""
    conn.execute("SELECT 1 FROM gateway WHERE epoch = %s FOR UPDATE", (epoch,))
    # a second statement: the one that waited for the lock does not see what another transaction did meanwhile
    return not position(conn, epoch)[2]


def was_heard_lately(conn: Conn, epoch: UUID, home: str) -> bool:
    """Whether the worker of a journal whose lock is free gave a heartbeat a moment ago. Either it has just died, or
    HOME is a copy of another one whose worker goes on: what that spends from here on is only in its own journal, so
    nobody else may close its books. Where the row names another HOME or host, the shipper there comes first. A
    heartbeat later than now came from the clock of a previous server."""
    row = conn.execute(
        """SELECT 1 FROM gateway WHERE epoch = %s AND state = 'live' AND heartbeat_at < now() + interval '2 seconds'
             AND heartbeat_at > now() - CASE WHEN (host, home) = (%s, %s) OR host = '' THEN interval '2 seconds'
                                             ELSE interval '1 minute' END""",
        (epoch, socket.gethostname(), home),
    ).fetchone()
    return row is not None


def set_position(conn: Conn, epoch: UUID, place: tuple[int, int], gaps: int, *, done: bool = False) -> None:
    """Record how far an epoch is shipped."""
    conn.execute(
        """INSERT INTO shipped (epoch, segment, position, gaps, done) VALUES (%s, %s, %s, %s, %s)
           ON CONFLICT (epoch) DO UPDATE SET segment = EXCLUDED.segment, position = EXCLUDED.position,
           gaps = EXCLUDED.gaps, done = EXCLUDED.done""",
        (epoch, *place, gaps, done),
    )


def apply_releases(conn: Conn, epoch: UUID, releases: Iterable[Release]) -> None:
    """Return to the budgets what the worker released and had not reported, with locks in one order for all. For
    reported releases, nearly all, no budget is locked: workers would wait for this process, which has low priority."""
    waiting = {UUID(bytes=record.id): record for record in releases}
    told = conn.execute("SELECT id FROM budget_movement WHERE id = ANY(%s)", (list(waiting),)).fetchall()
    for (id,) in told:
        del waiting[id]
    _lock_briefly(conn)
    for record in sorted(waiting.values(), key=lambda release: (release.budget, release.period)):
        key, amount = (record.budget, record.period), to_decimal(record.amount)
        _lock_period(conn, key, amount)
        moved = conn.execute(INSERT_MOVEMENT, (UUID(bytes=record.id), epoch, *key, amount, "release"))
        if moved.rowcount == 1:
            lacking = record.amount - _held_amount(conn, epoch, key)
            if lacking > 0:
                _book_grant(conn, epoch, key, lacking)
            conn.execute(RETURN_TO_PERIOD, (amount, *key))
            conn.execute(SHRINK_SLICE, (amount, epoch, *key))


def _lock_period(conn: Conn, key: tuple[str, str], limit: Decimal) -> None:
    """Lock a budget in a period. Where the database has no row of it, as after a restore, one with this limit is added:
    there is nothing to lock otherwise, and a grant under way, in which a worker books the same amounts itself, would be
    seen neither here nor in what the worker holds."""
    if not conn.execute(LOCK_PERIOD, key).rowcount:
        conn.execute(
            "INSERT INTO budget_period (budget, period, limit_usd) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
            (*key, limit),
        )
        conn.execute(LOCK_PERIOD, key)


def _held_amount(conn: Conn, epoch: UUID, key: tuple[str, str]) -> int:
    """Return the picodollars that the worker holds: granted and not released, as far as the database knows."""
    row = conn.execute(
        "SELECT granted_usd - released_usd FROM budget_slice WHERE epoch = %s AND budget = %s AND period = %s",
        (epoch, *key),
    ).fetchone()
    return from_decimal(row[0]) if row else 0


def _book_grant(conn: Conn, epoch: UUID, key: tuple[str, str], amount: int) -> None:
    """Book an amount that the journal proves the worker held and the database does not know.

    That happens after a restore: the journal goes on a little after the rows were copied, and grants of that time are
    known only from what was spent or released of them. The next grant sets the limit of a period that is new here.
    """
    usd = to_decimal(amount)
    conn.execute(
        """INSERT INTO gateway (epoch, host, home, pid, state) VALUES (%s, '', '', 0, 'fenced')
           ON CONFLICT DO NOTHING""",
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
    """Grant nothing to this epoch any more; waits for a grant that is under way."""
    conn.execute(
        """UPDATE gateway SET ready = false, state = CASE state WHEN 'live' THEN 'fenced' ELSE state END
           WHERE epoch = %s""",
        (epoch,),
    )


@contextmanager
def closing_lock(conn: Conn, epoch: UUID) -> Iterator[bool]:
    """Lock the closing of this epoch's books; yields whether nobody else does it. What another shipper returned in a
    statement that is still under way is not visible here, and would be returned twice."""
    (alone,) = conn.execute("SELECT pg_try_advisory_lock(hashtextextended(%s, 385))", (str(epoch),)).fetchone() or (0,)
    try:
        yield bool(alone)
    finally:
        if alone and not conn.closed:
            conn.execute("SELECT pg_advisory_unlock(hashtextextended(%s, 385))", (str(epoch),))


def settle_vanished_attempts(conn: Conn, epoch: UUID) -> None:
    """Settle at their bound open attempts of a dead worker that are not in its journal (any more): nothing more will be
    known of them. What they held of budgets is written off."""
    conn.execute(
        """UPDATE attempt SET state = 'crashed', outcome = 'crashed', cost_usd = reserved_usd, estimated = true,
             flags = '{crash}', parts = CASE WHEN reserved_usd = 0 THEN '{}'
               ELSE jsonb_build_object('bound', jsonb_build_array(0, (reserved_usd * 1e12)::bigint)) END
           WHERE epoch = %s AND state = 'open'""",
        (epoch,),
    )


def return_unspent(conn: Conn, epoch: UUID, *, write_off: bool, added_up: Mapping[Key, int] | None = None) -> int:
    """Close the slices of a fenced epoch whose calls are all in the ledger, and return what was not spent. `added_up`:
    what is left of the slices (`unspent_amounts`), where that is known. Very many are returned in parts, each in a
    transaction of its own unless the caller has one: what a failure leaves is returned the next time.

    With `write_off` (records are missing) nothing is returned: what cannot be proven unspent counts as spent. What was
    spent beyond the grants that the database knows is taken from the budget either way. Returns the picodollars that
    were returned, negative where more was taken.
    """
    back = dict(added_up if added_up is not None else unspent_amounts(conn, epoch))
    close_slices(conn, epoch)  # for very many keys that takes a while, during which no budget is locked
    beyond = [key for key, amount in back.items() if amount < 0]
    if booked := sorted(set(beyond) - _keys_with_slices(conn, epoch, beyond)):
        with conn.transaction():
            _lock_briefly(conn)
            for key in booked:
                _book_grant(conn, epoch, key, -back.pop(key))
            close_slices(conn, epoch)
    if write_off:
        back = {key: min(0, amount) for key, amount in back.items()}
    keys = sorted(key for key, amount in back.items() if amount)
    for at in range(0, len(keys), RETURN_BATCH):
        _return_amounts(conn, epoch, {key: back[key] for key in keys[at : at + RETURN_BATCH]})
    conn.execute("SELECT close_limits(%s)", (epoch,))
    return sum(back.values())


def close_slices(conn: Conn, epoch: UUID) -> None:
    """Close the budget slices of an epoch. May be repeated, and done before what is left is returned."""
    conn.execute("UPDATE budget_slice SET closed = true WHERE epoch = %s AND NOT closed", (epoch,))


def _return_amounts(conn: Conn, epoch: UUID, back: Mapping[Key, int]) -> None:
    """Return amounts to their budgets, in few statements and a short transaction: workers wait for some of them."""
    values = {
        "epoch": epoch,
        "ids": [uuid5(epoch, f"recovered {budget} {period}") for budget, period in back],
        "budgets": [budget for budget, _ in back],
        "periods": [period for _, period in back],
        "amounts": [to_decimal(amount) for amount in back.values()],
    }
    with conn.transaction():
        _lock_briefly(conn)
        for statement in (_LOCK_ALL, _INSERT_MOVEMENTS, _RETURN_ALL, _SHRINK_ALL):
            conn.execute(statement, values)


def unspent_amounts(conn: Conn, epoch: UUID) -> dict[Key, int]:
    """Return the picodollars that an epoch holds of each (budget, period): granted less released less the cost of its
    calls, archived ones included. Negative where a provider billed more than its bound, or where the database does not
    know of the grant. Zeros are left out: of keys that each have a budget a day, nearly all."""
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


def costs_of(conn: Conn, epoch: UUID, calls: Sequence[UUID]) -> dict[Key, int]:
    """Return what these calls of an epoch cost, by (budget, period); none of them is archived."""
    rows = conn.execute(
        """SELECT c.budget, c.period, sum(c.cost_usd) FROM charge c
             JOIN attempt a ON a.call_id = c.call_id AND a.number = c.attempt
           WHERE a.epoch = %s AND c.call_id = ANY(%s) GROUP BY 1, 2""",
        (epoch, list(calls)),
    ).fetchall()
    return {(budget, period): from_decimal(cost) for budget, period, cost in rows if not is_quota(budget)}


def _keys_with_slices(conn: Conn, epoch: UUID, keys: Sequence[Key]) -> set[Key]:
    """Return the keys of which the epoch has a slice."""
    rows = conn.execute(
        """SELECT budget, period FROM budget_slice
           WHERE epoch = %s AND (budget, period) IN (SELECT * FROM unnest(%s::text[], %s::text[]))""",
        (epoch, [budget for budget, _ in keys], [period for _, period in keys]),
    ).fetchall()
    return {(budget, period) for budget, period in rows}


def report_gap(conn: Conn, epoch: UUID, segment: int) -> None:
    """Report a finding that records are missing in a segment of an epoch; repeated reports are one finding."""
    _report(
        conn,
        epoch,
        f"gap {segment}",
        f"Records are missing in journal segment {segment:08d}: the disk returned damaged data.",
        "The segment is kept beside the journal as .quarantined and the worker's budget slices are written off. "
        "Compare the provider's invoice, and check the disk.",
    )


def report_lost(conn: Conn, epoch: UUID, segments: str) -> None:
    """Report that the database lacks shipped and deleted segments: it was restored to an earlier moment."""
    _report(
        conn,
        epoch,
        f"lost {segments}",
        f"Calls of a gateway worker are missing: the ledger had taken over {segments}, and the database does not have "
        "that any more. It was restored, or another one took over that lacked what was committed last.",
        "The worker's budget slices are written off, but what it had spent beyond them can be spent again. The audit "
        "log in HOME tells of these calls; compare the provider's invoice (`groundplan cost reconcile`).",
    )


def report_truncated(conn: Conn, epoch: UUID) -> None:
    """Report that a journal ends before the position up to which it was shipped."""
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
