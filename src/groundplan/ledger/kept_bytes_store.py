"""The SQL of storage sizes, sampled once a day. The sample of a day is written once and never changed. Measures nothing
itself."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal

from psycopg import Connection

Kind = Literal["documents", "content"]


@dataclass(frozen=True, slots=True)
class StoredBytes:
    """Bytes of one kind stored for a workload; `workload` is '' for documents of a source that no workload uses."""

    kind: Kind
    workload: str
    bytes: int
    source: str = ""


def is_due(conn: Connection[tuple[object, ...]], day: date) -> bool:
    """Whether this day has no sample yet."""
    return conn.execute("SELECT 1 FROM kept_day WHERE day = %s", (day,)).fetchone() is None


def has_samples(conn: Connection[tuple[object, ...]]) -> bool:
    """Whether any day has a sample."""
    return conn.execute("SELECT 1 FROM kept_day LIMIT 1").fetchone() is not None


def add_sample(conn: Connection[tuple[object, ...]], now: datetime, kept: Iterable[StoredBytes]) -> bool:
    """Write today's sample; False if another process has written it."""
    day = now.date()
    first = conn.execute(
        "INSERT INTO kept_day (day, sampled_at) VALUES (%s, %s) ON CONFLICT DO NOTHING RETURNING day", (day, now)
    ).fetchone()
    if first is None:
        return False
    with conn.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO kept_bytes (day, kind, workload, source, bytes) VALUES (%s, %s, %s, %s, %s)",
            [(day, each.kind, each.workload, each.source, each.bytes) for each in kept],
        )
    return True


def samples(conn: Connection[tuple[object, ...]], kind: Kind, first: date, last: date) -> dict[date, dict[str, int]]:
    """Sampled day -> workload -> bytes, for the days from `first` to `last`, the last sample before them and the first
    after."""
    rows = conn.execute(
        """SELECT d.day, b.workload, sum(b.bytes)::bigint FROM (
             SELECT day FROM kept_day WHERE day BETWEEN %(first)s AND %(last)s
             UNION SELECT max(day) FROM kept_day WHERE day < %(first)s
             UNION SELECT min(day) FROM kept_day WHERE day > %(last)s) d
           LEFT JOIN kept_bytes b ON b.day = d.day AND b.kind = %(kind)s
           WHERE d.day IS NOT NULL GROUP BY 1, 2""",
        {"first": first, "last": last, "kind": kind},
    ).fetchall()
    found: dict[date, dict[str, int]] = {}
    for day, workload, count in rows:
        assert isinstance(day, date)
        mine = found.setdefault(day, {})
        if isinstance(workload, str) and isinstance(count, int):
            mine[workload] = count
    return found
