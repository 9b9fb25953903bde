"""Types of governance: what a change asks for, who must approve it, and what was decided. Types only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any
from uuid import UUID

from groundplan.blueprint.model import Caps
from groundplan.core.clock import last_day
from groundplan.core.errors import Problem
from groundplan.identity.model import PROVEN

REQUEST_DUTIES: dict[str, tuple[str, ...]] = {
    "model": ("security", "compliance"),
    "prompt": ("product", "security"),
    "data": ("data", "compliance"),
    "policy": ("security", "compliance"),
    "exception": ("security", "compliance"),
    "rollout": ("operations", "security"),
    "evidence": ("compliance",),
}
"""Kinds of approval that are requested on their own, outside a blueprint -> the duties that must approve them."""
SENSITIVITY_ORDER = ("public", "internal", "confidential", "restricted")


@dataclass(frozen=True, slots=True)
class Need:
    """One required approval: by somebody who holds `duty` for `subject`."""

    subject: str
    """`company`, `workload/NAME` or `budget/NAME`"""
    duty: str


@dataclass(frozen=True, slots=True)
class Terms:
    """The parts of a workload that approval rules look at. `digest` covers all of its content, so equal digests mean no
    change."""

    subject: str
    stage: str
    sensitivity: str
    people: int | None
    """None: any number"""
    calls_per_day: int | None
    expires: date | None
    sources: tuple[str, ...]
    budget: int
    """picodollars per month of its own budgets"""
    digest: str
    keeps: str = "none"
    """none | redacted | full: in which form prompts and answers are stored"""
    former_digests: tuple[str, ...] = ()
    """Digests of the same content in other versions of this program."""


@dataclass(frozen=True, slots=True)
class ApprovalRequest:
    """A request for approval outside a blueprint: of a model, data for a purpose, a policy, an exception, a rollout or
    evidence. Approvals are bound to the digest of `declaration`."""

    kind: str
    """A key of `REQUEST_DUTIES`"""
    subject: str
    declaration: Mapping[str, Any] = field(hash=False)
    reason: str
    price: Mapping[str, int] = field(default_factory=dict, hash=False)
    """Of a model: stored with the request, not part of its digest."""


@dataclass(frozen=True, slots=True)
class GrantedApproval:
    """An approval of a model, a prompt or a source's purpose that was given, and whether it is still valid."""

    expires_on: date
    """The last day that it holds."""
    grace_until: date
    """The last day that production may go on after it, where no data is restricted."""
    withdrawn: bool = False
    expired: bool = False
    """Its grace period has passed too."""
    price: Mapping[str, int] = field(default_factory=dict, hash=False)
    """A model's price when it was approved (`approved_parts.price_by_class`); empty: not recorded, so there is no
    band."""

    @property
    def is_valid(self) -> bool:
        """Whether it was neither withdrawn nor expired; its dates are not looked at."""
        return not self.withdrawn and not self.expired


@dataclass(frozen=True, slots=True)
class ApprovalStatus:
    """Today's approvals: content that is fully approved, and content that was served and has lost its approval.

    Both sets hold (subject, digest); `revoked` wins where a pair is in both. `parts`: approvals of the parts that
    production uses, by digest.
    """

    approved: frozenset[tuple[str, str]] = frozenset()
    revoked: frozenset[tuple[str, str]] = frozenset()
    parts: Mapping[str, GrantedApproval] = field(default_factory=dict)

    def is_approved(self, subject: str, *digests: str) -> bool:
        """Whether this content is approved and not revoked; `digests` are those of one content in several versions of
        this program."""
        approved = any((subject, digest) in self.approved for digest in digests)
        return approved and not self.is_revoked(subject, *digests)

    def is_revoked(self, subject: str, *digests: str) -> bool:
        """Whether the approval of this content was withdrawn or has expired."""
        return any((subject, digest) in self.revoked for digest in digests)


@dataclass(frozen=True, slots=True)
class Decision:
    """What a change takes: approvals still needed (none: it may go ahead), and refusals that no approval can lift."""

    needs: tuple[Need, ...] = ()
    refusals: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class Approval:
    """One person's decision about one need of a change."""

    id: UUID
    change_id: UUID
    digest: str
    duty: str
    subject: str
    person_id: UUID
    person: str
    """e-mail address"""
    decision: str
    """approved | refused"""
    comment: str
    unseparated: bool
    demo: bool
    at: datetime
    withdrawn_at: datetime | None = None
    proof: str = "recovery"
    """How the person had signed in: `passkey | oidc` prove that the person was present."""
    is_active: bool = True
    """Whether the person is still active."""

    @property
    def is_valid(self) -> bool:
        """Whether it approves and was not withdrawn."""
        return self.decision == "approved" and self.withdrawn_at is None

    @property
    def is_evidence(self) -> bool:
        """Whether it proves that somebody other than the requester was present and agreed, outside of a demo."""
        return self.is_valid and not self.unseparated and not self.demo and self.proof in PROVEN


@dataclass(frozen=True, slots=True)
class Change:
    """Content that waits or waited for approvals. `digest` binds the approvals to exactly this content."""

    id: UUID
    digest: str
    type: str
    """workload | budget | company | rule, or a key of `REQUEST_DUTIES`"""
    subject: str
    base: int
    """Number of the blueprint that it was compared with."""
    summary: dict[str, Any]
    needs: tuple[Need, ...]
    requested_by: str
    requested_at: datetime
    state: str
    """pending | applied | refused | withdrawn | superseded | expired"""
    decided_at: datetime | None
    blueprint: int | None
    approvals: tuple[Approval, ...] = ()
    expires_on: date | None = None
    """The last day that it is valid, once approved."""
    grace_until: date | None = None
    seats: int = 1
    """How many different people must approve."""
    reason: str = ""
    renews: UUID | None = None
    """The change whose approval it renews, with the same content."""

    @property
    def price(self) -> dict[str, int]:
        """Price of a model when approval was requested (`approved_parts.price_by_class`); empty for anything else."""
        return dict(self.summary.get("price") or {})

    @property
    def approver_count(self) -> int:
        """Number of different people who approve exactly this content."""
        return len({a.person_id for a in self._valid_approvals})

    @property
    def own_end_date(self) -> date | None:
        """The last day for which evidence or an exception was requested; None for kinds without an end of their own."""
        ends = [each["new"] for each in self.summary.get("fields", ()) if each["field"] == "until"]
        return last_day(datetime.fromisoformat(ends[0])) if self.type in ("evidence", "exception") and ends else None

    @property
    def _valid_approvals(self) -> list[Approval]:
        """Valid approvals of exactly this content. While it is pending, those of people who have left do not count."""
        own = [each for each in self.approvals if each.is_valid and each.digest == self.digest]
        return [each for each in own if each.is_active or self.state != "pending"]

    @property
    def is_complete(self) -> bool:
        """Whether every need is met, by enough different people."""
        return not self.open_needs and self.approver_count >= self.seats

    @property
    def open_needs(self) -> tuple[Need, ...]:
        """Needs that no valid approval meets."""
        met = {(a.subject, a.duty) for a in self._valid_approvals}
        return tuple(need for need in self.needs if (need.subject, need.duty) not in met)


@dataclass(frozen=True, slots=True)
class Holder:
    """An active person who holds a duty."""

    person_id: UUID
    email: str
    name: str


__all__ = [
    "SENSITIVITY_ORDER",
    "Approval",
    "ApprovalStatus",
    "Caps",
    "Change",
    "Decision",
    "GrantedApproval",
    "Holder",
    "Need",
    "Terms",
]
