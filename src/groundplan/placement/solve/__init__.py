"""From a problem to a placement, its price and a lower bound; and the small judge of declared deployments.

Importing this room loads neither ortools nor highspy: only `optimise` does, when it is called.
"""

from groundplan.placement.solve.declared import holds, monthly, nearest, reasons_against, refused, solve, verify

__all__ = ["holds", "monthly", "nearest", "reasons_against", "refused", "solve", "verify"]
