"""Approvals of what is declared, each in the caller's transaction: given, refused, withdrawn, ended, asked for.

With the last one that a change needs it is decided again by today's rules and served. `governance` keeps the approvals;
the caller commits.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import Any
from uuid import UUID

from psycopg import Connection

from groundplan.blueprint import model as bp
from groundplan.blueprint.artifact import decode
from groundplan.catalog.loader import load_files
from groundplan.catalog.validation_errors import refusal
from groundplan.core import audit
from groundplan.core.errors import NotFound, Problem
from groundplan.governance import approvals
from groundplan.governance import service as governance
from groundplan.governance import store as changes
from groundplan.governance.approvals import Answer, Approver
from groundplan.governance.approved_parts import GATEWAY_KINDS, check_request, highest_prices, served_price
from groundplan.governance.model import REQUEST_DUTIES, ApprovalRequest, ApprovalStatus, Change
from groundplan.release import people, store, units
from groundplan.release.model import Plan, ReleaseResult, effective_terms
from groundplan.release.plan import without_workload
from groundplan.release.publish import (
    Files,
    Release,
    Signing,
    approval_term,
    load_current,
    make_plan,
    publish,
    require_accepted,
    require_newest,
    sign_and_store,
)

_TO_ALL = Answer()

UnapprovedPartsKey = tuple[str, int, ApprovalStatus, date]
"""Digest of a change, number of the blueprint, what approvals say, day."""


def approve(
    conn: Connection[Any], signing: Signing, approver: Approver, change_id: UUID, answer: Answer = _TO_ALL
) -> ReleaseResult:
    """Record an approval. With the last one needed the change is decided again by today's rules and served.

    Raises what `approvals.approve` raises, and `Invalid` where today's rules refuse it (the approval is not kept).
    """
    store.lock_releases(conn)
    stored = require_newest(conn)
    served = load_current(stored)
    at = signing.clock.now()
    separation = served.blueprint.separation
    change = approvals.approve(conn, approver, change_id, answer, separation=separation, at=at)
    if not change.is_complete:
        return ReleaseResult(None, ((change.id, change.open_needs),))
    if change.type in REQUEST_DUTIES or change.renews is not None:
        serves = stored.number if _is_served(served.blueprint, change) else None
        governance.apply_change(conn, change, serves, approval_term(served, change, at), at=at)
        return ReleaseResult(None)
    files = changes.change_sources(conn, change.id)
    workspace = load_files(files)
    result = require_accepted(
        make_plan(conn, signing, workspace, served, governance.approval_status(conn), people.succession_deadlines(conn))
    )
    _require_approved_parts(result, change)
    release = Release(conn, signing, stored, approver.actor, f"approved change {change.id}", files, at)
    return publish(release, workspace, result, settled=change)


def refuse(
    conn: Connection[Any], signing: Signing, approver: Approver | None, change_id: UUID, answer: Answer = _TO_ALL
) -> Change:
    """Refuse a change by a duty of it, or as the operator (None)."""
    separation = load_current(require_newest(conn)).blueprint.separation
    return approvals.refuse(conn, approver, change_id, answer, separation=separation, at=signing.clock.now())


def withdraw(conn: Connection[Any], signing: Signing, actor: str, change_id: UUID) -> ReleaseResult:
    """Take back a request or an approval. Served content that lost an approval is gone from the blueprint made here."""
    store.lock_releases(conn)
    stored = require_newest(conn)
    at = signing.clock.now()
    change, lost = approvals.withdraw(conn, actor, change_id, at=at)
    if lost and change.type in GATEWAY_KINDS:
        return ReleaseResult(None, policy=changes.policy_number(conn))
    if not lost:
        waits = ((change.id, change.open_needs),) if change.state == "pending" else ()
        return ReleaseResult(None, waits)
    reason = f"approval of change {change.id} withdrawn"
    release = Release(conn, signing, stored, actor, reason, stored.sources, at)
    return _release_without(release, decode(stored.body), change)


def request_approval(conn: Connection[Any], signing: Signing, actor: str, asked: ApprovalRequest) -> Change:
    """Ask for something beside the blueprint (`governance.request_approval`), under the company's present terms and, of
    a model, at its present price.

    Raises `Invalid` (`approval_kind`, `approval_reach`) besides.
    """
    check_request(asked.kind, asked.subject, asked.declaration)
    served = load_current(require_newest(conn))
    if asked.kind == "model":
        digest = governance.request_digest(asked.kind, asked.subject, asked.declaration)
        asked = replace(asked, price=served_price(served.blueprint, digest))
    return governance.request_approval(conn, actor, asked, seats=effective_terms(served).seats, at=signing.clock.now())


def request_part_approvals(
    conn: Connection[Any], signing: Signing, actor: str, reason: str, *, workload: str | None, files: Files | None
) -> list[Change]:
    """Ask for whatever production uses, or is declared to use (`files`; None: as served and as it waits), that has no
    approval which holds. Only of one `workload` where it is named. What was asked for already is not asked again.

    Raises `Invalid` for files that cannot be read, `NotFound` (`workload_unknown`).
    """
    stored = require_newest(conn)
    served = load_current(stored)
    workspace = served.workspace if files is None else load_files(files)
    result = make_plan(conn, signing, workspace, served, governance.approval_status(conn))
    known = {item.workload for item in result.placements}
    if workload is not None and workload not in known:
        raise NotFound(
            f"there is no workload {workload}", code="workload_unknown", hint=f"Name one of {', '.join(sorted(known))}."
        )
    found = [lapse.part for name, lapse in result.lapses if workload in (None, name)]
    wanted = {part.digest: part for part in found}
    price = {digest: highest_prices(part.price for part in found if part.digest == digest) for digest in wanted}
    seats, at = effective_terms(served).seats, signing.clock.now()
    return [
        governance.request_approval(
            conn,
            actor,
            ApprovalRequest(part.kind, part.subject, part.declaration, reason, price[part.digest]),
            seats=seats,
            at=at,
        )
        for part in wanted.values()
    ]


def unapproved_parts_key(conn: Connection[Any], signing: Signing, change_id: UUID) -> UnapprovedPartsKey | None:
    """Return what `unapproved_parts` depends on: its result is the same while this key is; None where no part can be
    unapproved."""
    change = changes.change_by_id(conn, change_id, lock=False)
    stored = store.newest_blueprint(conn)
    if change is None or stored is None or change.state != "pending" or change.type != "workload" or change.renews:
        return None
    return change.digest, stored.number, governance.approval_status(conn), signing.clock.now().date()


def unapproved_parts(conn: Connection[Any], signing: Signing, change_id: UUID) -> tuple[Problem, ...]:
    """What a change of a workload that waits uses without an approval, as its last approval would be refused for. It
    is planned, which takes seconds for thousands, so that nobody who decides waits meanwhile."""
    change = changes.change_by_id(conn, change_id, lock=False)
    stored = store.newest_blueprint(conn)
    if change is None or stored is None or change.state != "pending" or change.type != "workload" or change.renews:
        return ()
    served, files = load_current(stored), changes.change_sources(conn, change.id)
    workspace = served.workspace if files == stored.sources else load_files(files)
    result = make_plan(conn, signing, workspace, served, governance.approval_status(conn))
    return tuple(each for item in result.pending if item.subject == change.subject for each in item.missing)


def _require_approved_parts(result: Plan, change: Change) -> None:
    """Refuse the last approval of what uses something that nobody has approved."""
    missing = tuple(problem for item in result.pending if item.subject == change.subject for problem in item.missing)
    if missing:
        raise refusal(missing)


def expire_approval(conn: Connection[Any], signing: Signing, change_id: UUID) -> ReleaseResult:
    """End an approval whose time and grace are over, where nobody has ended or renewed it meanwhile. Served content is
    gone from the blueprint made here."""
    store.lock_releases(conn)  # before the change, as by whoever approves or withdraws it
    change = changes.change_by_id(conn, change_id)
    if change is None or change.state != "applied":
        return ReleaseResult(None)
    stored = require_newest(conn)
    at = signing.clock.now()
    governance.expire_change(conn, change, at=at)
    if change.type != "workload":
        return ReleaseResult(None)
    reason = f"approval of change {change.id} expired"
    release = Release(conn, signing, stored, audit.SYSTEM, reason, stored.sources, at)
    return _release_without(release, decode(stored.body), change)


def _release_without(release: Release, served: bp.Blueprint, change: Change) -> ReleaseResult:
    """Release what is served without what a change was about; nothing where that is not served."""
    if not _is_served(served, change):
        return ReleaseResult(None)
    blueprint = without_workload(served, change.subject.partition("/")[2])
    return ReleaseResult(sign_and_store(release, blueprint, [f"removed {change.subject}"]))


def _is_served(blueprint: bp.Blueprint, change: Change) -> bool:
    return (change.subject, change.digest) in set(units.served_units(blueprint))
