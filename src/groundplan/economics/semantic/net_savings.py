"""Net savings of the semantic cache: avoided cost, less the cost of look-ups and of wrong answers. Pure.

A look-up costs its measured time at the declared price of a processor. Wrong answers are estimated from the checked
ones: the share found wrong (with few checks filled up with the declared bound), times the answers given.
"""

from __future__ import annotations

from dataclasses import dataclass

HOUR_US = 3_600_000_000
LEAST = 30
"""Checks from which on the share of wrong answers is that of the checks alone."""


@dataclass(frozen=True, slots=True)
class LookupTotals:
    """Of one workload in a period: counts, microseconds of all look-ups (`spent_us`), and picodollars that the answers
    given had cost (`saved`)."""

    looked: int
    given: int
    checked: int
    wrong: int
    spent_us: int
    saved: int


@dataclass(frozen=True, slots=True)
class NetSavings:
    """Picodollars. `wrong_answers`: how many of the answers given are expected to be wrong."""

    saved: int
    lookups: int
    wrong_answers: float
    wrong: int

    @property
    def net(self) -> int:
        return self.saved - self.lookups - self.wrong


def net_savings(done: LookupTotals, bound: float, hour: int, wrong_cost: int) -> NetSavings:
    """Compute net savings. `bound`: declared share of wrong answers; `hour`: picodollars of a processor hour;
    `wrong_cost`: picodollars of a wrong answer. With few checks, `LEAST` more with that share of wrong ones are
    added."""
    checks = done.checked + LEAST if done.checked < LEAST else done.checked
    found = done.wrong + bound * LEAST if done.checked < LEAST else float(done.wrong)
    share = min(1.0, found / checks)
    expected = share * done.given
    return NetSavings(done.saved, done.spent_us * hour // HOUR_US, expected, round(expected * wrong_cost))
