"""Which own budgets of keys nobody can use any more: those whose keys, rotated ones included, live policy no longer
knows. It forgets a key `KNOWN_S` after its end (`key_store`), and none comes back.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from uuid import UUID

from groundplan.gateway.budgets.expired import KEY_BUDGET_PREFIX
from groundplan.gateway.policy.key_store import KNOWN_S
from groundplan.gateway.policy.snapshot import KeyEntry

_MILLISECONDS = 80
"""Bits of an id behind the time at which it was made."""


def gone(budgets: Collection[str], keys: Mapping[bytes, KeyEntry], now: float) -> set[str]:
    """Those of these own budgets of which no key is known; of one that was made within `KNOWN_S` before `now` (seconds
    since the epoch) one always is."""
    made = {name.removeprefix(KEY_BUDGET_PREFIX): name for name in budgets}
    old = {first: name for first, name in made.items() if (UUID(first).int >> _MILLISECONDS) / 1000 < now - KNOWN_S}
    if old and keys:
        for key in keys.values():
            old.pop(key.family, None)
    return set(old.values()) if keys else set()
