"""Which budgets a worker can forget: those of periods that have ended, and own budgets without an end whose keys ended
long ago. What becomes of them is decided by `lease_client` and `grant_connection`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from groundplan.gateway.budgets.leases import Key
from groundplan.gateway.budgets.periods import has_ended
from groundplan.gateway.ticks import in_turns

OWN = "key/"
"""How the names of own budgets of keys begin; behind it is the first key of their line."""
Gone = Callable[[Collection[str]], set[str]]
"""Those of these own budgets whose keys all ended long ago."""


def is_for_good(key: Key) -> bool:
    """Whether it is an own budget of a key without an end."""
    return key[1] == "total" and key[0].startswith(OWN)


def outlived(keys: Iterable[Key], gone: Gone | None) -> set[Key]:
    """Those of these that are own budgets for good of keys that ended long ago."""
    found = {} if gone is None else {key[0]: key for key in keys if is_for_good(key)}
    return {found[name] for name in gone(found)} if found and gone is not None else set()


async def over(keys: Iterable[Key], at: str) -> list[Key]:
    """Those whose periods have ended."""
    found: list[Key] = []
    async for some in in_turns(list(keys)):
        found += [key for key in some if has_ended(key[1], at)]
    return found
