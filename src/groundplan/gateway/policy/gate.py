"""The company's rules at admission: which of the deployments a call may go to. Decisions are kept while they hold.

A decision is kept for a policy number of one blueprint, by who asks, where from and where to; never where a rule in it
looks at the time. Rules themselves are governance's; a workload without any costs one comparison.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf

from groundplan.blueprint.model import Blueprint, Deployment
from groundplan.core.errors import Denied
from groundplan.gateway.policy.snapshot import Excepted, KeyEntry, Policy
from groundplan.governance.policy.calls import Asker, CallRules, Tool
from groundplan.governance.policy.cedar import Verdict, denied
from groundplan.governance.policy.vocabulary import CALL, USE_TOOL

KEPT = 50_000
"""Decisions of one worker; beyond that all are forgotten at once."""


@dataclass(frozen=True, slots=True)
class Held:
    """A decision, and until when (seconds since the epoch) it stands."""

    verdict: Verdict
    until: float


@dataclass(frozen=True, slots=True)
class Whose:
    """Who uses a tool: for which workload, with which key, and for whom (empty: nobody)."""

    workload: str
    key: KeyEntry
    person: str


class Gate:
    """The rules of one blueprint in one worker."""

    __slots__ = ("_emails", "_held", "_policy", "rules")

    def __init__(self, rules: CallRules) -> None:
        self.rules = rules
        self._policy: Policy | None = None
        self._emails: dict[str, str] = {}
        self._held: dict[tuple[str, str, str, str], Held] = {}

    def allowed(
        self, policy: Policy, workload: str, key: KeyEntry, person: str, endpoint: str,
        deployments: Sequence[Deployment], now: float,
    ) -> list[Deployment]:  # fmt: skip
        """Those deployments that no rule refuses, in order. Raises `Denied` where there is none."""
        if policy is not self._policy:
            self._renew(policy)
        who, held = person or key.id, self._held
        kept: list[Deployment] = []
        refusal: Verdict | None = None
        for deployment in deployments:
            name = deployment.name
            found = held.get((workload, who, endpoint, name))
            if found is None or found.until <= now:
                found = self._decide(policy, workload, key, person, endpoint, name, now)
            if found.verdict.allowed:
                kept.append(deployment)
            elif refusal is None:
                refusal = found.verdict
        if not kept and refusal is not None:
            raise refused(refusal, workload)
        return kept

    def tool(self, policy: Policy, whose: Whose, tool: Tool, now: float) -> Verdict:
        """Whether a tool may be used. Never kept."""
        if policy is not self._policy:
            self._renew(policy)
        asker = self._asker(policy, whose.key, whose.person)
        without, _ = self._excepted(policy.exceptions, whose.workload, asker, now)
        return self.rules.tool(whose.workload, asker, tool, now, without)

    def about_tools(self, workload: str) -> bool:
        """Whether any rule but the ordinary permit has a say in the use of tools."""
        return len(self.rules.part(workload, USE_TOOL).slice.rules) != 1 or self.rules.closed

    def _renew(self, policy: Policy) -> None:
        """Another policy: nothing that was decided before is kept."""
        if self._policy is None or policy.people is not self._policy.people:
            self._emails = {person: email for email, person in policy.people.items()}
        self._policy = policy
        self._held.clear()

    def _decide(
        self, policy: Policy, workload: str, key: KeyEntry, person: str, endpoint: str, deployment: str, now: float
    ) -> Held:
        asker = self._asker(policy, key, person)
        without, until = self._excepted(policy.exceptions, workload, asker, now)
        verdict = self.rules.call(workload, asker, deployment, endpoint, now, without)
        if self.rules.part(workload, CALL, without, deployment).timed:
            return Held(verdict, now)
        if len(self._held) >= KEPT:
            self._held.clear()
        made = self._held[workload, person or key.id, endpoint, deployment] = Held(verdict, until)
        return made

    def _asker(self, policy: Policy, key: KeyEntry, person: str) -> Asker:
        if not person:
            return Asker("Application", key.id)
        groups = tuple(name for name in self.rules.groups if person in policy.members.get(name, ()))
        return Asker("Person", self._emails.get(person, person), groups)

    def _excepted(
        self, exceptions: Iterable[Excepted], workload: str, asker: Asker, now: float
    ) -> tuple[frozenset[str], float]:
        """Rules from which this one is excepted now, and until when that is so."""
        found: set[str] = set()
        until = inf
        for each in exceptions:
            if each.workload != workload or each.person not in ("", asker.id) or each.until <= now:
                continue
            found.add(each.rule)
            until = min(until, each.until)
        return frozenset(found), until


def refused(verdict: Verdict, workload: str) -> Denied:
    """What the caller is told."""
    return denied(verdict, f"this call of {workload}")


def gate_of(blueprint: Blueprint) -> Gate | None:
    """None where the blueprint has no rule that is enforced."""
    if not any(item.enforced for item in blueprint.policies):
        return None
    return Gate(CallRules(blueprint))
