"""Availability on an additive scale: the probabilities that independent places fail are multiplied. Pure.

A place that is unavailable in a share q of the time contributes -ln q; a primary and its fallback in another failure
domain contribute the sum of both, and an objective of A requires -ln(1 - A). Amounts are in millionths; a plan may fall
short by three of them, which the rounding of declared decimals causes. That failure domains fail independently is the
declaration's claim; it is not proven here.
"""

from __future__ import annotations

from math import log

MILLIONTHS = 10**6
ROUNDING = 3
MIN_UNAVAILABILITY = 1e-9
"""no place counts as unavailable for less than a thirtieth of a second a year"""


def availability_gain(share: float) -> int:
    """The contribution of a place that is available for this share of the time."""
    return round(-log(max(1 - min(max(share, 0.0), 1.0), MIN_UNAVAILABILITY)) * MILLIONTHS)


def required_gain(share: float) -> int:
    """The contribution that an objective requires."""
    return round(-log(max(1 - min(max(share, 0.0), 1.0), MIN_UNAVAILABILITY)) * MILLIONTHS) - ROUNDING


def is_sufficient(objective: float, *places: float) -> bool:
    """Whether places that fail independently reach the objective together."""
    return sum(availability_gain(each) for each in places) >= required_gain(objective)
