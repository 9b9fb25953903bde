"""Charts of a plan as SVG text, drawn on the server: cost by term, alternatives, load curves, drift, a map of sites.

They take the API's JSON, so that pages and reports draw the same. Colours are readable on light and dark backgrounds.
Charts are drawn by Vega-Lite; the map is written by hand, as it has no axis.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

INK = "#7a8794"
COLOURS = ("#2f8f78", "#c9762f", "#7f93a8", "#b7a24a", "#9a6f9f", "#5f8fc0", "#8f8f8f", "#b0605f", "#6f9f5f")
JsonObject = Mapping[str, Any]


def cost_waterfall(terms: Mapping[str, float]) -> str:
    """A waterfall chart of the month's cost: each term, then the whole."""
    steps, total = [], 0.0
    for name, usd in sorted(terms.items(), key=lambda item: -item[1]):
        if abs(usd) >= 0.005:
            steps.append({"term": name, "from": total, "to": total + usd, "usd": f"${usd:,.2f}"})
            total += usd
    if not steps:
        return ""
    steps.append({"term": "whole", "from": 0.0, "to": total, "usd": f"${total:,.2f}"})
    alt = _altair()
    order = [step["term"] for step in steps]
    base = alt.Chart(alt.InlineData(values=steps), width=640, height=220)
    x = alt.X("term:N", sort=order, title=None, axis=alt.Axis(labelAngle=0))
    bars = base.mark_bar().encode(
        x=x,
        y=alt.Y("from:Q", title="USD a month", axis=alt.Axis(tickCount=4)),
        y2="to:Q",
        color=alt.condition("datum.term == 'whole'", alt.value(COLOURS[1]), alt.value(COLOURS[0])),
    )
    text = base.mark_text(dy=-8, color=INK, fontSize=11).encode(x=x, y="to:Q", text="usd:N")
    return _svg(alt.layer(bars, text))


def load_curve(workload: str, week: Sequence[float], own_level: float | None) -> str:
    """The load of a week in multiples of its mean; load above `own_level`, which own hardware serves, bursts."""
    rows = [
        {"hour": hour, "load": value, "over": max(0.0, value - own_level) if own_level else 0.0}
        for hour, value in enumerate(week)
    ]
    alt = _altair()
    base = alt.Chart(alt.InlineData(values=rows), width=640, height=150, title=workload)
    x = alt.X(
        "hour:Q", title="hour of the week", axis=alt.Axis(values=list(range(0, 169, 24))), scale=alt.Scale(nice=False)
    )
    layers = [
        base.mark_area(interpolate="step", color=COLOURS[0], opacity=0.75).encode(
            x=x, y=alt.Y("load:Q", title="times the mean")
        )
    ]
    if own_level:
        line = alt.Chart(alt.InlineData(values=[{"own": own_level}]))
        above = base.transform_calculate(low=f"min(datum.load, {own_level})").mark_area(
            interpolate="step", color=COLOURS[1]
        )
        layers.append(above.encode(x=x, y="low:Q", y2="load:Q"))
        layers.append(line.mark_rule(color=INK, strokeDash=[4, 3], strokeWidth=2).encode(y="own:Q"))
    return _svg(alt.layer(*layers))


def alternatives_chart(points: Sequence[JsonObject]) -> str:
    """Alternative plans by cost and first token, carbon as size; the colour says whether the plan is on the front."""
    if not points:
        return ""
    alt = _altair()
    base = alt.Chart(alt.InlineData(values=[dict(p) for p in points]), width=640, height=240)
    x = alt.X("usd_month:Q", title="USD a month", scale=alt.Scale(zero=False))
    y = alt.Y("first_token_ms:Q", title="ms to the first token", scale=alt.Scale(zero=False))
    scale = alt.Scale(domain=["on the front", "dominated"], range=[COLOURS[0], COLOURS[6]])
    marks = base.mark_circle(opacity=0.85).encode(
        x=x, y=y, size=alt.Size("carbon_kg:Q", title="kg CO2e"), color=alt.Color("front:N", title=None, scale=scale)
    )
    plain = base.transform_calculate(short="split(datum.name, ', ')[0]")
    labels = plain.mark_text(dy=-12, align="left", color=INK, fontSize=11).encode(x=x, y=y, text="short:N")
    return _svg(alt.layer(marks, labels))


