"""Whether a plan still holds: expected figures against measured ones, on a control chart for each figure.

Each figure of each day is compared as the logarithm of measured over expected, on an exponentially weighted moving
average (S. W. Roberts, "Control Chart Tests Based on Geometric Moving Averages", Technometrics 1(3), 1959; weight 0.3,
limits three standard deviations of the average). The deviation is estimated from moving ranges of the days themselves,
and is at least 10 % a day. Drift is material where the average leaves its limits for two days and is more than 15 %
off; it is reported once, and ends when the average comes back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import exp, log, sqrt
from typing import Any

from groundplan.ledger.finding import Finding, Severity
from groundplan.placement.explain.words import format_usd

WEIGHT = 0.3
LIMITS = 3.0
MIN_DEVIATION = 0.10
MATERIAL = 0.15
MIN_DAYS = 3
FIGURES = ("usd_day", "calls_day", "first_token_ms", "unit_usd", "availability")
NAMES = {
    "usd_day": "cost a day",
    "calls_day": "calls a day",
    "first_token_ms": "time to the first token",
    "unit_usd": "cost of a call",
    "availability": "attempts that answer",
}


@dataclass(frozen=True, slots=True)
class Point:
    """One day on a chart, as factors on the expected value."""

    day: str
    seen: float
    average: float
    low: float
    high: float

    @property
    def is_outside(self) -> bool:
        return not self.low <= self.average <= self.high


@dataclass(frozen=True, slots=True)
class Chart:
    """One figure of one workload."""

    workload: str
    figure: str
    expected: float
    points: tuple[Point, ...]

    @property
    def newest_factor(self) -> float:
        """The newest average as a factor on the expected value."""
        return self.points[-1].average if self.points else 1.0

    @property
    def has_drifted(self) -> bool:
        """Whether the average has been outside its limits for two days and is materially off: one bad day does not
        count."""
        if len(self.points) < MIN_DAYS:
            return False
        return (
            self.points[-1].is_outside
            and self.points[-2].is_outside
            and abs(log(self.newest_factor)) > log(1 + MATERIAL)
        )


def build_chart(workload: str, figure: str, expected: float, days: Sequence[tuple[str, float]]) -> Chart:
    """The chart of one figure; days without a positive value are left out."""
    used = [(day, value) for day, value in days if value > 0] if expected > 0 else []
    logs = [log(value / expected) for _, value in used]
    ranges = [abs(b - a) for a, b in pairwise(logs)]
    # the mean moving range of two normal values is 1.128 deviations
    deviation = max(MIN_DEVIATION, sum(ranges) / len(ranges) / 1.128 if ranges else MIN_DEVIATION)
    points: list[Point] = []
    average = 0.0
    for number, ((day, _), value) in enumerate(zip(used, logs, strict=True), 1):
        average = WEIGHT * value + (1 - WEIGHT) * average
        variance_factor = WEIGHT / (2 - WEIGHT) * (1 - (1 - WEIGHT) ** (2 * number))
        width = LIMITS * deviation * sqrt(variance_factor)
        points.append(Point(day, exp(value), exp(average), exp(-width), exp(width)))
    return Chart(workload, figure, expected, tuple(points))


def build_charts(
    expected: Mapping[str, Mapping[str, float]], seen: Mapping[str, Sequence[Mapping[str, Any]]]
) -> list[Chart]:
    """A chart for each expected figure of a workload."""
    found = []
    for workload, figures in sorted(expected.items()):
        for figure in FIGURES:
            if figure in figures:
                days = [(str(d["day"]), float(d[figure])) for d in seen.get(workload, ()) if d.get(figure) is not None]
                found.append(build_chart(workload, figure, figures[figure], days))
    return found


def matching_charts(found: Sequence[Chart], search: str = "") -> list[Chart]:
    """The charts with days whose workload and figure contain every word of `search`, drifting ones first."""
    words = search.lower().split()
    named = [each for each in found if all(word in f"{each.workload} {NAMES[each.figure]}".lower() for word in words)]
    return sorted((each for each in named if each.points), key=lambda each: not each.has_drifted)


def drift_findings(
    found: Sequence[Chart], owners: Mapping[str, str | None], replan: Mapping[str, Any] | None
) -> list[Finding]:
    """One finding for each workload that drifts, with the re-plan as its fix."""
    drifting: dict[str, list[Chart]] = {}
    for each in found:
        if each.has_drifted:
            drifting.setdefault(each.workload, []).append(each)
    return [_finding(name, each, owners.get(name), replan) for name, each in sorted(drifting.items())]


def _finding(name: str, found: Sequence[Chart], owner: str | None, replan: Mapping[str, Any] | None) -> Finding:
    worst = max(found, key=lambda each: abs(log(each.newest_factor)))
    severity: Severity = "high" if abs(log(worst.newest_factor)) > log(2) else "medium"
    return Finding(
        kind="placement.drift",
        subject=f"workload/{name}",
        message="; ".join(describe_drift(each) for each in found),
        hint=f"`groundplan placement drift` shows it; the re-plan: {_replan_words(name, replan)}",
        severity=severity,
        owner=owner,
        detail={each.figure: {"expected": each.expected, "factor": round(each.newest_factor, 4)} for each in found},
        fix=None if replan is None else _replan_excerpt(name, replan),
    )


def _replan_words(name: str, replan: Mapping[str, Any] | None) -> str:
    moves = [each for each in (replan or {}).get("flips", []) if each["workload"] == name]
    if not moves or moves[0]["after"] is None:
        return "the place stays right at what is seen."
    return f"{moves[0]['after']['config']} at {moves[0]['after']['site']}."


def _replan_excerpt(name: str, replan: Mapping[str, Any]) -> dict[str, Any]:
    """The part of the re-plan about one workload, with its total cost: with the whole re-plan in every finding, the
    findings of thousands of workloads would be gigabytes."""
    first, *rest = replan["words"]
    return {
        "flips": [each for each in replan["flips"] if each["workload"] == name],
        "difference_usd_month": replan["difference_usd_month"],
        "words": [first, *(line for line in rest if line.startswith(f"{name} "))],
        "demand": {key: value for key, value in replan["demand"].items() if key == name},
    }


def describe_drift(found: Chart) -> str:
    """`cost a day is 1.8 times what was planned ($12.00)`."""
    shown = f"{found.expected:,.4g}"
    if "usd" in found.figure:
        shown = format_usd(found.expected) if found.expected >= 0.1 else f"${found.expected:.2g}"
    return f"{NAMES[found.figure]} is {found.newest_factor:.2f} times what was planned ({shown})"


def to_json(found: Chart) -> dict[str, Any]:
    return {
        "workload": found.workload,
        "figure": found.figure,
        "name": NAMES[found.figure],
        "expected": found.expected,
        "factor": round(found.newest_factor, 4),
        "drifts": found.has_drifted,
        "points": [
            {
                "day": p.day,
                "seen": round(p.seen, 4),
                "average": round(p.average, 4),
                "low": round(p.low, 4),
                "high": round(p.high, 4),
            }
            for p in found.points
        ],
    }
