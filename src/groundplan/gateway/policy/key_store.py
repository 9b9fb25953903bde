"""The API keys of live policy: all of them when a worker starts, and later those that a change is about, since there
may be a hundred thousand and calls wait while they are read.

What a key may do is decided elsewhere; rows become entries here, and nothing is kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection

from groundplan.blueprint.model import Budget
from groundplan.core.money import from_decimal
from groundplan.gateway.awake import patient
from groundplan.gateway.database import fetched
from groundplan.gateway.policy.address import networks
from groundplan.gateway.policy.snapshot import KeyEntry, Policy

AT_ONCE = 500
"""Rows that are read before calls have a turn."""
MOST_CHANGES = 200
"""After more of them all keys are read."""
_NO_KEYS = frozenset({"kill", "lift", "cache", "group", "membership", "duty", "experiment", "experiments"})
"""Kinds of changes after which every key is what it was, and everybody is who they were."""
_COLUMNS = """hash, id::text, workload, person_id::text, acts_for_others, revoked_at, expires_at,
    coalesce(family, id)::text, networks, models, budget_usd, budget_period, purpose"""
_ALL = f"SELECT {_COLUMNS} FROM api_key"
_SOME = f"""WITH line AS (SELECT DISTINCT coalesce(family, id) AS first FROM api_key WHERE id = ANY(%(ids)s))
    SELECT {_COLUMNS} FROM api_key WHERE id IN (SELECT first FROM line) OR family IN (SELECT first FROM line)"""
"""With all others of their lines, of which one more or less changes what each of them says."""
_CHANGES = "SELECT kind, subject FROM policy_change WHERE number > %s LIMIT %s"

Connection = AsyncConnection[tuple[Any, ...]]
Keys = dict[bytes, KeyEntry]
Changes = list[tuple[Any, ...]]
"""(kind, subject) of each."""


async def unheard(connection: Connection, known: Policy, number: int, seconds: float) -> Changes | None:
    """What has changed since the policy that is `known`, as of policy `number`, in whose transaction this is; None:
    anything may have. Raises psycopg.Error, TimeoutError."""
    if not 0 <= known.number <= number:  # nothing is known, or of a database that was restored since
        return None
    changes = await fetched(connection, _CHANGES, (known.number, MOST_CHANGES + 1), seconds)
    return None if len(changes) > MOST_CHANGES else changes


def same_people(changes: Changes | None) -> bool:
    """Whether everybody is who they were, and here or gone as they were."""
    return changes is not None and all(kind == "key" or kind in _NO_KEYS for kind, _ in changes)


async def load(connection: Connection, known: Policy, changes: Changes | None, seconds: float) -> Keys:
    """The keys, from those of a policy that is `known`, after what is `unheard`. Each statement may take so many
    seconds. Raises psycopg.Error, TimeoutError."""
    ids = None if changes is None else _changed(changes)
    if ids is None:
        return await _all(connection, seconds)
    if not ids:
        return known.keys
    return known.keys | _lined(_entries(await fetched(connection, _SOME, {"ids": ids}, seconds)))


def _changed(changes: Changes) -> list[UUID] | None:
    """Ids of the keys that these changes are about; None: any may be another."""
    ids: list[UUID] = []
    for kind, subject in changes:
        if kind in _NO_KEYS:
            continue
        if kind != "key":
            return None
        try:
            ids.append(UUID(subject.removeprefix("key/")))
        except ValueError:
            return None
    return ids


async def _all(connection: Connection, seconds: float) -> Keys:
    found: Keys = {}
    async with connection.cursor("api_keys") as cursor:
        async with patient(seconds):
            await cursor.execute(_ALL)
        while True:
            async with patient(seconds):
                rows = await cursor.fetchmany(AT_ONCE)
            if not rows:
                return _lined(found)
            found |= _entries(rows)


def _entries(rows: Iterable[tuple[Any, ...]]) -> Keys:
    return {bytes(row[0]): _entry(*row[1:]) for row in rows}


def _lined(keys: Keys) -> Keys:
    """The same keys, each of which knows the others of its line; all of those are among them."""
    lines: dict[str, list[str]] = {}
    for key in keys.values():
        if key.family != key.id:
            lines.setdefault(key.family, [key.family]).append(key.id)
    for hash, key in keys.items() if lines else ():
        if (line := lines.get(key.family)) is not None:
            keys[hash] = replace(key, line=tuple(sorted(line)))
    return keys


def _entry(
    id: str, workload: str, person: str | None, acts_for_others: bool, revoked: Any, expires: Any, family: str,
    allowed: list[str], models: list[str], limit: Any, period: str, purpose: str,
) -> KeyEntry:  # fmt: skip
    name = f"key/{family}"
    return KeyEntry(
        id=id,
        workload=workload,
        person=person or "",
        acts_for_others=acts_for_others,
        revoked=revoked is not None,
        expires=None if expires is None else expires.timestamp(),
        budget=None if limit is None else Budget(name=name, covers=name, limit=from_decimal(limit), period=period),
        family=family,
        networks=networks(allowed),
        models=frozenset(models),
        purpose=purpose,
    )
