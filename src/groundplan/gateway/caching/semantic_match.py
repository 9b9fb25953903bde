"""A question as the semantic cache compares it, and a kept answer that was found for it. Values only; `semantic` finds
them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from groundplan.blueprint.model import Semantic
    from groundplan.economics.semantic.regions import Region, Regions
    from groundplan.economics.semantic.similarity import EmbeddedReading
    from groundplan.gateway.caching.entry import Entry
    from groundplan.gateway.caching.semantic_checks import Terms


@dataclass(frozen=True, slots=True)
class Question:
    """The question of one call, read for comparing; kept with it until its answer is there."""

    frame: bytes
    said: EmbeddedReading


@dataclass(frozen=True, slots=True)
class Match:
    """An answer that was found and is checked against the one that comes now."""

    entry: Entry
    calibration: Calibration
    region: Region | None
    """None: a guard refuses it, and only of the two ways in which both questions are put something is learned."""
    score: float
    kinds: tuple[bytes, ...]
    """Digests of the kinds of difference between both questions."""


@dataclass(slots=True, eq=False)
class Calibration:
    """What a workload's checks taught, under the rule that it declares now."""

    rule: Semantic
    regions: Regions
    terms: Terms
    version: int = -1
    """Of what was read of other workers."""
