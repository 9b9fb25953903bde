"""Cost, quality and latency of each model and route of a workload, with intervals. Pure.

A point summarises observed calls. Without outcomes, quality is the declared score of the model, else unknown. The
frontier are the points that no other beats in cost and quality together; `unbeaten` are those that no other beats in
cost, quality, time and risk together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, floor, sqrt
from statistics import NormalDist

Z = NormalDist().inv_cdf(0.975)
LEAST = 5
"""Fewest calls of a point."""


@dataclass(frozen=True, slots=True)
class AnsweredCall:
    """One answered call. `route`: how its model was chosen, or empty; `accepted`: its outcome, or None."""

    model: str
    route: str
    cost: float
    """US dollars."""
    milliseconds: float
    """Time to the first output."""
    accepted: bool | None


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Point:
    """A model or a route. `kind`: model | route; `quality_from`: accepted | declared | unknown."""

    name: str
    kind: str
    calls: int
    cost: Interval
    quality: Interval | None
    quality_from: str
    p50_ms: float
    p95_ms: float
    risk: str
    share: float
    """Share of all observed calls."""
    p95: Interval
    """Milliseconds; by order statistics, so it ends at the slowest call where there are few."""
    today: bool = False
    """Whether it takes most calls now, among models or among routes."""
    frontier: bool = False
    unbeaten: bool = False


def points(
    calls: Sequence[AnsweredCall],
    declared: Mapping[str, float],
    risks: Mapping[str, str],
    now: Sequence[AnsweredCall] = (),
) -> list[Point]:
    """Models, then routes, the cheapest first. `declared`: model -> quality; `now`: recent calls that tell today's
    choice (without any: all calls)."""
    found: list[Point] = []
    for kind in ("model", "route"):
        names = sorted({_name(each, kind) for each in calls} - {""})
        made = [_point(name, kind, calls, declared, risks) for name in names]
        kept = [point for point in made if point is not None]
        found += _mark_today(kept, kind, now or calls)
    return _with_frontier(found)


def _name(call: AnsweredCall, kind: str) -> str:
    return call.model if kind == "model" else call.route


def _point(
    name: str, kind: str, calls: Sequence[AnsweredCall], declared: Mapping[str, float], risks: Mapping[str, str]
) -> Point | None:
    mine = [each for each in calls if _name(each, kind) == name]
    if len(mine) < LEAST:
        return None
    said = [each.accepted for each in mine if each.accepted is not None]
    known = {declared[each.model] for each in mine if each.model in declared}
    quality: Interval | None = None
    source = "unknown"
    if len(said) >= LEAST:
        quality, source = share_interval(sum(said), len(said)), "accepted"
    elif len(known) == 1:
        (only,) = known
        quality, source = Interval(only, only, only), "declared"
    times = sorted(each.milliseconds for each in mine)
    worst = max((risks.get(each.model, "") for each in mine), key=_RISKS.index)
    return Point(
        name, kind, len(mine), mean_interval([each.cost for each in mine]), quality, source,
        _quantile(times, 0.5), _quantile(times, 0.95), worst, len(mine) / len(calls), _p95_interval(times),
    )  # fmt: skip


_RISKS = ("", "low", "medium", "high", "severe")


def _quantile(ordered: Sequence[float], part: float) -> float:
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def _p95_interval(ordered: Sequence[float]) -> Interval:
    """The 95th percentile with its 95 % interval by order statistics."""
    count, part = len(ordered), 0.95
    half = Z * sqrt(count * part * (1 - part))
    low, high = floor(part * count - half), ceil(part * count + half)
    return Interval(_quantile(ordered, part), ordered[max(0, low - 1)], ordered[min(count - 1, high)])


def _mark_today(found: Iterable[Point], kind: str, now: Sequence[AnsweredCall]) -> list[Point]:
    counts: dict[str, int] = {}
    for each in now:
        counts[_name(each, kind)] = counts.get(_name(each, kind), 0) + 1
    found = sorted(found, key=lambda point: (point.cost.mean, point.name))
    most = max(found, key=lambda point: counts.get(point.name, 0), default=None)
    return [replace(point, today=point is most) for point in found]


def _with_frontier(found: Sequence[Point]) -> list[Point]:
    """Mark points that no other dominates: none costs at most as much and is at least as good, and better in one."""
    known = [(point.cost.mean, point.quality.mean) for point in found if point.quality is not None]

    def beaten(cost: float, quality: float) -> bool:
        return any(c <= cost and q >= quality and (c < cost or q > quality) for c, q in known)

    every = [(point.kind, _objectives(point)) for point in found if point.quality is not None]
    return [
        replace(
            point,
            frontier=not beaten(point.cost.mean, point.quality.mean),
            unbeaten=not any(kind == point.kind and _dominates(goods, _objectives(point)) for kind, goods in every),
        )
        if point.quality is not None
        else point
        for point in found
    ]


def _objectives(point: Point) -> tuple[float, ...]:
    """Objectives of which less is better. An unassessed risk beats no other."""
    quality = 0.0 if point.quality is None else point.quality.mean
    return point.cost.mean, -quality, point.p95_ms, _RISKS.index(point.risk) or len(_RISKS)


def _dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))


def mean_interval(values: Sequence[float]) -> Interval:
    """By the normal distribution; costs cannot be negative."""
    count, middle = len(values), sum(values) / len(values)
    if count < 2:
        return Interval(middle, middle, middle)
    error = sqrt(sum((value - middle) ** 2 for value in values) / (count - 1) / count)
    return Interval(middle, max(0.0, middle - Z * error), middle + Z * error)


def share_interval(good: int, count: int) -> Interval:
    """A share with Wilson's interval (1927), of 95 %, at one look."""
    p, z2 = good / count, Z * Z
    middle = (p + z2 / (2 * count)) / (1 + z2 / count)
    half = Z * sqrt(p * (1 - p) / count + z2 / (4 * count * count)) / (1 + z2 / count)
    return Interval(
        p, min(p, max(0.0, middle - half)), max(p, min(1.0, middle + half))
    )  # of all or none they round past it
