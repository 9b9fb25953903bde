"""Learns from a workload's own matches whether those of a region of questions are served, checked or not used. Pure.

A region is the set of questions near its first one. Calibration tells which score a match needs, but knows neither
these questions nor the kinds of difference between them (`differences`): matches are checked, and none is served, until
checks of the region prove the declared bound and each of its kinds has enough checks. With `upper(wrong, of)` the upper
end of the one-sided 95 % Clopper-Pearson interval of the share that was wrong, a region serves matches where

    checked - wrong >= evidence                          of its own checks,
    upper(wrong, checked) <= bound                       of its own and its neighbours' checks together, and
    wrong = 0 or upper(wrong, checked) <= 3 * bound      of its own checks.

The second takes ln(0.05) / ln(1 - bound) checks without a wrong one, and more with each wrong one: at 1 % 299, 473,
628; at 2 % 149, 236, 313; at 5 % 59, 93, 124. If the third does not hold, the region is off: no match of it is served,
and only the declared share is still checked, so that it can prove itself again. Each wrong match also raises the score
that a match of its region needs. The third must hold for each kind of difference as well, over all regions, and the
first for each kind that calibration has no evidence of. The interval is evaluated after every check, without a
correction for that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import inf

import numpy as np

from groundplan.economics.semantic.differences import DIGEST
from groundplan.economics.semantic.equivalence import is_within_bound
from groundplan.economics.semantic.similarity import Vector

NEAR = 0.36
"""Lowest cosine of a question and the signs of a region's first one; corresponds to 0.45 between both questions."""
NEIGHBOUR = 0.2
"""Lowest cosine of the signs of two neighbours' first questions; corresponds to 0.3 between the questions."""
MAX_REGIONS = 256
"""Limit of regions of a workload; further questions go to the nearest region."""
MAX_KINDS = 4096
"""Limit of counted kinds of difference of a workload; others stay unproven, so that their matches are checked."""
MAX_REMEMBERED = 4096
"""Limit of remembered phrasings that were seen once; the oldest are dropped first."""
STEP = 0.5
"""How much higher than a wrong match the next one must score."""
OFF = 3.0
ASK, CHECK, GIVE = "ask", "check", "give"


@dataclass(frozen=True, slots=True)
class Learned:
    """Stored state of a region or of a kind of difference. `first`: signs of the region's first question, a bit for
    each number of its vector, or the digest of the kind; `raised`: lowest score of a region that may be served."""

    first: bytes
    checked: int
    wrong: int
    raised: float


@dataclass(slots=True)
class Kind:
    """Counts of checked matches that have a kind of difference."""

    checked: int = 0
    wrong: int = 0


_NO_CHECKS = Kind()


@dataclass(slots=True, eq=False)
class Region:
    """Counts of checked matches of a region, and the raised lowest score that follows from them."""

    first: bytes
    direction: Vector
    checked: int = 0
    wrong: int = 0
    raised: float = -inf
    near: list[Region] = field(default_factory=list)
    """Neighbouring regions."""


