"""How a worker comes by slices: asked for when one is empty, fetched ahead, recalled from idle workers before anybody
is refused.

Everything here runs beside the request path; a caller comes here only when its slice is empty. That PostgreSQL had
nothing left is remembered for a second, or until it says that there is room again: meanwhile of a budget one caller at
a time waits (what another worker's call leaves over is journalled and given back before it can be used here), and the
others are refused at once. Reserving itself is `leases`; what is said to PostgreSQL, and that none of it is lost, is
`grant_connection`'s; what PostgreSQL says unasked is heard by `recalls`; taking back what a dead worker held is the
shipper's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from itertools import islice
from pathlib import Path
from time import monotonic
from typing import Any

from groundplan.blueprint.model import Budget
from groundplan.core.clock import Clock, SystemClock
from groundplan.gateway.budgets.account import AGAIN_S, AHEAD_S, REFILL_S, Account, Declared
from groundplan.gateway.budgets.expired import Gone, over
from groundplan.gateway.budgets.grant_batching import GrantBatches
from groundplan.gateway.budgets.grant_connection import TOGETHER, GrantConnection, Need
from groundplan.gateway.budgets.leases import Key, Quota, Slices, Token, is_quota
from groundplan.gateway.budgets.periods import has_ended
from groundplan.gateway.budgets.recalls import Recalls
from groundplan.gateway.budgets.windows import Windows
from groundplan.gateway.journal.journal import Journal
from groundplan.gateway.stalls import patient, stall_monitor_of
from groundplan.gateway.ticks import in_turns, sleep_to_tick
from groundplan.ledger.model import Charge

_RETRY_S = 0.015
"""After a fruitless try; up to four times as long when there were several."""
_TRIES_PER_RECALL = 3
_TICK_S = 0.05
_CHECK_S = 0.5
_OPEN_FOR = timedelta(hours=1)
"""How long all that is known of a budget's period stays after its end: calls of it may still go on."""
_IDLE_S = 1.0
"""For how long what is given back of a limit has to lie idle."""
_ASKED_S = 60.0
"""How long what is left of a quota is looked up for whoever asked about it."""
_ASKED_AT_ONCE = 1000
"""Of so many at a time: each call asks about those of its caller, of whom there may be tens of thousands a minute."""


