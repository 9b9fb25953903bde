"""What is gone of budgets beside what this worker holds and has spent, as PostgreSQL last said.

It is for what callers are told, and for what nobody waits for. Whether a call has room is decided by slices (`leases`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, LiteralString

from psycopg import AsyncConnection

from groundplan.blueprint.model import Budget
from groundplan.core.clock import Clock
from groundplan.core.money import from_decimal
from groundplan.gateway.budgets.expired import KEY_BUDGET_PREFIX
from groundplan.gateway.budgets.leases import Key, Slices
from groundplan.gateway.budgets.periods import current_key, has_ended
from groundplan.gateway.database import fetched
from groundplan.gateway.policy.snapshot import KeyEntry
from groundplan.gateway.ticks import in_turns

AT_ONCE = 2000
"""Budgets of keys that are asked about in a second: each of a hundred thousand keys may have one."""
_ROWS = 1000
"""Of one statement, after which calls have a turn."""
_BUDGETS: LiteralString = """SELECT p.budget, p.period, p.granted_usd
    FROM unnest(%s::text[], %s::text[]) AS w(budget, period)
    JOIN budget_period p ON p.budget = w.budget AND p.period = w.period"""


class Remaining:
    """Follows the budgets of a blueprint and of keys."""

    def __init__(self, slices: Slices, clock: Clock) -> None:
        self._slices = slices
        self._clock = clock
        self.elsewhere: dict[Key, int] = {}
        """What others hold or have spent of a budget in a period, as last seen."""
        self._counted: tuple[Mapping[bytes, KeyEntry], list[Budget]] = ({}, [])
        """Keys, and the budgets of those that have one of their own."""
        self._next = 0
        """Where among those the next turn begins."""

    async def look(
        self,
        connection: AsyncConnection[Any],
        declared: Sequence[Budget],
        keys: Mapping[bytes, KeyEntry],
        seconds: float,
    ) -> None:
        """Of each budget in its present period, and in one before of which a call that goes on holds something; of
        those of keys, where there are more than `AT_ONCE`, some each time, and any that a call has just taken of.

        Each statement may take so many seconds. Raises psycopg.Error, TimeoutError.
        """
        now = self._clock.seconds()
        if keys is not self._counted[0]:  # there may be many, and few with a budget of their own
            self._counted = keys, _living(keys, now)
        asked = {key for key in self._slices.reserved_by_key() if key in self.elsewhere}
        known = self._known()
        if known:
            async for held_keys in in_turns(self._slices.granted_keys()):
                asked.update(islice((key for key in held_keys if key not in known), AT_ONCE))
                if len(asked) > AT_ONCE:
                    break
        asked.update((b.name, current_key(b.period, b.starts, b.timezone, now)) for b in (*declared, *self._turn()))
        every = list(asked)
        for some in (every[first : first + _ROWS] for first in range(0, len(every), _ROWS)):
            names, periods = [name for name, _ in some], [period for _, period in some]
            rows = await fetched(connection, _BUDGETS, (names, periods), seconds)
            held = self._slices.reserved_by_key()
            for budget, period, granted in rows:
                own = self._slices.available(budget, period) + held.get((budget, period), 0)
                known[budget, period] = from_decimal(granted) - own - self._slices.spent(budget, period)
        self.elsewhere = known
        async for held_keys in in_turns(self._slices.granted_keys()):
            self._slices.set_spent_elsewhere(known, held_keys)

    def _known(self) -> dict[Key, int]:
        """What goes on to be known of budgets that are not asked about this time: nothing, where all are."""
        if len(self._counted[1]) <= AT_ONCE:
            return {}
        if self._next:
            return dict(self.elsewhere)
        at, living = self._clock.now().isoformat(), {budget.name for budget in self._counted[1]}
        return {
            key: gone
            for key, gone in self.elsewhere.items()
            if not has_ended(key[1], at) and (not key[0].startswith(KEY_BUDGET_PREFIX) or key[0] in living)
        }

    def _turn(self) -> list[Budget]:
        """Those of keys that are asked about this time."""
        budgets = self._counted[1]
        if len(budgets) <= AT_ONCE:
            self._next = 0
            return budgets
        first, self._next = self._next, self._next + AT_ONCE
        if self._next >= len(budgets):
            self._next = 0
        return budgets[first : first + AT_ONCE]


def _living(keys: Mapping[bytes, KeyEntry], now: float) -> list[Budget]:
    """The own budgets of keys that are good at `now`, each once: those of a line that was rotated have the same."""
    found: dict[str, Budget] = {}
    for key in keys.values():
        if key.budget is not None and not key.revoked and (key.expires is None or key.expires > now):
            found[key.budget.name] = key.budget
    return list(found.values())
