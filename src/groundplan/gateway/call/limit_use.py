"""What a call holds of limits while it runs. Values only: `limits` takes and settles them."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from groundplan.gateway.budgets.leases import Quota, Token
from groundplan.gateway.budgets.periods import is_over
from groundplan.ledger.model import Charge


@dataclass(frozen=True, slots=True)
class Shortage:
    """A limit without room for what a call or an attempt needs of it."""

    quota: Quota
    need: int
    period: str
    """The window (period) in which it has no room."""

    @property
    def exceeds_limit(self) -> bool:
        """Whether the call needs more than the limit of a whole period."""
        return self.need > self.quota.limit

    def is_window_over(self, now: float) -> bool:
        """Whether the window has ended at `now` (seconds since the epoch), so that the next one may have room."""
        return is_over(self.period, now)


class Hold(msgspec.Struct, frozen=True, eq=False):
    """The quotas that a call or an attempt has taken from, with its charges."""

    token: Token
    quotas: tuple[Quota, ...]
    charges: list[Charge]


class LimitUse(msgspec.Struct, eq=False):
    """What a call holds of limits; only for calls under a blueprint that declares any."""

    combined: Hold | None = None
    """`call_hold` and `prepaid` in one, until one of them is settled alone; for most calls neither ever is."""
    call_hold: Hold | None = None
    """Requests and concurrent calls of the limits that cover its caller."""
    prepaid: Hold | None = None
    """Tokens and cost of the limits that cover its caller, taken at admission for one attempt."""
    measured_quotas: tuple[Quota, ...] = ()
    """The quotas of `prepaid`: an attempt that cannot use it takes its own from them."""
    prepaid_attempt: int | None = None
    """Number of the attempt that uses `prepaid`."""
    attempts: dict[int, Hold] = {}
    draining: tuple[int, ...] = ()
    """Attempts that are, or were, drained in the background to learn their usage."""
    has_ended: bool = False
    """Whether the call has ended."""
    key_indexes: dict[int, int] = {}
    """Attempt -> index of its deployment's key that it uses."""
    header_lines: bytes = b""
    """Rate-limit header lines for the client."""
    shortage: Shortage | None = None
    """The limit for which a deployment was skipped."""
    skipped_deployments: tuple[str, ...] = ()
    """Names of the deployments that were skipped for a limit."""
