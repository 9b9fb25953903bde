"""Company rules: what holds, what each would have refused of recorded calls, exceptions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

from fastapi import Query
from psycopg import Connection
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from groundplan.api.access.protected_routes import protected_router
from groundplan.api.caller import Caller, Reader, SignedIn, require_duty
from groundplan.api.context import ServicesDep
from groundplan.api.propagation import policy_effect
from groundplan.api.routes.changes import approver_of
from groundplan.api.served_blueprint import current_blueprint, require_workload
from groundplan.api.watch import policy_shadow
from groundplan.blueprint.model import Blueprint, PolicyRules
from groundplan.core.errors import Invalid, NotFound
from groundplan.governance import store as changes
from groundplan.governance.approvals import Answer
from groundplan.governance.policy import cedar, declared, exception_store, exceptions, shadow
from groundplan.governance.policy.exceptions_model import ExceptionRequest
from groundplan.governance.policy.vocabulary import named_groups
from groundplan.identity import service as identity
from groundplan.identity.model import Person
from groundplan.release import service as release
from groundplan.release.model import effective_terms

router = protected_router("policy")
END_DUTIES = frozenset({"security", "compliance"})
MAX_CALLS = 200_000
"""The most recorded calls that one trial reads."""


class ExceptionBody(BaseModel):
    """A request for an exception: from which rule, for whom, until when, and why."""

    model_config = ConfigDict(extra="forbid")
    rule: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    workload: Annotated[str, StringConstraints(min_length=1, max_length=63)]
    person: Annotated[str, StringConstraints(max_length=320)] = ""
    until: datetime
    reason: Annotated[str, StringConstraints(min_length=1, max_length=1000)]


class DecisionBody(BaseModel):
    """A decision about an exception."""

    model_config = ConfigDict(extra="forbid")
    reason: Annotated[str, StringConstraints(max_length=1000)] = ""


class Draft(BaseModel):
    """A rule to try before it is declared."""

    model_config = ConfigDict(extra="forbid")
    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")] = "draft"
    cedar: Annotated[str, StringConstraints(min_length=1, max_length=20_000)]
    days: Annotated[float, Field(gt=0, le=92)] = 1.0


@router.get("/policies")
def list_policies(services: ServicesDep, _: Reader) -> dict[str, Any]:
    """Every policy of the blueprint in force, with its rules and the exceptions from them."""
    now = services.clock.now()
    with services.transaction() as conn:
        blueprint = current_blueprint(conn)
        held = [each.to_json(now) for each in exception_store.list_exceptions(conn)]
    return {
        "blueprint": blueprint.number,
        "policies": [
            {
                "name": item.name, "owner": item.owner, "hint": item.hint, "enforced": item.enforced,
                "closed": item.closed, "cedar": item.text,
                "rules": [{"id": rule.id, "effect": rule.effect} for rule in _rules([item]).rules],
            }
            for item in blueprint.policies
        ],
        "exceptions": held,
    }  # fmt: skip


@router.get("/policies/shadow")
def list_trials(
    services: ServicesDep,
    _: Reader,
    days: Annotated[float, Query(gt=0, le=92)] = 1.0,
    policy: Annotated[str | None, Query(max_length=63)] = None,
) -> dict[str, Any]:
    """Calls of the last days that each policy would have refused, whether it is enforced or not."""
    with services.transaction() as conn:
        blueprint = current_blueprint(conn)
        chosen = [item for item in blueprint.policies if policy in (None, item.name)]
        if policy is not None and not chosen:
            raise NotFound(f"there is no policy {policy}", code="policy_unknown", hint="GET /api/policies lists them.")
        return _trials_json(conn, blueprint, chosen, services.clock.now(), days)


@router.get("/policies/shadow/days")
def shadow_days(
    services: ServicesDep, _: Reader, days: Annotated[int, Query(ge=1, le=policy_shadow.KEPT_DAYS)] = 7
) -> dict[str, Any]:
    """Of each rule in shadow, as it is written now, by day: calls looked at as they were made, how many it would have
    refused, of which workloads, and examples."""
    with services.transaction() as conn:
        now = services.clock.now()
        tried = [item for item in current_blueprint(conn).policies if not item.enforced]
        return {
            "policies": [
                {"policy": item.name, "owner": item.owner, "days": policy_shadow.refusals_by_day(conn, item, now, days)}
                for item in tried
            ]
        }


@router.post("/policies/try")
def try_draft(body: Draft, services: ServicesDep, _: Reader) -> dict[str, Any]:
    """Calls that a draft rule would have refused. Nothing is stored."""
    problems = (
        [what for _, what in cedar.validate_policies(body.cedar, declared.call_schema())] if _check_cedar(body) else []
    )
    if problems:
        hint = "docs/policy.md lists what a rule may ask about a call."
        raise Invalid("; ".join(problems[:5]), code="policy_type", hint=hint)
    with services.transaction() as conn:
        blueprint = current_blueprint(conn)
        draft = PolicyRules(name=body.name, text=body.cedar, owner="")
        return _trials_json(conn, blueprint, [draft], services.clock.now(), body.days)


def _check_cedar(body: Draft) -> bool:
    """Whether the draft has any rule. Raises `Invalid` if it cannot be parsed."""
    return bool(cedar.Ruleset.of([cedar.Source(body.name, body.cedar, "draft")]).rules)


def _rules(items: list[PolicyRules]) -> cedar.Ruleset:
    return cedar.Ruleset.of([cedar.Source(item.name, item.text, owner=item.owner, hint=item.hint) for item in items])


def _trials_json(
    conn: Connection[Any], blueprint: Blueprint, chosen: list[PolicyRules], now: datetime, days: float
) -> dict[str, Any]:
    since = now - timedelta(days=days)
    calls = exception_store.recorded_calls(conn, since, now, MAX_CALLS)
    named = sorted({group for rule in _rules(chosen).rules for group in named_groups(rule.body)})
    groups = exception_store.groups_by_person(conn, named) if named else {}
    found = shadow.try_policies(blueprint, chosen, calls, groups)
    return {
        "since": since.isoformat(),
        "calls": len(calls),
        "cut_off": len(calls) == MAX_CALLS,
        "trials": [trial.to_json() for trial in found],
    }


@router.get("/policies/exceptions")
def list_exceptions(services: ServicesDep, _: Reader) -> dict[str, Any]:
    with services.transaction() as conn:
        found = exception_store.list_exceptions(conn)
    now = services.clock.now()
    return {"exceptions": [each.to_json(now) for each in found]}


@router.post("/policies/exceptions", status_code=201)
def request_exception(body: ExceptionBody, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Request an exception; it waits like any change, and takes effect once holders of its duties approve."""
    now = services.clock.now()
    until = body.until if body.until.tzinfo is not None else body.until.replace(tzinfo=UTC)
    with services.transaction() as conn:
        blueprint = current_blueprint(conn)
        require_workload(blueprint, body.workload)
        known = {rule.id for rule in _rules(blueprint.policies).rules}
        if body.rule not in known:
            hint = f"There are: {', '.join(sorted(known)[:20]) or 'none'}."
            raise NotFound(f"there is no rule {body.rule}", code="rule_unknown", hint=hint)
        served = release.current(conn)
        wanted = ExceptionRequest(body.rule, body.workload, _person_id(conn, body.person), until, body.reason)
        seats = 1 if served is None else effective_terms(served).seats
        made = exceptions.request_exception(conn, caller.actor, wanted, seats=seats, now=now)
    return made.to_json(now)


