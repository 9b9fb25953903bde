"""Writes ended calls and attempts: rows of the ledger and entries of the audit log, in one transaction.

The shipper decides which ones have ended.
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
from groundplan.core.audit.store import copy_entries, keys_made_acting, record_many
from groundplan.core.audit.subject import SubjectKeys
from groundplan.core.clock import Clock
from groundplan.core.home import Home
from groundplan.gateway.journal import archived_store, late_journal_store, ledger_store, over_bound
from groundplan.gateway.journal.ledger_rows import as_uuid, attempt_row, call_entry, call_row, charge_rows
from groundplan.gateway.journal.ledger_store import Conn
from groundplan.gateway.journal.recovery import Attempt, CallState
from groundplan.gateway.telemetry.trace_export import TraceExport

_REMEMBERED = 16
"""Blueprints kept in memory: each has some hundred kilobytes of thousands of workloads; each change makes a new one."""


class LedgerWriter:
    """Writes for all epochs of one HOME: has the clock, the keys that seal personal fields, teams and prices."""

    def __init__(self, home: Home, clock: Clock, traces: TraceExport | None = None) -> None:
        self._home = home
        self.traces = traces
        self._clock = clock
        self._keys: SubjectKeys | None = None
        self._teams: dict[int, dict[str, str | None]] = {}
        self._rates: dict[int, dict[str, Rates]] = {}
        self._demo_keys: set[str] = set()
        self._acting: dict[str, Acting] = {}
        """Among the demo keys seen, those that were created while acting as another person."""

    def now_ms(self) -> int:
        """Return wall time in milliseconds, as in the journal."""
        return int(self._clock.now().timestamp() * 1000)

    def write(
        self, conn: Conn, epoch: UUID, ended: list[CallState], closed: list[Attempt], opened: list[Attempt]
    ) -> None:
        """Write rows and audit entries of calls and attempts, in the caller's transaction."""
        self._load_blueprints(
            conn, {a.reservation.blueprint for a in closed} | {call.describing_record.blueprint for call in ended}
        )
        self._load_acting(conn, ended)
        shown = [attempt_row(a, epoch, self._rates_of) for a in closed if a.is_written_open]
        attempts = [attempt_row(a, epoch, self._rates_of) for a in [*closed, *opened] if not a.is_written_open]
        charges = [row for attempt in closed for row in charge_rows(attempt)]
        calls = [call_row(call, epoch, self._team, self._acting) for call in ended]
        left = archived_store.archived_facts(conn, calls, attempts, self._clock.now())
        facts = (
            (ledger_store.INSERT_ATTEMPTS, left.without_archived_attempts(attempts)),
            (ledger_store.INSERT_CHARGES, left.without_archived_attempts(charges)),
            (ledger_store.INSERT_CALLS, left.without_archived_calls(calls)),
        )
        entries = left.without_archived_entries(self._entries(conn, epoch, ended))
        late_calls = left.call_ids()
        before = late_journal_store.call_costs(conn, late_calls) if late_calls else {}
        ledger_store.insert_rows(conn, ledger_store.INSERT_ATTEMPTS, shown)
        try:
            with conn.transaction():
                for insert, rows in facts:
                    ledger_store.copy_new(conn, insert, rows)
                copy_entries(conn, entries)
        except psycopg.errors.UniqueViolation:  # after a restart it is not known what was written as open, or settled
            for insert, rows in facts:
                ledger_store.insert_rows(conn, insert, rows)
            record_many(conn, entries)
            self._correct_costs(conn, epoch, [*{UUID(row[0]) for row in (*calls, *attempts, *shown)}])
        if late_calls:
            self._add_archived_costs(
                conn, epoch, closed, {id: before[id][0] if id in before else Decimal() for id in late_calls}
            )
        over_bound.stop_workloads(conn, epoch, closed)

    def _correct_costs(self, conn: Conn, epoch: UUID, calls: list[UUID]) -> None:
        """Correct the cost of calls that may have been written before with attempts that were not all known, as those
        written off with the HOME that has their journal."""
        for id, workload, usd, attempts in late_journal_store.correct_costs(conn, calls):
            detail = {"call": str(id), "cost_usd": str(usd), "attempts": attempts}
            self._record_cost_change(conn, epoch, uuid5(id, f"costs {usd}"), workload, detail)

    def _add_archived_costs(self, conn: Conn, epoch: UUID, closed: list[Attempt], before: dict[UUID, Decimal]) -> None:
        """Add to the sums what attempts of archived calls cost beyond `before`, as of a call that was cut off, which is
        how it ended where a later journal has more of it."""
        calls: dict[bytes, CallState] = {}
        for each in closed:
            id = each.reservation.call
            calls.setdefault(id, CallState(id, 0)).attempts[each.reservation.attempt] = each
        here = late_journal_store.call_costs(conn, before)
        for id, call in calls.items():
            usd, attempts = here.get(UUID(bytes=id), (Decimal(), []))
            more = usd - before.get(UUID(bytes=id), usd)
            if more:
                late_journal_store.add_to_sums(conn, call_row(call, epoch, self._team, self._acting), more)
                detail = {"call": str(UUID(bytes=id)), "more_usd": str(more), "attempts": attempts}
                entry = uuid5(UUID(bytes=id), f"costs {usd} after it left")
                self._record_cost_change(conn, epoch, entry, call.describing_record.workload, detail)

    def _record_cost_change(self, conn: Conn, epoch: UUID, id: UUID, workload: str, detail: dict[str, Any]) -> None:
        actor = gateway_actor(epoch)
        record_many(conn, [Entry(id, self._clock.now(), "call.cost", actor, f"workload/{workload}", detail)])

    def _entries(self, conn: Conn, epoch: UUID, ended: list[CallState]) -> list[Entry]:
        """Return the audit entries of calls, with each person sealed only once."""
        sealed: dict[UUID, str] = {}

        def seal(person: UUID, text: str) -> str:
            if person not in sealed:
                sealed[person] = self._subject_keys().seal(conn, person, text)
            return sealed[person]

        return [call_entry(call, epoch, seal, self._acting) for call in ended]

    def _subject_keys(self) -> SubjectKeys:
        if self._keys is None:
            self._keys = SubjectKeys.of(self._home)
        return self._keys

    def _load_acting(self, conn: Conn, ended: list[CallState]) -> None:
        """Look up each demo key once; elsewhere nobody acts as another person."""
        sources = [call.describing_record for call in ended]
        new = {source.key for source in sources if source.demo} - self._demo_keys
        if keys := [key for text in sorted(new) if (key := as_uuid(text)) is not None]:
            self._acting.update(keys_made_acting(conn, keys))
        self._demo_keys |= new

    def _load_blueprints(self, conn: Conn, numbers: Set[int]) -> None:
        """Load teams and prices of blueprints. Older ones than the last few are dropped until a call of one comes."""
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
