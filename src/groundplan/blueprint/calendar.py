"""The days to come, as declared: part of the blueprint, so that forecasts follow what is applied, and go back with it.

It is of the blueprint as a whole, not of a workload: nobody approves a workload again because of a holiday.
"""

from __future__ import annotations

import msgspec


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """From `day` (ISO) on a workload has `factor` times as much to do."""

    workload: str
    day: str
    factor: float
    name: str = ""


class Calendar(msgspec.Struct, frozen=True, kw_only=True):
    """`countries`: ISO codes whose public holidays count; `holidays`: further ISO dates."""

    countries: list[str] = []
    holidays: list[str] = []
    launches: list[Launch] = []
    """By workload and day."""
