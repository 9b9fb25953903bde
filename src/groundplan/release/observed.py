"""Observations of the gateways that a placement plan uses: times of deployments, and load of workloads. Only reads.

The ledger is read only where a plan uses it: a release without a placement plan reads no facts.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from psycopg import Connection

from groundplan.catalog.workspace import Workspace
from groundplan.ledger import daily_store
from groundplan.placement.terms.curve import ObservedLoad, load_from_facts
from groundplan.placement.terms.from_workspace import ObservedFacts
from groundplan.release.compile.placing import Observations

TIMES_DAYS = 7
LOAD_DAYS = 28


def read_observations(
    conn: Connection[Any], workspace: Workspace, now: datetime, planned: bool = False
) -> Observations:
    """The observations for a workspace; with `planned` also where no workload asks for a plan."""
    planned = planned or any(item.placement.order == "planned" for item in workspace.workloads.values())
    named = [name for name, item in workspace.workloads.items() if item.placement.curve == "seen"]
    return Observations(_times(conn, now) if planned else {}, _loads(conn, now, named) if named else {})


def _times(conn: Connection[Any], now: datetime) -> dict[str, ObservedFacts]:
    rows = daily_store.deployment_times(conn, now - timedelta(days=TIMES_DAYS), now)
    return {
        row["deployment"]: ObservedFacts(row["first_token_ms"], row["per_token_ms"], row["availability"])
        for row in rows
    }


def _loads(conn: Connection[Any], now: datetime, workloads: list[str]) -> dict[str, ObservedLoad]:
    """Workload -> its observed load, over whole days, so that all plans of one day are alike."""
    until = now.replace(hour=0, minute=0, second=0, microsecond=0)
    calls: dict[str, dict[datetime, float]] = {}
    for row in daily_store.workload_hours(conn, until - timedelta(days=LOAD_DAYS), until, workloads):
        calls.setdefault(row["workload"], {})[row["hour"]] = row["calls"]
    found = {name: load_from_facts(each, until) for name, each in calls.items()}
    return {name: load for name, load in found.items() if load is not None}
