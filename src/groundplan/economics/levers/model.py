"""What levers are found in: facts of the days looked at, each small enough to be read for a page. No behaviour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

from groundplan.economics.replay.opportunities import Shown

SHARE: Final = 8
"""One request in so many is looked at for whether others ask the same, by what it asks."""
Passage = tuple[str, str, int, int]
"""(document, path, first line, last line)"""


@dataclass(frozen=True, slots=True)
class Outputs:
    """The newest answers of a workload, at most some thousand of them."""

    workload: str
    answers: int
    longest: int
    """Tokens of the longest one."""
    common: int
    """Tokens that 99 of 100 do not exceed."""
    set_aside_usd: Decimal
    """What their calls reserved beyond what they cost, together."""


@dataclass(frozen=True, slots=True)
class Grounded:
    """One call that was given passages; `accepted` is None where nobody said."""

    workload: str
    passages: tuple[Passage, ...]
    accepted: bool | None = None
    team: str = ""
    cost_usd: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True)
class Active:
    """When a feature of a workload asked a deployment."""

    workload: str
    feature: str
    deployment: str
    hours: int
    """In which there was any call."""
    calls: int
    cost_usd: Decimal
    busiest: int
    """Hour of the day, UTC, of most calls, and how many they were."""
    busiest_calls: int


@dataclass(frozen=True, slots=True)
class Twice:
    """Workloads of several teams whose calls were given exactly the same passages, among the newest of each."""

    workloads: tuple[str, ...]
    teams: tuple[str, ...]
    calls: int
    repeated: int
    """Calls beyond the first of each such group."""
    repeated_usd: Decimal


@dataclass(frozen=True, slots=True)
class Alike:
    """Workloads whose callers asked exactly the same, without documents: of those requests that are looked at."""

    workloads: tuple[str, ...]
    teams: tuple[str, ...]
    owners: tuple[str, ...]
    """Business owners of these workloads."""
    requests: int
    calls: int
    repeated_usd: Decimal
    """What all but one call of each request cost."""
    fewest: int
    """Calls of the workload that made fewest of each request."""


@dataclass(frozen=True, slots=True)
class Retried:
    """What a workload's retries came to, without those that ended with their worker or their client."""

    workload: str
    calls: int
    """Calls that were tried again."""
    rescued: int
    """Of them, those that were answered in the end."""
    lost_usd: Decimal
    """What retries cost that failed, of calls that were not answered."""


@dataclass(frozen=True, slots=True)
class Lost:
    """Retries at one deployment that failed, of calls that were not answered."""

    workload: str
    deployment: str
    attempts: int
    cost_usd: Decimal


@dataclass(frozen=True, slots=True)
class Content:
    """Prompts and answers that are kept of a workload, and how often somebody read one of them."""

    workload: str
    gigabytes: float
    calls: int
    reads: int


@dataclass(frozen=True, slots=True)
class Looked:
    """Everything of some days."""

    days: int
    seen: Mapping[str, float] = field(default_factory=dict)
    """Workload -> days since its first call of them, at least one, where these are fewer: what it cost is that of so
    many."""
    outputs: Sequence[Outputs] = ()
    grounded: Sequence[Grounded] = ()
    sampled: Mapping[str, int] = field(default_factory=dict)
    """Workload -> answers among its newest calls, of which `grounded` are those that were given passages; without it
    these are all that there are."""
    alike: Sequence[Alike] = ()
    hours: Sequence[Active] = ()
    retried: Sequence[Retried] = ()
    lost: Sequence[Lost] = ()
    content: Sequence[Content] = ()
    shown: Mapping[tuple[str, str], Shown] = field(default_factory=dict)
    """(workload, deployment) -> what replays and experiments found of it."""
    runs: Mapping[str, str] = field(default_factory=dict)
    """Workload -> what is being tried on it."""
