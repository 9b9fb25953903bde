"""The solver of placement problems (`optimise`), and the ordering of declared deployments (`declared`).

Importing this package loads neither ortools nor highspy: only `optimise` does, when it is called.
"""

from groundplan.placement.solve.declared import (
    find_refusals,
    limit_alternatives,
    max_sensitivity,
    monthly_cost,
    place_workload,
    reasons_against,
    verify_blueprint,
)

__all__ = [
    "find_refusals",
    "limit_alternatives",
    "max_sensitivity",
    "monthly_cost",
    "place_workload",
    "reasons_against",
    "verify_blueprint",
]
