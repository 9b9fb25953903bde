"""Findings: listing them by domain and subject, closing and snoozing one."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

from fastapi import Query
from psycopg import Connection
from pydantic import AwareDatetime, BaseModel, ConfigDict, StringConstraints

from groundplan.api.access.protected_routes import protected_router
from groundplan.api.caller import Caller, SignedIn, can_read_all, require_duty
from groundplan.api.context import ServicesDep
from groundplan.api.knowledge import ownership
from groundplan.api.knowledge.quotes import with_quotes
from groundplan.catalog.people import DUTIES
from groundplan.core.audit.store import record
from groundplan.core.errors import Denied, Invalid
from groundplan.ledger import finding_store

router = protected_router("findings")
_CURSOR_FORMAT = re.compile(r"^[0-9]-[0-9]{1,16}-[0-9a-f]{32}$")
_BEGIN = datetime(1970, 1, 1, tzinfo=UTC)
QUIET, QUIET_CRITICAL = timedelta(days=90), timedelta(days=1)


class Close(BaseModel):
    """The reason why a finding is closed."""

    model_config = ConfigDict(extra="forbid")
    reason: Annotated[str, StringConstraints(min_length=1, max_length=500, strip_whitespace=True)]


class Quiet(BaseModel):
    """The time until which a finding is snoozed."""

    model_config = ConfigDict(extra="forbid")
    until: AwareDatetime


@router.get("/findings")
def findings(
    services: ServicesDep, caller: SignedIn, kind: str = "", subject: str = "", below: str = "", closed: bool = False,
    limit: int = 200, before: Annotated[str | None, Query(pattern=_CURSOR_FORMAT.pattern)] = None,
) -> dict[str, Any]:  # fmt: skip
    """List findings, most severe first; for the next page pass `next` as `before`.

    `kind` is a prefix such as `knowledge.`, `below` a subject together with everything inside it; `closed` includes
    closed findings. Quotes from a document are shown only to people who may read it and to the owner of the finding.
    Callers without a duty get only their own findings.
    """
    page_size = max(1, min(limit, 1000))
    with services.transaction() as conn:
        rows = finding_store.list_findings(
            conn, kinds=[kind] if kind else [], subject=subject, below=below, closed=closed, limit=page_size + 1,
            behind=None if before is None else _parse_cursor(before),
            only=ownership.own_findings(conn, caller, closed=closed),
        )  # fmt: skip
        shown = with_quotes(conn, caller, rows[:page_size])
    return {"findings": shown, "next": _cursor(rows[page_size - 1]) if len(rows) > page_size else None}


def _cursor(row: dict[str, Any]) -> str:
    """The position of a finding in the list; it stays valid while other findings open and close."""
    position = finding_store.ListPosition.of(row)
    return f"{position.rank}-{round((position.at - _BEGIN) / timedelta(microseconds=1))}-{position.id.hex}"


def _parse_cursor(text: str) -> finding_store.ListPosition:
    rank, at, id = text.split("-")
    return finding_store.ListPosition(int(rank), _BEGIN + timedelta(microseconds=int(at)), UUID(id))


@router.get("/findings/kinds")
def kinds(services: ServicesDep, caller: SignedIn, kind: str = "", below: str = "") -> dict[str, Any]:
    """The number of open findings of each kind, among those that `GET /findings` shows to the caller."""
    with services.transaction() as conn:
        return {"kinds": finding_store.count_by_kind(conn, kind, below, ownership.own_findings(conn, caller))}


@router.post("/findings/{finding_id}/close")
def close(finding_id: UUID, body: Close, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Close a finding. Permitted for its owner, for people who answer for its document, and for holders of a duty for
    its subject. It is opened again if the problem still exists."""
    with services.transaction() as conn:
        finding = finding_store.get_finding(conn, finding_id)
        _require_may_settle(conn, caller, finding)
        finding_store.close(conn, finding_id, str(caller.actor), body.reason)
        details = {"finding": str(finding_id), "kind": finding["kind"], "reason": body.reason}
        record(conn, action="finding.close", actor=caller.actor, subject=finding["subject"], detail=details)
    return {"id": finding_id, "closed": True}


@router.post("/findings/{finding_id}/quiet")
def quiet(finding_id: UUID, body: Quiet, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Snooze a finding: it stays open, but is not shown until the given time, at most 90 days ahead, or one day if it
    is critical."""
    now = services.clock.now()
    with services.transaction() as conn:
        finding = finding_store.get_finding(conn, finding_id)
        _require_may_settle(conn, caller, finding)
        _check_until(body.until, now, finding["severity"])
        finding_store.snooze(conn, finding_id, body.until)
        details = {"finding": str(finding_id), "kind": finding["kind"], "until": body.until.isoformat()}
        record(conn, action="finding.quiet", actor=caller.actor, subject=finding["subject"], detail=details)
    return {"id": finding_id, "until": body.until}


def _require_may_settle(conn: Connection[Any], caller: Caller, finding: dict[str, Any]) -> None:
    """Raise `Denied` unless the caller may close or snooze the finding (`duty_missing`; `own_finding` for one about the
    caller, such as an emergency). Callers without a duty get `NotFound` for findings of others."""
    if caller.person is not None and finding["subject"] == f"person/{caller.person}":
        raise Denied("nobody may settle a finding about themselves", code="own_finding", hint="Ask a colleague.")
    if ownership.is_own_finding(conn, caller, finding):
        return
    if not can_read_all(caller) and not caller.scopes:
        raise finding_store.finding_unknown(finding["id"])
    require_duty(caller, frozenset(DUTIES), finding["subject"])


def _check_until(until: datetime, now: datetime, severity: str) -> None:
    """Raise `Invalid` (`quiet_past`, `quiet_long`) for a time that is past or too far ahead."""
    if until <= now:
        raise Invalid("that time is in the past", code="quiet_past", hint="Name a time in the future.")
    longest = QUIET_CRITICAL if severity == "critical" else QUIET
    if until > now + longest:
        message = f"a {severity} finding is snoozed for at most {longest.days} day{'s' if longest.days > 1 else ''}"
        raise Invalid(message, code="quiet_long", hint="Close it, or snooze it again then.")
