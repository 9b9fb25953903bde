"""How a worker gets slices: requested when one is empty, fetched ahead of use, recalled from idle workers before a call
is refused.

Everything here runs beside the request path; a call comes here only when its slice is empty. That PostgreSQL had
nothing left is remembered for a second, or until it announces freed amounts: meanwhile one caller at a time waits for a
budget (what another worker's call leaves over is journalled and given back before it can be used here), and the others
are refused at once. `leases` reserves; `grant_connection` talks to PostgreSQL, and loses none of it; `recalls` listens
for its notifications; the shipper takes back what a dead worker held.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from itertools import islice
from pathlib import Path
from time import monotonic
from typing import Any

from groundplan.blueprint.model import Budget
from groundplan.core.clock import Clock, SystemClock
from groundplan.gateway.budgets.account import EMPTY_RETRY_S, REFILL_WAIT_S, Account, Declaration
from groundplan.gateway.budgets.declarations import Declarations
from groundplan.gateway.budgets.expired import EndedKeyLookup, ended_periods
from groundplan.gateway.budgets.grant_batching import GrantBatches, by_statement
from groundplan.gateway.budgets.grant_connection import BATCH_SIZE, GrantConnection, Need
from groundplan.gateway.budgets.idle_limits import IdleLimits
from groundplan.gateway.budgets.leases import Key, Slices, Token, is_quota
from groundplan.gateway.budgets.next_periods import accounts_to_renew
from groundplan.gateway.budgets.periods import has_ended
from groundplan.gateway.budgets.recalls import Recalls
from groundplan.gateway.budgets.windows import WindowClock
from groundplan.gateway.failure_log import ExceptionLog
from groundplan.gateway.journal.journal import Journal
from groundplan.gateway.stalls import patient, stall_monitor_of
from groundplan.gateway.ticks import in_turns, sleep_to_tick
from groundplan.ledger.model import Charge

_log = logging.getLogger(__name__)

_RETRY_S = 0.015
"""Pause after a request that brought nothing; up to four times as long after several."""
_TRIES_PER_RECALL = 3
_TICK_S = 0.05
_CHECK_S = 0.5
_KEPT_AFTER_END = timedelta(hours=1)
"""How long the accounts of a budget's period are kept after its end: calls of it may still go on."""
_REFRESHED_S = 60.0
"""How long the remaining amount of a quota is refreshed after a caller asked for it."""
_REFRESHED_AT_ONCE = 1000
"""Quotas refreshed at once: each call asks for those of its caller, of whom there may be tens of thousands a minute."""


