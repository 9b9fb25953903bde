"""The pages of Cost: the month, every term, a workload, what is ahead, and each team's statement. They decide nothing.

From the company to one call in four clicks: Cost, a workload, its calls, the receipt.
"""

from __future__ import annotations

from calendar import monthrange
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from urllib.parse import quote, urlencode

from fastapi import Request
from fastapi.responses import HTMLResponse, Response

from groundplan.api.http.lazy_routes import lazy_router
from groundplan.console import charts, cost_charts
from groundplan.console.cost_figures import anomaly_rows, budget_view, daily_rows, savings_by_workload, total_row
from groundplan.console.pages import fetch_all
from groundplan.console.pagination import search_page
from groundplan.console.render import VisitorDep, fetch_json, render_for, visitor_api

router = lazy_router(include_in_schema=False, default_response_class=HTMLResponse)
DIMENSIONS = (
    "term", "workload", "workflow", "team", "provider", "site", "deployment", "model", "tier", "feature", "prompt",
    "source", "person", "tag", "basis",
)  # fmt: skip
EMPTY_KEYS = {
    "workload": "no workload", "feature": "no feature", "prompt": "no prompt", "source": "no documents",
    "person": "no person", "team": "no team", "workflow": "no workflow", "tier": "standard",
    "tag": "a key without tags",
}  # fmt: skip
"""Dimension -> label for an empty key."""
MEASURES = ("cost", "calls", "tokens")
NO_ENDS: dict[str, Any] = {"budgets": [], "more": 0}


@router.get("/cost")
async def cost(request: Request, visitor: VisitorDep) -> HTMLResponse:
    found = await fetch_all(
        visitor, days="/api/cost/days", cost="/api/cost", use="/api/limits", anomalies="/api/cost/anomalies"
    )
    shown = daily_rows(found["days"], datetime.now(UTC).date().isoformat())
    values = {
        "cost": found["cost"],
        "saving": savings_by_workload(found["cost"]["by_workload"]),
        "part": search_page(request, shown, lambda row: row.workload),
        "total": total_row(shown),
        "budgets": [budget_view(row) for row in found["use"]["budgets"]],
        "limits": found["use"]["limits"],
        "chart": charts.cost_by_day(found["days"], anomaly_rows(found["anomalies"])) if shown else "",
        "anomalies": found["anomalies"][:8],
        "tab": "This month",
    }
    return await render_for(request, visitor, "cost.html", "/cost", **values)


@router.get("/cost/book")
async def book(
    request: Request, visitor: VisitorDep, by: str = "term", workload: str = "", month: str = ""
) -> HTMLResponse:  # fmt: skip
    """Every cost of a month, summed by a dimension."""
    by = by if by in DIMENSIONS else "term"
    span, of = _of_month(month)
    query = urlencode({"by": by, "lines": "true", **({"workload": workload} if workload else {}), **span})
    found = await fetch_all(visitor, book=f"/api/cost/book?{query}", sources=f"/api/cost/sources?{urlencode(span)}")
    if by == "term":
        found["book"]["sums"] = with_names(found["book"]["sums"])
    found["book"]["lines"] = largest_lines(found["book"]["lines"])
    values = {
        **found,
        "by": by,
        "workload": workload,
        "dimensions": DIMENSIONS,
        "nothing": EMPTY_KEYS.get(by, "none"),
        "chart": cost_charts.cost_waterfall(found["book"]["sums"], EMPTY_KEYS.get(by, "none")),
        "tab": "All costs",
        **of,
    }
    return await render_for(request, visitor, "cost_book.html", "/cost", **values)


