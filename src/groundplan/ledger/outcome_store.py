"""The SQL of outcomes: each is stored once, by its id, for a call in the ledger. Stored outcomes are never changed.

The control API and the gateways both use it. One statement adds an outcome and commits alone, so a sender without a
response may send it again under the same id: it is stored once or not at all.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, LiteralString
from uuid import UUID

import msgspec
from psycopg import AsyncConnection, Connection

from groundplan.core.errors import Conflict, NotFound

VALUE_DIGITS: Final = 18
VALUE_PLACES: Final = 12
LABEL_LENGTH: Final = 200

CallOwners = Mapping[UUID, tuple[str, UUID | None]]
"""Call -> (workload, person)."""

_ADD: LiteralString = """INSERT INTO outcome (id, call_id, at, accepted, value_usd, label, by)
    SELECT %(id)s, c.id, coalesce(%(at)s::timestamptz, now()), %(accepted)s::boolean, %(value_usd)s::numeric,
      %(label)s::text, %(by)s::text FROM call c
    WHERE c.id = %(call_id)s AND (%(workload)s::text IS NULL OR c.workload = %(workload)s)
      AND (%(named)s OR NOT EXISTS (SELECT 1 FROM outcome o WHERE o.call_id = c.id AND o.by = %(by)s::text
        AND o.accepted IS NOT DISTINCT FROM %(accepted)s::boolean
        AND o.value_usd IS NOT DISTINCT FROM %(value_usd)s::numeric AND o.label IS NOT DISTINCT FROM %(label)s::text
        AND NOT EXISTS (SELECT 1 FROM outcome p WHERE p.call_id = c.id AND p.by = o.by AND (p.at, p.id) > (o.at, o.id)
          AND (p.accepted <> o.accepted OR p.value_usd <> o.value_usd))))
    ON CONFLICT (id) DO NOTHING"""
_CALL: LiteralString = """SELECT 1 FROM call c
    WHERE c.id = %(call_id)s AND (%(workload)s::text IS NULL OR c.workload = %(workload)s)"""
_SAME: LiteralString = """SELECT call_id = %(call_id)s AND by = %(by)s::text
    AND accepted IS NOT DISTINCT FROM %(accepted)s::boolean AND value_usd IS NOT DISTINCT FROM %(value_usd)s::numeric
    AND label IS NOT DISTINCT FROM %(label)s::text FROM outcome WHERE id = %(id)s"""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a call was worth. `by` is the actor who reports it; with `workload` only a call of that workload counts.
    `named`: the sender has chosen the `id`, and may send the outcome again. `at`: the time of the outcome; None:
    now."""

    id: UUID
    call_id: UUID
    accepted: bool | None
    value_usd: Decimal | None
    label: str | None
    by: str
    workload: str | None = None
    named: bool = True
    at: datetime | None = None


def check_report(*, call_id: object, ticket: object, of_ticket: Iterable[object], of_call: Iterable[object]) -> None:
    """Raise `ValueError` unless a report names either a call or a ticket and has values that fit it: none of
    `of_ticket` for a call, and at least one of `of_call`."""
    if (call_id is None) == (ticket is None):
        raise ValueError("name either call_id or ticket")
    if ticket is not None:
        return
    if any(each is not None for each in of_ticket):
        raise ValueError("status and at are of tickets")
    if all(each is None for each in of_call):
        raise ValueError("say what the call was worth: accepted, value_usd or label")


def add(conn: Connection[Any], outcome: Outcome) -> bool:
    """Store an outcome; returns whether it is new. Raises `NotFound` (`call_unknown`), `Conflict` (`outcome_differs`,
    `_twice`)."""
    parameters = msgspec.structs.asdict(outcome)
    new = conn.execute(_ADD, parameters).rowcount == 1
    if not new:
        _raise_not_added(conn.execute(_SAME if outcome.named else _CALL, parameters).fetchone(), outcome)
    return new


def call_owners(conn: Connection[Any], calls: Collection[UUID]) -> CallOwners:
    """Workload and person of those of these calls that are in the ledger."""
    rows = conn.execute("SELECT id, workload, person_id FROM call WHERE id = ANY(%s)", (list(calls),)).fetchall()
    return {id: (workload, person) for id, workload, person in rows}


def was_accepted(conn: Connection[Any], call_id: UUID) -> bool:
    """Whether any outcome of the call says that it was accepted."""
    row = conn.execute("SELECT 1 FROM outcome WHERE call_id = %s AND accepted LIMIT 1", (call_id,)).fetchone()
    return row is not None


def take_reviews(conn: Connection[Any], since: datetime) -> int:
    """Store reviewers' decisions on held answers, and people's thumbs, as outcomes of their calls, each once; returns
    the number of new outcomes. Those of calls that are not in the ledger yet are stored by a later run, as long as they
    are newer than `since`."""
    decided = conn.execute(
        """INSERT INTO outcome (id, call_id, accepted, label, by)
           SELECT h.id, h.id, h.state = 'released', 'review', h.decided_by FROM held_call h JOIN call c ON c.id = h.id
           WHERE h.kind = 'answer' AND h.state IN ('released', 'refused') AND h.decided_by IS NOT NULL
             AND h.decided_at >= %s AND NOT EXISTS (SELECT 1 FROM outcome o WHERE o.id = h.id)
           ON CONFLICT (id) DO NOTHING""",
        (since,),
    ).rowcount
    thumbs = conn.execute(
        """INSERT INTO outcome (id, call_id, accepted, label, by)
           SELECT s.id, s.call_id, s.kind = 'up', 'thumb', 'reader' FROM knowledge_signal s
             JOIN call c ON c.id = s.call_id AND c.workload = s.workload
           WHERE s.kind IN ('up', 'down') AND s.at >= %s AND NOT EXISTS (SELECT 1 FROM outcome o WHERE o.id = s.id)
           ON CONFLICT (id) DO NOTHING""",
        (since,),
    ).rowcount
    return decided + thumbs


async def add_async(conn: AsyncConnection[Any], outcome: Outcome) -> None:
    """As `add`, for a request path; the connection is in autocommit mode."""
    parameters = msgspec.structs.asdict(outcome)
    if (await conn.execute(_ADD, parameters)).rowcount != 1:
        _raise_not_added(await (await conn.execute(_SAME if outcome.named else _CALL, parameters)).fetchone(), outcome)


def _raise_not_added(found: tuple[Any, ...] | None, outcome: Outcome) -> None:
    """Raise the error for an outcome that was not added. `found`: whether the stored outcome with its id is the same;
    for an id not chosen by the sender, a row if the call exists."""
    if found is None:
        of_workload = f" of the workload {outcome.workload}" if outcome.workload else ""
        raise NotFound(
            f"there is no call {outcome.call_id}{of_workload}",
            code="call_unknown",
            hint="Calls appear within a second; of those of archived days nothing more is reported.",
        )
    if not outcome.named:
        raise Conflict(
            f"you have reported the same of the call {outcome.call_id} before",
            code="outcome_twice",
            hint="It is kept and counts once. To be able to send one again, give it an `id` of your own.",
        )
    if not found[0]:
        raise Conflict(
            f"the outcome {outcome.id} was reported before, and said something else",
            code="outcome_differs",
            hint="Reported outcomes are not changed; report another one under a new id.",
        )
