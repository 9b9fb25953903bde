"""The SQL of archiving: copies a day's facts to files, records where the files are, and then deletes the facts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, LiteralString
from uuid import UUID

from psycopg import Connection, sql

from groundplan.core.database import select

TABLES: Final[dict[str, LiteralString]] = {
    "calls": "SELECT * FROM call WHERE at >= {first} AND at < {last} ORDER BY at, id",
    "attempts": """SELECT * FROM attempt WHERE at >= {first} AND at < {last} AND state <> 'open'
        ORDER BY at, call_id, number""",
    "charges": """SELECT c.* FROM charge c JOIN attempt a ON a.call_id = c.call_id AND a.number = c.attempt
        WHERE a.at >= {first} AND a.at < {last} AND a.state <> 'open'
        ORDER BY c.call_id, c.attempt, c.budget, c.period""",
}
"""File -> query of its rows of a day. Open attempts are not archived."""
_KNOWN: Final[dict[str, LiteralString]] = {
    "calls": "SELECT count(*) FROM call WHERE id = ANY(%s)",
    "attempts": """SELECT count(*) FROM attempt a
        JOIN unnest(%s::uuid[], %s::int[]) u(call_id, number) USING (call_id, number)""",
    "charges": """SELECT count(*) FROM charge c JOIN unnest(%s::uuid[], %s::int[], %s::text[], %s::text[])
        u(call_id, attempt, budget, period) USING (call_id, attempt, budget, period)""",
}
IDS_PER_ROW: Final = 10_000
"""Number of ids in one row; the SQL function `drop_archived` has the same number."""
_LAST_MS: Final = 253_402_000_000_000
"""The latest time whose day has a next day in every calendar. Ids made at random may contain later times."""


def try_lock(conn: Connection[Any]) -> bool:
    """Try to take the archiving lock until the end of the transaction; False where another process archives."""
    row = conn.execute("SELECT pg_try_advisory_xact_lock(80, 2)").fetchone()
    # a store that is far away takes its time for a day
    conn.execute("SET LOCAL idle_in_transaction_session_timeout = '1h'")
    return bool(row and row[0])


def lock_day(conn: Connection[Any], day: date) -> None:
    """Block the shipping of facts of that day until the end of the transaction."""
    conn.execute("SELECT pg_advisory_xact_lock(81, %s::date - date '2000-01-01')", (day,))


def days_to_archive(conn: Connection[Any], before: date, limit: int) -> list[date]:
    """The oldest days before `before` that have facts and were not archived. If there are none, the oldest archived day
    for which facts have arrived since."""
    rows = conn.execute(
        """SELECT d.day FROM (
             SELECT DISTINCT (hour AT TIME ZONE 'UTC')::date AS day FROM call_day
             WHERE hour < %s::timestamp AT TIME ZONE 'UTC') d
           WHERE NOT EXISTS (SELECT 1 FROM archived_day a WHERE a.day = d.day) ORDER BY 1 LIMIT %s""",
        (before, limit),
    ).fetchall()
    return [row[0] for row in rows] or _late_days(conn, before)


def _late_days(conn: Connection[Any], before: date) -> list[date]:
    """The oldest archived day with late facts, found by the time of calls and by the ids of attempts' calls, which
    begin with the time, so that no newer rows are read."""
    end = datetime.combine(before, time(), UTC)
    row = conn.execute(
        """SELECT (least((SELECT min(at) FROM call WHERE at < %(end)s),
             (SELECT at FROM attempt WHERE call_id < %(id)s AND at < %(end)s AND state <> 'open'
              ORDER BY call_id LIMIT 1)) AT TIME ZONE 'UTC')::date""",
        {"end": end, "id": UUID(int=int(end.timestamp() * 1000) << 80)},
    ).fetchone()
    return [row[0]] if row is not None and row[0] is not None else []


def next_part(conn: Connection[Any], day: date) -> int:
    """The number of the next part of a day: 0 is the day itself, or its beginning if it is too large for one part;
    later parts are the rest, and facts that arrived late."""
    row = conn.execute("SELECT coalesce(max(part) + 1, 0) FROM archived_day WHERE day = %s", (day,)).fetchone()
    assert row is not None
    return int(row[0])


def part_path(table: str, day: date, part: int) -> str:
    """The path of a part of a day, within its store."""
    return f"{table}/{day.isoformat()}{f'.{part}' if part else ''}.parquet"


def column_types(conn: Connection[Any], table: str) -> dict[str, str]:
    """Column -> type of a table's rows."""
    name = {"calls": "call", "attempts": "attempt", "charges": "charge"}[table]
    rows = conn.execute(
        """SELECT attname, format_type(atttypid, NULL) FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0
           AND NOT attisdropped ORDER BY attnum""",
        (name,),
    ).fetchall()
    return {str(column): str(kind) for column, kind in rows}