class LeaseClient:
    """What one worker asks for slices. `start` it when the worker's `gateway` row may be made; `close` returns
    everything."""

    def __init__(
        self,
        url: str,
        journal: Journal,
        slices: Slices,
        *,
        home: Path,
        clock: Clock | None = None,
        counters: Slices | None = None,
        windows: Windows | None = None,
    ) -> None:
        self._slices = slices
        self._counters = counters or Slices()
        self._accounts: dict[Key, Account] = {}
        self._grants = GrantConnection(
            url, journal, slices, self._counters, self._accounts, home=home, clock=clock or SystemClock(),
            windows=windows,
        )  # fmt: skip
        self._newest: tuple[Mapping[str, Budget], Mapping[Key, int], int] = ({}, {}, 0)
        """Budgets by name, the most of each limit, and the number of the blueprint that declares them."""
        self._batches = GrantBatches(self._grants, self._lacking, self._start_giving)
        self._moving: dict[Key, Account] = {}
        """Those that are used just now: of ten thousand users with a limit each, few are."""
        self._idle: dict[Key, tuple[float, int]] = {}
        """Limits that are used: until when it is looked what of them lies idle, and the least that did so far."""
        self._asked: dict[Key, None] = {}
        """Quotas of which it was asked what is left, those first that were not looked up for the longest time."""
        self._minute = ""
        """In which it was looked for periods that have ended."""
        self._left: list[Key] = []
        """Quotas of windows that have ended in which something is still reserved."""
        self._recalled = Recalls(url, journal.epoch, self._grants, self._accounts, watch=self._watch, start=self._start)
        self._giving: set[asyncio.Task[None]] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._closing = False
        self._checked, self._looked = 0.0, float("inf")
        self._slices.on_freed = self._counters.on_freed = self._freed

    @property
    def connected(self) -> bool:
        """Whether grants are possible at the moment."""
        return self._grants.connected

    def heed_keys(self, gone: Gone) -> None:
        """Forget what is held of own budgets whose keys ended long ago, as `gone` tells."""
        self._grants.gone = gone

    async def start(self) -> None:
        """Connect if the database is there, and begin to prefetch and to answer recalls."""
        with self._grants.noted():
            async with self._grants.busy:
                await self._grants.connect()
        self._tasks = [asyncio.create_task(self._run_ticks()), asyncio.create_task(self._recalled.run())]

    async def close(self) -> None:
        """Return what is not spent and disconnect. What the database does not hear is in the journal."""
        self._closing = True
        running = [*self._tasks, *self._giving, *(a.task for a in self._accounts.values() if a.task is not None)]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        # a task that was cancelled while it connected holds the half-made connection for as long as it is held itself
        self._tasks.clear()
        running.clear()
        for account in self._accounts.values():
            account.task = None
        await self._grants.give_back(*self._slices.granted_keys(), *self._counters.granted_keys())
        await self._grants.close()
        self._slices.on_freed = self._counters.on_freed = None

    async def acquire(
        self, token: Token, charges: Sequence[Charge], declared: Sequence[Declared], blueprint: int = 0
    ) -> Charge | None:
        """Reserve, waiting at most 250 ms in all for what is short. None, or the one that is.

        All charges are of budgets or all of quotas; `declared` has the declaration of each, as in `blueprint`: quotas
        of one name are told apart by their periods.
        """
        loop = asyncio.get_running_loop()
        book = self._grants.book(charges[0].budget)
        soft = {item.name for item in declared if isinstance(item, Budget) and not item.hard}
        if soft:
            for charge, item in zip(charges, declared, strict=True):
                if charge.budget in soft:  # below zero before it is charged, where it is used up
                    self._moving[charge.budget, charge.period] = self._account(item, charge.period, blueprint)
        since = loop.time()
        asked = False
        while (short := book.reserve(token, charges, soft)) is not None:
            left = stall_monitor_of(loop).left(since, REFILL_S)
            if not asked and is_quota(short.budget):
                asked = True
                self._also([each for each in zip(charges, declared, strict=True) if each[0] is not short], blueprint)
            account = self._account(declared[charges.index(short)], short.period, blueprint)
            if left <= 0 or not await self._wait_for(account, short.period, short.amount, left):
                return short
        return None

    def _also(self, others: Sequence[tuple[Charge, Declared]], blueprint: int) -> None:
        """Of what else a call takes, and is not there either: it is asked for together with what it waits for first."""
        now = asyncio.get_running_loop().time()
        for charge, item in others:
            key = (charge.budget, charge.period)
            if self._counters.available(*key) < charge.amount <= item.limit:
                account = self._account(item, charge.period, blueprint)
                if account.task is None and not account.is_empty(charge.amount, now):
                    account.usual = charge.amount
                    self._batches.beside[key] = (account, charge.amount)

    def declare(self, budgets: Iterable[Budget], limits: Mapping[Key, int], blueprint: int) -> None:
        """A blueprint is taken up. What is held of a budget or a limit that is smaller now is given back, at once what
        is idle and the rest as calls end: the next call asks anew. `limits`: by `Quota.family` and period the most of
        each."""
        before, by_name = self._newest[0], {budget.name: budget for budget in budgets}
        self._newest = (by_name, limits, blueprint)
        for key, account in self._accounts.items():
            account.declare(*self._as_newest(account.declared, account.number))
            if account.cut:
                self._watch(key)
                self._start_giving(key, at_once=True)
        for key in self._slices.granted_keys():  # also what came with batches, for which nobody asked here
            old, new = before.get(key[0]), by_name.get(key[0])
            if key not in self._accounts and old and new and (new.limit < old.limit or not old.hard):
                self._cut(key, at_once=True)

    def _cut(self, key: Key, *, at_once: bool = False) -> None:
        """Give back what becomes idle of a hard budget of which more may be held than is declared."""
        budget, number = self._newest[0].get(key[0]), self._newest[2]
        if budget is not None and budget.hard:
            self._accounts.setdefault(key, Account(budget, number)).cut = True
            self._watch(key)
            self._start_giving(key, at_once=at_once)

    async def learn(self, keys: Sequence[Key]) -> None:
        """Book what came to this worker of these budgets by another way than its own asking. Raises psycopg.Error,
        TimeoutError.

        Whoever knows of it reserves it before anything else runs: what is idle may be called back.
        """
        async with self._grants.busy:
            totals = await self._grants.learn(keys)
        for key, total in totals.items():
            declared = self._newest[0].get(key[0])
            if declared is not None and total > declared.limit:
                self._cut(key)

    def remaining(self, key: Key, limit: int) -> int:
        """What is left of a quota in a period, as far as this worker knows. `limit`: as it is declared."""
        account = self._accounts.get(key)
        if account is not None:
            account.asked, self._asked[key] = monotonic(), None
            if account.rest is not None:
                limit = account.rest
        return max(0, limit + self._counters.at_hand(key))

    def unspent(self, name: str, period: str) -> int:
        """What is left once every open call has cost nothing, as far as this worker knew when it last asked."""
        account = self._accounts.get((name, period))
        known = 0 if account is None else (account.rest or 0) + account.elsewhere
        return known + self._grants.unspent((name, period))

    def told_empty(self, name: str, period: str) -> bool:
        """Whether PostgreSQL said lately that nothing is left; where it did not, it could not be asked."""
        account = self._accounts.get((name, period))
        return account is not None and account.told_empty(asyncio.get_running_loop().time())

    def _account(self, declared: Declared, period: str, number: int) -> Account:
        key = (declared.name, period)
        account = self._accounts.get(key)
        if account is None:
            account = self._accounts[key] = Account(*self._as_newest(declared, number))
        else:
            account.declare(declared, number)
        if account.cut:
            self._watch(key)
        return account

    def _as_newest(self, declared: Declared, number: int) -> tuple[Declared, int]:
        """What the newest blueprint that was taken up says of it, and its number; as it is where that says nothing."""
        budgets, limits, newest = self._newest
        found: Declared | None = budgets.get(declared.name)
        if isinstance(declared, Quota):
            most = limits.get((declared.family, declared.period))
            found = None if most is None else replace(declared, limit=most)
        return (declared, number) if found is None or number > newest else (found, newest)

    # callers who wait ----------------------------------------------------------------------------------------------

    async def _wait_for(self, account: Account, period: str, need: int, seconds: float) -> bool:
        loop = asyncio.get_running_loop()
        empty = account.is_empty(need, loop.time())
        alone = not account.waiters and isinstance(account.declared, Budget)
        if need > account.declared.limit or self._closing or (empty and not alone):
            return False
        account.usual = need
        future: asyncio.Future[bool] = loop.create_future()
        account.waiters.append(waiter := (need, future))
        self._watch((account.declared.name, period))
        account.wake()
        if account.task is None or account.task.done():
            account.task = asyncio.create_task(self._serve((account.declared.name, period), account))
        try:
            async with patient(seconds):
                return await future
        except TimeoutError:
            if future.done() and not future.cancelled():
                return future.result()  # there was enough in the turn in which its time was over
            if not empty:
                account.refused(need, loop.time())
                self._watch((account.declared.name, period))
            return False
        finally:
            if waiter in account.waiters:
                account.waiters.remove(waiter)
            elif future.done() and not future.cancelled():
                account.promised -= need

    async def _serve(self, key: Key, account: Account) -> None:
        """Until nobody waits for it: hand out what is there, fetch more, ask the other workers."""
        loop = asyncio.get_running_loop()
        account.tries, next_try = 0, 0.0
        account.changed = changed = asyncio.Event()
        while self._offer(key, account):
            if account.freed or loop.time() >= next_try:
                account.freed = False
                if await self._fetch(key, account, recall=account.tries % _TRIES_PER_RECALL == 0):
                    account.tries = 0
                    continue
                account.tries += 1
                pause = AGAIN_S if account.empty_need else min(account.tries, 4) * _RETRY_S
                next_try = loop.time() + pause  # or when something is given back, which is told
            changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, next_try - loop.time())):
                    await changed.wait()
        account.task = account.changed = None
        self._look_away(key, account)

    async def _fetch(self, key: Key, account: Account, *, recall: bool) -> bool:
        """Ask the database once for what those who wait lack. Whether anything came."""
        ask = self._batches.want(key, account, recall=recall)
        with self._grants.noted():
            async with self._grants.busy:
                if not ask.answered:
                    await self._batches.ask(key)
            if not ask.lost:
                account.heard = account.heard if ask.came else asyncio.get_running_loop().time()
                return ask.came
        account.heard = float("-inf")
        return False

    def _offer(self, key: Key, account: Account) -> bool:
        """Let those go on, in their order, for whom there is enough. Whether others still wait."""
        left = self._usable(key, account)
        for waiter in list(account.waiters):
            need, future = waiter
            if future.done():
                account.waiters.remove(waiter)  # its time was over in this turn
            elif need <= left:
                left -= need
                account.waiters.remove(waiter)
                account.promised += need
                future.set_result(True)
        return bool(account.waiters)

    def _lacking(self, key: Key, account: Account) -> tuple[int, int] | None:
        """What the least of those who wait lacks, and what all of them lack; None when nobody waits."""
        needs = [need for need, _ in account.waiters]
        if not needs:
            return None
        have = self._usable(key, account)
        return max(1, min(needs) - have), max(1, sum(needs) - have)

    def _usable(self, key: Key, account: Account) -> int:
        """What those who wait can have of what is held; below zero, what is owed. Of what is being given back they have
        nothing."""
        left = self._grants.book(key[0]).available(*key) - account.promised
        return min(0, left) if account.cut else left

    def _watch(self, key: Key) -> None:
        """What is freed of it matters: somebody waits for it, or it is known to be empty, or is to be given back."""
        self._grants.book(key[0]).watched.add(key)

    def _freed(self, key: Key) -> None:
        account = self._accounts.get(key)
        if account is not None:
            account.empty_need = 0
            if account.waiters and not account.cut:
                self._offer(key, account)
                return
        if key in self._recalled or (account is not None and account.cut):
            self._start_giving(key, at_once=True)
        else:
            self._grants.book(key[0]).watched.discard(key)

    def _look_away(self, key: Key, account: Account | None) -> None:
        """Unless somebody waits for it, or it is known to be empty, or is to be given back."""
        wanted = account is not None and (account.waiters or account.empty_need or account.cut)
        if key not in self._recalled and not wanted:
            self._grants.book(key[0]).watched.discard(key)

    async def _give_back_idle(self, now: float) -> None:
        """Of limits what calls reserved and did not use, once it lay idle for a while: what a worker holds is lost with
        it, and counts as used for whoever looks who is near."""
        keep: dict[Key, int] = {}
        for key, (until, least) in list(self._idle.items()):
            account, available = self._accounts.get(key), self._counters.available(*key)
            most = 0 if account is None else account.idle(available)
            if account is None or account.cut or available <= most:
                del self._idle[key]
            elif now < until:
                self._idle[key] = (until, min(least, available))
            else:
                self._idle[key] = (now + _IDLE_S, available)
                if (surplus := min(least, available) - most) > 0:
                    keep[key] = available - surplus
                    account.rest = (account.rest or 0) + surplus
        await self._grants.give_back(*keep, keep=keep)

    def _start_giving(self, key: Key, *, at_once: bool = False) -> None:
        """`at_once`: no call whose turn comes first has what is idle."""
        self._start(self._grants.giving(key) if at_once else self._grants.give_back(key))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._giving.add(task)
        task.add_done_callback(self._giving.discard)

    # in the background ---------------------------------------------------------------------------------------------

    async def _run_ticks(self) -> None:
        while True:
            await sleep_to_tick(_TICK_S)
            with self._grants.noted():
                await self._tick(asyncio.get_running_loop().time())

    async def _tick(self, now: float) -> None:
        for key in self._recalled.take_over(now):
            self._look_away(key, self._accounts.get(key))
        at = self._grants.now()
        ended = await over(self._slices.granted_keys(), at) if at != self._minute else []
        ended += [key for key in self._take_up(now) if has_ended(key[1], at)]
        await self._grants.give_back(*(key for key in ended if self._slices.available(*key) > 0))
        if self._idle and self.connected:
            await self._give_back_idle(now)
        if at != self._minute:
            known = [*self._accounts, *self._counters.granted_keys()]  # to some an answer came once they were forgotten
            self._left = [key for key in dict.fromkeys(await over(known, at)) if is_quota(key[0])]
            await self._forget_ended()
            await self._forget_budgets()
        self._minute = at
        if self._grants.unconfirmed or not self.connected or now > self._checked + _CHECK_S:
            self._checked = now
            await self._forget_ended()
            async with self._grants.busy:
                asked = self._asked_lately(now)
                await self._grants.learn_rests(asked)  # a connection that died while idle says so only now
                await self._grants.tell_releases()
        low = [each for each in list(self._moving.items()) if self._runs_low(*each, now, at)]
        for i in range(0, len(low), TOGETHER):
            needs = [Need(key, each, 1, self._owed(key, each)) for key, each in low[i : i + TOGETHER]]
            async with self._grants.busy:
                await self._batches.grant(needs)

    def _owed(self, key: Key, account: Account) -> int:
        """What is fetched of it ahead at least."""
        return max(1, -self._grants.book(key[0]).available(*key)) if account.soft else 1

    def _take_up(self, now: float) -> list[Key]:
        """Learn how much of each is used a second, and leave those alone that are not used any more. Returns the
        budgets that were."""
        budgets = list(self._slices.used)
        for key in (*budgets, *self._counters.used):
            if (account := self._accounts.get(key)) is not None:
                self._moving[key] = account
                if account.cut:
                    self._start_giving(key)  # also what a lost answer had granted
        for key in self._counters.used:
            self._idle.setdefault(key, (now + _IDLE_S, self._counters.available(*key)))
        self._slices.used.clear()
        self._counters.used.clear()
        # what ends for thousands at midnight takes seconds to give back, which is no use of one tick
        seconds, self._looked = max(_TICK_S, now - self._looked), now
        for key, account in list(self._moving.items()):
            book = self._grants.book(key[0])
            account.used(book.spent(*key), seconds, now)
            # below a call's need nothing could be fetched before a call is short of it
            if account.rate * AHEAD_S < max(1, account.usual) and not (account.soft and book.available(*key) < 0):
                account.rate = 0.0
                del self._moving[key]
        return budgets

    def _asked_lately(self, now: float) -> list[Key]:
        """Quotas of which somebody wants to know what is left, in turns."""
        found = list(islice(self._asked, _ASKED_AT_ONCE))
        for key in found:
            del self._asked[key]
        found = [key for key in found if (each := self._accounts.get(key)) and each.asked > now - _ASKED_S]
        self._asked.update(dict.fromkeys(found))
        return found

    async def _forget_ended(self) -> None:
        """Windows come and go by the minute: nothing of them stays in memory, once nobody waits for them any more."""
        kept: list[Key] = []
        async for some in in_turns(self._left):
            gone = self._counters.forget([key for key in some if not self._is_waited_for(key)])
            for key in gone:
                self._accounts.pop(key, None)
                self._moving.pop(key, None)
                self._batches.beside.pop(key, None)
                self._grants.forget(key)
            kept += set(some).difference(gone)
        self._left = kept

    async def _forget_budgets(self) -> None:
        """Of users and keys there is one for each day or month: of those that are long over, with everything returned
        and told, nothing stays but for a while how much was granted, which is what PostgreSQL says again."""
        known = {*self._slices.granted_keys(), *(key for key in self._accounts if not is_quota(key[0]))}
        ended = await over(known, self._grants.now(before=_OPEN_FOR))
        async for some in in_turns([*ended, *await self._grants.outlived(known)]):
            if not self.connected:
                return  # of a grant whose answer was lost it is heard with the next connection
            told = self._grants.untold()
            for key in self._slices.forget([key for key in some if key not in told and not self._in_use(key)]):
                self._accounts.pop(key, None)
        if self.connected:
            await self._grants.forget_budgets()

    def _in_use(self, key: Key) -> bool:
        """Whether somebody waits for a budget, or something of it is still to be returned or fetched."""
        return self._is_waited_for(key) or key in self._moving or self._slices.available(*key) > 0

    def _is_waited_for(self, key: Key) -> bool:
        account = self._accounts.get(key)
        return account is not None and (account.task is not None or account.promised > 0 or bool(account.waiters))

    def _runs_low(self, key: Key, account: Account, now: float, at: str) -> bool:
        """Whether to fetch ahead: too little is left at its use, and nobody is short, here or elsewhere."""
        available = self._grants.book(key[0]).available(*key)
        if account.soft and available < 0:
            return True
        if account.waiters or now < account.calm_until or has_ended(key[1], at) or key in self._recalled:
            return False
        return account.rate > 0 and available < account.low(quota=is_quota(key[0]))
