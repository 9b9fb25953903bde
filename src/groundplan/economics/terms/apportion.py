"""Dividing an amount by weights so that the shares are whole numbers and sum exactly to it: largest remainder."""

from __future__ import annotations

from collections.abc import Sequence

from groundplan.core.errors import Invalid


def shares(amount: int, weights: Sequence[int]) -> list[int]:
    """Shares of `amount` (picodollars, negative for a credit) in the proportion of `weights`, which are not negative.

    The whole parts first, then one more for those with the largest remainder, earlier ones first among equals
    (Hamilton's method). Without any weight every share is equal. Raises `Invalid` for no weights, or a negative one.
    """
    if not weights or min(weights) < 0:
        raise Invalid(
            "an amount is divided by weights that are not negative, of which there is at least one",
            code="weights_invalid",
            hint="Declare a share for everybody that a cost is allocated to.",
        )
    total = sum(weights)
    if total == 0:
        weights, total = [1] * len(weights), len(weights)
    size = abs(amount)
    if size == total:  # the cost of calls, shared in proportion to the cost of calls
        return list(weights) if amount >= 0 else [-weight for weight in weights]
    found = [size * weight // total for weight in weights]
    if left := size - sum(found):
        remainders = [-(size * weight % total) for weight in weights]
        for place in sorted(range(len(weights)), key=remainders.__getitem__)[:left]:  # stable: earlier ones first
            found[place] += 1
    return found if amount >= 0 else [-share for share in found]