def part_end(conn: Connection[Any], day: date, most: int) -> datetime | None:
    """The time at which the next part of a day ends, so that it has at most `most` calls and `most` attempts (more only
    if they have the same time); None: the part is the whole rest of the day."""
    row = conn.execute(
        """WITH d AS (SELECT %(day)s::timestamp AT TIME ZONE 'UTC' AS first,
               (%(day)s::date + 1)::timestamp AT TIME ZONE 'UTC' AS last),
             c AS (SELECT c.at FROM call c, d WHERE c.at >= d.first AND c.at < d.last),
             a AS (SELECT a.at FROM attempt a, d WHERE a.at >= d.first AND a.at < d.last AND a.state <> 'open'),
             beyond AS ((SELECT at FROM c ORDER BY at OFFSET %(most)s LIMIT 1)
               UNION ALL (SELECT at FROM a ORDER BY at OFFSET %(most)s LIMIT 1))
           SELECT CASE WHEN min(b.at) IS NOT NULL THEN greatest(min(b.at),
             least((SELECT min(at) FROM c), (SELECT min(at) FROM a)) + interval '1 microsecond') END FROM beyond b""",
        {"day": day, "most": most},
    ).fetchone()
    return None if row is None else row[0]


def count_existing(conn: Connection[Any], table: str, ids: Sequence[tuple[Any, ...]]) -> int:
    """How many rows with these keys exist."""
    columns = [list(column) for column in zip(*ids, strict=True)]
    row = conn.execute(_KNOWN[table], columns).fetchone()
    assert row is not None
    return int(row[0])


def copy_out(conn: Connection[Any], table: str, day: date, file: Path, until: datetime | None = None) -> None:
    """Write a day's rows (those before `until`, if given) to a CSV file with a header."""
    first, last = (sql.SQL("({}::date + {})::timestamp AT TIME ZONE 'UTC'").format(sql.Literal(day), n) for n in (0, 1))
    query = sql.SQL(TABLES[table]).format(first=first, last=last if until is None else sql.Literal(until))
    statement = sql.SQL("COPY ({}) TO STDOUT (FORMAT csv, HEADER, NULL '\\N')").format(query)
    with file.open("wb") as target, conn.cursor() as cursor, cursor.copy(statement) as copied:
        for block in copied:
            target.write(block)


def record_part(
    conn: Connection[Any], day: date, url: str, counts: dict[str, int], cost: Decimal, sha256: str, part: int = 0,
    until: datetime | None = None,
) -> None:  # fmt: skip
    """Record where a part of a day is and up to which time it goes, before its facts are deleted."""
    conn.execute(
        """INSERT INTO archived_day (day, url, calls, attempts, charges, cost_usd, sha256, part, until)
           VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)""",
        (day, url, counts["calls"], counts["attempts"], counts["charges"], cost, sha256, part, until),
    )


def delete_archived(conn: Connection[Any], day: date, part: int = 0) -> int:
    """Delete a day's facts that are in a part; return the number of calls. Raises psycopg's `SerializationFailure` if
    the facts have changed meanwhile."""
    row = conn.execute("SELECT drop_archived(%s, %s)", (day, part)).fetchone()
    assert row is not None
    return int(row[0])


