"""The cached answers of one worker, and the calls that are making one now. Pure: no clock, no I/O.

Each workload has a shelf, bounded in bytes, and all shelves have a common bound; the least recently used answer goes
first. Answers that a stop switch, a cleared cache, a person who left or a changed blueprint concerns are dropped as
soon as the worker knows, and do not come back when the switch is lifted. Who may get an answer is decided by its key
(`cache_key`) and in `cache`, not here."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from groundplan.gateway.caching.cache_key import terms_of
from groundplan.gateway.caching.entry import Entry, Flight, Key
from groundplan.gateway.caching.known_requests import KnownRequests
from groundplan.gateway.policy.catalog import Catalog, Plan
from groundplan.gateway.policy.snapshot import EMPTY_POLICY, Policy

if TYPE_CHECKING:
    from groundplan.gateway.call.exchange import Exchange

MAX_BYTES = 256 << 20
"""For the answers of all workloads of a worker, unless its settings say otherwise."""
MAX_SHARE = 8
"""One answer may take at most 1/8 of its shelf's bound, and of the common one."""


class Similar(Protocol):
    """Finds an entry by the meaning of a question, after an exact miss and before a model is asked.

    What it returns is treated like an exact hit, live permissions and stop switches included.
    """

    async def __call__(self, exchange: Exchange, entries: Iterator[Entry]) -> Entry | None: ...

    def record_hit(self, entry: Entry) -> None:
        """Note that the found entry was given, and the call is in the journal."""
        ...

    def record_answer(self, entry: Entry, exchange: Exchange) -> None:
        """Note that the answer to a question that was looked up is cached now."""
        ...


@dataclass(slots=True)
class _Shelf:
    entries: OrderedDict[Key, Entry] = field(default_factory=OrderedDict)
    size: int = 0
    max_bytes: int = 0
    terms: bytes = b""
    """Digest of the parts of the blueprint under which it was filled."""


