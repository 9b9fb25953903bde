"""The vocabulary of Cedar policies about calls: entities, actions and facts, derived from the blueprint. Pure.

Facts that change with the clock are listed in `TIMES`, so that decisions that depend on them are not cached.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from groundplan.blueprint.model import Blueprint, Deployment, Described, Workload
from groundplan.governance.model import SENSITIVITY_ORDER

SCHEMA = """
entity Group, Team, Application;
entity Person in [Group];
entity Workload in [Team] {
  stage: String, sensitivity: String, sensitivity_rank: Long, audience: String, pattern: String, effect: String,
  regimes: Set<String>, residency: Set<String>, purposes: Set<String>, sources: Set<String>, reviewed: Bool
};
action call appliesTo { principal: [Person, Application], resource: [Workload], context: {
  endpoint: String, model: String, provider: String, deployment: String, site: String, site_type: String,
  jurisdiction: String, terms_known: Bool, training: Bool, retention_days: Long, subprocessors: Set<String>,
  hour: Long, weekday: Long
} };
action use_tool appliesTo { principal: [Person, Application], resource: [Workload], context: {
  tool: String, server: String, dangerous: Bool, hour: Long, weekday: Long
} };
"""
"""`hour` is 0 to 23 and `weekday` 1 (Monday) to 7, both UTC."""
TIMES = frozenset({"hour", "weekday"})
CALL, USE_TOOL = ("Action", "call"), ("Action", "use_tool")
UNDECLARED_RETENTION_DAYS = 36_500
"""`retention_days` if the terms of a provider are not declared."""


def provider_of(deployment: Deployment) -> str:
    """The provider of a deployment: its API if that is a provider's own, else the first part of the model's name."""
    if deployment.api != "openai":
        return deployment.api
    return deployment.model.partition("/")[0]


def workload_facts(workload: Workload, described: Described) -> dict[str, Any]:
    """Attributes of `Workload::"name"`."""
    return {
        "stage": workload.stage,
        "sensitivity": workload.sensitivity,
        "sensitivity_rank": SENSITIVITY_ORDER.index(workload.sensitivity),
        "audience": workload.audience,
        "pattern": described.pattern,
        "effect": described.effect,
        "regimes": list(described.regimes),
        "residency": list(workload.residency),
        "purposes": list(workload.needs.purposes),
        "sources": list(workload.grounding.sources) if workload.grounding else [],
        "reviewed": workload.review is not None,
    }


def deployment_facts(blueprint: Blueprint, deployment: Deployment) -> dict[str, Any]:
    """Context of calls to a deployment, without `endpoint` and the time."""
    site = next((item for item in blueprint.sites if item.name == deployment.site), None)
    terms = deployment.terms
    return {
        "model": deployment.model,
        "provider": provider_of(deployment),
        "deployment": deployment.name,
        "site": deployment.site,
        "site_type": site.type if site else "",
        "jurisdiction": site.jurisdiction if site else "",
        "terms_known": terms is not None,
        "training": terms is None or terms.training,
        "retention_days": UNDECLARED_RETENTION_DAYS if terms is None else terms.retention_days,
        "subprocessors": [] if terms is None else list(terms.subprocessors),
    }


def time_facts(now: float) -> dict[str, int]:
    """Hour and weekday (UTC) of `now`, in seconds since the epoch."""
    at = datetime.fromtimestamp(now, UTC)
    return {"hour": at.hour, "weekday": at.isoweekday()}


def context_facts_read(body: Mapping[str, Any]) -> frozenset[str] | None:
    """Facts of the context that a policy (in Cedar's JSON form) reads; None if it uses the context as a whole."""
    found: set[str] = set()
    for condition in body.get("conditions", ()):
        if not _collect_context_facts(condition.get("body"), found):
            return None
    return frozenset(found)


def _collect_context_facts(node: Any, found: set[str]) -> bool:
    if isinstance(node, dict):
        if node == {"Var": "context"}:
            return False
        for op in (".", "has"):
            inner = node.get(op)
            if isinstance(inner, dict) and inner.get("left") == {"Var": "context"}:
                found.add(str(inner.get("attr")))
                return True
        return all(_collect_context_facts(value, found) for value in node.values())
    return all(_collect_context_facts(value, found) for value in node) if isinstance(node, list) else True


def named_groups(body: Any) -> Iterator[str]:
    """Names of `Group::"..."` anywhere in a policy."""
    return _named_entities(body, "Group")


def named_keys(body: Any) -> Iterator[str]:
    """Ids of keys, as `Application::"..."`, anywhere in a policy."""
    return _named_entities(body, "Application")


def _named_entities(body: Any, type: str) -> Iterator[str]:
    if isinstance(body, dict):
        if body.get("type") == type and isinstance(body.get("id"), str):
            yield body["id"]
        for value in body.values():
            yield from _named_entities(value, type)
    elif isinstance(body, list):
        for value in body:
            yield from _named_entities(value, type)
