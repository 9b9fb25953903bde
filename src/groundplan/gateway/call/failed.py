"""What is known of an attempt that failed, by which it is told what it cost and who is asked next. Decides neither."""

from __future__ import annotations

from typing import TYPE_CHECKING

from groundplan.core.errors import Denied
from groundplan.gateway.surfaces.interface import Relay

if TYPE_CHECKING:
    from groundplan.gateway.guard.relay import GuardedRelay


class AttemptFailed(Exception):
    """One attempt failed. `billed` unless it certainly was not; `rest` is the deployment's own retry-after."""

    def __init__(
        self, reason: str, *, billed: bool, status: int = 0, stale: bool = False, rest: float | None = None
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.billed = billed
        self.status = status
        self.stale = stale
        """A kept-alive connection was closed as it was used; the deployment itself may be well."""
        self.rest = rest
        self.above_rate = False
        """The request alone is more than our account there may send in a minute: others may take it, and nothing is
        held against a deployment that takes smaller ones."""
        self.other_key = False
        """The provider refused our key, and the deployment has another one that does not rest."""
        self.relay: Relay | None = None
        """Of a stream of which the client has a part."""
        self.refusal: Denied | None = None
        """It answered as it should, and a guardrail refuses the answer."""
        self.guarded: GuardedRelay | None = None
        """Of a stream that was refused before anything of it was sent."""

    @property
    def temporary(self) -> bool:
        """Whether the same deployment may do better the next time."""
        return self.status in (0, 200, 408, 409, 424, 425, 429) or self.status >= 500
