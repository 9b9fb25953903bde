"""How much one worker was ever granted of each budget and limit, which is compared with the totals in PostgreSQL: so a
grant whose answer was lost is found, and one that the database has lost, too. Of a budget that is long over, or whose
key ended long ago, it is forgotten.

Memory only: sends no queries; what is left of the grants is in `leases`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import timedelta

from groundplan.core.clock import Clock
from groundplan.gateway.budgets.account import Account
from groundplan.gateway.budgets.expired import EndedKeyLookup, budgets_of_ended_keys
from groundplan.gateway.budgets.leases import Key, Slices, is_quota
from groundplan.gateway.budgets.periods import has_ended
from groundplan.gateway.ticks import in_turns

REMEMBERED_FOR = timedelta(days=9)
"""How long the granted amount of a budget is remembered after its period: a line of a batch, which belongs to the
period of its admission, may bring more of it for as long as a batch goes on."""
_DAY_S = 86_400.0


class GrantedTotals:
    """The totals of one worker. `slices` are its budgets, `accounts` those that it uses."""

    def __init__(self, slices: Slices, accounts: Mapping[Key, Account], clock: Clock) -> None:
        self.amounts: dict[Key, int] = {}
        self.ended_key_lookup: EndedKeyLookup | None = None
        self._slices = slices
        self._accounts = accounts
        self._clock = clock
        self._ended_key_budgets: set[Key] = set()
        """Budgets of keys that ended long ago, of which this worker still holds something."""
        self._keys_checked_at = clock.seconds()

    def of(self, key: Key) -> int:
        """All that was granted; 0 where nothing was, or it is forgotten."""
        return self.amounts.get(key, 0)

    def add(self, key: Key, amount: int) -> None:
        """Add a grant, or one that the database has lost (below zero)."""
        self.amounts[key] = self.amounts.get(key, 0) + amount

    def is_forgotten(self, key: Key, ended_before: str, ended_keys: Collection[Key]) -> bool:
        """Whether a budget's grants were known and are forgotten: its period ended before this minute, or it is among
        `ended_keys`, which are over for other reasons."""
        is_over = key in ended_keys or has_ended(key[1], ended_before)
        return is_over and key not in self.amounts and key not in self._accounts

    def unknown_ended(self, keys: Iterable[Key]) -> set[Key]:
        """Return the key budgets whose keys ended long ago and of which this worker holds nothing."""
        unknown = (key for key in keys if key not in self.amounts and key not in self._accounts)
        return budgets_of_ended_keys(unknown, self.ended_key_lookup)

    def ended_key_budgets(self, known: Collection[Key]) -> list[Key]:
        """Return the endless key budgets among `known` whose keys ended long ago, which are looked up once a day."""
        if (now := self._clock.seconds()) > self._keys_checked_at + _DAY_S:
            self._keys_checked_at, self._ended_key_budgets = now, budgets_of_ended_keys(known, self.ended_key_lookup)
        self._ended_key_budgets = {key for key in self._ended_key_budgets if key in known or key in self.amounts}
        return [key for key in self._ended_key_budgets if key in known]

    async def forget_ended(self, ended_before: str) -> None:
        """Forget the amounts of budgets whose periods ended before this minute, or whose keys ended long ago, unless
        more is known of them. Calls get turns meanwhile: there may be the budgets of nine days."""
        async for some in in_turns(list(self.amounts)):
            for key in some:
                is_known = key in self._accounts or self._slices.was_granted(key)
                is_over = has_ended(key[1], ended_before) or key in self._ended_key_budgets
                if is_over and not is_known and not is_quota(key[0]):
                    self.amounts.pop(key, None)
