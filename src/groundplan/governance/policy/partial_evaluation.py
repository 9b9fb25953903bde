"""Partial evaluation: finds policies that cannot matter for requests of which some facts are known, so that leaving
them out changes no decision.

A policy is left out only if Cedar itself would find it unmatched without an error: its scope does not fit, or the
first of its joined conditions is false by the known facts. Pure, over Cedar's JSON form of a policy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Uid = tuple[str, str]
"""(type, id) of an entity."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of every request that a slice will decide. None: not known, so nothing follows from it."""

    principal_types: frozenset[str] | None = None
    action: Uid | None = None
    actions_above: frozenset[Uid] | None = None
    """Ancestors of the action, without itself."""
    resource: Uid | None = None
    resources_above: frozenset[Uid] | None = None
    attributes: Mapping[str, str | int | bool] = field(default_factory=dict)
    """Attributes of the resource, only those with plain values."""
    context: Mapping[str, str | int | bool] = field(default_factory=dict)
    """Parts of the context that are the same in every such request."""


def may_match(policy: Mapping[str, Any], facts: Facts) -> bool:
    """Whether a policy may match, or fail, in a request of which `facts` hold."""
    return (
        _principal_may_match(policy.get("principal", {}), facts)
        and _entity_may_match(policy.get("action", {}), facts.action, facts.actions_above)
        and _entity_may_match(policy.get("resource", {}), facts.resource, facts.resources_above)
        and not any(_is_false(condition, facts) for condition in policy.get("conditions", ())[:1])
    )


def _principal_may_match(scope: Mapping[str, Any], facts: Facts) -> bool:
    types = facts.principal_types
    if types is None:
        return True
    if scope.get("op") == "==" and "entity" in scope:
        return _uid(scope["entity"])[0] in types
    if scope.get("op") == "is":
        return str(scope.get("entity_type")) in types
    return True


def _entity_may_match(scope: Mapping[str, Any], known: Uid | None, above: frozenset[Uid] | None) -> bool:
    if known is None:
        return True
    op = scope.get("op")
    if op == "is" and str(scope.get("entity_type")) != known[0]:
        return False
    if op == "==" and "entity" in scope:
        return _uid(scope["entity"]) == known
    inside = scope.get("in") if op == "is" else scope
    if inside is None or above is None or (op not in ("in", "is")):
        return True
    named = [inside["entity"]] if "entity" in inside else inside.get("entities")
    if named is None:
        return True
    return any((uid := _uid(each)) == known or uid in above for each in named)


def _uid(entity: Mapping[str, Any]) -> Uid:
    inner = entity.get("__entity", entity)
    return str(inner["type"]), str(inner["id"])


def _is_false(condition: Mapping[str, Any], facts: Facts) -> bool:
    """Whether a condition is certainly not met, and evaluating it cannot fail."""
    value = _boolean_value(condition.get("body", {}), facts)
    return value is not None and value is (condition.get("kind") == "unless")


def _boolean_value(expression: Any, facts: Facts) -> bool | None:
    """True or False if the known facts decide the expression as Cedar would; None otherwise."""
    if not isinstance(expression, dict) or len(expression) != 1:
        return None
    (op, body), *_ = expression.items()
    if op in ("&&", "||"):
        return _joined_value(op, body, facts)
    if op == "!":
        inner = _boolean_value(body.get("arg"), facts)
        return None if inner is None else not inner
    if op in ("==", "!="):
        if (same := _resource_equality(body, facts)) is not None:
            return same is (op == "==")
        left, right = _plain_value(body.get("left"), facts), _plain_value(body.get("right"), facts)
        if left is None or right is None:
            return None
        return (type(left) is type(right) and left == right) is (op == "==")
    if op in ("Value", "."):
        plain = _plain_value(expression, facts)
        return plain if isinstance(plain, bool) else None
    return None


def _resource_equality(body: Mapping[str, Any], facts: Facts) -> bool | None:
    """Value of `resource == Workload::"x"`; None for other expressions or if the resource is not known."""
    left, right = body.get("left"), body.get("right")
    if facts.resource is None or left != {"Var": "resource"} or not isinstance(right, dict):
        return None
    value = right.get("Value")
    return _uid(value) == facts.resource if isinstance(value, dict) and "__entity" in value else None


def _joined_value(op: str, body: Mapping[str, Any], facts: Facts) -> bool | None:
    """Value of `&&` or `||`. If the first operand is unknown its evaluation may fail, so the result is unknown, too."""
    left = _boolean_value(body.get("left"), facts)
    if left is None:
        return None
    if left is (op == "||"):
        return left
    return _boolean_value(body.get("right"), facts)


def _plain_value(expression: Any, facts: Facts) -> str | int | bool | None:
    if not isinstance(expression, dict) or len(expression) != 1:
        return None
    if "Value" in expression:
        value = expression["Value"]
        return value if isinstance(value, str | int | bool) else None
    inner = expression.get(".")
    if not isinstance(inner, dict) or not isinstance(inner.get("left"), dict):
        return None
    known = {"resource": facts.attributes, "context": facts.context}.get(inner["left"].get("Var", ""), {})
    return known.get(inner.get("attr", ""))