def control_chart(chart: JsonObject) -> str:
    """A control chart of drift: factors on the expected value."""
    points = list(chart["points"])
    if not points:
        return ""
    alt = _altair()
    title = f"{chart['workload']}: {chart['name']}"
    base = alt.Chart(alt.InlineData(values=points), width=310, height=120, title=title)
    x = alt.X("day:O", title=None, axis=alt.Axis(labels=False, ticks=False))
    y = alt.Y("average:Q", title="times the plan", scale=alt.Scale(zero=False))
    band = base.mark_area(opacity=0.25, color=INK).encode(x=x, y="low:Q", y2="high:Q")
    seen = base.mark_point(color=COLOURS[2], size=18).encode(x=x, y="seen:Q")
    line = base.mark_line(color=COLOURS[1] if chart["drifts"] else COLOURS[0], strokeWidth=2.5).encode(x=x, y=y)
    return _svg(alt.layer(band, seen, line))


def site_map(sites: Sequence[JsonObject], workloads: Sequence[JsonObject]) -> str:
    """Sites as rooms under Cloud, Private and Edge, with the workloads that run there; dashed tiles only burst or fall
    back there."""
    columns = ("cloud", "private", "edge")
    width, room, row = 236, 40, 22
    parts: list[str] = []
    bottom = 0
    for column, kind in enumerate(columns):
        x, y = 8 + column * (width + 12), 30
        parts.append(f'<text x="{x}" y="18" class="k">{kind.capitalize()}</text>')
        for site in (s for s in sites if s["type"] == kind):
            running = [(w, "") for w in workloads if w["place"]["site"] == site["site"]]
            standby = [(w, word) for w in workloads for word in _standby_roles(w, site["site"])]
            not_drawn = site.get("workloads", len(running)) - len(running)
            height = room + row * max(1, len(running) + len(standby) + (not_drawn > 0))
            parts.append(_site_room(site, x, y, width, height))
            if not_drawn > 0:
                parts.append(f'<text x="{x + 16}" y="{y + height - 11}" class="s">{not_drawn:,} more</text>')
            for number, (workload, word) in enumerate([*running, *standby]):
                parts.append(_workload_tile(workload, word, x + 10, y + room - 4 + number * row, width - 20))
            y += height + 10
        bottom = max(bottom, y)
    total = 8 + 3 * (width + 12)
    style = (
        "text{font:12px system-ui,sans-serif;fill:currentColor}.k{font-weight:600;opacity:.7}"
        ".s{font-size:11px;opacity:.7}"
        ".r{fill:none;stroke:currentColor;stroke-opacity:.45}.o{stroke-opacity:.9;stroke-width:2}"
        f".t{{fill:{COLOURS[0]};fill-opacity:.2;stroke:{COLOURS[0]}}}.d{{fill:none;stroke:{INK};stroke-dasharray:4 3}}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total} {bottom}" role="img" '
        f'aria-label="Sites with the workloads that run there" style="max-width:{total}px;width:100%">'
        f"<style>{style}</style>{''.join(parts)}</svg>"
    )


def _standby_roles(workload: JsonObject, site: str) -> list[str]:
    words = (("burst_site", "bursts"), ("fallback_site", "falls back"))
    return [word for key, word in words if workload["place"].get(key) == site]


def _site_room(site: JsonObject, x: int, y: int, width: int, height: int) -> str:
    css = "r o" if site["open"] else "r"
    cost = f"${site['opening_usd_month']:,.0f} a month" if site["open"] else "not used"
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="5" class="{css}"/>'
        f'<text x="{x + 10}" y="{y + 17}">{escape(site["site"])}</text>'
        f'<text x="{x + 10}" y="{y + 31}" class="s">{escape(site["jurisdiction"])}, {cost}</text>'
    )


def _workload_tile(workload: JsonObject, word: str, x: int, y: int, width: int) -> str:
    name, label = escape(workload["workload"]), word or f"${workload['usd_month']:,.0f}"
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="18" rx="3" class="{"d" if word else "t"}"/>'
        f'<text x="{x + 6}" y="{y + 13}" class="s">{name[:24]}</text>'
        f'<text x="{x + width - 6}" y="{y + 13}" text-anchor="end" class="s">{label}</text>'
    )


def _altair() -> Any:
    import altair  # noqa: PLC0415 -- heavy, and only pages with charts need it

    return altair


def _svg(chart: Any) -> str:
    import vl_convert  # noqa: PLC0415 -- heavy

    drawn = (
        chart.properties(background="transparent", padding={"left": 5, "right": 36, "top": 5, "bottom": 5})
        .configure_axis(labelColor=INK, titleColor=INK, gridColor="#8886", domainColor=INK, tickColor=INK)
        .configure_axisY(minExtent=44, titlePadding=10)
        .configure_legend(labelColor=INK, titleColor=INK)
        .configure_title(color=INK, anchor="start", fontSize=12)
        .configure_view(stroke=None)
    )
    return str(vl_convert.vegalite_to_svg(drawn.to_dict()))
