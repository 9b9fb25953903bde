"""Declared holidays and launches. They are part of the blueprint, so that forecasts follow `apply` and `rollback`.

They belong to the blueprint as a whole, not to a workload, so that a holiday does not require a new approval.
"""

from __future__ import annotations

import msgspec


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """From `day` (ISO) on, a workload has `factor` times as much traffic."""

    workload: str
    day: str
    factor: float
    name: str = ""


class Calendar(msgspec.Struct, frozen=True, kw_only=True):
    """`countries`: ISO codes whose public holidays count; `holidays`: further ISO dates."""

    countries: list[str] = []
    holidays: list[str] = []
    launches: list[Launch] = []
    """Sorted by workload and day."""
