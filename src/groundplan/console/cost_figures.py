"""From the API's daily costs and budgets to the figures of the cost page. Pure; amounts stay exact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any


@dataclass(frozen=True, slots=True)
class CostRow:
    """What one workload cost, USD with 12 decimals."""

    workload: str
    today_usd: str
    month_usd: str
    calls_today: int
    calls_month: int


@dataclass(frozen=True, slots=True)
class BudgetView:
    """A budget in its period. `used` is 0..1 of the limit, for the bar; `left_usd` is never below zero."""

    name: str
    period: str
    limit_usd: str
    spent_usd: str
    left_usd: str
    used: float
    served: bool = True
    """False: it is only declared, and counts from when its workload is served."""
    near: bool = False
    """Nearly used up, as /api/limits says."""
    share: float = 0.0
    """What is spent of the limit; above 1 where a budget that warns was crossed."""
    covers: str = ""
    hard: bool = True
    """False: it warns, and refuses nothing."""


def rows(days: Sequence[dict[str, Any]], today: str) -> tuple[CostRow, ...]:
    """One row for each workload, the dearest of the month first. `today` is an ISO date, UTC."""
    found: dict[str, list[Decimal]] = {}
    for day in days:
        if day["day"][:7] != today[:7]:
            continue
        row = found.setdefault(day["workload"], [Decimal(0)] * 4)
        cost, calls = Decimal(day["cost_usd"]), Decimal(day["calls"])
        row[1] += cost
        row[3] += calls
        if day["day"] == today:
            row[0] += cost
            row[2] += calls
    ordered = sorted(found.items(), key=lambda item: (-item[1][1], item[0]))
    return tuple(CostRow(name, f"{r[0]:.12f}", f"{r[1]:.12f}", int(r[2]), int(r[3])) for name, r in ordered)


def saving(workloads: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    """Rows of /api/cost of workloads for which anything was saved, with the share of their calls that were answered
    from the cache; what saved most first."""
    found = [
        {**row, "cached_share": f"{100 * row['cached'] / max(1, row['calls']):.0f} %"}
        for row in workloads
        if row["cached"] or Decimal(row["prefix_saved_usd"])
    ]
    return tuple(sorted(found, key=lambda row: (-Decimal(row["saved_usd"]), row["workload"])))


def total(shown: Sequence[CostRow]) -> CostRow:
    """The sum of all rows."""
    return CostRow(
        "all workloads",
        f"{sum((Decimal(row.today_usd) for row in shown), Decimal(0)):.12f}",
        f"{sum((Decimal(row.month_usd) for row in shown), Decimal(0)):.12f}",
        sum(row.calls_today for row in shown),
        sum(row.calls_month for row in shown),
    )


def budget(row: dict[str, Any]) -> BudgetView:
    """A budget as /api/limits or /api/workloads/NAME tells it."""
    limit, spent = Decimal(row["limit_usd"]), Decimal(row["spent_usd"])
    left = max(Decimal(0), limit - spent)
    used = 1.0 if limit == 0 else float(min(Decimal(1), spent / limit))
    return BudgetView(
        row.get("title") or row.get("budget") or row["name"],
        row["period"],
        f"{limit:.12f}",
        f"{spent:.12f}",
        f"{left:.12f}",
        used,
        row.get("served", True),
        row.get("near", False),
        row.get("share", used),
        row["title"] if "title" in row and row["covers"] == row["budget"] else row.get("covers", ""),
        row.get("hard", True),
    )


def unusual(anomalies: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the chart marks above the day on which it began: [{day, message}], one mark a day."""
    found: dict[str, str] = {}
    for row in anomalies:
        day = str(row["detail"].get("since") or row["at"])[:10]
        found[day] = f"{found[day]} {row['message']}" if day in found else row["message"]
    return [{"day": day, "message": message} for day, message in sorted(found.items())]
