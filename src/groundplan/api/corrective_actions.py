"""Corrective actions: findings with an owner and a due day, raised to high severity when that day is over."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID

from psycopg import Connection

from groundplan.core.audit.store import record
from groundplan.core.errors import Invalid
from groundplan.core.ids import new_id
from groundplan.governance.controls.drift import ACTION, corrective_action
from groundplan.identity import service as people
from groundplan.ledger import finding_store


@dataclass(frozen=True, slots=True)
class CorrectiveAction:
    """What has to be corrected (`says`), of which subject, by whom, until when. `control`: `FRAMEWORK/CONTROL`, or
    empty."""

    subject: str
    says: str
    control: str
    owner: str
    due: date


def add_action(conn: Connection[Any], actor: str, wanted: CorrectiveAction, now: datetime) -> UUID:
    """Add a corrective action; returns the id of its finding. Raises `NotFound` (`unknown_person`), `Invalid`
    (`action_due`)."""
    owner = people.find_person(conn, wanted.owner)
    if wanted.due < now.date():
        raise Invalid(f"{wanted.due} is in the past", code="action_due", hint="Name a day in the future.")
    made = corrective_action(
        wanted.subject, wanted.says, wanted.control, owner.email, wanted.due, str(new_id()), now.date()
    )
    id, _ = finding_store.report(conn, made)
    detail = {"finding": str(id), "control": wanted.control, "due": wanted.due.isoformat()}
    record(conn, action="action.added", actor=actor, subject=wanted.subject, detail=detail)
    return id


def raise_overdue(conn: Connection[Any], now: datetime) -> None:
    """Raise the severity of overdue actions."""
    for each in finding_store.list_findings(conn, kinds=[ACTION], limit=1000):
        if each["due"] < now.date() and each["severity"] != "high":
            said = each["detail"]
            finding_store.report(
                conn,
                corrective_action(
                    each["subject"], said["says"], said["control"], each["owner"], each["due"], each["mark"], now.date()
                ),
            )  # fmt: skip
