"""The slices of budgets and limits that one gateway worker holds, and what is reserved from them. Pure: no input or
output, no clock.

For each (name, period): granted = available + reserved + spent + released. Amounts are picodollars for budgets, and
requests, tokens or calls for quotas. `available` goes below zero only where a provider billed more than the bound it
was given, or a budget is not hard; what is then owed comes out of the next grant. Where grants come from and how a
crash is recovered are elsewhere (`grant_connection`, `recovery`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from groundplan.blueprint.model import Budget
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


class _Slice:
    """What this worker has of one (name, period)."""

    __slots__ = ("available", "elsewhere", "key", "released", "spent")

    def __init__(self, key: Key, elsewhere: int) -> None:
        self.key = key
        self.available = self.spent = self.released = 0
        self.elsewhere = elsewhere


class Slices:
    """What this worker may still use, by name and period."""

    __slots__ = ("_elsewhere", "_open", "_slices", "on_freed", "used", "watched")

    def __init__(self) -> None:
        self._slices: dict[Key, _Slice] = {}
        self._elsewhere: Mapping[Key, int] = {}
        self._open: dict[Token, tuple[Sequence[Charge], list[_Slice]]] = {}
        """What each reservation took, and the slice of each: a settlement need not look them up again, which stay as
        long as it is open."""
        self.on_freed: Callable[[Key], None] | None = None
        """Called with what is `watched` and a settlement gave something back to."""
        self.watched: set[Key] = set()
        """Of which somebody wants to know that. Nearly always empty, so that a settlement need not ask for each."""
        self.used: set[Key] = set()
        """What settlements charged since somebody last looked, who empties it."""

    @property
    def open_count(self) -> int:
        """Reservations that are not settled."""
        return len(self._open)

    def grant(self, budget: str, period: str, amount: int) -> None:
        """Add to a slice what PostgreSQL granted."""
        self._slice((budget, period)).available += amount

    def available(self, budget: str, period: str) -> int:
        """What can be reserved now."""
        return self.at_hand((budget, period))

    def at_hand(self, key: Key) -> int:
        """The same, by its key."""
        found = self._slices.get(key)
        return 0 if found is None else found.available

    def reserve(self, token: Token, charges: Sequence[Charge], soft: Collection[str] = ()) -> Charge | None:
        """Take every charge or none. None when taken, else the first that is short; those named in `soft` never are.

        Raises `Conflict` when the token already holds a reservation.
        """
        if token in self._open:
            raise _taken()
        slices = self._slices
        taken: list[_Slice] = []
        for charge in charges:
            found = slices.get((charge.budget, charge.period))
            if found is None or found.available < charge.amount:
                if (found is not None or charge.amount > 0) and charge.budget not in soft:
                    self._put_back(charges, charge)
                    return charge
                found = self._slice((charge.budget, charge.period))
            found.available -= charge.amount
            taken.append(found)
        self._open[token] = charges, taken
        return None

    def _put_back(self, charges: Sequence[Charge], short: Charge) -> None:
        """What was taken of them before the one that is short."""
        for charge in charges:
            if charge is short:
                return
            self._slices[charge.budget, charge.period].available += charge.amount

    def held(self, token: Token) -> Sequence[Charge]:
        """What a reservation took. Raises `Conflict` if there is none."""
        found = self._open.get(token)
        if found is None:
            raise _unknown()
        return found[0]

    def pass_on(self, old_token: Token, new_token: Token) -> None:
        """A retry takes over the reservation of an attempt that was certainly not billed. Raises `Conflict` if there is
        none."""
        if new_token in self._open:
            raise _taken()
        self._open[new_token] = self._take(old_token)

    def part(self, token: Token, charges: Sequence[Charge], other: Token, others: Sequence[Charge]) -> None:
        """Of what a reservation took `charges`, its first, stay with it; all else, `others`, are those of `other` from
        now on."""
        at, taken = len(charges), self._open[token][1]
        self._open[token], self._open[other] = (charges, taken[:at]), (others, taken[at:])

    def settle(self, token: Token, cost: int) -> None:
        """Charge the cost to every budget of the reservation and give the rest back. Raises `Conflict` if there is
        none."""
        (charges, taken), used = self._take(token), self.used
        at = 0
        for each in taken:
            each.available += charges[at].amount - cost
            each.spent += cost
            used.add(each.key)
            at += 1  # noqa: SIM113 -- `zip` takes more than all the rest, `enumerate` half as much
        if self.watched:
            self._tell([charge for charge in charges if charge.amount > cost])

    def settle_each(self, token: Token, used: Sequence[int]) -> None:
        """As `settle`, with what each charge of the reservation turned out to be, in its order."""
        (charges, taken), looked_at = self._take(token), self.used
        if len(used) != len(taken):
            raise ValueError("as many as were reserved")
        at = 0
        for amount in used:
            each = taken[at]
            each.available += charges[at].amount - amount
            each.spent += amount
            looked_at.add(each.key)
            at += 1  # noqa: SIM113 -- as in `settle`
        if self.watched:
            self._tell([charge for charge, amount in zip(charges, used, strict=True) if charge.amount > amount])

    def _tell(self, freed: Iterable[Charge]) -> None:
        """Of each of these something was given back."""
        for charge in freed:
            key = (charge.budget, charge.period)
            if key in self.watched and self.on_freed is not None:
                self.on_freed(key)

    def forget(self, ended: Iterable[Key]) -> list[Key]:
        """Drop all that is known of periods that have ended, and return them; those that an open reservation is from
        stay."""
        held = self.reserved_each()
        gone = [key for key in ended if key not in held]
        for key in gone:
            self._slices.pop(key, None)
            self.used.discard(key)
            self.watched.discard(key)
        return gone

    def release(self, budget: str, period: str, keep: int = 0) -> int:
        """Take what is idle beyond `keep` out of the slice and return it; 0 when there is nothing."""
        found = self._slices.get((budget, period))
        if found is None or found.available <= keep:
            return 0
        amount = found.available - keep
        found.available -= amount
        found.released += amount
        return amount

    def take_back(self, budget: str, period: str, amount: int) -> None:
        """What was released and could not be given back."""
        found = self._slices[budget, period]
        found.available += amount
        found.released -= amount

    def reserved_each(self) -> dict[Key, int]:
        """What open reservations hold of each. Walks over all of them: not for the request path."""
        held: dict[Key, int] = {}
        for charges, _ in self._open.values():
            for charge in charges:
                key = (charge.budget, charge.period)
                held[key] = held.get(key, 0) + charge.amount
        return held

    def spent(self, budget: str, period: str) -> int:
        """What settlements charged since this worker started."""
        found = self._slices.get((budget, period))
        return 0 if found is None else found.spent

    def tell(self, elsewhere: Mapping[Key, int], keys: Iterable[Key] | None = None) -> None:
        """What is gone of budgets elsewhere; nothing, of those that are not named. Of what is held it is told to all,
        or to these `keys`."""
        self._elsewhere = elsewhere
        for key in self._slices if keys is None else keys:
            if (each := self._slices.get(key)) is not None:
                each.elsewhere = elsewhere.get(key, 0)

    def left(self, budgets: Iterable[tuple[Budget, str]]) -> tuple[int | None, tuple[str, ...]]:
        """Of each budget in a period its limit less what was spent of it here and is gone elsewhere: the least of the
        hard ones (None without any), and the names of the soft ones that are beyond their limit."""
        slices = self._slices
        least: int | None = None
        crossed: tuple[str, ...] = ()
        for budget, period in budgets:
            each = slices.get((budget.name, period))
            if each is None:
                left = budget.limit - self._elsewhere.get((budget.name, period), 0)
            else:
                left = budget.limit - each.spent - each.elsewhere
            if budget.hard:
                if least is None or left < least:
                    least = left
            elif left < 0:
                crossed = (*crossed, budget.name)
        return least, crossed

    def released(self, budget: str, period: str) -> int:
        """All that this worker ever gave back."""
        found = self._slices.get((budget, period))
        return 0 if found is None else found.released

    def holds(self, key: Key) -> bool:
        """Whether it was ever granted, and is not forgotten."""
        return key in self._slices

    def granted_keys(self) -> list[Key]:
        """Every (budget, period) that was ever granted."""
        return list(self._slices)

    def _slice(self, key: Key) -> _Slice:
        """The one of this name and period, which is there from now on."""
        found = self._slices.get(key)
        if found is None:
            found = self._slices[key] = _Slice(key, self._elsewhere.get(key, 0))
        return found

    def _take(self, token: Token) -> tuple[Sequence[Charge], list[_Slice]]:
        found = self._open.pop(token, None)
        if found is None:
            raise _unknown()
        return found


def _taken() -> Conflict:
    return Conflict("the attempt already holds a reservation", code="reservation_exists", hint="Use a new attempt.")


def _unknown() -> Conflict:
    return Conflict("the attempt holds no reservation", code="reservation_unknown", hint="Settle each attempt once.")
