"""From files to the blueprint that is served: genesis, apply, approvals, rollback, each in the caller's transaction.

The caller commits; gateways are told at that moment. One release at a time: an advisory lock is held to the end of the
transaction. Nothing here decides by itself: `plan` compiles and decides, `governance` keeps the approvals.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any
from uuid import UUID

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from psycopg import Connection

from groundplan.blueprint import model as bp
from groundplan.blueprint.artifact import decode, digest, encode, sign
from groundplan.catalog.loader import load_files, load_served
from groundplan.catalog.workspace import Workspace
from groundplan.core import audit, canonical
from groundplan.core.clock import Clock
from groundplan.core.errors import Conflict, Invalid, NotFound, Problem
from groundplan.governance import service as governance
from groundplan.governance import store as changes
from groundplan.governance.model import ASKED, Change, Need, Standing
from groundplan.governance.parts import AT_GATEWAYS, KINDS, check_asked, dearest, price_declared
from groundplan.governance.service import Answer, Approver, Wanted
from groundplan.governance.validity import Term, term_of
from groundplan.placement.solve import verify
from groundplan.release import people, ramping, repricing, store, undo, units
from groundplan.release.difference import differences
from groundplan.release.grants import of_sources
from groundplan.release.model import Applied, Current, Pending, Plan, difference_json, field_json, in_force
from groundplan.release.observed import observed
from groundplan.release.owners import Left
from groundplan.release.plan import plan, without
from groundplan.release.priced import Prices, dated
from groundplan.release.store import StoredBlueprint

Files = Mapping[str, str]
_TO_ALL = Answer()
"""Relative path -> YAML text of every file of a workspace."""


@dataclass(frozen=True, slots=True)
class Signing:
    """What a release needs besides the database: the key for blueprints, the clock, the prices."""

    key: Ed25519PrivateKey
    clock: Clock
    prices: Prices = dated
    demo: bool = False

    @property
    def key_id(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of the public key."""
        return canonical.digest(self.key.public_key().public_bytes_raw())[:16]


@dataclass(frozen=True, slots=True)
class _Request:
    """Who releases what, when and why."""

    actor: str
    reason: str
    files: Files
    at: datetime
    rollback_of: int | None = None


def current(conn: Connection[Any]) -> Current | None:
    """What is served now; None before genesis."""
    stored = store.newest(conn)
    return _current(stored) if stored else None


def preview(conn: Connection[Any], signing: Signing, files: Files) -> Plan:
    """What an apply of these files would do. Raises `Invalid` where they cannot be read at all; changes nothing."""
    return _plan(conn, signing, load_files(files), current(conn), governance.standing(conn), people.left(conn))


def genesis(
    conn: Connection[Any], signing: Signing, files: Files, *, actor: str = audit.OPERATOR, reason: str = "first start"
) -> Applied:
    """Make blueprint 1: people, groups and duties are taken from the files this once; production waits as pending.

    Raises `Conflict` (`already_started`) where there is a blueprint, `Invalid` with every refusal.
    """
    store.lock(conn)
    if store.newest(conn) is not None:
        raise Conflict("there is a blueprint already", code="already_started", hint="Use `groundplan apply`.")
    workspace = load_files(files)
    request = _Request(actor, reason, files, signing.clock.now())
    result = _accepted(_plan(conn, signing, workspace, None, Standing()))
    people.create(conn, workspace, actor)
    return _release(conn, signing, workspace, None, result, request)


def apply(conn: Connection[Any], signing: Signing, actor: str, files: Files, *, reason: str = "applied") -> Applied:
    """Make the next blueprint of these files; what needs approval becomes a pending change and stays as it is served.

    Raises `Invalid` with every refusal, `NotFound` before genesis.
    """
    store.lock(conn)
    stored = _newest(conn)
    workspace = load_files(files)
    result = _accepted(_plan(conn, signing, workspace, _current(stored), governance.standing(conn), people.left(conn)))
    request = _Request(actor, reason, files, signing.clock.now())
    return _release(conn, signing, workspace, stored, result, request)


def approve(
    conn: Connection[Any], signing: Signing, approver: Approver, change_id: UUID, answer: Answer = _TO_ALL
) -> Applied:
    """Record an approval. With the last one needed the change is decided again by today's rules and served.

    Raises what `governance.approve` raises, and `Invalid` where today's rules refuse it (the approval is not kept).
    """
    store.lock(conn)
    stored = _newest(conn)
    served = _current(stored)
    at = signing.clock.now()
    separation = served.blueprint.separation
    change = governance.approve(conn, approver, change_id, answer, separation=separation, at=at)
    if not change.complete:
        return Applied(None, ((change.id, change.waits_for),))
    if change.type in ASKED or change.renews is not None:
        governance.settle(conn, change, _serves(served, change, stored), _term(served, change, at), at=at)
        return Applied(None)
    files = changes.sources_of(conn, change.id)
    workspace = load_files(files)
    result = _accepted(_plan(conn, signing, workspace, served, governance.standing(conn), people.left(conn)))
    _approved_parts(result, change)
    request = _Request(approver.actor, f"approved change {change.id}", files, at)
    return _release(conn, signing, workspace, stored, result, request, settled=change)


