"""Charts as SVG text, drawn on the server with Vega-Lite; the same pictures serve pages and reports. Holds no data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

INK = "#7a8794"
"""One grey that reads on light and dark paper."""
COLOURS = ("#2f8f78", "#c9762f", "#7f93a8", "#b7a24a", "#9a6f9f", "#5f8fc0", "#8f8f8f")


def cost_by_day(days: Sequence[dict[str, Any]]) -> str:
    """Stacked columns of USD per day and workload; `days` has `day`, `workload`, `cost_usd`. Empty without data."""
    if not days:
        return ""
    import altair  # noqa: PLC0415 -- heavy, and only this page needs it
    import vl_convert  # noqa: PLC0415

    rows = [{"day": row["day"], "workload": row["workload"], "cost": float(row["cost_usd"])} for row in days]
    chart = (
        altair.Chart(altair.InlineData(values=rows), width=640, height=200, background="transparent")
        .mark_bar(size=max(4, min(28, 560 // len({row["day"] for row in rows}))))
        .encode(
            x=altair.X("day:O", title=None, axis=altair.Axis(labelAngle=0, labelOverlap=True)),
            y=altair.Y("sum(cost):Q", title="USD", axis=altair.Axis(tickCount=4, format="~g")),
            color=altair.Color("workload:N", title=None, scale=altair.Scale(range=list(COLOURS))),
        )
        .configure_axis(labelColor=INK, titleColor=INK, gridColor="#8886", domainColor=INK, tickColor=INK)
        .configure_legend(labelColor=INK)
        .configure_view(stroke=None)
    )
    return str(vl_convert.vegalite_to_svg(chart.to_dict()))
