"""The state of an epoch, folded from its journal record by record. Pure: the shipper feeds it and writes the results.

A reservation *holds* what its charges take. A retry that inherits has charges of 0: it stands for the hold of the
latest attempt of the same call that was settled `not_billed`, and the gateway journals that settlement before the
retry. So at every moment an open attempt is backed by exactly one hold, and settling every open attempt of a crash at
its own bound never charges a budget more than its slice held. A settled attempt is charged its cost in every budget
that its reservation names.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Final

import msgspec

from groundplan.gateway.journal.records import Record
from groundplan.ledger.model import Charge, Finish, Release, Reservation, Settlement

Key = tuple[str, str]
"""(budget, period)"""
NOWHERE: Final = sys.maxsize
"""Segment number of calls that are known from the ledger alone: no segment is kept for them."""


class Attempt(msgspec.Struct):
    """One upstream attempt. `settlement` is None while it is open."""

    reservation: Reservation
    settlement: Settlement | None = None
    is_crashed: bool = False
    is_written_open: bool = False
    """Whether the ledger has it as open."""
    is_written_closed: bool = False
    """Whether the ledger has its final state."""

    @property
    def cost(self) -> int:
        """Picodollars: the settled cost, the bound after a crash, 0 while open."""
        if self.settlement is not None:
            return self.settlement.cost
        return self.reservation.bound if self.is_crashed else 0

    @property
    def inherits(self) -> bool:
        """Whether it holds nothing of its own. Also true of what is free, which changes no sum."""
        return not any(charge.amount for charge in self.reservation.charges)

    @property
    def is_open(self) -> bool:
        """Whether it is neither settled nor closed by a crash."""
        return self.settlement is None and not self.is_crashed


class CallState(msgspec.Struct):
    """All that is known of one call."""

    call: bytes
    segment: int
    """Segment of its first record: kept until its calls have ended."""
    attempts: dict[int, Attempt] = msgspec.field(default_factory=dict)
    finish: Finish | None = None
    tool_use: Reservation | None = None
    """A use of a tool that was about to be made; `model` names the tool."""
    has_kept_attempts: bool = False
    """Whether the ledger keeps its open attempts (`open_call_store`)."""

    @property
    def describing_record(self) -> Finish | Reservation:
        """The record that describes it: its finish, or else its first."""
        return self.finish or self.tool_use or next(iter(self.attempts.values())).reservation

    @property
    def has_ended(self) -> bool:
        """Whether it is finished and has no open attempt."""
        if self.finish is None:
            return False
        for attempt in self.attempts.values():  # noqa: SIM110 -- asked of every call several times
            if attempt.settlement is None and not attempt.is_crashed:
                return False
        return True

    @property
    def cost(self) -> int:
        cost = 0
        for attempt in self.attempts.values():
            cost += attempt.cost
        return cost

    @property
    def reserved(self) -> int:
        """The most that was ever set aside for it: the bounds of attempts that did not inherit, or of the dearest that
        inherited from each, which was set aside with it."""
        if len(self.attempts) == 1:
            return next(iter(self.attempts.values())).reservation.bound
        whole = most = 0
        for _, attempt in sorted(self.attempts.items()):
            if not attempt.inherits:
                whole, most = whole + most, 0
            most = max(most, attempt.reservation.bound)
        return whole + most


@dataclass(slots=True)
class EpochState:
    """The calls that have not ended, and totals by (budget, period)."""

    calls: dict[bytes, CallState] = field(default_factory=dict)
    spent: dict[Key, int] = field(default_factory=dict)
    """Costs of settled attempts, in picodollars."""
    released: dict[Key, int] = field(default_factory=dict)
    releases: dict[bytes, Release] = field(default_factory=dict)
    """Releases that the shipper has not dropped after writing them."""

    def apply(self, record: Record, segment: int = 1) -> CallState | None:
        """Add one record, in the order of the journal. Returns the call that it belongs to, None for a release."""
        if isinstance(record, Release):
            if record.id not in self.releases:
                self.releases[record.id] = record
                self._add(self.released, Charge(record.budget, record.period, 0), record.amount)
            return None
        call = self.calls.get(record.call)
        if call is None:
            call = self.calls[record.call] = CallState(record.call, segment)
        elif segment < call.segment:
            call.segment = segment
        if isinstance(record, Reservation):
            self._reserve(call, record)
        elif isinstance(record, Settlement):
            self._settle(call, record)
        else:
            call.finish = record
        return call

    def add_known_attempt(self, attempt: Attempt) -> None:
        """Add an attempt that the ledger keeps of a call that has not ended, before or instead of the journal."""
        id = attempt.reservation.call
        call = self.calls.setdefault(id, CallState(id, NOWHERE, has_kept_attempts=True))
        call.attempts[attempt.reservation.attempt] = attempt

    def open_attempts(self) -> list[Attempt]:
        """Return attempts without a settlement."""
        return [attempt for call in self.calls.values() for attempt in call.attempts.values() if attempt.is_open]

    def settle_crashed(self) -> list[CallState]:
        """Settle every open attempt of a dead process at its bound. Returns the calls that had not ended."""
        for attempt in self.open_attempts():
            attempt.is_crashed = True
            for charge in attempt.reservation.charges:
                self._add(self.spent, charge, attempt.reservation.bound)
        return list(self.calls.values())

    def drop_call(self, call: bytes) -> None:
        """Drop a call that has ended and is in the ledger."""
        self.calls.pop(call, None)

    def _reserve(self, call: CallState, record: Reservation) -> None:
        if not record.deployment:
            call.tool_use = record
            return
        if record.attempt not in call.attempts:
            call.attempts[record.attempt] = Attempt(record)

    def _settle(self, call: CallState, record: Settlement) -> None:
        attempt = call.attempts.get(record.attempt)
        if attempt is not None and attempt.is_open:  # None: its reservation was lost to damage
            attempt.settlement = record
            for charge in attempt.reservation.charges:
                self._add(self.spent, charge, record.cost)

    @staticmethod
    def _add(book: dict[Key, int], charge: Charge, amount: int) -> None:
        key = (charge.budget, charge.period)
        book[key] = book.get(key, 0) + amount
