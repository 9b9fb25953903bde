"""Types of governance: what a change asks for, who must agree to it, and what was decided. Types only."""

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

ASKED: dict[str, tuple[str, ...]] = {
    "model": ("security", "compliance"),
    "prompt": ("product", "security"),
    "data": ("data", "compliance"),
    "policy": ("security", "compliance"),
    "exception": ("security", "compliance"),
    "rollout": ("operations", "security"),
    "evidence": ("compliance",),
}
"""What is asked for by itself, beside the blueprint, and the duties that must agree to it."""
SENSITIVITY_ORDER = ("public", "internal", "confidential", "restricted")


@dataclass(frozen=True, slots=True)
class Need:
    """Somebody who holds `duty` for `subject` must approve."""

    subject: str
    """`company`, `workload/NAME` or `budget/NAME`"""
    duty: str


@dataclass(frozen=True, slots=True)
class Terms:
    """What the rules look at in one workload. `digest` covers all of its content, so equal digests mean no change."""

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
    """none | redacted | full: what of prompts and answers is kept"""
    former: tuple[str, ...] = ()
    """Digests of the same content in other versions of this program."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What somebody asks for beside the blueprint: a model into use, data for a purpose, a policy, an exception, a
    rollout, evidence. Approvals are bound to the digest of `what` is declared."""

    kind: str
    """One of `ASKED`"""
    subject: str
    what: Mapping[str, Any] = field(hash=False)
    reason: str
    price: Mapping[str, int] = field(default_factory=dict, hash=False)
    """Of a model: noted beside it, not part of its digest."""


@dataclass(frozen=True, slots=True)
class Given:
    """An approval of a model, a prompt or a source's purpose, as it stands: it holds, or it was given once."""

    expires_on: date
    """The last day that it holds."""
    grace_until: date
    """The last day that production may go on after it, where no data is restricted."""
    withdrawn: bool = False
    expired: bool = False
    """It was ended after its grace."""
    price: Mapping[str, int] = field(default_factory=dict, hash=False)
    """A model's price when it was approved (`approved_parts.price_of`); empty: nobody noted it, so it has no band."""

    @property
    def stands(self) -> bool:
        return not self.withdrawn and not self.expired


@dataclass(frozen=True, slots=True)
class Standing:
    """What approvals say today: content that is fully approved, and content whose approval was refused or withdrawn.

    Both hold (subject, digest). `revoked` wins where a pair is in both. `parts` are approvals of what production uses,
    by digest.
    """

    approved: frozenset[tuple[str, str]] = frozenset()
    revoked: frozenset[tuple[str, str]] = frozenset()
    parts: Mapping[str, Given] = field(default_factory=dict)

    def allows(self, subject: str, *digests: str) -> bool:
        """`digests` are those of one content."""
        approved = any((subject, digest) in self.approved for digest in digests)
        return approved and not self.forbids(subject, *digests)

    def forbids(self, subject: str, *digests: str) -> bool:
        return any((subject, digest) in self.revoked for digest in digests)


@dataclass(frozen=True, slots=True)
class Decision:
    """What it takes: approvals still needed (none: it may go ahead), and what no approval can make right."""

    needs: tuple[Need, ...] = ()
    refusals: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class Approval:
    """What one person said to one need of a change."""

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
    """How the person had signed in: `passkey | oidc` show that they were there."""
    here: bool = True
    """Whether the person has not left since."""

    @property
    def stands(self) -> bool:
        return self.decision == "approved" and self.withdrawn_at is None

    @property
    def is_evidence(self) -> bool:
        """Whether it proves that somebody else than the one who asked was there and agreed, outside of a demo."""
        return self.stands and not self.unseparated and not self.demo and self.proof in PROVEN


@dataclass(frozen=True, slots=True)
class Change:
    """Content that waits for approvals, or did. `digest` binds the approvals to exactly this content."""

    id: UUID
    digest: str
    type: str
    """workload | budget | company, or one of `ASKED`"""
    subject: str
    base: int
    """Number of the blueprint it was compared with."""
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
    """The last day that it holds, once approved."""
    grace_until: date | None = None
    seats: int = 1
    """How many different people must agree."""
    reason: str = ""
    renews: UUID | None = None
    """The change whose approval it gives again, with the same content."""

    @property
    def price(self) -> dict[str, int]:
        """What a model cost when it was asked for (`approved_parts.price_of`); empty for anything else."""
        return dict(self.summary.get("price") or {})

    @property
    def people(self) -> int:
        """How many different people agree to exactly this content."""
        return len({a.person_id for a in self._counting})

    @property
    def ends_itself(self) -> date | None:
        """The last day that evidence or an exception was asked for; None for what has no end of its own."""
        said = [each["new"] for each in self.summary.get("fields", ()) if each["field"] == "until"]
        return last_day(datetime.fromisoformat(said[0])) if self.type in ("evidence", "exception") and said else None

    @property
    def _counting(self) -> list[Approval]:
        """Approvals of exactly this content. While it waits, those of people who have left count no longer."""
        own = [each for each in self.approvals if each.stands and each.digest == self.digest]
        return [each for each in own if each.here or self.state != "pending"]

    @property
    def complete(self) -> bool:
        """Whether every need is met, by enough different people."""
        return not self.waits_for and self.people >= self.seats

    @property
    def waits_for(self) -> tuple[Need, ...]:
        """Needs that no standing approval meets."""
        met = {(a.subject, a.duty) for a in self._counting}
        return tuple(need for need in self.needs if (need.subject, need.duty) not in met)


@dataclass(frozen=True, slots=True)
class Holder:
    """Somebody who holds a duty and is active."""

    person_id: UUID
    email: str
    name: str


__all__ = [
    "SENSITIVITY_ORDER",
    "Approval",
    "Caps",
    "Change",
    "Decision",
    "Given",
    "Holder",
    "Need",
    "Standing",
    "Terms",
]
