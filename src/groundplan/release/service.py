"""From files to the blueprint that is served: genesis, apply, rollback, ramp steps and prices that begin on their day.

Each function works in the caller's transaction; gateways are notified when the caller commits. One release at a time:
an advisory lock is held to the end of the transaction. Nothing here decides by itself: `plan` compiles and decides,
`publish` signs and stores, and approvals are in `approvals`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec
from psycopg import Connection

from groundplan.blueprint.artifact import decode
from groundplan.catalog.loader import load_files, load_served
from groundplan.core import audit
from groundplan.core.errors import Conflict, NotFound, Problem
from groundplan.governance import service as governance
from groundplan.governance.model import ApprovalStatus
from groundplan.release import last_month, people, ramping, repricing, store, undo
from groundplan.release.difference import differences
from groundplan.release.model import Current, Plan, ReleaseResult
from groundplan.release.publish import (
    Files,
    Release,
    Signing,
    load_current,
    make_plan,
    publish,
    request_approvals,
    require_accepted,
    require_newest,
    require_verified,
    sign_and_store,
)
from groundplan.release.store import StoredBlueprint


def current(conn: Connection[Any]) -> Current | None:
    """The blueprint that is served now, with its workspace; None before genesis."""
    blueprint = store.load_blueprint(conn)
    if blueprint is None:
        return None
    return Current(blueprint, store.load_workspace(conn, blueprint.number) or load_served({}))


def preview(conn: Connection[Any], signing: Signing, files: Files) -> Plan:
    """The plan of applying these files, with notes on changed prices. Raises `Invalid` where they cannot be read at
    all; changes nothing."""
    served = current(conn)
    result = make_plan(
        conn, signing, load_files(files), served, governance.approval_status(conn), people.succession_deadlines(conn)
    )
    before = served.blueprint if served is not None else None
    price_notes = last_month.price_change_notes(conn, before, result.blueprint, signing.clock.now().date())
    return replace(result, notes=(*result.notes, *price_notes))


def genesis(conn: Connection[Any], signing: Signing, files: Files) -> ReleaseResult:
    """Make blueprint 1: people, groups and duties are read from the files only here; production waits as pending.

    Raises `Conflict` (`already_started`) where there is a blueprint, `Invalid` with every refusal.
    """
    store.lock_releases(conn)
    if store.newest_blueprint(conn) is not None:
        raise Conflict("there is a blueprint already", code="already_started", hint="Use `groundplan apply`.")
    workspace = load_files(files)
    result = require_accepted(make_plan(conn, signing, workspace, None, ApprovalStatus()))
    people.create_declared_people(conn, workspace, audit.OPERATOR)
    release = Release(conn, signing, None, audit.OPERATOR, "first start", files, signing.clock.now())
    return publish(release, workspace, result)


def apply(
    conn: Connection[Any], signing: Signing, actor: str, files: Files, *, reason: str = "applied"
) -> ReleaseResult:
    """Make the next blueprint from these files; what needs approval becomes a pending change and stays as it is served.

    Raises `Invalid` with every refusal, `NotFound` before genesis.
    """
    store.lock_releases(conn)
    stored = require_newest(conn)
    workspace = load_files(files)
    served, standing = load_current(stored), governance.approval_status(conn)
    result = require_accepted(make_plan(conn, signing, workspace, served, standing, people.succession_deadlines(conn)))
    applied = publish(Release(conn, signing, stored, actor, reason, files, signing.clock.now()), workspace, result)
    return replace(applied, warnings=result.warnings)


def advance_ramps(conn: Connection[Any], signing: Signing, unhealthy: frozenset[str] = frozenset()) -> ReleaseResult:
    """Make the next blueprint where the step of a ramp is over; `unhealthy` deployments get no more calls than they
    have. It needs no approval: all deployments are those that are served already."""
    store.lock_releases(conn)
    stored = require_newest(conn)
    served, at = decode(stored.body), signing.clock.now()
    step_starts = ramping.step_starts(ramping.active_ramps(served), store.iter_newest_first(conn))
    blueprint, changes = ramping.advance_steps(served, step_starts, at, unhealthy)
    if not changes:
        return ReleaseResult(None)
    blueprint = msgspec.structs.replace(blueprint, number=stored.number + 1, rollback_of=None)
    release = Release(conn, signing, stored, audit.SYSTEM, "; ".join(changes), stored.sources, at)
    return ReleaseResult(sign_and_store(release, require_verified(blueprint), changes))


def reprice(conn: Connection[Any], signing: Signing) -> ReleaseResult:
    """Make the next blueprint where a dated price begins: the same content at today's prices. Prices are no part of
    what is approved, nor of what the verifier checks: a rule that a new version knows and the served content breaks
    holds up the next change, not the prices."""
    store.lock_releases(conn)
    stored = require_newest(conn)
    served, at = decode(stored.body), signing.clock.now()
    rates = repricing.begun_rates(load_served(stored.sources), served, at.date(), signing.prices)
    if not rates:
        return ReleaseResult(None)
    places = [msgspec.structs.replace(each, rates=rates.get(each.name, each.rates)) for each in served.deployments]
    blueprint = msgspec.structs.replace(served, number=stored.number + 1, rollback_of=None, deployments=places)
    changes = [f"the price of {name} that begins by {at.date()}" for name in sorted(rates)]
    release = Release(conn, signing, stored, audit.SYSTEM, "; ".join(changes), stored.sources, at)
    return ReleaseResult(sign_and_store(release, blueprint, changes))


def rollback(
    conn: Connection[Any],
    signing: Signing,
    actor: str,
    to: int | None = None,
    *,
    without_revoked: bool = False,
    reason: str = "rolled back",
) -> ReleaseResult:
    """Make blueprint n+1 with the content of blueprint `to`, by today's rules and prices. By default `to` is the one
    before the last change that a person made; blueprints that only begin dated prices are skipped.

    What lost an approval, was killed or has ended since is never revived: `Conflict` (`rollback_revives`) lists it, and
    `without_revoked` leaves it out. Raises `NotFound` for an unknown number.
    """
    store.lock_releases(conn)
    stored = require_newest(conn)
    target = _rollback_target(conn, stored, to)
    workspace, old = load_served(target.sources), decode(target.body)
    served = load_current(stored)
    at = signing.clock.now()
    standing = governance.approval_status(conn)
    killed = store.killed_since(conn, target.created_at)
    unrestorable = undo.unrestorable(old, served.blueprint, standing, killed, at.date())
    if unrestorable and not without_revoked:
        raise _revival_conflict(target.number, unrestorable)
    rates = undo.todays_rates(workspace, old, at.date(), signing.prices)
    blueprint = require_verified(undo.restored_blueprint(old, served.blueprint, unrestorable, rates, demo=signing.demo))
    release = Release(conn, signing, stored, actor, reason, target.sources, at, rollback_of=target.number)
    changed = [f"{item.type} {item.subject}" for item in differences(served.blueprint, blueprint)]
    pending = make_plan(conn, signing, workspace, Current(blueprint, workspace), standing).pending
    number = sign_and_store(release, blueprint, changed, [item.subject for item in pending])
    requested = request_approvals(release, pending, blueprint, workspace)
    return ReleaseResult(number, requested, tuple(sorted(unrestorable)), rollback_of=target.number)


def _rollback_target(conn: Connection[Any], stored: StoredBlueprint, to: int | None) -> StoredBlueprint:
    """The blueprint to go back to. Raises `NotFound` where there is none, `Conflict` for the one that is served."""
    if to is None:
        changed = stored
        while (before := _before_repricing(conn, changed)) is not None:
            changed = before
        if changed.number == 1:
            raise NotFound(
                "blueprint 1 is the first one: there is nothing to go back to",
                code="blueprint_unknown",
                hint="`groundplan apply` makes the next one, and `groundplan rollback` goes back from there.",
            )
        to = changed.number - 1
    if to == stored.number:
        raise Conflict(f"blueprint {to} is served already", code="rollback_current", hint="Name an earlier one.")
    target = store.blueprint_by_number(conn, to)
    if target is None:
        earlier = (
            f"Name one from 1 to {stored.number - 1}." if stored.number > 1 else "There is nothing to go back to yet."
        )
        raise NotFound(f"there is no blueprint {to}", code="blueprint_unknown", hint=earlier)
    return target


def _before_repricing(conn: Connection[Any], stored: StoredBlueprint) -> StoredBlueprint | None:
    """The blueprint before `stored`, where `stored` only began dated prices; else None. A rollback is meant to undo
    what a person changed."""
    before = store.blueprint_by_number(conn, stored.number - 1) if stored.created_by == audit.SYSTEM else None
    if before is None or before.sources != stored.sources or stored.rollback_of is not None:
        return None
    return before if repricing.differs_only_in_prices(decode(before.body), decode(stored.body)) else None


def _revival_conflict(number: int, unrestorable: Mapping[str, str]) -> Conflict:
    problems = tuple(
        Problem(f"{subject}: {why}", "rollback_revives", "It stays as it is until somebody approves or lifts it.")
        for subject, why in sorted(unrestorable.items())
    )
    listed = "; ".join(problem.message for problem in problems)
    return Conflict(
        f"blueprint {number} would revive what was stopped since: {listed}",
        code="rollback_revives",
        hint=f"`groundplan rollback {number} --without-revoked` leaves it out.",
        problems=problems,
    )
