"""Pictures of an evaluation as SVG text: what each floor of abstention would do, and how parts fare. Holds no data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

INK = "#7a8794"
"""One grey that reads on light and dark paper."""
COLOURS = ("#2f8f78", "#c9762f", "#7f93a8")
_LINES = {"answered": "answered", "right": "of them rightly", "rightly_unanswered": "rightly left unanswered"}


def abstention_chart(figures: Mapping[str, Any]) -> str:
    """For twenty floors: which part of the questions is answered, how much of that rightly, and how many of those
    without an answer are left. Empty where the run has no curve."""
    rows = [
        {"floor": row["floor"], "part": row[name], "what": label}
        for row in figures.get("abstention", ())
        for name, label in _LINES.items()
        if _says(name, row, figures)
    ]
    if not rows:
        return ""
    import altair  # noqa: PLC0415 -- heavy

    chart = (
        altair.Chart(altair.InlineData(values=rows), width=420, height=180, background="transparent")
        .mark_line(strokeWidth=2)
        .encode(
            x=altair.X("floor:Q", title="floor", axis=altair.Axis(tickCount=5, format="~g")),
            y=altair.Y("part:Q", title=None, scale=altair.Scale(domain=[0, 1]), axis=altair.Axis(format="%")),
            color=altair.Color("what:N", title=None, scale=altair.Scale(range=list(COLOURS))),
            # so that lines on top of each other are seen
            strokeDash=altair.StrokeDash("what:N", title=None, scale=altair.Scale(range=[[1, 0], [8, 5], [3, 4]])),
        )
    )
    return _svg(chart)


def _says(name: str, row: Mapping[str, Any], figures: Mapping[str, Any]) -> bool:
    """Whether the part is one of anything: where nothing is answered, nothing of it is right."""
    if name == "right":
        return bool(row["answered"])
    return name == "answered" or bool(figures.get("without_answer", 1))


def parts_chart(figures: Mapping[str, Any]) -> str:
    """nDCG@10 with its bounds of 95 % of each source and each sensitivity, or of each ranking. Empty where there are no
    parts."""
    every = {"source": figures.get("by_source"), "sensitivity": figures.get("by_sensitivity"), "ranking": None}
    if "lexical" in figures:
        rankings = {"together": figures, "words": figures["lexical"], "vectors": figures["vector"]}
        every["ranking"] = {
            name: {"ndcg@10": row["ndcg@10"], "confidence": row["confidence"]["ndcg@10"]}
            for name, row in rankings.items()
        }
    rows = [
        {"part": name, "of": of, "mean": row["ndcg@10"], "low": row["confidence"][0], "high": row["confidence"][1]}
        for of, found in every.items()
        for name, row in (found or {}).items()
    ]
    if not rows:
        return ""
    import altair  # noqa: PLC0415 -- heavy

    base = altair.Chart(altair.InlineData(values=rows)).encode(
        y=altair.Y("part:N", title=None, sort=None),
        color=altair.Color("of:N", title=None, scale=altair.Scale(range=list(COLOURS))),
    )
    scale = altair.Scale(domain=[0, 1])
    bounds = base.mark_rule(strokeWidth=2).encode(x=altair.X("low:Q", title="nDCG@10", scale=scale), x2="high:Q")
    means = base.mark_point(filled=True, size=60).encode(x=altair.X("mean:Q", scale=scale))
    return _svg(altair.layer(bounds, means).properties(width=420, background="transparent"))


def _svg(chart: Any) -> str:
    import vl_convert  # noqa: PLC0415 -- heavy

    dressed = (
        chart.configure_axis(
            labelColor=INK,
            titleColor=INK,
            gridColor="#8886",
            domainColor=INK,
            tickColor=INK,
            labelFontSize=12,
            titleFontSize=12,
        )
        .configure_legend(labelColor=INK, titleColor=INK, labelFontSize=12, orient="bottom", columnPadding=18)
        .configure_view(stroke=None)
    )
    return str(vl_convert.vegalite_to_svg(dressed.to_dict()))
