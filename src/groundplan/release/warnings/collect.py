"""All warnings about declarations that do not do what their author expects: they have no effect, are too small for any
call, or make every call fail. Only warnings, since the rest can be served. Pure; `unknown_subjects` reads the database.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date

from groundplan.blueprint.model import Deployment, Placement
from groundplan.catalog import model as doc
from groundplan.catalog.workspace import Workspace
from groundplan.core.errors import Problem
from groundplan.placement import solve
from groundplan.release.compile import places, pricing, workloads
from groundplan.release.warnings import always_refused, limits, no_effect, reliability


def placed_warnings(
    workspace: Workspace, deployments: Sequence[Deployment], placements: Sequence[Placement]
) -> tuple[Problem, ...]:
    """Warnings about deployments, and about each served workload as it is placed."""
    placed = {each.workload: each for each in placements}
    found = [
        problem
        for name, item in workspace.workloads.items()
        if item.stage in doc.SERVED_STAGES and (placement := placed.get(name)) is not None
        for problem in workload_warnings(workspace, item, placement)
    ]
    return (*found, *limits.warnings(workspace, deployments, placements), *no_effect.deployment_warnings(workspace))


def workspace_warnings(workspace: Workspace, today: date) -> tuple[Problem, ...]:
    """As `placed_warnings`, for a workspace that has not been placed."""
    deployments, _ = places.compile_deployments(workspace, today, pricing.rates_with_successors)
    sites = {name: places.compile_site(item) for name, item in workspace.sites.items()}
    demands = (workloads.placement_demand(item) for item in workspace.workloads.values())
    return placed_warnings(
        workspace, deployments, [solve.place_workload(demand, deployments, sites) for demand in demands]
    )


def workload_warnings(workspace: Workspace, item: doc.WorkloadDoc, placement: Placement) -> Iterator[Problem]:
    """Warnings about one workload, except for limits and budgets that are too small for its calls."""
    yield from no_effect.workload_warnings(workspace, item)
    yield from always_refused.warnings(workspace, item)
    yield from reliability.warnings(workspace, item, placement)
