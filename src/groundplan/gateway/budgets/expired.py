"""Which budgets a worker can forget: those of periods that have ended, and budgets of single keys without an end whose
keys ended long ago. `lease_client` and `grant_connection` decide what becomes of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from groundplan.gateway.budgets.leases import Key
from groundplan.gateway.budgets.periods import has_ended
from groundplan.gateway.ticks import in_turns

KEY_BUDGET_PREFIX = "key/"
"""Prefix of the names of budgets that single keys have of their own; the first key of the rotation line follows."""
EndedKeyLookup = Callable[[Collection[str]], set[str]]
"""Returns the key budgets, of those named, whose keys all ended long ago."""


def is_endless_key_budget(key: Key) -> bool:
    """Whether this is a key's own budget that never ends."""
    return key[1] == "total" and key[0].startswith(KEY_BUDGET_PREFIX)


def budgets_of_ended_keys(keys: Iterable[Key], ended_key_lookup: EndedKeyLookup | None) -> set[Key]:
    """Return the endless key budgets among `keys` whose API keys ended long ago."""
    found = {} if ended_key_lookup is None else {key[0]: key for key in keys if is_endless_key_budget(key)}
    return {found[name] for name in ended_key_lookup(found)} if found and ended_key_lookup is not None else set()


async def ended_periods(keys: Iterable[Key], at: str) -> list[Key]:
    """Return the keys whose periods have ended at `at`, an ISO time."""
    found: list[Key] = []
    async for some in in_turns(list(keys)):
        found += [key for key in some if has_ended(key[1], at)]
    return found
