"""Batches requests for slices into one commit, which is nearly all that a grant takes: a thousand users have a thousand
limits, or a thousand keys a budget each that begins at midnight. Who waits, and for how much, is `lease_client`'s; what
is said to PostgreSQL is `grant_connection`'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass

from groundplan.gateway.budgets.account import Account
from groundplan.gateway.budgets.grant_connection import TOGETHER, GrantConnection, Need
from groundplan.gateway.budgets.leases import Key, is_quota

_LIMITS, _OF_KEYS = "limits", "key/"


@dataclass(slots=True)
class Ask:
    """Somebody waits for one of these."""

    account: Account
    recall: bool
    answered: bool = False
    came: bool = False
    lost: bool = False
    """The database did not answer."""


class GrantBatches:
    """What is to be asked for next. `lacking` says what those who wait for one lack (the least, all; None: nothing),
    `give` has given back what came of one that is to be cut."""

    def __init__(
        self,
        grants: GrantConnection,
        lacking: Callable[[Key, Account], tuple[int, int] | None],
        give: Callable[[Key], None],
    ) -> None:
        self._grants = grants
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
        """Of what goes together with others (`_group`) for everybody who waits for such a one by now. Holds the
        connection's `busy`; raises `LOST`."""
        group = _group(key)
        others = [each for each in self._wanted if _group(each) == group][:TOGETHER] if group else []
        asks = {each: self._wanted.pop(each) for each in {*others, key}}
        needs: list[Need] = []
        for each, ask in asks.items():
            lacking = self._lacking(each, ask.account)
            if lacking is None:
                ask.answered = ask.came = True
            else:
                needs.append(Need(each, ask.account, *lacking, ask.recall))
        if is_quota(key[0]):
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
            lacking = amount - self._grants.book(key[0]).available(*key)
            if lacking > 0 and key not in asks and not account.cut:
                yield Need(key, account, lacking, lacking)

    async def grant(self, needs: Sequence[Need]) -> list[tuple[Need, int]]:
        """Ask the database once for all limits, once for all budgets of single keys, and once for each other budget;
        what came of each. Holds the connection's `busy`; raises `LOST`."""
        limits = sorted((each for each in needs if is_quota(each.key[0])), key=_key)
        of_keys = sorted((each for each in needs if _group(each.key) == _OF_KEYS), key=_key)
        found = list(zip(limits, await self._grants.grant_limits(limits), strict=True)) if limits else []
        for some in (of_keys, *([each] for each in needs if not _group(each.key))):
            found += zip(some, await self._grants.grant_budgets(some), strict=True) if some else ()
        for need, amount in found:
            if need.account.cut and amount:
                self._give(need.key)  # of what was declared when it was asked
        return found


def _group(key: Key) -> str:
    """What is asked for in one commit: limits, and budgets that single keys have of their own. Nothing, of any other
    budget: it is everybody's, and its row is held no longer than its own grant takes."""
    return _LIMITS if is_quota(key[0]) else _OF_KEYS if key[0].startswith(_OF_KEYS) else ""


def _key(need: Need) -> Key:
    return need.key
