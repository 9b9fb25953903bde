"""One worker's connection to PostgreSQL for slices: grants that come in, releases that go out, none of them lost.

A grant is one statement on the row of its (name, period), so the sum of all slices never exceeds the limit; a grant
whose answer was lost is found by the next connection. A release of money is journalled and durable before PostgreSQL is
told, and counts once by its id, whoever reports it. A fenced worker is granted nothing any more.

`lease_client` decides when to ask and keeps the waiting callers; `grant_store` has the statements.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from pathlib import Path
from types import MappingProxyType

import psycopg

from groundplan.blueprint.model import Budget
from groundplan.core.clock import Clock
from groundplan.core.database import first_line
from groundplan.core.errors import Unavailable
from groundplan.core.ids import new_id
from groundplan.gateway.budgets import grant_store
from groundplan.gateway.budgets.account import OPEN_REPORT_S, PREFETCH_S, Account
from groundplan.gateway.budgets.grant_store import Grant, RequestedAmounts
from groundplan.gateway.budgets.granted import REMEMBERED_FOR, GrantedTotals
from groundplan.gateway.budgets.leases import Key, Quota, Slices, is_quota
from groundplan.gateway.budgets.periods import has_ended
from groundplan.gateway.budgets.windows import WindowClock
from groundplan.gateway.database import Connection
from groundplan.gateway.journal.journal import Journal
from groundplan.gateway.stalls import patient
from groundplan.ledger.model import Release

log = logging.getLogger(__name__)

BATCH_SIZE = 64
"""Limits, or budgets of single keys, that are requested or given back in one commit."""
_HEADROOM_CALLS = 16
_NO_PREFETCH_S = 2.0
"""How long nothing is fetched ahead after other workers were short, or nothing was granted."""
_STATEMENT_S = 2.0
_RECONCILE_STATEMENT_S = 10.0
"""The same for a statement of a new connection, which may read the budgets of many keys."""
_UNANSWERED_S = 60.0
"""For how long an unanswered grant is looked for; each later request without an answer starts this time anew."""
_STATEMENT_ROWS = 250
"""Rows of one statement, after which calls get a turn on the loop."""


@dataclass(frozen=True, slots=True)
class Need:
    """What one slice lacks: `least` serves one waiter, `wanting` all of them."""

    key: Key
    account: Account
    least: int
    wanting: int
    recall: bool = False


_CLOCK_INTERVAL_S = 5.0
"""How often PostgreSQL's clock is read."""
DATABASE_ERRORS = (psycopg.Error, OSError, TimeoutError)
"""Raised where a database is away, restarted, or drops the connection. Logged and tried again; callers are refused."""


