"""What policies would have refused of calls that were made: the recorded calls decided once more. Pure.

A call is decided by the facts of the blueprint that is given and by who is in which group now; the record of a call
says who asked, and where it went.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from groundplan.blueprint.model import Blueprint, PolicyRules
from groundplan.governance.policy.calls import Asker, CallRules
from groundplan.governance.policy.cedar import Verdict

SHOWN = 50


@dataclass(frozen=True, slots=True)
class Made:
    """A recorded call. `person` is an e-mail address, empty where it was for nobody."""

    call: UUID
    at: datetime
    workload: str
    person: str
    key: str
    deployment: str
    endpoint: str
    count: int = 1
    """So many calls that are decided alike; this is the newest."""
    others: tuple[UUID, ...] = ()
    """The newest of those after it."""


@dataclass(slots=True)
class Trial:
    """What one policy would have done. `calls` are the newest that it would have refused."""

    policy: str
    enforced: bool
    looked_at: int = 0
    refused: int = 0
    by_workload: dict[str, int] = field(default_factory=dict)
    rules: dict[str, int] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)
    calls: list[Made] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return {
            "policy": self.policy,
            "enforced": self.enforced,
            "looked_at": self.looked_at,
            "would_refuse": self.refused,
            "by_workload": dict(sorted(self.by_workload.items())),
            "rules": dict(sorted(self.rules.items())),
            "errors": dict(sorted(self.errors.items())),
            "calls": [
                {
                    "call": str(each.call), "at": each.at.isoformat(), "workload": each.workload, "person": each.person,
                    "deployment": each.deployment, "endpoint": each.endpoint,
                }
                for each in self.calls
            ],
        }  # fmt: skip


def tried(
    blueprint: Blueprint,
    policies: Iterable[PolicyRules],
    calls: Iterable[Made],
    groups: Mapping[str, tuple[str, ...]],
) -> list[Trial]:
    """Each policy by itself against all calls, the newest first. `groups`: e-mail address -> names of groups.

    Calls of workloads and deployments that are no longer there are passed over.
    """
    every = list(calls)
    return [_tried(blueprint, policy, every, groups) for policy in policies]


def _tried(
    blueprint: Blueprint, policy: PolicyRules, calls: list[Made], groups: Mapping[str, tuple[str, ...]]
) -> Trial:
    rules = CallRules(blueprint, [policy])
    workloads = {item.name for item in blueprint.workloads}
    deployments = {item.name for item in blueprint.deployments}
    trial = Trial(policy.name, policy.enforced)
    known: dict[tuple[str, ...], Verdict] = {}
    for made in calls:
        if made.workload not in workloads or made.deployment not in deployments:
            continue
        trial.looked_at += made.count
        hour = made.at.strftime("%H%w") if rules.part(made.workload, deployment=made.deployment).timed else ""
        key = (made.workload, made.person or made.key, made.deployment, made.endpoint, hour)
        verdict = known.get(key)
        if verdict is None:
            asker = Asker("Application", made.key)
            if made.person:
                asker = Asker("Person", made.person, groups.get(made.person, ()))
            verdict = known[key] = rules.call(made.workload, asker, made.deployment, made.endpoint, made.at.timestamp())
        if not verdict.allowed:
            _count(trial, made, verdict)
    return trial


def _count(trial: Trial, made: Made, verdict: Verdict) -> None:
    trial.refused += made.count
    trial.by_workload[made.workload] = trial.by_workload.get(made.workload, 0) + made.count
    for rule in verdict.rules:
        trial.rules[rule.id] = trial.rules.get(rule.id, 0) + made.count
    for error in verdict.errors:
        trial.errors[error] = trial.errors.get(error, 0) + made.count
    if len(trial.calls) < SHOWN:
        trial.calls.append(made)
