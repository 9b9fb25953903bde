"""Types of controls and evidence. Types only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Literal
from uuid import UUID

from groundplan.catalog.risk import RiskRule

DOCUMENT = "document"
"""The need of a control that only a person can show."""
APPROVED = "evidence"
"""The kind of approval that a company may demand before evidence given by people counts."""
COLLECTOR = "groundplan"
"""The collector of evidence from facts."""
EvidenceType = Literal["query", "test", "approval", "drill", "review", "document"]
State = Literal["satisfied", "open", "expired", "excluded"]


@dataclass(frozen=True, slots=True)
class Control:
    """One control of a framework. All of `needs` together satisfy it."""

    id: str
    title: str
    needs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Amendment:
    """A change of a law or norm from a day on: evidence that people gave before that day no longer counts for it."""

    on: date
    what: str
    source: str
    controls: frozenset[str] = frozenset()
    """Empty: all of them."""

    def touches(self, control: str, today: date) -> bool:
        """Whether it is in force and concerns the control."""
        return self.on <= today and (not self.controls or control in self.controls)


@dataclass(frozen=True, slots=True)
class Framework:
    """A set of controls, by identifier."""

    name: str
    title: str
    source: str
    as_of: date
    note: str
    controls: tuple[Control, ...]
    profiles: Mapping[str, frozenset[str]] = field(default_factory=dict)
    amended: tuple[Amendment, ...] = ()


@dataclass(frozen=True, slots=True)
class AppliedFramework:
    """A framework as the company applies it."""

    framework: Framework
    owner: str
    controls: tuple[Control, ...]
    """Those of the profile, and the company's own."""
    workloads: tuple[str, ...]
    excluded: Mapping[str, str]
    """control -> reason"""
    amended: tuple[Amendment, ...] = ()

    def amendment(self, control: str, today: date) -> Amendment | None:
        """The newest change of the law or norm behind a control, by today."""
        found = [each for each in self.amended if each.touches(control, today)]
        return max(found, key=lambda each: each.on, default=None)


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """A source that a workload uses."""

    name: str
    owner_present: bool
    grave_findings: int
    """Open ones that are critical or high."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of one workload today, from the blueprint in force, its declaration, and facts.

    Calls of the demo do not count. Ids are those of calls, changes and kills, for people to look up.
    """

    workload: str
    blueprint: int
    served: bool
    purpose: str = ""
    value: str = ""
    audience: str = "employees"
    effect: str = "informs"
    regimes: tuple[str, ...] = ()
    risk: RiskRule | None = None
    accepted_by_active: bool = False
    duties: frozenset[str] = frozenset()
    """Duties that an active person holds."""
    fallbacks: tuple[str, ...] = ()
    fallback_call: str | None = None
    hard_budgets: tuple[str, ...] = ()
    """Hard budgets that cover this workload alone."""
    sources: tuple[SourceFacts, ...] = ()
    keeps: str = "none"
    sensitivity: str = "internal"
    calls: int = 0
    """Calls of the last 30 days, without refused ones."""
    outcomes: int = 0
    first_token: bool = False
    availability: bool = False
    quality: tuple[str, ...] = ()
    """Dimensions with an objective."""
    enforced_guardrails: tuple[str, ...] = ()
    """Guardrails that are enforced: `input`, `output`, `passages`, `tools`, `schema` …"""
    reviewed_share: float = 0.0
    """Share of the answers that people review before they are sent."""
    support: str | None = None
    runbook: str | None = None
    undeclared_terms: tuple[str, ...] = ()
    """Deployments whose provider's terms are not declared."""
    models_without_terms: tuple[str, ...] = ()
    """Models without licence and without provider's terms."""
    stale_keys: tuple[str, ...] = ()
    """Prefixes of keys without an end that are older than a year."""
    lifted_kill: str | None = None
    """Id of a kill of the workload in the last 180 days that was lifted again."""
    approved_change: str | None = None
    grave_findings: int = 0
    rules: tuple[str, ...] = ()
    """Company policies that are enforced."""
    log_verified_at: datetime | None = None
    log_size: int = 0
    log_complete: bool = False
    """Whether the log still begins with its first entry."""
    audit_entry: str | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of a check."""

    holds: bool
    says: str
    detail: Mapping[str, Any] = field(default_factory=dict)
    link: str | None = None
    """Page of the console that shows the fact."""
    grows: bool = False
    """Whether its figures change by themselves, such as the number of calls: while it holds, another figure is nothing
    new."""


@dataclass(frozen=True, slots=True)
class Check:
    """A check: `judge` decides it from facts; if that is None, a person has to show it."""

    name: str
    title: str
    type: EvidenceType
    days: int
    """How long its evidence counts."""
    hint: str
    """What to do if it does not hold."""
    judge: Callable[[Facts, date], Verdict] | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """Evidence of a check or control, and until when it counts."""

    id: UUID
    what: str
    """Name of a check, or `FRAMEWORK/CONTROL`."""
    subject: str
    """`company` or `workload/NAME`"""
    type: EvidenceType
    collector: str
    """`groundplan`, or who gave it."""
    at: datetime
    valid_until: datetime
    holds: bool
    says: str
    digest: str
    """SHA-256 of its content, as in the audit entry."""
    audit_entry: UUID
    detail: Mapping[str, Any] = field(default_factory=dict)
    link: str | None = None
    approval: str | None = None
    """Digest of the change that requests its approval, if the company demands one."""
    counts: bool = True
    """False: the company demands approval of evidence, and this has none, or none any more."""


@dataclass(frozen=True, slots=True)
class NeedStatus:
    """One need of a control, with the evidence for it."""

    need: str
    state: State
    evidence: Evidence | None
    hint: str


@dataclass(frozen=True, slots=True)
class ControlStatus:
    """One control of one workload today."""

    control: Control
    state: State
    shown: tuple[NeedStatus, ...] = ()
    reason: str = ""
    """Why it is excluded."""

    @property
    def until(self) -> datetime | None:
        """When the first of its evidence ends; None if it is not satisfied."""
        times = [each.evidence.valid_until for each in self.shown if each.evidence is not None]
        return min(times) if self.state == "satisfied" and times else None
