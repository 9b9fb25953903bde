"""What a workload declares about model `auto` and about answers by meaning, as gateways read it. Pure."""

from __future__ import annotations

from groundplan.blueprint import model as bp
from groundplan.catalog import model as doc


def routing(item: doc.WorkloadDoc) -> bp.Routing | None:
    """None where the order of placement holds."""
    rule = item.routing
    if rule.by == "order":
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
            for each in rule.rules
        ],
        router=rule.router if rule.by == "learned" else None,
        keep=rule.keep,
        floor=rule.floor,
        sticky=rule.sticky,
    )


def semantic(rule: doc.CacheRule) -> bp.Semantic | None:
    """None where only the same request gets the same answer."""
    found = rule.semantic
    if found is None:
        return None
    return bp.Semantic(bound=found.wrong_at_most, check=found.check, evidence=found.evidence)