def refuse(
    conn: Connection[Any], signing: Signing, approver: Approver, change_id: UUID, answer: Answer = _TO_ALL
) -> Change:
    """Refuse a change by a duty of it."""
    separation = _current(_newest(conn)).blueprint.separation
    return governance.refuse(conn, approver, change_id, answer, separation=separation, at=signing.clock.now())


def withdraw(conn: Connection[Any], signing: Signing, actor: str, change_id: UUID) -> Applied:
    """Take back a request or an approval. Served content that lost an approval is gone from the blueprint made here."""
    store.lock(conn)
    stored = _newest(conn)
    at = signing.clock.now()
    change, lost = governance.withdraw(conn, actor, change_id, at=at)
    if lost and change.type in AT_GATEWAYS:
        return Applied(None, policy=changes.policy_number(conn))
    if not lost:
        waits = ((change.id, change.waits_for),) if change.state == "pending" else ()
        return Applied(None, waits)
    served = decode(stored.body)
    if (change.subject, change.digest) not in set(units.served_units(served)):
        return Applied(None)
    request = _Request(actor, f"approval of change {change.id} withdrawn", stored.sources, at)
    blueprint = without(served, change.subject.partition("/")[2])
    return Applied(_store(conn, signing, stored, blueprint, request, [f"removed {change.subject}"], []))


def ask(
    conn: Connection[Any], signing: Signing, actor: str, kind: str, subject: str, what: Mapping[str, Any], reason: str
) -> Change:
    """Ask for something beside the blueprint (`governance.ask`), under the company's present terms.

    Raises `Invalid` (`approval_kind`, `approval_reach`) besides.
    """
    check_asked(kind, subject, what)
    served = _current(_newest(conn))
    seats, at = in_force(served).seats, signing.clock.now()
    price = price_declared(served.blueprint, governance.digest_asked(kind, subject, what)) if kind == "model" else {}
    return governance.ask(conn, actor, kind, subject, what, reason, seats=seats, at=at, price=price)


def ask_parts(
    conn: Connection[Any], signing: Signing, actor: str, reason: str, *, workload: str | None, files: Files | None
) -> list[Change]:
    """Ask for whatever production uses, or is declared to use (`files`; None: as served and as it waits), that has no
    approval which holds. Only of one `workload` where it is named. What was asked for already is not asked again.

    Raises `Invalid` for files that cannot be read, `NotFound` (`workload_unknown`).
    """
    stored = _newest(conn)
    served = _current(stored)
    result = _plan(
        conn, signing, load_files(stored.sources if files is None else files), served, governance.standing(conn)
    )
    known = {item.workload for item in result.placements}
    if workload is not None and workload not in known:
        raise NotFound(
            f"there is no workload {workload}", code="workload_unknown", hint=f"Name one of {', '.join(sorted(known))}."
        )
    found = [lapse.part for name, lapse in result.lapses if workload in (None, name)]
    wanted = {part.digest: part for part in found}
    price = {digest: dearest(part.price for part in found if part.digest == digest) for digest in wanted}
    seats, at = in_force(served).seats, signing.clock.now()
    return [
        governance.ask(
            conn, actor, part.kind, part.subject, part.what, reason, seats=seats, at=at, price=price[part.digest]
        )
        for part in wanted.values()
    ]


def missing_of(conn: Connection[Any], signing: Signing, change_id: UUID) -> tuple[Problem, ...]:
    """What a change of a workload that waits uses without an approval, as its last approval would be refused for."""
    change = changes.change_by_id(conn, change_id)
    stored = store.newest(conn)
    if change is None or stored is None or change.state != "pending" or change.type != "workload" or change.renews:
        return ()
    workspace = load_files(changes.sources_of(conn, change.id))
    result = _plan(conn, signing, workspace, _current(stored), governance.standing(conn))
    return tuple(each for item in result.pending if item.subject == change.subject for each in item.missing)


def _approved_parts(result: Plan, change: Change) -> None:
    """Refuse the last approval of what uses something that nobody has approved."""
    missing = tuple(problem for item in result.pending if item.subject == change.subject for problem in item.missing)
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise Invalid(f"{missing[0].message}{more}", code=missing[0].code, hint=missing[0].hint, problems=missing)


