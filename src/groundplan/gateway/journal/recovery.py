"""What an epoch's journal says, folded record by record. Pure: the shipper feeds it and writes what comes out.

A reservation *holds* what its charges take. A retry that inherits has charges of 0: it stands for the hold of the
latest attempt of the same call that was settled `not_billed`, and the gateway journals that settlement before the
retry. So at every moment an open attempt is backed by exactly one hold, and settling every open attempt of a crash at
its own bound never charges a budget more than its slice held. A settled attempt is charged its cost in every budget
that its reservation names.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import msgspec

from groundplan.gateway.journal.records import Record
from groundplan.ledger.model import Charge, Finish, Release, Reservation, Settlement

Key = tuple[str, str]
"""(budget, period)"""
NOWHERE: Final = sys.maxsize
"""The segment of what is known from the ledger alone: none is kept for it."""


class Attempt(msgspec.Struct):
    """One upstream try. `settlement` is None while it is open."""

    reservation: Reservation
    settlement: Settlement | None = None
    crashed: bool = False
    shown: bool = False
    """The ledger has it as open."""
    kept: bool = False
    """The ledger has it as it is now, which never changes."""

    @property
    def cost(self) -> int:
        """Picodollars: what was settled, the bound after a crash, 0 while open."""
        if self.settlement is not None:
            return self.settlement.cost
        return self.reservation.bound if self.crashed else 0

    @property
    def inherits(self) -> bool:
        """Whether it holds nothing of its own. Also of what is free, which changes no sum."""
        return not any(charge.amount for charge in self.reservation.charges)

    @property
    def is_open(self) -> bool:
        """Neither settled nor given up by a crash."""
        return self.settlement is None and not self.crashed


class CallState(msgspec.Struct):
    """All that is known of one call."""

    call: bytes
    segment: int
    """Where its first record is: a segment is kept until its calls have ended."""
    attempts: dict[int, Attempt] = msgspec.field(default_factory=dict)
    finish: Finish | None = None
    use: Reservation | None = None
    """Of a tool, which was about to be made; `model` says which."""
    noted: bool = False
    """The ledger keeps what is known of it until it ends."""

    @property
    def source(self) -> Finish | Reservation:
        """What tells of it: its end, or else what it began with."""
        return self.finish or self.use or next(iter(self.attempts.values())).reservation

    @property
    def ended(self) -> bool:
        """Finished, and nothing of it is open."""
        if self.finish is None:
            return False
        for attempt in self.attempts.values():  # noqa: SIM110 -- asked of every call several times
            if attempt.settlement is None and not attempt.crashed:
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
        """The most that was ever set aside for it: of each attempt that did not inherit its bound, or that of whichever
        inherited from it, which was set aside with it."""
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
    """Those that whoever took them over has not dropped."""
    unmatched: int = 0
    """Settlements whose reservation is not in the journal: it was lost to damage."""

    def apply(self, record: Record, segment: int = 1) -> CallState | None:
        """Take one record in, in the order of the journal. Returns the call that it belongs to."""
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

    def know(self, attempt: Attempt) -> None:
        """Take in what the ledger keeps of a call that has not ended, before the journal, or in its place."""
        id = attempt.reservation.call
        call = self.calls.setdefault(id, CallState(id, NOWHERE, noted=True))
        call.attempts[attempt.reservation.attempt] = attempt

    def open_attempts(self) -> list[Attempt]:
        """Reservations without a settlement."""
        return [attempt for call in self.calls.values() for attempt in call.attempts.values() if attempt.is_open]

    def crash(self) -> list[CallState]:
        """The process is dead: settle every open attempt at its bound. Returns the calls that had not ended."""
        for attempt in self.open_attempts():
            attempt.crashed = True
            for charge in attempt.reservation.charges:
                self._add(self.spent, charge, attempt.reservation.bound)
        return list(self.calls.values())

    def forget(self, call: bytes) -> None:
        """Drop a call that has ended and was taken over by the ledger."""
        self.calls.pop(call, None)

    def _reserve(self, call: CallState, record: Reservation) -> None:
        if not record.deployment:
            call.use = record
            return
        if record.attempt not in call.attempts:
            call.attempts[record.attempt] = Attempt(record)

    def _settle(self, call: CallState, record: Settlement) -> None:
        attempt = call.attempts.get(record.attempt)
        if attempt is None:
            self.unmatched += 1
        elif attempt.is_open:
            attempt.settlement = record
            for charge in attempt.reservation.charges:
                self._add(self.spent, charge, record.cost)

    @staticmethod
    def _add(book: dict[Key, int], charge: Charge, amount: int) -> None:
        key = (charge.budget, charge.period)
        book[key] = book.get(key, 0) + amount


def fold(records: Iterable[Record]) -> EpochState:
    """The state after all records of an epoch, without a crash."""
    state = EpochState()
    for record in records:
        state.apply(record)
    return state
