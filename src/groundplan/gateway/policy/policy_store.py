"""Loads live policy besides keys and people (`key_store`): stops, exceptions, approvals, groups, running experiments.

The caller holds one snapshot of the database, so that the number fits the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple
from uuid import UUID

from groundplan.core.money import from_decimal
from groundplan.economics.experiment.model import Experiment
from groundplan.gateway.database import Connection, fetched
from groundplan.gateway.policy.snapshot import RuleException
from groundplan.governance.model import GrantedApproval

_NUMBER = "SELECT number FROM policy_epoch"
_KILLS = "SELECT scope, bool_or(streams) FROM kill_switch WHERE lifted_at IS NULL GROUP BY scope"
_STOPPED = "SELECT scope, reason FROM kill_switch WHERE scope = ANY(%s)"
_SHIPPED = "SELECT id::text FROM call WHERE id = ANY(%s)"
_EXCEPTIONS = """SELECT rule, workload, person, extract(epoch FROM until)::float8 FROM exception_held"""
_PARTS = "SELECT digest, state, expires_on, grace_until, price FROM part_approval ORDER BY state = 'applied'"
_CLEARED = "SELECT workload, number FROM answer_clear"
_GROUPS = """WITH RECURSIVE mine(person, id) AS (
    SELECT person_id, group_id FROM membership WHERE person_id IS NOT NULL
    UNION SELECT mine.person, m.group_id FROM membership m JOIN mine ON m.member_group_id = mine.id)
  SELECT p.id::text,
    encode(sha256(convert_to(coalesce(string_agg(mine.id::text, ' ' ORDER BY mine.id), ''), 'UTF8')), 'hex')
  FROM person p LEFT JOIN mine ON mine.person = p.id WHERE p.active GROUP BY p.id"""
_MEMBERS = """WITH RECURSIVE inside(name, id) AS (
    SELECT name, id FROM people_group WHERE name = ANY(%s)
    UNION SELECT inside.name, m.member_group_id FROM membership m JOIN inside ON m.group_id = inside.id
      WHERE m.member_group_id IS NOT NULL)
  SELECT inside.name, p.id::text FROM inside JOIN membership m ON m.group_id = inside.id
    JOIN person p ON p.id = m.person_id WHERE p.active"""
_EXPERIMENTS = """SELECT id::text, name, workload, type, candidate, judge, share, split, budget_usd,
    extract(epoch FROM until)::float8 FROM experiment WHERE state = 'running' AND until > now()"""


class PolicyRows(NamedTuple):
    """Live policy besides keys and people, with the fields of `Policy`."""

    kills: frozenset[str]
    severed: frozenset[str]
    cleared: dict[str, int]
    exceptions: tuple[RuleException, ...]
    experiments: dict[str, Experiment]
    parts: dict[str, GrantedApproval]
    groups: dict[str, str]
    members: dict[str, frozenset[str]]


class RecordedStops(NamedTuple):
    """What PostgreSQL has of stops that this worker made itself."""

    stops: list[tuple[str, str]]
    """(scope, reason) of all stops of these scopes, also of lifted ones."""
    shipped_calls: set[str]
    """Those of their calls that are in the ledger."""


async def load_number(connection: Connection, seconds: float) -> int:
    """The number of the newest policy; 0: there is none. Raises psycopg.Error, TimeoutError."""
    rows = await fetched(connection, _NUMBER, (), seconds)
    return int(rows[0][0]) if rows else 0


async def load_rows(
    connection: Connection, named_groups: Sequence[str], seconds: float, *, with_groups_of_people: bool
) -> PolicyRows:
    """Everything in force now: with the members of `named_groups`, and `with_groups_of_people` where answers are shared
    by group. Each statement may take `seconds`. Raises psycopg.Error, TimeoutError."""
    fetch = partial(fetched, connection, seconds=seconds)
    kills = await fetch(_KILLS, ())
    cleared = await fetch(_CLEARED, ())
    exceptions = await fetch(_EXCEPTIONS, ())
    experiments = await fetch(_EXPERIMENTS, ())
    parts = await fetch(_PARTS, ())
    groups = await fetch(_GROUPS, ()) if with_groups_of_people else []
    members = await fetch(_MEMBERS, (list(named_groups),)) if named_groups else []
    return PolicyRows(
        kills=frozenset(scope for scope, _ in kills),
        severed=frozenset(scope for scope, streams in kills if streams),
        cleared={workload: number for workload, number in cleared},
        exceptions=tuple(RuleException(*row) for row in exceptions),
        experiments={row[2]: _experiment(row) for row in experiments},
        parts={row[0]: _approval(row) for row in parts},
        groups={person: groups for person, groups in groups},
        members=_members_by_group(members),
    )


async def load_recorded_stops(
    connection: Connection, scopes: Sequence[str], calls: Sequence[UUID], seconds: float
) -> RecordedStops:
    """What PostgreSQL has of stops of these scopes, which these calls caused. Raises psycopg.Error, TimeoutError."""
    stops = await fetched(connection, _STOPPED, (list(scopes),), seconds) if scopes else []
    shipped = await fetched(connection, _SHIPPED, (list(calls),), seconds) if calls else []
    return RecordedStops([(scope, reason) for scope, reason in stops], {call for (call,) in shipped})


def _members_by_group(members: list[tuple[Any, ...]]) -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for group, person in members:
        found.setdefault(group, set()).add(person)
    return {group: frozenset(people) for group, people in found.items()}


def _approval(row: tuple[Any, ...]) -> GrantedApproval:
    _, state, expires, grace, price = row
    withdrawn, expired = state == "withdrawn", state == "expired"
    return GrantedApproval(expires, grace or expires, withdrawn=withdrawn, expired=expired, price=price or {})


def _experiment(row: tuple[Any, ...]) -> Experiment:
    id, name, workload, type, candidate, judge, share, split, budget, until = row
    return Experiment(
        id=id, name=name, workload=workload, type=type, candidate=candidate, judge=judge, share=share / 10_000,
        split=split, budget=from_decimal(budget), until=until,
    )  # fmt: skip
