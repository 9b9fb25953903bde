"""Where a workload was placed, with the alternatives. Costs are picodollars a month (int)."""

from __future__ import annotations

import msgspec


class Alternative(msgspec.Struct, frozen=True, kw_only=True):
    """One deployment that could serve a workload, with what it would cost or why it may not."""

    deployment: str
    site: str
    allowed: bool
    reasons: list[str]
    """Why not: `outside EU`, `1.9 s > 800 ms`, ... empty where allowed."""
    monthly: int | None
    """picodollars per month at the declared traffic, None without a price"""


class ToBuild(msgspec.Struct, frozen=True, kw_only=True):
    """What a plan would rather run than anything that is declared."""

    site: str
    model: str
    config: str
    """Such as `acme/defect-detector-2 on 1 jetson-orin`."""
    monthly: int
    """picodollars a month, people and hardware included"""


class Ramp(msgspec.Struct, frozen=True, kw_only=True):
    """A change of place that goes over in steps: `share` of a hundred calls are asked of `to` first, the others of
    `origin`. Each step is a blueprint of its own."""

    origin: str
    """The deployment that served it before."""
    to: str
    share: int
    """per cent, 1 to 99"""
    steps: list[int] = []
    """Shares that are still to come, rising; after the last of them all calls go to `to`."""
    every_s: int = 86_400
    """How long each step holds."""


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    workload: str
    primary: str | None
    fallbacks: list[str]
    alternatives: list[Alternative]
    binding: str
    """The constraint that decided, in words."""
    gap: float = 0.0
    """Proven relative gap to the optimum (0 where all alternatives were enumerated)."""
    burst: str | None = None
    """The deployment that takes the peaks: the primary is asked first, and its limit of concurrent calls passes on."""
    to_build: list[ToBuild] = []
    ramp: Ramp | None = None
    """None: all calls are asked of the primary first."""
    expects: dict[str, float] = {}
    """What the plan takes for granted of a day: usd_day, calls_day, unit_usd, first_token_ms, availability."""
