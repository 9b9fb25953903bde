"""The kill switch: stop a scope, report when that is effective at every gateway, and lift the stop again.

A scope that names nothing is refused, so that a misspelt name is not mistaken for a successful stop.
"""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from psycopg import Connection
from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints

from groundplan.api import store
from groundplan.api.access.authorization import authorize
from groundplan.api.access.protected_routes import protected_router
from groundplan.api.actor_names import load_names
from groundplan.api.caller import Reader, SignedIn
from groundplan.api.context import ServicesDep
from groundplan.api.presence import is_one_approver_enough
from groundplan.api.propagation import policy_effect
from groundplan.api.served_blueprint import current_or_none
from groundplan.blueprint.model import Blueprint
from groundplan.core.errors import NotFound
from groundplan.core.words import closest_name
from groundplan.governance import service as governance
from groundplan.governance.policy.vocabulary import provider_of
from groundplan.identity import rights, rights_store
from groundplan.identity import service as identity
from groundplan.identity import store as identity_store
from groundplan.identity.model import canonical_scope
from groundplan.ledger import finding_store
from groundplan.ledger.model import OVER_BOUND

router = protected_router("kill")


class KillBody(BaseModel):
    """A scope to stop, or whose stop is to be lifted, and the reason."""

    model_config = ConfigDict(extra="forbid")
    scope: Annotated[
        str,
        StringConstraints(pattern=r"^(company|(provider|model|workload|deployment|source|tool|key|site)/\S{1,160})$"),
        AfterValidator(canonical_scope),
    ]
    reason: Annotated[str, StringConstraints(min_length=1, max_length=500)]
    streams: bool = False
    """Also end running answers, with an error."""


@router.get("/kill")
def list_kills(services: ServicesDep, caller: Reader) -> dict[str, Any]:
    """List the kills in force, and the `scopes` that can be stopped."""
    with services.transaction() as conn:
        lift_requests = rights_store.lift_wishes(conn)
        names = load_names(conn, caller, [by for by, _ in lift_requests.values()])
        lift_state = {
            scope: {"lift_asked_by": names.of(by), "lift_waits_for": _lift_waits_for(proven=proven)}
            for scope, (by, proven) in lift_requests.items()
        }
        not_requested = {"lift_asked_by": None, "lift_waits_for": None}
        return {"kills": [{**row, **lift_state.get(row["scope"], not_requested)} for row in store.kills(conn)],
                "scopes": _scopes(current_or_none(conn))}  # fmt: skip


def _scopes(blueprint: Blueprint | None) -> list[str]:
    if blueprint is None:
        return ["company"]
    items_by_kind = (
        ("workload", blueprint.workloads),
        ("deployment", blueprint.deployments),
        ("site", blueprint.sites),
        ("source", blueprint.sources),
    )
    models = sorted({item.model for item in blueprint.deployments})
    providers = sorted({provider_of(item) for item in blueprint.deployments})
    return [
        "company",
        *(f"{kind}/{item.name}" for kind, items in items_by_kind for item in items),
        *(f"model/{name}" for name in models),
        *(f"provider/{name}" for name in providers),
        *(f"tool/{item.name}" for item in blueprint.tools),
    ]


@router.post("/kill", status_code=201)
def kill(body: KillBody, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Stop a scope. Gateways acknowledge within a second; each disconnected one is listed with the time until which it
    may serve. With a rotated key, `also_stopped` are the other keys of its line of rotations that have not ended."""
    authorize(caller, "stop", body.scope)
    kind, _, name = body.scope.partition("/")
    with services.transaction() as conn:
        _check_scope(conn, body.scope)
        number = identity.kill(conn, caller.actor, body.scope, body.reason, streams=body.streams)
        also_stopped = store.rotated_keys(conn, UUID(name)) if kind == "key" else []
    effective = policy_effect(services, number, workload=name if kind == "workload" else None)
    return {"scope": body.scope, "reason": body.reason, "effective": effective, "also_stopped": also_stopped}


@router.post("/kill/lift")
def lift(body: KillBody, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Lift a stop. It takes two people who proved their presence: the first requests it, another one confirms.

    One person is enough in a company of one person, in the demo, and before anybody has a passkey. `lifted` says
    whether the scope runs again; if not, `waits_for` says for whom it waits.
    """
    authorize(caller, "lift", body.scope)
    with services.transaction() as conn:
        if body.scope not in {row["scope"] for row in store.kills(conn)}:
            raise _not_stopped(conn, body.scope)
        alone = is_one_approver_enough(services, conn)
        if not rights.confirm_lift(conn, caller.actor, body.scope, body.reason, proven=caller.proven, alone=alone):
            waits_for = _lift_waits_for(proven=caller.proven)
            return {"scope": body.scope, "lifted": False, "waits_for": waits_for, "effective": None}
        number = identity.lift(conn, caller.actor, body.scope)
        finding_store.close_about(conn, OVER_BOUND, body.scope, caller.actor, body.reason)
    return {"scope": body.scope, "lifted": True, "waits_for": None, "effective": policy_effect(services, number)}


def _not_stopped(conn: Connection[Any], scope: str) -> NotFound:
    """The error for lifting a stop that is not in force, naming the one by which a rotated key is stopped."""
    kind, _, name = scope.partition("/")
    if kind == "key" and _is_key(conn, name) and (named := identity_store.stopped_keys_of_line(conn, UUID(name))):
        message = f"{scope} is stopped with key/{named[0]}, of its line of rotations"
        return NotFound(message, code="not_killed", hint=f"Lift that: `groundplan kill key/{named[0]} --lift -m WHY`.")
    return NotFound(f"{scope} is not stopped", code="not_killed", hint="`groundplan status` lists what is.")


def _lift_waits_for(*, proven: bool) -> str:
    """For whom lifting a kill waits; `proven`: whether the requester proved to be present."""
    return "somebody else with the duty" if proven else "two people with the duty who prove to be there"


def _check_scope(conn: Connection[Any], scope: str) -> None:
    """Raise `NotFound` (`scope_unknown`) if the scope names no served or pending item and no key."""
    kind, _, name = scope.partition("/")
    if kind in ("company", "tool") or (kind == "key" and _is_key(conn, name)):
        return
    known = set() if kind == "key" else known_scopes(conn, kind)
    if scope in known:
        return
    suggestion = closest_name(scope, known)
    listed = "`groundplan keys list` shows the keys." if kind == "key" else f"There are: {_names_hint(known)}."
    raise NotFound(
        f"there is no {scope}, so nothing was stopped",
        code="scope_unknown",
        hint=f"Did you mean {suggestion}?" if suggestion else listed,
    )


def _is_key(conn: Connection[Any], name: str) -> bool:
    try:
        return store.key_or_none(conn, UUID(name)) is not None
    except ValueError:
        return False


def known_scopes(conn: Connection[Any], kind: str) -> set[str]:
    """Scopes of this kind in the served blueprint and in pending changes."""
    pending = {change.subject for change in governance.pending_changes(conn) if change.type == kind}
    blueprint = current_or_none(conn)
    if blueprint is None:
        return pending
    names = {
        "workload": [item.name for item in blueprint.workloads],
        "deployment": [item.name for item in blueprint.deployments],
        "source": [item.name for item in blueprint.sources],
        "site": [item.name for item in blueprint.sites],
        "model": [item.model for item in blueprint.deployments],
        "provider": [provider_of(item) for item in blueprint.deployments],
    }[kind]
    return pending | {f"{kind}/{name}" for name in names}


def _names_hint(known: set[str]) -> str:
    return ", ".join(sorted(known)[:20]) or "none of that kind"
