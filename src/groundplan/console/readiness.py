"""From the API's readiness to five marks for each workload. Pure: what has no evidence is None, never a guessed zero."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from groundplan.console.plan_svg import AREAS


def shares(readiness: Sequence[dict[str, Any]]) -> dict[str, dict[str, float | None]]:
    """workload -> area -> 0..1 of its points that are proven; None where nothing is proven yet."""
    return {row["workload"]: {area["area"]: _share(area) for area in row["areas"]} for row in readiness}


def marks(share: dict[str, float | None] | None) -> tuple[tuple[str, float | None], ...]:
    """The five areas in their order."""
    return tuple((area, (share or {}).get(area)) for area in AREAS)


def _share(area: dict[str, Any]) -> float | None:
    return area["earned"] / area["of"] if area["earned"] and area["of"] else None
