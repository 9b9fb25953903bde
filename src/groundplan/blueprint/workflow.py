"""Business processes that workloads serve, with how they were before: part of the blueprint, so that what an outcome is
compared with changes with what is applied, and goes back with it.

They are of the blueprint as a whole, not of a workload: nobody approves a workload again because of a baseline.
"""

from __future__ import annotations

import msgspec


class Workflow(msgspec.Struct, frozen=True, kw_only=True):
    """`workloads`: those that serve it, by name, also where they wait for an approval."""

    name: str
    workloads: list[str]
    outcome: str = ""
    cost_per_case: int | None = None
    """picodollars that a case cost before"""
    minutes_per_case: float | None = None
    measured: str = ""
    """ISO date of the baseline"""
