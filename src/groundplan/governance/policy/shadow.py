"""Finds which recorded calls policies would have refused, by deciding them again. Pure.

Facts of workloads and deployments are those of the given blueprint, and groups those of today; the record of a call has
its caller and its deployment.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from groundplan.blueprint.model import Blueprint, PolicyRules
from groundplan.governance.policy.calls import CallRules, Principal, strictest
from groundplan.governance.policy.cedar import Verdict

SHOWN = 50


@dataclass(frozen=True, slots=True)
class RecordedCall:
    """A recorded call. `person`: e-mail address, empty if the call was for no person."""

    call: UUID
    at: datetime
    workload: str
    person: str
    key: str
    deployment: str
    endpoint: str
    count: int = 1
    """Number of calls that every policy decides alike, of which this is the newest."""
    others: tuple[UUID, ...] = ()
    """The next newest of them."""


@dataclass(slots=True)
class Trial:
    """What one policy would have refused. `calls`: the newest of them."""

    policy: str
    enforced: bool
    looked_at: int = 0
    refused: int = 0
    by_workload: dict[str, int] = field(default_factory=dict)
    rules: dict[str, int] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)
    calls: list[RecordedCall] = field(default_factory=list)

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


def try_policies(
    blueprint: Blueprint,
    policies: Iterable[PolicyRules],
    calls: Iterable[RecordedCall],
    groups: Mapping[str, tuple[str, ...]],
    lines: Mapping[str, Collection[str]],
) -> list[Trial]:
    """Decide all calls, newest first, by each policy alone. `groups`: e-mail address -> names of groups. `lines`: key
    -> those keys of its line of rotations that the policies name.

    Calls of workloads and deployments that no longer exist are skipped.
    """
    every = list(calls)
    return [_try_policy(blueprint, policy, every, groups, lines) for policy in policies]


def _try_policy(
    blueprint: Blueprint,
    policy: PolicyRules,
    calls: list[RecordedCall],
    groups: Mapping[str, tuple[str, ...]],
    lines: Mapping[str, Collection[str]],
) -> Trial:
    rules = CallRules(blueprint, [policy])
    workloads = {item.name for item in blueprint.workloads}
    deployments = {item.name for item in blueprint.deployments}
    trial = Trial(policy.name, policy.enforced)
    known: dict[tuple[str, ...], Verdict] = {}
    for call in calls:
        if call.workload not in workloads or call.deployment not in deployments:
            continue
        trial.looked_at += call.count
        hour = (
            call.at.strftime("%H%w")
            if rules.workload_rules(call.workload, deployment=call.deployment).is_time_dependent
            else ""
        )
        key = (call.workload, call.person or call.key, call.deployment, call.endpoint, hour)
        verdict = known.get(key)
        if verdict is None:
            principals = rules.application_principals(call.key, lines.get(call.key, ()))
            if call.person:
                principals = [Principal("Person", call.person, groups.get(call.person, ()))]
            verdict = known[key] = strictest(
                rules.decide_call(call.workload, principal, call.deployment, call.endpoint, call.at.timestamp())
                for principal in principals
            )
        if not verdict.allowed:
            _add_refusal(trial, call, verdict)
    return trial


def _add_refusal(trial: Trial, call: RecordedCall, verdict: Verdict) -> None:
    trial.refused += call.count
    trial.by_workload[call.workload] = trial.by_workload.get(call.workload, 0) + call.count
    for rule in verdict.rules:
        trial.rules[rule.id] = trial.rules.get(rule.id, 0) + call.count
    for error in verdict.errors:
        trial.errors[error] = trial.errors.get(error, 0) + call.count
    if len(trial.calls) < SHOWN:
        trial.calls.append(call)
