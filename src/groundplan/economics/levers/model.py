"""Observations from which levers are found, each small enough to be read for a page. No behaviour. Fields are columns
of `opportunity_store`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

from groundplan.economics.replay.opportunities import TrialEvidence

SHARE: Final = 8
"""One request in so many is compared with those of others; the request's digest decides which."""
Passage = tuple[str, str, int, int]
"""(document, path, first line, last line)"""


@dataclass(frozen=True, slots=True)
class OutputSizes:
    """Sizes of a workload's newest answers, at most some thousand."""

    workload: str
    answers: int
    longest: int
    """Tokens of the longest answer."""
    common: int
    """Tokens that 99 of 100 do not exceed."""
    set_aside_usd: Decimal
    """Sum of what their calls reserved beyond their cost."""


@dataclass(frozen=True, slots=True)
class GroundedCall:
    """One call with passages. `accepted`: None without an outcome."""

    workload: str
    passages: tuple[Passage, ...]
    accepted: bool | None = None
    team: str = ""
    cost_usd: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True)
class ActiveHours:
    """When a feature of a workload called a deployment."""

    workload: str
    feature: str
    deployment: str
    hours: int
    """Hours with at least one call."""
    calls: int
    cost_usd: Decimal
    busiest: int
    """Hour of the day, UTC, of most calls, and how many they were."""
    busiest_calls: int


@dataclass(frozen=True, slots=True)
class SharedPassages:
    """Workloads of several teams whose newest calls were given exactly the same passages."""

    workloads: tuple[str, ...]
    teams: tuple[str, ...]
    calls: int
    repeated: int
    """Calls beyond the first of each such group."""
    repeated_usd: Decimal


@dataclass(frozen=True, slots=True)
class SharedRequests:
    """Workloads with exactly the same requests, without documents, among the compared ones (`SHARE`)."""

    workloads: tuple[str, ...]
    teams: tuple[str, ...]
    owners: tuple[str, ...]
    """Business owners of these workloads."""
    requests: int
    calls: int
    repeated_usd: Decimal
    """Cost of all but one call of each request."""
    fewest: int
    """Calls of the workload with the fewest of each request."""


@dataclass(frozen=True, slots=True)
class RetryOutcomes:
    """Results of a workload's retries, without those cut off by a worker or a client."""

    workload: str
    calls: int
    """Calls with a retry."""
    rescued: int
    """Those of them that were answered in the end."""
    lost_usd: Decimal
    """Cost of failed retries of calls that were not answered."""


@dataclass(frozen=True, slots=True)
class FailedRetries:
    """Failed retries at one deployment of calls that were not answered."""

    workload: str
    deployment: str
    attempts: int
    cost_usd: Decimal


@dataclass(frozen=True, slots=True)
class StoredContent:
    """Stored prompts and answers of a workload, and how often somebody read one of them."""

    workload: str
    gigabytes: float
    calls: int
    reads: int


@dataclass(frozen=True, slots=True)
class Observations:
    """All observations of some days."""

    days: int
    seen: Mapping[str, float] = field(default_factory=dict)
    """Workload -> days since its first call, if fewer than `days` (at least one): its cost is that of so many days."""
    outputs: Sequence[OutputSizes] = ()
    grounded: Sequence[GroundedCall] = ()
    sampled: Mapping[str, int] = field(default_factory=dict)
    """Workload -> answers among its newest calls, of which `grounded` are those with passages; missing: `grounded` has
    all."""
    alike: Sequence[SharedRequests] = ()
    hours: Sequence[ActiveHours] = ()
    retried: Sequence[RetryOutcomes] = ()
    lost: Sequence[FailedRetries] = ()
    content: Sequence[StoredContent] = ()
    shown: Mapping[tuple[str, str], TrialEvidence] = field(default_factory=dict)
    """(workload, deployment) -> evidence of replays and experiments."""
    runs: Mapping[str, str] = field(default_factory=dict)
    """Workload -> what is being tried on it."""
