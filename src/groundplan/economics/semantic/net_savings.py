"""What the semantic cache really saves: what they avoided, less what looking up and wrong answers cost. Pure.

Looking up is its measured time at the declared price of a processor. Wrong answers are estimated from the checked ones:
the share that was found wrong (at first none of none: then what the bound allows), times the answers that were given.
"""

from __future__ import annotations

from dataclasses import dataclass

HOUR_US = 3_600_000_000
LEAST = 30
"""Checks before the share of wrong ones is that of the checks alone."""


@dataclass(frozen=True, slots=True)
class LookupTotals:
    """Of one workload in a time: counts, microseconds of all look-ups, picodollars that answers given had cost."""

    looked: int
    given: int
    checked: int
    wrong: int
    spent_us: int
    saved: int


@dataclass(frozen=True, slots=True)
class NetSavings:
    """Picodollars. `wrong_answers`: how many are expected among those that were given."""

    saved: int
    lookups: int
    wrong_answers: float
    wrong: int

    @property
    def net(self) -> int:
        return self.saved - self.lookups - self.wrong


def net_savings(done: LookupTotals, bound: float, hour: int, wrong_cost: int) -> NetSavings:
    """`bound`: declared share of wrong answers; `hour`: picodollars of an hour of the processor; `wrong_cost`: of a
    wrong answer. With few checks the bound counts as `LEAST` checks that found that many wrong."""
    checks = done.checked + LEAST if done.checked < LEAST else done.checked
    found = done.wrong + bound * LEAST if done.checked < LEAST else float(done.wrong)
    share = min(1.0, found / checks)
    expected = share * done.given
    return NetSavings(done.saved, done.spent_us * hour // HOUR_US, expected, round(expected * wrong_cost))
