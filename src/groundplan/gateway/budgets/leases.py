"""The slices of budgets and limits that one gateway worker holds, and what is reserved from them. Pure: no I/O, no
clock.

For each (name, period): granted = available + reserved + spent + released. Amounts are picodollars for budgets, and
requests, tokens or calls for quotas. `available` goes below zero only where a provider billed more than the bound it
was given, or a budget is not hard; what is then owed comes out of the next grant. Grants come from `grant_connection`;
`recovery` cleans up after a crash.
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
"""Types that are known only once an attempt is over; until then its highest possible use is held."""


@dataclass(frozen=True, slots=True)
class Quota:
    """One number of a declared limit, for the callers that share it: at most `limit` per `period`."""

    name: str
    """TYPE/LIMIT, with /ID where each user or key has one of their own; no budget's name has a slash"""
    type: str
    """requests | tokens | concurrent | cost (picodollars)"""
    limit: int
    period: str
    """minute | hour | day | week | month | quarter | year, now for concurrent calls"""
    limit_name: str
    """Name of the limit."""
    covers: str

    @property
    def family(self) -> str:
        """The prefix of `name` that it shares with the quotas of other users and keys."""
        return "/".join(self.name.split("/", 2)[:2])

    def end_of(self, span: str) -> datetime | str:
        """Return when a span of it is over, as PostgreSQL takes it."""
        return periods.ends(span) or "infinity"


def is_quota(name: str) -> bool:
    """Whether a slice of this name belongs to a limit, not to a budget."""
    return name.startswith(("requests/", "tokens/", "concurrent/", "cost/"))


class _Slice:
    """What this worker holds of one (name, period)."""

    __slots__ = ("available", "key", "released", "spent", "spent_elsewhere")

    def __init__(self, key: Key, elsewhere: int) -> None:
        self.key = key
        self.available = self.spent = self.released = 0
        self.spent_elsewhere = elsewhere