@router.post("/policies/exceptions/{id}/approve")
def approve_exception(id: UUID, body: DecisionBody, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Agree to it by a duty that you hold, security or compliance; never to your own. Both are needed, and as many
    people as the company asks for: `waits_for` says what is missing until it holds."""
    approver, now = approver_of(caller), services.clock.now()
    with services.release_turn() as conn:
        exceptions.check_undecided(conn, id, now)
        services.releases.approve(conn, approver, id, Answer(comment=body.reason))
        made = exceptions.get_exception(conn, id)
        number = changes.policy_number(conn) if made.state == "approved" else None
    effect = None if number is None else policy_effect(services, number)
    return {"id": str(id), "state": made.state, "waits_for": list(made.waits_for), "effective": effect}


@router.post("/policies/exceptions/{id}/refuse")
def refuse_exception(id: UUID, body: DecisionBody, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Refuse an exception, by a duty that you hold, or as the operator."""
    approver = None if caller.operator else approver_of(caller)
    with services.release_turn() as conn:
        exceptions.check_undecided(conn, id, services.clock.now())
        services.releases.refuse(conn, approver, id, Answer(comment=body.reason))
    return {"id": str(id), "state": "refused"}


@router.post("/policies/exceptions/{id}/end")
def end_exception(id: UUID, body: DecisionBody, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Withdraw an exception, effective at every gateway within a second; for the rule's owner, security and
    compliance."""
    del body
    with services.transaction() as conn:
        _require_may_end(conn, caller, id)
        number = exceptions.end_exception(conn, caller.actor, id, services.clock.now())
    return {"id": str(id), "state": "ended", "effective": policy_effect(services, number)}


def _person_id(conn: Connection[Any], email: str) -> Person | None:
    """The id of a person; None for everybody. Raises `NotFound` (`unknown_person`)."""
    return identity.find_person(conn, email) if email.strip() else None


def _require_may_end(conn: Connection[Any], caller: Caller, id: UUID) -> None:
    """Raise `Denied` unless the caller owns the rule of the exception or holds one of the duties. Raises `NotFound`."""
    found = exceptions.get_exception(conn, id)
    owners = {rule.owner for rule in _rules(current_blueprint(conn).policies).rules if rule.id == found.rule}
    if caller.email is None or caller.email not in owners:
        require_duty(caller, END_DUTIES, f"workload/{found.workload}")
