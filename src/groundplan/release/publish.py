"""From a plan to the blueprint that is served: sign and store it with its audit entry, request the missing approvals.

Each function works in the caller's transaction, which holds the release lock of `store`. Why a blueprint is made is not
decided here: see `service` and `approvals`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from types import MappingProxyType
from typing import Any
from uuid import UUID

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from psycopg import Connection

from groundplan.blueprint import model as bp
from groundplan.blueprint.artifact import decode, digest, encode, sign
from groundplan.catalog.loader import load_served
from groundplan.catalog.validation_errors import error_with_problems
from groundplan.catalog.workspace import Workspace
from groundplan.core import audit, canonical
from groundplan.core.clock import Clock
from groundplan.core.errors import Invalid, NotFound
from groundplan.governance import service as governance
from groundplan.governance.approved_parts import PART_KINDS
from groundplan.governance.model import ApprovalStatus, Change, Need
from groundplan.governance.service import UnapprovedContent
from groundplan.governance.validity import Term, validity_term
from groundplan.knowledge.governance.declared_store import put_declared_sources
from groundplan.placement.solve import verify_blueprint
from groundplan.release import people, store
from groundplan.release.compile.grants import source_grants
from groundplan.release.compile.pricing import Prices, rates_with_successors
from groundplan.release.model import Current, PendingChange, Plan, ReleaseResult, effective_terms, field_json
from groundplan.release.observed import read_observations
from groundplan.release.owners import SuccessionDeadlines
from groundplan.release.plan import plan
from groundplan.release.store import StoredBlueprint
from groundplan.release.warnings import unknown_subjects

Files = Mapping[str, str]
"""Relative path -> YAML text of every file of a workspace."""
MAX_LISTED = 200
"""The most changes that an audit entry names."""


def key_id(key: Ed25519PublicKey) -> str:
    """First 16 hexadecimal digits of the SHA-256 of a public key."""
    return canonical.digest(key.public_bytes_raw())[:16]


@dataclass(frozen=True, slots=True)
class Signing:
    """What a release needs besides the database: the key for blueprints, the clock, the prices."""

    key: Ed25519PrivateKey
    clock: Clock
    prices: Prices = rates_with_successors
    demo: bool = False

    @property
    def key_id(self) -> str:
        return key_id(self.key.public_key())


@dataclass(frozen=True, slots=True)
class Release:
    """Who releases which files, when and why, after the blueprint `previous` (None at genesis), in one transaction."""

    conn: Connection[Any]
    signing: Signing
    previous: StoredBlueprint | None
    actor: str
    reason: str
    files: Files
    at: datetime
    rollback_of: int | None = None


def require_newest(conn: Connection[Any]) -> StoredBlueprint:
    """The blueprint that is served. Raises `NotFound` (`not_started`) before genesis."""
    stored = store.newest_blueprint(conn)
    if stored is None:
        raise NotFound(
            "there is no blueprint yet", code="not_started", hint="Start with `groundplan up --workspace DIR`."
        )
    return stored


def load_current(stored: StoredBlueprint) -> Current:
    """Decode a stored blueprint and load the workspace that it was made from."""
    return Current(decode(stored.body), load_served(stored.sources))


def make_plan(
    conn: Connection[Any],
    signing: Signing,
    workspace: Workspace,
    served: Current | None,
    standing: ApprovalStatus,
    departed: SuccessionDeadlines = MappingProxyType({}),
) -> Plan:
    """The plan of a workspace as of now, with what the gateways measured of its calls. Changes nothing; the plan may
    have refusals."""
    now = signing.clock.now()
    result = plan(
        workspace,
        served,
        today=now.date(),
        standing=standing,
        prices=signing.prices,
        demo=signing.demo,
        departed=departed,
        observed=read_observations(conn, workspace, now),
    )
    return replace(result, warnings=(*result.warnings, *unknown_subjects.warnings(conn, workspace)))


def require_accepted(result: Plan) -> Plan:
    """Return the plan. Raises `Invalid` with every refusal at its place."""
    if result.refusals:
        raise error_with_problems(result.refusals)
    return result


def require_verified(blueprint: bp.Blueprint) -> bp.Blueprint:
    """Return the blueprint. Raises `Invalid` where the verifier finds a broken rule."""
    problems = tuple(verify_blueprint(blueprint))
    if problems:
        raise error_with_problems(problems)
    return blueprint


def publish(release: Release, workspace: Workspace, result: Plan, settled: Change | None = None) -> ReleaseResult:
    """Store the blueprint of a plan, nominate owners, and leave exactly the plan's pending changes waiting.

    `settled` is the change whose last approval made this release. Raises `Invalid` for a plan without a blueprint.
    """
    if result.blueprint is None:
        raise Invalid("this plan is refused", code="plan_refused", hint="Look at its refusals.")
    blueprint = msgspec.structs.replace(result.blueprint, rollback_of=release.rollback_of)
    changed = [f"{item.type} {item.subject}" for item in result.differences]
    number = sign_and_store(release, blueprint, changed, [item.subject for item in result.pending])
    if settled is not None:
        serves = number or (release.previous.number if release.previous else None)
        until = approval_term(Current(blueprint, workspace), settled, release.at)
        governance.apply_change(release.conn, settled, serves, until, at=release.at)
    return ReleaseResult(number, request_approvals(release, result.pending, blueprint, workspace))


def sign_and_store(
    release: Release, blueprint: bp.Blueprint, changed: list[str], pending: Sequence[str] = ()
) -> int | None:
    """Sign and store a blueprint with its audit entry and return its number; None where it equals the served one."""
    previous, conn = release.previous, release.conn
    if previous is not None and release.rollback_of is None:
        renumbered = msgspec.structs.replace(blueprint, number=previous.number, rollback_of=previous.rollback_of)
        if encode(renumbered) == previous.body:
            return None
    body = encode(blueprint)
    store.insert_blueprint(
        conn,
        StoredBlueprint(
            number=blueprint.number,
            body=body,
            digest=digest(body),
            signature=sign(body, release.signing.key),
            key_id=release.signing.key_id,
            sources=release.files,
            created_at=release.at,
            created_by=release.actor,
            reason=release.reason,
            rollback_of=release.rollback_of,
            genesis=previous is None,
        ),
    )
    put_declared_sources(conn, blueprint.sources)
    store.set_source_grants(conn, source_grants(blueprint))
    store.set_workload_needs(conn, blueprint.workloads)
    store.set_glossary(conn, blueprint.terms)
    kind = "genesis" if previous is None else "rolled_back" if release.rollback_of is not None else "applied"
    audit.record(
        conn,
        action=f"blueprint.{kind}",
        actor=release.actor,
        subject=f"blueprint/{blueprint.number}",
        detail={
            "digest": digest(body),
            "reason": release.reason,
            "rollback_of": release.rollback_of,
            "pending": list(pending[:MAX_LISTED]),
            "changes": changed[:MAX_LISTED],
        },
        at=release.at,
    )
    return blueprint.number


def request_approvals(
    release: Release, pending: Iterable[PendingChange], blueprint: bp.Blueprint, workspace: Workspace
) -> tuple[tuple[UUID, tuple[Need, ...]], ...]:
    """Leave exactly these changes waiting, and give duties to the owners of what is served; (change id, needs) each."""
    seats = effective_terms(Current(blueprint, workspace)).seats
    waiting = governance.set_pending_changes(
        release.conn,
        release.actor,
        [_approval_request(item, seats) for item in pending],
        base=release.previous.number if release.previous else 0,
        sources=release.files,
        at=release.at,
    )
    held = frozenset(change.subject for change in waiting)
    people.nominate(release.conn, release.actor, workspace, blueprint, held)
    return tuple((change.id, change.open_needs) for change in waiting)


def _approval_request(item: PendingChange, seats: int) -> UnapprovedContent:
    """The request for approvals of one pending change. Only workloads need `seats` approvers; others need one."""
    summary = {"fields": [field_json(each) for each in item.fields]}
    needed = seats if item.subject.startswith("workload/") else 1
    return UnapprovedContent(item.subject, item.digest, item.needs, summary, needed)


def approval_term(served: Current, change: Change, at: datetime) -> Term:
    """Until when an approval that is given `at` this moment holds, by the company's terms and what it approves."""
    terms = effective_terms(served)
    name = change.subject.partition("/")[2]
    found = [item for item in served.blueprint.workloads if change.type == "workload" and item.name == name]
    stage, sensitivity = (found[0].stage, found[0].sensitivity) if found else ("", "")
    if change.type in PART_KINDS:  # grace is the calendar's here; gateways give none to restricted data
        stage = "production"
    held = validity_term(
        at.date(), valid_days=terms.valid_days, grace_days=terms.grace_days, stage=stage, sensitivity=sensitivity
    )
    return held.capped_at(change.own_end_date)
