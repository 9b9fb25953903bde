"""Explains why a cost differs from that of an earlier period: more calls, more tokens in each, or another price. Pure;
the parts sum to the difference."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from groundplan.core.money import short_usd

MIN_PART: Final = 10
"""Parts below 1/MIN_PART of the difference are left out."""


@dataclass(frozen=True, slots=True)
class TermCost:
    """The cost of one term in one period. `units`: what its price is for, such as tokens; 0: it has none."""

    amount: int
    units: int = 0
    calls: int = 0
    unit: str = ""


def explain_change(then: TermCost, now: TermCost) -> str:
    """The change in words, the largest part first; empty if there is none."""
    difference = now.amount - then.amount
    if not difference:
        return ""
    if not then.amount or not now.amount:
        return "it is new" if now.amount else "there is none any more"
    parts = sorted(_parts(then, now), key=lambda part: -abs(part[0]))
    large = [part for part in parts if abs(part[0]) * MIN_PART >= abs(difference)]
    return ", ".join(f"{text} ({'+' if amount > 0 else '-'}{short_usd(abs(amount))})" for amount, text in large)


def _parts(then: TermCost, now: TermCost) -> Iterator[tuple[int, str]]:
    """(picodollars, text)"""
    explained, per_call = Fraction(then.amount), ""
    if then.calls and now.calls:
        growth = Fraction(now.calls, then.calls)
        yield round(explained * (growth - 1)), f"{_change(growth, 'more', 'fewer')} calls"
        explained, per_call = explained * growth, " a call"
    if then.units and now.units:
        growth = Fraction(now.units, then.units) / (Fraction(now.calls, then.calls) if per_call else 1)
        yield (
            round(explained * (growth - 1)),
            f"{_change(growth, 'more', 'fewer')} {(now.unit or 'units').lower()}{per_call}",
        )
        explained *= growth
        what = f"each of the {(now.unit or 'units').lower()} cost"
    else:
        what = f"what is carried of it{per_call} is"
    yield round(now.amount - explained), f"{what} {_change(now.amount / explained, 'more', 'less')}"


def _change(ratio: Fraction, up: str, down: str) -> str:
    return f"{abs(float(ratio) - 1):,.0%} {up if ratio >= 1 else down}"