def expire(conn: Connection[Any], signing: Signing, change: Change) -> Applied:
    """End an approval whose time and grace are over. Served content is gone from the blueprint made here."""
    store.lock(conn)
    stored = _newest(conn)
    at = signing.clock.now()
    governance.expire(conn, change, at=at)
    served = decode(stored.body)
    if change.type != "workload" or (change.subject, change.digest) not in set(units.served_units(served)):
        return Applied(None)
    request = _Request(audit.SYSTEM, f"approval of change {change.id} expired", stored.sources, at)
    blueprint = without(served, change.subject.partition("/")[2])
    return Applied(_store(conn, signing, stored, blueprint, request, [f"removed {change.subject}"], []))


def advance(conn: Connection[Any], signing: Signing, unwell: frozenset[str] = frozenset()) -> Applied:
    """Make the next blueprint where a step of a change of place is over; deployments that are `unwell` get no more
    calls than they have. Nothing is approved by it: the places are those that are served already."""
    store.lock(conn)
    stored = _newest(conn)
    served, at = decode(stored.body), signing.clock.now()
    begins = ramping.since(ramping.ramps(served), store.newest_first(conn))
    blueprint, told = ramping.advanced(served, begins, at, unwell)
    if not told:
        return Applied(None)
    blueprint = msgspec.structs.replace(blueprint, number=stored.number + 1, rollback_of=None)
    _verified(blueprint)
    request = _Request(audit.SYSTEM, "; ".join(told), stored.sources, at)
    return Applied(_store(conn, signing, stored, blueprint, request, told, []))


def reprice(conn: Connection[Any], signing: Signing) -> Applied:
    """Make the next blueprint where prices begin that had their day all along, of the same content at today's. Prices
    are no part of what is approved."""
    store.lock(conn)
    stored = _newest(conn)
    served, at = decode(stored.body), signing.clock.now()
    rates = repricing.begun(load_served(stored.sources), served, at.date(), signing.prices)
    if not rates:
        return Applied(None)
    places = [msgspec.structs.replace(each, rates=rates.get(each.name, each.rates)) for each in served.deployments]
    blueprint = msgspec.structs.replace(served, number=stored.number + 1, rollback_of=None, deployments=places)
    _verified(blueprint)
    told = [f"the price of {name} that begins by {at.date()}" for name in sorted(rates)]
    request = _Request(audit.SYSTEM, "; ".join(told), stored.sources, at)
    return Applied(_store(conn, signing, stored, blueprint, request, told, []))


def _serves(served: Current, change: Change, stored: StoredBlueprint) -> int | None:
    """The blueprint that serves what a renewal is about; None for what no blueprint holds."""
    return stored.number if (change.subject, change.digest) in set(units.served_units(served.blueprint)) else None


def _term(served: Current, change: Change, at: datetime) -> Term:
    """Until when an approval that was given now holds, by the company's terms and what it is about."""
    terms = in_force(served)
    name = change.subject.partition("/")[2]
    found = [item for item in served.blueprint.workloads if change.type == "workload" and item.name == name]
    stage, sensitivity = (found[0].stage, found[0].sensitivity) if found else ("", "")
    if change.type in KINDS:  # grace is the calendar's here; gateways give none to restricted data
        stage = "production"
    term = term_of(
        at.date(), valid_days=terms.valid_days, grace_days=terms.grace_days, stage=stage, sensitivity=sensitivity
    )
    return term.within(change.ends_itself)


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
    stored = _newest(conn)
    target = _target(conn, stored, to)
    workspace, old = load_files(target.sources), decode(target.body)
    served = _current(stored)
    at = signing.clock.now()
    standing = governance.standing(conn)
    killed = store.killed_since(conn, target.created_at)
    lost = undo.lost(old, served.blueprint, standing, killed, at.date())
    if lost and not without_revoked:
        raise _revives(target.number, lost)
    rates = undo.rates_today(workspace, old, at.date(), signing.prices)
    blueprint = undo.restored(old, served.blueprint, lost, rates, demo=signing.demo)
    _verified(blueprint)
    request = _Request(actor, reason, target.sources, at, rollback_of=target.number)
    changed = [f"{item.type} {item.subject}" for item in differences(served.blueprint, blueprint)]
    still = _plan(conn, signing, workspace, Current(blueprint, workspace), standing).pending
    number = _store(conn, signing, stored, blueprint, request, changed, [item.subject for item in still])
    return Applied(number, _wait(conn, stored, still, request, blueprint, workspace), tuple(sorted(lost)))


def _verified(blueprint: bp.Blueprint) -> None:
    """Raise `Invalid` where the verifier finds a broken rule."""
    problems = tuple(verify(blueprint))
    if problems:
        first = problems[0]
        raise Invalid(first.message, code=first.code, hint=first.hint, problems=problems)