def with_names(sums: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sums by term with readable terms: `site_visits` becomes `site visits`."""
    return [{**row, "key": row["key"] and row["key"].replace("_", " ")} for row in sums]


def largest_lines(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines of a cost book, the most expensive first, credits last."""
    return sorted(lines, key=lambda line: -Decimal(line["cost_usd"]))


@router.get("/cost/workload/{name}")
async def workload(request: Request, visitor: VisitorDep, name: str, month: str = "") -> HTMLResponse:
    """The page of one workload: components of its calls' cost, callers, and the cost of its outcomes in a month."""
    span, of = _of_month(month)
    one = urlencode({"workload": name, **span})
    found = await fetch_all(
        visitor,
        book=f"/api/cost/book?by=term&lines=true&{one}",
        people=f"/api/cost/people?{one}",
        features=f"/api/cost/features?{one}",
        worth=f"/api/cost/outcomes?{urlencode(span)}",
        tickets=f"/api/cost/tickets?{one}",
    )
    if not found["book"]["sums"] and not found["people"]:
        await fetch_all(
            visitor, declared=f"/api/workloads/{quote(name, safe='')}"
        )  # one that was removed keeps its costs
    found["book"]["lines"] = largest_lines(found["book"]["lines"])
    several = [row for row in found["worth"]["workflows"] if name in row["workloads"] and len(row["workloads"]) > 1]
    values = {
        **found,
        "name": name,
        "ticket": next(iter(found["tickets"]), None),
        "outcome": next((row for row in found["worth"]["outcomes"] if row["workload"] == name), None),
        "workflow": next(iter(several), None),
        "chart": cost_charts.cost_waterfall(with_names(found["book"]["sums"])),
        "tab": "",
        **of,
    }
    return await render_for(request, visitor, "cost_workload.html", "/cost", **values)


@router.get("/cost/ahead")
async def ahead(
    request: Request, visitor: VisitorDep, what: str = "cost", workload: str = "", changes: str = "", model: str = ""
) -> HTMLResponse:
    """The next month with its interval, where budgets end, and what this month would have cost otherwise."""
    what = what if what in MEASURES else "cost"
    one = f"?{urlencode({'workload': workload})}" if workload else ""
    query = urlencode({"what": what, "days": 30, **({"workload": workload} if workload else {})})
    reply = await visitor.api.get(f"/api/cost/forecast?{query}")
    made = reply.body if reply.ok else None
    known = reply.ok or reply.body["error"]["code"] != "workload_unknown"
    ends = {"ends": f"/api/cost/runway{one}"} if known else {}
    found = {"ends": NO_ENDS, **await fetch_all(visitor, **ends, names="/api/names", own="/api/cost/own")}
    covers = f"workload/{workload}" if workload else "company"
    mine = [row for row in found["ends"]["budgets"] if row["covers"] == covers and row["a_day_usd"] is not None]
    line = min(mine, key=lambda row: float(row["a_day_usd"]), default=None) if what == "cost" else None
    values = {
        "made": made,
        "missing": None if reply.ok else reply.body["error"],
        "what": what,
        "whats": MEASURES,
        "workload": workload,
        # one that is not served any more keeps its costs, and its place in the choice while it is shown
        "workloads": sorted({*found["names"]["workloads"], *([workload] if made and workload else [])}),
        "budgets": found["ends"]["budgets"],
        "more": found["ends"]["more"],
        "own": found["own"],
        "line": line,
        "drawn": line is not None and made is not None and cost_charts.is_within(made, float(line["a_day_usd"])),
        "chart": cost_charts.forecast_chart(made, float(line["a_day_usd"]) if line else None) if made else "",
        **await _scenario(request, visitor, workload, changes[:400], model[:128]),
        "tab": "Forecast",
    }
    return await render_for(request, visitor, "cost_ahead.html", "/cost", **values)


async def _scenario(request: Request, visitor: VisitorDep, workload: str, changes: str, model: str) -> dict[str, Any]:
    """What the form repeats, and the answer to it: `scenario`, or `problem`."""
    asked = {"changes": changes, "model": model, "scenario": None, "problem": None}
    if not (changes.strip() or model.strip()):
        return asked
    body = {"changes": changes.split(), "model": model.strip() or None, "workload": workload or None}
    reply = await visitor_api(request, visitor.csrf).post("/api/cost/what-if", body)
    return {**asked, "scenario": reply.body} if reply.ok else {**asked, "problem": reply.problem}


@router.get("/cost/statements")
async def statements(request: Request, visitor: VisitorDep, month: str = "", charge: bool = False) -> HTMLResponse:
    """Each team's month, shown or charged; together exactly what was spent."""
    months = _months(datetime.now(UTC))
    month = month if month in months else months[0]
    query = urlencode({"month": month, "charge": str(charge).lower(), "lines": "false"})
    found = await fetch_all(visitor, made=f"/api/cost/statements?{query}")
    values = {**found["made"], "month": month, "months": months, "charge": charge, "tab": "Statements"}
    return await render_for(request, visitor, "cost_statements.html", "/cost", **values)


@router.get("/cost/statements/print")
async def printed(request: Request, visitor: VisitorDep, team: str, month: str, charge: bool = False) -> HTMLResponse:
    """One team's statement on a page of its own, to be printed or kept."""
    query = urlencode({"month": month, "team": team, "charge": str(charge).lower()})
    found = await fetch_all(visitor, statements=f"/api/cost/statements?{query}")
    made: list[dict[str, Any]] = found["statements"]
    values = {
        "statement": made[0] if made else None, "team": team, "month": month, "charge": charge, "tab": "Statements",
    }  # fmt: skip
    return await render_for(request, visitor, "cost_statement.html", "/cost", **values)


@router.get("/cost/files/{name}")
async def files(visitor: VisitorDep, name: str, team: str = "", month: str = "", charge: bool = False) -> Response:
    """FOCUS and a team's lines as files; the API makes them."""
    file, path = "focus.csv", f"/api/cost/focus.csv?{urlencode(_of_month(month)[0])}"
    if name != file:
        kind = "pdf" if name.endswith(".pdf") else "csv"
        query = {"team": team, "charge": str(charge).lower(), **({"month": month} if month else {})}
        file, path = (
            "-".join(filter(None, ("statement", _plain(team), month))) + f".{kind}",
            f"/api/cost/statements.{kind}?{urlencode(query)}",
        )
    body = await fetch_json(visitor, path)
    headers = {"Content-Disposition": f'attachment; filename="{file}"'}
    media = "application/pdf" if file.endswith(".pdf") else "text/csv; charset=utf-8"
    return Response(body, media_type=media, headers=headers)


def _plain(name: str) -> str:
    """As part of a file's name."""
    return "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in name)[:80].strip("-")


def _of_month(month: str) -> tuple[dict[str, str], dict[str, Any]]:
    """(first and last day of one of the last twelve months, as the API is asked for them, up to today; `month` and
    `months` of the page). Any other is this one."""
    now = datetime.now(UTC)
    months = _months(now)
    month = month if month in months else months[0]
    first = date.fromisoformat(f"{month}-01")
    last = min(now.date(), first.replace(day=monthrange(first.year, first.month)[1]))
    return {"first": first.isoformat(), "last": last.isoformat()}, {"month": month, "months": months}


def _months(now: datetime) -> list[str]:
    """This month and eleven before it, the newest first."""
    place = now.year * 12 + now.month - 1
    return [f"{(place - back) // 12}-{(place - back) % 12 + 1:02d}" for back in range(12)]
