"""What must hold between a workload's routing and the deployments that it may use."""

from __future__ import annotations

from collections.abc import Iterator

from groundplan.catalog.workload import WorkloadDoc
from groundplan.catalog.workspace import Workspace
from groundplan.core.errors import Problem


def routing_problems(workspace: Workspace, doc: WorkloadDoc) -> Iterator[Problem]:
    """Rules that name what they cannot use, and settings that mean nothing."""
    rule = doc.routing
    where = workspace.where("workload", doc.name, "routing")
    named = {*doc.deployments, *doc.fallbacks}
    for each in rule.rules:
        if each.use not in workspace.deployments:
            hint = f"Use one of: {', '.join(sorted(named or workspace.deployments))}."
            yield Problem(f"rule {each.name} uses {each.use}, which is no deployment", "route_unknown", hint, where)
        elif doc.deployments and each.use not in named:
            hint = f"Name {each.use} among the workload's deployments, or use another one."
            yield Problem(f"rule {each.name} uses {each.use}, which {doc.name} may not", "route_outside", hint, where)
        if not (each.words or each.longer or each.shorter or each.messages):
            hint = "Say when: words, longer, shorter or messages."
            yield Problem(f"rule {each.name} fits every call", "route_always", hint, where)
    if rule.by == "learned" and rule.router is None:
        hint = "Write `router: NAME@VERSION`, as `groundplan routing train` names it."
        yield Problem(f"workload {doc.name} routes by a learned router and names none", "route_router", hint, where)
    if doc.cache.semantic is not None and doc.cache.answers == "off":
        place = workspace.where("workload", doc.name, "cache")
        hint = "Write `answers: exact` beside it."
        yield Problem(f"workload {doc.name} matches by meaning and keeps no answers", "cache_semantic", hint, place)
