"""One worker's connection to PostgreSQL for slices: grants that come in, releases that go out, none of them lost.

A grant is one statement on the row of its (name, period), so the sum of all slices never exceeds the limit; one whose
answer was lost is found by the next connection. A release of money is journalled and durable before PostgreSQL hears of
it, and counts once by its id, whoever tells it. A worker that is fenced is granted nothing any more.

When to ask, and who waits, is `lease_client`'s; the statements are `grant_store`'s.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Coroutine, Iterable, Iterator, Mapping, Sequence
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
from groundplan.gateway.budgets.account import AHEAD_S, TELL_S, Account
from groundplan.gateway.budgets.expired import Gone, outlived
from groundplan.gateway.budgets.grant_store import Connection, Granted, Wish
from groundplan.gateway.budgets.leases import Key, Quota, Slices, is_quota
from groundplan.gateway.budgets.periods import has_ended
from groundplan.gateway.budgets.windows import Windows
from groundplan.gateway.journal.journal import Journal
from groundplan.gateway.stalls import patient
from groundplan.gateway.ticks import in_turns
from groundplan.ledger.model import Release

log = logging.getLogger(__name__)

TOGETHER = 64
"""Limits, or budgets of single keys, that are asked for in one commit, or slices that are given back."""
_HEADROOM_CALLS = 16
_GRANTED_FOR = timedelta(days=9)
"""How long it is known how much of a budget was granted: a line of a batch, which belongs to the period of its
admission, may bring more of it for as long as a batch goes on."""
_DAY_S = 86_400.0
_CALM_S = 2.0
"""How long nothing is fetched ahead where others are short, or nothing came."""
_STATEMENT_S = 2.0
_LATE_S = 60.0
"""For how long a grant is looked for of which no answer came: each later question without one begins it anew."""
_ROWS = 250
"""Of one statement, after which calls have a turn."""


@dataclass(frozen=True, slots=True)
class Need:
    """What is lacking of one slice: `least` helps somebody, `wanting` all who wait."""

    key: Key
    account: Account
    least: int
    wanting: int
    recall: bool = False


_CLOCK_S = 5.0
"""How often PostgreSQL's clock is looked at."""
LOST = (psycopg.Error, OSError, TimeoutError)
"""What a database that is away, restarted, or tired of us raises. It is logged and tried again; callers are refused."""