def day_cost(conn: Connection[Any], day: date, until: datetime | None = None) -> Decimal:
    """The cost of a day's attempts (those before `until`, if given) according to the ledger."""
    row = conn.execute(
        """SELECT coalesce(sum(cost_usd), 0) FROM attempt WHERE state <> 'open'
           AND at >= %(day)s::timestamp AT TIME ZONE 'UTC'
           AND at < coalesce(%(until)s, (%(day)s::date + 1)::timestamp AT TIME ZONE 'UTC')""",
        {"day": day, "until": until},
    ).fetchone()
    assert row is not None
    return Decimal(row[0])


def list_parts(conn: Connection[Any]) -> list[dict[str, Any]]:
    """Every archived part of a day, the oldest first."""
    return select(conn, "SELECT * FROM archived_day ORDER BY day, part")


def archived_day_of(conn: Connection[Any], call: UUID) -> date | None:
    """The day with which a call was archived, searched around the time in its id; None if it was not."""
    time_of = min(call.int >> 80, _LAST_MS) / 1000
    row = conn.execute(
        """WITH near AS MATERIALIZED (
             SELECT day, calls FROM archived_fact WHERE day BETWEEN %(day)s::date - 1 AND %(day)s::date + 1
               AND first <= %(call)s AND last >= %(call)s)
           SELECT day FROM near WHERE %(call)s = ANY(calls) LIMIT 1""",
        {"day": datetime.fromtimestamp(time_of, UTC).date(), "call": call},
    ).fetchone()
    return None if row is None else row[0]


def are_calls_archived(conn: Connection[Any], first: int, until: int) -> bool:
    """Whether the facts of all calls with entries in a range of the audit log are archived, in parts whose ids are
    listed. Calls with a time in the future come from a wrong clock and are ignored."""
    row = conn.execute(
        """SELECT EXISTS (SELECT FROM audit_entry e JOIN call c ON c.id = e.id
           WHERE e.leaf_index >= %s AND e.leaf_index < %s AND c.at <= now())""",
        (first, until),
    ).fetchone()
    return row is not None and not row[0] and oldest_unlisted(conn) is None


def oldest_unlisted(conn: Connection[Any]) -> tuple[date, str, int] | None:
    """(day, URL, part) of the oldest part that was archived before ids were listed; None if there is none."""
    row = conn.execute(
        """SELECT d.day, d.url, d.part FROM archived_day d
           WHERE NOT EXISTS (SELECT FROM archived_fact f WHERE f.day = d.day AND f.part = d.part)
           ORDER BY d.day, d.part LIMIT 1"""
    ).fetchone()
    return None if row is None else (row[0], row[1], row[2])


def list_facts(
    conn: Connection[Any], day: date, part: int, calls: list[UUID], attempts: list[tuple[UUID, int]],
    charged: list[tuple[UUID, str, str, Decimal]],
) -> None:  # fmt: skip
    """Store the ids of a part, and the charges of workers whose slices are not closed: (epoch, budget, period, USD)."""
    calls, attempts = sorted(calls), sorted(attempts)
    for chunk, at in enumerate(range(0, len(calls) or 1, IDS_PER_ROW)):
        ids = calls[at : at + IDS_PER_ROW]
        ends = (ids[0], ids[-1]) if ids else (None, None)
        conn.execute(
            "INSERT INTO archived_fact VALUES (%s, %s, %s, %s, %s, %s, '{}', '{}')", (day, part, chunk, *ends, ids)
        )
    for chunk, at in enumerate(range(0, len(attempts), IDS_PER_ROW)):
        ids, numbers = map(list, zip(*attempts[at : at + IDS_PER_ROW], strict=True))
        conn.execute(
            "INSERT INTO archived_fact VALUES (%s, %s, %s, %s, %s, '{}', %s, %s)",
            (day, part, -1 - chunk, ids[0], ids[-1], ids, numbers),
        )
    for epoch, budget, period, cost in charged:
        conn.execute(
            """INSERT INTO archived_charge AS t SELECT %(epoch)s, %(budget)s, %(period)s, %(cost)s
                 WHERE NOT EXISTS (SELECT FROM shipped s WHERE s.epoch = %(epoch)s AND s.done)
               ON CONFLICT (epoch, budget, period) DO UPDATE SET cost_usd = t.cost_usd + EXCLUDED.cost_usd""",
            {"epoch": epoch, "budget": budget, "period": period, "cost": cost},
        )
