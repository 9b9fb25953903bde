"""What a worker holds of limits without using it, so that it can be given back.

Calls reserve more of a limit than they use, and what a worker holds is lost if it dies; until then it counts as used
wherever nearly used-up limits are shown. `lease_client` gives it back.
"""

from __future__ import annotations

from collections.abc import Mapping

from groundplan.gateway.budgets.account import Account
from groundplan.gateway.budgets.leases import Key, Slices

_IDLE_S = 1.0
"""How long a surplus of a limit has to lie idle before it is given back."""


class IdleLimits:
    """The limits in use, and the least that lay idle of each while it was observed."""

    def __init__(self, accounts: Mapping[Key, Account], counters: Slices) -> None:
        self._accounts = accounts
        self._counters = counters
        self._observed: dict[Key, tuple[float, int]] = {}
        """Until when the idle amount of a limit is observed, and the least that was idle so far."""

    def observe(self, key: Key, now: float) -> None:
        """Begin to observe a limit that was used."""
        self._observed.setdefault(key, (now + _IDLE_S, self._counters.available(*key)))

    def amounts_to_keep(self, now: float) -> dict[Key, int] | None:
        """What to keep of each limit of which a surplus lay idle for a while: the caller gives the rest back, which
        counts as unallocated from now on. None: no limit is observed."""
        if not self._observed:
            return None
        keep: dict[Key, int] = {}
        for key, (until, least) in list(self._observed.items()):
            account, available = self._accounts.get(key), self._counters.available(*key)
            most = 0 if account is None else account.idle_to_keep(available)
            if account is None or account.is_shrinking or available <= most:
                del self._observed[key]
            elif now < until:
                self._observed[key] = (until, min(least, available))
            else:
                self._observed[key] = (now + _IDLE_S, available)
                if (surplus := min(least, available) - most) > 0:
                    keep[key] = available - surplus
                    account.unallocated = (account.unallocated or 0) + surplus
        return keep
