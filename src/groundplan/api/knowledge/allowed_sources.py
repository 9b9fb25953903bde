"""Sources that a search on the console may use, by the rules of gateways: kill switches and missing approvals."""

from __future__ import annotations

from datetime import date
from typing import Any

from psycopg import Connection

from groundplan.api import store
from groundplan.blueprint.model import Blueprint, Workload
from groundplan.core.errors import Denied
from groundplan.governance import approved_parts
from groundplan.governance import service as governance


def usable_sources(conn: Connection[Any], blueprint: Blueprint, workload: Workload, today: date) -> list[str]:
    """The sources of a workload that are not stopped. Raises `Denied` if the workload itself may not run now."""
    stopped = {row["scope"] for row in store.kills(conn)}
    for scope in ("company", f"workload/{workload.name}"):
        if scope in stopped:
            raise Denied(
                f"{scope} is stopped", code="killed", hint=f"`groundplan why {scope}` says who stopped it, and why."
            )
    approvals = governance.approval_status(conn).parts
    for lapse in approved_parts.find_lapses(blueprint, workload, approvals, blueprint.approved_parts, today):
        if not lapse.part.deployments:  # a search calls no model
            problem = approved_parts.lapse_problem(lapse, workload.name, workload.owners)
            raise Denied(problem.message, code=problem.code, hint=problem.hint)
    sources = workload.grounding.sources if workload.grounding is not None else []
    return [name for name in sources if f"source/{name}" not in stopped]
