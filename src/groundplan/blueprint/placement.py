"""Where a workload was placed, with the alternatives. Costs are picodollars a month (int)."""

from __future__ import annotations

import msgspec


class Alternative(msgspec.Struct, frozen=True, kw_only=True):
    """One deployment that could serve a workload, with what it would cost or why it may not."""

    deployment: str
    site: str
    allowed: bool
    reasons: list[str]
    """Why the deployment is not allowed: `outside EU`, `1.9 s > 800 ms`, ...; empty if it is."""
    monthly: int | None
    """picodollars per month at the declared traffic, None without a price"""


class ToBuild(msgspec.Struct, frozen=True, kw_only=True):
    """A model at a site that a plan prefers to all declared deployments."""

    site: str
    model: str
    config: str
    """For example `acme/defect-detector-2 on 1 jetson-orin`."""
    monthly: int
    """picodollars a month, people and hardware included"""


class Ramp(msgspec.Struct, frozen=True, kw_only=True):
    """A change of primary deployment in steps: of a hundred calls, `share` try `to` first, the others `origin`. Each
    step is a blueprint of its own."""

    origin: str
    """The previous primary deployment."""
    to: str
    share: int
    """per cent, 1 to 99"""
    steps: list[int] = []
    """Shares of the steps to come, ascending; after the last of them all calls go to `to`."""
    every_s: int = 86_400
    """Seconds for which each step holds."""


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    workload: str
    primary: str | None
    fallbacks: list[str]
    alternatives: list[Alternative]
    binding: str
    """The constraint that decided the placement, in words."""
    gap: float = 0.0
    """Proven relative gap to the optimum (0 where all alternatives were enumerated)."""
    burst: str | None = None
    """The deployment that takes the peaks: calls beyond the primary's limit of concurrent calls go to it."""
    to_build: list[ToBuild] = []
    ramp: Ramp | None = None
    """None: all calls try the primary first."""
    expects: dict[str, float] = {}
    """What the plan assumes of a day: usd_day, calls_day, unit_usd, first_token_ms, availability."""
