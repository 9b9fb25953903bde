"""The worker's live view of PostgreSQL: policy, blueprint and remaining budgets; and its heartbeat, which acknowledges
them.

One connection, off the request path: LISTEN wakes it, and it refreshes at least every 200 ms. A statement that does not
end in time ends the connection. Without PostgreSQL the last values stay, and their age grows; `admit` decides how long
they may be used.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import closing, suppress
from dataclasses import replace
from typing import Any, LiteralString
from uuid import UUID

import psycopg
from msgspec import structs

from groundplan.blueprint import artifact
from groundplan.blueprint.model import Budget
from groundplan.core.audit.keys import load_public
from groundplan.core.clock import WARN_SECONDS, Clock
from groundplan.core.home import Home
from groundplan.gateway.budgets.grant_store import register
from groundplan.gateway.budgets.leases import Slices
from groundplan.gateway.database import Connection, connect, fetched
from groundplan.gateway.failure_log import FailureLog
from groundplan.gateway.notifications import Listener
from groundplan.gateway.policy import key_store, policy_store
from groundplan.gateway.policy.approved import approved_of
from groundplan.gateway.policy.catalog import Catalog, index
from groundplan.gateway.policy.gate import gate_of
from groundplan.gateway.policy.grants import groups_of
from groundplan.gateway.policy.policy_store import RecordedStops
from groundplan.gateway.policy.remaining import RemainingBudgets
from groundplan.gateway.policy.snapshot import EMPTY_POLICY, PEOPLE_DAYS, KeyEntry, Policy
from groundplan.gateway.policy.stopped_keys import StoppedKeys, with_lines
from groundplan.gateway.stalls import patient

HEARTBEAT_SECONDS = 0.2
STATEMENT_SECONDS = 1.0
"""Longest that a heartbeat may take, or a statement that nothing waits for."""
LOAD_SECONDS = 3.0
"""Longest that each statement may take that begins to follow live policy, or loads some of it: a busy PostgreSQL, which
needs some of a second for each, is followed all the same."""
_BLUEPRINT_RETRY_SECONDS = 5.0
"""How often a refused blueprint is tried again."""
_SLOW_SECONDS = 1.0
"""How often budgets and people are refreshed."""
_SLOW_RETRY_SECONDS = 5.0
"""How much later they are refreshed after that took too long, since nothing else is followed meanwhile."""
_DAY_SECONDS = 86_400
_NOBODY: frozenset[str] = frozenset()
_log = logging.getLogger(__name__)

_HEARTBEAT: LiteralString = """UPDATE gateway SET heartbeat_at = now(), policy_ack = $1, blueprint = $2, ready = $3
    WHERE epoch = $4 AND state = 'live'
    RETURNING (SELECT number FROM policy_epoch), (SELECT coalesce(max(number), 0) FROM blueprint),
      extract(epoch FROM clock_timestamp())::float8"""
_SET_UP: LiteralString = (
    # a lost heartbeat is sent again; its flush would delay the journal on the same disk
    "SET synchronous_commit = off; LISTEN groundplan_policy; LISTEN groundplan_blueprint"
)
_STOP = (
    """UPDATE gateway SET heartbeat_at = now(), ready = false, state = 'stopped' WHERE epoch = %s AND state = 'live'"""
)
_HEALTH = "UPDATE gateway SET health = %s WHERE epoch = %s"
_BLUEPRINT = "SELECT number, body, signature FROM blueprint WHERE number = %s"
_SIGNED = "SELECT signature FROM blueprint WHERE number = %s"
_USERS = "SELECT workload, person::text FROM people_seen(%s, %s)"

Rows = list[tuple[Any, ...]]


class LiveView:
    """Implements `context.Live`. `fenced` is set when this epoch may not serve any more."""

    def __init__(self, url: str, home: Home, epoch: UUID, clock: Clock, slices: Slices) -> None:
        self.policy: Policy = EMPTY_POLICY
        self.catalog: Catalog | None = None
        self.ready = False
        self.fenced = asyncio.Event()
        self.loaded = asyncio.Event()
        """Set when a blueprint and a policy are loaded."""
        self.is_undeclared = False
        """Whether live policy is followed and the database has no blueprint yet."""
        self.health: Callable[[], dict[str, str]] = dict
        """Breakers that are not closed, by deployment."""
        self.on_policy: Callable[[Policy], None] | None = None
        """Called with each policy as it is taken up, so that a stop that is lifted at once is not missed."""
        self.on_blueprint: Callable[[Catalog], None] | None = None
        """Called with each blueprint as it is taken up."""
        self._published_health: dict[str, str] = {}
        self._url = url
        self._home = home
        self._kill_file = str(home.run / "kill.json")
        self._epoch = epoch
        self._clock = clock
        self._slices = slices
        self._confirmed: tuple[float, float] | None = None
        """When live policy was last confirmed, by the monotonic and the wall clock."""
        self._database_kills: frozenset[str] = frozenset()
        self._file_kills: frozenset[str] = frozenset({"company"})
        """Kills of the file in HOME, as last read. A file that could never be read may stop anything."""
        self._stopped_keys = StoppedKeys()
        self._own_stops: dict[str, set[str]] = {}
        """Scopes that this worker stopped itself, with the ids of the calls that caused it."""
        self._slow_refresh_at = float("-inf")
        self._keys_dropped_at = 0.0
        """When keys that ended long ago were last dropped (seconds since the epoch)."""
        self._figures_log = FailureLog(_log)
        self.remaining_budgets = RemainingBudgets(slices, clock)
        self._users: dict[str, set[str]] = {}
        self._seen_here: dict[str, dict[str, float]] = {}
        """Who made calls here, by workload, and when last (seconds since the epoch): PostgreSQL learns of it later."""
        self._signature = ""
        """Signature of the current blueprint."""
        self._refused_blueprint = 0
        self._blueprint_retry_at = 0.0
        """When a refused blueprint is tried again: a key may come, or be corrected, after the worker has started."""
        self._is_cut_off = False
        self._is_new_connection = True
        """The connection is new, perhaps to a database that was restored, or lost its last commits: it may have
        something else under a known number."""
        self._kill_file_failed = False
        """The kill file cannot be read, which was logged."""
        self._clocks_differ = False
        """This machine's clock and PostgreSQL's differ, which was logged."""

    # for the request path ---------------------------------------------------------------------------------------------

    def age(self, now: float | None = None) -> float:
        """Seconds since the database last confirmed that `policy` is the newest, by the clock that shows more: after a
        virtual machine was paused, only the wall clock shows it, once it is set right. `now`: the wall clock's time."""
        if self._confirmed is None:
            return float("inf")
        since, at = self._confirmed
        return max(self._clock.monotonic() - since, (self._clock.seconds() if now is None else now) - at)

    @property
    def is_following(self) -> bool:
        """Whether the database answered last time: then it confirms `policy` in a moment."""
        return not self._is_cut_off

    def remaining(self, budget: Budget, period: str) -> int:
        """Picodollars of the budget that nobody has spent, as last seen, less what this worker spent since."""
        key = (budget.name, period)
        return budget.limit - self._slices.spent(*key) - self.remaining_budgets.taken_elsewhere.get(key, 0)

    def people(self, workload: str) -> Set[str]:
        """Ids of the people of a workload with a limit of people."""
        return self._users.get(workload, _NOBODY)

    def record_person(self, workload: str, person: str) -> None:
        """Record one more call of a person."""
        if person and self._limits_people(workload):
            self._users.setdefault(workload, set()).add(person)
            self._seen_here.setdefault(workload, {})[person] = self._clock.seconds()

    def _limits_people(self, workload: str) -> bool:
        """Whether the workload has a limit of people: for others, nobody is remembered."""
        plan = self.catalog.plans.get(workload) if self.catalog is not None else None
        return plan is not None and plan.workload.people is not None

    def stop(self, workload: str, call: UUID) -> None:
        """Admit no more calls of a workload here: this one used more than its bound.

        The shipper writes the same into live policy, from which it applies everywhere and until it is lifted. Until
        then, and so while there is no PostgreSQL, this worker remembers it.
        """
        scope = f"workload/{workload}"
        if scope not in self._database_kills:
            _log.error("%s is stopped: call %s used more than its bound", scope, call)
            self._own_stops.setdefault(scope, set()).add(str(call))
            self.read_kill_file()

    def _log_connection(self, problem: str = "") -> None:
        """Log once that live policy is not followed, and why, or that it is again: there are several tries a second as
        long as PostgreSQL is away."""
        if bool(problem) != self._is_cut_off:
            self._is_cut_off = bool(problem)
            _log.log(logging.WARNING if problem else logging.INFO, problem or "live policy is followed again")

    def _announce_policy(self) -> None:
        if self.on_policy is not None:
            self.on_policy(self.policy)

    # the task ---------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Connect, follow, and connect again, until cancelled or fenced."""
        while not self.fenced.is_set():
            try:
                await self._follow()
            except (psycopg.Error, OSError, TimeoutError) as error:
                self._log_connection(f"cut off from live policy: {error.__class__.__name__}")
            self.read_kill_file()
            await asyncio.sleep(HEARTBEAT_SECONDS)

    async def close(self) -> None:
        """Record that this worker has stopped, if the database is reachable."""
        with suppress(psycopg.Error, OSError, TimeoutError):
            async with patient(STATEMENT_SECONDS):
                async with await connect(self._url) as connection:
                    await connection.execute(_STOP, (self._epoch,))

    async def _follow(self) -> None:
        connection = await connect(self._url)  # bounds the time itself: an address may name several servers
        connection.prepare_threshold = None  # preparing a statement would wait for one more answer
        try:
            async with patient(LOAD_SECONDS):
                await register(connection, self._epoch, self._home.root)
            await _execute(connection, _SET_UP)
            async with patient(LOAD_SECONDS):
                listener = await Listener.of(connection, _HEARTBEAT)
            self._is_new_connection = True
            with closing(listener):
                while not self.fenced.is_set():
                    await self.refresh(listener)
                    await listener.wait(HEARTBEAT_SECONDS)
        finally:
            await connection.close()

    async def refresh(self, listener: Listener) -> None:
        """One heartbeat: acknowledge what is loaded, load what is newer, confirm the policy's age. `listener` executes
        `_HEARTBEAT`."""
        connection = listener.connection
        self.read_kill_file()
        while True:
            asked_at, at = self._clock.monotonic(), self._clock.seconds()
            number = self.catalog.number if self.catalog else 0
            acknowledged = 0 if self._is_new_connection else max(0, self.policy.number)
            parameters = (acknowledged, number, self.ready, self._epoch)
            row = await listener.execute(parameters, STATEMENT_SECONDS)
            if not row:
                _log.error("epoch %s is fenced", self._epoch)
                self.fenced.set()
                return
            policy, blueprint = int(row[0]), int(row[1])
            self._compare_clocks(float(row[2]))
            if self._is_new_connection and self._signature and await self._has_lost_blueprint(connection, number):
                self.fenced.set()
                return
            newer_policy = self._is_new_connection or policy != self.policy.number
            newer_blueprint = blueprint > number and (
                blueprint != self._refused_blueprint or asked_at >= self._blueprint_retry_at
            )
            if newer_policy:
                await self._load_policy(connection, self.catalog)
            if newer_blueprint:
                await self._load_blueprint(connection, blueprint)
            # also where policy has changed again while it was loaded: with a change every second and a PostgreSQL that
            # takes longer to load one, a policy without changes would never be seen
            self._confirmed = asked_at, at
            self._log_connection()
            self.is_undeclared = blueprint == 0 and self.catalog is None
            if self.catalog is not None:
                self.loaded.set()
            if not newer_policy and not newer_blueprint:
                break
        if asked_at - self._slow_refresh_at >= _SLOW_SECONDS:
            self._slow_refresh_at = asked_at
            await self._refresh_figures(connection)

    async def _refresh_figures(self, connection: Connection) -> None:
        """Publish health, and refresh budgets and people. If a statement takes too long they are old for a while, and
        live policy is followed all the same: a new connection would load all of it again."""
        try:
            await self._publish_health(connection)
            if self.catalog is not None:
                declared, keys = self.catalog.blueprint.budgets, self.policy.keys
                await self.remaining_budgets.refresh(connection, declared, keys, STATEMENT_SECONDS)
            await self._load_people(connection)
        except TimeoutError:
            self._slow_refresh_at += _SLOW_RETRY_SECONDS
            self._figures_log.record_failure("remaining budgets and people are not refreshed: PostgreSQL is slow")
        else:
            self._figures_log.record_success()

    def _compare_clocks(self, time_there: float) -> None:
        """Log when PostgreSQL's clock (seconds since the epoch) begins to differ: nothing else explains why a key or a
        budget ends early or late."""
        ahead = self._clock.seconds() - time_there
        differ = abs(ahead) > WARN_SECONDS
        if differ and not self._clocks_differ:
            _log.warning(
                "this machine's clock is %d s %s PostgreSQL's: keys, budgets and prices begin and end by it, and so do "
                "limits from ten minutes ahead, or a day behind, on; set both right",
                abs(ahead), "ahead of" if ahead > 0 else "behind",
            )  # fmt: skip
        self._clocks_differ = differ

    async def _has_lost_blueprint(self, connection: Connection, number: int) -> bool:
        """Whether the database does not have the current blueprint: it may give its number to another one, which this
        worker would take for its own."""
        rows = await _fetch(connection, _SIGNED, (number,))
        if rows and rows[0][0] == self._signature:
            return False
        _log.error(
            "blueprint %d is not in the database, which was restored or lost what was committed last: this worker "
            "starts anew", number,
        )  # fmt: skip
        return True

    async def _load_policy(self, connection: Connection, catalog: Catalog | None) -> None:
        """Load everything in one snapshot of the database, so that the number fits the rows; of groups what `catalog`
        needs."""
        await _execute(connection, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        number = await policy_store.load_number(connection, LOAD_SECONDS)
        known = EMPTY_POLICY if self._is_new_connection else self.policy
        changes = await key_store.load_changes(connection, known, number, LOAD_SECONDS)
        now = self._clock.seconds()
        is_drop_due = now - self._keys_dropped_at > _DAY_SECONDS
        ended_before = now - key_store.KEPT_AFTER_END_S if is_drop_due else float("-inf")
        keys = await key_store.load_keys(connection, known, changes, LOAD_SECONDS, ended_before=ended_before)
        if is_drop_due and keys is not known.keys:
            self._keys_dropped_at = now
        people, active = await key_store.load_people(connection, known, changes, LOAD_SECONDS)
        rows = await policy_store.load_rows(
            connection, _needed_groups(catalog), LOAD_SECONDS, with_groups_of_people=_caches_by_group(catalog)
        )
        own_stops = list(self._own_stops)
        stop_calls = [UUID(call) for scope in own_stops for call in self._own_stops[scope]]
        recorded = await policy_store.load_recorded_stops(connection, own_stops, stop_calls, LOAD_SECONDS)
        await _execute(connection, "COMMIT")
        self._is_new_connection = False
        self._database_kills = rows.kills
        self._drop_recorded_stops(recorded)
        self.policy = Policy(
            number=number,
            keys=keys,
            people=people,
            active=active,
            kills=self._kills(keys),
            cleared=rows.cleared,
            groups=rows.groups,
            members=rows.members,
            severed=with_lines(rows.severed, keys),
            exceptions=rows.exceptions,
            experiments=rows.experiments or None,
            parts=rows.parts,
        )
        self._announce_policy()

    async def _load_blueprint(self, connection: Connection, number: int) -> None:
        """Load a newer blueprint whose signature is valid and that this program can serve; any other is refused, logged
        as an error, and the old one stays. A refused one is tried again after a while."""
        rows = await _fetch(connection, _BLUEPRINT, (number,))
        if not rows:
            return
        _, held, signature = rows[0]
        body = bytes(held)
        try:
            # off the loop: with thousands of workloads it takes a second
            newer = await asyncio.to_thread(_decode_catalog, self._home, body, signature, number)
        except Exception as error:  # noqa: BLE001 -- a newer program may declare what this one makes nothing of
            if number != self._refused_blueprint:
                _log.error("blueprint %d is refused: %s: %s", number, error.__class__.__name__, error)
            self._refused_blueprint = number
            self._blueprint_retry_at = self._clock.monotonic() + _BLUEPRINT_RETRY_SECONDS
            return
        if self.catalog is None or number > self.catalog.number:
            if _needed_groups(newer) or (_caches_by_group(newer) and not _caches_by_group(self.catalog)):
                # before the blueprint is taken up, so that nobody is refused because a group is not known yet
                await self._load_policy(connection, newer)
            self.catalog, self._signature = newer, signature
            self._slow_refresh_at = float("-inf")
            if self.on_blueprint is not None:
                self.on_blueprint(newer)

    async def _publish_health(self, connection: Connection) -> None:
        """Publish how this worker sees the deployments, if it has changed."""
        health = self.health()
        if health != self._published_health:
            await _execute(connection, _HEALTH, (json.dumps(health), self._epoch), STATEMENT_SECONDS)
            self._published_health = health

    async def _load_people(self, connection: Connection) -> None:
        """Load who used the workloads with a limit of people, at any worker; up to date within a second or so."""
        if self.catalog is None:
            return
        limited = [w.name for w in self.catalog.blueprint.workloads if w.people is not None]
        if limited:
            rows = await _fetch(connection, _USERS, (limited, PEOPLE_DAYS), STATEMENT_SECONDS)
            self._users = self._merge_people(limited, rows)

    def _merge_people(self, limited: Sequence[str], rows: Rows) -> dict[str, set[str]]:
        """The people in `rows`, and those who made calls here within the period; earlier ones are dropped."""
        since, seen = self._clock.seconds() - PEOPLE_DAYS * _DAY_SECONDS, self._seen_here
        self._seen_here = {
            workload: {person: at for person, at in seen.get(workload, {}).items() if at >= since}
            for workload in limited
        }
        found = {workload: set(people) for workload, people in self._seen_here.items()}
        for workload, person in rows:
            found[workload].add(person)
        return found

    # `kill` beside a gateway without PostgreSQL -----------------------------------------------------------------------

    def _read_file_kills(self) -> frozenset[str]:
        try:
            with open(self._kill_file, "rb") as file:  # noqa: PTH123 -- ten times a second, and nearly always in vain
                held = json.load(file)
            self._file_kills = frozenset(str(entry["scope"]) for entry in held)
        except FileNotFoundError:
            self._file_kills = frozenset()
        except (OSError, ValueError, KeyError, TypeError):
            if not self._kill_file_failed:
                _log.error(
                    "%s cannot be read: stopped is %s", self._kill_file, ", ".join(self._file_kills) or "nothing"
                )
            self._kill_file_failed = True
            return self._file_kills
        self._kill_file_failed = False
        return self._file_kills

    def _kills(self, keys: Mapping[bytes, KeyEntry]) -> frozenset[str]:
        scopes = self._database_kills | self._read_file_kills() | frozenset(self._own_stops)
        return self._stopped_keys.with_lines(scopes, keys)

    def _drop_recorded_stops(self, recorded: RecordedStops) -> None:
        """Forget own stops that live policy has taken over: those in force there, and those that it had for the same
        call, even if they were lifted before this worker saw them. Of a call in the ledger it was decided there: if its
        workload was stopped already, for a call of another worker, no stop names it."""
        for scope in self._database_kills:
            self._own_stops.pop(scope, None)
        for scope, calls in list(self._own_stops.items()):
            reasons = [reason for stopped, reason in recorded.stops if stopped == scope]
            remaining = {
                call for call in calls - recorded.shipped_calls if not any(call in reason for reason in reasons)
            }
            if remaining:
                self._own_stops[scope] = remaining
            else:
                del self._own_stops[scope]

    def read_kill_file(self) -> None:
        """Take up HOME/run/kill.json; also called by the worker's watch, since a hanging database may hold up `run`."""
        kills = self._kills(self.policy.keys)
        if kills != self.policy.kills:
            self.policy = replace(self.policy, kills=kills)
            self._announce_policy()


async def _fetch(
    connection: Connection, statement: LiteralString, parameters: Sequence[Any] = (), seconds: float = LOAD_SECONDS
) -> Rows:
    return await fetched(connection, statement, parameters, seconds)


async def _execute(
    connection: Connection, statement: LiteralString, parameters: Sequence[Any] = (), seconds: float = LOAD_SECONDS
) -> None:
    async with patient(seconds):
        await connection.execute(statement, parameters)


def _decode_catalog(home: Home, body: bytes, signature: str, number: int) -> Catalog:
    """A stored blueprint, indexed, without what only planners need. Raises if it cannot be served."""
    if not artifact.verify_signature(body, signature, load_public(home, "blueprint").public_bytes_raw()):
        raise ValueError("the signature does not fit")
    blueprint = artifact.decode(body)
    if blueprint.number != number:
        raise ValueError(f"it says that it is number {blueprint.number}")
    placements = [structs.replace(each, alternatives=[]) for each in blueprint.placements]
    blueprint = structs.replace(blueprint, placements=placements)
    return replace(index(blueprint), gate=gate_of(blueprint), approved=approved_of(blueprint))


def _needed_groups(catalog: Catalog | None) -> list[str]:
    """Groups and teams whose members must be known, for grants and for rules."""
    if catalog is None:
        return []
    named = groups_of(catalog.blueprint) if catalog.granted_workloads else frozenset()
    return sorted(named | catalog.gate.rules.groups if catalog.gate is not None else named)


def _caches_by_group(catalog: Catalog | None) -> bool:
    """Whether any workload shares answers among people of the same groups."""
    plans = catalog.plans.values() if catalog is not None else ()
    return any(plan.workload.cache is not None and plan.workload.cache.scope == "group" for plan in plans)
