"""What a worker knows of one budget or limit in one period: what PostgreSQL can still grant of it, and which callers
wait for it.

Pure memory: sends no queries and reserves nothing (`leases`).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from groundplan.blueprint.model import Budget
from groundplan.gateway.budgets.leases import Quota

Declaration = Budget | Quota

REFILL_WAIT_S = 0.25
"""The longest that a caller waits for its budget."""
PREFETCH_S = 3.0
"""A worker asks for slices for so long a time of use ahead, while there is plenty (`grant_size`)."""
LOW_WATER_S = 1.0
"""More is fetched once less than this time of use is left: PostgreSQL may be slow for as long without a refusal."""
OUTAGE_S = 60.0
"""The same, by the use of the last half minute (`STEADY_WINDOW_S`), in the current period and in the next one if that
begins within this time: PostgreSQL may be away for as long, as while another server takes over, and workloads may go on
for a minute then unless they declare otherwise."""
STEADY_WINDOW_S = 30.0
_OFTEN = 5
"""Uses a minute from which the next period is fetched ahead: of tens of thousands of users with a limit each, most call
less often, and windows of theirs would take memory for nothing."""
_IN_USE_S = 0.6
"""How long an account that is used often counts as in use after each use: until it was looked at once more
(`lease_client`)."""
EMPTY_S = 1.0
"""How long an account is known to be empty after PostgreSQL refused a grant."""
EMPTY_RETRY_S = 0.1
"""Pause between two requests for an account known to be empty, unless PostgreSQL announces freed amounts sooner."""
OPEN_REPORT_S = 0.5
"""Least time between two reports of what open calls hold of a budget that other workers lack."""
_PREFETCH_SHARE = 8
"""A worker holds at most one such part of the rest of a limit ahead, since what it holds is lost if it dies."""
_UNREACHABLE_S = 0.25
"""As `EMPTY_S`, where PostgreSQL did not answer."""


@dataclass(slots=True)
class Account:
    """State of one (name, period) that this worker uses, and the callers that wait for it."""

    declared: Declaration
    blueprint_number: int
    """Number of the blueprint that declares it so."""
    waiters: list[tuple[int, asyncio.Future[bool]]] = field(default_factory=list)
    changed: asyncio.Event | None = None
    """Wakes the task that serves the waiters; None while there are none, since it is most of the memory that one of a
    hundred thousand accounts takes."""
    promised: int = 0
    """Total amount of the callers that were told to go on and have not run yet."""
    retry_now: bool = False
    """PostgreSQL announced freed amounts, and was not asked since."""
    task: asyncio.Task[None] | None = None
    failed_tries: int = 0
    """Requests in a row that brought nothing."""
    refused_at: float = float("-inf")
    """Loop time at which PostgreSQL last refused a grant; -inf where it did not answer."""
    smallest_refused: int = 0
    """The smallest amount that PostgreSQL refused; 0 while the account is not known to be empty."""
    empty_until: float = 0.0
    use_rate: float = 0.0
    """Recent use per second."""
    steady_rate: float = 0.0
    """Use per second over the last half minute."""
    use_frequency: float = 0.0
    """How often per second it was used, over the same time; what is used between two measurements counts as once."""
    measured_at: float = float("-inf")
    """Loop time at which the use was last measured."""
    used_at: float = float("-inf")
    """Loop time at which a use was last measured."""
    spent: int = 0
    usual_amount: int = 0
    """The amount of a recent call."""
    no_prefetch_until: float = 0.0
    """Loop time until which nothing is fetched ahead."""
    unallocated: int | None = None
    """The amount that no worker held when PostgreSQL was last asked."""
    open_elsewhere: int = 0
    """What open calls of other workers held of it then, as far as they had reported."""
    open_reported_at: float = float("-inf")
    """Loop time of the last report of what open calls here hold of it."""
    queried_at: float = float("-inf")
    """Loop time, which is the machine's monotonic clock, at which a caller last asked for the remaining amount."""
    is_shrinking: bool = False
    """The limit was lowered below what is held: whatever becomes idle is given back, until PostgreSQL says that all
    holders together are within the declared limit."""

    def wake(self) -> None:
        """Wake the task that serves the waiters: something may have come for them."""
        if self.changed is not None:
            self.changed.set()

    @property
    def is_soft(self) -> bool:
        return isinstance(self.declared, Budget) and not self.declared.hard

    def update_declaration(self, declared: Declaration, number: int) -> None:
        """Adopt the declaration of a blueprint unless it is older than the one known."""
        if number >= self.blueprint_number:
            if declared.limit != self.declared.limit:
                self.smallest_refused = 0
            if declared.limit < self.declared.limit or self.is_soft:
                self.is_shrinking = True
            self.declared, self.blueprint_number = declared, number
            self.is_shrinking = self.is_shrinking and not self.is_soft

    def record_use(self, spent: int, seconds: float, now: float) -> None:
        """Update the rates of use from the total `spent` so far; accounts in use were last measured `seconds` ago."""
        used, self.spent = spent - self.spent, spent
        self.use_rate += (used / seconds - self.use_rate) * 0.2
        since, self.measured_at = max(seconds, now - self.measured_at), now
        if used:
            self.used_at = now
        weight = min(1.0, since / STEADY_WINDOW_S)
        self.steady_rate += (used / since - self.steady_rate) * weight
        self.use_frequency += ((used != 0) / since - self.use_frequency) * weight

    def refill_threshold(self, *, quota: bool) -> float:
        """Return the available amount below which more is fetched ahead."""
        low, most = self.use_rate * LOW_WATER_S, max(0, self.unallocated or 0) // (2 * _PREFETCH_SHARE)
        if quota and self.unallocated is not None:
            low = min(low, most)
        return max(low, self._outage_reserve if self.is_soft else min(self._outage_reserve, most))

    def prefetch_amount(self, headroom: int, *, quota: bool, available: int) -> int:
        """Return how much to ask for ahead of use while `available` is held."""
        headroom = max(headroom, int(self._outage_reserve * 1.5) - max(0, available))
        if not quota or self.unallocated is None:
            return headroom
        return min(headroom, max(0, self.unallocated // _PREFETCH_SHARE - max(0, available)))

    @property
    def is_used_often(self) -> bool:
        """Whether it was used several times within the last half minute."""
        return self.use_frequency * OUTAGE_S >= _OFTEN

    def is_in_use(self, now: float) -> bool:
        """Whether to fetch more ahead of need: it is used fast, or often. Frequency counts too, since calls may use
        only a small part of what they reserve, as of tokens."""
        if self.use_rate * PREFETCH_S >= max(1, self.usual_amount):
            return True
        return now < self.used_at + _IN_USE_S and self.is_used_often

    def expect_use_of(self, current: Account, now: float) -> None:
        """Expect as much use as the account of the same declaration has in its `current` period."""
        self.use_rate, self.steady_rate = current.use_rate, current.steady_rate
        self.use_frequency, self.usual_amount = current.use_frequency, current.usual_amount
        self.measured_at = now
        if self.unallocated is None:
            self.unallocated = self.declared.limit

    @property
    def _outage_reserve(self) -> float:
        """Expected use while PostgreSQL is away, and what the last call has to reserve."""
        return self.steady_rate * OUTAGE_S + self.usual_amount

    def idle_to_keep(self, available: int) -> int:
        """Return how much of `available`, which is idle, a worker keeps of a limit: its share to hold ahead, and at
        least enough for one more call."""
        return max(self.usual_amount, (available + max(0, self.unallocated or 0)) // _PREFETCH_SHARE)

    def is_empty(self, need: int, now: float) -> bool:
        """Whether PostgreSQL refused as much lately, or is being asked again whether it still does."""
        return (
            bool(self.smallest_refused)
            and need >= self.smallest_refused
            and (now < self.empty_until or bool(self.waiters))
        )

    def record_refusal(self, need: int, now: float) -> None:
        """Remember that a caller waited in vain for an account that was not known to be empty."""
        if self.failed_tries:
            self.smallest_refused = min(self.smallest_refused or need, need)
            self.empty_until = now + (EMPTY_S if self.was_refused_lately(now) else _UNREACHABLE_S)

    def was_refused_lately(self, now: float) -> bool:
        """Whether PostgreSQL refused a grant lately; if not, it could not be asked."""
        return now - self.refused_at < EMPTY_S + REFILL_WAIT_S
