"""What other workers hold of budgets or have spent, as PostgreSQL last said.

For display, and for decisions that nobody waits for. Whether a call has room is decided by slices (`leases`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import LiteralString

from groundplan.blueprint.model import Budget
from groundplan.core.clock import Clock
from groundplan.core.money import from_decimal
from groundplan.gateway.budgets.expired import KEY_BUDGET_PREFIX
from groundplan.gateway.budgets.leases import Key, Slices
from groundplan.gateway.budgets.periods import current_key, has_ended
from groundplan.gateway.database import Connection, fetched
from groundplan.gateway.policy.snapshot import KeyEntry
from groundplan.gateway.ticks import in_turns

BUDGETS_PER_REFRESH = 2000
"""Key budgets that are loaded per refresh: each of a hundred thousand keys may have one."""
_BUDGETS_PER_STATEMENT = 1000
"""Budgets per statement, after which calls have a turn."""
_BUDGETS: LiteralString = """SELECT p.budget, p.period, p.granted_usd
    FROM unnest(%s::text[], %s::text[]) AS w(budget, period)
    JOIN budget_period p ON p.budget = w.budget AND p.period = w.period"""


class RemainingBudgets:
    """Follows the budgets of a blueprint and of keys."""

    def __init__(self, slices: Slices, clock: Clock) -> None:
        self._slices = slices
        self._clock = clock
        self.taken_elsewhere: dict[Key, int] = {}
        """What others hold or have spent of a budget in a period, as last seen."""
        self._key_budgets: tuple[Mapping[bytes, KeyEntry], list[Budget]] = ({}, [])
        """The keys, and the budgets of those that have their own."""
        self._next_index = 0
        """Index of the key budget with which the next refresh begins."""

    async def refresh(
        self,
        connection: Connection,
        declared: Sequence[Budget],
        keys: Mapping[bytes, KeyEntry],
        seconds: float,
    ) -> None:
        """Load each budget in its current period, and in an earlier one of which a running call holds something. Of key
        budgets, if there are more than `BUDGETS_PER_REFRESH`, load some each time, and any that a call has just used.

        Each statement may take `seconds`. Raises psycopg.Error, TimeoutError.
        """
        now = self._clock.seconds()
        if keys is not self._key_budgets[0]:  # there may be many, and few with a budget of their own
            self._key_budgets = keys, _active_key_budgets(keys, now)
        wanted = {key for key in self._slices.reserved_by_key() if key in self.taken_elsewhere}
        known = self._kept_amounts()
        if known:
            async for held_keys in in_turns(self._slices.granted_keys()):
                wanted.update(islice((key for key in held_keys if key not in known), BUDGETS_PER_REFRESH))
                if len(wanted) > BUDGETS_PER_REFRESH:
                    break
        wanted.update(
            (b.name, current_key(b.period, b.starts, b.timezone, now)) for b in (*declared, *self._next_key_budgets())
        )
        every = list(wanted)
        for part in (
            every[first : first + _BUDGETS_PER_STATEMENT] for first in range(0, len(every), _BUDGETS_PER_STATEMENT)
        ):
            names, periods = [name for name, _ in part], [period for _, period in part]
            rows = await fetched(connection, _BUDGETS, (names, periods), seconds)
            held = self._slices.reserved_by_key()
            for budget, period, granted in rows:
                own = self._slices.available(budget, period) + held.get((budget, period), 0)
                known[budget, period] = from_decimal(granted) - own - self._slices.spent(budget, period)
        self.taken_elsewhere = known
        async for held_keys in in_turns(self._slices.granted_keys()):
            self._slices.set_spent_elsewhere(known, held_keys)

    def _kept_amounts(self) -> dict[Key, int]:
        """The amounts to keep for budgets that are not loaded this time; none if all are."""
        if len(self._key_budgets[1]) <= BUDGETS_PER_REFRESH:
            return {}
        if self._next_index:
            return dict(self.taken_elsewhere)
        at, living = self._clock.now().isoformat(), {budget.name for budget in self._key_budgets[1]}
        return {
            key: amount
            for key, amount in self.taken_elsewhere.items()
            if not has_ended(key[1], at) and (not key[0].startswith(KEY_BUDGET_PREFIX) or key[0] in living)
        }

    def _next_key_budgets(self) -> list[Budget]:
        """The key budgets to load this time."""
        budgets = self._key_budgets[1]
        if len(budgets) <= BUDGETS_PER_REFRESH:
            self._next_index = 0
            return budgets
        first, self._next_index = self._next_index, self._next_index + BUDGETS_PER_REFRESH
        if self._next_index >= len(budgets):
            self._next_index = 0
        return budgets[first : first + BUDGETS_PER_REFRESH]


def _active_key_budgets(keys: Mapping[bytes, KeyEntry], now: float) -> list[Budget]:
    """The budgets of keys that are valid at `now`, each once: the keys of a rotated line share theirs."""
    found: dict[str, Budget] = {}
    for key in keys.values():
        if key.budget is not None and not key.revoked and (key.expires is None or key.expires > now):
            found[key.budget.name] = key.budget
    return list(found.values())
