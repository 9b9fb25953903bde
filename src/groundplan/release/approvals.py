"""Approvals of declared content, in the caller's transaction: approve, refuse, withdraw, expire, request.

With the last approval that a change needs, the change is decided again by today's rules and served. `governance` stores
the approvals; the caller commits.
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
from groundplan.catalog.validation_errors import error_with_problems
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
"""(digest of a change, number of the blueprint, standing of approvals, day): all that `unapproved_parts` depends on."""


def approve(
    conn: Connection[Any], signing: Signing, approver: Approver, change_id: UUID, answer: Answer = _TO_ALL
) -> ReleaseResult:
    """Record an approval. With the last one needed, the change is decided again by today's rules and served.

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
    """Refuse a change as the holder of one of its duties, or as the operator (`approver` None)."""
    separation = load_current(require_newest(conn)).blueprint.separation
    return approvals.refuse(conn, approver, change_id, answer, separation=separation, at=signing.clock.now())


def withdraw(conn: Connection[Any], signing: Signing, actor: str, change_id: UUID) -> ReleaseResult:
    """Withdraw a request or an approval. Served content that lost its approval is removed with a new blueprint."""
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
    """Request approvals of all parts that production uses, or would use with `files` (None: as served and pending),
    without a valid approval; of one `workload` only, if given. Existing requests are returned, not repeated.

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
    """A key that changes whenever the result of `unapproved_parts` may change; None where nothing can be missing."""
    change = changes.change_by_id(conn, change_id, lock=False)
    stored = store.newest_blueprint(conn)
    if change is None or stored is None or change.state != "pending" or change.type != "workload" or change.renews:
        return None
    return change.digest, stored.number, governance.approval_status(conn), signing.clock.now().date()


def unapproved_parts(conn: Connection[Any], signing: Signing, change_id: UUID) -> tuple[Problem, ...]:
    """The parts that a pending change of a workload uses without an approval; its last approval would be refused for
    them. This makes a plan, which takes seconds for thousands of workloads, without holding the release lock."""
    change = changes.change_by_id(conn, change_id, lock=False)
    stored = store.newest_blueprint(conn)
    if change is None or stored is None or change.state != "pending" or change.type != "workload" or change.renews:
        return ()
    served, files = load_current(stored), changes.change_sources(conn, change.id)
    workspace = served.workspace if files == stored.sources else load_files(files)
    result = make_plan(conn, signing, workspace, served, governance.approval_status(conn))
    return tuple(each for item in result.pending if item.subject == change.subject for each in item.missing)


def _require_approved_parts(result: Plan, change: Change) -> None:
    """Raise `Invalid` where the change uses parts that nobody has approved."""
    missing = tuple(problem for item in result.pending if item.subject == change.subject for problem in item.missing)
    if missing:
        raise error_with_problems(missing)


def expire_approval(conn: Connection[Any], signing: Signing, change_id: UUID) -> ReleaseResult:
    """End an approval whose time and grace are over, unless it was ended or renewed meanwhile. Served content is
    removed with a new blueprint."""
    store.lock_releases(conn)  # before locking the change, in the same order as approve and withdraw
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
    """Release the served blueprint without the workload of a change; no release where it is not served."""
    if not _is_served(served, change):
        return ReleaseResult(None)
    blueprint = without_workload(served, change.subject.partition("/")[2])
    return ReleaseResult(sign_and_store(release, blueprint, [f"removed {change.subject}"]))


def _is_served(blueprint: bp.Blueprint, change: Change) -> bool:
    return (change.subject, change.digest) in set(units.served_units(blueprint))
