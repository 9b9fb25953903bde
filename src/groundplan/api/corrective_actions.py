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
    """A correction to make: its description (`says`), subject, owner and due day. `control`: `FRAMEWORK/CONTROL`, or
    empty."""

    subject: str
    says: str
    control: str
    owner: str
    due: date


def add_action(conn: Connection[Any], actor: str, action: CorrectiveAction, now: datetime) -> UUID:
    """Add a corrective action; returns the id of its finding. Raises `NotFound` (`unknown_person`), `Invalid`
    (`action_due`)."""
    owner = people.find_person(conn, action.owner)
    if action.due < now.date():
        raise Invalid(f"{action.due} is in the past", code="action_due", hint="Name a day in the future.")
    finding = corrective_action(
        action.subject, action.says, action.control, owner.email, action.due, str(new_id()), now.date()
    )
    id, _ = finding_store.report(conn, finding)
    detail = {"finding": str(id), "control": action.control, "due": action.due.isoformat()}
    record(conn, action="action.added", actor=actor, subject=action.subject, detail=detail)
    return id


def raise_overdue(conn: Connection[Any], now: datetime) -> None:
    """Raise the severity of overdue actions."""
    for finding in finding_store.list_findings(conn, kinds=[ACTION], limit=1000):
        if finding["due"] < now.date() and finding["severity"] != "high":
            detail = finding["detail"]
            finding_store.report(
                conn,
                corrective_action(
                    finding["subject"], detail["says"], detail["control"], finding["owner"], finding["due"],
                    finding["mark"], now.date(),
                ),
            )  # fmt: skip
