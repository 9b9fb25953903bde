"""API keys: create (shown once), list without their secrets, rotate and revoke them."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

from fastapi import Query
from psycopg import Connection
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, WithJsonSchema

from groundplan.api import store
from groundplan.api.access.authorization import authorize
from groundplan.api.access.protected_routes import protected_router
from groundplan.api.caller import Caller, Reader, SignedIn
from groundplan.api.context import ServicesDep
from groundplan.api.grants import check_act_for_others
from groundplan.api.mail import store as mail_store
from groundplan.api.people import find_person_id
from groundplan.api.propagation import policy_effect
from groundplan.api.served_blueprint import current_blueprint, require_workload
from groundplan.api.unknown_names import require_known_names, require_known_person
from groundplan.blueprint.model import Blueprint, Workload
from groundplan.catalog import units
from groundplan.core.audit.entry import OPERATOR, person_actor
from groundplan.core.error_shape import problem_json
from groundplan.core.errors import Denied, Invalid
from groundplan.core.money import short_usd
from groundplan.identity import rights_store
from groundplan.identity import service as identity
from groundplan.identity import store as identity_store
from groundplan.identity.model import KeyTerms
from groundplan.release.warnings import limits

router = protected_router("keys")
PAGE = 500


TAG_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._:/=-]{0,62}$"


def _checked_tag(tag: str) -> str:
    """The tag. Raises `ValueError` with words, since a person at a terminal reads no pattern."""
    if re.fullmatch(TAG_PATTERN, tag) is None:
        raise ValueError(
            f"the tag {tag[:40]!r} is not valid: "
            "write up to 63 letters, digits and . _ : / = -, first a letter or digit"
        )
    return tag


Tag = Annotated[str, AfterValidator(_checked_tag), WithJsonSchema({"type": "string", "pattern": TAG_PATTERN})]


class NewKey(BaseModel):
    """A new key. With `user` it carries that person's permissions, without it nobody's."""

    model_config = ConfigDict(extra="forbid")
    workload: Annotated[str, StringConstraints(min_length=1, max_length=63)]
    user: Annotated[str, StringConstraints(min_length=3, max_length=320)] | None = None
    acts_for_others: bool = False
    days: Annotated[int, Field(ge=1, le=3660)] | None = None
    tags: Annotated[list[Tag], Field(max_length=20)] = []
    networks: Annotated[list[str], Field(max_length=50)] = []
    """Networks (CIDR) from which the key may be used, such as 10.0.0.0/8; empty: all."""
    models: Annotated[list[str], Field(max_length=50)] = []
    """Models or deployments of the workload that the key may use; empty: all."""
    budget: Annotated[str, StringConstraints(max_length=40)] | None = None
    """An amount per period, such as 20 USD/month."""


class Rotation(BaseModel):
    """How long the old key stays valid beside the new one, such as 24h; at most 90 days."""

    model_config = ConfigDict(extra="forbid")
    overlap: Annotated[str, StringConstraints(max_length=20)] = "24h"


@router.post("/keys", status_code=201)
def create_key(body: NewKey, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Create a key. Only this response contains its secret. `effective` lists the gateways that know the key already:
    all that are connected, unless one is slow. `warnings` say where its budget is too small for a call.

    A key that carries a person's permissions is created by that person, or by the operator, and the person is notified.
    A key that acts for others is created by people to whom that is granted; without any such grant only by the
    operator.
    """
    authorize(caller, "keys", f"workload/{body.workload}")
    expires = None if body.days is None else services.clock.now() + timedelta(days=body.days)
    with services.transaction() as conn:
        blueprint = current_blueprint(conn)
        workload = require_workload(blueprint, body.workload)
        terms = _terms(body, blueprint, workload)
        person = None if body.user is None else find_person_id(conn, body.user)
        _check_owner(conn, caller, person)
        if body.acts_for_others:
            _check_act_for_others(conn, caller, blueprint, workload.name)
            check_act_for_others(conn, workload, person, services.clock.now().date())
        key_id, secret = identity.create_key(conn, caller.actor, workload.name, person, terms, expires)
        if person is not None:
            _mail_owner(conn, caller, key_id, person, services.clock.now())
        number = store.policy_number(conn)
    return {
        "id": str(key_id), "key": secret, "workload": workload.name, "user": body.user, "expires_at": expires,
        "effective": policy_effect(services, number), "warnings": _warnings(blueprint, workload, terms),
    }  # fmt: skip


def _warnings(blueprint: Blueprint, workload: Workload, terms: KeyTerms) -> list[dict[str, Any]]:
    """Warnings about a budget that is too small for any call, which otherwise only callers of the key would notice."""
    if terms.budget is None:
        return []
    budget_text = f"{short_usd(terms.budget)}/{terms.budget_period}"
    problems = limits.key_budget_warnings(workload, blueprint.deployments, terms.models, terms.budget, budget_text)
    return [problem_json(problem) for problem in problems]


def _check_owner(conn: Connection[Any], caller: Caller, person: UUID | None) -> None:
    """Raise `Denied` (`key_of_another`) if the key would carry the permissions of another person. The operator may
    create such keys."""
    if person is None or person_actor(person) == str(caller.actor):
        return
    if rights_store.responsible_actor(conn, str(caller.actor)) != OPERATOR:
        raise Denied(
            "only the person themselves may create a key that carries their permissions", code="key_of_another",
            hint="Ask them to, leave user out, or ask the operator: groundplan keys create --user E-MAIL.",
        )  # fmt: skip