class GrantConnection:
    """The connection of one worker, and what it was granted. Methods that say so need the connection's `lock` held and
    raise `DATABASE_ERRORS`. `accounts` are those that the worker uses; they are updated with each answer."""

    def __init__(
        self,
        url: str,
        journal: Journal,
        slices: Slices,
        counters: Slices,
        accounts: Mapping[Key, Account],
        *,
        home: Path,
        clock: Clock,
        windows: WindowClock | None = None,
    ) -> None:
        self.lock = asyncio.Lock()
        self._url = url
        self._epoch = journal.epoch
        self._journal = journal
        self._slices = slices
        self._counters = counters
        self._accounts = accounts
        self._home = home
        self._clock = clock
        self._windows = windows
        self._clock_read_at = 0.0
        """When PostgreSQL's clock was last read, by ours."""
        self._connection: Connection | None = None
        self.granted = GrantedTotals(slices, accounts, clock)
        self._unconfirmed_releases: dict[bytes, tuple[int, Release]] = {}
        """Releases that the database has not confirmed, with their sequence in the journal."""
        self._unconfirmed_returns: set[Key] = set()
        """Quotas with returned amounts that the database has not confirmed."""
        self._lost_grants: set[Key] = set()
        """Budgets of which the database has lost grants, until their use is booked there."""
        self._unanswered: dict[Key, float] = {}
        """Requests without an answer, and until when each may still be granted (loop time): PostgreSQL, or the network,
        may have stood still meanwhile."""
        self._problem = ""
        self.on_connected: Callable[[], None] | None = None
        """Called with each new connection."""

    @property
    def connected(self) -> bool:
        return self._connection is not None and not self._connection.closed

    @property
    def has_unconfirmed(self) -> bool:
        """Whether a release or return awaits the database's confirmation."""
        return bool(self._unconfirmed_releases or self._unconfirmed_returns)

    def slices_for(self, name: str) -> Slices:
        """Return the slices that have this name: quotas are kept in the counters."""
        return self._counters if is_quota(name) else self._slices

    def current_minute(self, before: timedelta = timedelta()) -> str:
        """The current minute, or the one `before` it by that time, as periods are named. Where windows follow another
        clock than the rest, whichever is behind counts."""
        if self._windows is not None and self._windows.seconds_ahead < 0:
            before -= timedelta(seconds=self._windows.seconds_ahead)
        return (self._clock.now() - before).strftime("%Y-%m-%dT%H:%M")

    @property
    def _remembered_since(self) -> str:
        """The minute before which a period must have ended for its grants to be forgotten."""
        return self.current_minute(before=REMEMBERED_FOR)

    def seconds(self, key: Key) -> float:
        """Return the time by which the periods of a key begin and end, in seconds since the epoch."""
        ahead = self._windows.seconds_ahead if self._windows is not None and is_quota(key[0]) else 0.0
        return self._clock.seconds() + ahead

    def unconfirmed_budgets(self) -> set[Key]:
        """Budgets with releases that the database has not confirmed."""
        return {(each.budget, each.period) for _, each in self._unconfirmed_releases.values()}

    @contextmanager
    def log_failures(self) -> Iterator[None]:
        """Log a failure of the database once, not at every try, and suppress it."""
        try:
            yield
        except DATABASE_ERRORS as error:
            problem = f"{error.__class__.__name__}: {first_line(error)}"
            if problem != self._problem:
                log.warning("budgets cannot be refilled or returned: %s", problem)
            self._problem = problem

    async def book_unrequested(self, keys: Sequence[Key]) -> dict[Key, int]:
        """Book what this worker holds of these budgets without having asked for it. Returns the total committed by all
        workers of each budget that changed. Needs `lock`."""
        connection = await self.connect()
        async with patient(_STATEMENT_S):
            found = await grant_store.granted_totals_of(connection, self._epoch, keys)
            ended_before, ended_keys = self._remembered_since, self.granted.unknown_ended(found)
            known = [each for each in found.items() if not self.granted.is_forgotten(each[0], ended_before, ended_keys)]
            changes = {key: amount for key, held in known if (amount := held - self.granted.of(key))}
            totals = await grant_store.committed_totals(connection, list(changes)) if changes else {}
        for key, amount in changes.items():
            self._book_grant(key, amount)
        return totals

    async def request_budgets(self, needs: Sequence[Need]) -> list[int]:
        """Ask for slices of budgets; returns the granted amounts. One statement and one commit, whose time is nearly
        all that a grant takes; in the order of their keys, so that no two workers wait for each other. Needs `lock`."""
        async with self._connection_for(needs) as connection:
            asks = [(each, each.account.declared, each.account.blueprint_number) for each in needs]
            wanted = [
                (b, each.key[1], n, self._requested_amounts(each)) for each, b, n in asks if isinstance(b, Budget)
            ]
            grants = await grant_store.grant_budgets(connection, self._epoch, wanted)
        amounts = [self._book_answer(each, n, granted) for (each, _, n), granted in zip(asks, grants, strict=True)]
        if short := [each for each, amount in zip(needs, amounts, strict=True) if not amount]:
            async with patient(_STATEMENT_S):
                held = await grant_store.open_amounts_elsewhere(connection, self._epoch, [each.key for each in short])
            for each in short:
                each.account.open_elsewhere = held.get(each.key, 0)
        return amounts

    async def request_limits(self, needs: Sequence[Need]) -> list[int]:
        """As `request_budgets`, for limits."""
        async with self._connection_for(needs) as connection:
            asks = [(each, each.account.declared, each.account.blueprint_number) for each in needs]
            wanted = [
                (quota, each.key[1], n, self._requested_amounts(each))
                for each, quota, n in asks
                if isinstance(quota, Quota)
            ]
            grants = await grant_store.grant_limits(connection, self._epoch, wanted)
        return [self._book_answer(each, n, granted) for (each, _, n), granted in zip(asks, grants, strict=True)]

    @asynccontextmanager
    async def _connection_for(self, needs: Sequence[Need]) -> AsyncIterator[Connection]:
        """The connection for a grant. A request whose answer is no longer awaited may still be granted: the next
        connection finds that out, or `_recheck_unanswered` where it is granted only then."""
        connection = await self.connect()
        try:
            async with patient(_STATEMENT_S):
                yield connection
        except (*DATABASE_ERRORS, asyncio.CancelledError) as error:
            until = asyncio.get_running_loop().time() + _UNANSWERED_S
            self._unanswered.update((each.key, until) for each in needs)
            if isinstance(error, TimeoutError | asyncio.CancelledError):
                await connection.close()
            raise

    async def _recheck_unanswered(self) -> None:
        """Learn what was granted for recent requests without an answer. Needs `lock`."""
        if not self._unanswered:
            return
        now, keys = asyncio.get_running_loop().time(), list(self._unanswered)
        for at in range(0, len(keys), _STATEMENT_ROWS):
            await self.book_unrequested([key for key in keys[at : at + _STATEMENT_ROWS] if not is_quota(key[0])])
        if any(is_quota(name) for name, _ in keys):
            connection = await self.connect()
            async with patient(_STATEMENT_S):
                limits = await grant_store.limit_totals(connection, self._epoch)
            for key in keys:
                if (found := limits.get(key)) is not None and not has_ended(key[1], self.current_minute()):
                    self._book_limit_total(key, *found)
        for key in [key for key, until in self._unanswered.items() if until < now]:
            del self._unanswered[key]

    def _requested_amounts(self, need: Need) -> RequestedAmounts:
        key, account = need.key, need.account
        headroom = max(int(account.use_rate * PREFETCH_S), _HEADROOM_CALLS * account.usual_amount)
        available = self.slices_for(key[0]).available(*key)
        headroom = account.prefetch_amount(headroom, quota=is_quota(key[0]), available=available)
        return RequestedAmounts(need.least, need.wanting, headroom, need.recall)

    def _book_answer(self, need: Need, number: int, granted: Grant) -> int:
        """Book a grant under the blueprint of this number. Returns its amount."""
        account = need.account
        if number == account.blueprint_number:
            account.unallocated = granted.unallocated
            account.is_shrinking = account.is_shrinking and granted.unallocated < 0
        if granted.contested or not granted.amount:
            account.no_prefetch_until = asyncio.get_running_loop().time() + _NO_PREFETCH_S
        self._book_grant(need.key, granted.amount)
        return granted.amount

    def unspent(self, key: Key) -> int:
        """What this worker holds, reserved or not; nothing where its slice is forgotten, since the period ended."""
        book = self.slices_for(key[0])
        return self.granted.of(key) - book.released(*key) - book.spent(*key) if book.was_granted(key) else 0

    def _book_grant(self, key: Key, amount: int) -> None:
        if amount:
            self.granted.add(key, amount)
            book = self.slices_for(key[0])
            book.add_grant(*key, amount)
            book.recently_used.add(key)  # so that the next tick measures it, though no call may use it
            account = self._accounts.get(key)
            if account is not None:
                account.smallest_refused = 0
                if account.is_shrinking and amount > 0 and is_quota(key[0]):
                    self._release_key(key, 0)  # before any call begins: it was requested before the limit was lowered

    async def connect(self) -> Connection:
        """Return the connection. A new one first books grants whose answers were lost, and grants that the database
        has lost. Needs `lock`."""
        if self._connection is not None and not self._connection.closed:
            return self._connection
        connection = await grant_store.connect(self._url, self._epoch, self._home, _RECONCILE_STATEMENT_S)
        try:
            async with patient(_RECONCILE_STATEMENT_S):
                await self._read_clock(connection)
            await self._reconcile(connection)
        except BaseException:
            await connection.close()
            raise
        self._connection, self._problem = connection, ""
        if self.on_connected is not None:
            self.on_connected()
        return connection

    async def _read_clock(self, connection: Connection) -> None:
        """Read PostgreSQL's clock, by which windows begin and end."""
        if self._windows is not None:
            asked_at = self._clock.seconds()
            database_time = await grant_store.read_clock(connection)
            self._clock_read_at = answered_at = self._clock.seconds()
            self._windows.learn(database_time, asked_at, answered_at)

    async def _reconcile(self, connection: Connection) -> None:
        """Compare what the database knows to be granted with what is booked here. May be repeated after any failure."""
        ended_before = self._remembered_since
        used = {period for _, period in (*self.granted.amounts, *self._accounts)}  # also if a call goes on for days
        totals = await grant_store.granted_totals(
            connection,
            self._epoch,
            lambda period: has_ended(period, ended_before) and period not in used,
            _RECONCILE_STATEMENT_S,
        )
        ended_before = self._remembered_since  # periods that ended during the query may be forgotten by now
        lost = [key for key in self._slices.granted_keys() if self.granted.of(key) > totals.get(key, 0)]
        ended_keys = self.granted.unknown_ended(totals)
        for key in (*lost, *totals):
            if not self.granted.is_forgotten(key, ended_before, ended_keys):
                self._book_grant(key, totals.get(key, 0) - self.granted.of(key))
        self._lost_grants.update(lost)
        if self._lost_grants:
            await self._book_lost_grants(connection)
        async with patient(_RECONCILE_STATEMENT_S):
            limits = await grant_store.limit_totals(connection, self._epoch)
        known = {key: (0, 0) for key in self.granted.amounts if is_quota(key[0])}
        # not earlier, for the same reason: booked anew it would all be idle, and given back
        now = self.current_minute()
        for key, (granted, released) in (known | limits).items():
            if not has_ended(key[1], now):
                self._book_limit_total(key, granted, released)

    async def _book_lost_grants(self, connection: Connection) -> None:
        """Book what was used or released of grants that the database does not know, so that no worker spends it again:
        the database was restored, or is another one that lacks the last commits. What is idle of them is not used any
        more."""
        message = "%d budgets: the database has lost grants that it made; what was used of them is booked"
        log.error(message, len(self._lost_grants))
        debts = {key: -left for key in sorted(self._lost_grants) if (left := self._slices.available(*key)) < 0}
        if debts:
            async with patient(_RECONCILE_STATEMENT_S):
                booked = await grant_store.book_debts(connection, self._epoch, debts)
            for key, amount in booked.items():
                self._book_grant(key, amount)
        self._lost_grants.clear()

    def _book_limit_total(self, key: Key, granted: int, released: int) -> None:
        """Book the total granted of a limit. Where the database has lost some of it, it does not know all returns
        either: these are available again."""
        if granted < self.granted.of(key):
            self._counters.undo_release(*key, self._counters.released(*key) - released)
        self._book_grant(key, granted - self.granted.of(key))

    async def give_back(self, *keys: Key, keep: Mapping[Key, int] = MappingProxyType({})) -> None:
        """Release what is idle of each key beyond what `keep` says and what waiters were promised: into the journal and
        to disk where it is money, then to the database. There may be thousands, as when a day ends or the worker does:
        a database that does not answer is waited for once, and told of the others by a later tick, or the shipper."""
        has_waited = False
        for at in range(0, len(keys), BATCH_SIZE):
            released = self._release_idle(keys[at : at + BATCH_SIZE], keep)
            if released and (self.connected or not has_waited):
                has_waited = True
                await self._report_durable(released)

    def release_now(self, key: Key) -> Coroutine[None, None, None]:
        """As `give_back`, but releases at the call, not when awaited, so that no call that runs first gets it."""
        return self._report_durable(self._release_idle((key,), {}))

    def _release_idle(self, keys: Sequence[Key], keep: Mapping[Key, int]) -> list[int]:
        """Release what is idle, as far as the journal has room. Returns the sequences that must be durable before the
        database is told."""
        sequences: list[int] = []
        with suppress(Unavailable):
            for key in keys:
                if (sequence := self._release_key(key, keep.get(key, 0))) is not None:
                    sequences.append(sequence)
        return sequences

    async def _report_durable(self, released: Sequence[int]) -> None:
        """Report releases to the database once they are on disk."""
        if not released:
            return
        try:
            if (waiting := self._journal.durable(max(released))) is not None:
                await waiting
            await self.report_releases()
        except (*DATABASE_ERRORS, Unavailable):
            # the next tick reports them, or the shipper from the journal; a failed journal ends this epoch, and
            # recovery finds the amount unspent and returns it
            return

    def _release_key(self, key: Key, keep: int) -> int | None:
        """Release what is idle of one key beyond `keep`. Returns the sequence that must be durable before the database
        is told; None where nothing is idle. Raises `Unavailable` where the journal has no room: it is still held."""
        account = self._accounts.get(key)
        amount = self.slices_for(key[0]).release(*key, keep=max(keep, account.promised if account else 0))
        if not amount:
            return None
        if is_quota(key[0]):
            self._unconfirmed_returns.add(key)  # lost with this worker, it only counts as used
            return 0
        record = Release(new_id().bytes, *key, amount)
        try:
            sequence = self._journal.release(record)
        except Unavailable:
            self._slices.undo_release(*key, amount)
            raise
        self._unconfirmed_releases[record.id] = (sequence, record)
        return sequence

    async def report_open(self, key: Key) -> None:
        """Report what open calls hold of a budget that another worker lacks, where they hold anything."""
        account, now = self._accounts.get(key), asyncio.get_running_loop().time()
        held = self.unspent(key) - max(0, self.slices_for(key[0]).available(*key))
        if account is None or is_quota(key[0]) or held <= 0 or now < account.open_reported_at + OPEN_REPORT_S:
            return
        account.open_reported_at = now
        async with self.lock:
            connection = await self.connect()
            async with patient(_STATEMENT_S):
                await grant_store.report_open_amount(connection, self._epoch, key, held)

    async def report_releases(self) -> None:
        """Report every release that the database has not confirmed, once it is on disk: after a loss of power a release
        that is not would be charged here all the same. Callers who wait for a grant get the connection after each
        commit: after an outage there may be thousands. Takes `lock` itself; raises `DATABASE_ERRORS`."""
        while self._unconfirmed_releases:
            async with self.lock:
                if not await self._report_next_releases():
                    return  # a failed journal ends this epoch
        returned = sorted(self._unconfirmed_returns)
        for at in range(0, len(returned), BATCH_SIZE):
            async with self.lock:
                await self._report_returns(returned[at : at + BATCH_SIZE])

    async def _report_next_releases(self) -> bool:
        """Report the oldest releases; False where they do not become durable any more. Needs `lock`."""
        unreported = list(islice(self._unconfirmed_releases.values(), BATCH_SIZE))
        if not unreported:
            return True  # another task has reported them meanwhile
        connection = await self.connect()
        if (waiting := self._journal.durable(max(sequence for sequence, _ in unreported), patient=True)) is not None:
            try:
                await waiting
            except Unavailable:
                return False
        async with patient(_STATEMENT_S):
            await grant_store.report_releases(connection, self._epoch, [record for _, record in unreported])
        for _, record in unreported:
            self._unconfirmed_releases.pop(record.id, None)
        return True

    async def _report_returns(self, keys: Sequence[Key]) -> None:
        """Report what was returned of these quotas. Needs `lock`."""
        connection = await self.connect()
        totals = {key: self._counters.released(*key) for key in keys}
        async with patient(_STATEMENT_S):
            await grant_store.report_returns(connection, self._epoch, totals)
        self._unconfirmed_returns -= {key for key, total in totals.items() if total == self._counters.released(*key)}

    async def refresh_unallocated(self, keys: Sequence[Key]) -> None:
        """Refresh the unallocated amounts of these quotas, with a query even where there are none, which finds a dead
        connection. Needs `lock`."""
        await self._recheck_unanswered()
        connection = await self.connect()
        if self._clock.seconds() > self._clock_read_at + _CLOCK_INTERVAL_S:
            async with patient(_STATEMENT_S):
                await self._read_clock(connection)
        for at in range(0, len(keys) or 1, _STATEMENT_ROWS):
            async with patient(_STATEMENT_S):
                for key, rest in (
                    await grant_store.unallocated_amounts(connection, keys[at : at + _STATEMENT_ROWS])
                ).items():
                    if key in self._accounts:
                        self._accounts[key].unallocated = rest

    async def ended_key_budgets(self, known: Collection[Key]) -> list[Key]:
        """As `GrantedTotals.ended_key_budgets`. What is idle of them is given back, as for a period that is over."""
        found = self.granted.ended_key_budgets(known)
        await self.give_back(*(key for key in found if self._slices.available(*key) > 0))
        return found

    async def forget_ended_budgets(self) -> None:
        """Forget the granted amounts of budgets that are long over, unless more is known of them."""
        await self.granted.forget_ended(self._remembered_since)

    def forget_quota(self, key: Key) -> None:
        """Forget a quota whose window has ended."""
        self.granted.amounts.pop(key, None)
        self._unconfirmed_returns.discard(key)

    async def close(self) -> None:
        """Disconnect. Unreported releases are in the journal; unreported returns of quotas count as used."""
        if self._connection is None:
            return
        if self.has_unconfirmed and self.connected:
            with suppress(*DATABASE_ERRORS):
                await self.report_releases()
        await self._connection.close()
