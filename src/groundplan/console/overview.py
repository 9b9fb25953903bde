"""From the API's overview to the view that the ground plan draws. Pure."""

from __future__ import annotations

from typing import Any

from groundplan.console.plan_svg import AREAS, ZONES, PlanView, RoomView, TileView
from groundplan.console.render import format_amount


def plan_view(overview: dict[str, Any], selected: str | None) -> PlanView:
    """`overview` is the answer of GET /api/overview; an unknown selection selects nothing."""
    tiles = tuple(_tile(item) for item in overview["workloads"])
    more = overview["more"]
    rooms = tuple(_room(site, more.get(site["name"], 0)) for site in overview["sites"] if site["type"] in ZONES)
    names = {tile.name for tile in tiles}
    chosen = selected if selected in names else None
    return PlanView(rooms, tiles, chosen, sum(more.values()), overview["calls_per_minute"])


def _room(site: dict[str, Any], more: int) -> RoomView:
    failing, note = site["failing"], ""
    if site["down"]:
        state = "down"
    elif failing:
        state = "failing"
        note = f"{failing[0]} fails" if len(failing) == 1 else f"{len(failing)} deployments fail"
    elif site["type"] == "edge" and not site["used"]:
        state = "not_yet"
    else:
        state = "ok" if site["used"] else "empty"
    title = site.get("title") or site["name"]
    return RoomView(site["name"], title, site["type"], site["jurisdiction"], state, note, more)


def marks(item: dict[str, Any]) -> tuple[tuple[str, float | None], ...]:
    """The five areas of a workload in their order, each 0..1 of its points or None where nothing is proven."""
    readiness = item.get("readiness") or {}
    return tuple((area, readiness.get(area)) for area in AREAS)


def _tile(item: dict[str, Any]) -> TileView:
    return TileView(
        name=item["name"],
        stage=item["stage"],
        site=item.get("site"),
        fallbacks=tuple(item.get("fallback_sites", ())),
        serving=item.get("serving_site"),
        failing=tuple(item.get("failing", ())),
        cut=item.get("site_failing", False),
        cost_today=format_amount(item["cost_today_usd"]),
        p95_ms=item.get("p95_ms"),
        calls_per_minute=float(item.get("calls_per_minute", 0.0)),
        readiness=tuple(share for _, share in marks(item)),
        why_not=dict(item.get("why_not", {})),
    )
