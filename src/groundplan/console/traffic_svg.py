"""Two small drawings about calls, as SVG text: traffic of the last minutes, and where the time of one call went.

Widths are shares of whatever place there is and text keeps its size, so that both read on a phone. Colours are in
plan.css. Pure; what is drawn is the API's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup, escape

from groundplan.console.render import format_milliseconds

SPARK_HEIGHT = 64
ROW_HEIGHT = 36
_PARTS = ("failed", "refused", "cancelled", "ok")
_TOLD = ("calls", "failed", "refused", "cancelled")


def sparkline(steps: Sequence[dict[str, Any]]) -> Markup:
    """A column for each step: failed at the bottom, then refused, then those whose caller went away, then answered."""
    most = max((step["calls"] for step in steps), default=0)
    width = 100 / max(1, len(steps))
    columns = [_column(step, at * width, width, most) for at, step in enumerate(steps) if step["calls"]]
    label = _spark_label(steps, most)
    frame = f'<svg class="spark" role="img" aria-label="{escape(label)}" width="100%" height="{SPARK_HEIGHT}">'
    base = f'<line x1="0" x2="100%" y1="{SPARK_HEIGHT - 0.5}" y2="{SPARK_HEIGHT - 0.5}"/>'
    return Markup(f"{frame}{base}{''.join(columns)}</svg>")  # numbers, fixed words and an escaped label only


def _column(step: dict[str, Any], left: float, width: float, most: int) -> str:
    counts = {**step, "cancelled": step["calls"] - step["ok"] - step["refused"] - step["failed"]}
    bottom = float(SPARK_HEIGHT - 1)
    drawn = []
    for name in _PARTS:
        height = counts[name] / most * (SPARK_HEIGHT - 4)
        if height > 0:
            bottom -= height
            place = f'x="{left:.3f}%" width="{width * 0.82:.3f}%" y="{bottom:.2f}" height="{height:.2f}"'
            drawn.append(f'<rect class="spark-{name}" {place}/>')
    at = datetime.fromisoformat(step["at"]).astimezone(UTC)
    told = f"{at:%H:%M:%S}: " + ", ".join(f"{counts[name]} {name}" for name in _TOLD)
    return f"<g><title>{escape(told)}</title>{''.join(drawn)}</g>"


def _spark_label(steps: Sequence[dict[str, Any]], most: int) -> str:
    total = sum(step["calls"] for step in steps)
    failed = sum(step["failed"] for step in steps)
    return f"{total} calls, {failed} of them failed; at most {most} in ten seconds"


@dataclass(frozen=True, slots=True)
class Bar:
    """One row: times in milliseconds since the call began; `parts` are (style, begin, end)."""

    name: str
    told: str
    begin: float
    end: float
    parts: tuple[tuple[str, float, float], ...]


def waterfall(call: dict[str, Any]) -> Markup:
    """Steps and attempts of a receipt under each other, on one scale; empty where nothing was timed."""
    bars = [*_step_bars(call), *_attempt_bars(call)]
    if not bars:
        return Markup("")
    whole = max(float(call.get("duration_ms") or 0), *(bar.end for bar in bars)) or 1.0
    rows = "".join(_row(bar, at, whole) for at, bar in enumerate(bars))
    height = ROW_HEIGHT * len(bars)
    label = "; ".join(f"{bar.name} {bar.told}" for bar in bars)
    frame = f'<svg class="waterfall" role="img" aria-label="{escape(label)}" width="100%" height="{height}">'
    return Markup(f"{frame}{rows}</svg>")  # numbers, fixed words and escaped names only


def _step_bars(call: dict[str, Any]) -> list[Bar]:
    """A step that is made twice in a row, as a look for a key and one for an answer, is one."""
    bars: list[Bar] = []
    before = 0.0
    for row in call["steps"]:
        end = max(before, float(row["ms"]))
        begin = bars.pop().begin if bars and bars[-1].name == row["step"] else before
        bars.append(Bar(row["step"], format_milliseconds(end - begin), begin, end, (("wf-step", begin, end),)))
        before = end
    return bars


def _attempt_bars(call: dict[str, Any]) -> list[Bar]:
    bars = []
    for attempt in call["attempts"]:
        begin, took = attempt.get("started_ms"), attempt.get("duration_ms")
        if begin is None or took is None:
            continue
        end = begin + took
        name = f"{attempt['number'] + 1}. {attempt['deployment']}"
        told = format_milliseconds(took)
        if attempt["outcome"] != "ok":
            told = f"{attempt['outcome'].replace('_', ' ')}, {told}"
        bars.append(Bar(name, told, begin, end, _parts(attempt, begin, end)))
    return bars


def _parts(attempt: dict[str, Any], begin: float, end: float) -> tuple[tuple[str, float, float], ...]:
    """Connecting, waiting for the first byte, receiving."""
    connected = begin + (attempt.get("connect_ms") or 0.0)
    first = attempt.get("first_byte_ms")
    answered = end if first is None else min(end, begin + first)
    last = "wf-receive" if attempt["outcome"] == "ok" else "wf-failed"
    waiting = "wf-wait" if first is not None or attempt["outcome"] == "ok" else "wf-failed"
    parts = (("wf-connect", begin, connected), (waiting, connected, answered), (last, answered, end))
    return tuple(part for part in parts if part[2] > part[1])


def _row(bar: Bar, at: int, whole: float) -> str:
    top = at * ROW_HEIGHT
    drawn = "".join(
        f'<rect class="{style}" x="{begin / whole * 100:.3f}%" y="{top + 20}"'
        f' width="{max(0.25, (end - begin) / whole * 100):.3f}%" height="9"/>'
        for style, begin, end in bar.parts
    )
    return (
        f'<rect class="wf-track" x="0" y="{top + 20}" width="100%" height="9"/>{drawn}'
        f'<text x="0" y="{top + 14}">{escape(bar.name)}</text>'
        f'<text class="wf-told" x="100%" y="{top + 14}" text-anchor="end">{escape(bar.told)}</text>'
    )
