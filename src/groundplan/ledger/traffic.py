"""Live traffic in the shapes of the control API: rates, errors and times of the last minutes, health of deployments."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from psycopg import Connection

from groundplan.core.money import format_usd, from_decimal
from groundplan.ledger import traffic_store as store

STEP_SECONDS = 10
PATIENCE_MS = 2000


def traffic(
    conn: Connection[Any],
    now: datetime,
    minutes: int,
    *,
    workload: str | None = None,
    deployment: str | None = None,
    status: str | None = None,
) -> dict[str, Any]:
    """`steps` of ten seconds up to now, none left out, and the whole of them. Raises psycopg's `QueryCanceled` where
    it takes too long."""
    end = now.replace(microsecond=0) - timedelta(seconds=now.second % STEP_SECONDS) + timedelta(seconds=STEP_SECONDS)
    since = end - timedelta(minutes=minutes)
    wanted = {"workload": workload, "deployment": deployment, "status": status}
    store.limit_time(conn, PATIENCE_MS)
    found = {row["at"]: row for row in store.steps(conn, since, STEP_SECONDS, wanted)}
    whole = store.whole(conn, since, wanted)
    asked = whole["calls"] - whole["refused"]
    return {
        "minutes": minutes,
        "step_s": STEP_SECONDS,
        "steps": [_step(at, found.get(at)) for at in _times(since, end)],
        "calls": whole["calls"],
        "refused": whole["refused"],
        "failed": whole["failed"],
        "per_minute": round(whole["calls"] / minutes, 2),
        "error_share": round(whole["failed"] / asked, 4) if asked else 0.0,
        "p50_ms": whole["p50_ms"],
        "p95_ms": whole["p95_ms"],
        "cost_usd": format_usd(from_decimal(whole["cost_usd"])),
    }


def deployments(
    conn: Connection[Any], now: datetime, minutes: int, names: Sequence[tuple[str, str]]
) -> list[dict[str, Any]]:
    """Each of the (deployment, site) with its attempts of the last minutes and how many workers have its breaker open.

    `state` is closed, half_open or open: the worst that any worker sees, and `why` what they say of it.
    """
    store.limit_time(conn, PATIENCE_MS)
    rows = {row["deployment"]: row for row in store.deployments(conn, now - timedelta(minutes=minutes))}
    workers = [row["health"] for row in store.breakers(conn)]
    return [
        _deployment(name, site, rows.get(name), [health.get(name, "closed") for health in workers])
        for name, site in names
    ]


def _deployment(name: str, site: str, row: dict[str, Any] | None, told: list[str]) -> dict[str, Any]:
    """`told` is what each worker says: a state, and why after a colon."""
    seen = [text.partition(":")[0] for text in told]
    worst = next((state for state in ("open", "half_open") if state in seen), "closed")
    whys = {text.partition(":")[2].strip() for text, state in zip(told, seen, strict=True) if state == worst}
    counts = row or {"attempts": 0, "ok": 0, "failed": 0, "first_byte_p95_ms": None, "last_ok": None}
    return {
        "name": name,
        "site": site,
        "state": worst if seen else "unknown",
        "why": "; ".join(sorted(whys - {""})),
        "workers_open": sum(state != "closed" for state in seen),
        "workers": len(seen),
        "attempts": counts["attempts"],
        "ok": counts["ok"],
        "failed": counts["failed"],
        "first_byte_p95_ms": counts["first_byte_p95_ms"],
        "last_ok": counts["last_ok"].isoformat() if counts["last_ok"] else None,
    }


def _times(since: datetime, end: datetime) -> list[datetime]:
    return [since + timedelta(seconds=at) for at in range(0, int((end - since).total_seconds()), STEP_SECONDS)]


def _step(at: datetime, row: dict[str, Any] | None) -> dict[str, Any]:
    empty = {"calls": 0, "ok": 0, "refused": 0, "failed": 0, "p50_ms": None, "p95_ms": None}
    found = empty if row is None else {name: row[name] for name in empty}
    return {"at": at.isoformat(), **found}
