"""Questions for slices, put together: nearly all of the time that a grant of a limit takes is that of its commit, and a
thousand users have a thousand limits. Who waits, and for how much, is `lease_client`'s; what is said to PostgreSQL is
`lender`'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass

from groundplan.gateway.budgets.account import Account
from groundplan.gateway.budgets.leases import Key, is_quota
from groundplan.gateway.budgets.lender import TOGETHER, Lender, Need


@dataclass(slots=True)
class Ask:
    """Somebody waits for one of these."""

    account: Account
    recall: bool
    answered: bool = False
    came: bool = False
    lost: bool = False
    """The database did not answer."""


class Rounds:
    """What is to be asked for next. `lacking` says what those who wait for one lack (the least, all; None: nothing),
    `give` has given back what came of one that is to be cut."""

    def __init__(
        self, lender: Lender, lacking: Callable[[Key, Account], tuple[int, int] | None], give: Callable[[Key], None]
    ) -> None:
        self._lender = lender
        self._lacking = lacking
        self._give = give
        self._wanted: dict[Key, Ask] = {}
        self.beside: dict[Key, tuple[Account, int]] = {}
        """Limits of which a call that waits for another one lacks so much, too."""

    def want(self, key: Key, account: Account, *, recall: bool) -> Ask:
        """It is asked for in the next round, by whoever comes first."""
        ask = self._wanted[key] = Ask(account, recall)
        return ask

    async def ask(self, key: Key) -> None:
        """Of a budget alone; of limits for everybody who waits for one by now. Holds the lender's `busy`; raises
        `LOST`."""
        limits = [each for each in self._wanted if is_quota(each[0])][:TOGETHER] if is_quota(key[0]) else []
        asks = {each: self._wanted.pop(each) for each in {*limits, key}}
        needs: list[Need] = []
        for each, ask in asks.items():
            lacking = self._lacking(each, ask.account)
            if lacking is None:
                ask.answered = ask.came = True
            else:
                needs.append(Need(each, ask.account, *lacking, ask.recall))
        if limits:
            needs += self._lacking_beside(asks)
        try:
            for need, amount in await self.grant(needs):
                if (found := asks.get(need.key)) is not None:
                    found.came = amount > 0
                elif not amount:
                    need.account.heard = asyncio.get_running_loop().time()
        except BaseException:
            for ask in asks.values():
                ask.lost = not ask.answered
            raise
        finally:
            for ask in asks.values():
                ask.answered = True

    def _lacking_beside(self, asks: Container[Key]) -> Iterator[Need]:
        for key in list(self.beside)[:TOGETHER]:
            account, amount = self.beside.pop(key)
            lacking = amount - self._lender.book(key[0]).available(*key)
            if lacking > 0 and key not in asks and not account.cut:
                yield Need(key, account, lacking, lacking)

    async def grant(self, needs: Sequence[Need]) -> list[tuple[Need, int]]:
        """Ask the database once for each budget, and for all limits together; what came of each. Holds the lender's
        `busy`; raises `LOST`."""
        limits = sorted((each for each in needs if is_quota(each.key[0])), key=lambda each: each.key)
        found = list(zip(limits, await self._lender.grant_limits(limits), strict=True)) if limits else []
        found += [(each, await self._lender.grant(each)) for each in needs if not is_quota(each.key[0])]
        for need, amount in found:
            if need.account.cut and amount:
                self._give(need.key)  # of what was declared when it was asked
        return found
