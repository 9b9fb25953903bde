"""Findings: what is wrong now, by domain and subject, and settling or silencing one of them."""

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
    """Why it is settled."""

    model_config = ConfigDict(extra="forbid")
    reason: Annotated[str, StringConstraints(min_length=1, max_length=500, strip_whitespace=True)]


class Quiet(BaseModel):
    """Until when it is not shown."""

    model_config = ConfigDict(extra="forbid")
    until: AwareDatetime


@router.get("/findings")
def findings(
    services: ServicesDep, caller: SignedIn, kind: str = "", subject: str = "", below: str = "", closed: bool = False,
    limit: int = 200, before: Annotated[str | None, Query(pattern=_CURSOR_FORMAT.pattern)] = None,
) -> dict[str, Any]:  # fmt: skip
    """The gravest first. `kind` is a beginning such as `knowledge.`, `below` a subject with all that is in it; `closed`
    adds those that are settled. What one quotes of a document is told to whoever may read that, and to its owner.
    Continue with `before` = `next`. Who holds no duty has those that are theirs."""
    most = max(1, min(limit, 1000))
    with services.transaction() as conn:
        found = finding_store.list_findings(
            conn, kinds=[kind] if kind else [], subject=subject, below=below, closed=closed, limit=most + 1,
            behind=None if before is None else _parse_cursor(before),
            only=ownership.own_findings(conn, caller, closed=closed),
        )  # fmt: skip
        told = with_quotes(conn, caller, found[:most])
    return {"findings": told, "next": _cursor(found[most - 1]) if len(found) > most else None}


def _cursor(row: dict[str, Any]) -> str:
    """The cursor of a finding in the list: stable while other findings open and close."""
    place = finding_store.ListPosition.of(row)
    return f"{place.rank}-{round((place.at - _BEGIN) / timedelta(microseconds=1))}-{place.id.hex}"


def _parse_cursor(text: str) -> finding_store.ListPosition:
    rank, at, id = text.split("-")
    return finding_store.ListPosition(int(rank), _BEGIN + timedelta(microseconds=int(at)), UUID(id))


@router.get("/findings/kinds")
def kinds(services: ServicesDep, caller: SignedIn, kind: str = "", below: str = "") -> dict[str, Any]:
    """How many of each kind are open, of those that `GET /findings` shows."""
    with services.transaction() as conn:
        return {"kinds": finding_store.count_by_kind(conn, kind, below, ownership.own_findings(conn, caller))}


@router.post("/findings/{finding_id}/close")
def close(finding_id: UUID, body: Close, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """It is settled, says its owner, who answers for its document, or whoever holds a duty for its subject. One that
    still holds comes back."""
    with services.transaction() as conn:
        found = finding_store.get_finding(conn, finding_id)
        _require_settler(conn, caller, found)
        finding_store.close(conn, finding_id, str(caller.actor), body.reason)
        details = {"finding": str(finding_id), "kind": found["kind"], "reason": body.reason}
        record(conn, action="finding.close", actor=caller.actor, subject=found["subject"], detail=details)
    return {"id": finding_id, "closed": True}


@router.post("/findings/{finding_id}/quiet")
def quiet(finding_id: UUID, body: Quiet, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """It stays open and is not shown before then: at most 90 days, a critical one for a day."""
    now = services.clock.now()
    with services.transaction() as conn:
        found = finding_store.get_finding(conn, finding_id)
        _require_settler(conn, caller, found)
        _check_until(body.until, now, found["severity"])
        finding_store.snooze(conn, finding_id, body.until)
        details = {"finding": str(finding_id), "kind": found["kind"], "until": body.until.isoformat()}
        record(conn, action="finding.quiet", actor=caller.actor, subject=found["subject"], detail=details)
    return {"id": finding_id, "until": body.until}


def _require_settler(conn: Connection[Any], caller: Caller, found: dict[str, Any]) -> None:
    """Raise `Denied` unless the caller may settle the finding (`duty_missing`; `own_finding` for one about the caller,
    such as an emergency). Callers without a duty get `NotFound` for findings of others."""
    if caller.person is not None and found["subject"] == f"person/{caller.person}":
        raise Denied("nobody may settle a finding about themselves", code="own_finding", hint="Ask a colleague.")
    if ownership.is_own_finding(conn, caller, found):
        return
    if not can_read_all(caller) and not caller.scopes:
        raise finding_store.finding_unknown(found["id"])
    require_duty(caller, frozenset(DUTIES), found["subject"])


def _check_until(until: datetime, now: datetime, severity: str) -> None:
    """Raise `Invalid` (`quiet_past`, `quiet_long`) for an end that is past or too far away."""
    if until <= now:
        raise Invalid("that time is in the past", code="quiet_past", hint="Name a time in the future.")
    longest = QUIET_CRITICAL if severity == "critical" else QUIET
    if until > now + longest:
        what = f"a finding that is {severity} is quiet for at most {longest.days} day{'s' if longest.days > 1 else ''}"
        raise Invalid(what, code="quiet_long", hint="Settle it, or review it again then.")
