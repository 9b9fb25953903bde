"""From files to the blueprint that is served: genesis, apply, rollback, and what begins by itself on its day.

Each in the caller's transaction, who commits; gateways are told at that moment. One release at a time: an advisory lock
is held to the end of the transaction. Nothing here decides by itself: `plan` compiles and decides, `publish` signs and
stores, and what people approve is in `approvals`.
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
from groundplan.governance.model import Standing
from groundplan.release import last_month, people, ramping, repricing, store, undo
from groundplan.release.difference import differences
from groundplan.release.model import Applied, Current, Plan
from groundplan.release.publish import (
    Files,
    Release,
    Signing,
    accepted,
    newest,
    planned,
    publish,
    request_approvals,
    served_by,
    sign_and_store,
    verified,
)
from groundplan.release.store import StoredBlueprint


def current(conn: Connection[Any]) -> Current | None:
    """What is served now; None before genesis."""
    blueprint = store.decoded(conn)
    if blueprint is None:
        return None
    return Current(blueprint, store.workspace(conn, blueprint.number) or load_served({}))


def preview(conn: Connection[Any], signing: Signing, files: Files) -> Plan:
    """What an apply of these files would do. Raises `Invalid` where they cannot be read at all; changes nothing."""
    served = current(conn)
    made = planned(conn, signing, load_files(files), served, governance.standing(conn), people.left(conn))
    before = served.blueprint if served is not None else None
    told = last_month.notes(conn, before, made.blueprint, signing.clock.now().date())
    return replace(made, notes=(*made.notes, *told))


def genesis(conn: Connection[Any], signing: Signing, files: Files) -> Applied:
    """Make blueprint 1: people, groups and duties are taken from the files this once; production waits as pending.

    Raises `Conflict` (`already_started`) where there is a blueprint, `Invalid` with every refusal.
    """
    store.lock(conn)
    if store.newest(conn) is not None:
        raise Conflict("there is a blueprint already", code="already_started", hint="Use `groundplan apply`.")
    workspace = load_files(files)
    result = accepted(planned(conn, signing, workspace, None, Standing()))
    people.create(conn, workspace, audit.OPERATOR)
    release = Release(conn, signing, None, audit.OPERATOR, "first start", files, signing.clock.now())
    return publish(release, workspace, result)


def apply(conn: Connection[Any], signing: Signing, actor: str, files: Files, *, reason: str = "applied") -> Applied:
    """Make the next blueprint of these files; what needs approval becomes a pending change and stays as it is served.

    Raises `Invalid` with every refusal, `NotFound` before genesis.
    """
    store.lock(conn)
    stored = newest(conn)
    workspace = load_files(files)
    served, standing = served_by(stored), governance.standing(conn)
    result = accepted(planned(conn, signing, workspace, served, standing, people.left(conn)))
    made = publish(Release(conn, signing, stored, actor, reason, files, signing.clock.now()), workspace, result)
    return replace(made, warnings=result.warnings)


def advance(conn: Connection[Any], signing: Signing, unwell: frozenset[str] = frozenset()) -> Applied:
    """Make the next blueprint where a step of a change of place is over; deployments that are `unwell` get no more
    calls than they have. Nothing is approved by it: the places are those that are served already."""
    store.lock(conn)
    stored = newest(conn)
    served, at = decode(stored.body), signing.clock.now()
    begins = ramping.since(ramping.ramps(served), store.newest_first(conn))
    blueprint, told = ramping.advanced(served, begins, at, unwell)
    if not told:
        return Applied(None)
    blueprint = msgspec.structs.replace(blueprint, number=stored.number + 1, rollback_of=None)
    release = Release(conn, signing, stored, audit.SYSTEM, "; ".join(told), stored.sources, at)
    return Applied(sign_and_store(release, verified(blueprint), told))


def reprice(conn: Connection[Any], signing: Signing) -> Applied:
    """Make the next blueprint where prices begin that had their day all along, of the same content at today's. Prices
    are no part of what is approved, nor of what the verifier looks at: a rule that a new release knows and the served
    content breaks holds up the next change, not what calls cost."""
    store.lock(conn)
    stored = newest(conn)
    served, at = decode(stored.body), signing.clock.now()
    rates = repricing.begun(load_served(stored.sources), served, at.date(), signing.prices)
    if not rates:
        return Applied(None)
    places = [msgspec.structs.replace(each, rates=rates.get(each.name, each.rates)) for each in served.deployments]
    blueprint = msgspec.structs.replace(served, number=stored.number + 1, rollback_of=None, deployments=places)
    told = [f"the price of {name} that begins by {at.date()}" for name in sorted(rates)]
    release = Release(conn, signing, stored, audit.SYSTEM, "; ".join(told), stored.sources, at)
    return Applied(sign_and_store(release, blueprint, told))


def rollback(
    conn: Connection[Any],
    signing: Signing,
    actor: str,
    to: int | None = None,
    *,
    without_revoked: bool = False,
    reason: str = "rolled back",
) -> Applied:
    """Make blueprint n+1 with what blueprint `to` served, by today's rules and prices; by default the one before the
    last that somebody, and not a day on which prices begin, made.

    What lost an approval, was killed or has ended since is never revived: `Conflict` (`rollback_revives`) lists it, and
    `without_revoked` leaves it out. Raises `NotFound` for an unknown number.
    """
    store.lock(conn)
    stored = newest(conn)
    target = _target(conn, stored, to)
    workspace, old = load_served(target.sources), decode(target.body)
    served = served_by(stored)
    at = signing.clock.now()
    standing = governance.standing(conn)
    killed = store.killed_since(conn, target.created_at)
    lost = undo.lost(old, served.blueprint, standing, killed, at.date())
    if lost and not without_revoked:
        raise _revives(target.number, lost)
    rates = undo.rates_today(workspace, old, at.date(), signing.prices)
    blueprint = verified(undo.restored(old, served.blueprint, lost, rates, demo=signing.demo))
    release = Release(conn, signing, stored, actor, reason, target.sources, at, rollback_of=target.number)
    changed = [f"{item.type} {item.subject}" for item in differences(served.blueprint, blueprint)]
    still = planned(conn, signing, workspace, Current(blueprint, workspace), standing).pending
    number = sign_and_store(release, blueprint, changed, [item.subject for item in still])
    return Applied(number, request_approvals(release, still, blueprint, workspace), tuple(sorted(lost)))


def _target(conn: Connection[Any], stored: StoredBlueprint, to: int | None) -> StoredBlueprint:
    """The blueprint to go back to. Raises `NotFound` where there is none, `Conflict` for the one that is served."""
    if to is None:
        changed = stored
        while (before := _before_prices(conn, changed)) is not None:
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
    target = store.by_number(conn, to)
    if target is None:
        earlier = (
            f"Name one from 1 to {stored.number - 1}." if stored.number > 1 else "There is nothing to go back to yet."
        )
        raise NotFound(f"there is no blueprint {to}", code="blueprint_unknown", hint=earlier)
    return target


def _before_prices(conn: Connection[Any], stored: StoredBlueprint) -> StoredBlueprint | None:
    """What was served before prices began by themselves, where that is all that this blueprint is for: whoever goes
    back means what somebody changed."""
    before = store.by_number(conn, stored.number - 1) if stored.created_by == audit.SYSTEM else None
    if before is None or before.sources != stored.sources or stored.rollback_of is not None:
        return None
    return before if repricing.only(decode(before.body), decode(stored.body)) else None


def _revives(number: int, lost: Mapping[str, str]) -> Conflict:
    problems = tuple(
        Problem(f"{subject}: {why}", "rollback_revives", "It stays as it is until somebody approves or lifts it.")
        for subject, why in sorted(lost.items())
    )
    listed = "; ".join(problem.message for problem in problems)
    return Conflict(
        f"blueprint {number} would revive what was stopped since: {listed}",
        code="rollback_revives",
        hint=f"`groundplan rollback {number} --without-revoked` leaves it out.",
        problems=problems,
    )
