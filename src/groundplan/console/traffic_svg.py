"""Two small drawings about calls, as SVG text: traffic of the last minutes, and where the time of one call went.

Widths are percentages of the available width and text keeps its size, so that both are readable on a phone. Colours are
in plan.css. Pure; the figures are the API's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup, escape

from groundplan.console.receipt import refusing_step
from groundplan.console.render import format_milliseconds

SPARK_HEIGHT = 64
ROW_HEIGHT = 36
NAME_LENGTH = 36
"""Characters of a name that fit beside its duration on a phone; the list of attempts has the whole name."""
_OUTCOMES = ("failed", "refused", "cancelled", "ok")
_LABELLED_COUNTS = ("calls", "failed", "refused", "cancelled")


def sparkline(steps: Sequence[dict[str, Any]]) -> Markup:
    """A column for each time step: failed calls at the bottom, then refused, cancelled by the caller, answered."""
    max_calls = max((step["calls"] for step in steps), default=0)
    width = 100 / max(1, len(steps))
    columns = [
        _column_svg(step, position * width, width, max_calls) for position, step in enumerate(steps) if step["calls"]
    ]
    label = _spark_label(steps, max_calls)
    frame = f'<svg class="spark" role="img" aria-label="{escape(label)}" width="100%" height="{SPARK_HEIGHT}">'
    base = f'<line x1="0" x2="100%" y1="{SPARK_HEIGHT - 0.5}" y2="{SPARK_HEIGHT - 0.5}"/>'
    return Markup(f"{frame}{base}{''.join(columns)}</svg>")  # numbers, fixed words and an escaped label only


def _column_svg(step: dict[str, Any], left: float, width: float, max_calls: int) -> str:
    counts = {**step, "cancelled": step["calls"] - step["ok"] - step["refused"] - step["failed"]}
    bottom = float(SPARK_HEIGHT - 1)
    rectangles = []
    for name in _OUTCOMES:
        height = counts[name] / max_calls * (SPARK_HEIGHT - 4)
        if height > 0:
            bottom -= height
            place = f'x="{left:.3f}%" width="{width * 0.82:.3f}%" y="{bottom:.2f}" height="{height:.2f}"'
            rectangles.append(f'<rect class="spark-{name}" {place}/>')
    started_at = datetime.fromisoformat(step["at"]).astimezone(UTC)
    label = f"{started_at:%H:%M:%S}: " + ", ".join(f"{counts[name]} {name}" for name in _LABELLED_COUNTS)
    return f"<g><title>{escape(label)}</title>{''.join(rectangles)}</g>"


def _spark_label(steps: Sequence[dict[str, Any]], max_calls: int) -> str:
    total = sum(step["calls"] for step in steps)
    failed = sum(step["failed"] for step in steps)
    return f"{total} calls, {failed} of them failed; at most {max_calls} in ten seconds"


@dataclass(frozen=True, slots=True)
class Bar:
    """One row: times in milliseconds since the call began; `phases` are (style, begin, end)."""

    name: str
    label: str
    begin: float
    end: float
    phases: tuple[tuple[str, float, float], ...]


def call_waterfall(call: dict[str, Any]) -> Markup:
    """The steps and attempts of a receipt below each other on one time scale; empty where nothing was timed."""
    bars = [*_step_bars(call), *_attempt_bars(call)]
    if not bars:
        return Markup("")
    total_ms = max(float(call.get("duration_ms") or 0), *(bar.end for bar in bars)) or 1.0
    rows = "".join(_bar_svg(bar, position, total_ms) for position, bar in enumerate(bars))
    height = ROW_HEIGHT * len(bars)
    label = "; ".join(f"{bar.name} {bar.label}" for bar in bars)
    frame = f'<svg class="waterfall" role="img" aria-label="{escape(label)}" width="100%" height="{height}">'
    return Markup(f"{frame}{rows}</svg>")  # numbers, fixed words and escaped names only


def _step_bars(call: dict[str, Any]) -> list[Bar]:
    """One bar per step; a step that occurs twice in a row, such as look-ups of a key and of an answer, is one bar."""
    bars: list[Bar] = []
    before = 0.0
    for row in call["steps"]:
        end = max(before, float(row["ms"]))
        begin = bars.pop().begin if bars and bars[-1].name == row["step"] else before
        bars.append(Bar(row["step"], format_milliseconds(end - begin), begin, end, (("wf-step", begin, end),)))
        before = end
    if (refusal := refusing_step(call)) is not None and refusal.ms is not None:
        end = before + refusal.ms
        label = f"refused, {format_milliseconds(refusal.ms)}"
        bars.append(Bar(refusal.name, label, before, end, (("wf-step", before, end),)))
    return bars


def _attempt_bars(call: dict[str, Any]) -> list[Bar]:
    bars = []
    for attempt in call["attempts"]:
        begin, took = attempt.get("started_ms"), attempt.get("duration_ms")
        if begin is None or took is None:
            continue
        end = begin + took
        name = f"{attempt['number'] + 1}. {attempt['deployment']}"
        label = format_milliseconds(took)
        if attempt["outcome"] != "ok":
            label = f"{attempt['outcome'].replace('_', ' ')}, {label}"
        bars.append(Bar(name, label, begin, end, _phases(attempt, begin, end)))
    return bars


def _phases(attempt: dict[str, Any], begin: float, end: float) -> tuple[tuple[str, float, float], ...]:
    """(style, begin, end) of connecting, waiting for the first byte and receiving."""
    connected = begin + (attempt.get("connect_ms") or 0.0)
    first = attempt.get("first_byte_ms")
    answered = end if first is None else min(end, begin + first)
    well = attempt["outcome"] in ("ok", "cancelled")  # what the caller or a faster attempt ended has not failed
    last = "wf-receive" if well else "wf-failed"
    waiting = "wf-wait" if first is not None or well else "wf-failed"
    parts = (("wf-connect", begin, connected), (waiting, connected, answered), (last, answered, end))
    return tuple(part for part in parts if part[2] > part[1])


def _bar_svg(bar: Bar, position: int, total_ms: float) -> str:
    top = position * ROW_HEIGHT
    name = bar.name if len(bar.name) <= NAME_LENGTH else f"{bar.name[: NAME_LENGTH - 1]}…"
    rectangles = "".join(
        f'<rect class="{style}" x="{begin / total_ms * 100:.3f}%" y="{top + 20}"'
        f' width="{max(0.25, (end - begin) / total_ms * 100):.3f}%" height="9"/>'
        for style, begin, end in bar.phases
    )
    return (
        f'<rect class="wf-track" x="0" y="{top + 20}" width="100%" height="9"/>{rectangles}'
        f'<text x="0" y="{top + 14}">{escape(name)}</text>'
        f'<text class="wf-told" x="100%" y="{top + 14}" text-anchor="end">{escape(bar.label)}</text>'
    )
