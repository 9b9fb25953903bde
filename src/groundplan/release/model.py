"""Types of a release: units that are decided one by one, differences for people, and the plan. No logic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from groundplan.blueprint.model import ApprovalTerms, Blueprint, Placement
from groundplan.catalog.workspace import Workspace
from groundplan.core.errors import Problem, Where
from groundplan.core.money import format_usd, optional_usd
from groundplan.governance.approved_parts import Lapse
from groundplan.governance.model import Need


@dataclass(frozen=True, slots=True)
class Field:
    """One value that differs, as text for people; None where the field is absent."""

    field: str
    old: str | None
    new: str | None


@dataclass(frozen=True, slots=True)
class Difference:
    """What changes in one declared thing, compared with what is served."""

    type: str
    """added | changed | removed"""
    subject: str
    """`workload/NAME`, `deployment/NAME`, `site/NAME`, `source/NAME`, `budget/NAME`, `company`"""
    fields: tuple[Field, ...] = ()


@dataclass(frozen=True, slots=True)
class PendingChange:
    """Content that waits: it is left out (or stays as it is served now) until all needs are met."""

    subject: str
    digest: str
    needs: tuple[Need, ...]
    fields: tuple[Field, ...]
    missing: tuple[Problem, ...] = ()
    """Parts it uses that lack an approval of their own: it is refused until they have one, whoever else agrees."""


@dataclass(frozen=True, slots=True)
class Draft:
    """The blueprint of everything declared, as if nothing had to wait for approval, and its refusals."""

    blueprint: Blueprint
    """with number 0"""
    refusals: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class Current:
    """What is served: the newest blueprint and the workspace that it was made from."""

    blueprint: Blueprint
    workspace: Workspace


def effective_terms(current: Current) -> ApprovalTerms:
    """The approval terms in force: those of the served blueprint, which may be stricter than the declared ones."""
    return current.blueprint.approval_terms or declared_terms(current.workspace)


def declared_terms(workspace: Workspace) -> ApprovalTerms:
    """The approval terms that the workspace declares."""
    rules = workspace.company.approvals
    return ApprovalTerms(
        seats=rules.seats, valid_days=rules.valid_days, grace_days=rules.grace_days, price_band=rules.price_band
    )


@dataclass(frozen=True, slots=True)
class Plan:
    """What an apply would change. `blueprint` is None where there are refusals."""

    differences: tuple[Difference, ...]
    placements: tuple[Placement, ...]
    pending: tuple[PendingChange, ...]
    refusals: tuple[Problem, ...]
    blueprint: Blueprint | None
    """What would be served at once, numbered one above the current one."""
    notes: tuple[str, ...] = ()
    """Sentences about what callers will notice."""
    warnings: tuple[Problem, ...] = ()
    """Declarations that have no effect; they refuse nothing."""
    lapses: tuple[tuple[str, Lapse], ...] = ()
    """(workload, a part it uses in production without a valid approval)"""

    @property
    def needs(self) -> tuple[Need, ...]:
        return tuple(dict.fromkeys(need for item in self.pending for need in item.needs))

    def to_json(self) -> dict[str, Any]:
        """As the control API shows it; amounts are exact decimal text."""
        return {
            "differences": [difference_json(item) for item in self.differences],
            "placements": [placement_json(item) for item in self.placements],
            "needs": [need_json(need) for need in self.needs],
            "pending": [
                {
                    "subject": item.subject,
                    "digest": item.digest,
                    "needs": [need_json(need) for need in item.needs],
                    "fields": [field_json(each) for each in item.fields],
                    "missing": [problem_json(problem) for problem in item.missing],
                }
                for item in self.pending
            ],
            "refusals": [problem_json(problem) for problem in self.refusals],
            "notes": list(self.notes),
            "warnings": [problem_json(problem) for problem in self.warnings],
        }


@dataclass(frozen=True, slots=True)
class ReleaseResult:
    """The result of an apply, approval or rollback. `number` is that of the new blueprint; None where none was made."""

    number: int | None
    pending: tuple[tuple[UUID, tuple[Need, ...]], ...] = ()
    """(change id, the approvals that it still waits for)"""
    left_out: tuple[str, ...] = ()
    """Subjects that a rollback left out on request."""
    policy: int | None = None
    """Number of the live policy that stops what was withdrawn; None where live policy did not change."""
    warnings: tuple[Problem, ...] = ()
    """Of an apply: declarations that have no effect."""
    rollback_of: int | None = None
    """Of a rollback: the blueprint that it went back to."""

    def to_json(self) -> dict[str, Any]:
        rollback = {} if self.rollback_of is None else {"rollback_of": self.rollback_of}
        return {
            "blueprint": self.number,
            **rollback,
            "pending": [
                {"change": str(change), "waits_for": [need_json(need) for need in needs]}
                for change, needs in self.pending
            ],
            "left_out": list(self.left_out),
            "warnings": [problem_json(problem) for problem in self.warnings],
        }


def need_json(need: Need) -> dict[str, str]:
    return {"subject": need.subject, "duty": need.duty}


def problem_json(problem: Problem) -> dict[str, str | None]:
    return {
        "message": problem.message,
        "code": problem.code,
        "hint": problem.hint,
        "where": str(problem.where) if problem.where else None,
    }


def difference_json(item: Difference) -> dict[str, Any]:
    return {"type": item.type, "subject": item.subject, "fields": [field_json(each) for each in item.fields]}


def field_json(item: Field) -> dict[str, str | None]:
    return {"field": item.field, "old": item.old, "new": item.new}


def placement_json(item: Placement) -> dict[str, Any]:
    """A placement as JSON: where the workload runs, and why it does not run elsewhere."""
    return {
        "workload": item.workload,
        "primary": item.primary,
        "fallbacks": list(item.fallbacks),
        "binding": item.binding,
        "gap": item.gap,
        "burst": item.burst,
        "ramp": None
        if item.ramp is None
        else {
            "from": item.ramp.origin,
            "to": item.ramp.to,
            "share": item.ramp.share,
            "steps": list(item.ramp.steps),
            "every_seconds": item.ramp.every_s,
        },
        "to_build": [
            {"site": b.site, "model": b.model, "config": b.config, "monthly_usd": format_usd(b.monthly)}
            for b in item.to_build
        ],
        "expects": item.expects,
        "alternatives": [
            {
                "deployment": option.deployment,
                "site": option.site,
                "allowed": option.allowed,
                "reasons": list(option.reasons),
                "monthly_usd": optional_usd(option.monthly),
            }
            for option in item.alternatives
        ],
    }


def with_location(problem: Problem, where: Where | None) -> Problem:
    """The problem with this location, unless it has one already."""
    return problem if problem.where else Problem(problem.message, problem.code, problem.hint, where)
