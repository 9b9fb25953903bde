"""Loads the API keys and the people of live policy: all of them when a worker starts, and later only those that have
changed, since there may be a hundred thousand, and calls wait while they are read.

What a key may do is decided elsewhere; rows become entries here, and nothing is kept.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, LiteralString
from uuid import UUID

from groundplan.blueprint.model import Budget
from groundplan.core.money import from_decimal
from groundplan.gateway.database import Connection, fetched
from groundplan.gateway.policy.client_address import networks
from groundplan.gateway.policy.snapshot import KeyEntry, Policy
from groundplan.gateway.stalls import patient
from groundplan.governance.approved_parts import GATEWAY_KINDS

ROWS_PER_FETCH = 500
"""Rows that are read before calls have a turn."""
MAX_CHANGES = 200
"""After more changes than this all keys are loaded."""
_UNRELATED_KINDS = frozenset(
    {"kill", "lift", "cache", "group", "membership", "duty", "experiment", "experiments", *GATEWAY_KINDS}
)
"""Kinds of changes that affect neither keys nor people."""
KEPT_AFTER_END_S = 90 * 86_400
"""For so long after its end a key is known, and its user is told that it has ended; then it is unknown. All keys that
ever were would fill the memory of each worker."""
LINES_PER_FETCH = 10
"""A key that is rotated every hour has thousands of others in its line after a year."""
_COLUMNS = """hash, id::text, workload, person_id::text, acts_for_others, revoked_at, least(revoked_at, expires_at),
    coalesce(family, id)::text, networks, models, budget_usd, budget_period, purpose"""
_LASTING = f"coalesce(least(revoked_at, expires_at) > now() - interval '{KEPT_AFTER_END_S} seconds', true)"
_ALL = f"SELECT {_COLUMNS} FROM api_key WHERE {_LASTING}"
_FIRST = "SELECT coalesce(family, id) AS first FROM api_key WHERE"
_CHANGED = f"""WITH line AS (SELECT DISTINCT first FROM ({_FIRST} id = ANY(%(ids)s)) o)
    SELECT {_COLUMNS} FROM line JOIN api_key ON family = first WHERE {_LASTING}
    UNION ALL SELECT {_COLUMNS} FROM line JOIN api_key ON id = first WHERE family IS NULL AND {_LASTING}"""
"""With all other keys of their lines: one more or less changes the entry of each of them."""
_LINES = "SELECT family::text, string_agg(id::text, ' ') FROM api_key WHERE id <> family AND family IN"
_ALL_LINES = f"{_LINES} ({_FIRST} {_LASTING}) GROUP BY family"
_CHANGED_LINES = f"{_LINES} ({_FIRST} id = ANY(%(ids)s)) GROUP BY family"
_CHANGES = "SELECT kind, subject, stops FROM policy_change WHERE number > %s LIMIT %s"
_PEOPLE = "SELECT id::text, email FROM person WHERE active"
_PEOPLE_OF = f"{_PEOPLE} AND id = ANY(%s)"

_NO_LINE: frozenset[str] = frozenset()

Rows = Sequence[tuple[Any, ...]]
Keys = dict[bytes, KeyEntry]


@dataclass(frozen=True, slots=True)
class Changes:
    """Ids of `keys` and `people` that may have changed, and of people whose keys may have ended."""

    keys: frozenset[UUID] = frozenset()
    people: frozenset[UUID] = frozenset()
    ended: frozenset[UUID] = frozenset()


async def load_changes(connection: Connection, known: Policy, number: int, seconds: float) -> Changes | None:
    """The changes from the `known` policy to policy `number`, within whose transaction this runs; None: anything may
    have changed. Raises psycopg.Error, TimeoutError."""
    if not 0 <= known.number <= number:  # nothing is known, or it is of a database that was restored since
        return None
    rows = await fetched(connection, _CHANGES, (known.number, MAX_CHANGES + 1), seconds)
    return None if len(rows) > MAX_CHANGES else _parse_changes(rows)


def _parse_changes(rows: Iterable[tuple[Any, ...]]) -> Changes | None:
    """The changed ids; None: anything may have changed."""
    keys, people, ended = set(), set(), set()
    for kind, subject, stops in rows:
        if kind in _UNRELATED_KINDS:
            continue
        try:
            id = UUID(subject.removeprefix(f"{kind}/"))
        except ValueError:
            return None
        if kind == "key":
            keys.add(id)
        elif kind == "person":
            people.add(id)
            if stops:
                ended.add(id)
        else:
            return None
    return Changes(frozenset(keys), frozenset(people), frozenset(ended))


async def load_keys(
    connection: Connection, known: Policy, changes: Changes | None, seconds: float, *, ended_before: float
) -> Keys:
    """The keys after `changes` to those of the `known` policy; if any are loaded, without those that ended before
    `ended_before` (seconds since the epoch). Each statement may take `seconds`. Raises psycopg.Error, TimeoutError."""
    if changes is None:
        return await _load_all(connection, seconds)
    ids = set(changes.keys)
    if changes.ended:  # keys that were made for them since are changes of their own
        people = {str(id) for id in changes.ended}
        ids |= {UUID(key.id) for key in known.keys.values() if key.person in people}
    if not ids:
        return known.keys
    parameters = {"ids": list(ids)}
    lines = _lines(await fetched(connection, _CHANGED_LINES, parameters, seconds))
    kept = known.keys
    if ended_before > float("-inf"):
        kept = {hash: key for hash, key in kept.items() if key.expires is None or key.expires > ended_before}
    return kept | _entries(await fetched(connection, _CHANGED, parameters, seconds), lines)


async def load_people(
    connection: Connection, known: Policy, changes: Changes | None, seconds: float
) -> tuple[dict[str, str], frozenset[str]]:
    """(ids of active people by e-mail address, all of these ids), as `load_keys`."""
    if changes is None:
        rows = await fetched(connection, _PEOPLE, (), seconds)
        return {email: person for person, email in rows}, frozenset(person for person, _ in rows)
    if not changes.people:
        return known.people, known.active
    rows = await fetched(connection, _PEOPLE_OF, (list(changes.people),), seconds)
    others = {str(id) for id in changes.people}
    kept = {email: person for email, person in known.people.items() if person not in others}
    return kept | {email: person for person, email in rows}, (known.active - others) | {person for person, _ in rows}


async def _load_all(connection: Connection, seconds: float) -> Keys:
    lines: dict[str, frozenset[str]] = {}
    async for rows in _fetch_in_parts(connection, _ALL_LINES, LINES_PER_FETCH, seconds):
        lines |= _lines(rows)
    found: Keys = {}
    async for rows in _fetch_in_parts(connection, _ALL, ROWS_PER_FETCH, seconds):
        found |= _entries(rows, lines)
    return found


async def _fetch_in_parts(
    connection: Connection, statement: LiteralString, rows_per_fetch: int, seconds: float
) -> AsyncIterator[Rows]:
    """The rows of a statement in parts, each of which may take `seconds`."""
    async with connection.cursor("api_keys") as cursor:
        async with patient(seconds):
            await cursor.execute(statement)
        while True:
            async with patient(seconds):
                rows = await cursor.fetchmany(rows_per_fetch)
            if not rows:
                return
            yield rows


def _lines(rows: Rows) -> dict[str, frozenset[str]]:
    """All key ids of each line of rotated keys, by its first key; one set for all of them."""
    return {first: frozenset((first, *others.split(" "))) for first, others in rows}


def _entries(rows: Rows, lines: Mapping[str, frozenset[str]]) -> Keys:
    return {bytes(row[0]): _entry(lines, *row[1:]) for row in rows}


def _entry(
    lines: Mapping[str, frozenset[str]], id: str, workload: str, person: str | None, acts_for_others: bool,
    revoked: Any, expires: Any, family: str, allowed: list[str], models: list[str], limit: Any, period: str,
    purpose: str,
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
        line=lines.get(family, _NO_LINE),
        networks=networks(allowed),
        models=frozenset(models),
        purpose=purpose,
    )
