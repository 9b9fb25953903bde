"""Learns from a workload's own matches: by region of questions, whether matches are served, checked, or not used. Pure.

A region is the set of questions near its first one. Calibration tells which score a match needs, but knows neither
these questions nor the kinds of difference between them (`differences`): matches are checked, and none is served, until
checks of the region prove the declared bound and each of its kinds has enough checks. With `upper(wrong, of)` the upper
end of the one-sided 95 % Clopper-Pearson interval of the share that was wrong, a region serves matches where

    checked - wrong >= evidence                          of its own checks,
    upper(wrong, checked) <= bound                       of its own and its neighbours' checks together, and
    wrong = 0 or upper(wrong, checked) <= 3 * bound      of its own checks.

The second takes ln(0.05) / ln(1 - bound) checks without a wrong one, and more with each wrong one: at 1 % 299, 473,
628; at 2 % 149, 236, 313; at 5 % 59, 93, 124. Where the third does not hold, the region is off: no match of it is
given, and only the declared share is still checked, so that it can prove itself again. Each wrong match also raises the
score that a match of its region must have. The third is asked of each kind of difference as well, in whatever region it
was found, and the first of each that calibration has no evidence of: it is checked before it is given. The interval
is looked at after every check, without a correction for it.
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
"""Similarity of a question to the signs of a region's first one; as 0.45 between both questions."""
NEIGHBOUR = 0.2
"""Similarity of the signs of two first questions; as 0.3 between the questions."""
MAX_REGIONS = 256
"""Limit of regions of a workload; further questions go to the nearest region."""
MAX_KINDS = 4096
"""Limit of counted kinds of difference of a workload; others stay unproven, so that their matches are checked."""
MAX_REMEMBERED = 4096
"""Limit of remembered ways of wording that were met once; the oldest are dropped first."""
STEP = 0.5
"""How much more than a wrong match the next one must score."""
OFF = 3.0
ASK, CHECK, GIVE = "ask", "check", "give"


@dataclass(frozen=True, slots=True)
class Learned:
    """Stored state of a region (signs of its first question, a bit for each number of the vector, counts, least score)
    or of a kind of difference (its digest, counts)."""

    first: bytes
    checked: int
    wrong: int
    raised: float


@dataclass(slots=True)
class Kind:
    """Counts of checked matches that have a kind of difference."""

    checked: int = 0
    wrong: int = 0


_NEVER = Kind()


@dataclass(slots=True, eq=False)
class Region:
    """Counts of checked matches, and the raised least score that follows from them."""

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
    met_once: dict[bytes, None] = field(default_factory=dict)
    """Ways of wording that were met once and are not counted."""

    def region_of(self, vector: Vector) -> Region:
        """The region of a question, created where there is none yet."""
        if self.known:
            regions = list(self.known.values())
            likeness = np.stack([region.direction for region in regions]) @ vector
            place = int(likeness.argmax())
            if likeness[place] >= NEAR or len(regions) >= MAX_REGIONS:
                return regions[place]
        first = np.packbits(vector > 0).tobytes()
        return self.known.get(first) or self._create(first, len(vector))

    def decide(
        self, region: Region, score: float, dice: float, kinds: Sequence[bytes] = (), unproven: Sequence[bytes] = ()
    ) -> str:
        """`give` the answer, `check` it against a fresh one, or `ask` a model as if there were none. `dice`: 0 to 1.
        `kinds`: digests of the kinds of difference; `unproven`: of those that calibration has no evidence of."""
        if score < max(self.threshold, region.raised):
            return ASK
        if self.is_off(region) or any(self.is_off(self.kinds.get(each, _NEVER)) for each in kinds):
            return CHECK if dice < self.check else ASK
        sure = dice >= self.check and self.is_proven(region) and self.are_proven_kinds(unproven)
        return GIVE if sure else CHECK

    def was_met(self, ways: bytes) -> bool:
        """Whether these ways, whose matches a guard refuses, were met before: most are met once and never checked."""
        if ways in self.kinds or ways in self.met_once:
            return True
        self.met_once[ways] = None
        if len(self.met_once) > MAX_REMEMBERED:
            del self.met_once[next(iter(self.met_once))]
        return False

    def are_proven_kinds(self, kinds: Iterable[bytes]) -> bool:
        """Whether each of these kinds has enough checks."""
        return all(self._has_evidence(self.kinds.get(each, _NEVER)) for each in kinds)

    def is_off(self, of: Region | Kind) -> bool:
        """Whether its checks found wrong answers and do not show that these are few."""
        return of.wrong > 0 and not is_within_bound(of.wrong, of.checked, OFF * self.bound)

    def _has_evidence(self, of: Region | Kind) -> bool:
        return of.checked - of.wrong >= self.evidence

    def is_proven(self, region: Region) -> bool:
        """Whether it has enough checks of its own, and these with its neighbours' prove the bound."""
        if not self._has_evidence(region):
            return False
        checked = region.checked + sum(other.checked for other in region.near)
        wrong = region.wrong + sum(other.wrong for other in region.near)
        return is_within_bound(wrong, checked, self.bound)

    def learn(self, region: Region | None, score: float, same: bool, kinds: Sequence[bytes] = ()) -> None:
        """Record a checked match: whether the fresh answer said the `same`. `region` is None for a pair that a guard
        refused, which tells nothing about what the region serves."""
        counted: list[Region | Kind] = [*([] if region is None else [region]), *map(self._counted, kinds)]
        for each in counted:
            each.checked += 1
            each.wrong += not same
        if region is not None and not same:
            region.raised = max(region.raised, score + STEP)

    def _counted(self, kind: bytes) -> Kind:
        return self.kinds.setdefault(kind, Kind()) if kind in self.kinds or len(self.kinds) < MAX_KINDS else Kind()

    def load(self, learned: Iterable[Learned]) -> None:
        """Replace the counts by those of all workers, region by region."""
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
