"""What a workload declares about cached answers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, WithJsonSchema

from groundplan.catalog.base import Strict
from groundplan.catalog.fields import Count, Duration, Percent, Size, Usd
from groundplan.catalog.hosting import HourPrice

HOUR_MS = 3_600_000


def _time(milliseconds: int) -> int:
    if not 1_000 <= milliseconds <= 30 * 24 * HOUR_MS:
        raise ValueError("write from 1s to 30d")
    return milliseconds


def _size(count: int) -> int:
    if not 1 << 16 <= count <= 1 << 30:
        raise ValueError("write from 64 KiB to 1 GiB")
    return count


def _bound(share: float) -> float:
    if not 0.01 <= share <= 0.05:
        raise ValueError("write from 1% to 5%: how alike questions must be is calibrated for 1%, 2% and 5%")
    return share


_BOUND = WithJsonSchema({"type": "string", "pattern": r"^([1-4](\.[0-9]+)?|5(\.0+)?) ?%$", "examples": ["1%"]})


class SemanticRule(Strict):
    """Answers for requests that mean the same, with a bound on wrong ones."""

    wrong_at_most: Annotated[Percent, AfterValidator(_bound), _BOUND] = 0.01
    """Share of answers given by meaning that may be wrong, 1% to 5%. How alike questions must be
    is calibrated for 1%, 2% and 5%; in between, the next lower one of them counts."""
    check: Annotated[Percent, Field(gt=0)] = 0.05
    """Share of matches for which a model is asked all the same, and both answers are compared."""
    evidence: Annotated[Count, Field(ge=1)] = 20
    """Matches about a subject that checks must find right before the first one is given; the bound may take more."""
    wrong_costs: Usd = 0
    """Average cost of a wrong answer, deducted from the savings of the cache."""
    processor: HourPrice = 50_000_000_000
    """Cost of an hour of CPU for lookups, deducted, too."""


class CacheRule(Strict):
    """Caching of answers."""

    answers: Literal["off", "exact"] = "off"
    """exact: an equal request gets the same answer, even if its temperature would make each answer different."""
    ttl: Annotated[Duration, AfterValidator(_time)] = HOUR_MS
    """Time to live of a cached answer."""
    max_size: Annotated[Size, AfterValidator(_size)] = 64_000_000
    """Maximum size of its cached answers in one worker; the least recently used ones are evicted."""
    scope: Literal["person", "group", "workload"] | None = None
    """Who shares cached answers. Left out: person with sources or confidential data, otherwise workload."""
    semantic: SemanticRule | None = None
    """Caching for requests with the same meaning; left out: only for equal requests."""
