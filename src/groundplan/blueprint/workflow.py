"""Business processes that workloads serve, with their baselines. They are part of the blueprint, so that the baseline
of an outcome follows `apply` and `rollback`.

They belong to the blueprint as a whole, not to a workload, so that a baseline does not require a new approval.
"""

from __future__ import annotations

import msgspec


class Workflow(msgspec.Struct, frozen=True, kw_only=True):
    """A business process. `workloads`: names of those that serve it, including those that wait for an approval."""

    name: str
    workloads: list[str]
    outcome: str = ""
    cost_per_case: int | None = None
    """picodollars that a case cost before AI was used"""
    minutes_per_case: float | None = None
    measured: str = ""
    """ISO date of the baseline"""
