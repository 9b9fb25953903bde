"""Live traffic in the JSON form of the control API: rates, errors and latencies of the last minutes, and the health of
deployments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from psycopg import Connection

from groundplan.core.money import format_numeric
from groundplan.ledger import traffic_store as store

STEP_SECONDS = int(store.STEP.total_seconds())
PATIENCE_MS = 2000
EXACT_BELOW = 600
"""With more calls a minute than this, whole steps are counted instead of single calls."""
_MINUTE, _ARRIVING = timedelta(minutes=1), timedelta(seconds=1)
_UNKNOWN: Final = (None, None)


def traffic(
    conn: Connection[Any],
    now: datetime,
    minutes: int,
    *,
    workload: str | None = None,
    deployment: str | None = None,
    status: str | None = None,
) -> dict[str, Any]:
    """All `steps` of ten seconds up to now, and their totals. Percentiles are of a sample (`sampled`) where there are
    many calls. Raises psycopg's `QueryCanceled` where it takes too long."""
    end = _step_start(now) + store.STEP
    since = end - timedelta(minutes=minutes)
    wanted = {"workload": workload, "deployment": deployment, "status": status}
    store.limit_time(conn, PATIENCE_MS)
    found = {row["at"]: row for row in store.calls_by_step(conn, since, wanted)}
    sums = {name: sum(row[name] for row in found.values()) for name in ("every", "calls", "refused", "failed")}
    sampled = sums["every"] > store.SAMPLE_ABOVE
    answered = {at: row["ok"] for at, row in found.items() if row["ok"]}
    times = (
        store.sampled_latencies_by_step(conn, since, end, wanted, answered)
        if sampled
        else store.latencies_by_step(conn, since, wanted)
    )
    asked, whole = sums["calls"] - sums["refused"], times.get(None, _UNKNOWN)
    return {
        "minutes": minutes,
        "step_s": STEP_SECONDS,
        "steps": [_step(at, found.get(at), times.get(at, _UNKNOWN)) for at in _times(since, end)],
        "calls": sums["calls"],
        "refused": sums["refused"],
        "failed": sums["failed"],
        "per_minute": round(sums["calls"] / minutes, 2),
        "error_share": round(sums["failed"] / asked, 4) if asked else 0.0,
        "p50_ms": whole[0],
        "p95_ms": whole[1],
        "sampled": sampled,
        "cost_usd": format_numeric(sum((row["cost_usd"] for row in found.values()), Decimal(0))),
    }


def calls_per_minute(conn: Connection[Any], now: datetime) -> dict[str, float]:
    """workload -> calls of the last minute that were not refused; where there are many, those of six whole steps up to
    a second ago, since the newest calls have not arrived yet."""
    until = _step_start(now - _ARRIVING)
    rows = store.calls_by_workload(conn, until - _MINUTE, until)
    if sum(row["every"] for row in rows) <= EXACT_BELOW:
        rows = store.count_newest_calls(conn, now - _MINUTE, now + _MINUTE)
    return {row["workload"]: float(row["calls"]) for row in rows if row["calls"]}


def failing_deployments(conn: Connection[Any], since: datetime, sites: Mapping[str, str]) -> dict[str, bool]:
    """Which of the deployments in `sites` (deployment -> its site) fail now -> whether their address gave no response
    at all. One fails if its newest attempt since then failed, or if nobody attempted it since then because a worker's
    circuit breaker is open."""
    tried = {
        row["deployment"]: row
        for row in store.newest_outcomes(conn, since)
        if sites.get(row["deployment"]) == row["site"]
    }
    failing = {name: row["unanswered"] for name, row in tried.items() if row["failed"]}
    for worker in store.open_breakers(conn):
        for name, told in worker["health"].items():
            if name in sites and name not in tried and told.partition(":")[0] == "open":
                failing[name] = False
    return failing


def answering_sites(conn: Connection[Any], workloads: Sequence[str], since: datetime) -> dict[str, str]:
    """workload -> the site of its last answer since then."""
    return {row["workload"]: row["site"] for row in store.answering_sites(conn, workloads, since)}


def deployment_health(
    conn: Connection[Any], now: datetime, minutes: int, names: Sequence[tuple[str, str]]
) -> list[dict[str, Any]]:
    """The attempts of the last minutes of each (deployment, site), and how many workers have its circuit breaker open.

    `state` is closed, half_open or open: the worst of any worker; `why` has the workers' reasons. `failed` leaves out
    `wrong_requests`, which the upstream refused with 400, 413 or 422: they say nothing about the deployment.
    """
    store.limit_time(conn, PATIENCE_MS)
    since = now - timedelta(minutes=minutes)
    rows = {row["deployment"]: row for row in store.attempts_by_deployment(conn, since)}
    many = sum(row["attempts"] for row in rows.values()) > store.SAMPLE_ABOVE
    firsts = store.first_byte_p95(conn, since, now, sampled=many)
    workers = [row["health"] for row in store.open_breakers(conn)]
    return [
        _deployment(name, site, rows.get(name), firsts.get(name), [health.get(name, "closed") for health in workers])
        for name, site in names
    ]


def _deployment(
    name: str, site: str, row: dict[str, Any] | None, first_byte: float | None, told: list[str]
) -> dict[str, Any]:
    """`told` has the report of each worker: a state, followed by a colon and the reason."""
    seen = [text.partition(":")[0] for text in told]
    worst = next((state for state in ("open", "half_open") if state in seen), "closed")
    whys = (text.partition(":")[2].strip() for text, state in zip(told, seen, strict=True) if state == worst)
    counts = row or {"attempts": 0, "ok": 0, "failed": 0, "wrong_requests": 0, "last_ok": None}
    return {
        "name": name,
        "site": site,
        "state": worst if seen else "unknown",
        "why": "; ".join(_distinct_reasons(whys)),
        "workers_open": sum(state != "closed" for state in seen),
        "workers": len(seen),
        "attempts": counts["attempts"],
        "ok": counts["ok"],
        "failed": counts["failed"],
        "wrong_requests": counts["wrong_requests"],
        "first_byte_p95_ms": first_byte,
        "last_ok": counts["last_ok"].isoformat() if counts["last_ok"] else None,
    }


def _distinct_reasons(whys: Iterable[str]) -> list[str]:
    """Each reason once; of reasons that differ in their number, such as `3 failures in a row`, the highest."""
    found: dict[str, tuple[int, str]] = {}
    for why in whys:
        number, _, words = why.partition(" ")
        key, count = (words, int(number)) if number.isdecimal() else (why, 0)
        if why:
            found[key] = max(found.get(key, (0, "")), (count, why))
    return sorted(why for _, why in found.values())


def _times(since: datetime, end: datetime) -> list[datetime]:
    return [since + timedelta(seconds=at) for at in range(0, int((end - since).total_seconds()), STEP_SECONDS)]


def _step(at: datetime, row: dict[str, Any] | None, times: Sequence[float | None]) -> dict[str, Any]:
    counts = {name: 0 if row is None else row[name] for name in ("calls", "ok", "refused", "failed")}
    return {"at": at.isoformat(), **counts, "p50_ms": times[0], "p95_ms": times[1]}


def _step_start(at: datetime) -> datetime:
    """The start of the step that contains `at`."""
    return at.replace(microsecond=0) - timedelta(seconds=at.second % STEP_SECONDS)
