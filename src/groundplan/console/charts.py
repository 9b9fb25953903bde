"""Charts as SVG text, drawn on the server with Vega-Lite; the same pictures serve pages and reports. Holds no data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

INK = "#7a8794"
"""a grey that is readable on light and dark backgrounds"""
UNUSUAL = "#c0392b"
PADDING = {"left": 5, "right": 36, "top": 5, "bottom": 5}
"""around a chart with names on its right: letters are wider in some browsers"""
COLOURS = ("#2f8f78", "#c9762f", "#7f93a8", "#b7a24a", "#9a6f9f", "#5f8fc0", "#8f8f8f")


REST_LABEL = "the rest"


def _most_expensive(days: Sequence[dict[str, Any]]) -> list[str]:
    """The workloads with a colour of their own, by name; of too many, the most expensive ones."""
    sums: dict[str, float] = {}
    for row in days:
        sums[row["workload"]] = sums.get(row["workload"], 0.0) + float(row["cost_usd"])
    limit = len(COLOURS) - (len(sums) > len(COLOURS))
    return sorted(sorted(sums, key=lambda name: (-sums[name], name))[:limit])


def cost_by_day(days: Sequence[dict[str, Any]], marks: Sequence[dict[str, Any]] = ()) -> str:
    """Stacked columns of USD per day and workload; `days` has `day`, `workload`, `cost_usd`. Empty without data.
    `marks` are anomalies (`day`, `message`): a triangle above the column of the day."""
    if not days:
        return ""
    import altair  # noqa: PLC0415 -- heavy, and only this page needs it
    import vl_convert  # noqa: PLC0415

    names = _most_expensive(days)
    # Altair validates each row that it is given, which takes longer than drawing
    sums: dict[tuple[str, str], float] = {}
    for row in days:
        key = row["day"], row["workload"] if row["workload"] in names else REST_LABEL
        sums[key] = sums.get(key, 0.0) + float(row["cost_usd"])
    rows = [{"day": day, "workload": name, "cost": cost} for (day, name), cost in sums.items()]
    domain = [*names, REST_LABEL][: len({row["workload"] for row in rows})]
    x = altair.X("day:O", title=None, axis=altair.Axis(labelAngle=0, labelOverlap=True))
    bars = (
        altair.Chart(altair.InlineData(values=rows), width=640, height=200)
        .mark_bar(size=max(4, min(28, 560 // len({row["day"] for row in rows}))))
        .encode(
            x=x,
            y=altair.Y("cost:Q", title="USD", axis=altair.Axis(tickCount=4, format=",.12~f")),
            color=altair.Color("workload:N", title=None, scale=altair.Scale(domain=domain, range=list(COLOURS))),
        )
    )
    known = {row["day"] for row in rows}
    unusual = [dict(mark) for mark in marks if mark["day"] in known]
    layers = [bars]
    if unusual:
        layers.append(
            altair.Chart(altair.InlineData(values=unusual))
            .mark_point(shape="triangle-down", size=70, filled=True, color=UNUSUAL)
            .encode(x=x, y=altair.value(4), description="message:N")
        )
    chart = (
        altair.layer(*layers, background="transparent", padding=PADDING)
        .configure_axis(labelColor=INK, titleColor=INK, gridColor="#8886", domainColor=INK, tickColor=INK)
        .configure_legend(labelColor=INK)
        .configure_view(stroke=None)
    )
    return str(vl_convert.vegalite_to_svg(chart.to_dict()))
