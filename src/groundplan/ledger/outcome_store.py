"""The SQL that keeps outcomes: once by their id, for calls that are in the ledger. Does not change what is kept.

Both the control API and the gateways write with it. One statement adds an outcome and commits alone, so whoever was
not answered may send it again under the same id: it is there once or not at all.
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

Whose = Mapping[UUID, tuple[str, UUID | None]]
"""Calls -> (workload, person)."""

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
    """What a call was worth. `by` is the actor who says so; with `workload` only a call of that workload counts.
    `named`: whoever says it has chosen the `id`, and may send it again. `at`: when it was so, if not now."""

    id: UUID
    call_id: UUID
    accepted: bool | None
    value_usd: Decimal | None
    label: str | None
    by: str
    workload: str | None = None
    named: bool = True
    at: datetime | None = None


def check_said(*, call_id: object, ticket: object, of_ticket: Iterable[object], of_call: Iterable[object]) -> None:
    """Raise `ValueError` unless what is told names a call or a ticket, and says what may be said of that: `of_ticket`
    is nothing for a call, of `of_call` something."""
    if (call_id is None) == (ticket is None):
        raise ValueError("name either call_id or ticket")
    if ticket is not None:
        return
    if any(each is not None for each in of_ticket):
        raise ValueError("status and at are of tickets")
    if all(each is None for each in of_call):
        raise ValueError("say what the call was worth: accepted, value_usd or label")


def add(conn: Connection[Any], outcome: Outcome) -> bool:
    """Keep it; whether it is new. Raises `NotFound` (`call_unknown`), `Conflict` (`outcome_differs`, `_twice`)."""
    parameters = msgspec.structs.asdict(outcome)
    new = conn.execute(_ADD, parameters).rowcount == 1
    if not new:
        _judge(conn.execute(_SAME if outcome.named else _CALL, parameters).fetchone(), outcome)
    return new


def whose(conn: Connection[Any], calls: Collection[UUID]) -> Whose:
    """Of those that are in the ledger."""
    rows = conn.execute("SELECT id, workload, person_id FROM call WHERE id = ANY(%s)", (list(calls),)).fetchall()
    return {id: (workload, person) for id, workload, person in rows}


def accepted_before(conn: Connection[Any], call_id: UUID) -> bool:
    """Whether anybody said that it was accepted."""
    said = conn.execute("SELECT 1 FROM outcome WHERE call_id = %s AND accepted LIMIT 1", (call_id,)).fetchone()
    return said is not None


def take_reviews(conn: Connection[Any], since: datetime) -> int:
    """What people decided of answers that waited for them, and their thumbs, as outcomes of those calls, each once; how
    many were new. What is of a call that is not in the ledger yet is taken the next time, as long as it was said after
    `since`."""
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
    """As `add`, beside a request path; the connection is in autocommit mode."""
    parameters = msgspec.structs.asdict(outcome)
    if (await conn.execute(_ADD, parameters)).rowcount != 1:
        _judge(await (await conn.execute(_SAME if outcome.named else _CALL, parameters)).fetchone(), outcome)


def _judge(found: tuple[Any, ...] | None, outcome: Outcome) -> None:
    """`found`: whether its id said the same, or without an id of the sender that the call is there."""
    if found is None:
        of = f" of the workload {outcome.workload}" if outcome.workload else ""
        raise NotFound(
            f"there is no call {outcome.call_id}{of}",
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
