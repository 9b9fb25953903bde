"""The independent check of every placement: rules, cost and bound are recomputed, sharing no code with the solver."""

from groundplan.placement.verify.bound import proven_bound
from groundplan.placement.verify.plan import Report, Violation, verify

__all__ = ["Report", "Violation", "proven_bound", "verify"]
