"""Compiles the routing of model `auto`, and the semantic cache, of a workload. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence

from groundplan.blueprint import model as bp
from groundplan.catalog import model as doc
from groundplan.catalog.risk import LEVELS
from groundplan.catalog.routing import RoutingRule
from groundplan.catalog.workspace import Workspace


def compile_routing(workspace: Workspace, item: doc.WorkloadDoc, names: Sequence[str]) -> bp.Routing | None:
    """The routing of a workload; None where the order of placement applies and no floor excludes a deployment.
    `names`: the deployments that may serve it."""
    rule = item.routing
    barred, quality = _barred_and_scores(workspace, item, names)
    if not (barred or has_routing_rules(item)):
        return None
    return bp.Routing(
        rules=[
            bp.RouteRule(
                name=each.name,
                use=each.use,
                words=list(each.words),
                longer=each.longer,
                shorter=each.shorter,
                messages=each.messages,
            )
            for each in (rule.rules if rule.by != "order" else ())
        ],
        router=rule.router if rule.by == "learned" else None,
        digest=rule.digest if rule.by == "learned" else None,
        keep=rule.keep,
        floor=rule.floor,
        sticky=bool(rule.sticky),
        priced=rule.sticky == "priced",
        cascade=_compile_cascade(item),
        barred=barred,
        quality=quality if _needs_scores(rule) else {},
        within_ms=rule.within,
        second=rule.second,
    )


def has_routing_rules(item: doc.WorkloadDoc) -> bool:
    """Whether anything but the order of placement chooses the deployment of a call for model `auto`."""
    rule = item.routing
    return rule.by != "order" or rule.cascade is not None or rule.within is not None or rule.risk is not None


def _needs_scores(rule: RoutingRule) -> bool:
    """Whether the routing uses more than rules and a router: only then are declared scores in the blueprint, so that
    approvals of earlier declarations stay valid."""
    return bool(rule.cascade or rule.within or rule.risk or rule.second or rule.sticky == "priced" or rule.digest)


def _barred_and_scores(
    workspace: Workspace, item: doc.WorkloadDoc, names: Sequence[str]
) -> tuple[dict[str, str], dict[str, dict[str, float]]]:
    """(deployment -> why it is barred from calls, deployment -> dimension -> declared score).

    A score below the workload's floor in any dimension bars a deployment; an undeclared score does not. A ceiling of
    risk bars deployments whose model is above it or not assessed.
    """
    barred: dict[str, str] = {}
    quality: dict[str, dict[str, float]] = {}
    floors, ceiling = item.objectives.quality, item.routing.risk
    for name in sorted(set(names) & set(workspace.deployments)):
        model = workspace.models.get(workspace.deployments[name].model)
        scores = {} if model is None else {each.task: each.score for each in model.quality if each.task in floors}
        if scores:
            quality[name] = dict(sorted(scores.items()))
        low = next((task for task, score in sorted(scores.items()) if score < floors[task]), None)
        risk = None if model is None else model.risk
        if low is not None:
            barred[name] = f"its {low} is {scores[low]:.0%}, below the floor of {floors[low]:.0%}"
        elif ceiling is not None and risk is None:
            barred[name] = f"the risk of its model is not assessed, and must be {ceiling} at most"
        elif ceiling is not None and risk is not None and LEVELS.index(risk) > LEVELS.index(ceiling):
            barred[name] = f"the risk of its model is {risk}, above {ceiling}"
    return barred, quality


def _compile_cascade(item: doc.WorkloadDoc) -> bp.Cascade | None:
    rule = item.routing.cascade
    if rule is None:
        return None
    checks, judge = rule.checks, rule.checks.judge
    schema = item.guardrails.output.schema_ if item.guardrails is not None and checks.schema_ else None
    return bp.Cascade(
        first=rule.first,
        schema=None if schema is None else json.dumps(schema, sort_keys=True),
        grounded=checks.grounded,
        confidence=checks.confidence,
        agreement=checks.agreement,
        judge=None
        if judge is None
        else bp.Judge(
            deployment=judge.deployment,
            question=judge.question,
            refuse_on="no" if judge.passes_on == "yes" else "yes",
        ),
        give=rule.otherwise == "give",
    )


def compile_semantic(rule: doc.CacheRule) -> bp.Semantic | None:
    """The semantic cache; None where only identical requests are answered from the cache."""
    found = rule.semantic
    if found is None:
        return None
    return bp.Semantic(
        bound=found.wrong_at_most,
        check=found.check,
        evidence=found.evidence,
        wrong_cost=found.wrong_costs,
        hour=found.processor,
    )
