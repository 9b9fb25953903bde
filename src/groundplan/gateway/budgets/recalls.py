"""Listens for what PostgreSQL notifies all workers of: that one of them lacks a slice, so that the others give back
what is idle, and that there is room again.

`grant_connection` gives back; `lease_client` keeps the waiting callers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any
from uuid import UUID

from groundplan.gateway.budgets.account import Account
from groundplan.gateway.budgets.grant_connection import GrantConnection
from groundplan.gateway.budgets.grant_store import FREED_CHANNEL, RECALL_CHANNEL
from groundplan.gateway.budgets.leases import Key
from groundplan.gateway.database import connect
from groundplan.gateway.failure_log import ExceptionLog
from groundplan.gateway.notifications import wait_for_notifications
from groundplan.gateway.stalls import patient

_log = logging.getLogger(__name__)

_LISTEN_S = 2.0
"""How long PostgreSQL may take to begin to notify."""
_PAUSE_S = 0.2
"""Pause after a connection was lost."""
_RECALL_S = 1.2
"""How long a worker keeps giving back what it frees after a recall: as long as the asking worker refuses at once."""


class Recalls:
    """The recalls that are being answered. `watch` asks for notice of what is freed; `start` runs work in a task."""

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
        self._active_until: dict[Key, float] = {}
        self._listening: asyncio.Timeout | None = None
        """Ends the wait for notifications over the present connection."""
        self._exceptions = ExceptionLog(_log)

    def __contains__(self, key: Key) -> bool:
        """Whether another worker was short of this key lately."""
        return key in self._active_until

    def pop_expired(self, now: float) -> list[Key]:
        """Remove and return the keys whose recalls are over."""
        ended = [key for key, until in self._active_until.items() if until <= now]
        for key in ended:
            del self._active_until[key]
        return ended

    async def run(self) -> None:
        """Listen, however often the connection is lost."""
        while True:
            try:
                with self._grants.log_failures():
                    if await self._listen_until_anew():
                        continue
            except Exception:  # noqa: BLE001 -- the boundary of this task: other workers wait for what is idle here
                self._exceptions.record("recalls of slices are not answered")
            await asyncio.sleep(_PAUSE_S)

    async def _listen_until_anew(self) -> bool:
        """Listen until that fails; True where `listen_anew` ended it."""
        try:
            async with asyncio.timeout(None) as self._listening:
                await self._listen()
        except TimeoutError:
            if self._listening is None or not self._listening.expired():
                raise
        finally:
            self._listening = None
        return True

    async def _listen(self) -> None:
        async with await connect(self._url) as listener:
            async with patient(_LISTEN_S):
                await listener.execute(f"LISTEN {RECALL_CHANNEL}")
                await listener.execute(f"LISTEN {FREED_CHANNEL}")
            while True:
                async for notice in wait_for_notifications(listener):
                    if notice.channel == FREED_CHANNEL:
                        self._on_freed(notice.payload)
                    else:
                        self.answer_recall(notice.payload)

    def listen_anew(self) -> None:
        """Listen over a new connection, since the worker had to make a new one for grants: the server may be another
        one, and a listener never learns that its own was suspended."""
        if self._listening is not None and not self._listening.expired():
            self._listening.reschedule(asyncio.get_running_loop().time())

    def _on_freed(self, payload: str) -> None:
        name, _, period = payload.rpartition(" ")
        account = self._accounts.get((name, period))
        if account is not None:
            account.smallest_refused, account.no_prefetch_until = 0, 0.0
            account.retry_now = True
            account.wake()

    def answer_recall(self, payload: str) -> None:
        """Answer another worker that is short. Of two that are, the one with the older epoch is served first."""
        parts = payload.rsplit(" ", 2)
        if len(parts) != 3 or parts[2] == self._epoch:
            return
        key = (parts[0], parts[1])
        account = self._accounts.get(key)
        if account is not None and account.waiters and self._epoch < parts[2]:
            self._start(self._report_open(key))
            return
        self._active_until[key] = asyncio.get_running_loop().time() + _RECALL_S
        self._watch(key)
        self._start(self._give_back_idle(key))

    async def _give_back_idle(self, key: Key) -> None:
        await self._grants.give_back(key)
        await self._report_open(key)

    async def _report_open(self, key: Key) -> None:
        with self._grants.log_failures():
            await self._grants.report_open(key)
