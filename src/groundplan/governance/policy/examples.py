"""Runs the examples of policies: one call or use of a tool each, ordinary except for what it states. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from groundplan.catalog.policies import PolicyDoc, PolicyExample
from groundplan.catalog.workspace import Workspace
from groundplan.core.errors import Invalid
from groundplan.governance.model import SENSITIVITY_ORDER
from groundplan.governance.policy import cedar
from groundplan.governance.policy.calls import BASE_PERMIT
from groundplan.governance.policy.declared import cedar_source

WORKLOAD: dict[str, Any] = {
    "stage": "production", "sensitivity": "internal", "sensitivity_rank": 1, "audience": "employees",
    "pattern": "other", "effect": "informs", "regimes": [], "residency": [], "purposes": [], "sources": [],
    "reviewed": False,
}  # fmt: skip
"""Facts of an ordinary workload; those of an ordinary call and tool use follow."""
CALL: dict[str, Any] = {
    "endpoint": "chat", "model": "acme/model", "provider": "acme", "deployment": "deployment", "site": "site",
    "site_type": "cloud", "jurisdiction": "EU", "terms_known": True, "training": False, "retention_days": 0,
    "subprocessors": [], "hour": 10, "weekday": 2,
}  # fmt: skip
TOOL: dict[str, Any] = {"tool": "", "server": "", "dangerous": False, "hour": 10, "weekday": 2}


@dataclass(frozen=True, slots=True)
class ExampleResult:
    """The decision on one example. `where`: its file and line."""

    policy: str
    example: str
    expected: str
    decided: str
    why: str
    where: str

    @property
    def is_correct(self) -> bool:
        return self.expected == self.decided


def run_examples(workspace: Workspace) -> Iterator[ExampleResult]:
    """Decide every example of every policy; policies must have passed `check`. Raises `Invalid` (`policy_fact`) if an
    example names an unknown fact."""
    for name, doc in workspace.policies.items():
        if not doc.examples:
            continue
        sources = [cedar_source(workspace, doc), *([] if doc.closed else [BASE_PERMIT])]
        rules = cedar.Ruleset.of(sources).full_slice()
        for number, example in enumerate(doc.examples):
            where = workspace.where("policy", name, "examples", number)
            yield _run_example(doc, number, example, rules, str(where))


def _run_example(doc: PolicyDoc, number: int, example: PolicyExample, rules: cedar.Slice, where: str) -> ExampleResult:
    attributes, context = _facts(example, where)
    person = {"type": "Person", "id": "somebody@example"} if example.groups else {"type": "Application", "id": "key"}
    workload = str(example.given.get("workload", "workload"))
    team = example.given.get("team")
    parents = [{"type": "Team", "id": team}] if team else []
    known = cedar.parse_entities(
        [
            {"uid": {"type": "Workload", "id": workload}, "attrs": attributes, "parents": parents},
            {"uid": person, "attrs": {}, "parents": [{"type": "Group", "id": group} for group in example.groups]},
        ]
    )
    request = {
        "principal": person,
        "action": {"type": "Action", "id": "call" if example.tool is None else "use_tool"},
        "resource": {"type": "Workload", "id": workload},
        "context": json.dumps(context),
    }
    verdict = rules.decide(request, known)
    why = ", ".join(verdict.errors) or ", ".join(rule.id for rule in verdict.rules) or verdict.code
    decided = "allowed" if verdict.allowed else "refused"
    return ExampleResult(doc.name, example.name or f"example {number + 1}", example.expect, decided, why, where)


def _facts(example: PolicyExample, where: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """(attributes of the workload, context)"""
    resource = dict(WORKLOAD)
    context = dict(CALL) if example.tool is None else {**TOOL, "tool": example.tool}
    for name, value in example.given.items():
        if name in ("workload", "team"):
            continue
        if name not in resource and name not in context:
            hint = f"There are: workload, team, {', '.join((*resource, *context))}."
            raise Invalid(f"there is no fact {name}", code="policy_fact", hint=hint, where=where)
        (resource if name in resource else context)[name] = value
    if resource["sensitivity"] in SENSITIVITY_ORDER:
        resource["sensitivity_rank"] = SENSITIVITY_ORDER.index(resource["sensitivity"])
    return resource, context
