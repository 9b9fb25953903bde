"""Changes of live policy: each changes its rows, takes the next policy number and records itself in one transaction.

The transaction is the caller's; gateways are notified at the commit. Each returns the number, for `policy_propagation`.
Does not decide who may ask for a change, and puts no personal data in the audit log: people are named by id.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from psycopg import Connection

from groundplan.core.audit import record, record_listed
from groundplan.core.errors import Conflict, Invalid, NotFound
from groundplan.core.ids import new_id
from groundplan.core.money import optional_usd
from groundplan.core.words import closest_name
from groundplan.identity import rights_store, session_store, store
from groundplan.identity.genesis import check_genesis, normal_email
from groundplan.identity.keys import hash_key, key_prefix, make_key
from groundplan.identity.model import (
    COMPANY,
    DUTIES,
    EVERYONE,
    KILL_SCOPES,
    PUBLIC,
    ApiKey,
    GatewayState,
    GenesisPeople,
    GroupType,
    KeyTerms,
    Person,
    Propagation,
    canonical_scope,
)

POLICY_LEASE_S = 1.0
"""How long a gateway may serve without confirmation that its policy is the newest."""
DEFAULT_GRACE_S = 60.0
"""How much longer it may serve, unless the workload declares otherwise (restricted: 0)."""
PLAIN_KEY = KeyTerms()
"""Terms of a key that acts for nobody else, from anywhere, within the budgets of its workload."""


def create_genesis_people(conn: Connection[Any], company: GenesisPeople, actor: str = "operator") -> dict[str, UUID]:
    """Store the people, groups and duties of the first blueprint; returns ids by email.

    Raises `Conflict` (`genesis_done`), `Invalid`.
    """
    check_genesis(company)
    number = store.next_policy_number(conn, "genesis", COMPANY, False)
    if store.people(conn) or store.groups(conn):
        raise Conflict(
            "people were declared already",
            code="genesis_done",
            hint="Change people by command from now on: `groundplan people add`, `groundplan groups add`.",
        )
    people = {normal_email(person.email): new_id() for person in company.people}
    for person in company.people:
        email = normal_email(person.email)
        store.insert_person(conn, people[email], email, person.name.strip())
    groups = {group.name: store.insert_group(conn, group.name, group.type) for group in company.groups}
    for group in company.groups:
        for email in group.people:
            store.insert_membership(conn, groups[group.name], people[normal_email(email)], None)
        for name in group.groups:
            store.insert_membership(conn, groups[group.name], None, groups[name])
    for duty in dict.fromkeys((d.subject, d.duty, people[normal_email(d.email)]) for d in company.duties):
        store.insert_duty(conn, *duty)
    detail = {"policy": number, "people": [str(id) for id in people.values()], "groups": list(groups)}
    record_listed(conn, action="people.genesis", actor=actor, subject=COMPANY, detail=detail)
    return people


def find_person(conn: Connection[Any], email: str) -> Person:
    """The person with this address. Raises `NotFound` (`unknown_person`) with the nearest known one."""
    person = store.person_by_email(conn, normal_email(email))
    if person is None:
        suggestion = closest_name(normal_email(email), [other.email for other in store.people(conn)])
        hint = f"Did you mean {suggestion}?" if suggestion else "Add the person first: `groundplan people add`."
        raise NotFound(f"there is no person {email}", code="unknown_person", hint=hint)
    return person


def add_person(conn: Connection[Any], actor: str, email: str, name: str) -> int:
    """Add a person, in no group but `everyone`. Raises `Conflict` (`duplicate_person`), `Invalid` (`email`, `name`)."""
    address = normal_email(email)
    if not name.strip():
        raise Invalid("a person needs a name", code="name", hint="Give the name that others know the person by.")
    id = new_id()
    number = store.next_policy_number(conn, "person", f"person/{id}", False)
    if store.person_by_email(conn, address):
        raise Conflict(f"there is a person {address} already", code="duplicate_person", hint="Use another address.")
    store.insert_person(conn, id, address, name.strip())
    return _record_change(conn, number, "person.added", actor, f"person/{id}", {})


def deactivate_person(conn: Connection[Any], actor: str, person_id: UUID) -> int:
    """Mark a person as having left: their keys and the tokens that they made are revoked, sessions and temporary rights
    end, permissions go; duties stay, held by somebody inactive.

    Raises `NotFound` (`unknown_person`), `Conflict` (`already_left`).
    """
    number = store.next_policy_number(conn, "person", f"person/{person_id}", True)
    _get_person(conn, person_id)
    if not store.mark_left(conn, person_id):
        raise Conflict("the person has left already", code="already_left", hint="Nothing is left to do.")
    keys = store.revoke_keys_of(conn, person_id)
    session_store.end_sessions_of(conn, person_id)
    tokens = rights_store.end_rights_of(conn, person_id, actor)
    detail = {"revoked_keys": [str(id) for id in keys], "revoked_tokens": [str(id) for id in tokens]}
    return _record_change(conn, number, "person.left", actor, f"person/{person_id}", detail)


def add_group(conn: Connection[Any], actor: str, name: str, type: GroupType) -> int:
    """Add an empty group or team. Raises `Conflict` (`duplicate_group`), `Invalid` (`group_name`)."""
    if name in (EVERYONE, PUBLIC) or not name.strip() or "@" in name:
        raise Invalid(
            f"not a valid name for a group: {name!r}", code="group_name",
            hint="Use a name without @; not `everyone` or `public`, which have a meaning of their own.",
        )  # fmt: skip
    number = store.next_policy_number(conn, "group", f"group/{name}", False)
    if store.group_id(conn, name):
        raise Conflict(f"there is a group {name} already", code="duplicate_group", hint="Use another name.")
    store.insert_group(conn, name, type)
    return _record_change(conn, number, "group.added", actor, f"group/{name}", {"type": type})


def add_member(conn: Connection[Any], actor: str, group: str, member: UUID | str) -> int:
    """Put a person (id or email) or a group (name) into a group. Only a directory, which names people by id, may add
    somebody who has left.

    Raises `NotFound` (`unknown_group`, `unknown_person`), `Conflict` (`already_member`, `already_left`), `Invalid`
    (`cyclic_group`).
    """
    number = store.next_policy_number(conn, "membership", f"group/{group}", False)
    into, person, inner = _resolve_membership(conn, group, member)
    if person is not None and member != person and not _get_person(conn, person).active:
        raise Conflict(f"{member} has left", code="already_left", hint="Choose somebody active.")
    if inner and store.group_contains(conn, inner, into):
        raise Invalid(
            f"{member} cannot be a member of {group}: {group} is in {member} already",
            code="cyclic_group",
            hint="Groups may contain groups, but never themselves.",
        )
    if store.insert_membership(conn, into, person, inner) is None:
        raise Conflict(f"{member} is a member of {group} already", code="already_member", hint="Nothing is left to do.")
    return _record_change(conn, number, "member.added", actor, f"group/{group}", _member_detail(person, member))


def remove_member(conn: Connection[Any], actor: str, group: str, member: UUID | str) -> int:
    """Take a person (id or email) or a group (name) out of a group. Raises `NotFound` (also `not_a_member`)."""
    number = store.next_policy_number(conn, "membership", f"group/{group}", True)
    from_group, person, inner = _resolve_membership(conn, group, member)
    if store.delete_membership(conn, from_group, person, inner) is None:
        raise NotFound(
            f"{member} is not a direct member of {group}",
            code="not_a_member",
            hint="It may be a member through another group: see the groups of the person.",
        )
    return _record_change(conn, number, "member.removed", actor, f"group/{group}", _member_detail(person, member))


def nominate(conn: Connection[Any], actor: str, subject: str, duties: Mapping[str, Sequence[str]]) -> bool:
    """Make the given people (emails by duty) the holders of a subject's duties, in place of the present ones.

    Returns whether anything changed. Raises `Invalid` (`unknown_duty`), `NotFound` (`unknown_person`).
    """
    nominated: dict[tuple[str, UUID], None] = {}
    for duty, emails in duties.items():
        if duty not in DUTIES:
            raise Invalid(f"there is no duty {duty}", code="unknown_duty", hint=f"Duties are {', '.join(DUTIES)}.")
        for email in emails:
            nominated[duty, find_person(conn, email).id] = None
    present = {(duty.duty, duty.person.id) for duty in store.duties(conn, subject)}
    if present == nominated.keys():
        return False
    number = store.next_policy_number(conn, "duty", subject, bool(present - nominated.keys()))
    store.delete_duties(conn, subject)
    for duty, person_id in nominated:
        store.insert_duty(conn, subject, duty, person_id)
    holders: dict[str, list[str]] = {}
    for duty, person_id in nominated:
        holders.setdefault(duty, []).append(str(person_id))
    detail = {"policy": number, "holders": holders}
    record(conn, action="duties.nominated", actor=actor, subject=subject, detail=detail)
    return True


def hand_over(conn: Connection[Any], actor: str, leaver: UUID, to: UUID) -> list[str]:
    """Give every duty of somebody who has left to an active person; returns them as `duty of subject`.

    It also applies where the workspace still names the leaver. Raises `NotFound`, `Conflict` (`still_here`,
    `already_left`).
    """
    # locks before anything is read: the holders of a subject are replaced as a whole, and others replace them, too
    store.next_policy_number(conn, "duty", f"person/{leaver}", True)
    old, new = _get_person(conn, leaver), _get_person(conn, to)
    if old.active:
        raise Conflict(f"{old.email} is still here", code="still_here", hint="`groundplan people leave` comes first.")
    if not new.active:
        raise Conflict(f"{new.email} has left", code="already_left", hint="Choose somebody active.")
    store.save_handover(conn, leaver, to, actor)
    transferred: list[str] = []
    for subject in sorted({duty.subject for duty in store.duties(conn, person_id=leaver)}):
        holders: dict[str, list[str]] = {}
        for duty in store.duties(conn, subject):
            is_leavers = duty.person.id == leaver
            transferred += [f"{duty.duty} of {subject}"] if is_leavers else []
            emails = holders.setdefault(duty.duty, [])
            email = new.email if is_leavers else duty.person.email
            emails += [] if email in emails else [email]
        nominate(conn, actor, subject, holders)
    record_listed(
        conn,
        action="duties.handed_over",
        actor=actor,
        subject=f"person/{leaver}",
        detail={"to": str(to), "duties": transferred},
    )
    return transferred


def create_key(
    conn: Connection[Any],
    actor: str,
    workload: str,
    person_id: UUID | None = None,
    terms: KeyTerms = PLAIN_KEY,
    expires: datetime | None = None,
) -> tuple[UUID, str]:
    """Create a key for a workload and its own user; returns (id, secret). The secret is shown once and stored nowhere.

    Raises `NotFound` (`unknown_person`), `Conflict` (`already_left`), `Invalid` (`expires`).
    """
    now = datetime.now(UTC)
    if expires is not None and (expires.tzinfo is None or expires <= now):
        raise Invalid("a key cannot have expired already", code="expires", hint="Give a future time with its zone.")
    id, secret = new_id(), make_key()
    number = store.next_policy_number(conn, "key", f"key/{id}", False)
    if person_id is not None and not _get_person(conn, person_id).active:
        raise Conflict("the person has left", code="already_left", hint="Make the key for somebody active.")
    key = ApiKey(
        id, key_prefix(secret), workload, person_id, terms.acts_for_others, now, actor, expires, None, id, None, terms
    )
    store.insert_key(conn, key, hash_key(secret))
    _record_change(conn, number, "key.created", actor, f"key/{id}", _key_detail(key))
    return id, secret


def rotate_key(conn: Connection[Any], actor: str, key_id: UUID, overlap: timedelta) -> tuple[ApiKey, str, datetime]:
    """Replace a key by one that differs only in its secret; returns (new key, its secret, when the old one ends). Both
    work for `overlap`.

    Raises `NotFound` (`unknown_key`), `Conflict` (`key_revoked`, `key_expired`, `key_rotated`, `key_stopped`).
    """
    number = store.next_policy_number(conn, "key", f"key/{key_id}", True)
    now, old = datetime.now(UTC), store.api_key(conn, key_id)
    if old is None:
        raise NotFound(f"there is no key {key_id}", code="unknown_key", hint="List them: `groundplan keys list`.")
    if old.revoked_at is not None:
        raise Conflict("the key is revoked", code="key_revoked", hint="Make a new one: `groundplan keys create`.")
    if old.expires_at is not None and old.expires_at <= now:
        raise Conflict("the key has expired", code="key_expired", hint="Make a new one: `groundplan keys create`.")
    if old.replaced_by is not None:
        raise Conflict(
            f"the key was rotated already, to {old.replaced_by}", code="key_rotated", hint="Rotate that one, or wait."
        )
    if stopped := store.stopped_keys_of_line(conn, key_id):
        hint = f"Whoever stopped it knows why; `groundplan kill key/{stopped[0]} --lift -m WHY` comes first."
        raise Conflict("the key is stopped, and so its successor would be", code="key_stopped", hint=hint)
    secret = make_key()
    new = replace(
        old,
        id=new_id(),
        prefix=key_prefix(secret),
        created_at=now,
        created_by=actor,
        expires_at=_renewed_expiry(old, now),
    )
    store.insert_key(conn, new, hash_key(secret))
    ends = now + overlap
    store.replace_key(conn, old.id, new.id, ends)
    detail = {**_key_detail(new), "replaces": str(old.id), "old_ends": ends.isoformat()}
    _record_change(conn, number, "key.rotated", actor, f"key/{new.id}", detail)
    return new, secret, ends if old.expires_at is None else min(ends, old.expires_at)


def _renewed_expiry(old: ApiKey, now: datetime) -> datetime | None:
    """Expiry of a renewed key: it lasts as long as the old one did."""
    return None if old.expires_at is None else now + (old.expires_at - old.created_at)


def _key_detail(key: ApiKey) -> dict[str, Any]:
    terms = key.terms
    return {
        "workload": key.workload,
        "person": str(key.person_id) if key.person_id else None,
        "acts_for_others": terms.acts_for_others,
        "expires": key.expires_at.astimezone(UTC).isoformat() if key.expires_at else None,
        "tags": list(terms.tags),
        "networks": list(terms.networks),
        "models": list(terms.models),
        "budget_usd": optional_usd(terms.budget),
        "budget_period": terms.budget_period,
    }


def revoke_key(conn: Connection[Any], actor: str, key_id: UUID) -> int:
    """Revoke a key for good. Raises `NotFound` (`unknown_key`), `Conflict` (`key_revoked`)."""
    number = store.next_policy_number(conn, "key", f"key/{key_id}", True)
    key = store.api_key(conn, key_id)
    if key is None:
        raise NotFound(f"there is no key {key_id}", code="unknown_key", hint="List them: `groundplan keys list`.")
    if not store.mark_revoked(conn, key_id):
        raise Conflict("the key is revoked already", code="key_revoked", hint="Nothing is left to do.")
    return _record_change(conn, number, "key.revoked", actor, f"key/{key_id}", {"workload": key.workload})


def kill(conn: Connection[Any], actor: str, scope: str, reason: str, *, streams: bool = False) -> int:
    """Stop `company`, or one `provider/N`, `model/N`, `workload/N`, `deployment/N`, `source/N`, `tool/N`, `key/ID` or
    `site/N`, until it is lifted; with a key all others of its line of rotations. `streams`: answers that are under way
    are ended too.

    Raises `Invalid` (`kill_scope`, `reason`).
    """
    scope = canonical_scope(scope)
    kind, _, name = scope.partition("/")
    if scope != COMPANY and (kind not in KILL_SCOPES or not name):
        raise Invalid(
            f"nothing that can be stopped is called {scope!r}",
            code="kill_scope",
            hint=f"Use company or NAME behind {', '.join(f'{prefix}/' for prefix in KILL_SCOPES)}.",
        )
    if not reason.strip():
        raise Invalid("a kill needs a reason", code="reason", hint="Give a reason; it is kept in the audit log.")
    number = store.next_policy_number(conn, "kill", scope, True)
    id = store.insert_kill(conn, scope, reason.strip(), actor, streams=streams)
    detail = {"kill": str(id), "reason": reason.strip(), **({"streams": True} if streams else {})}
    return _record_change(conn, number, "kill", actor, scope, detail)


def clear_answers(conn: Connection[Any], actor: str, workload: str) -> int:
    """Invalidate the cached answers of a workload, effective once every gateway follows; returns the policy number."""
    number = store.next_policy_number(conn, "cache", f"workload/{workload}", True)
    times = store.clear_answers(conn, workload, actor)
    return _record_change(conn, number, "cache.cleared", actor, f"workload/{workload}", {"times": times})


def lift(conn: Connection[Any], actor: str, scope: str) -> int:
    """End every kill of exactly this scope. Raises `NotFound` (`not_killed`)."""
    scope = canonical_scope(scope)
    number = store.next_policy_number(conn, "lift", scope, False)
    ended = store.lift_kills(conn, scope, actor)
    if not ended:
        raise NotFound(f"{scope} is not stopped", code="not_killed", hint="`groundplan status` lists what is.")
    return _record_change(conn, number, "kill.lifted", actor, scope, {"kills": [str(id) for id in ended]})


def policy_propagation(conn: Connection[Any], number: int, grace_s: float = DEFAULT_GRACE_S) -> Propagation:
    """Which gateways follow policy `number`, which do not yet, and until when those may serve.

    Call it in a transaction of its own (or autocommit) after the change was committed.
    """
    return _propagation(conn, number, grace_s, lambda gateway: gateway.policy_ack)


def blueprint_propagation(conn: Connection[Any], blueprint: int, grace_s: float = DEFAULT_GRACE_S) -> Propagation:
    """As `policy_propagation`, for a blueprint: which gateways serve it or a later one."""
    return _propagation(conn, blueprint, grace_s, lambda gateway: gateway.blueprint)


def fence_silent(conn: Connection[Any], actor: str, seconds: float) -> list[UUID]:
    """Fence gateway workers without a heartbeat for so long: they are granted nothing any more, and end if they come
    back. Returns their epochs."""
    fenced = store.fence_silent(conn, seconds)
    for epoch in fenced:
        record(conn, action="gateway.fenced", actor=actor, subject=f"gateway/{epoch}", detail={"silent_s": seconds})
    return fenced


def _propagation(conn: Connection[Any], number: int, grace_s: float, has: Callable[[GatewayState], int]) -> Propagation:
    now, gateways = store.live_gateways(conn, POLICY_LEASE_S, grace_s)
    behind = [gateway for gateway in gateways if has(gateway) < number]
    return Propagation(
        number=number,
        acknowledged=tuple(gateway for gateway in gateways if has(gateway) >= number),
        waiting=tuple(gateway for gateway in behind if gateway.until > now),
        lapsed=tuple(gateway for gateway in behind if gateway.until <= now),
    )


def _record_change(
    conn: Connection[Any], number: int, action: str, actor: str, subject: str, detail: Mapping[str, Any]
) -> int:
    record_listed(conn, action=action, actor=actor, subject=subject, detail={**detail, "policy": number})
    return number


def _get_person(conn: Connection[Any], id: UUID) -> Person:
    person = store.person(conn, id)
    if person is None:
        raise NotFound(f"there is no person {id}", code="unknown_person", hint="List them: `groundplan people list`.")
    return person


def _get_group_id(conn: Connection[Any], name: str) -> UUID:
    group_id = store.group_id(conn, name)
    if group_id is None:
        if name == EVERYONE:
            raise Invalid("everybody is in `everyone`", code="everyone", hint="Use a group of your own.")
        suggestion = closest_name(name, [group.name for group in store.groups(conn)])
        hint = f"Did you mean {suggestion}?" if suggestion else "Add the group first: `groundplan groups add`."
        raise NotFound(f"there is no group {name}", code="unknown_group", hint=hint)
    return group_id


def _resolve_membership(conn: Connection[Any], group: str, member: UUID | str) -> tuple[UUID, UUID | None, UUID | None]:
    """(group, member person, member group); one of the last two is None."""
    outer = _get_group_id(conn, group)
    if isinstance(member, UUID):
        return outer, _get_person(conn, member).id, None
    if "@" in member:
        return outer, find_person(conn, member).id, None
    return outer, None, _get_group_id(conn, member)


def _member_detail(person: UUID | None, member: UUID | str) -> dict[str, str]:
    return {"person": str(person)} if person else {"group": str(member)}
