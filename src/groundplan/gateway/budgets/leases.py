"""The slices of budgets and limits that one gateway worker holds, and what is reserved from them. Pure: no input or
output, no clock.

For each (name, period): granted = available + reserved + spent + released. Amounts are picodollars for budgets, and
requests, tokens or calls for quotas. `available` goes below zero only where a provider billed more than the bound it
was given, or a budget is not hard; what is then owed comes out of the next grant. Where grants come from and how a
crash is recovered are elsewhere (`lender`, `recovery`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from groundplan.core.errors import Conflict
from groundplan.gateway.budgets import periods
from groundplan.ledger.model import Charge

Token = tuple[bytes, int]
"""(call, attempt)"""
Key = tuple[str, str]
"""(budget or quota, period)"""

REQUESTS, TOKENS, CONCURRENT, COST = "requests", "tokens", "concurrent", "cost"
MEASURED = (TOKENS, COST)
"""What is known only once an attempt is over; until then the most that it can be is held."""


@dataclass(frozen=True, slots=True)
class Quota:
    """One number of a declared limit, for those whom it covers together: at most `limit` a `period`."""

    name: str
    """TYPE/LIMIT, with /ID where each user or key has one of their own; no budget's name has a slash"""
    type: str
    """requests | tokens | concurrent | cost (picodollars)"""
    limit: int
    period: str
    """minute | hour | day | week | month | quarter | year, now for concurrent calls"""
    declared: str
    """Name of the limit."""
    covers: str

    @property
    def family(self) -> str:
        """The beginning of `name` that it shares with those of other users and keys."""
        return "/".join(self.name.split("/", 2)[:2])

    def ends(self, span: str) -> datetime | str:
        """When a span of it is over, as PostgreSQL takes it."""
        return periods.ends(span) or "infinity"


def is_quota(name: str) -> bool:
    """Whether a slice of this name is of a limit, not of a budget."""
    return name.startswith(("requests/", "tokens/", "concurrent/", "cost/"))


