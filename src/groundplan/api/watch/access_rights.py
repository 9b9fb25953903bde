"""Findings about rights: emergency rights that run or were not reviewed, and the review of all rights when due."""

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
REVIEW_INTERVAL = timedelta(days=90)
ANNOUNCED_AHEAD = timedelta(days=14)
REVIEW_WITHIN = timedelta(days=7)
EMERGENCY = "identity.emergency"
REVIEW = "identity.access_review"


def update_findings(services: Services) -> None:
    """Bring the findings up to date."""
    with services.transaction() as conn:
        update_rights_findings(conn, services.clock.now())


def update_rights_findings(conn: Connection[Any], now: datetime) -> None:
    """As `update_findings`, in the caller's transaction."""
    finding_store.lock_kind(conn, EMERGENCY)
    finding_store.replace_findings(
        conn, [*_emergency_findings(conn, now), *_review_findings(conn, now)], kinds=(EMERGENCY, REVIEW)
    )


def next_review_day(conn: Connection[Any]) -> date | None:
    """The day of the next review of all rights; None before anybody is declared."""
    last = rights_store.last_access_review(conn)
    if last is not None:
        return last[2]
    first = rights_store.first_person_at(conn)
    return None if first is None else (first + REVIEW_INTERVAL).date()


def _emergency_findings(conn: Connection[Any], now: datetime) -> Iterator[Finding]:
    for appointment in rights_store.appointments(conn):
        if appointment.role == "emergency" and appointment.reviewed_at is None:
            yield _emergency_finding(conn, appointment, now)


def _emergency_finding(conn: Connection[Any], appointment: Appointment, now: datetime) -> Finding:
    owner = people.person(conn, appointment.person_id)
    name = "somebody" if owner is None else owner.name
    is_over = appointment.is_over(now)
    message = f"{name} took emergency rights at {appointment.begins:%d %b %H:%M} UTC: {appointment.reason}"
    return Finding(
        kind=EMERGENCY,
        severity="high" if is_over else "critical",
        subject=f"person/{appointment.person_id}",
        mark=str(appointment.id),
        message=message if is_over else f"{message}. They end at {appointment.ends:%H:%M}.",
        hint="Somebody else with the duty security or compliance reviews it: Governance, Rights."
        if is_over
        else "Ask whether that is intended; security or compliance can end it: Governance, Rights.",
        due=(appointment.ends + REVIEW_WITHIN).date(),
    )


def _review_findings(conn: Connection[Any], now: datetime) -> Iterator[Finding]:
    day = next_review_day(conn)
    if day is None or day > (now + ANNOUNCED_AHEAD).date():
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
