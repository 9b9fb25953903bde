"""Charts of Cost as SVG text, drawn on the server like those of `charts`. They hold no data of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from groundplan.console.charts import COLOURS, INK

MAX_STEPS = 9
MAX_NAME_LENGTH = 28
"""letters of a name beside a bar"""
MAX_BUDGET_RATIO = 3.0
"""a budget is drawn up to this multiple of the most expensive day: below a higher line all days would look flat"""


def cost_waterfall(sums: Sequence[dict[str, Any]], empty_label: str = "none") -> str:
    """A waterfall of cost terms up to the total; `sums` has `key` and `cost_usd`, and `empty_label` is shown for an
    empty key. Empty without data."""
    steps = [(_shorten_name(row["key"] or empty_label), float(row["cost_usd"])) for row in sums]
    if not steps:
        return ""
    import altair  # noqa: PLC0415 -- heavy, and only pages of cost need it

    if len(steps) > MAX_STEPS:
        steps = [*steps[: MAX_STEPS - 1], ("the rest", sum(amount for _, amount in steps[MAX_STEPS - 1 :]))]
    rows: list[dict[str, Any]] = []
    total = 0.0
    for name, amount in steps:
        rows.append({"term": name, "from": total, "to": total + amount, "kind": "term"})
        total += amount
    rows.append({"term": "total", "from": 0.0, "to": total, "kind": "total"})
    chart = (
        altair.Chart(altair.InlineData(values=rows), width=640, height=26 * len(rows), background="transparent")
        .mark_bar(size=16)
        .encode(
            y=altair.Y("term:N", title=None, sort=[str(row["term"]) for row in rows]),
            x=altair.X("from:Q", title="USD", axis=altair.Axis(tickCount=5, format=",.3~r")),
            x2="to:Q",
            color=altair.Color("kind:N", legend=None, scale=altair.Scale(range=list(COLOURS))),
        )
        .properties(padding={"left": 36, "right": 12, "top": 5, "bottom": 5})  # letters are wider in some browsers
    )
    return svg(chart)


def _shorten_name(name: str) -> str:
    """The name, shortened to fit beside the bars; both ends are kept, since these often distinguish names."""
    return name if len(name) <= MAX_NAME_LENGTH else f"{name[: MAX_NAME_LENGTH - 10]}\u2026{name[-9:]}"


def is_within(forecast_json: dict[str, Any], daily_limit: float) -> bool:
    """Whether the daily limit of a budget is close enough to the daily costs to be drawn with them."""
    spent = (
        *(float(row["value"]) for row in forecast_json["past"][-60:]),
        *(float(row["high"]) for row in forecast_json["days"]),
    )
    return daily_limit <= MAX_BUDGET_RATIO * max(spent, default=0.0)


def forecast_chart(forecast_json: dict[str, Any], daily_limit: float | None) -> str:
    """A chart of the last days, the next ones with their interval, and the daily limit of a budget if it `is_within`
    range."""
    import altair  # noqa: PLC0415 -- heavy, and only pages of cost need it

    past = [{"day": row["day"], "value": float(row["value"])} for row in forecast_json["past"][-60:]]
    days = [{name: row[name] if name == "day" else float(row[name]) for name in row} for row in forecast_json["days"]]
    base = altair.Chart(width=640, height=220)
    x = altair.X(
        "day:T", title=None, axis=altair.Axis(format="%d %b", tickCount=8, labelOverlap=True, labelSeparation=6)
    )
    unit = "USD a day" if forecast_json["what"] == "cost" else f"{forecast_json['what']} a day"
    y = altair.Y(
        "value:Q",
        title=unit,
        axis=altair.Axis(tickCount=4, format=",.3~r" if forecast_json["what"] == "cost" else "~s"),
    )
    layers = [
        base.mark_area(opacity=0.25, color=COLOURS[0]).encode(x=x, y=altair.Y("low:Q", title=unit), y2="high:Q")
        .properties(data=altair.InlineData(values=days)),
        base.mark_line(color=COLOURS[0]).encode(x=x, y="middle:Q").properties(data=altair.InlineData(values=days)),
        base.mark_line(color=INK).encode(x=x, y=y).properties(data=altair.InlineData(values=past)),
    ]  # fmt: skip
    if daily_limit is not None and is_within(forecast_json, daily_limit):
        line = altair.InlineData(values=[{"limit": daily_limit}])
        layers.append(base.mark_rule(color=COLOURS[1], strokeDash=[6, 4]).encode(y="limit:Q").properties(data=line))
    return svg(altair.layer(*layers))


def svg(chart: Any) -> str:
    """The chart as SVG text, in the style of the cost pages."""
    import vl_convert  # noqa: PLC0415 -- heavy

    styled = (
        chart.configure_axis(labelColor=INK, titleColor=INK, gridColor="#8886", domainColor=INK, tickColor=INK)
        .configure_view(stroke=None)
        .properties(background="transparent")
    )
    return str(vl_convert.vegalite_to_svg(styled.to_dict()))
