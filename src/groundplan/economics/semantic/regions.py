"""What a workload's own matches teach: by region of questions, whether matches are given, checked, or not given. Pure.

A region is what lies near the first question of it. Calibration says which score a match needs, and nothing of these
questions, nor of the kinds of difference between them (`differences`): a match is checked, and none is given, until
checks of its region prove the declared bound and those of each of its kinds are enough. With `upper(wrong, of)` the
upper end of the one-sided 95 % Clopper-Pearson interval of the share that was wrong, a region gives where

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
from groundplan.economics.semantic.equivalence import within
from groundplan.economics.semantic.similarity import Vector

NEAR = 0.36
"""Likeness of a question to the signs of a region's first one; as 0.45 between both questions."""
NEIGHBOUR = 0.2
"""Likeness of the signs of two first questions; as 0.3 between the questions."""
MOST = 256
"""Regions of a workload; what lies in none of them then goes to the nearest."""
MOST_KINDS = 4096
"""Kinds of difference of a workload that are counted; any others stay unproven, so that their matches are checked."""
MOST_ONCE = 4096
"""Ways that were met once, of which a worker remembers that they were; the oldest go first."""
STEP = 0.5
"""How much more than a wrong match the next one must score."""
OFF = 3.0
ASK, CHECK, GIVE = "ask", "check", "give"


@dataclass(frozen=True, slots=True)
class Learned:
    """Of a region: the signs of its first question (a bit for each number of the vector), counts, least score. Of a
    kind of difference: its digest, counts."""

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
    """Counts of checked matches, and the least score that came of them."""

    first: bytes
    direction: Vector
    checked: int = 0
    wrong: int = 0
    raised: float = -inf
    near: list[Region] = field(default_factory=list)
    """Its neighbours."""


@dataclass(slots=True)
class Regions:
    """Of one workload in one worker."""

    bound: float
    check: float
    evidence: int
    threshold: float
    known: dict[bytes, Region] = field(default_factory=dict)
    kinds: dict[bytes, Kind] = field(default_factory=dict)
    """Of differences, by their digests."""
    once: dict[bytes, None] = field(default_factory=dict)
    """Ways that were met, and are not counted."""

    def of(self, vector: Vector) -> Region:
        """The region of a question, made where there is none yet."""
        if self.known:
            regions = list(self.known.values())
            likeness = np.stack([region.direction for region in regions]) @ vector
            place = int(likeness.argmax())
            if likeness[place] >= NEAR or len(regions) >= MOST:
                return regions[place]
        first = np.packbits(vector > 0).tobytes()
        return self.known.get(first) or self._made(first, len(vector))

    def decide(
        self, region: Region, score: float, dice: float, kinds: Sequence[bytes] = (), unproven: Sequence[bytes] = ()
    ) -> str:
        """`give` the answer, `check` it against a fresh one, or `ask` a model as if there were none. `dice`: 0 to 1.
        `kinds`: digests of the kinds of difference; `unproven`: of those that calibration has no evidence of."""
        if score < max(self.threshold, region.raised):
            return ASK
        if self.off(region) or any(self.off(self.kinds.get(each, _NEVER)) for each in kinds):
            return CHECK if dice < self.check else ASK
        sure = dice >= self.check and self.proven(region) and self.shown(unproven)
        return GIVE if sure else CHECK

    def again(self, ways: bytes) -> bool:
        """Whether two ways whose matches a guard refuses were met before: most are met once, and never checked."""
        if ways in self.kinds or ways in self.once:
            return True
        self.once[ways] = None
        if len(self.once) > MOST_ONCE:
            del self.once[next(iter(self.once))]
        return False

    def shown(self, kinds: Iterable[bytes]) -> bool:
        """Whether checks of each of these are enough."""
        return all(self._enough(self.kinds.get(each, _NEVER)) for each in kinds)

    def off(self, of: Region | Kind) -> bool:
        """Its own checks found a wrong answer and do not show that they are few."""
        return of.wrong > 0 and not within(of.wrong, of.checked, OFF * self.bound)

    def _enough(self, of: Region | Kind) -> bool:
        return of.checked - of.wrong >= self.evidence

    def proven(self, region: Region) -> bool:
        """Its own checks are enough, and they and its neighbours' prove the bound."""
        if not self._enough(region):
            return False
        checked = region.checked + sum(other.checked for other in region.near)
        wrong = region.wrong + sum(other.wrong for other in region.near)
        return within(wrong, checked, self.bound)

    def learn(self, region: Region | None, score: float, same: bool, kinds: Sequence[bytes] = ()) -> None:
        """Whether the fresh answer to a checked match said the same. None: what a guard refuses says nothing of what a
        region gives."""
        counted: list[Region | Kind] = [*([] if region is None else [region]), *map(self._counted, kinds)]
        for each in counted:
            each.checked += 1
            each.wrong += not same
        if region is not None and not same:
            region.raised = max(region.raised, score + STEP)

    def _counted(self, kind: bytes) -> Kind:
        return self.kinds.setdefault(kind, Kind()) if kind in self.kinds or len(self.kinds) < MOST_KINDS else Kind()

    def load(self, learned: Iterable[Learned]) -> None:
        """What all workers learned takes the place of what is counted here, region by region."""
        begun: set[bytes] = set()
        self.kinds.clear()
        for row in learned:
            if len(row.first) == DIGEST:
                self.kinds[row.first] = Kind(row.checked, row.wrong)
                continue
            region = self.known.get(row.first) or self._placed(row.first)
            if region.first not in begun:
                begun.add(region.first)
                region.checked, region.wrong, region.raised = 0, 0, -inf
            region.checked += row.checked
            region.wrong += row.wrong
            region.raised = max(region.raised, row.raised)

    def _placed(self, first: bytes) -> Region:
        """A region of another worker: kept as it is while there is room for it, else the nearest takes it."""
        size = len(next(iter(self.known.values())).direction) if self.known else len(first) * 8
        return self._made(first, size) if len(self.known) < MOST else self.of(_direction(first, size))

    def _made(self, first: bytes, size: int) -> Region:
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
