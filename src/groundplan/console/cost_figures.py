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
    """False if it is only declared; it counts once its workload is served."""
    near: bool = False
    """Whether it is nearly used up, from /api/limits."""
    share: float = 0.0
    """The spent share of the limit; above 1 where a soft budget was crossed."""
    covers: str = ""
    hard: bool = True
    """False for a soft budget, which warns and refuses nothing."""


def daily_rows(days: Sequence[dict[str, Any]], today: str) -> tuple[CostRow, ...]:
    """One row for each workload, the most expensive of the month first. `today` is an ISO date, UTC."""
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


def savings_by_workload(workloads: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    """Rows of /api/cost of workloads with savings, and the share of their calls that the cache answered; the largest
    savings first."""
    found = [
        {**row, "cached_share": f"{100 * row['cached'] / max(1, row['calls']):.0f} %"}
        for row in workloads
        if row["cached"] or Decimal(row["prefix_saved_usd"])
    ]
    return tuple(sorted(found, key=lambda row: (-Decimal(row["saved_usd"]), row["workload"])))


def total_row(shown: Sequence[CostRow]) -> CostRow:
    """The sum of all rows."""
    return CostRow(
        "all workloads",
        f"{sum((Decimal(row.today_usd) for row in shown), Decimal(0)):.12f}",
        f"{sum((Decimal(row.month_usd) for row in shown), Decimal(0)):.12f}",
        sum(row.calls_today for row in shown),
        sum(row.calls_month for row in shown),
    )


def budget_view(row: dict[str, Any]) -> BudgetView:
    """The view of a budget from /api/limits or /api/workloads/NAME."""
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


def anomaly_rows(anomalies: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Marks for the chart of days: `[{"day", "message"}]`, one for each day on which anomalies began."""
    found: dict[str, str] = {}
    for row in anomalies:
        day = str(row["detail"].get("since") or row["at"])[:10]
        found[day] = f"{found[day]} {row['message']}" if day in found else row["message"]
    return [{"day": day, "message": message} for day, message in sorted(found.items())]
