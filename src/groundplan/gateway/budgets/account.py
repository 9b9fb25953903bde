"""What a worker knows of one budget or limit in one period: what PostgreSQL still has of it, and who waits for it.

Pure memory: asks nobody, and reserves nothing (`leases`).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from groundplan.blueprint.model import Budget
from groundplan.gateway.budgets.leases import Quota

Declared = Budget | Quota

REFILL_S = 0.25
"""Longest that a caller waits for its budget."""
AHEAD_S = 3.0
"""For how long of its use a worker is granted slices ahead, where there is plenty (`grant_size`)."""
LOW_S = 1.0
"""More is fetched while so long a use of it is left: PostgreSQL may be slow for as long without a refusal."""
AWAY_S = 60.0
"""The same of money, and of limits of a day and more, by what was used lately (`STEADY_S`): PostgreSQL may be away for
as long, as while another server takes over, and workloads may go on for a minute then unless they say otherwise."""
STEADY_S = 30.0
_SHORT = ("now", "minute", "hour")
"""Limits of which nothing is held for as long: their windows end meanwhile."""
EMPTY_S = 1.0
"""How long one is known to be empty after PostgreSQL had nothing for a caller."""
AGAIN_S = 0.1
"""Between two questions for one that is known to be empty, while nobody says that there is room again."""
TELL_S = 0.5
"""Between two times that it is told what open calls hold of what others are short of."""
_AHEAD_PART = 8
"""Of the rest of a limit a worker holds at most such a part ahead, since what it holds is lost with it."""
_UNHEARD_S = 0.25
"""The same where PostgreSQL was not heard."""


@dataclass(slots=True)
class Account:
    """What is known of one (name, period) that this worker uses, and the callers who wait for it."""

    declared: Declared
    number: int
    """Of the blueprint that declares it so."""
    waiters: list[tuple[int, asyncio.Future[bool]]] = field(default_factory=list)
    changed: asyncio.Event | None = None
    """Wakes what serves those who wait; None while nobody does: it is most of what one of a hundred thousand takes."""
    promised: int = 0
    """Amounts of callers who were told to go on and have not run yet."""
    freed: bool = False
    """PostgreSQL said that there is room again, and was not asked since."""
    task: asyncio.Task[None] | None = None
    tries: int = 0
    """Fruitless ones in a row."""
    heard: float = float("-inf")
    """Loop time at which PostgreSQL last said that it has nothing."""
    empty_need: int = 0
    """The least that PostgreSQL had not; 0 where it is not known to be empty."""
    empty_until: float = 0.0
    rate: float = 0.0
    """Use a second, lately."""
    steady: float = 0.0
    """The same, of the last half minute."""
    looked: float = float("-inf")
    """Loop time at which its use was last looked at."""
    spent: int = 0
    usual: int = 0
    """A need seen lately."""
    calm_until: float = 0.0
    """Loop time until which nothing is fetched ahead."""
    rest: int | None = None
    """What nobody held when PostgreSQL was last asked."""
    elsewhere: int = 0
    """What open calls of other workers held of it then, as far as they had said."""
    told_open: float = float("-inf")
    """Loop time at which it was told what open calls here hold of it."""
    asked: float = float("-inf")
    """Loop time, which is the machine's monotonic one, at which somebody wanted to know that."""
    cut: bool = False
    """Less is declared than what is held was granted of: whatever becomes idle is given back, until PostgreSQL says
    that all who hold something of it are within what is declared now."""

    def wake(self) -> None:
        """Something may have come for those who wait."""
        if self.changed is not None:
            self.changed.set()

    @property
    def soft(self) -> bool:
        return isinstance(self.declared, Budget) and not self.declared.hard

    def declare(self, declared: Declared, number: int) -> None:
        """Take up what a blueprint that is not older says."""
        if number >= self.number:
            if declared.limit != self.declared.limit:
                self.empty_need = 0
            if declared.limit < self.declared.limit or self.soft:
                self.cut = True
            self.declared, self.number = declared, number
            self.cut = self.cut and not self.soft

    def used(self, spent: int, seconds: float, now: float) -> None:
        """Learn what was used until now; those that move were looked at so many seconds ago."""
        used, self.spent = spent - self.spent, spent
        self.rate += (used / seconds - self.rate) * 0.2
        since, self.looked = max(seconds, now - self.looked), now
        self.steady += (used / since - self.steady) * min(1.0, since / STEADY_S)

    def low(self, *, quota: bool) -> float:
        """Below this more is fetched ahead."""
        low, most = self.rate * LOW_S, max(0, self.rest or 0) // (2 * _AHEAD_PART)
        if quota and self.rest is not None:
            low = min(low, most)
        return max(low, self._while_away if self.soft else min(self._while_away, most))

    def ahead(self, headroom: int, *, quota: bool, available: int) -> int:
        """What is asked for ahead where so much is held."""
        headroom = max(headroom, int(self._while_away * 1.5) - max(0, available))
        if not quota or self.rest is None:
            return headroom
        return min(headroom, max(0, self.rest // _AHEAD_PART - max(0, available)))

    @property
    def _while_away(self) -> float:
        """What is used of it while PostgreSQL is away."""
        short = isinstance(self.declared, Quota) and self.declared.period in _SHORT
        return 0.0 if short else self.steady * AWAY_S

    def idle(self, available: int) -> int:
        """How much of a limit a worker keeps that has so much idle: what it may hold ahead, at least one more call."""
        return max(self.usual, (available + max(0, self.rest or 0)) // _AHEAD_PART)

    def is_empty(self, need: int, now: float) -> bool:
        """Whether PostgreSQL had nothing for one like it lately, or is being asked again whether it still has not."""
        return bool(self.empty_need) and need >= self.empty_need and (now < self.empty_until or bool(self.waiters))

    def refused(self, need: int, now: float) -> None:
        """A caller waited in vain for what was not known to be empty."""
        if self.tries:
            self.empty_need = min(self.empty_need or need, need)
            self.empty_until = now + (EMPTY_S if self.told_empty(now) else _UNHEARD_S)

    def told_empty(self, now: float) -> bool:
        """Whether PostgreSQL said so lately; where it did not, it could not be asked."""
        return now - self.heard < EMPTY_S + REFILL_S
