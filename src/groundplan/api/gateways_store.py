"""The SQL of gateway workers that are gone: those whose journals were not shipped, and those declared lost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from psycopg import Connection

from groundplan.core.database import select

Row = dict[str, Any]
Db = Connection[Any]
_NOT_SHIPPED = "NOT EXISTS (SELECT 1 FROM shipped s WHERE s.epoch = g.epoch AND s.done)"


def silent_fenced_workers(conn: Db, silent_s: float) -> list[Row]:
    """Fenced gateway workers that were silent for `silent_s` and whose journals were not shipped."""
    return select(
        conn,
        f"""SELECT g.epoch, g.host, g.home, g.heartbeat_at AT TIME ZONE 'UTC' AS heartbeat_at FROM gateway g
            WHERE g.state = 'fenced' AND g.host <> '' AND g.heartbeat_at < now() - make_interval(secs => %s)
              AND {_NOT_SHIPPED} ORDER BY g.heartbeat_at, g.epoch LIMIT 200""",
        (silent_s,),
    )


def silent_homes(conn: Db, silent_s: float) -> list[Row]:
    """HOMEs whose workers were silent for `silent_s` with unshipped journals, the longest silent first: `host`, `home`,
    `workers`, `heard_at` (latest heartbeat), `open_attempts` in the ledger with their greatest cost `open_usd`, and
    whether all of them were `declared` lost."""
    return select(
        conn,
        f"""SELECT g.host, g.home, count(*) AS workers, to_json(max(g.heartbeat_at) AT TIME ZONE 'UTC') AS heard_at,
              count(l.epoch) = count(*) AS declared,
              coalesce(sum(a.number), 0)::int AS open_attempts, coalesce(sum(a.usd), 0) AS open_usd
            FROM gateway g LEFT JOIN lost_worker l USING (epoch) LEFT JOIN (
              SELECT epoch, count(*) AS number, sum(reserved_usd) AS usd FROM attempt WHERE state = 'open'
              GROUP BY epoch) a USING (epoch)
            WHERE g.host <> '' AND {_NOT_SHIPPED} GROUP BY g.host, g.home
            HAVING max(g.heartbeat_at) < now() - make_interval(secs => %s)
            ORDER BY max(g.heartbeat_at), g.host, g.home LIMIT 200""",
        (silent_s,),
    )


def unshipped_workers(conn: Db, host: str, home: str) -> list[Row]:
    """Workers of one HOME whose journals were not shipped: `epoch`, and `silent_s` since the last heartbeat."""
    return select(
        conn,
        f"""SELECT g.epoch, extract(epoch FROM clock_timestamp() - g.heartbeat_at)::float AS silent_s FROM gateway g
            WHERE g.host = %s AND g.home = %s AND {_NOT_SHIPPED} ORDER BY g.epoch""",
        (host, home),
    )


def declare_lost(conn: Db, epochs: Sequence[UUID], actor: str) -> int:
    """Declare workers lost; returns how many were not declared lost before."""
    return conn.execute(
        """INSERT INTO lost_worker (epoch, declared_by) SELECT *, %s FROM unnest(%s::uuid[])
           ON CONFLICT (epoch) DO NOTHING""",
        (actor, list(epochs)),
    ).rowcount