def _check_act_for_others(conn: Connection[Any], caller: Caller, blueprint: Blueprint, workload: str) -> None:
    """Raise `Denied` (`act_for_others_not_granted`) for a key that acts for others if no grant of the workload permits
    it: such a key can read what anybody may read. Without a grant only the operator may create it."""
    granted = any(item.name == workload and item.act_for_others for item in blueprint.workloads)
    if not granted and rights_store.responsible_actor(conn, str(caller.actor)) != OPERATOR:
        raise Denied(
            f"keys of {workload} that act for others, and can read what anybody may read, are granted to nobody",
            code="act_for_others_not_granted",
            hint="Declare kind: grant with allows: act-for-others, or ask the operator: groundplan keys create "
            "--on-behalf-of.",
        )


def _mail_owner(conn: Connection[Any], caller: Caller, key: UUID, person: UUID, now: datetime) -> None:
    """Notify the person whose permissions a new key carries, unless they created it themselves."""
    if caller.person != person:
        text = "A key that carries your permissions was made; if you did not ask for it, tell security"
        mail_store.queue_mail(conn, f"key:{key}", person, text, "/you", now)


def _terms(body: NewKey, blueprint: Blueprint, workload: Workload) -> KeyTerms:
    """The terms of a new key. Raises `Invalid` (`model_unknown`, `key_terms`) for an invalid network, budget or
    model."""
    deployments = [d for d in blueprint.deployments if d.name in set(workload.all_deployments)]
    known = {name for d in deployments for name in (d.name, d.model)}
    upstream = {d.upstream_model for d in deployments}  # calls may use the upstream's name as well
    unknown = [model for model in body.models if model not in known and model not in upstream]
    if unknown:
        raise Invalid(
            f"the workload {workload.name} has no model '{unknown[0][:80]}'",
            code="model_unknown",
            hint=f"It has: {', '.join(sorted(known))}.",
        )
    try:
        networks = tuple(units.network(text) for text in body.networks)
        budget = None if body.budget is None else units.limit(body.budget)
    except ValueError as error:
        hint = f"{str(error)[:1].upper()}{str(error)[1:]}."
        raise Invalid("the key cannot be created with these terms", code="key_terms", hint=hint) from error
    return KeyTerms(
        acts_for_others=body.acts_for_others,
        tags=tuple(dict.fromkeys(body.tags)),
        networks=networks,
        models=tuple(
            dict.fromkeys(
                name
                for model in body.models
                for name in ([model] if model in known else [d.name for d in deployments if d.upstream_model == model])
            )
        ),
        budget=None if budget is None else budget.amount,
        budget_period=None if budget is None else budget.period,
    )


@router.post("/keys/{key_id}/rotate", status_code=201)
def rotate_key(key_id: UUID, body: Rotation, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Replace a key with a new one, which is valid at once; the old one ends after `overlap`. The rights of the key
    stay the same. `warnings` as for a created key."""
    try:
        overlap = timedelta(milliseconds=units.duration_ms(body.overlap))
    except ValueError as error:
        hint = f"{str(error)[:1].upper()}{str(error)[1:]}."
        raise Invalid("the overlap is not a duration", code="overlap", hint=hint) from error
    if overlap > timedelta(days=90):
        raise Invalid("the overlap is too long", code="overlap", hint="Write at most 90d.")
    with services.transaction() as conn:
        row = store.key(conn, key_id)
        authorize(caller, "keys", f"workload/{row['workload']}")
        owner = None if row["user"] is None else find_person_id(conn, row["user"])
        _check_owner(conn, caller, owner)
        blueprint = current_blueprint(conn)
        if row["acts_for_others"]:
            _check_act_for_others(conn, caller, blueprint, row["workload"])
        new, secret, ends = identity.rotate_key(conn, caller.actor, key_id, overlap)
        if owner is not None:
            _mail_owner(conn, caller, new.id, owner, services.clock.now())
        number = store.policy_number(conn)
    return {
        "id": str(new.id), "key": secret, "workload": new.workload, "expires_at": new.expires_at,
        "replaces": str(key_id), "old_ends_at": ends, "effective": policy_effect(services, number),
        "warnings": [warning for item in blueprint.workloads if item.name == new.workload
                     for warning in _warnings(blueprint, item, new.terms)],
    }  # fmt: skip


@router.get("/keys")
def list_keys(
    services: ServicesDep,
    _: Reader,
    tag: Annotated[str | None, Query(max_length=63)] = None,
    workload: Annotated[str | None, Query(max_length=63)] = None,
    user: Annotated[str | None, Query(max_length=320)] = None,
    active: bool = False,
    before: UUID | None = None,
    limit: Annotated[int, Query(ge=1, le=PAGE)] = PAGE,
) -> dict[str, Any]:
    """List keys, newest first, including revoked and expired ones unless `active` is set; filtered by `tag`, `workload`
    or `user` (e-mail address). For the next page pass `next` as `before`."""
    with services.transaction() as conn:
        rows = store.keys(conn, store.KeyFilter(tag, workload, user, active), before, limit + 1)
        if before is None:
            require_known_names(conn, rows, workload=workload)
            require_known_person(conn, rows, user)
    shown = rows[:limit]
    return {"keys": shown, "next": str(shown[-1]["id"]) if len(rows) > limit else None}


@router.delete("/keys/{key_id}")
def revoke_key(key_id: UUID, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Revoke a key. `effective` lists the gateways that have acknowledged it; `others` are keys that it was rotated to
    or from, which go on."""
    with services.transaction() as conn:
        row = store.key(conn, key_id)
        authorize(caller, "revoke", f"workload/{row['workload']}")
        number = identity.revoke_key(conn, caller.actor, key_id)
        others = [] if identity_store.stopped_keys_of_line(conn, key_id) else store.rotated_keys(conn, key_id)
    effective = policy_effect(services, number, workload=row["workload"])
    return {"id": str(key_id), "effective": effective, "others": others}
