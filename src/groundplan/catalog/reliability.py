"""How hard a call is tried: what a workload says of attempts, and a deployment of what it bears. Types only."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from groundplan.catalog.base import Strict
from groundplan.catalog.fields import Count, Duration, Percent, Wait
from groundplan.catalog.units import duration_ms

_PERCENTILE = re.compile(r"p([1-9][0-9]?)", re.ASCII)


def _after(value: object) -> int | str:
    """`p95` as it is, a duration in milliseconds."""
    if isinstance(value, str) and _PERCENTILE.fullmatch(value):
        return value
    try:
        return duration_ms(value)
    except ValueError as error:
        raise ValueError("write a percentile like p95, or a duration like 800ms") from error


HedgeAfter = Annotated[
    int | str,
    BeforeValidator(_after),
    WithJsonSchema({"type": "string", "pattern": "^(p[1-9][0-9]?|[0-9.]+ ?(ms|s|min))$", "examples": ["p95"]}),
]


class Retries(Strict):
    """Further attempts at the same deployment, before the next one is asked. Its retry-after is honoured."""

    same: Annotated[int, Field(ge=0, le=9)] = 0
    """How many."""
    backoff: Duration = 200
    """Wait before the first retry; doubles, with jitter."""
    max_backoff: Duration = 5_000
    """Longest wait while another deployment is available."""


class HedgeRule(Strict):
    """A second attempt at the next deployment while the first one is slow. The loser is cancelled, and billed as its
    provider does."""

    after: HedgeAfter = "p95"
    """A percentile of the times that were seen until the first byte (of streams) or the answer, or a duration."""
    at_most: Annotated[Percent, Field(gt=0)] = 0.05
    """Part of the calls that may be hedged."""

    @property
    def percentile(self) -> int | None:
        return int(self.after[1:]) if isinstance(self.after, str) else None

    @property
    def after_ms(self) -> int | None:
        return self.after if isinstance(self.after, int) else None


class ReliabilityRule(Strict):
    """How hard a call is tried."""

    attempts: Annotated[int, Field(ge=1, le=10)] | None = None
    """In all, at whatever deployment. Default: `limits.attempts`."""
    deadline: Wait | None = None
    """Until the answer; for streams until the first token. Default: `limits.deadline`."""
    retries: Retries = Retries()
    hedge: HedgeRule | None = None
    balance: Literal["ordered", "weighted", "least-outstanding", "latency", "cheapest", "prefix"] = "ordered"
    """Load balancing among `deployments`; `fallbacks` are used only when those fail."""
    on_broken_stream: Literal["fail", "resume"] = "fail"
    """fail: an error event ends it; resume: the next deployment continues from the text that was sent."""
    priority: Literal["critical", "high", "normal", "low"] = "normal"
    """Priority under overload: which calls are refused last."""


class DeploymentLimits(Strict):
    """What a deployment bears."""

    concurrent: Annotated[Count, Field(ge=1)] | None = None
    """Most calls that one gateway worker has running there. It finds a lower limit by itself when there are signs of
    overload."""


Weight = Annotated[int, Field(ge=0, le=1000)]
BillingOnCancel = Literal["generated", "full", "drain"]
