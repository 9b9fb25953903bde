"""Which budgets of single keys nobody can use any more: live policy no longer knows any of their keys, rotated ones
included. It forgets a key `KEPT_AFTER_END_S` after its end (`key_store`), and none comes back."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from uuid import UUID

from groundplan.gateway.budgets.expired import KEY_BUDGET_PREFIX
from groundplan.gateway.policy.key_store import KEPT_AFTER_END_S
from groundplan.gateway.policy.snapshot import KeyEntry

_TIME_SHIFT = 80
"""Bits of a UUIDv7 after its time."""


def unusable_budgets(budgets: Collection[str], keys: Mapping[bytes, KeyEntry], now: float) -> set[str]:
    """Those of these key budgets of which no key is known. A budget that was made within `KEPT_AFTER_END_S` before
    `now` (seconds since the epoch) always has a known key."""
    by_first_key = {name.removeprefix(KEY_BUDGET_PREFIX): name for name in budgets}
    old = {
        first: name
        for first, name in by_first_key.items()
        if (UUID(first).int >> _TIME_SHIFT) / 1000 < now - KEPT_AFTER_END_S
    }
    if old and keys:
        for key in keys.values():
            old.pop(key.family, None)
    return set(old.values()) if keys else set()
