"""The SQL of gateway workers that are gone: whose journals nobody has taken over, and those declared lost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from psycopg import Connection

from groundplan.core.database import select

Row = dict[str, Any]
Db = Connection[Any]
_UNTOLD = "NOT EXISTS (SELECT 1 FROM shipped s WHERE s.epoch = g.epoch AND s.done)"


def fenced(conn: Db, silent_s: float) -> list[Row]:
    """Fenced gateway workers that were not heard of for so long, and whose journals were not taken over."""
    return select(
        conn,
        f"""SELECT g.epoch, g.host, g.home, g.heartbeat_at AT TIME ZONE 'UTC' AS heartbeat_at FROM gateway g
            WHERE g.state = 'fenced' AND g.host <> '' AND g.heartbeat_at < now() - make_interval(secs => %s)
              AND {_UNTOLD} ORDER BY g.heartbeat_at, g.epoch LIMIT 200""",
        (silent_s,),
    )


def homes(conn: Db, silent_s: float) -> list[Row]:
    """HOMEs that have workers of which nobody was heard for so long and whose journals were not taken over, the one
    that is gone for the longest first: `host`, `home`, `workers`, `heard_at` (the latest of them), `open_attempts` that
    the ledger shows with `open_usd`, the most that they can cost, and whether it was `declared` lost."""
    return select(
        conn,
        f"""SELECT g.host, g.home, count(*) AS workers, to_json(max(g.heartbeat_at) AT TIME ZONE 'UTC') AS heard_at,
              count(l.epoch) = count(*) AS declared,
              coalesce(sum(a.number), 0)::int AS open_attempts, coalesce(sum(a.usd), 0) AS open_usd
            FROM gateway g LEFT JOIN lost_worker l USING (epoch) LEFT JOIN (
              SELECT epoch, count(*) AS number, sum(reserved_usd) AS usd FROM attempt WHERE state = 'open'
              GROUP BY epoch) a USING (epoch)
            WHERE g.host <> '' AND {_UNTOLD} GROUP BY g.host, g.home
            HAVING max(g.heartbeat_at) < now() - make_interval(secs => %s)
            ORDER BY max(g.heartbeat_at), g.host, g.home LIMIT 200""",
        (silent_s,),
    )


def workers(conn: Db, host: str, home: str) -> list[Row]:
    """Those of one HOME whose journals were not taken over: `epoch`, and `silent_s` since they were heard of."""
    return select(
        conn,
        f"""SELECT g.epoch, extract(epoch FROM clock_timestamp() - g.heartbeat_at)::float AS silent_s FROM gateway g
            WHERE g.host = %s AND g.home = %s AND {_UNTOLD} ORDER BY g.epoch""",
        (host, home),
    )


def declare_lost(conn: Db, epochs: Sequence[UUID], actor: str) -> int:
    """How many of them were not declared so before."""
    return conn.execute(
        """INSERT INTO lost_worker (epoch, declared_by) SELECT *, %s FROM unnest(%s::uuid[])
           ON CONFLICT (epoch) DO NOTHING""",
        (actor, list(epochs)),
    ).rowcount
