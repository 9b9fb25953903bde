"""What a call holds of limits while it goes on. Values only: what is taken and settled is in `limits`."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from groundplan.gateway.budgets.leases import Quota, Token
from groundplan.gateway.budgets.periods import is_over
from groundplan.ledger.model import Charge


@dataclass(frozen=True, slots=True)
class Short:
    """A limit without room for what a call or an attempt needs of it."""

    quota: Quota
    need: int
    period: str
    """The window that it was asked of."""

    @property
    def never(self) -> bool:
        """It needs more than there is in a whole period."""
        return self.need > self.quota.limit

    def over(self, now: float) -> bool:
        """Whether that window has ended at `now` (seconds since the epoch): the next one has room."""
        return is_over(self.period, now)


class Held(msgspec.Struct, frozen=True, eq=False):
    """What a call or an attempt took."""

    token: Token
    quotas: tuple[Quota, ...]
    charges: list[Charge]


class LimitUse(msgspec.Struct, eq=False):
    """What a call holds of limits; only of calls under a blueprint that declares any."""

    both: Held | None = None
    """What follows, in one, as long as nobody asks for either alone; most calls end like that."""
    call: Held | None = None
    """Requests and concurrent calls of the limits that cover its caller."""
    ahead: Held | None = None
    """Tokens and cost of them, for one attempt."""
    measured: tuple[Quota, ...] = ()
    """What `ahead` is of: an attempt that cannot use that takes its own."""
    bearer: int | None = None
    """The attempt that uses `ahead`."""
    attempts: dict[int, Held] = {}
    draining: tuple[int, ...] = ()
    """Attempts that are read on for nobody, to learn what they use, or were."""
    over: bool = False
    """The call has ended."""
    keys: dict[int, int] = {}
    """Which of its deployment's keys each attempt uses."""
    lines: bytes = b""
    """Header lines that tell what is left of them."""
    no_room: Short | None = None
    """For which a deployment was passed over."""
    passed: tuple[str, ...] = ()
    """Deployments that were."""
