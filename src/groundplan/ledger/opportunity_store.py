"""The SQL of the facts in which savings are found: stored sums where there are any, else the newest calls of each
workload.

No query reads every call: samples are bounded by workload, and retries have an index of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final, LiteralString

from psycopg import Connection

from groundplan.core.database import select
from groundplan.ledger import rollup_store

Row = dict[str, Any]
NEWEST: Final = 1000
"""Number of the newest calls of a workload that are read, whatever they are, so that no query reads many."""
_NEWEST: LiteralString = """call WHERE workload = ANY(ARRAY[w.workload]) AND at >= %(since)s
    ORDER BY workload, at DESC LIMIT %(most)s"""
"""The order is one that only the index by workload has, see `route_store`."""
_INPUT: Final = frozenset(
    {"input", "cache_read", "cache_write", "cache_write_1h", "input_audio", "input_image", "input_video",
     "cache_read_audio", "cache_read_image"}
)  # fmt: skip
_GROUP_KEYS: Final = ("workload", "deployment", "model", "purpose", "outcome", "part", "tier")
_OUTPUT: Final = frozenset({"output", "reasoning", "output_audio", "output_image", "output_video", "citations"})

_COUNTED: Final = ("calls", "input", "cache_read", "output")


def spend_by_deployment(
    conn: Connection[Any], since: datetime, workload: str | None = None, *, hours: bool = False
) -> list[Row]:
    """Rows of workload, deployment, model and purpose, the most expensive first.

    Values: calls (billed attempts, of which a call may have several), `unanswered` (those of them that answered no
    client), cost_usd, failed_usd and failed_attempts (attempts that failed by themselves, not with their worker or
    because their client disconnected), bound_usd of the answers, tokens of input, cache_read and output, batch_calls
    and batch_usd (at the price of batches). `hours`: hour of the day, UTC -> (calls, input, cache_read, output); empty
    unless requested.
    """
    wanted = {
        "since": since, "until": None, "workload": workload, "status": None, "deployment": None, "demo": None,
    }  # fmt: skip
    found: dict[tuple[str, str, str, str], Row] = {}
    for row in rollup_store.parts_by(conn, (*_GROUP_KEYS, "hour") if hours else _GROUP_KEYS, wanted):
        key = row["workload"], row["deployment"], row["model"], row["purpose"]
        row_sums = found.setdefault(key, _empty_row(*key))
        before = [row_sums[name] for name in _COUNTED]
        _add_part(row_sums, row)
        if (hour := rollup_store.hour_of_day(row.get("hour"))) is not None:
            more = [row_sums[name] - was for name, was in zip(_COUNTED, before, strict=True)]
            there = row_sums["hours"].get(hour, (0, 0, 0, 0))
            row_sums["hours"][hour] = tuple(map(sum, zip(there, more, strict=True)))
    return sorted(found.values(), key=lambda row: (-row["cost_usd"], row["workload"], row["deployment"]))


def first_call_days(conn: Connection[Any], since: datetime) -> dict[str, date]:
    """Workload -> the first day (UTC) since then on which the ledger has a call of it."""
    wanted = {
        "since": since, "until": None, "workload": None, "status": None, "deployment": None, "demo": None,
    }  # fmt: skip
    found: dict[str, date] = {}
    for row in rollup_store.calls_by(conn, ["day", "workload"], wanted):
        found.setdefault(row["workload"], row["day"])
    return found


def _empty_row(workload: str, deployment: str, model: str, purpose: str) -> Row:
    counts = dict.fromkeys(
        ("calls", "unanswered", "failed_attempts", "input", "cache_read", "output", "batch_calls"), 0
    )
    amounts = dict.fromkeys(("cost_usd", "failed_usd", "bound_usd", "batch_usd"), Decimal(0))
    return {
        "workload": workload, "deployment": deployment, "model": model, "purpose": purpose, **counts, **amounts,
        "hours": {},
    }  # fmt: skip


def _add_part(sums: Row, row: Row) -> None:
    part, count, cost = row["part"], int(row["count"]), row["cost_usd"]
    answered, failed = row["outcome"] == "ok", row["outcome"] == "failed"
    sums["cost_usd"] += cost
    sums["failed_usd"] += cost if failed else 0
    sums["bound_usd"] += cost if part == "bound" and answered else 0
    batch = "batch" in row["tier"].split()
    sums["batch_usd"] += cost if batch else 0
    if part == "attempt" and row["outcome"] != "not_billed":
        sums["calls"] += count
        sums["batch_calls"] += count if batch else 0
        sums["unanswered"] += 0 if answered else count
        sums["failed_attempts"] += count if failed else 0
    sums["input"] += count if part in _INPUT else 0
    sums["cache_read"] += count if part == "cache_read" else 0
    sums["output"] += count if part in _OUTPUT else 0


def answer_lengths(conn: Connection[Any], since: datetime, workloads: Sequence[str]) -> list[Row]:
    """(workload, answers, longest, common, set_aside_usd) of the answers among the newest calls, without those from a
    cache and those of calls that the gateway made for itself."""
    return select(
        conn,
        f"""SELECT w.workload, c.* FROM unnest(%(workloads)s::text[]) w(workload), LATERAL (
             SELECT count(*) AS answers, max(completion_tokens) AS longest,
               percentile_disc(0.99) WITHIN GROUP (ORDER BY completion_tokens) AS common,
               coalesce(sum(greatest(reserved_usd - cost_usd, 0)), 0) AS set_aside_usd
             FROM (SELECT status, cache, endpoint, completion_tokens, reserved_usd, cost_usd, detail FROM {_NEWEST}) n
             WHERE status = 'ok' AND cache = 'none' AND NOT detail ? 'of' AND {rollup_store.IS_CALL}) c
           WHERE c.answers > 0 ORDER BY 1""",
        {"since": since, "workloads": list(workloads), "most": NEWEST},
    )


def grounded_calls(conn: Connection[Any], since: datetime, workloads: Sequence[str]) -> list[Row]:
    """(workload, team, sources, cost_usd, accepted, looked) of those of the newest calls that were given passages and
    that a model answered to clients. `accepted` is by their newest outcome; `looked` is the number of the newest calls
    among which they are."""
    return select(
        conn,
        f"""SELECT w.workload, c.team, c.sources, c.cost_usd, c.looked, (
             SELECT o.accepted FROM outcome o WHERE o.call_id = c.id AND o.accepted IS NOT NULL
             ORDER BY o.at DESC, o.id DESC LIMIT 1) AS accepted
           FROM unnest(%(workloads)s::text[]) w(workload), LATERAL (
             SELECT n.*, count(*) OVER () AS looked FROM (
               SELECT id, status, cache, coalesce(team, '') AS team, detail -> 'sources' AS sources, cost_usd,
                 detail ? 'of' AS own FROM {_NEWEST}) n
             WHERE status = 'ok' AND cache = 'none' AND NOT own) c
           WHERE jsonb_array_length(c.sources) > 0""",
        {"since": since, "workloads": list(workloads), "most": NEWEST},
    )


def shared_requests(conn: Connection[Any], since: datetime) -> list[Row]:
    """(workloads, requests, calls, repeated_usd, fewest) of identical requests made by several workloads, among the
    requests that are compared; includes days that are not rolled up yet."""
    return select(
        conn,
        """SELECT workloads, sum(requests)::bigint AS requests, sum(calls)::bigint AS calls,
             sum(repeated_usd) AS repeated_usd, sum(fewest)::bigint AS fewest
           FROM (SELECT * FROM asked_day WHERE day >= %(since)s::date
             UNION ALL SELECT * FROM alike(%(since)s::date, 'infinity')) a
           GROUP BY 1 ORDER BY 1""",
        {"since": since},
    )


def roll_up_shared_requests(conn: Connection[Any], at: datetime) -> int:
    """Roll the identical requests of past days up into counts, and delete their digests and keys; returns the number of
    digests."""
    row = conn.execute("SELECT fold_asked(%s)", (at,)).fetchone()
    assert row is not None
    return int(row[0])


def active_hours(conn: Connection[Any], since: datetime, most_hours: int) -> list[Row]:
    """(workload, feature, deployment, hours, calls, cost_usd, busiest, busiest_calls) of answers, for those that have
    calls in at most `most_hours` whole hours. Rows not rolled up yet, of some seconds, are left out."""
    return select(
        conn,
        """WITH few AS (
             SELECT workload, feature, deployment, count(*) AS hours, sum(calls)::bigint AS calls,
               sum(cost_usd) AS cost_usd FROM feature_hour
             WHERE hour >= date_trunc('hour', %(since)s, 'UTC') GROUP BY 1, 2, 3 HAVING count(*) <= %(most)s)
           SELECT DISTINCT ON (f.workload, f.feature, f.deployment) f.*, d.busiest, d.busiest_calls FROM few f
           JOIN (SELECT workload, feature, deployment, extract(hour FROM hour AT TIME ZONE 'UTC')::int AS busiest,
                   sum(h.calls)::bigint AS busiest_calls
                 FROM feature_hour h JOIN few USING (workload, feature, deployment)
                 WHERE h.hour >= date_trunc('hour', %(since)s, 'UTC') GROUP BY 1, 2, 3, 4) d
             USING (workload, feature, deployment)
           ORDER BY f.workload, f.feature, f.deployment, d.busiest_calls DESC, d.busiest""",
        {"since": since, "most": most_hours},
    )


_FURTHER: LiteralString = """further AS (
    SELECT a.workload, a.call_id, a.deployment, a.outcome, a.cost_usd,
      NOT 'hedge' = ANY(a.flags) AND b.outcome IS DISTINCT FROM 'ok' AS retry,
      bool_or(a.outcome = 'ok') OVER (PARTITION BY a.call_id) AS rescued
    FROM attempt a LEFT JOIN attempt b ON b.call_id = a.call_id AND b.number = a.number - 1
    WHERE a.number > 0 AND a.at >= %(since)s AND a.state <> 'open' AND a.purpose = '')"""
"""Attempts after the first, of calls that the gateway did not make for itself. `rescued`: one of them answered.
`retry`: the attempt was made because the previous one had not answered; a hedge is no retry, nor is the attempt after
the first step of a cascade, which was answered."""


def retried_calls(conn: Connection[Any], since: datetime) -> list[Row]:
    """(workload, calls, rescued, lost_usd) of calls with retries, including those where a hedge of a retry answered. A
    retry that ended with its worker, or because its client disconnected, counts neither as rescued nor as failed."""
    return select(
        conn,
        f"""WITH {_FURTHER}
           SELECT workload, count(DISTINCT call_id) AS calls,
             count(DISTINCT call_id) FILTER (WHERE rescued) AS rescued,
             coalesce(sum(cost_usd) FILTER (WHERE NOT rescued AND outcome = 'failed'), 0) AS lost_usd
           FROM further WHERE retry AND (rescued OR outcome IN ('failed', 'not_billed')) GROUP BY 1 ORDER BY 1""",
        {"since": since},
    )


def failed_retries(conn: Connection[Any], since: datetime) -> list[Row]:
    """(workload, deployment, attempts, cost_usd) of billed retries that failed, of calls that no attempt after the
    first answered."""
    return select(
        conn,
        f"""WITH {_FURTHER}
           SELECT workload, deployment, count(*) AS attempts, sum(cost_usd) AS cost_usd FROM further
           WHERE retry AND NOT rescued AND outcome = 'failed' GROUP BY 1, 2 ORDER BY 1, 2""",
        {"since": since},
    )


_READS: Final = ("content.read", "content.replayed", "routing.evidence")


def stored_content_use(conn: Connection[Any], since: datetime) -> list[Row]:
    """(workload, gigabytes, calls, reads) of stored prompts and answers; `reads` includes replays and the training of
    routers."""
    rows = select(
        conn,
        """SELECT subject, count(*) AS reads FROM audit_entry
           WHERE action <> 'call' AND action = ANY(%(reads)s) AND at >= %(since)s GROUP BY 1""",
        {"since": since, "reads": list(_READS)},
    )
    reads = {row["subject"]: row["reads"] for row in rows}
    return [
        {
            "workload": row["workload"], "gigabytes": row["bytes"] / 1e9, "calls": row["calls"],
            "reads": reads.get(f"workload/{row['workload']}", 0),
        }
        for row in rollup_store.content_sizes(conn)
    ]  # fmt: skip
