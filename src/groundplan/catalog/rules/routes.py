"""Rules for a workload's routing and the deployments that it names."""

from __future__ import annotations

from collections.abc import Iterator

from groundplan.catalog.workload import WorkloadDoc
from groundplan.catalog.workspace import Workspace
from groundplan.core.errors import Problem

_LEARNED_SETTINGS = frozenset({"router", "digest", "keep", "floor", "sticky", "second"})
"""Settings that only a learned router uses."""
_UNUSED_SETTINGS = {"order": _LEARNED_SETTINGS | {"rules"}, "rules": _LEARNED_SETTINGS, "learned": frozenset[str]()}


def routing_problems(workspace: Workspace, doc: WorkloadDoc) -> Iterator[Problem]:
    """Routing rules that name unusable deployments, and settings without effect."""
    rule = doc.routing
    where = workspace.where("workload", doc.name, "routing")
    usable = {*doc.deployments, *doc.fallbacks}
    for route in rule.rules:
        if route.use not in workspace.deployments:
            hint = f"Use one of: {', '.join(sorted(usable or workspace.deployments))}."
            yield Problem(f"rule {route.name} uses {route.use}, which is no deployment", "route_unknown", hint, where)
        elif doc.deployments and route.use not in usable:
            hint = f"Name {route.use} among the workload's deployments, or use another one."
            yield Problem(f"rule {route.name} uses {route.use}, which {doc.name} may not", "route_outside", hint, where)
        if not (route.words or route.longer or route.shorter or route.messages):
            hint = "Say when: words, longer, shorter or messages."
            yield Problem(f"rule {route.name} fits every call", "route_always", hint, where)
    for name in sorted(_UNUSED_SETTINGS[rule.by] & rule.model_fields_set):
        hint = f"Leave it out, or write `by: {'rules' if name == 'rules' else 'learned'}`."
        yield Problem(f"`{name}` of {doc.name} has no effect with `by: {rule.by}`", "route_unused", hint, where)
    yield from _cascade_problems(workspace, doc, usable)
    if rule.by == "learned" and rule.router is None:
        hint = "Write `router: NAME@VERSION`, as `groundplan routing train` names it."
        yield Problem(f"workload {doc.name} routes by a learned router and names none", "route_router", hint, where)
    if doc.cache.semantic is not None and doc.cache.answers == "off":
        cache_where = workspace.where("workload", doc.name, "cache")
        hint = "Write `answers: exact` beside it."
        yield Problem(
            f"workload {doc.name} matches by meaning and keeps no answers", "cache_semantic", hint, cache_where
        )


def _cascade_problems(workspace: Workspace, doc: WorkloadDoc, usable: set[str]) -> Iterator[Problem]:
    """A cascade that cannot work or that checks nothing."""
    rule = doc.routing.cascade
    if rule is None:
        return
    where = workspace.where("workload", doc.name, "routing")
    checks = rule.checks
    for verb, name in (("tries", rule.first), ("is judged by", checks.judge.deployment if checks.judge else None)):
        if name is None:
            continue
        if name not in workspace.deployments:
            hint = f"Use one of: {', '.join(sorted(usable or workspace.deployments))}."
            yield Problem(f"the cascade of {doc.name} {verb} {name}, which is no deployment", "route_unknown", hint,
                          where)  # fmt: skip
        elif doc.deployments and name not in usable:
            hint = f"Name {name} among the workload's deployments, or use another one."
            yield Problem(
                f"the cascade of {doc.name} {verb} {name}, which it may not use", "route_outside", hint, where
            )
    if not checks.any:
        hint = "Name a check: schema, grounded, confidence, agreement or judge."
        yield Problem(f"the cascade of {doc.name} checks nothing", "cascade_unchecked", hint, where)
    output = doc.guardrails.output if doc.guardrails is not None else None
    if checks.schema_ and (output is None or output.schema_ is None):
        hint = "Declare `guardrails: {output: {schema: ...}}`, or leave the check out."
        yield Problem(f"the cascade of {doc.name} checks a schema that is not declared", "cascade_schema", hint, where)
    if checks.grounded and not doc.sources:
        hint = "Name its sources, or leave the check out."
        yield Problem(f"the cascade of {doc.name} checks passages, and it has no sources", "cascade_sources", hint,
                      where)  # fmt: skip
    if doc.deployments and usable == {rule.first}:
        hint = "Name a stronger deployment beside it."
        yield Problem(f"the cascade of {doc.name} has nobody to go on to", "cascade_alone", hint, where)
