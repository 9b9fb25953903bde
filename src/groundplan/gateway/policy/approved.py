"""Whether what a call uses in production is approved today: models, prompts, and sources for a purpose.

The approvals of a workload are determined at its first call under a policy; after that, a call compares one time. Parts
and approvals are governance's; a blueprint without anything in production has no `Approved` and costs its calls
nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from math import inf

from groundplan.blueprint.model import Blueprint, Deployment, Workload
from groundplan.core.clock import end_of_day
from groundplan.core.errors import Denied
from groundplan.gateway.policy.snapshot import Policy
from groundplan.governance.approved_parts import (
    NO_END,
    Lapse,
    LapseReason,
    Part,
    lapse_problem,
    price_band,
    valid_until,
    workload_parts,
)


@dataclass(frozen=True, slots=True)
class PartUse:
    """One part of a workload. From `until` (seconds since the epoch) on it may not be used, for the reason `why`."""

    part: Part
    until: float
    why: LapseReason


@dataclass(frozen=True, slots=True)
class WorkloadApprovals:
    """All parts of one workload, and when the first of their approvals ends."""

    workload: Workload
    first_end: float
    uses: tuple[PartUse, ...]


class Approved:
    """The approvals of one blueprint in one worker."""

    __slots__ = ("_approvals", "_band", "_kinds", "_parts", "_policy", "_workloads")

    def __init__(self, blueprint: Blueprint) -> None:
        self._kinds = frozenset(blueprint.approved_parts)
        self._band = price_band(blueprint)
        self._workloads = {item.name: item for item in blueprint.workloads if item.stage == "production"}
        self._parts = {name: workload_parts(blueprint, item) for name, item in self._workloads.items()}
        self._policy: Policy | None = None
        self._approvals: dict[str, WorkloadApprovals] = {}

    def check(self, policy: Policy, workload: str, now: float) -> None:
        """Raise if a workload depends on something that is not approved. `now`: seconds since the epoch.

        Raises `Denied` (`approval_missing`, `approval_withdrawn`, `approval_expired`, `approval_price`).
        """
        page = self._approvals.get(workload) if policy is self._policy else None
        if page is None and (page := self._determine(policy, workload)) is None:
            return
        if now < page.first_end:
            return
        for use in page.uses:
            if use.until <= now and not use.part.deployments:
                raise _approval_error(page, use)

    def usable(self, policy: Policy, workload: str, deployments: list[Deployment], now: float) -> list[Deployment]:
        """The deployments whose model is approved, in order. Raises `Denied` if there is none."""
        page = self._approvals.get(workload) if policy is self._policy else None
        if page is None and (page := self._determine(policy, workload)) is None:
            return deployments
        if now < page.first_end:
            return deployments
        return self._approved_deployments(page, deployments, now)

    def _approved_deployments(
        self, page: WorkloadApprovals, deployments: list[Deployment], now: float
    ) -> list[Deployment]:
        """The deployments whose approval has not ended. Raises `Denied` if there is none."""
        ended = [use for use in page.uses if use.until <= now]
        without = {name for use in ended for name in use.part.deployments}
        kept = [each for each in deployments if each.name not in without]
        if not kept and deployments:
            first = deployments[0].name
            raise _approval_error(page, next(use for use in ended if first in use.part.deployments))
        return kept

    def _determine(self, policy: Policy, name: str) -> WorkloadApprovals | None:
        """Determine the approvals of a workload under a policy; None if it is not in production. Of one workload at a
        time: every new key is another policy, and calls would wait while thousands of workloads are gone through."""
        if policy is not self._policy:
            self._policy, self._approvals = policy, {}
        workload = self._workloads.get(name)
        if workload is None:
            return None
        uses = tuple(self._use(policy, part) for part in self._parts[name])
        page = WorkloadApprovals(workload, min((use.until for use in uses), default=inf), uses)
        self._approvals[name] = page
        return page

    def _use(self, policy: Policy, part: Part) -> PartUse:
        last = valid_until(part, policy.parts, self._kinds, self._band)
        if not isinstance(last, date):
            return PartUse(part, 0.0, last)
        return PartUse(part, inf if last == NO_END else end_of_day(last).timestamp(), "expired")


def approved_of(blueprint: Blueprint) -> Approved | None:
    """The approvals to check; None if nothing is in production."""
    return Approved(blueprint) if any(item.stage == "production" for item in blueprint.workloads) else None


def _approval_error(page: WorkloadApprovals, use: PartUse) -> Denied:
    problem = lapse_problem(Lapse(use.part, use.why), page.workload.name, page.workload.owners)
    rule = f"approved-{use.part.kind}"
    return Denied(
        problem.message, code=problem.code, hint=problem.hint, details={"rule": rule, "part": use.part.subject}
    )