class LeaseClient:
    """Gets slices for one worker. `start` it when its `gateway` row may be inserted; `close` returns everything."""

    def __init__(
        self,
        url: str,
        journal: Journal,
        slices: Slices,
        *,
        home: Path,
        clock: Clock | None = None,
        counters: Slices | None = None,
        windows: WindowClock | None = None,
    ) -> None:
        self._slices = slices
        self._counters = counters or Slices()
        self._accounts: dict[Key, Account] = {}
        self._grants = GrantConnection(
            url, journal, slices, self._counters, self._accounts, home=home, clock=clock or SystemClock(),
            windows=windows,
        )  # fmt: skip
        self._declarations = Declarations()
        self._batches = GrantBatches(self._grants, self._shortfall, self._start_giving_back)
        self._active: dict[Key, Account] = {}
        """Accounts in use now: of ten thousand users with a limit each, few are."""
        self._idle_limits = IdleLimits(self._accounts, self._counters)
        self._queried: dict[Key, None] = {}
        """Quotas whose remaining amount callers asked for, the least recently refreshed first."""
        self._last_minute = ""
        """Minute of the last look for periods that have ended."""
        self._ended_quotas: list[Key] = []
        """Quotas of windows that have ended, of which something is still reserved."""
        epoch = journal.epoch
        self._recalls = Recalls(url, epoch, self._grants, self._accounts, watch=self._watch, start=self._start_task)
        self._grants.on_connected = self._recalls.listen_anew
        self._background: set[asyncio.Task[None]] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._closing = False
        self._exceptions = ExceptionLog(_log)
        self._last_check, self._last_measured = 0.0, float("inf")
        self._slices.on_freed = self._counters.on_freed = self._on_freed

    @property
    def connected(self) -> bool:
        """Whether grants are possible at the moment."""
        return self._grants.connected

    def set_ended_key_lookup(self, lookup: EndedKeyLookup) -> None:
        """Set how to find budgets whose keys ended long ago, which are then forgotten."""
        self._grants.granted.ended_key_lookup = lookup

    async def start(self) -> None:
        """Connect if the database is there, and start to prefetch and to answer recalls."""
        with self._grants.log_failures():
            async with self._grants.lock:
                await self._grants.connect()
        self._tasks = [asyncio.create_task(self._run_ticks()), asyncio.create_task(self._recalls.run())]

    async def close(self) -> None:
        """Return what is not spent and disconnect. What the database does not hear of is in the journal."""
        self._closing = True
        running = [*self._tasks, *self._background, *(a.task for a in self._accounts.values() if a.task is not None)]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        # a cancelled task that was connecting keeps the half-open connection for as long as the task itself is kept
        self._tasks.clear()
        running.clear()
        for account in self._accounts.values():
            account.task = None
        await self._grants.give_back(*self._slices.granted_keys(), *self._counters.granted_keys())
        await self._grants.close()
        self._slices.on_freed = self._counters.on_freed = None

    async def acquire(
        self, token: Token, charges: Sequence[Charge], declared: Sequence[Declaration], blueprint: int = 0
    ) -> Charge | None:
        """Reserve all charges, waiting at most 250 ms in all. Returns None, or the charge that is short.

        All charges are of budgets or all of quotas; `declared` has the declaration of each, as in `blueprint`: quotas
        of one name are told apart by their periods.
        """
        loop = asyncio.get_running_loop()
        slices = self._grants.slices_for(charges[0].budget)
        soft = {item.name for item in declared if isinstance(item, Budget) and not item.hard}
        if soft:
            for charge, item in zip(charges, declared, strict=True):
                if charge.budget in soft:  # available is below zero before it is charged, where the budget is used up
                    self._active[charge.budget, charge.period] = self._account(item, charge.period, blueprint)
        started = loop.time()
        others_requested = False
        while (short := slices.reserve(token, charges, soft)) is not None:
            remaining_s = stall_monitor_of(loop).remaining(started, REFILL_WAIT_S)
            if not others_requested and is_quota(short.budget):
                others_requested = True
                others = [each for each in zip(charges, declared, strict=True) if each[0] is not short]
                self._request_others(others, blueprint)
            account = self._account(declared[charges.index(short)], short.period, blueprint)
            if remaining_s <= 0 or not await self._wait_for(account, short.period, short.amount, remaining_s):
                return short
        return None

    def _request_others(self, others: Sequence[tuple[Charge, Declaration]], blueprint: int) -> None:
        """Queue requests for the other charges of a call that are short, beside the one that it waits for first."""
        now = asyncio.get_running_loop().time()
        for charge, item in others:
            key = (charge.budget, charge.period)
            if self._counters.available(*key) < charge.amount <= item.limit:
                account = self._account(item, charge.period, blueprint)
                if account.task is None and not account.is_empty(charge.amount, now):
                    account.usual_amount = charge.amount
                    self._batches.also_needed[key] = (account, charge.amount)

    def apply_declarations(self, budgets: Iterable[Budget], limits: Mapping[Key, int], blueprint: int) -> None:
        """Adopt the declarations of a blueprint. Slices of a budget or limit that is smaller now are given back, the
        idle part at once and the rest as calls end: the next call asks anew. `limits`: the amount of each, by
        `Quota.family` and period."""
        before, self._declarations = self._declarations, Declarations(budgets, limits, blueprint)
        for key, account in self._accounts.items():
            account.update_declaration(*self._declarations.newest(account.declared, account.blueprint_number))
            if account.is_shrinking:
                self._watch(key)
                self._start_giving_back(key, at_once=True)
        for key in self._slices.granted_keys():  # also slices that came with batches, without a request from here
            old, new = before.budget(key[0]), self._declarations.budget(key[0])
            if key not in self._accounts and old and new and (new.limit < old.limit or not old.hard):
                self._shrink(key, at_once=True)

    def _shrink(self, key: Key, *, at_once: bool = False) -> None:
        """Give back what becomes idle of a hard budget of which more may be held than is declared."""
        budget = self._declarations.budget(key[0])
        if budget is not None and budget.hard:
            self._accounts.setdefault(key, Account(budget, self._declarations.number)).is_shrinking = True
            self._watch(key)
            self._start_giving_back(key, at_once=at_once)

    async def book_unrequested(self, keys: Sequence[Key]) -> None:
        """Book what this worker holds of these budgets without having asked for it. The caller reserves it before
        anything else runs, since idle amounts may be recalled. Raises psycopg.Error, TimeoutError."""
        async with self._grants.lock:
            totals = await self._grants.book_unrequested(keys)
        for key, total in totals.items():
            declared = self._declarations.budget(key[0])
            if declared is not None and total > declared.limit:
                self._shrink(key)

    def remaining(self, key: Key, limit: int) -> int:
        """Return what is left of a quota in a period, as far as this worker knows. `limit`: as it is declared."""
        account = self._accounts.get(key)
        if account is not None:
            account.queried_at, self._queried[key] = monotonic(), None
            if account.unallocated is not None:
                limit = account.unallocated
        return max(0, limit + self._counters.available_for(key))

    def unspent(self, name: str, period: str) -> int:
        """Return what is left if every open call costs nothing, as far as this worker knew when it last asked."""
        account = self._accounts.get((name, period))
        known = 0 if account is None else (account.unallocated or 0) + account.open_elsewhere
        return known + self._grants.unspent((name, period))

    def was_refused_lately(self, name: str, period: str) -> bool:
        """Whether PostgreSQL refused a grant lately; if not, it could not be asked."""
        account = self._accounts.get((name, period))
        return account is not None and account.was_refused_lately(asyncio.get_running_loop().time())

    def _account(self, declared: Declaration, period: str, number: int) -> Account:
        key = (declared.name, period)
        account = self._accounts.get(key)
        if account is None:
            account = self._accounts[key] = Account(*self._declarations.newest(declared, number))
        else:
            account.update_declaration(declared, number)
        if account.is_shrinking:
            self._watch(key)
        return account

    # callers who wait ----------------------------------------------------------------------------------------------

    async def _wait_for(self, account: Account, period: str, need: int, seconds: float) -> bool:
        loop = asyncio.get_running_loop()
        empty = account.is_empty(need, loop.time())
        alone = not account.waiters and isinstance(account.declared, Budget)
        if need > account.declared.limit or self._closing or (empty and not alone):
            return False
        account.usual_amount = need
        future: asyncio.Future[bool] = loop.create_future()
        account.waiters.append(waiter := (need, future))
        self._watch((account.declared.name, period))
        account.wake()
        if account.task is None or account.task.done():
            account.task = asyncio.create_task(self._serve_waiters((account.declared.name, period), account))
        try:
            async with patient(seconds):
                return await future
        except TimeoutError:
            if future.done() and not future.cancelled():
                return future.result()  # the grant came in the same turn of the loop as the timeout
            if not empty:
                account.record_refusal(need, loop.time())
                self._watch((account.declared.name, period))
            return False
        finally:
            if waiter in account.waiters:
                account.waiters.remove(waiter)
            elif future.done() and not future.cancelled():
                account.promised -= need

    async def _serve_waiters(self, key: Key, account: Account) -> None:
        """Until no caller waits: admit waiters from the slice, request more, recall idle slices of other workers."""
        loop = asyncio.get_running_loop()
        account.failed_tries, next_try = 0, 0.0
        account.changed = changed = asyncio.Event()
        try:
            while self._admit_waiters(key, account):
                changed.clear()  # not later: something may be freed while PostgreSQL is asked
                if account.retry_now or loop.time() >= next_try:
                    account.retry_now = False
                    if await self._request_grant(key, account, recall=account.failed_tries % _TRIES_PER_RECALL == 0):
                        account.failed_tries = 0
                        continue
                    account.failed_tries += 1
                    pause = EMPTY_RETRY_S if account.smallest_refused else min(account.failed_tries, 4) * _RETRY_S
                    next_try = loop.time() + pause  # or earlier, when something is freed
                with suppress(TimeoutError):
                    async with asyncio.timeout(max(0.0, next_try - loop.time())):
                        await changed.wait()
        finally:
            account.task = account.changed = None
        self._unwatch(key, account)

    async def _request_grant(self, key: Key, account: Account, *, recall: bool) -> bool:
        """Ask the database once for what the waiters lack. Returns whether anything came."""
        ask = self._batches.enqueue(key, account, recall=recall)
        with self._grants.log_failures():
            async with self._grants.lock:
                if not ask.is_answered:
                    await self._batches.send_batch_with(key)
            if not ask.has_failed:
                account.refused_at = account.refused_at if ask.was_granted else asyncio.get_running_loop().time()
                return ask.was_granted
        account.refused_at = float("-inf")
        return False

    def _admit_waiters(self, key: Key, account: Account) -> bool:
        """Admit waiters, in their order, for whom there is enough. Returns whether others still wait."""
        left = self._usable_amount(key, account)
        for waiter in list(account.waiters):
            need, future = waiter
            if future.done():
                account.waiters.remove(waiter)  # it timed out in this turn of the loop
            elif need <= left:
                left -= need
                account.waiters.remove(waiter)
                account.promised += need
                future.set_result(True)
        return bool(account.waiters)

    def _shortfall(self, key: Key, account: Account) -> tuple[int, int] | None:
        """Return what the smallest waiter lacks, and what all of them lack; None when nobody waits."""
        needs = [need for need, _ in account.waiters]
        if not needs:
            return None
        have = self._usable_amount(key, account)
        return max(1, min(needs) - have), max(1, sum(needs) - have)

    def _usable_amount(self, key: Key, account: Account) -> int:
        """Return how much of the slice waiters can get; negative if more was spent than granted. Nothing of a slice
        that is being given back."""
        left = self._grants.slices_for(key[0]).available(*key) - account.promised
        return min(0, left) if account.is_shrinking else left

    def _watch(self, key: Key) -> None:
        """Have `_on_freed` called when something of the slice is freed, since callers wait for it, PostgreSQL has no
        more, or it is to be given back."""
        self._grants.slices_for(key[0]).watched.add(key)

    def _on_freed(self, key: Key) -> None:
        account = self._accounts.get(key)
        if account is not None:
            account.smallest_refused = 0
            if account.waiters and not account.is_shrinking:
                self._admit_waiters(key, account)
                return
        if key in self._recalls or (account is not None and account.is_shrinking):
            self._start_giving_back(key, at_once=True)
        else:
            self._grants.slices_for(key[0]).watched.discard(key)

    def _unwatch(self, key: Key, account: Account | None) -> None:
        """Stop watching, unless callers wait, or the account is known to be empty, or it is to be given back."""
        wanted = account is not None and (account.waiters or account.smallest_refused or account.is_shrinking)
        if key not in self._recalls and not wanted:
            self._grants.slices_for(key[0]).watched.discard(key)

    def _start_giving_back(self, key: Key, *, at_once: bool = False) -> None:
        """`at_once`: release before another call can take what is idle."""
        self._start_task(self._grants.release_now(key) if at_once else self._grants.give_back(key))

    def _start_task(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    # in the background ---------------------------------------------------------------------------------------------

    async def _run_ticks(self) -> None:
        while True:
            await sleep_to_tick(_TICK_S)
            try:
                with self._grants.log_failures():
                    await self._tick(asyncio.get_running_loop().time())
            except Exception:  # noqa: BLE001 -- the boundary of this task: the next tick may go through
                self._exceptions.record("slices of budgets and limits are not looked after")

    async def _tick(self, now: float) -> None:
        for key in self._recalls.pop_expired(now):
            self._unwatch(key, self._accounts.get(key))
        at = self._grants.current_minute()
        ended = await ended_periods(self._slices.granted_keys(), at) if at != self._last_minute else []
        ended += [key for key in self._measure_use(now) if has_ended(key[1], at)]
        await self._grants.give_back(*(key for key in ended if self._slices.available(*key) > 0))
        if self.connected and (kept := self._idle_limits.amounts_to_keep(now)) is not None:
            await self._grants.give_back(*kept, keep=kept)
        if at != self._last_minute:
            known = [*self._accounts, *self._counters.granted_keys()]  # some granted after their account was forgotten
            self._ended_quotas = [key for key in dict.fromkeys(await ended_periods(known, at)) if is_quota(key[0])]
            await self._forget_ended_quotas()
            await self._forget_ended_budgets()
        self._last_minute = at
        if self._grants.has_unconfirmed or not self.connected or now > self._last_check + _CHECK_S:
            self._last_check = now
            await self._forget_ended_quotas()
            self._expect_next_periods(now)
            async with self._grants.lock:
                queried = self._recently_queried(now)
                await self._grants.refresh_unallocated(queried)  # a query, which also finds a dead connection
            await self._grants.report_releases()
        low = [each for each in list(self._active.items()) if self._should_prefetch(*each, now, at)]
        for i in range(0, len(low), BATCH_SIZE):
            await self._fetch_ahead(
                [Need(key, each, 1, self._least_prefetch(key, each)) for key, each in low[i : i + BATCH_SIZE]]
            )

    async def _fetch_ahead(self, needs: Sequence[Need]) -> None:
        """Request more of the accounts in `needs`. The connection is released between two statements, so that waiting
        callers can use it: each budget is a statement and a commit of its own."""
        for some in by_statement(needs):
            async with self._grants.lock:
                await self._batches.request_grants(some)

    def _least_prefetch(self, key: Key, account: Account) -> int:
        """The least amount to fetch ahead: for a soft budget at least what is owed."""
        return max(1, -self._grants.slices_for(key[0]).available(*key)) if account.is_soft else 1

    def _measure_use(self, now: float) -> list[Key]:
        """Measure the rates of use, and drop accounts that are not in use any more. Returns the budgets used since the
        last time."""
        budgets = list(self._slices.recently_used)
        for key in (*budgets, *self._counters.recently_used):
            if (account := self._accounts.get(key)) is not None:
                self._active[key] = account
                if account.is_shrinking:
                    self._start_giving_back(key)  # also what was granted by an answer that was lost
        for key in self._counters.recently_used:
            self._idle_limits.observe(key, now)
        self._slices.recently_used.clear()
        self._counters.recently_used.clear()
        # giving back what ends for thousands at midnight takes seconds, which must not count as one tick of use
        seconds, self._last_measured = max(_TICK_S, now - self._last_measured), now
        for key, account in list(self._active.items()):
            book = self._grants.slices_for(key[0])
            account.record_use(book.spent(*key), seconds, now)
            is_owing = account.is_soft and book.available(*key) < 0
            if not account.is_in_use(now) and not is_owing:
                account.use_rate = 0.0
                del self._active[key]
        return budgets

    def _expect_next_periods(self, now: float) -> None:
        """Let accounts that are used often be fetched ahead of their next period, too."""
        for account, following in list(accounts_to_renew(self._active.items(), self._grants.seconds)):
            upcoming = self._account(account.declared, following, account.blueprint_number)
            upcoming.expect_use_of(account, now)
            self._active[account.declared.name, following] = upcoming

    def _recently_queried(self, now: float) -> list[Key]:
        """Return the next quotas, in turns, whose remaining amount callers asked for lately."""
        found = list(islice(self._queried, _REFRESHED_AT_ONCE))
        for key in found:
            del self._queried[key]
        found = [key for key in found if (each := self._accounts.get(key)) and each.queried_at > now - _REFRESHED_S]
        self._queried.update(dict.fromkeys(found))
        return found

    async def _forget_ended_quotas(self) -> None:
        """Forget quotas of ended windows once nobody waits for them: windows come and go by the minute."""
        kept: list[Key] = []
        async for some in in_turns(self._ended_quotas):
            dropped = self._counters.drop_ended([key for key in some if not self._is_waited_for(key)])
            for key in dropped:
                self._accounts.pop(key, None)
                self._active.pop(key, None)
                self._batches.also_needed.pop(key, None)
                self._grants.forget_quota(key)
            kept += set(some).difference(dropped)
        self._ended_quotas = kept

    async def _forget_ended_budgets(self) -> None:
        """Forget budgets that are long over, once everything is returned and confirmed: of users and keys there is one
        for each day or month. How much was granted stays known for a while, since PostgreSQL may report it again."""
        known = {*self._slices.granted_keys(), *(key for key in self._accounts if not is_quota(key[0]))}
        ended = await ended_periods(known, self._grants.current_minute(before=_KEPT_AFTER_END))
        async for some in in_turns([*ended, *await self._grants.ended_key_budgets(known)]):
            if not self.connected:
                return  # a grant whose answer was lost is only found by the next connection
            unconfirmed = self._grants.unconfirmed_budgets()
            for key in self._slices.drop_ended(
                [key for key in some if key not in unconfirmed and not self._in_use(key)]
            ):
                self._accounts.pop(key, None)
        if self.connected:
            await self._grants.forget_ended_budgets()

    def _in_use(self, key: Key) -> bool:
        """Whether callers wait for a budget, or something of it is still to be returned or fetched."""
        return self._is_waited_for(key) or key in self._active or self._slices.available(*key) > 0

    def _is_waited_for(self, key: Key) -> bool:
        account = self._accounts.get(key)
        return account is not None and (account.task is not None or account.promised > 0 or bool(account.waiters))

    def _should_prefetch(self, key: Key, account: Account, now: float, at: str) -> bool:
        """Whether to fetch ahead: too little is left at this rate of use, and nobody is short, here or elsewhere."""
        available = self._grants.slices_for(key[0]).available(*key)
        if account.is_soft and available < 0:
            return True
        if account.waiters or now < account.no_prefetch_until or has_ended(key[1], at) or key in self._recalls:
            return False
        return account.use_rate > 0 and available < account.refill_threshold(quota=is_quota(key[0]))
