"""From a plan to the blueprint that is served: signed and stored with its audit entry, approvals of the rest requested.

Each function works in the caller's transaction, who holds the lock of `store`. Why a blueprint is made is not decided
here: see `service` and `approvals`.
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
from groundplan.catalog.validation_errors import refusal
from groundplan.catalog.workspace import Workspace
from groundplan.core import audit, canonical
from groundplan.core.clock import Clock
from groundplan.core.errors import Invalid, NotFound
from groundplan.governance import service as governance
from groundplan.governance.approved_parts import KINDS
from groundplan.governance.model import Change, Need, Standing
from groundplan.governance.service import Wanted
from groundplan.governance.validity import Term, term_of
from groundplan.knowledge.governance.declared_store import declare
from groundplan.placement.solve import verify
from groundplan.release import people, store
from groundplan.release.compile.grants import of_sources
from groundplan.release.compile.pricing import Prices, dated
from groundplan.release.model import Applied, Current, Pending, Plan, field_json, in_force
from groundplan.release.observed import observed
from groundplan.release.owners import Left
from groundplan.release.plan import plan
from groundplan.release.store import StoredBlueprint
from groundplan.release.warnings import unknown_subjects

Files = Mapping[str, str]
"""Relative path -> YAML text of every file of a workspace."""
LISTED = 200
"""So many changes an audit entry names at most."""


def key_id(key: Ed25519PublicKey) -> str:
    """First 16 hexadecimal digits of the SHA-256 of a public key."""
    return canonical.digest(key.public_bytes_raw())[:16]


@dataclass(frozen=True, slots=True)
class Signing:
    """What a release needs besides the database: the key for blueprints, the clock, the prices."""

    key: Ed25519PrivateKey
    clock: Clock
    prices: Prices = dated
    demo: bool = False

    @property
    def key_id(self) -> str:
        return key_id(self.key.public_key())


@dataclass(frozen=True, slots=True)
class Release:
    """Who releases which files, when and why, on top of what is `stored` (None at genesis), in one transaction."""

    conn: Connection[Any]
    signing: Signing
    stored: StoredBlueprint | None
    actor: str
    reason: str
    files: Files
    at: datetime
    rollback_of: int | None = None


def newest(conn: Connection[Any]) -> StoredBlueprint:
    """The blueprint that is served. Raises `NotFound` (`not_started`) before genesis."""
    stored = store.newest(conn)
    if stored is None:
        raise NotFound(
            "there is no blueprint yet", code="not_started", hint="Start with `groundplan up --workspace DIR`."
        )
    return stored


def served_by(stored: StoredBlueprint) -> Current:
    """A stored blueprint with the workspace that it was made of."""
    return Current(decode(stored.body), load_served(stored.sources))


def planned(
    conn: Connection[Any],
    signing: Signing,
    workspace: Workspace,
    served: Current | None,
    standing: Standing,
    left: Left = MappingProxyType({}),
) -> Plan:
    """What a workspace would change now, with what was seen of its calls; changes nothing, and may be refused."""
    now = signing.clock.now()
    found = plan(
        workspace,
        served,
        today=now.date(),
        standing=standing,
        prices=signing.prices,
        demo=signing.demo,
        left=left,
        seen=observed(conn, workspace, now),
    )
    return replace(found, warnings=(*found.warnings, *unknown_subjects.warnings(conn, workspace)))


def accepted(result: Plan) -> Plan:
    """The plan, or `Invalid` with every refusal at its place."""
    if result.refusals:
        raise refusal(result.refusals)
    return result


def verified(blueprint: bp.Blueprint) -> bp.Blueprint:
    """The blueprint, or `Invalid` where the verifier finds a broken rule."""
    problems = tuple(verify(blueprint))
    if problems:
        raise refusal(problems)
    return blueprint


def publish(release: Release, workspace: Workspace, result: Plan, settled: Change | None = None) -> Applied:
    """Store what the plan serves at once, nominate owners, and leave exactly the plan's pending changes waiting.

    `settled` is the change whose last approval made this release. Raises `Invalid` for a plan without a blueprint.
    """
    if result.blueprint is None:
        raise Invalid("this plan is refused", code="plan_refused", hint="Look at its refusals.")
    blueprint = msgspec.structs.replace(result.blueprint, rollback_of=release.rollback_of)
    changed = [f"{item.type} {item.subject}" for item in result.differences]
    number = sign_and_store(release, blueprint, changed, [item.subject for item in result.pending])
    if settled is not None:
        serves = number or (release.stored.number if release.stored else None)
        until = term_for(Current(blueprint, workspace), settled, release.at)
        governance.settle(release.conn, settled, serves, until, at=release.at)
    return Applied(number, request_approvals(release, result.pending, blueprint, workspace))


def sign_and_store(
    release: Release, blueprint: bp.Blueprint, changed: list[str], pending: Sequence[str] = ()
) -> int | None:
    """Sign and store a blueprint with its audit entry; None where it says the same as the one that is served."""
    stored, conn = release.stored, release.conn
    if stored is not None and release.rollback_of is None:
        same = msgspec.structs.replace(blueprint, number=stored.number, rollback_of=stored.rollback_of)
        if encode(same) == stored.body:
            return None
    body = encode(blueprint)
    store.insert(
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
            genesis=stored is None,
        ),
    )
    declare(conn, blueprint.sources)
    store.set_source_grants(conn, of_sources(blueprint))
    store.set_workload_needs(conn, blueprint.workloads)
    store.set_glossary(conn, blueprint.terms)
    kind = "genesis" if stored is None else "rolled_back" if release.rollback_of is not None else "applied"
    audit.record(
        conn,
        action=f"blueprint.{kind}",
        actor=release.actor,
        subject=f"blueprint/{blueprint.number}",
        detail={
            "digest": digest(body),
            "reason": release.reason,
            "rollback_of": release.rollback_of,
            "pending": list(pending[:LISTED]),
            "changes": changed[:LISTED],
        },
        at=release.at,
    )
    return blueprint.number


def request_approvals(
    release: Release, pending: Iterable[Pending], blueprint: bp.Blueprint, workspace: Workspace
) -> tuple[tuple[UUID, tuple[Need, ...]], ...]:
    """Leave exactly these changes waiting, and give duties to the owners of what is served."""
    seats = in_force(Current(blueprint, workspace)).seats
    waiting = governance.request(
        release.conn,
        release.actor,
        [_wanted(item, seats) for item in pending],
        base=release.stored.number if release.stored else 0,
        sources=release.files,
        at=release.at,
    )
    held = frozenset(change.subject for change in waiting)
    people.nominate(release.conn, release.actor, workspace, blueprint, held)
    return tuple((change.id, change.waits_for) for change in waiting)


def _wanted(item: Pending, seats: int) -> Wanted:
    """Only what people use in earnest needs several of them; a budget or a cap needs its duties."""
    summary = {"fields": [field_json(each) for each in item.fields]}
    needed = seats if item.subject.startswith("workload/") else 1
    return Wanted(item.subject, item.digest, item.needs, summary, needed)


def term_for(served: Current, change: Change, at: datetime) -> Term:
    """Until when an approval that was given now holds, by the company's terms and what it is about."""
    terms = in_force(served)
    name = change.subject.partition("/")[2]
    found = [item for item in served.blueprint.workloads if change.type == "workload" and item.name == name]
    stage, sensitivity = (found[0].stage, found[0].sensitivity) if found else ("", "")
    if change.type in KINDS:  # grace is the calendar's here; gateways give none to restricted data
        stage = "production"
    held = term_of(
        at.date(), valid_days=terms.valid_days, grace_days=terms.grace_days, stage=stage, sensitivity=sensitivity
    )
    return held.within(change.ends_itself)
