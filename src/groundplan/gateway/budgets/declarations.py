"""The budgets and limits of the newest blueprint that a worker knows, which also apply to calls that began under an
older one. Pure memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType

from groundplan.blueprint.model import Budget
from groundplan.gateway.budgets.account import Declaration
from groundplan.gateway.budgets.leases import Key, Quota


class Declarations:
    """Those of the blueprint with this number. `limits`: the amount of each, by `Quota.family` and period."""

    def __init__(
        self, budgets: Iterable[Budget] = (), limits: Mapping[Key, int] = MappingProxyType({}), number: int = 0
    ) -> None:
        self.number = number
        self._budgets = {budget.name: budget for budget in budgets}
        self._limits = limits

    def budget(self, name: str) -> Budget | None:
        """The budget of this name; None: it is not declared any more, or not by a blueprint."""
        return self._budgets.get(name)

    def newest(self, declared: Declaration, number: int) -> tuple[Declaration, int]:
        """The newest known declaration and its blueprint's number; the given ones where there is none newer."""
        found: Declaration | None = self._budgets.get(declared.name)
        if isinstance(declared, Quota):
            most = self._limits.get((declared.family, declared.period))
            found = None if most is None else replace(declared, limit=most)
        return (declared, number) if found is None or number > self.number else (found, self.number)
