"""A re-plan: the observed calls are written into the declared files, and released like any other change.

What needs an approval becomes a pending change; nothing here approves anything.
"""

from __future__ import annotations

from difflib import unified_diff
from typing import Any

from psycopg import Connection

from groundplan.api import store
from groundplan.api.context import Services
from groundplan.api.placement import placing
from groundplan.api.served_blueprint import current_blueprint, workspace_at
from groundplan.catalog.edit import replace_traffic
from groundplan.core.errors import Conflict
from groundplan.placement.drift import Chart


def drifting_workloads(conn: Connection[Any], services: Services) -> list[Chart]:
    """Charts of workloads whose calls differ materially from the plan. Raises `Conflict` if there are none."""
    charts = placing.drift_charts(conn, current_blueprint(conn), services.clock.now())
    drifted = [chart for chart in charts if chart.figure == "calls_day" and chart.has_drifted]
    if not drifted:
        raise Conflict(
            "no workload has materially more or fewer calls than planned",
            code="replan_nothing",
            hint="`groundplan placement drift` shows plan and facts; any other drift needs a changed declaration.",
        )
    return drifted


def release_replan(conn: Connection[Any], services: Services, actor: str, reason: str) -> dict[str, Any]:
    """Release the declared files with the observed calls. Raises `Conflict`, and `Invalid` if today's rules refuse
    them."""
    drifted = drifting_workloads(conn, services)
    number = current_blueprint(conn).number
    files = dict(store.blueprint(conn, number)["sources"])
    calls = {chart.workload: chart.expected * chart.newest_factor for chart in drifted}
    written = replace_traffic(files, workspace_at(conn, number), calls)
    compared = placing.replan_comparison(placing.served_company_or_none(conn, services), drifted)
    released = services.releases.apply(conn, actor, written, reason)
    return {
        "calls_day": {name: round(value) for name, value in sorted(calls.items())},
        "released": released,
        "words": [] if compared is None else compared["words"],
        "flips": [] if compared is None else compared["flips"],
        "difference": "".join(_unified_diff(files, written)),
    }


def _unified_diff(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """The diff to apply to the workspace files, so that the next apply does not revert it."""
    return [
        line
        for name in sorted(before)
        for line in unified_diff(
            before[name].splitlines(keepends=True), after[name].splitlines(keepends=True), name, name, n=1
        )
    ]