class Slices:
    """What this worker may still use, by name and period."""

    __slots__ = ("_available", "_open", "_released", "_spent", "on_freed", "used")

    def __init__(self) -> None:
        self._available: dict[Key, int] = {}
        self._spent: dict[Key, int] = {}
        self._released: dict[Key, int] = {}
        self._open: dict[Token, Sequence[Charge]] = {}
        self.on_freed: Callable[[Key], None] | None = None
        """Called with what a settlement gave something back to."""
        self.used: set[Key] = set()
        """What settlements charged since somebody last looked, who empties it."""

    @property
    def open_count(self) -> int:
        """Reservations that are not settled."""
        return len(self._open)

    def grant(self, budget: str, period: str, amount: int) -> None:
        """Add to a slice what PostgreSQL granted."""
        key = (budget, period)
        self._available[key] = self._available.get(key, 0) + amount

    def available(self, budget: str, period: str) -> int:
        """What can be reserved now."""
        return self._available.get((budget, period), 0)

    def reserve(self, token: Token, charges: Sequence[Charge], soft: Collection[str] = ()) -> str | None:
        """Take every charge or none. None when taken, else the name of the first that is short; those named in `soft`
        never are.

        Raises `Conflict` when the token already holds a reservation.
        """
        if token in self._open:
            raise Conflict(
                "the attempt already holds a reservation", code="reservation_exists", hint="Use a new attempt."
            )
        available = self._available
        for taken, charge in enumerate(charges):
            key = (charge.budget, charge.period)
            left = available.get(key, 0) - charge.amount
            if left < 0 and charge.budget not in soft:
                for earlier in charges[:taken]:
                    available[earlier.budget, earlier.period] += earlier.amount
                return charge.budget
            available[key] = left
        self._open[token] = charges
        return None

    def held(self, token: Token) -> Sequence[Charge]:
        """What a reservation took. Raises `Conflict` if there is none."""
        charges = self._open.get(token)
        if charges is None:
            raise _unknown()
        return charges

    def pass_on(self, old_token: Token, new_token: Token) -> None:
        """A retry takes over the reservation of an attempt that was certainly not billed. Raises `Conflict` if there is
        none."""
        if new_token in self._open:
            raise Conflict(
                "the attempt already holds a reservation", code="reservation_exists", hint="Use a new attempt."
            )
        self._open[new_token] = self._take(old_token)

    def part(self, token: Token, other: Token, kept: int) -> None:
        """The first `kept` charges of a reservation stay with it; the others are those of `other` from now on."""
        charges = self._open[token]
        self._open[token], self._open[other] = charges[:kept], charges[kept:]

    def settle(self, token: Token, cost: int) -> None:
        """Charge the cost to every budget of the reservation and give the rest back. Raises `Conflict` if there is
        none."""
        available, spent = self._available, self._spent
        for charge in self._take(token):
            key = (charge.budget, charge.period)
            available[key] += charge.amount - cost
            spent[key] = spent.get(key, 0) + cost
            self.used.add(key)
            if self.on_freed is not None and charge.amount > cost:
                self.on_freed(key)

    def settle_each(self, token: Token, used: Sequence[int]) -> None:
        """As `settle`, with what each charge of the reservation turned out to be, in its order."""
        available, spent = self._available, self._spent
        for charge, amount in zip(self._take(token), used, strict=True):
            key = (charge.budget, charge.period)
            available[key] = available.get(key, 0) + charge.amount - amount
            spent[key] = spent.get(key, 0) + amount
            self.used.add(key)
            if self.on_freed is not None and charge.amount > amount:
                self.on_freed(key)

    def forget(self, ended: Iterable[Key]) -> list[Key]:
        """Drop all that is known of periods that have ended, and return them; those of which something is reserved
        stay."""
        held = self.reserved_each()
        gone = [key for key in ended if not held.get(key)]
        for key in gone:
            for book in (self._available, self._spent, self._released):
                book.pop(key, None)
            self.used.discard(key)
        return gone

    def release(self, budget: str, period: str, keep: int = 0) -> int:
        """Take what is idle beyond `keep` out of the slice and return it; 0 when there is nothing."""
        key = (budget, period)
        amount = self._available.get(key, 0) - keep
        if amount <= 0:
            return 0
        self._available[key] -= amount
        self._released[key] = self._released.get(key, 0) + amount
        return amount

    def reserved(self, budget: str, period: str) -> int:
        """What open reservations hold. Walks over all of them: not for the request path."""
        return sum(
            charge.amount
            for charges in self._open.values()
            for charge in charges
            if charge.budget == budget and charge.period == period
        )

    def reserved_each(self) -> dict[Key, int]:
        """The same of all of which anything is reserved, in one walk."""
        held: dict[Key, int] = {}
        for charges in self._open.values():
            for charge in charges:
                key = (charge.budget, charge.period)
                held[key] = held.get(key, 0) + charge.amount
        return held

    def spent(self, budget: str, period: str) -> int:
        """What settlements charged since this worker started."""
        return self._spent.get((budget, period), 0)

    def granted(self, budget: str, period: str) -> int:
        """All that was ever granted to this worker."""
        key = (budget, period)
        return (
            self._available.get(key, 0)
            + self.reserved(budget, period)
            + self._spent.get(key, 0)
            + self._released.get(key, 0)
        )

    def released(self, budget: str, period: str) -> int:
        """All that this worker ever gave back."""
        return self._released.get((budget, period), 0)

    def granted_keys(self) -> list[Key]:
        """Every (budget, period) that was ever granted."""
        return list(self._available)

    def _take(self, token: Token) -> Sequence[Charge]:
        charges = self._open.pop(token, None)
        if charges is None:
            raise _unknown()
        return charges


def _unknown() -> Conflict:
    return Conflict("the attempt holds no reservation", code="reservation_unknown", hint="Settle each attempt once.")
