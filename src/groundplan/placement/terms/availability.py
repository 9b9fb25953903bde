"""Availability as something that adds up: what fails apart from each other fails together by the product. Pure.

A place that is away in a share q of the time brings -ln q; a primary and its fallback in another failure domain bring
the sum of both, and an objective of A asks for -ln(1 - A). In millionths; what rounding of declared decimals makes of
it, three millionths of what may be away, is not held against a plan. That failure domains fail apart from each other is
the declaration's claim, not something that is proven here.
"""

from __future__ import annotations

from math import log

MILLIONTHS = 10**6
ROUNDING = 3
LEAST_AWAY = 1e-9
"""Nothing is there for more than all but a thirtieth of a second a year"""


def availability_gain(share: float) -> int:
    """What a place that is there for this share of the time brings."""
    return round(-log(max(1 - min(max(share, 0.0), 1.0), LEAST_AWAY)) * MILLIONTHS)


def required_gain(share: float) -> int:
    """What an objective asks for."""
    return round(-log(max(1 - min(max(share, 0.0), 1.0), LEAST_AWAY)) * MILLIONTHS) - ROUNDING


def is_sufficient(objective: float, *places: float) -> bool:
    """Whether places that fail apart from each other keep it."""
    return sum(availability_gain(each) for each in places) >= required_gain(objective)
