"""Values of the semantic cache: a question as it is compared, and a match with a kept answer. `semantic` finds them."""

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
    """The question of one call, read and embedded; kept with the call until its answer is there."""

    frame: bytes
    embedded: EmbeddedReading


@dataclass(frozen=True, slots=True)
class Match:
    """A kept answer that is checked against the fresh one of the call."""

    entry: Entry
    calibration: Calibration
    region: Region | None
    """None: a guard refuses the match, and only the phrasing of both questions is learned from."""
    score: float
    kinds: tuple[bytes, ...]
    """Digests of the kinds of difference between both questions."""


@dataclass(slots=True, eq=False)
class Calibration:
    """Results of a workload's checks under its present rule."""

    rule: Semantic
    regions: Regions
    terms: Terms
    version: int = -1
    """`CheckStore.version` of the results loaded last."""