class AnswerCache:
    """Of one worker. `max_bytes`: bytes of all its answers."""

    def __init__(self, most: int = MAX_BYTES) -> None:
        self._max_bytes = most
        self._size = 0
        self._shelves: dict[str, _Shelf] = {}
        self._used: OrderedDict[Entry, None] = OrderedDict()
        """All entries, least recently used first."""
        self._flights: dict[Key, Flight] = {}
        self._terms: dict[str, tuple[Plan, bytes]] = {}
        self._policy = EMPTY_POLICY
        self._catalog: Catalog | None = None
        self.known_requests = KnownRequests()
        self.similar: Similar | None = None
        self.on_put: Callable[[Entry, Exchange], None] | None = None
        """Called with every answer that this worker made itself."""
        self.on_drop: Callable[[Entry], None] | None = None
        """Called with every answer that must not be given any more."""

    @property
    def size(self) -> int:
        """Bytes in use."""
        return self._size

    def __len__(self) -> int:
        return len(self._used)

    def __contains__(self, entry: Entry) -> bool:
        return entry in self._used

    def entries(self, workload: str) -> Iterator[Entry]:
        """The entries of a workload, least recently used first."""
        shelf = self._shelves.get(workload)
        return iter(tuple(shelf.entries.values())) if shelf is not None else iter(())

    def terms(self, plan: Plan) -> bytes:
        """Digest of everything in the blueprint that influences the answers of a workload."""
        known = self._terms.get(plan.workload.name)
        if known is not None and known[0] is plan:
            return known[1]
        found = terms_of(plan)
        self._terms[plan.workload.name] = (plan, found)
        return found

    # entries ----------------------------------------------------------------------------------------------------------

    def get(self, workload: str, key: Key, now: float) -> Entry | None:
        """The entry, which becomes the most recently used; None: there is none, or it has expired."""
        shelf = self._shelves.get(workload)
        if shelf is None:
            return None
        entry = shelf.entries.get(key)
        if entry is None:
            return None
        if entry.until <= now:
            self._remove(shelf, entry)
            return None
        shelf.entries.move_to_end(key)
        self._used.move_to_end(entry)
        return entry

    def put(self, plan: Plan, entry: Entry) -> bool:
        """Add an entry; False: it is too large, or was made under a blueprint that is no longer in force. It replaces
        the entry of its key, and with `alone` that of the other form, too."""
        rule = plan.workload.cache
        size = entry.size
        if rule is None or size * MAX_SHARE > min(rule.max_bytes, self._max_bytes):
            return False
        terms = self.terms(plan)
        newest = self._catalog.plans.get(entry.workload) if self._catalog is not None else plan
        if newest is not plan and (newest is None or terms_of(newest) != terms):
            return False
        shelf = self._shelves.get(entry.workload)
        if shelf is None or shelf.terms != terms:
            self._clear(entry.workload)
            shelf = self._shelves[entry.workload] = _Shelf(terms=terms)
        shelf.max_bytes = rule.max_bytes
        for key in (entry.key, (entry.key[0], not entry.key[1])) if entry.alone else (entry.key,):
            if (old := shelf.entries.get(key)) is not None:
                self._remove(shelf, old)
        shelf.entries[entry.key] = entry
        self._used[entry] = None
        shelf.size += size
        self._size += size
        while shelf.size > shelf.max_bytes:
            self._remove(shelf, next(iter(shelf.entries.values())))
        while self._size > self._max_bytes:
            oldest = next(iter(self._used))
            self._remove(self._shelves[oldest.workload], oldest)
        return True

    def drop(self, entry: Entry) -> None:
        """Remove an entry that must not be given to anybody any more."""
        shelf = self._shelves.get(entry.workload)
        if shelf is not None and shelf.entries.get(entry.key) is entry:
            self._remove(shelf, entry)
        if self.on_drop is not None:
            self.on_drop(entry)

    def _remove(self, shelf: _Shelf, entry: Entry) -> None:
        size = entry.size
        del shelf.entries[entry.key], self._used[entry]
        shelf.size -= size
        self._size -= size

    def _clear(self, workload: str) -> None:
        """Remove all entries of a workload."""
        shelf = self._shelves.pop(workload, None)
        if shelf is not None:
            self._size -= shelf.size
            for entry in shelf.entries.values():
                del self._used[entry]

    # policies ---------------------------------------------------------------------------------------------------------

    def apply_policies(self, catalog: Catalog, policy: Policy) -> None:
        """Drop what the newest blueprint and policy forbid. Costs two comparisons where neither has changed."""
        if catalog is not self._catalog:
            self._catalog = catalog
            self._terms.clear()
            for name, shelf in list(self._shelves.items()):
                plan = catalog.plans.get(name)
                if plan is None or plan.workload.cache is None or self.terms(plan) != shelf.terms:
                    self._clear(name)
        if policy is not self._policy:
            self.apply_policy(policy)

    def apply_policy(self, policy: Policy) -> None:
        """Drop what a policy stops, and answers of people who have left; must be called with every policy in turn."""
        old, self._policy = self._policy, policy
        for name in [name for name in self._shelves if policy.cleared.get(name) != old.cleared.get(name)]:
            self._clear(name)
        stopped = policy.kills - old.kills
        gone = frozenset() if old.active is policy.active else old.active - policy.active
        if not stopped and not gone:
            return
        for shelf in self._shelves.values():
            for entry in list(shelf.entries.values()):
                if not stopped.isdisjoint(entry.subjects) or entry.person in gone:
                    self._remove(shelf, entry)

    # flights ----------------------------------------------------------------------------------------------------------

    def find_flight(self, key: Key) -> Flight | None:
        """The call that makes the answer of this key now."""
        return self._flights.get(key)

    def start_flight(self, key: Key, loop: asyncio.AbstractEventLoop, *, is_refresh: bool = False) -> Flight:
        """Register the call that makes the answer of this key; it must `finish_flight`."""
        flight = self._flights[key] = Flight(key, loop.create_future(), is_refresh)
        return flight

    def finish_flight(self, flight: Flight, how: str) -> None:
        """Wake up the calls that wait, with `STORED`, `FAILED`, `LEFT` or `UNFIT`."""
        if self._flights.get(flight.key) is flight:
            del self._flights[flight.key]
        if not flight.outcome.done():
            flight.outcome.set_result(how)
