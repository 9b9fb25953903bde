"""Why a cost differs from that of an earlier time: more calls, more tokens in each, or another price. Pure; the parts
sum to the difference."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from groundplan.core.money import short_usd

TOLD: Final = 10
"""Parts below that share (1/TOLD) of the difference are not told."""


@dataclass(frozen=True, slots=True)
class Spent:
    """Of one term in one time. `units` are those that its price is of, such as tokens; 0: it has none."""

    amount: int
    units: int = 0
    calls: int = 0
    unit: str = ""


def why(then: Spent, now: Spent) -> str:
    """In words, the largest part first; empty where nothing changed."""
    difference = now.amount - then.amount
    if not difference:
        return ""
    if not then.amount or not now.amount:
        return "it is new" if now.amount else "there is none any more"
    parts = sorted(_parts(then, now), key=lambda part: -abs(part[0]))
    large = [part for part in parts if abs(part[0]) * TOLD >= abs(difference)]
    return ", ".join(f"{text} ({'+' if amount > 0 else '-'}{short_usd(abs(amount))})" for amount, text in large)


def _parts(then: Spent, now: Spent) -> Iterator[tuple[int, str]]:
    """(picodollars, what)"""
    told, each = Fraction(then.amount), ""
    if then.calls and now.calls:
        more = Fraction(now.calls, then.calls)
        yield round(told * (more - 1)), f"{_more(more, 'more', 'fewer')} calls"
        told, each = told * more, " a call"
    if then.units and now.units:
        more = Fraction(now.units, then.units) / (Fraction(now.calls, then.calls) if each else 1)
        yield round(told * (more - 1)), f"{_more(more, 'more', 'fewer')} {(now.unit or 'units').lower()}{each}"
        told *= more
        of = f"each of the {(now.unit or 'units').lower()} cost"
    else:
        of = f"what is carried of it{each} is"
    yield round(now.amount - told), f"{of} {_more(now.amount / told, 'more', 'less')}"


def _more(ratio: Fraction, up: str, down: str) -> str:
    return f"{abs(float(ratio) - 1):,.0%} {up if ratio >= 1 else down}"
