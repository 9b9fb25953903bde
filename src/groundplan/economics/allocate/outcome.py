"""Cost of an accepted outcome, compared with the baseline of its workflow, and the return on that cost. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from groundplan.core.money import ceil_div, short_usd


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Reported outcomes of a workload's calls in a period."""

    reported: int = 0
    accepted: int = 0
    value: int = 0
    """picodollars"""


@dataclass(frozen=True, slots=True)
class OutcomeValue:
    """Picodollars; None: unknown."""

    cost_per_accepted: int | None
    baseline: int | None
    """Cost of a case before AI."""
    saved: int | None
    """Savings of all accepted outcomes against the baseline; negative if cases cost more now."""
    returned: float | None
    """Value (reported, else the baseline) per dollar spent."""


def outcome_value(cost: int, outcomes: Outcomes, baseline: int | None) -> OutcomeValue:
    """Compute the value of outcomes. `cost`: all costs of the workload in the period; `baseline`: cost of a case
    before."""
    each = ceil_div(cost, outcomes.accepted) if outcomes.accepted else None
    saved = None if baseline is None or not outcomes.accepted else baseline * outcomes.accepted - cost
    value = outcomes.value or (baseline * outcomes.accepted if baseline is not None else 0)
    return OutcomeValue(each, baseline, saved, value / cost if cost and value else None)


def baseline_cost(cost_per_case: int | None, minutes: float | None, wage: int | None) -> int | None:
    """Cost of a case before: as declared, else its minutes at an hourly wage (picodollars)."""
    if cost_per_case is not None:
        return cost_per_case
    if minutes is None or wage is None:
        return None
    return round(minutes * wage / 60)


def baseline_rule(cost_per_case: int | None, minutes: float | None, wage: int | None, measured: str = "") -> str:
    """How `baseline_cost` was computed, in words. It is an estimate: Groundplan does not measure those minutes."""
    since = f", as it was on {measured}" if measured else ""
    if cost_per_case is not None:
        return f"the declared cost of a case{since}"
    if minutes is None or wage is None:
        return ""
    return f"{minutes:g} declared minutes of a case x {short_usd(wage)} an hour{since}"