def _wait(
    conn: Connection[Any],
    stored: StoredBlueprint | None,
    pending: Iterable[Pending],
    request: _Request,
    blueprint: bp.Blueprint,
    workspace: Workspace,
) -> tuple[tuple[UUID, tuple[Need, ...]], ...]:
    """Leave exactly these changes waiting, and give duties to the owners of what is served."""
    waiting = governance.request(
        conn,
        request.actor,
        [_wanted(item, in_force(Current(blueprint, workspace)).seats) for item in pending],
        base=stored.number if stored else 0,
        sources=request.files,
        at=request.at,
    )
    held = frozenset(change.subject for change in waiting)
    people.nominate(conn, request.actor, workspace, blueprint, held)
    return tuple((change.id, change.waits_for) for change in waiting)


def _current(stored: StoredBlueprint) -> Current:
    return Current(decode(stored.body), load_served(stored.sources))


def _newest(conn: Connection[Any]) -> StoredBlueprint:
    stored = store.newest(conn)
    if stored is None:
        raise NotFound(
            "there is no blueprint yet", code="not_started", hint="Start with `groundplan up --workspace DIR`."
        )
    return stored


def _target(conn: Connection[Any], stored: StoredBlueprint, to: int | None) -> StoredBlueprint:
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


def _plan(
    conn: Connection[Any],
    signing: Signing,
    workspace: Workspace,
    served: Current | None,
    standing: Standing,
    left: Left = MappingProxyType({}),
) -> Plan:
    now = signing.clock.now()
    return plan(
        workspace,
        served,
        today=now.date(),
        standing=standing,
        prices=signing.prices,
        demo=signing.demo,
        left=left,
        seen=observed(conn, workspace, now),
    )


def _accepted(result: Plan) -> Plan:
    """The plan, or `Invalid` with every refusal at its place."""
    if not result.refusals:
        return result
    first = result.refusals[0]
    more = f" (and {len(result.refusals) - 1} more)" if len(result.refusals) > 1 else ""
    raise Invalid(
        f"{first.message}{more}", code=first.code, hint=first.hint, where=first.where, problems=result.refusals
    )


def _release(
    conn: Connection[Any],
    signing: Signing,
    workspace: Workspace,
    stored: StoredBlueprint | None,
    result: Plan,
    request: _Request,
    settled: Change | None = None,
) -> Applied:
    """Store what the plan serves at once, nominate owners, and leave exactly the plan's pending changes waiting."""
    if result.blueprint is None:
        raise Invalid("this plan is refused", code="plan_refused", hint="Look at its refusals.")
    blueprint = msgspec.structs.replace(result.blueprint, rollback_of=request.rollback_of)
    changed = [f"{item.type} {item.subject}" for item in result.differences]
    number = _store(conn, signing, stored, blueprint, request, changed, [item.subject for item in result.pending])
    if settled is not None:
        serves = number or (stored.number if stored else None)
        term = _term(Current(blueprint, workspace), settled, request.at)
        governance.settle(conn, settled, serves, term, at=request.at)
    return Applied(number, _wait(conn, stored, result.pending, request, blueprint, workspace))


def _store(
    conn: Connection[Any],
    signing: Signing,
    stored: StoredBlueprint | None,
    blueprint: bp.Blueprint,
    request: _Request,
    changed: list[str],
    pending: list[str],
) -> int | None:
    """Sign and store a blueprint with its audit entry; None where it says the same as the one that is served."""
    if stored is not None and request.rollback_of is None:
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
            signature=sign(body, signing.key),
            key_id=signing.key_id,
            sources=request.files,
            created_at=request.at,
            created_by=request.actor,
            reason=request.reason,
            rollback_of=request.rollback_of,
            genesis=stored is None,
        ),
    )
    store.set_source_grants(conn, of_sources(blueprint))
    store.set_workload_needs(conn, blueprint.workloads)
    store.set_glossary(conn, blueprint.terms)
    kind = "genesis" if stored is None else "rolled_back" if request.rollback_of is not None else "applied"
    audit.record(
        conn,
        action=f"blueprint.{kind}",
        actor=request.actor,
        subject=f"blueprint/{blueprint.number}",
        detail={
            "digest": digest(body),
            "reason": request.reason,
            "rollback_of": request.rollback_of,
            "pending": pending[:200],
            "changes": changed[:200],
        },
        at=request.at,
    )
    return blueprint.number


def _wanted(item: Pending, seats: int) -> Wanted:
    """Only what people use in earnest needs several of them; a budget or a cap needs its duties."""
    summary = {"fields": [field_json(each) for each in item.fields]}
    needed = seats if item.subject.startswith("workload/") else 1
    return Wanted(item.subject, item.digest, item.needs, summary, needed)


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


__all__ = [
    "Answer",
    "Approver",
    "Signing",
    "advance",
    "apply",
    "approve",
    "ask",
    "ask_parts",
    "current",
    "difference_json",
    "expire",
    "genesis",
    "missing_of",
    "preview",
    "refuse",
    "rollback",
    "withdraw",
]
