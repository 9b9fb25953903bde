"""What is stored of calls in full goes with its time, or with the rule that let it be stored; a hold of its person
keeps it. The tables that this is of have the columns `workload`, `at`, `expires_at` and `sealed`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, LiteralString

from psycopg import Connection

from groundplan.ledger.content_store import counted


def keep_only(conn: Connection[Any], table: LiteralString, rules: Sequence[tuple[str, bool, int]]) -> dict[str, int]:
    """Delete what is past its time, or what the rules (workload, full allowed, seconds) no longer allow; how many by
    workload."""
    full = [(workload, seconds) for workload, may_be_full, seconds in rules if may_be_full]
    return counted(
        conn,
        f"""DELETE FROM {table} s WHERE (s.expires_at <= now() OR NOT EXISTS (
             SELECT 1 FROM unnest(%s::text[], %s::bigint[]) r (workload, seconds)
             WHERE r.workload = s.workload AND s.at + make_interval(secs => r.seconds) > now()))
           AND NOT EXISTS (SELECT FROM person_hold h WHERE h.ended_at IS NULL
             AND h.person_id::text = sealed_for(s.sealed)) RETURNING s.workload""",
        ([workload for workload, _ in full], [seconds for _, seconds in full]),
    )
