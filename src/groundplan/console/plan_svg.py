"""The ground plan: one deterministic SVG of where each workload runs.

Rows are jurisdictions (thick walls), columns are Cloud, Private, Edge; a room is a site and a tile is a workload in the
room of its primary. A solid line leads from the entrance (the gateway) to the primary, a dashed one to the fallback; a
line's width is its traffic. While another site answers, a solid line leads there, too; the line to a primary that
fails is broken.

Pure: the same view gives the same text. Colours come from the page's style sheet through classes. It fetches nothing.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass, field
from html import escape
from itertools import accumulate
from unicodedata import east_asian_width
from urllib.parse import quote

from groundplan.core.words import quantity

ZONES = ("cloud", "private", "edge")
_TROUBLE = ("down", "failing")
TITLES = {"cloud": "Cloud", "private": "Private", "edge": "Edge"}
AREAS = ("placement", "data", "cost", "operations", "governance")

ROOM_WIDTH = 300
CORRIDOR = 64
MARGIN = 28
HEAD = 52
TILE_HEIGHT = 78
TILE_GAP = 12
ROOM_HEAD = 40
ROOM_FOOT = 14
MORE_HEIGHT = 26
ROOM_GAP = 18
WALL = 14
ROW_GAP = 30
ENTRANCE = 58
LANE = 9
DOOR = 40
LEFT = MARGIN + ENTRANCE
"""the left edge of the walls, right of the entrance"""
WIDTH = LEFT + MARGIN + 2 * WALL + 3 * ROOM_WIDTH + 3 * CORRIDOR + 24


@dataclass(frozen=True, slots=True)
class RoomView:
    """A site. `state`: ok | down | failing | empty | not_yet; `note` is one short line beside its name."""

    name: str
    title: str
    type: str
    jurisdiction: str
    state: str = "ok"
    note: str = ""
    more: int = 0
    """workloads at the site that are not drawn"""


@dataclass(frozen=True, slots=True)
class TileView:
    """A workload. `site` is the room of its primary (None: not placed); readiness is 0..1 or None for each area."""

    name: str
    stage: str
    site: str | None
    fallbacks: tuple[str, ...] = ()
    serving: str | None = None
    """the site of its newest answer; differs from `site` while a fallback serves it, or a hedge won elsewhere"""
    failing: tuple[str, ...] = ()
    """those of its deployments that fail now"""
    cut: bool = False
    """whether all of its deployments at `site` fail now"""
    cost_today: str = "$0.00"
    p95_ms: float | None = None
    calls_per_minute: float = 0.0
    readiness: tuple[float | None, ...] = (None, None, None, None, None)
    why_not: dict[str, str] = field(default_factory=dict)
    """site -> why this workload does not run there"""


@dataclass(frozen=True, slots=True)
class PlanView:
    rooms: tuple[RoomView, ...]
    tiles: tuple[TileView, ...]
    selected: str | None = None
    more: int = 0
    """workloads that are not drawn"""
    calls_per_minute: float | None = None
    """of all workloads; None: the sum of those that are drawn"""


@dataclass(frozen=True, slots=True)
class _Box:
    x: float
    y: float
    width: float
    height: float

    @property
    def middle(self) -> float:
        return self.y + self.height / 2


def ground_plan(view: PlanView) -> str:
    """The drawing as SVG text, `WIDTH` wide and as high as its content."""
    rooms = sorted(view.rooms, key=lambda room: (room.jurisdiction, ZONES.index(room.type), room.name))
    tiles = sorted(view.tiles, key=lambda tile: tile.name)
    walls, boxes, bottom = _layout(rooms, tiles)
    places = _tile_boxes(tiles, boxes)
    height = bottom + MARGIN
    selected = next((tile for tile in tiles if tile.name == view.selected), None)
    parts = [
        f'<svg class="plan" viewBox="0 0 {WIDTH} {height:.0f}" role="group" aria-label="{_accessible_label(view)}" '
        'xmlns="http://www.w3.org/2000/svg">',
        _zone_headings(),
        *(_wall_svg(name, box) for name, box in walls),
        *(_room_svg(room, boxes[room.name], selected) for room in rooms),
        _entrance_svg(MARGIN + HEAD, bottom, view),
        *_traffic_lines(tiles, places, boxes, rooms, dict(walls), selected),
        *(_tile_svg(tile, places[tile.name], selected) for tile in tiles if tile.name in places),
        "</svg>",
    ]
    return "\n".join(part for part in parts if part)


def _accessible_label(view: PlanView) -> str:
    on_fallback = [tile.name for tile in view.tiles if tile.serving and tile.serving != tile.site]
    text = f"Ground plan: {quantity(len(view.tiles) + view.more, 'workload')} at {quantity(len(view.rooms), 'site')}."
    if on_fallback:
        text += f" Answered at another site now: {', '.join(sorted(on_fallback))}."
    troubled = [
        f"{room.title or room.name}: {room.note or room.state}" for room in view.rooms if room.state in _TROUBLE
    ]
    if troubled:
        text += f" {'; '.join(troubled)}."
    return escape(text, quote=True)


def _column_x(zone: str) -> float:
    return LEFT + WALL + CORRIDOR + ZONES.index(zone) * (ROOM_WIDTH + CORRIDOR)


def _layout(rooms: list[RoomView], tiles: list[TileView]) -> tuple[list[tuple[str, _Box]], dict[str, _Box], float]:
    """(jurisdiction, box of its walls) in order, room -> its box, and the bottom edge of the lowest wall."""
    count = {room.name: sum(tile.site == room.name for tile in tiles) for room in rooms}
    walls: list[tuple[str, _Box]] = []
    boxes: dict[str, _Box] = {}
    y = float(MARGIN + HEAD)
    for jurisdiction in sorted({room.jurisdiction for room in rooms}):
        top = y
        lowest = top + WALL
        for zone in ZONES:
            at = top + WALL + 30
            for room in rooms:
                if room.jurisdiction == jurisdiction and room.type == zone:
                    slots = max(1, count[room.name])
                    height = ROOM_HEAD + slots * TILE_HEIGHT + (slots - 1) * TILE_GAP + ROOM_FOOT
                    height += MORE_HEIGHT if room.more else 0
                    boxes[room.name] = _Box(_column_x(zone), at, ROOM_WIDTH, height)
                    at += height + ROOM_GAP
            lowest = max(lowest, at - ROOM_GAP)
        lines = sum(count[room.name] for room in rooms if room.jurisdiction == jurisdiction)
        bottom = max(lowest + 20 + LANE * lines, top + WALL + DOOR + 30) + WALL
        walls.append((jurisdiction, _Box(LEFT, top, WIDTH - LEFT - MARGIN, bottom - top)))
        y = bottom + ROW_GAP
    return walls, boxes, y - ROW_GAP if walls else y


def _tile_boxes(tiles: list[TileView], boxes: dict[str, _Box]) -> dict[str, _Box]:
    used: dict[str, int] = {}
    places = {}
    for tile in tiles:
        if tile.site is None or tile.site not in boxes:
            continue
        room = boxes[tile.site]
        slot = used.get(tile.site, 0)
        used[tile.site] = slot + 1
        top = room.y + ROOM_HEAD + slot * (TILE_HEIGHT + TILE_GAP)
        places[tile.name] = _Box(room.x + 14, top, room.width - 28, TILE_HEIGHT)
    return places


def _zone_headings() -> str:
    parts = []
    for zone in ZONES:
        x = _column_x(zone)
        y = MARGIN + 26
        parts.append(
            f'<g class="dimension"><path d="M{x} {y}H{x + ROOM_WIDTH}M{x} {y - 7}v14M{x + ROOM_WIDTH} {y - 7}v14"/>'
            f'<text x="{x + ROOM_WIDTH / 2}" y="{y - 9}" text-anchor="middle">{TITLES[zone]}</text></g>'
        )
    return "".join(parts)


def _wall_svg(name: str, box: _Box) -> str:
    """The walls of a jurisdiction, with a door low in the left one, towards the entrance."""
    half = WALL / 2
    left, right = box.x + half, box.x + box.width - half
    top, bottom = box.y + half, box.y + box.height - half
    door = bottom - half - 4
    return (
        f'<g class="wall"><path d="M{left} {door - DOOR}V{top}H{right}V{bottom}H{left}V{door}"/>'
        f'<path class="door" d="M{left} {door - DOOR}h{-DOOR + 6}A{DOOR - 6} {DOOR} 0 0 0 {left} {door}"/>'
        f'<text x="{right - 14}" y="{box.y + WALL + 18}" text-anchor="end">{escape(name)}</text></g>'
    )


def _room_svg(room: RoomView, box: _Box, selected: TileView | None) -> str:
    classes = ["room", f"room-{escape(room.state)}"]
    note = {"down": "down", "not_yet": "not yet", "empty": "not used"}.get(room.state, room.note)
    if selected is not None and room.name not in (selected.site, selected.serving):
        if room.name in selected.fallbacks:
            note = "fallback"
        else:
            classes.append("dim")
            note = selected.why_not.get(room.name, note)
    title = escape(_shorten(room.title or room.name, _title_length(note)))
    return (
        f'<g class="{" ".join(classes)}"><rect x="{box.x}" y="{box.y}" width="{box.width}" height="{box.height}"/>'
        f'<text class="name" x="{box.x + 14}" y="{box.y + 25}">{title}</text>'
        f'<text class="note" x="{box.x + box.width - 14}" y="{box.y + 25}" text-anchor="end">'
        f"{escape(_shorten(note, 26))}</text>{_more_link(room, box)}</g>"
    )


def _more_link(room: RoomView, box: _Box) -> str:
    """A link to the workloads of a room that are not drawn."""
    if not room.more:
        return ""
    link = f"/workloads?site={quote(room.name, safe='')}"
    return (
        f'<a href="{escape(link, quote=True)}" class="more"><text x="{box.x + box.width / 2}" '
        f'y="{box.y + box.height - 14}" text-anchor="middle">{room.more:,} more</text></a>'
    )


def _title_length(note: str) -> int:
    """The number of letters of a title that fit into a room beside its note, even in wide fonts."""
    return max(8, int((ROOM_WIDTH - 40 - 7.4 * min(26, len(note))) / 9.2))


def _name_length(stage: str) -> int:
    """The number of letters of a name that fit into a tile beside its stage, even in wide fonts."""
    return int((ROOM_WIDTH - 28 - 24 - 10 - 7.4 * len(stage)) / 8.8)


def _entrance_svg(top: float, bottom: float, view: PlanView) -> str:
    rate = view.calls_per_minute
    if rate is None:
        rate = sum(tile.calls_per_minute for tile in view.tiles)
    middle = (top + bottom) / 2
    x = MARGIN + 9
    return (
        f'<g class="entrance"><rect x="{MARGIN - 12}" y="{top}" width="32" height="{bottom - top}" rx="2"/>'
        f'<text transform="translate({x} {middle}) rotate(-90)" text-anchor="middle">Gateway'
        f'<tspan class="note" dx="14">{quantity(round(rate), "call")} a minute</tspan></text></g>'
    )


def _traffic_lines(
    tiles: list[TileView],
    places: dict[str, _Box],
    boxes: dict[str, _Box],
    rooms: list[RoomView],
    walls: dict[str, _Box],
    selected: TileView | None,
) -> list[str]:
    parts = []
    lanes: dict[str, int] = {}
    by_name = {room.name: room for room in rooms}
    for tile in tiles:
        if tile.name not in places or tile.site is None:
            continue
        room = by_name[tile.site]
        swung = tile.serving is not None and tile.serving != tile.site
        broken = tile.cut or room.state == "down"
        dim = " dim" if selected is not None and selected.name != tile.name else ""
        width = _stroke_width(tile.calls_per_minute)
        lane = lanes.get(room.jurisdiction, 0)
        lanes[room.jurisdiction] = lane + 1
        start = places[tile.name]
        wall = walls[room.jurisdiction]
        floor = wall.y + wall.height - WALL - 12 - LANE * lane
        parts.append(_primary_line(start, _column_x(room.type) - 12 - LANE * (lane % 5), floor, width, broken, dim))
        fallback_site = tile.serving if swung else next((name for name in tile.fallbacks if name != tile.site), None)
        if fallback_site is not None and fallback_site in boxes:
            parts.append(_fallback_line(start, boxes[fallback_site], lane, width, swung, dim))
    return parts


def _stroke_width(calls_per_minute: float) -> float:
    """1.5 to 7 px by the logarithm of the traffic."""
    return round(min(7.0, 1.5 + 1.6 * math.log10(1 + max(0.0, calls_per_minute))), 1)


def _primary_line(tile: _Box, x: float, floor: float, width: float, broken: bool, dim: str) -> str:
    y = tile.middle
    kind = "broken" if broken else "primary"
    start = MARGIN + 20
    path = f"M{start} {floor}H{x - 8}Q{x} {floor} {x} {floor - 8}V{y + 8}Q{x} {y} {x + 8} {y}H{tile.x}"
    cut = f'<path class="cut" d="M{tile.x - 18} {y - 7}l10 14m0 -14l-10 14"/>' if broken else ""
    return f'<g class="line {kind}{dim}"><path d="{path}" stroke-width="{1.5 if broken else width}"/>{cut}</g>'


def _fallback_line(tile: _Box, room: _Box, lane: int, width: float, active: bool, dim: str) -> str:
    y = tile.middle + 16
    target = min(max(room.y + 22 + 10 * lane, room.y + 12), room.y + room.height - 12)
    if room.x > tile.x:
        x = room.x - CORRIDOR + 8 + 6 * (lane % 4)
        end = room.x
        start = tile.x + tile.width
    elif room.x + room.width < tile.x:
        x = room.x + room.width + 8 + 6 * (lane % 4)
        end = room.x + room.width
        start = tile.x
    else:
        x = room.x + room.width + 8 + 6 * (lane % 4)
        end = room.x + room.width
        start = tile.x + tile.width
    kind = "swung" if active else "fallback"
    path = f"M{start} {y}H{x}V{target}H{end}"
    stroke = width if active else 1.5
    return (
        f'<g class="line {kind}{dim}"><path d="{path}" stroke-width="{stroke}" stroke-linejoin="round"/>'
        f'<circle cx="{end}" cy="{target}" r="4"/></g>'
    )


def _tile_svg(tile: TileView, box: _Box, selected: TileView | None) -> str:
    classes = ["tile", f"stage-{escape(tile.stage)}"]
    if selected is not None and selected.name != tile.name:
        classes.append("dim")
    if selected is not None and selected.name == tile.name:
        classes.append("selected")
    p95 = "no answer yet" if tile.p95_ms is None else _format_duration(tile.p95_ms)
    fails = f", {', '.join(tile.failing)} {'fails' if len(tile.failing) == 1 else 'fail'}" if tile.failing else ""
    link = f"/?workload={escape(tile.name, quote=True)}"
    name = escape(_shorten(tile.name, _name_length(tile.stage)))
    title = escape(f"{tile.name}: {tile.stage}, {tile.cost_today} today, p95 {p95}{fails}")
    return (
        f'<a href="{link}" class="{" ".join(classes)}"><title>{title}</title>'
        f'<rect x="{box.x}" y="{box.y}" width="{box.width}" height="{box.height}" rx="2"/>'
        f'<text class="name" x="{box.x + 12}" y="{box.y + 23}">{name}</text>'
        f'<text class="note" x="{box.x + box.width - 12}" y="{box.y + 23}" text-anchor="end">'
        f"{escape(tile.stage)}</text>"
        f'<text class="figure" x="{box.x + 12}" y="{box.y + 46}">{escape(tile.cost_today)} today</text>'
        f'<text class="figure" x="{box.x + box.width - 12}" y="{box.y + 46}" text-anchor="end">{escape(p95)}</text>'
        f"{_readiness_bars(tile, box)}</a>"
    )


def _readiness_bars(tile: TileView, box: _Box) -> str:
    gap = 6.0
    width = (box.width - 24 - 4 * gap) / 5
    parts = []
    for index, (area, score) in enumerate(zip(AREAS, tile.readiness, strict=True)):
        x = box.x + 12 + index * (width + gap)
        y = box.y + 59
        label = "not measured yet" if score is None else f"{score:.0%}"
        parts.append(
            f'<g class="readiness"><title>{area}: {label}</title>'
            f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="7"/>'
        )
        if score:
            parts.append(f'<rect class="score" x="{x:.1f}" y="{y}" width="{width * min(1.0, score):.1f}" height="7"/>')
        parts.append("</g>")
    return "".join(parts)


def _format_duration(milliseconds: float) -> str:
    return f"{milliseconds / 1000:.1f} s" if milliseconds >= 1000 else f"{milliseconds:.0f} ms"


def _shorten(text: str, length: int) -> str:
    """`text`, cut so that it is as wide as `length` usual letters."""
    ends = tuple(accumulate(map(_letter_width, text)))
    return text if not ends or ends[-1] <= length else text[: bisect_right(ends, length - 1)] + "…"


def _letter_width(letter: str) -> float:
    """The width in usual letters: in pictures and most scripts of East Asia two, in capitals a third more."""
    return 2.0 if east_asian_width(letter) in "WF" else 1.3 if letter.isupper() else 1.0
