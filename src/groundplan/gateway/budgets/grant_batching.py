"""Batches requests for slices into one commit, which is nearly all that a grant costs: a thousand users have a thousand
limits, or a thousand keys a budget each that begins at midnight. `lease_client` keeps the waiting callers;
`grant_connection` talks to PostgreSQL.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass

from groundplan.gateway.budgets.account import Account
from groundplan.gateway.budgets.grant_connection import BATCH_SIZE, GrantConnection, Need
from groundplan.gateway.budgets.leases import Key, is_quota

_LIMITS_BATCH, _KEY_BUDGETS_BATCH = "limits", "key/"


@dataclass(slots=True)
class QueuedRequest:
    """One account for which callers wait, until it has been asked for."""

    account: Account
    recall: bool
    is_answered: bool = False
    was_granted: bool = False
    has_failed: bool = False
    """The database did not answer."""


class GrantBatches:
    """The accounts to ask for next. `shortfall` returns the least and the total that the waiters of an account lack
    (None: nothing), `give_back` returns what came for an account whose limit is being lowered."""

    def __init__(
        self,
        grants: GrantConnection,
        shortfall: Callable[[Key, Account], tuple[int, int] | None],
        give_back: Callable[[Key], None],
    ) -> None:
        self._grants = grants
        self._shortfall = shortfall
        self._give_back = give_back
        self._queue: dict[Key, QueuedRequest] = {}
        self.also_needed: dict[Key, tuple[Account, int]] = {}
        """Limits that a call lacks besides the one it waits for, with the amount."""

    def enqueue(self, key: Key, account: Account, *, recall: bool) -> QueuedRequest:
        """Ask for an account in the next batch, which the first waiter to get the connection sends."""
        ask = self._queue[key] = QueuedRequest(account, recall)
        return ask

    async def send_batch_with(self, key: Key) -> None:
        """Ask for an account, and for all queued ones that go into the same commit (`_batch_of`). Needs the
        connection's `lock`; raises `DATABASE_ERRORS`."""
        group = _batch_of(key)
        others = [each for each in self._queue if _batch_of(each) == group][:BATCH_SIZE] if group else []
        requests = {each: self._queue.pop(each) for each in {*others, key}}
        needs: list[Need] = []
        for each, request in requests.items():
            shortfall = self._shortfall(each, request.account)
            if shortfall is None:
                request.is_answered = request.was_granted = True
            else:
                needs.append(Need(each, request.account, *shortfall, request.recall))
        if is_quota(key[0]):
            needs += self._additional_needs(requests)
        try:
            for need, amount in await self.request_grants(needs):
                if (found := requests.get(need.key)) is not None:
                    found.was_granted = amount > 0
                elif not amount:
                    need.account.refused_at = asyncio.get_running_loop().time()
        except BaseException:
            for request in requests.values():
                request.has_failed = not request.is_answered
            raise
        finally:
            for request in requests.values():
                request.is_answered = True

    def _additional_needs(self, requested: Container[Key]) -> Iterator[Need]:
        for key in list(self.also_needed)[:BATCH_SIZE]:
            account, amount = self.also_needed.pop(key)
            lacking = amount - self._grants.slices_for(key[0]).available(*key)
            if lacking > 0 and key not in requested and not account.is_shrinking:
                yield Need(key, account, lacking, lacking)

    async def request_grants(self, needs: Sequence[Need]) -> list[tuple[Need, int]]:
        """Ask the database once for all limits, once for all budgets of single keys, and once for each other budget.
        Returns the amount granted for each need. Needs the connection's `lock`; raises `DATABASE_ERRORS`."""
        answers: list[tuple[Need, int]] = []
        for some in by_statement(needs):
            ask = self._grants.request_limits if is_quota(some[0].key[0]) else self._grants.request_budgets
            answers += zip(some, await ask(some), strict=True)
        for need, amount in answers:
            if need.account.is_shrinking and amount:
                self._give_back(need.key)  # it was granted under a limit that has been lowered since
        return answers


def by_statement(needs: Sequence[Need]) -> list[list[Need]]:
    """What goes into one statement each: all limits, all budgets of single keys, and each other budget."""
    groups = [
        sorted((each for each in needs if _batch_of(each.key) == batch), key=_key_of)
        for batch in (_LIMITS_BATCH, _KEY_BUDGETS_BATCH)
    ]
    return [each for each in groups if each] + [[each] for each in needs if not _batch_of(each.key)]


def _batch_of(key: Key) -> str:
    """Return the name of the batch that asks for a key: limits, or budgets that single keys have of their own. Empty
    for any other budget: all workers share it, and its row is locked no longer than its own grant takes."""
    return _LIMITS_BATCH if is_quota(key[0]) else _KEY_BUDGETS_BATCH if key[0].startswith(_KEY_BUDGETS_BATCH) else ""


def _key_of(need: Need) -> Key:
    return need.key