@dataclass(slots=True)
class Regions:
    """The regions of one workload in one worker."""

    bound: float
    check: float
    evidence: int
    threshold: float
    known: dict[bytes, Region] = field(default_factory=dict)
    kinds: dict[bytes, Kind] = field(default_factory=dict)
    """Kinds of difference by digest."""
    seen_once: dict[bytes, None] = field(default_factory=dict)
    """Digests of phrasings that were seen once and are not counted."""

    def region_of(self, vector: Vector) -> Region:
        """The region of a question; created if there is none near it."""
        if self.known:
            regions = list(self.known.values())
            similarities = np.stack([region.direction for region in regions]) @ vector
            nearest = int(similarities.argmax())
            if similarities[nearest] >= NEAR or len(regions) >= MAX_REGIONS:
                return regions[nearest]
        first = np.packbits(vector > 0).tobytes()
        return self.known.get(first) or self._create(first, len(vector))

    def decide(
        self, region: Region, score: float, dice: float, kinds: Sequence[bytes] = (), unproven: Sequence[bytes] = ()
    ) -> str:
        """`give` the answer, `check` it against a fresh one, or `ask` a model as if there were none. `dice`: 0 to 1.
        `kinds`: digests of the kinds of difference; `unproven`: of those that calibration has no evidence of."""
        if score < max(self.threshold, region.raised):
            return ASK
        if self.is_off(region) or any(self.is_off(self.kinds.get(each, _NO_CHECKS)) for each in kinds):
            return CHECK if dice < self.check else ASK
        sure = dice >= self.check and self.is_proven(region) and self.are_proven_kinds(unproven)
        return GIVE if sure else CHECK

    def was_seen(self, phrasing: bytes) -> bool:
        """Whether a phrasing whose matches a guard refuses was seen before: most are seen once and never checked."""
        if phrasing in self.kinds or phrasing in self.seen_once:
            return True
        self.seen_once[phrasing] = None
        if len(self.seen_once) > MAX_REMEMBERED:
            del self.seen_once[next(iter(self.seen_once))]
        return False

    def are_proven_kinds(self, kinds: Iterable[bytes]) -> bool:
        """Whether each of these kinds has enough checks."""
        return all(self._has_evidence(self.kinds.get(each, _NO_CHECKS)) for each in kinds)

    def is_off(self, counts: Region | Kind) -> bool:
        """Whether checks found wrong answers and do not prove that these are few."""
        return counts.wrong > 0 and not is_within_bound(counts.wrong, counts.checked, OFF * self.bound)

    def _has_evidence(self, counts: Region | Kind) -> bool:
        return counts.checked - counts.wrong >= self.evidence

    def is_proven(self, region: Region) -> bool:
        """Whether a region has enough checks of its own, and these with its neighbours' prove the bound."""
        if not self._has_evidence(region):
            return False
        checked = region.checked + sum(other.checked for other in region.near)
        wrong = region.wrong + sum(other.wrong for other in region.near)
        return is_within_bound(wrong, checked, self.bound)

    def learn(self, region: Region | None, score: float, same: bool, kinds: Sequence[bytes] = ()) -> None:
        """Record a checked match: whether the fresh answer said the `same`. `region` is None for a pair that a guard
        refused, which tells nothing about what the region serves."""
        counted: list[Region | Kind] = [*([] if region is None else [region]), *map(self._kind_counts, kinds)]
        for each in counted:
            each.checked += 1
            each.wrong += not same
        if region is not None and not same:
            region.raised = max(region.raised, score + STEP)

    def _kind_counts(self, kind: bytes) -> Kind:
        return self.kinds.setdefault(kind, Kind()) if kind in self.kinds or len(self.kinds) < MAX_KINDS else Kind()

    def load(self, learned: Iterable[Learned]) -> None:
        """Replace the counts by those of all workers."""
        begun: set[bytes] = set()
        self.kinds.clear()
        for row in learned:
            if len(row.first) == DIGEST:
                self.kinds[row.first] = Kind(row.checked, row.wrong)
                continue
            region = self.known.get(row.first) or self._place_learned(row.first)
            if region.first not in begun:
                begun.add(region.first)
                region.checked, region.wrong, region.raised = 0, 0, -inf
            region.checked += row.checked
            region.wrong += row.wrong
            region.raised = max(region.raised, row.raised)

    def _place_learned(self, first: bytes) -> Region:
        """The region for one learned by another worker: a new one while there is room, else the nearest."""
        size = len(next(iter(self.known.values())).direction) if self.known else len(first) * 8
        return self._create(first, size) if len(self.known) < MAX_REGIONS else self.region_of(_direction(first, size))

    def _create(self, first: bytes, size: int) -> Region:
        region = Region(first, _direction(first, size))
        for other in self.known.values():
            if float(other.direction @ region.direction) >= NEIGHBOUR:
                other.near.append(region)
                region.near.append(other)
        self.known[first] = region
        return region


def _direction(first: bytes, size: int) -> Vector:
    """The unit vector with these signs."""
    signs = np.unpackbits(np.frombuffer(first, dtype=np.uint8), count=size).astype(np.float32)
    return (signs * 2 - 1) / np.float32(size**0.5)
