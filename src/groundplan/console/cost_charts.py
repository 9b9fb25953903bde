"""Charts of Cost as SVG text, drawn on the server like those of `charts`. They hold no data of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from groundplan.console.charts import COLOURS, INK

MOST_STEPS = 9
LONGEST_NAME = 28
"""Letters beside a bar."""
MOST_ABOVE = 3.0
"""Times the dearest day, up to which the line of a budget is drawn: beside a higher one every day would lie flat."""


def waterfall(sums: Sequence[dict[str, Any]], nothing: str = "none") -> str:
    """Each term on top of those before it, up to the total; `sums` has `key` and `cost_usd`, and `nothing` is what is
    shown for a key that says nothing. Empty without data."""
    steps = [(_short(row["key"] or nothing), float(row["cost_usd"])) for row in sums]
    if not steps:
        return ""
    import altair  # noqa: PLC0415 -- heavy, and only pages of cost need it

    if len(steps) > MOST_STEPS:
        steps = [*steps[: MOST_STEPS - 1], ("the rest", sum(amount for _, amount in steps[MOST_STEPS - 1 :]))]
    rows: list[dict[str, Any]] = []
    upto = 0.0
    for name, amount in steps:
        rows.append({"term": name, "from": upto, "to": upto + amount, "kind": "term"})
        upto += amount
    rows.append({"term": "total", "from": 0.0, "to": upto, "kind": "total"})
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


def _short(name: str) -> str:
    """With both ends of a long one, which often tell it apart, so that it fits beside the bars."""
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 10]}\u2026{name[-9:]}"


def is_within(made: dict[str, Any], a_day: float) -> bool:
    """Whether the daily limit of a budget is near enough to these days to be drawn beside them."""
    spent = (*(float(row["value"]) for row in made["past"][-60:]), *(float(row["high"]) for row in made["days"]))
    return a_day <= MOST_ABOVE * max(spent, default=0.0)


def forecast(made: dict[str, Any], a_day: float | None) -> str:
    """A chart of the last days, the next ones with their interval, and the daily limit of a budget as a line, where it
    `is_within` reach."""
    import altair  # noqa: PLC0415 -- heavy, and only pages of cost need it

    past = [{"day": row["day"], "value": float(row["value"])} for row in made["past"][-60:]]
    days = [{name: row[name] if name == "day" else float(row[name]) for name in row} for row in made["days"]]
    base = altair.Chart(width=640, height=220)
    x = altair.X(
        "day:T", title=None, axis=altair.Axis(format="%d %b", tickCount=8, labelOverlap=True, labelSeparation=6)
    )
    unit = "USD a day" if made["what"] == "cost" else f"{made['what']} a day"
    y = altair.Y(
        "value:Q", title=unit, axis=altair.Axis(tickCount=4, format=",.3~r" if made["what"] == "cost" else "~s")
    )
    layers = [
        base.mark_area(opacity=0.25, color=COLOURS[0]).encode(x=x, y=altair.Y("low:Q", title=unit), y2="high:Q")
        .properties(data=altair.InlineData(values=days)),
        base.mark_line(color=COLOURS[0]).encode(x=x, y="middle:Q").properties(data=altair.InlineData(values=days)),
        base.mark_line(color=INK).encode(x=x, y=y).properties(data=altair.InlineData(values=past)),
    ]  # fmt: skip
    if a_day is not None and is_within(made, a_day):
        line = altair.InlineData(values=[{"limit": a_day}])
        layers.append(base.mark_rule(color=COLOURS[1], strokeDash=[6, 4]).encode(y="limit:Q").properties(data=line))
    return svg(altair.layer(*layers))


def svg(chart: Any) -> str:
    """Drawn in the style of these pages."""
    import vl_convert  # noqa: PLC0415 -- heavy

    styled = (
        chart.configure_axis(labelColor=INK, titleColor=INK, gridColor="#8886", domainColor=INK, tickColor=INK)
        .configure_view(stroke=None)
        .properties(background="transparent")
    )
    return str(vl_convert.vegalite_to_svg(styled.to_dict()))