class GrantConnection:
    """The connection of one worker, and what it was granted. Whoever calls a method that says so holds `busy`, the lock
    of the connection; such methods raise `LOST`. `accounts` are what the worker uses now, which learn what came."""

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
        windows: Windows | None = None,
    ) -> None:
        self.busy = asyncio.Lock()
        self._url = url
        self._epoch = journal.epoch
        self._journal = journal
        self._slices = slices
        self._counters = counters
        self._accounts = accounts
        self._home = home
        self._clock = clock
        self._windows = windows
        self._looked = 0.0
        """At PostgreSQL's clock, by ours."""
        self._connection: Connection | None = None
        self._granted: dict[Key, int] = {}
        self._pending: dict[bytes, tuple[int, Release]] = {}
        """Given back, with its sequence in the journal, and not confirmed by the database."""
        self._returned: set[Key] = set()
        """Quotas of which something was given back that the database has not confirmed."""
        self._lost: set[Key] = set()
        """Budgets of which the database has lost grants, until what was used of them is booked there."""
        self._unheard: dict[Key, float] = {}
        """What was asked for without an answer, and until when it may still be granted (loop time): PostgreSQL, or what
        is on the way to it, may have stood still meanwhile."""
        self._problem = ""
        self.gone: Gone | None = None
        self._outlived: set[Key] = set()
        """Own budgets of keys that ended long ago, of which something is still known here."""
        self._looked_at_keys = clock.seconds()

    @property
    def connected(self) -> bool:
        return self._connection is not None and not self._connection.closed

    @property
    def unconfirmed(self) -> bool:
        """Whether something was given back that the database has not confirmed."""
        return bool(self._pending or self._returned)

    def book(self, name: str) -> Slices:
        """Where the slices of a name are: those of quotas are counters."""
        return self._counters if is_quota(name) else self._slices

    def now(self, before: timedelta = timedelta()) -> str:
        """The minute, or the one so long `before` it, as periods are named; where windows go by another clock than the
        rest, by whichever is behind."""
        if self._windows is not None and self._windows.ahead < 0:
            before -= timedelta(seconds=self._windows.ahead)
        return (self._clock.now() - before).strftime("%Y-%m-%dT%H:%M")

    def untold(self) -> set[Key]:
        """Budgets of which something was given back that the database has not confirmed."""
        return {(each.budget, each.period) for _, each in self._pending.values()}

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Log a failure of the database once, not at every try."""
        try:
            yield
        except LOST as error:
            problem = f"{error.__class__.__name__}: {first_line(error)}"
            if problem != self._problem:
                log.warning("budgets cannot be refilled or returned: %s", problem)
            self._problem = problem

    async def learn(self, keys: Sequence[Key]) -> dict[Key, int]:
        """Book what came to this worker of these budgets by another way than its own asking; what all hold or have
        spent of those of which something came. Holds `busy`."""
        connection = await self.connect()
        async with patient(_STATEMENT_S):
            found = await grant_store.held_of(connection, self._epoch, keys)
            over = self.now(before=_GRANTED_FOR)
            gone = self._never_again(found)
            known = [each for each in found.items() if not self._is_forgotten(each[0], over, gone)]
            came = {key: amount for key, held in known if (amount := held - self._granted.get(key, 0))}
            totals = await grant_store.totals(connection, list(came)) if came else {}
        for key, amount in came.items():
            self._booked(key, amount)
        return totals

    async def grant_budgets(self, needs: Sequence[Need]) -> list[int]:
        """The amounts that their slices grew by. One statement and one commit, whose time is nearly all that a grant
        takes; in the order of their keys, so that no two workers wait for each other. Holds `busy`."""
        async with self._granting(needs) as connection:
            asks = [(each, each.account.declared, each.account.number) for each in needs]
            asked = [(b, each.key[1], n, self._wish(each)) for each, b, n in asks if isinstance(b, Budget)]
            found = await grant_store.grant_budgets(connection, self._epoch, asked)
        came = [self._learned(each, n, granted) for (each, _, n), granted in zip(asks, found, strict=True)]
        if short := [each for each, amount in zip(needs, came, strict=True) if not amount]:
            async with patient(_STATEMENT_S):
                held = await grant_store.open_elsewhere(connection, self._epoch, [each.key for each in short])
            for each in short:
                each.account.elsewhere = held.get(each.key, 0)
        return came

    async def grant_limits(self, needs: Sequence[Need]) -> list[int]:
        """As `grant_budgets`, of limits."""
        async with self._granting(needs) as connection:
            asks = [(each, each.account.declared, each.account.number) for each in needs]
            asked = [(quota, each.key[1], n, self._wish(each)) for each, quota, n in asks if isinstance(quota, Quota)]
            found = await grant_store.grant_limits(connection, self._epoch, asked)
        return [self._learned(each, n, granted) for (each, _, n), granted in zip(asks, found, strict=True)]

    @asynccontextmanager
    async def _granting(self, needs: Sequence[Need]) -> AsyncIterator[Connection]:
        """The connection for a grant. One whose answer is not waited for any more may be made all the same, which the
        next connection finds out, or `_look_again` where it is made only then."""
        connection = await self.connect()
        try:
            async with patient(_STATEMENT_S):
                yield connection
        except (*LOST, asyncio.CancelledError) as error:
            until = asyncio.get_running_loop().time() + _LATE_S
            self._unheard.update((each.key, until) for each in needs)
            if isinstance(error, TimeoutError | asyncio.CancelledError):
                await connection.close()
            raise

    async def _look_again(self) -> None:
        """Learn what was granted of what was asked for without an answer lately. Holds `busy`."""
        if not self._unheard:
            return
        now, keys = asyncio.get_running_loop().time(), list(self._unheard)
        for at in range(0, len(keys), _ROWS):
            await self.learn([key for key in keys[at : at + _ROWS] if not is_quota(key[0])])
        if any(is_quota(name) for name, _ in keys):
            connection = await self.connect()
            async with patient(_STATEMENT_S):
                limits = await grant_store.held_limits(connection, self._epoch)
            for key in keys:
                if (found := limits.get(key)) is not None and not has_ended(key[1], self.now()):
                    self._booked_limit(key, *found)
        for key in [key for key, until in self._unheard.items() if until < now]:
            del self._unheard[key]

    def _wish(self, need: Need) -> Wish:
        key, account = need.key, need.account
        headroom = max(int(account.rate * AHEAD_S), _HEADROOM_CALLS * account.usual)
        available = self.book(key[0]).available(*key)
        headroom = account.ahead(headroom, quota=is_quota(key[0]), available=available)
        return Wish(need.least, need.wanting, headroom, need.recall)

    def _learned(self, need: Need, number: int, granted: Granted) -> int:
        """Book what was granted of what a blueprint of this number declares."""
        account = need.account
        if number == account.number:
            account.rest = granted.rest
            account.cut = account.cut and granted.rest < 0
        if granted.contested or not granted.amount:
            account.calm_until = asyncio.get_running_loop().time() + _CALM_S
        self._booked(need.key, granted.amount)
        return granted.amount

    def unspent(self, key: Key) -> int:
        """What this worker holds, reserved or not."""
        book = self.book(key[0])
        return self._granted.get(key, 0) - book.released(*key) - book.spent(*key)

    def _booked(self, key: Key, amount: int) -> None:
        if amount:
            self._granted[key] = self._granted.get(key, 0) + amount
            book = self.book(key[0])
            book.grant(*key, amount)
            book.used.add(key)  # looked at by the next tick, though nobody may use it
            account = self._accounts.get(key)
            if account is not None:
                account.empty_need = 0
                if account.cut and amount > 0 and is_quota(key[0]):
                    self._let_go(key, 0)  # before any call begins: it was asked for under a limit that is smaller now

    async def connect(self) -> Connection:
        """The connection; a new one first learns of grants whose answer was lost, and of those that the database has
        lost. Holds `busy`."""
        if self._connection is not None and not self._connection.closed:
            return self._connection
        connection = await grant_store.connect(self._url, self._epoch, self._home)
        try:
            await self._look_at_clock(connection)
            await self._compare(connection)
        except BaseException:
            await connection.close()
            raise
        self._connection, self._problem = connection, ""
        return connection

    async def _look_at_clock(self, connection: Connection) -> None:
        """By which time windows begin and end."""
        if self._windows is not None:
            asked = self._clock.seconds()
            told = await grant_store.clock(connection)
            self._looked = heard = self._clock.seconds()
            self._windows.learn(told, asked, heard)

    async def _compare(self, connection: Connection) -> None:
        """Learn what the database knows to be granted. May be repeated after any failure."""
        over = self.now(before=_GRANTED_FOR)
        used = {period for _, period in (*self._granted, *self._accounts)}  # also one in which a call goes on for days
        found = await grant_store.held(
            connection, self._epoch, lambda period: has_ended(period, over) and period not in used
        )
        over = self.now(before=_GRANTED_FOR)  # what ended while it was asked may be forgotten by now
        lost = [key for key in self._slices.granted_keys() if self._granted.get(key, 0) > found.get(key, 0)]
        gone = self._never_again(found)
        for key in (*lost, *found):
            if not self._is_forgotten(key, over, gone):
                self._booked(key, found.get(key, 0) - self._granted.get(key, 0))
        self._lost.update(lost)
        if self._lost:
            await self._owe(connection)
        limits = await grant_store.held_limits(connection, self._epoch)
        known = {key: (0, 0) for key in self._granted if is_quota(key[0])}
        now = self.now()  # not sooner, for the same reason: known anew it would all be idle, and given back
        for key, (granted, released) in (known | limits).items():
            if not has_ended(key[1], now):
                self._booked_limit(key, granted, released)

    async def _owe(self, connection: Connection) -> None:
        """The database was restored, or is another one that lacks what was committed last. What is idle of grants that
        it does not know is not used any more; what was used or given back of them is booked there, so that nobody
        spends it again."""
        told = "%d budgets: the database has lost grants that it made; what was used of them is booked"
        log.error(told, len(self._lost))
        debts = {key: -left for key in sorted(self._lost) if (left := self._slices.available(*key)) < 0}
        if debts:
            for key, amount in (await grant_store.owe(connection, self._epoch, debts)).items():
                self._booked(key, amount)
        self._lost.clear()

    def _booked_limit(self, key: Key, granted: int, released: int) -> None:
        """As `_booked`, of all that was granted. Where the database has lost some of it, it does not know of all that
        was given back either: that is there again."""
        if granted < self._granted.get(key, 0):
            self._counters.take_back(*key, self._counters.released(*key) - released)
        self._booked(key, granted - self._granted.get(key, 0))

    async def give_back(self, *keys: Key, keep: Mapping[Key, int] = MappingProxyType({})) -> None:
        """Release what is idle of each beyond what is to be kept (`keep`) and what somebody was promised: journal and
        disk where it is money, then the database. There may be thousands, as when a day ends."""
        for at in range(0, len(keys), TOGETHER):
            await self._told(self._released(keys[at : at + TOGETHER], keep))

    def giving(self, key: Key) -> Coroutine[None, None, None]:
        """As `give_back`: what is idle is nobody's from here on, so that no call whose turn comes first has it."""
        return self._told(self._released((key,), {}))

    def _released(self, keys: Sequence[Key], keep: Mapping[Key, int]) -> list[int]:
        """What must be durable before the database is told; as far as the journal has room."""
        found: list[int] = []
        with suppress(Unavailable):
            for key in keys:
                if (sequence := self._let_go(key, keep.get(key, 0))) is not None:
                    found.append(sequence)
        return found

    async def _told(self, released: Sequence[int]) -> None:
        """Tell the database of what was let go, once the disk has it."""
        if not released:
            return
        try:
            if (waiting := self._journal.durable(max(released))) is not None:
                await waiting
            async with self.busy:
                await self.tell_releases()
        except (*LOST, Unavailable):
            # told again by the next tick, or by the shipper from the journal; a failed journal ends this epoch, and
            # recovery finds the amount unspent and returns it
            return

    def _let_go(self, key: Key, keep: int) -> int | None:
        """What must be durable before the database is told; None where nothing is idle. Raises `Unavailable`: it is
        still held, where the journal has no room for it now."""
        account = self._accounts.get(key)
        amount = self.book(key[0]).release(*key, keep=max(keep, account.promised if account else 0))
        if not amount:
            return None
        if is_quota(key[0]):
            self._returned.add(key)  # lost with this worker, it only counts as used
            return 0
        record = Release(new_id().bytes, *key, amount)
        try:
            sequence = self._journal.release(record)
        except Unavailable:
            self._slices.take_back(*key, amount)
            raise
        self._pending[record.id] = (sequence, record)
        return sequence

    async def tell_open(self, key: Key) -> None:
        """Tell what open calls hold of a budget of which another worker is short, where they hold anything."""
        account, now = self._accounts.get(key), asyncio.get_running_loop().time()
        held = self.unspent(key) - max(0, self.book(key[0]).available(*key))
        if account is None or is_quota(key[0]) or held <= 0 or now < account.told_open + TELL_S:
            return
        account.told_open = now
        async with self.busy:
            connection = await self.connect()
            async with patient(_STATEMENT_S):
                await grant_store.tell_open(connection, self._epoch, key, held)

    async def tell_releases(self) -> None:
        """Tell the database every release that it has not confirmed, once the disk has it: after a loss of power what
        one gave back would be charged here all the same. Holds `busy`."""
        connection = await self.connect()
        while untold := list(islice(self._pending.values(), TOGETHER)):
            if (waiting := self._journal.durable(max(sequence for sequence, _ in untold), patient=True)) is not None:
                try:
                    await waiting
                except Unavailable:
                    return  # a failed journal ends this epoch
            async with patient(_STATEMENT_S):
                await grant_store.tell_releases(connection, self._epoch, [record for _, record in untold])
            for _, record in untold:
                self._pending.pop(record.id, None)
        returned = sorted(self._returned)
        for at in range(0, len(returned), TOGETHER):
            totals = {key: self._counters.released(*key) for key in returned[at : at + TOGETHER]}
            async with patient(_STATEMENT_S):
                await grant_store.tell_returns(connection, self._epoch, totals)
            self._returned -= {key for key, total in totals.items() if total == self._counters.released(*key)}

    async def learn_rests(self, keys: Sequence[Key]) -> None:
        """What nobody holds of these quotas; somebody is asked also where there are none. Holds `busy`."""
        await self._look_again()
        connection = await self.connect()
        if self._clock.seconds() > self._looked + _CLOCK_S:
            async with patient(_STATEMENT_S):
                await self._look_at_clock(connection)
        for at in range(0, len(keys) or 1, _ROWS):
            async with patient(_STATEMENT_S):
                for key, rest in (await grant_store.rests(connection, keys[at : at + _ROWS])).items():
                    if key in self._accounts:
                        self._accounts[key].rest = rest

    def _is_forgotten(self, key: Key, over: str, gone: Collection[Key]) -> bool:
        """Whether all that was granted of a budget was known, and is no more; `gone`: what of these is over besides."""
        return (key in gone or has_ended(key[1], over)) and key not in self._granted and key not in self._accounts

    def _never_again(self, keys: Iterable[Key]) -> set[Key]:
        """Those of which nothing is known here that are own budgets of keys that ended long ago."""
        unknown = (key for key in keys if key not in self._granted and key not in self._accounts)
        return outlived(unknown, self.gone)

    async def outlived(self, known: Collection[Key]) -> list[Key]:
        """Own budgets for good of keys that ended long ago, of those that are known; which these are is looked up once
        a day. What is idle of them is given back, as of a period that is over."""
        if (now := self._clock.seconds()) > self._looked_at_keys + _DAY_S:
            self._looked_at_keys, self._outlived = now, outlived(known, self.gone)
        self._outlived = {key for key in self._outlived if key in known or key in self._granted}
        found = [key for key in self._outlived if key in known]
        await self.give_back(*(key for key in found if self._slices.available(*key) > 0))
        return found

    async def forget_budgets(self) -> None:
        """How much was granted of budgets that are long over, but for those that something is known of. Calls have
        turns meanwhile: there may be those of nine days."""
        over = self.now(before=_GRANTED_FOR)
        async for some in in_turns(list(self._granted)):
            for key in some:
                known = key in self._accounts or self._slices.holds(key)
                if not known and (has_ended(key[1], over) or key in self._outlived) and not is_quota(key[0]):
                    self._granted.pop(key, None)

    def forget(self, key: Key) -> None:
        """A quota whose window has ended."""
        self._granted.pop(key, None)
        self._returned.discard(key)

    async def close(self) -> None:
        """Disconnect. What the database was not told is in the journal, or counts as used where it is no money."""
        if self._connection is None:
            return
        if self.unconfirmed and self.connected:
            with suppress(*LOST):
                async with self.busy:
                    await self.tell_releases()
        await self._connection.close()
