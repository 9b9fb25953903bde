"""What an accepted outcome cost, beside the baseline of its workflow, and what it returned. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from groundplan.core.money import ceil_div, short_usd


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What was reported of the calls of a workload in a time."""

    reported: int = 0
    accepted: int = 0
    value: int = 0
    """picodollars"""


@dataclass(frozen=True, slots=True)
class Worth:
    """Picodollars; None where there is nothing to say."""

    cost_per_accepted: int | None
    baseline: int | None
    """What a case cost before."""
    saved: int | None
    """Of all accepted outcomes together, against the baseline; negative where it costs more now."""
    returned: float | None
    """Value (reported, else saved) for each dollar."""


def worth(cost: int, outcomes: Outcomes, baseline: int | None) -> Worth:
    """`cost` is everything that the workload carries in that time."""
    each = ceil_div(cost, outcomes.accepted) if outcomes.accepted else None
    saved = None if baseline is None or not outcomes.accepted else baseline * outcomes.accepted - cost
    value = outcomes.value or (baseline * outcomes.accepted if baseline is not None else 0)
    return Worth(each, baseline, saved, value / cost if cost and value else None)


def baseline_cost(cost_per_case: int | None, minutes: float | None, wage: int | None) -> int | None:
    """A case's cost before: as declared, else its minutes at the wage of an hour (picodollars)."""
    if cost_per_case is not None:
        return cost_per_case
    if minutes is None or wage is None:
        return None
    return round(minutes * wage / 60)


def baseline_rule(cost_per_case: int | None, minutes: float | None, wage: int | None, measured: str = "") -> str:
    """How a case's cost before came about, in words; it is estimated, since nobody records those minutes here."""
    since = f", as it was on {measured}" if measured else ""
    if cost_per_case is not None:
        return f"the declared cost of a case{since}"
    if minutes is None or wage is None:
        return ""
    return f"{minutes:g} declared minutes of a case x {short_usd(wage)} an hour{since}"
