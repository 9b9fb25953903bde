"""What PostgreSQL tells all workers of slices: that one of them is short, so that the others give back what is idle,
and that there is room again.

What is given back, and how, is `grant_connection`'s; who waits here is `lease_client`'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any
from uuid import UUID

from groundplan.gateway.budgets.account import Account
from groundplan.gateway.budgets.grant_connection import GrantConnection
from groundplan.gateway.budgets.grant_store import FREED_CHANNEL, RECALL_CHANNEL
from groundplan.gateway.budgets.leases import Key
from groundplan.gateway.database import connect
from groundplan.gateway.notifications import heard

_RECALL_S = 1.2
"""How long a worker keeps giving back what it frees after somebody asked: as long as that one is refused at once."""


class Recalls:
    """Those that are answered just now. `watch` one: what is freed of it matters; `start` work beside this."""

    def __init__(
        self,
        url: str,
        epoch: UUID,
        grants: GrantConnection,
        accounts: Mapping[Key, Account],
        *,
        watch: Callable[[Key], None],
        start: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self._url = url
        self._epoch = str(epoch)
        self._grants = grants
        self._accounts = accounts
        self._watch = watch
        self._start = start
        self._until: dict[Key, float] = {}

    def __contains__(self, key: Key) -> bool:
        """Whether another worker was short of it lately."""
        return key in self._until

    def take_over(self, now: float) -> list[Key]:
        """Those whose time is over, which are none from here on."""
        ended = [key for key, until in self._until.items() if until <= now]
        for key in ended:
            del self._until[key]
        return ended

    async def run(self) -> None:
        """Listen, however often the connection is lost."""
        while True:
            with self._grants.noted():
                async with await connect(self._url) as listener:
                    await listener.execute(f"LISTEN {RECALL_CHANNEL}")
                    await listener.execute(f"LISTEN {FREED_CHANNEL}")
                    while True:
                        async for notice in heard(listener):
                            if notice.channel == FREED_CHANNEL:
                                self._heard_freed(notice.payload)
                            else:
                                self.recall(notice.payload)
            await asyncio.sleep(0.2)

    def _heard_freed(self, payload: str) -> None:
        name, _, period = payload.rpartition(" ")
        account = self._accounts.get((name, period))
        if account is not None:
            account.empty_need, account.calm_until = 0, 0.0
            account.freed = True
            account.wake()

    def recall(self, payload: str) -> None:
        """Another worker is short. Of two that are, the one with the older epoch is served first."""
        parts = payload.rsplit(" ", 2)
        if len(parts) != 3 or parts[2] == self._epoch:
            return
        key = (parts[0], parts[1])
        account = self._accounts.get(key)
        if account is not None and account.waiters and self._epoch < parts[2]:
            self._start(self._tell_open(key))
            return
        self._until[key] = asyncio.get_running_loop().time() + _RECALL_S
        self._watch(key)
        self._start(self._answer(key))

    async def _answer(self, key: Key) -> None:
        await self._grants.give_back(key)
        await self._tell_open(key)

    async def _tell_open(self, key: Key) -> None:
        with self._grants.noted():
            await self._grants.tell_open(key)
