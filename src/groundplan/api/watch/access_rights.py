"""Findings about rights: an emergency that runs or was not reviewed, and the review of everybody's rights when due."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, timedelta
from typing import Any

from psycopg import Connection

from groundplan.api.context import Services
from groundplan.identity import rights_store
from groundplan.identity import store as people
from groundplan.identity.model import Appointment
from groundplan.ledger import finding_store
from groundplan.ledger.finding import Finding

LOOK_SECONDS = 60.0
EVERY = timedelta(days=90)
AHEAD = timedelta(days=14)
REVIEW_WITHIN = timedelta(days=7)
EMERGENCY = "identity.emergency"
REVIEW = "identity.access_review"


def look(services: Services) -> None:
    """Bring the findings up to date."""
    with services.transaction() as conn:
        tell(conn, services.clock.now())


def tell(conn: Connection[Any], now: datetime) -> None:
    """As `look`, in the caller's transaction."""
    finding_store.hold(conn, EMERGENCY)
    finding_store.tell_all(conn, [*_emergencies(conn, now), *_review(conn, now)], kinds=(EMERGENCY, REVIEW))


def due(conn: Connection[Any]) -> date | None:
    """When everybody's rights are to be looked through next; None where nobody has been declared yet."""
    last = rights_store.last_access_review(conn)
    if last is not None:
        return last[2]
    first = rights_store.first_person_at(conn)
    return None if first is None else (first + EVERY).date()


def _emergencies(conn: Connection[Any], now: datetime) -> Iterator[Finding]:
    for made in rights_store.appointments(conn):
        if made.role == "emergency" and made.reviewed_at is None:
            yield _emergency(conn, made, now)


def _emergency(conn: Connection[Any], made: Appointment, now: datetime) -> Finding:
    owner = people.person(conn, made.person_id)
    name = "somebody" if owner is None else owner.name
    over = made.is_over(now)
    told = f"{name} took emergency rights at {made.begins:%d %b %H:%M} UTC: {made.reason}"
    return Finding(
        kind=EMERGENCY,
        severity="high" if over else "critical",
        subject=f"person/{made.person_id}",
        mark=str(made.id),
        message=told if over else f"{told}. They end at {made.ends:%H:%M}.",
        hint="Somebody else with the duty security or compliance says what it was: Governance, Rights."
        if over
        else "Ask whether that is intended; security or compliance can end it: Governance, Rights.",
        due=(made.ends + REVIEW_WITHIN).date(),
    )


def _review(conn: Connection[Any], now: datetime) -> Iterator[Finding]:
    day = due(conn)
    if day is None or day > (now + AHEAD).date():
        return
    late = day < now.date()
    yield Finding(
        kind=REVIEW,
        severity="high" if late else "low",
        subject="company",
        message=f"Everybody's rights {'were' if late else 'are'} to be reviewed by {day}.",
        hint="Review them under Governance, Rights: remove what is no longer needed, then complete the review.",
        due=day,
    )
