"""Writes calls and attempts that ended: rows of the ledger and entries of the audit log, in one transaction.

Which ones have ended is the shipper's to say.
"""

from __future__ import annotations

from collections.abc import Set
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid5

import psycopg

from groundplan.blueprint.artifact import decode
from groundplan.blueprint.model import Rates
from groundplan.core.audit.entry import Acting, Entry, gateway_actor
from groundplan.core.audit.store import copy_new, keys_made_acting, record_many
from groundplan.core.audit.subject import SubjectKeys
from groundplan.core.clock import Clock
from groundplan.core.home import Home
from groundplan.gateway.journal import archived_store, late_journal_store, ledger_store, over_bound
from groundplan.gateway.journal.ledger_rows import as_uuid, attempt_row, call_entry, call_row, charge_rows
from groundplan.gateway.journal.ledger_store import Conn
from groundplan.gateway.journal.recovery import Attempt, CallState
from groundplan.gateway.telemetry.trace_export import TraceExport

_REMEMBERED = 16
"""Blueprints: each has some hundred kilobytes of thousands of workloads, and there is one for each change."""


class LedgerWriter:
    """What all epochs of one HOME share: the clock, the keys that seal personal fields, teams and prices."""

    def __init__(self, home: Home, clock: Clock, traces: TraceExport | None = None) -> None:
        self._home = home
        self.traces = traces
        self._clock = clock
        self._keys: SubjectKeys | None = None
        self._teams: dict[int, dict[str, str | None]] = {}
        self._rates: dict[int, dict[str, Rates]] = {}
        self._demo_keys: set[str] = set()
        self._acting: dict[str, Acting] = {}
        """Of the keys seen in a demo, those that were made while acting as somebody."""

    def now_ms(self) -> int:
        """Wall time in milliseconds, as in the journal."""
        return int(self._clock.now().timestamp() * 1000)

    def write(
        self, conn: Conn, epoch: UUID, ended: list[CallState], closed: list[Attempt], opened: list[Attempt]
    ) -> None:
        """Rows and audit entries of calls and attempts, in the caller's transaction."""
        self._learn(conn, {a.reservation.blueprint for a in closed} | {call.source.blueprint for call in ended})
        self._learn_acting(conn, ended)
        shown = [attempt_row(a, epoch, self._rates_of) for a in closed if a.shown]
        attempts = [attempt_row(a, epoch, self._rates_of) for a in [*closed, *opened] if not a.shown]
        charges = [row for attempt in closed for row in charge_rows(attempt)]
        calls = [call_row(call, epoch, self._team, self._acting) for call in ended]
        left = archived_store.left(conn, calls, attempts, self._clock.now())
        facts = (
            (ledger_store.INSERT_ATTEMPTS, left.attempts(attempts)),
            (ledger_store.INSERT_CHARGES, left.attempts(charges)),
            (ledger_store.INSERT_CALLS, left.calls(calls)),
        )
        entries = left.entries(self._entries(conn, epoch, ended))
        gone = left.gone()
        before = late_journal_store.here(conn, gone) if gone else {}
        ledger_store.insert_rows(conn, ledger_store.INSERT_ATTEMPTS, shown)
        try:
            with conn.transaction():
                for insert, rows in facts:
                    ledger_store.copy_new(conn, insert, rows)
                copy_new(conn, entries)
        except psycopg.errors.UniqueViolation:  # after a restart it is not known what was shown as open, or kept
            for insert, rows in facts:
                ledger_store.insert_rows(conn, insert, rows)
            record_many(conn, entries)
            self._set_right(conn, epoch, [*{UUID(row[0]) for row in (*calls, *attempts, *shown)}])
        if gone:
            self._add_to_archived(
                conn, epoch, closed, {id: before[id][0] if id in before else Decimal() for id in gone}
            )
        over_bound.stop(conn, epoch, closed)

    def _set_right(self, conn: Conn, epoch: UUID, calls: list[UUID]) -> None:
        """Of calls that may have been told before: what attempts cost of which not all was known then, as of one that
        was written off with the HOME that has its journal."""
        for id, workload, usd, attempts in late_journal_store.set_right(conn, calls):
            detail = {"call": str(id), "cost_usd": str(usd), "attempts": attempts}
            self._enter(conn, epoch, uuid5(id, f"costs {usd}"), workload, detail)

    def _add_to_archived(self, conn: Conn, epoch: UUID, closed: list[Attempt], before: dict[UUID, Decimal]) -> None:
        """The same of calls that have left: what their attempts that are here cost more than `before` is in sums alone,
        as of a call that was cut off, which is how it ended where a later journal tells more of it."""
        told: dict[bytes, CallState] = {}
        for each in closed:
            id = each.reservation.call
            told.setdefault(id, CallState(id, 0)).attempts[each.reservation.attempt] = each
        here = late_journal_store.here(conn, before)
        for id, call in told.items():
            usd, attempts = here.get(UUID(bytes=id), (Decimal(), []))
            more = usd - before.get(UUID(bytes=id), usd)
            if more:
                late_journal_store.add_to_sums(conn, call_row(call, epoch, self._team, self._acting), more)
                detail = {"call": str(UUID(bytes=id)), "more_usd": str(more), "attempts": attempts}
                entry = uuid5(UUID(bytes=id), f"costs {usd} after it left")
                self._enter(conn, epoch, entry, call.source.workload, detail)

    def _enter(self, conn: Conn, epoch: UUID, id: UUID, workload: str, detail: dict[str, Any]) -> None:
        actor = gateway_actor(epoch)
        record_many(conn, [Entry(id, self._clock.now(), "call.cost", actor, f"workload/{workload}", detail)])

    def _entries(self, conn: Conn, epoch: UUID, ended: list[CallState]) -> list[Entry]:
        """The audit entries of calls, with whom they are about sealed once for each."""
        sealed: dict[UUID, str] = {}

        def seal(person: UUID, text: str) -> str:
            if person not in sealed:
                sealed[person] = self._sealing().seal(conn, person, text)
            return sealed[person]

        return [call_entry(call, epoch, seal, self._acting) for call in ended]

    def _sealing(self) -> SubjectKeys:
        if self._keys is None:
            self._keys = SubjectKeys.of(self._home)
        return self._keys

    def _learn_acting(self, conn: Conn, ended: list[CallState]) -> None:
        """Ask once about each key, and only about keys of a demo: elsewhere nobody acts as somebody else."""
        sources = [call.source for call in ended]
        new = {source.key for source in sources if source.demo} - self._demo_keys
        if keys := [key for text in sorted(new) if (key := as_uuid(text)) is not None]:
            self._acting.update(keys_made_acting(conn, keys))
        self._demo_keys |= new

    def _learn(self, conn: Conn, numbers: Set[int]) -> None:
        """What blueprints say of teams and prices, once; of older ones than the last few it is forgotten, until a call
        of such a one comes."""
        for number in numbers - self._teams.keys():
            if (body := ledger_store.blueprint_body(conn, number)) is not None:
                blueprint = decode(body)
                self._teams[number] = {workload.name: workload.team for workload in blueprint.workloads}
                self._rates[number] = {deployment.name: deployment.rates for deployment in blueprint.deployments}
        for number in sorted(self._teams.keys() - numbers)[: max(0, len(self._teams) - _REMEMBERED)]:
            del self._teams[number], self._rates[number]

    def _rates_of(self, number: int, deployment: str) -> Rates | None:
        return self._rates.get(number, {}).get(deployment)

    def _team(self, number: int, workload: str) -> str | None:
        return self._teams.get(number, {}).get(workload)
