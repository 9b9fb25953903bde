"""The company's rules at admission: which of the deployments a call may go to. Decisions are cached while they hold.

A decision is cached for a policy number of one blueprint, by person or key, workload, endpoint and deployment; never if
a rule in it depends on the time. The rules themselves are governance's; a workload without any costs one comparison.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf

from groundplan.blueprint.model import Blueprint, Deployment
from groundplan.core.errors import Denied
from groundplan.gateway.policy.snapshot import KeyEntry, Policy, RuleException
from groundplan.governance.policy.calls import CallRules, Principal, Tool, strictest
from groundplan.governance.policy.cedar import Verdict, policy_denial
from groundplan.governance.policy.vocabulary import CALL, USE_TOOL

MAX_DECISIONS = 50_000
"""Cached decisions of one worker; beyond that, all are dropped."""


@dataclass(frozen=True, slots=True)
class CachedDecision:
    """A decision, and until when (seconds since the epoch) it holds."""

    verdict: Verdict
    until: float


@dataclass(frozen=True, slots=True)
class ToolUser:
    """Who uses a tool: for which workload, with which key, and on behalf of whom (empty: nobody)."""

    workload: str
    key: KeyEntry
    person: str


class Gate:
    """The rules of one blueprint in one worker."""

    __slots__ = ("_decisions", "_emails", "_policy", "rules")

    def __init__(self, rules: CallRules) -> None:
        self.rules = rules
        self._policy: Policy | None = None
        self._emails: dict[str, str] = {}
        self._decisions: dict[tuple[str, str, str, str], CachedDecision] = {}

    def allowed(
        self, policy: Policy, workload: str, key: KeyEntry, person: str, endpoint: str,
        deployments: Sequence[Deployment], now: float,
    ) -> list[Deployment]:  # fmt: skip
        """The deployments that no rule refuses, in order. Raises `Denied` if there is none."""
        if policy is not self._policy:
            self._reset(policy)
        who, decisions = person or key.id, self._decisions
        allowed: list[Deployment] = []
        refusal: Verdict | None = None
        for deployment in deployments:
            name = deployment.name
            decision = decisions.get((workload, who, endpoint, name))
            if decision is None or decision.until <= now:
                decision = self._decide(policy, workload, key, person, endpoint, name, now)
            if decision.verdict.allowed:
                allowed.append(deployment)
            elif refusal is None:
                refusal = decision.verdict
        if not allowed and refusal is not None:
            raise policy_error(refusal, workload)
        return allowed

    def decide_tool(self, policy: Policy, user: ToolUser, tool: Tool, now: float) -> Verdict:
        """Whether a tool may be used. Never cached."""
        if policy is not self._policy:
            self._reset(policy)
        principals = self._principals(policy, user.key, user.person)
        without, _ = self._active_exceptions(policy.exceptions, user.workload, principals[0], now)
        return strictest(
            self.rules.decide_tool_use(user.workload, principal, tool, now, without) for principal in principals
        )

    def has_tool_rules(self, workload: str) -> bool:
        """Whether any rule besides the default permit applies to the use of tools."""
        return len(self.rules.workload_rules(workload, USE_TOOL).slice.rules) != 1 or self.rules.closed

    def _reset(self, policy: Policy) -> None:
        """Drop all cached decisions, for another policy."""
        if self._policy is None or policy.people is not self._policy.people:
            self._emails = {person: email for email, person in policy.people.items()}
        self._policy = policy
        self._decisions.clear()

    def _decide(
        self, policy: Policy, workload: str, key: KeyEntry, person: str, endpoint: str, deployment: str, now: float
    ) -> CachedDecision:
        principals = self._principals(policy, key, person)
        without, until = self._active_exceptions(policy.exceptions, workload, principals[0], now)
        verdict = strictest(
            self.rules.decide_call(workload, principal, deployment, endpoint, now, without) for principal in principals
        )
        if self.rules.workload_rules(workload, CALL, without, deployment).is_time_dependent:
            return CachedDecision(verdict, now)
        if len(self._decisions) >= MAX_DECISIONS:
            self._decisions.clear()
        decision = self._decisions[workload, person or key.id, endpoint, deployment] = CachedDecision(verdict, until)
        return decision

    def _principals(self, policy: Policy, key: KeyEntry, person: str) -> list[Principal]:
        """The principals as which a call is decided; several only of a key of whose line rules name several."""
        if not person:
            return self.rules.application_principals(key.id, key.line)
        groups = tuple(name for name in self.rules.groups if person in policy.members.get(name, ()))
        return [Principal("Person", self._emails.get(person, person), groups)]

    def _active_exceptions(
        self, exceptions: Iterable[RuleException], workload: str, principal: Principal, now: float
    ) -> tuple[frozenset[str], float]:
        """Rules that do not apply to this principal now, and until when that is so."""
        found: set[str] = set()
        until = inf
        for each in exceptions:
            if each.workload != workload or each.person not in ("", principal.id) or each.until <= now:
                continue
            found.add(each.rule)
            until = min(until, each.until)
        return frozenset(found), until


def policy_error(verdict: Verdict, workload: str) -> Denied:
    """The error for the caller."""
    return policy_denial(verdict, f"this call of {workload}")


def gate_of(blueprint: Blueprint) -> Gate | None:
    """The rules to check; None if no rule of the blueprint is enforced."""
    if not any(item.enforced for item in blueprint.policies):
        return None
    return Gate(CallRules(blueprint))
