"""Background check: findings on learned routers whose expectations drift from the results. A finding names workload,
router and model, and closes when it no longer holds, or another version is in use.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from psycopg import Connection

from groundplan.api import served_blueprint
from groundplan.api.context import Services
from groundplan.economics.routing.watch.drift import Drift, Verdict, find_drift
from groundplan.ledger import finding_store, route_store
from groundplan.ledger.finding import Finding

KIND = "cost.router_drift"
LOOK_SECONDS = 600.0
HISTORY = timedelta(days=14)
_HIGH_DRIFT = 0.15


def update_findings(services: Services) -> finding_store.FindingChanges:
    """Open findings on routers that drift, and close those that no longer hold."""
    with services.transaction() as conn:
        return update_drift_findings(conn, services.clock.now())


def update_drift_findings(conn: Connection[Any], now: datetime) -> finding_store.FindingChanges:
    """As `update_findings`, in the caller's transaction."""
    routers_in_use = _routers_in_use(conn)
    verdicts_by_router: dict[tuple[str, str], list[Verdict]] = {}
    for row in route_store.router_outcomes(conn, now - HISTORY):
        key = row["workload"], row["router"]
        if routers_in_use is None or routers_in_use.get(row["workload"]) == row["router"]:
            verdict = Verdict(row["model"], float(row["expected"]), float(row["accepted"]))
            verdicts_by_router.setdefault(key, []).append(verdict)
    findings = [
        _finding(workload, router, drift)
        for (workload, router), verdicts in sorted(verdicts_by_router.items())
        for drift in find_drift(verdicts)
    ]
    return finding_store.replace_findings(conn, findings, kinds=[KIND], within="workload/")


def _routers_in_use(conn: Connection[Any]) -> dict[str, str] | None:
    """workload -> the router that it uses now; None: nothing is served."""
    blueprint = served_blueprint.current_or_none(conn)
    if blueprint is None:
        return None
    return {w.name: w.routing.router for w in blueprint.workloads if w.routing is not None and w.routing.router}


def _finding(workload: str, router: str, drift: Drift) -> Finding:
    direction = "worse" if drift.difference < 0 else "better"
    of = f" of those of which it expects {drift.half}" if drift.half else ""
    return Finding(
        kind=KIND,
        subject=f"workload/{workload}",
        mark=f"{router} {drift.model}",
        severity="high" if drift.difference < -_HIGH_DRIFT else "medium",
        message=(
            f"Answers of {drift.model} in {workload} are {direction} than {router} expects: "
            f"{drift.seen:.0%} were accepted of {drift.calls} calls{of}, {drift.expected:.0%} were expected."
        ),
        hint=(
            f"Train it again with newer answers (`groundplan routing train`), or go back to the previous version; "
            f"`groundplan routing evaluate SET.jsonl --router {router}` with prompts it was not trained on tells more."
        ),
        detail={
            "router": router,
            "model": drift.model,
            "half": drift.half,
            "calls": drift.calls,
            "expected": round(drift.expected, 4),
            "seen": round(drift.seen, 4),
            "error": round(drift.error, 4),
        },
    )
