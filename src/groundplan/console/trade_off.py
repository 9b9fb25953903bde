"""The trade-off page: cost, quality and latency of each model and route of a workload."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

from fastapi import Request
from fastapi.responses import HTMLResponse

from groundplan.api.http.lazy_routes import lazy_router
from groundplan.console.charts import COLOURS, INK
from groundplan.console.cost_charts import svg
from groundplan.console.pages import fetch_all
from groundplan.console.render import VisitorDep, render_for

router = lazy_router(include_in_schema=False, default_response_class=HTMLResponse)
DAYS = (7, 30, 90)
RISKS = ("not assessed", "low", "medium", "high", "severe")
_RISK_COLOURS = (COLOURS[2], COLOURS[0], COLOURS[3], COLOURS[1], "#b5483f")


@router.get("/cost/trade-off")
async def trade_off(request: Request, visitor: VisitorDep, workload: str = "", days: int = 30) -> HTMLResponse:
    """The trade-off of one workload; without a name, of the one with the most calls today."""
    days = days if days in DAYS else 30
    callable_names = (await fetch_all(visitor, known="/api/names?called=true"))["known"]
    names = callable_names["workloads"]
    chosen = workload if workload in names else callable_names["most_called"]
    result: dict[str, Any] = {"points": [], "routed": False, "calls": 0, "floors": {}, "places": [], "quality": []}
    if chosen:
        query = urlencode({"workload": chosen, "days": days})
        result = (await fetch_all(visitor, made=f"/api/routing/trade-off?{query}"))["made"]
    values = {
        "made": result,
        "workload": chosen,
        "workloads": names,
        "days": days,
        "choices": DAYS,
        "chart": trade_off_chart(result["points"]),
        "tab": "Trade-off",
    }
    return await render_for(request, visitor, "trade_off.html", "/cost", **values)


def trade_off_chart(points: Sequence[dict[str, Any]]) -> str:
    """A chart of quality over the cost of a thousand calls: intervals as lines, latency as size, risk as colour, the
    frontier as a line, today's choices ringed. Points without a quality are left out. Empty without any point."""
    rows = _merge_close_labels([_chart_row(point) for point in points if point["quality"] is not None])
    if not rows:
        return ""
    import altair  # noqa: PLC0415 -- heavy, and only this page needs it

    data = altair.InlineData(values=rows)
    low = min(row["quality_low"] for row in rows)
    scale = altair.Scale(domain=[max(0.0, low - 0.05), 1.0], nice=False)
    cost_scale = altair.Scale(domain=[0.0, 1.3 * max(row["cost_high"] for row in rows) or 1.0], nice=False)
    x = altair.X("cost:Q", title="USD for 1,000 calls", scale=cost_scale, axis=altair.Axis(tickCount=5, format=".3~r"))
    y = altair.Y("quality:Q", title="quality", scale=scale, axis=altair.Axis(tickCount=5, format=".0%"))
    base = altair.Chart(data, width=620, height=320)
    on_frontier = altair.datum.frontier
    layers = [
        base.transform_filter(on_frontier).mark_line(color=INK, strokeDash=[5, 4], interpolate="step-after")
        .encode(x=x, y=y, order="cost:Q"),
        base.mark_rule(color=INK, opacity=0.7).encode(x=x, y=altair.Y("quality_low:Q", title="quality"),
                                                      y2="quality_high:Q"),
        base.mark_rule(color=INK, opacity=0.7).encode(x="cost_low:Q", x2="cost_high:Q", y=y),
        base.mark_point(filled=True, opacity=1).encode(
            x=x, y=y, shape=altair.Shape("kind:N", title=None, scale=altair.Scale(domain=["model", "route"],
                                                                                range=["circle", "diamond"])),
            size=altair.Size("p95:Q", title="p95, seconds", scale=altair.Scale(range=[60, 420])),
            color=altair.Color("risk:N", title="risk", scale=altair.Scale(domain=list(RISKS),
                                                                        range=list(_RISK_COLOURS))),
        ),
        base.transform_filter(altair.datum.today).mark_point(size=620, strokeWidth=2, color=COLOURS[1], filled=False)
        .encode(x=x, y=y),
        base.transform_filter(altair.datum.label != "").mark_text(align="left", dx=14, dy=12, color=INK, fontSize=11,
                                                                  lineBreak="\n").encode(x=x, y=y, text="label:N"),
    ]  # fmt: skip
    layered = altair.layer(*layers)
    return svg(layered.configure_legend(labelColor=INK, titleColor=INK, symbolFillColor=INK, symbolStrokeColor=INK))


def _chart_row(point: dict[str, Any]) -> dict[str, Any]:
    quality, cost = point["quality"], point["cost"]
    return {
        "name": point["name"],
        "kind": point["kind"],
        "risk": point["risk"] or RISKS[0],
        "today": point["today"],
        "frontier": point["frontier"],
        "p95": point["p95_ms"] / 1000,
        "quality": quality["mean"],
        "quality_low": quality["low"],
        "quality_high": quality["high"],
        **{name: 1000 * cost[key] for name, key in (("cost", "mean"), ("cost_low", "low"), ("cost_high", "high"))},
    }


def _merge_close_labels(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with their labels; labels that would overlap are merged at the first of their points."""
    max_cost = max((row["cost"] for row in rows), default=0.0) or 1.0
    result: list[dict[str, Any]] = []
    for row in rows:
        overlapping = next(
            (other for other in result if other["label"] and _is_close(other, row, max_cost)),
            None,
        )
        if overlapping is None:
            result.append({**row, "label": row["name"]})
        else:
            overlapping["label"] += "\n" + row["name"]
            result.append({**row, "label": ""})
    return result


def _is_close(one: dict[str, Any], other: dict[str, Any], max_cost: float) -> bool:
    distances = float(abs(one["cost"] - other["cost"])), float(abs(one["quality"] - other["quality"]))
    return distances[0] < 0.25 * max_cost and distances[1] < 0.025
