"""Any sequence of declaring, approving and withdrawing: nothing in production is served without its approval."""

from __future__ import annotations

from datetime import date, timedelta
from functools import cache

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from msgspec.structs import replace

from groundplan.blueprint.artifact import decode, encode
from groundplan.blueprint.model import Blueprint
from groundplan.catalog.loader import load_files
from groundplan.catalog.model import DUTIES
from groundplan.catalog.workspace import Workspace
from groundplan.governance.approved_parts import workload_parts
from groundplan.governance.model import ApprovalStatus, GrantedApproval
from groundplan.placement.solve import verify_blueprint
from groundplan.release import units
from groundplan.release.model import Current, Plan
from groundplan.release.plan import plan, without_workload

OWNERS = ", ".join(f"{duty}: ana@acme.example" for duty in DUTIES)
START = date(2026, 11, 25)


@cache
def workspace(stage: str, limit: int, shared: int, people: int, url: str) -> Workspace:
    """A company with one steady pilot and one workload that changes; both use one deployment."""
    text = f"""\
kind: company
name: acme
---
kind: site
name: rack
type: private
jurisdiction: EU
---
kind: deployment
name: own
site: rack
model: acme/own
url: http://127.0.0.1:{url}/v1
price: free
---
kind: workload
name: steady
purpose: Answer
stage: pilot
owners: {{business: ana@acme.example}}
---
kind: workload
name: support
purpose: Answer customers
stage: {stage}
limits: {{people: {people}}}
owners: {{{OWNERS}}}
---
kind: budget
name: steady
covers: workload/steady
limit: 10 USD/month
---
kind: budget
name: support
covers: workload/support
limit: {limit} USD/month
---
kind: budget
name: company
covers: company
limit: {shared} USD/month
"""
    return load_files({"a.yaml": text})


workspaces = st.builds(
    workspace,
    st.sampled_from(["proposed", "pilot", "production", "production", "retired"]),
    st.sampled_from([10, 20]),
    st.sampled_from([100, 200]),
    st.sampled_from([5, 25, 26]),
    st.sampled_from(["8000", "9000"]),
)


@cache
def parts() -> dict[str, GrantedApproval]:
    """Approvals of all models that these use, without which nothing is in production whatever else is approved."""
    made = [plan(workspace("pilot", 10, 100, 5, url), None, today=START).blueprint for url in ("8000", "9000")]
    return {
        part.digest: GrantedApproval(date.max, date.max)
        for blueprint in made
        if blueprint is not None
        for workload in blueprint.workloads
        for part in workload_parts(blueprint, replace(workload, stage="production"))
    }


class Releases(RuleBasedStateMachine):
    """The state that the service keeps in the database, in memory; every step is a real plan."""

    def __init__(self) -> None:
        super().__init__()
        self.today = START
        self.history: list[Current] = []
        self.declared: Workspace | None = None
        self.waiting: Plan | None = None
        self.approved: set[tuple[str, str]] = set()
        self.revoked: set[tuple[str, str]] = set()

    @property
    def standing(self) -> ApprovalStatus:
        return ApprovalStatus(frozenset(self.approved), frozenset(self.revoked), parts())

    @property
    def served(self) -> Blueprint:
        return self.history[-1].blueprint

    def _apply(self, declared: Workspace) -> None:
        result = plan(declared, self.history[-1] if self.history else None, today=self.today, standing=self.standing)
        if result.blueprint is None:
            assert {problem.code for problem in result.refusals} == {"stage_expired"}
            return
        again = plan(declared, self.history[-1] if self.history else None, today=self.today, standing=self.standing)
        assert again.blueprint is not None and encode(again.blueprint) == encode(result.blueprint)
        assert decode(encode(result.blueprint)) == result.blueprint
        self.history.append(Current(result.blueprint, declared))
        self.declared, self.waiting = declared, result

    @initialize(declared=workspaces, approved=st.booleans())
    def genesis(self, declared: Workspace, approved: bool) -> None:
        self._apply(declared)
        if approved:
            self.approve(every=True)

    @rule(declared=workspaces, approved=st.booleans())
    def apply(self, declared: Workspace, approved: bool) -> None:
        self._apply(declared)
        if approved:
            self.approve(every=True)

    @rule(every=st.booleans())
    def approve(self, every: bool = False) -> None:
        if self.waiting and self.waiting.pending and self.declared:
            for item in self.waiting.pending if every else self.waiting.pending[:1]:
                self.approved.add((item.subject, item.digest))
                self.revoked.discard((item.subject, item.digest))
            self._apply(self.declared)

    @rule(again=st.booleans())
    def withdraw(self, again: bool) -> None:
        found = [pair for pair in units.served_units(self.served) if pair in self.approved and "workload" in pair[0]]
        if found and self.declared:
            self.approved.discard(found[0])
            self.revoked.add(found[0])
            self.history.append(Current(without_workload(self.served, found[0][0].partition("/")[2]), self.declared))
            if again:
                self._apply(self.declared)

    @rule(days=st.sampled_from([1, 5, 20, 100]))
    def wait(self, days: int) -> None:
        self.today += timedelta(days=days)

    @invariant()
    def production_and_whatever_is_beyond_the_caps_is_approved(self) -> None:
        if not self.history:
            return
        first = self.history[0].blueprint
        genesis_people = {item.name: item.people for item in first.workloads}
        for workload in self.served.workloads:
            pair = (units.workload_subject(workload.name), units.workload_digest(self.served, workload))
            beyond = (workload.people or 0) > max(25, genesis_people.get(workload.name) or 0)
            if workload.stage == "production" or beyond:
                assert pair in self.approved and pair not in self.revoked

    @invariant()
    def a_shared_budget_was_never_raised_without_approval(self) -> None:
        for before, after in zip(self.history, self.history[1:], strict=False):
            old = {item.name: item.limit for item in before.blueprint.budgets}
            for budget in after.blueprint.budgets:
                if units.is_shared(budget) and budget.limit > old[budget.name]:
                    assert (units.budget_subject(budget.name), units.budget_digest(budget)) in self.approved

    @invariant()
    def what_is_served_is_consistent_and_numbers_rise_by_one(self) -> None:
        for number, current in enumerate(self.history, 1):
            assert current.blueprint.number == number
        if self.history:
            assert verify_blueprint(self.served) == []


TestReleases = Releases.TestCase
TestReleases.settings = settings(max_examples=45, stateful_step_count=12, deadline=None)


def test_what_was_approved_beyond_the_caps_is_approved_again_when_it_changes() -> None:
    """The approval was of that content, not of any with so many people."""
    found = Releases()
    for declared in (("proposed", 10, 100, 5, "8000"), ("pilot", 10, 100, 26, "9000")):
        found._apply(workspace(*declared))
    found.approve()
    assert [item.people for item in found.served.workloads] == [25, 26]
    found._apply(workspace("pilot", 10, 100, 26, "8000"))
    assert found.waiting is not None and [item.subject for item in found.waiting.pending] == ["workload/support"]
    found.production_and_whatever_is_beyond_the_caps_is_approved()
    found._apply(workspace("pilot", 10, 100, 25, "8000"))
    assert found.waiting.pending == () or not found.waiting.pending
