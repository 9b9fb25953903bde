"""Live traffic in the shapes of the control API: rates, errors and times of the last minutes, health of deployments."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from psycopg import Connection

from groundplan.core.money import format_numeric
from groundplan.ledger import traffic_store as store

STEP_SECONDS = int(store.STEP.total_seconds())
PATIENCE_MS = 2000
MANY_AT_ONCE = 600
"""Calls of a minute of which not each one is counted."""
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
    """`steps` of ten seconds up to now, none left out, and the whole of them. Percentiles are of a sample (`sampled`)
    where there are many calls. Raises psycopg's `QueryCanceled` where it takes too long."""
    end = _step_of(now) + store.STEP
    since = end - timedelta(minutes=minutes)
    wanted = {"workload": workload, "deployment": deployment, "status": status}
    store.limit_time(conn, PATIENCE_MS)
    found = {row["at"]: row for row in store.steps(conn, since, wanted)}
    sums = {name: sum(row[name] for row in found.values()) for name in ("every", "calls", "refused", "failed")}
    sampled = sums["every"] > store.MANY
    answered = {at: row["ok"] for at, row in found.items() if row["ok"]}
    times = store.sampled_times(conn, since, end, wanted, answered) if sampled else store.times(conn, since, wanted)
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


def calls_a_minute(conn: Connection[Any], now: datetime) -> dict[str, float]:
    """workload -> calls that were not refused: those of the last minute; where there are many, those of six whole steps
    up to a second ago, since the newest calls are still on their way."""
    until = _step_of(now - _ARRIVING)
    rows = store.calls_by_workload(conn, until - _MINUTE, until)
    if sum(row["every"] for row in rows) <= MANY_AT_ONCE:
        rows = store.newest_calls(conn, now - _MINUTE, now + _MINUTE)
    return {row["workload"]: float(row["calls"]) for row in rows if row["calls"]}


def failing_sites(conn: Connection[Any], since: datetime) -> frozenset[str]:
    """Sites where the newest attempt since then failed at each deployment that was asked."""
    return frozenset(store.failing_sites(conn, since))


def answering_sites(conn: Connection[Any], workloads: Sequence[str], since: datetime) -> dict[str, str]:
    """workload -> the site that answered it last since then."""
    return {row["workload"]: row["site"] for row in store.answering_sites(conn, workloads, since)}


def deployments(
    conn: Connection[Any], now: datetime, minutes: int, names: Sequence[tuple[str, str]]
) -> list[dict[str, Any]]:
    """Each of the (deployment, site) with its attempts of the last minutes and how many workers have its breaker open.

    `state` is closed, half_open or open: the worst that any worker sees, and `why` what they say of it.
    """
    store.limit_time(conn, PATIENCE_MS)
    since = now - timedelta(minutes=minutes)
    rows = {row["deployment"]: row for row in store.deployments(conn, since)}
    many = sum(row["attempts"] for row in rows.values()) > store.MANY
    firsts = store.first_bytes(conn, since, now, sampled=many)
    workers = [row["health"] for row in store.breakers(conn)]
    return [
        _deployment(name, site, rows.get(name), firsts.get(name), [health.get(name, "closed") for health in workers])
        for name, site in names
    ]


def _deployment(
    name: str, site: str, row: dict[str, Any] | None, first_byte: float | None, told: list[str]
) -> dict[str, Any]:
    """`told` is what each worker says: a state, and why after a colon."""
    seen = [text.partition(":")[0] for text in told]
    worst = next((state for state in ("open", "half_open") if state in seen), "closed")
    whys = (text.partition(":")[2].strip() for text, state in zip(told, seen, strict=True) if state == worst)
    counts = row or {"attempts": 0, "ok": 0, "failed": 0, "last_ok": None}
    return {
        "name": name,
        "site": site,
        "state": worst if seen else "unknown",
        "why": "; ".join(_worst(whys)),
        "workers_open": sum(state != "closed" for state in seen),
        "workers": len(seen),
        "attempts": counts["attempts"],
        "ok": counts["ok"],
        "failed": counts["failed"],
        "first_byte_p95_ms": first_byte,
        "last_ok": counts["last_ok"].isoformat() if counts["last_ok"] else None,
    }


def _worst(whys: Iterable[str]) -> list[str]:
    """Each reason once: of `3 failures in a row` of several workers that of the highest number."""
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


def _step_of(at: datetime) -> datetime:
    """When the step began that it is in."""
    return at.replace(microsecond=0) - timedelta(seconds=at.second % STEP_SECONDS)