class Slices:
    """What this worker may still use, by name and period."""

    __slots__ = ("_reservations", "_slices", "_spent_elsewhere", "on_freed", "recently_used", "watched")

    def __init__(self) -> None:
        self._slices: dict[Key, _Slice] = {}
        self._spent_elsewhere: Mapping[Key, int] = {}
        self._reservations: dict[Token, tuple[Sequence[Charge], list[_Slice]]] = {}
        """The charges of each reservation, and the slice of each charge, so that a settlement need not look them up
        again; a slice stays as long as a reservation of it is open."""
        self.on_freed: Callable[[Key], None] | None = None
        """Called with the key of a `watched` slice that a settlement gave something back to."""
        self.watched: set[Key] = set()
        """Keys to call `on_freed` for. Nearly always empty, so that a settlement need not check each charge."""
        self.recently_used: set[Key] = set()
        """Keys charged since the reader of this set last emptied it."""

    @property
    def open_reservations(self) -> int:
        """Number of reservations that are not settled."""
        return len(self._reservations)

    def add_grant(self, budget: str, period: str, amount: int) -> None:
        """Add to a slice what PostgreSQL granted."""
        self._get_or_add((budget, period)).available += amount

    def available(self, budget: str, period: str) -> int:
        """Return what can be reserved now."""
        return self.available_for((budget, period))

    def available_for(self, key: Key) -> int:
        """As `available`, by key."""
        slice_ = self._slices.get(key)
        return 0 if slice_ is None else slice_.available

    def reserve(self, token: Token, charges: Sequence[Charge], soft: Collection[str] = ()) -> Charge | None:
        """Take every charge or none. Returns None when taken, else the first charge that is short; those of budgets
        named in `soft` never are.

        Raises `Conflict` when the token already holds a reservation.
        """
        if token in self._reservations:
            raise _reservation_exists()
        slices = self._slices
        touched: list[_Slice] = []
        for charge in charges:
            slice_ = slices.get((charge.budget, charge.period))
            if slice_ is None or slice_.available < charge.amount:
                if (slice_ is not None or charge.amount > 0) and charge.budget not in soft:
                    self._undo_charges(charges, charge)
                    return charge
                slice_ = self._get_or_add((charge.budget, charge.period))
            slice_.available -= charge.amount
            touched.append(slice_)
        self._reservations[token] = charges, touched
        return None

    def _undo_charges(self, charges: Sequence[Charge], short: Charge) -> None:
        """Put back the charges that were taken before the one that is short."""
        for charge in charges:
            if charge is short:
                return
            self._slices[charge.budget, charge.period].available += charge.amount

    def reserved_charges(self, token: Token) -> Sequence[Charge]:
        """Return the charges of a reservation. Raises `Conflict` if there is none."""
        found = self._reservations.get(token)
        if found is None:
            raise _no_reservation()
        return found[0]

    def transfer_reservation(self, old_token: Token, new_token: Token) -> None:
        """Give the reservation of an attempt that was certainly not billed to its retry. Raises `Conflict` if there is
        none."""
        if new_token in self._reservations:
            raise _reservation_exists()
        self._reservations[new_token] = self._pop_reservation(old_token)

    def split_reservation(
        self, token: Token, charges: Sequence[Charge], other: Token, others: Sequence[Charge]
    ) -> None:
        """Leave the first charges of a reservation, `charges`, with `token`, and give all others, `others`, to the
        token `other`."""
        at, taken = len(charges), self._reservations[token][1]
        self._reservations[token], self._reservations[other] = (charges, taken[:at]), (others, taken[at:])

    def settle(self, token: Token, cost: int) -> None:
        """Charge the cost to every budget of the reservation and free the rest. Raises `Conflict` if there is none."""
        (charges, taken), recently_used = self._pop_reservation(token), self.recently_used
        index = 0
        for slice_ in taken:
            slice_.available += charges[index].amount - cost
            slice_.spent += cost
            recently_used.add(slice_.key)
            index += 1  # noqa: SIM113 -- `zip` takes more than all the rest, `enumerate` half as much
        if self.watched:
            self._notify_freed([charge for charge in charges if charge.amount > cost])

    def settle_charges(self, token: Token, amounts_used: Sequence[int]) -> None:
        """As `settle`, with the amount used of each charge of the reservation, in its order."""
        (charges, taken), recently_used = self._pop_reservation(token), self.recently_used
        if len(amounts_used) != len(taken):
            raise ValueError("as many as were reserved")
        index = 0
        for amount in amounts_used:
            slice_ = taken[index]
            slice_.available += charges[index].amount - amount
            slice_.spent += amount
            recently_used.add(slice_.key)
            index += 1  # noqa: SIM113 -- as in `settle`
        if self.watched:
            self._notify_freed(
                [charge for charge, amount in zip(charges, amounts_used, strict=True) if charge.amount > amount]
            )

    def _notify_freed(self, freed: Iterable[Charge]) -> None:
        """Call `on_freed` for the watched keys among these charges."""
        for charge in freed:
            key = (charge.budget, charge.period)
            if key in self.watched and self.on_freed is not None:
                self.on_freed(key)

    def drop_ended(self, ended: Iterable[Key]) -> list[Key]:
        """Drop and return the keys of periods that have ended, except those that an open reservation holds."""
        held = self.reserved_by_key()
        gone = [key for key in ended if key not in held]
        for key in gone:
            self._slices.pop(key, None)
            self.recently_used.discard(key)
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

    def undo_release(self, budget: str, period: str, amount: int) -> None:
        """Undo a release that could not be given back."""
        found = self._slices[budget, period]
        found.available += amount
        found.released -= amount

    def reserved_by_key(self) -> dict[Key, int]:
        """Return what open reservations hold, by key. Walks over all of them: not for the request path."""
        held: dict[Key, int] = {}
        for charges, _ in self._reservations.values():
            for charge in charges:
                key = (charge.budget, charge.period)
                held[key] = held.get(key, 0) + charge.amount
        return held

    def spent(self, budget: str, period: str) -> int:
        """Return what settlements charged since this worker started."""
        found = self._slices.get((budget, period))
        return 0 if found is None else found.spent

    def set_spent_elsewhere(self, elsewhere: Mapping[Key, int], keys: Iterable[Key] | None = None) -> None:
        """Set what other workers have used of each budget; nothing, of those not named. The slices updated are all that
        are held, or those of `keys`."""
        self._spent_elsewhere = elsewhere
        for key in self._slices if keys is None else keys:
            if (each := self._slices.get(key)) is not None:
                each.spent_elsewhere = elsewhere.get(key, 0)

    def remaining_budget(self, budgets: Iterable[tuple[Budget, str]]) -> tuple[int | None, tuple[str, ...]]:
        """Return, over each (budget, period), its limit less what was spent here and by other workers: the least of the
        hard budgets (None without any), and the names of the soft ones that are beyond their limit."""
        slices = self._slices
        least: int | None = None
        exceeded: tuple[str, ...] = ()
        for budget, period in budgets:
            slice_ = slices.get((budget.name, period))
            if slice_ is None:
                left = budget.limit - self._spent_elsewhere.get((budget.name, period), 0)
            else:
                left = budget.limit - slice_.spent - slice_.spent_elsewhere
            if budget.hard:
                if least is None or left < least:
                    least = left
            elif left < 0:
                exceeded = (*exceeded, budget.name)
        return least, exceeded

    def released(self, budget: str, period: str) -> int:
        """Return all that this worker ever gave back."""
        found = self._slices.get((budget, period))
        return 0 if found is None else found.released

    def was_granted(self, key: Key) -> bool:
        """Whether anything was ever granted, and is not forgotten."""
        return key in self._slices

    def granted_keys(self) -> list[Key]:
        """Every (budget, period) that was ever granted."""
        return list(self._slices)

    def _get_or_add(self, key: Key) -> _Slice:
        """Return the slice of this key, added if missing."""
        found = self._slices.get(key)
        if found is None:
            found = self._slices[key] = _Slice(key, self._spent_elsewhere.get(key, 0))
        return found

    def _pop_reservation(self, token: Token) -> tuple[Sequence[Charge], list[_Slice]]:
        found = self._reservations.pop(token, None)
        if found is None:
            raise _no_reservation()
        return found


def _reservation_exists() -> Conflict:
    return Conflict("the attempt already holds a reservation", code="reservation_exists", hint="Use a new attempt.")


def _no_reservation() -> Conflict:
    return Conflict("the attempt holds no reservation", code="reservation_unknown", hint="Settle each attempt once.")
