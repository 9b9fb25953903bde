"""The ground plan is one deterministic, well-formed drawing that shows an outage and says why not."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from groundplan.console.plan_svg import ZONES, PlanView, RoomView, TileView, ground_plan

ROOMS = (
    RoomView("azure-sweden", "Azure Sweden", "cloud", "EU"),
    RoomView("rack-1", "Rack 1", "private", "EU"),
    RoomView("bedrock-us", "Bedrock US", "cloud", "US", "empty"),
    RoomView("line-3", "Line 3", "edge", "EU", "not_yet"),
)
TILE = TileView(
    "staff-assistant", "pilot", "azure-sweden", ("rack-1",), cost_today="$1.20", p95_ms=820.0, calls_per_minute=40.0,
    readiness=(0.6, None, 1.0, 0.0, 0.2), why_not={"bedrock-us": "outside EU"},
)  # fmt: skip
SVG = "{http://www.w3.org/2000/svg}"


def classes(svg: str) -> list[str]:
    return [element.get("class", "") for element in ET.fromstring(svg).iter()]


def test_same_view_same_bytes_whatever_the_order() -> None:
    other = replace(TILE, name="another")
    assert ground_plan(PlanView(ROOMS, (TILE, other))) == ground_plan(PlanView(ROOMS[::-1], (other, TILE)))


def test_line_swings_to_the_fallback_in_an_outage() -> None:
    calm = classes(ground_plan(PlanView(ROOMS, (TILE,))))
    assert "line primary" in calm and "line fallback" in calm and "line swung" not in calm
    outage = classes(ground_plan(PlanView(ROOMS, (replace(TILE, serving="rack-1", cut=True),))))
    assert "line broken" in outage and "line swung" in outage and "line primary" not in outage


def test_a_selected_workload_says_why_not_elsewhere() -> None:
    svg = ground_plan(PlanView(ROOMS, (TILE,), "staff-assistant"))
    assert "outside EU" in svg
    assert ET.fromstring(svg).get("role") == "group", "a picture would keep its links from who hears the page"
    assert "room room-empty dim" in classes(svg)
    assert "outside EU" not in ground_plan(PlanView(ROOMS, (TILE,)))


def test_traffic_makes_the_line_wider() -> None:
    def width(calls: float) -> float:
        root = ET.fromstring(ground_plan(PlanView(ROOMS, (replace(TILE, calls_per_minute=calls),))))
        line = next(element for element in root.iter() if element.get("class") == "line primary")
        return float(line[0].get("stroke-width", "0"))

    assert width(0) < width(10) < width(1000) <= 7


def test_no_site_at_all_is_still_a_drawing() -> None:
    assert ET.fromstring(ground_plan(PlanView((), ()))).tag == f"{SVG}svg"


words = st.text(min_size=1, max_size=60).filter(
    lambda text: all(ord(c) >= 32 and c not in "\ufffe\uffff" for c in text)
)


@given(words, words, st.sampled_from(ZONES), st.floats(0, 1e9), st.none() | st.floats(0, 1e7))
def test_any_text_is_escaped(name: str, title: str, zone: str, calls: float, p95: float | None) -> None:
    room = RoomView("site", title, zone, title)
    tile = TileView(name, title, "site", ("gone",), p95_ms=p95, calls_per_minute=calls, why_not={"site": title})
    svg = ground_plan(PlanView((room,), (tile,), name))
    assert "<script" not in svg
    assert ET.fromstring(svg.encode("utf-16", "surrogatepass").decode("utf-16", "replace")).tag == f"{SVG}svg"
