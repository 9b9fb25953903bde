"""Company policies: the rules in force, which recorded calls they would have refused, and exceptions from them."""

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
from groundplan.governance.policy.vocabulary import named_groups, named_keys
from groundplan.identity import service as identity
from groundplan.identity.model import Person
from groundplan.release import service as release
from groundplan.release.model import effective_terms

router = protected_router("policy")
END_DUTIES = frozenset({"security", "compliance"})
MAX_CALLS = 200_000
"""The most recorded calls that a trial reads."""


class ExceptionBody(BaseModel):
    """A request for an exception from a rule, for a workload and perhaps one person, until a time, with a reason."""

    model_config = ConfigDict(extra="forbid")
    rule: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    workload: Annotated[str, StringConstraints(min_length=1, max_length=63)]
    person: Annotated[str, StringConstraints(max_length=320)] = ""
    until: datetime
    reason: Annotated[str, StringConstraints(min_length=1, max_length=1000)]


class DecisionBody(BaseModel):
    """The reason of a decision about an exception."""

    model_config = ConfigDict(extra="forbid")
    reason: Annotated[str, StringConstraints(max_length=1000)] = ""


class Draft(BaseModel):
    """A draft policy to try on recorded calls before it is declared."""

    model_config = ConfigDict(extra="forbid")
    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")] = "draft"
    cedar: Annotated[str, StringConstraints(min_length=1, max_length=20_000)]
    days: Annotated[float, Field(gt=0, le=92)] = 1.0


@router.get("/policies")
def list_policies(services: ServicesDep, _: Reader) -> dict[str, Any]:
    """List the policies of the blueprint in force, with their rules, and all exceptions."""
    now = services.clock.now()
    with services.transaction() as conn:
        blueprint = current_blueprint(conn)
        exceptions_json = [exception.to_json(now) for exception in exception_store.list_exceptions(conn)]
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
        "exceptions": exceptions_json,
    }  # fmt: skip


@router.get("/policies/shadow")
def list_trials(
    services: ServicesDep,
    _: Reader,
    days: Annotated[float, Query(gt=0, le=92)] = 1.0,
    policy: Annotated[str | None, Query(max_length=63)] = None,
) -> dict[str, Any]:
    """The calls of the last `days` that each policy would have refused, whether it is enforced or not."""
    with services.transaction() as conn:
        blueprint = current_blueprint(conn)
        selected = [item for item in blueprint.policies if policy in (None, item.name)]
        if policy is not None and not selected:
            raise NotFound(f"there is no policy {policy}", code="policy_unknown", hint="GET /api/policies lists them.")
        return _trials_json(conn, blueprint, selected, services.clock.now(), days)


@router.get("/policies/shadow/days")
def shadow_days(
    services: ServicesDep, _: Reader, days: Annotated[int, Query(ge=1, le=policy_shadow.KEPT_DAYS)] = 7
) -> dict[str, Any]:
    """Results of rules in shadow mode, as they are written now, by day: the number of calls checked, the number that
    would have been refused, their workloads, and examples."""
    with services.transaction() as conn:
        now = services.clock.now()
        in_shadow = [item for item in current_blueprint(conn).policies if not item.enforced]
        return {
            "policies": [
                {"policy": item.name, "owner": item.owner, "days": policy_shadow.refusals_by_day(conn, item, now, days)}
                for item in in_shadow
            ]
        }


@router.post("/policies/try")
def try_draft(body: Draft, services: ServicesDep, _: Reader) -> dict[str, Any]:
    """The recorded calls that a draft policy would have refused. Stores nothing. Raises `Invalid` (`policy_type`) for a
    draft that does not fit the schema of calls."""
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
    """Whether the draft contains a rule. Raises `Invalid` if it cannot be parsed."""
    return bool(cedar.Ruleset.of([cedar.Source(body.name, body.cedar, "draft")]).rules)


def _rules(items: list[PolicyRules]) -> cedar.Ruleset:
    return cedar.Ruleset.of([cedar.Source(item.name, item.text, owner=item.owner, hint=item.hint) for item in items])


def _trials_json(
    conn: Connection[Any], blueprint: Blueprint, policies: list[PolicyRules], now: datetime, days: float
) -> dict[str, Any]:
    """The calls of the last `days`, at most `MAX_CALLS`, that each of the policies would have refused."""
    since = now - timedelta(days=days)
    calls = exception_store.recorded_calls(conn, since, now, MAX_CALLS)
    rules = _rules(policies).rules
    group_names = sorted({group for rule in rules for group in named_groups(rule.body)})
    groups = exception_store.groups_by_person(conn, group_names) if group_names else {}
    key_ids = sorted({key for rule in rules for key in named_keys(rule.body)})
    lines = exception_store.lines_by_key(conn, key_ids) if key_ids else {}
    trials = shadow.try_policies(blueprint, policies, calls, groups, lines)
    return {
        "since": since.isoformat(),
        "calls": len(calls),
        "cut_off": len(calls) == MAX_CALLS,
        "trials": [trial.to_json() for trial in trials],
    }


@router.get("/policies/exceptions")
def list_exceptions(services: ServicesDep, _: Reader) -> dict[str, Any]:
    """List exceptions that are requested, in force or over."""
    with services.transaction() as conn:
        listed = exception_store.list_exceptions(conn)
    now = services.clock.now()
    return {"exceptions": [exception.to_json(now) for exception in listed]}


@router.post("/policies/exceptions", status_code=201)
def request_exception(body: ExceptionBody, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Request an exception. It becomes a pending change, and takes effect once holders of its duties have approved
    it."""
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
        exception_request = ExceptionRequest(
            body.rule, body.workload, _person_id(conn, body.person), until, body.reason
        )
        seats = 1 if served is None else effective_terms(served).seats
        requested = exceptions.request_exception(conn, caller.actor, exception_request, seats=seats, now=now)
    return requested.to_json(now)


@router.post("/policies/exceptions/{id}/approve")
def approve_exception(id: UUID, body: DecisionBody, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Approve an exception requested by somebody else, by the duty security or compliance. Both duties are needed, and
    as many people as the company requires: `waits_for` lists what is missing."""
    approver, now = approver_of(caller), services.clock.now()
    with services.release_turn() as conn:
        exceptions.check_undecided(conn, id, now)
        services.releases.approve(conn, approver, id, Answer(comment=body.reason))
        exception = exceptions.get_exception(conn, id)
        number = changes.policy_number(conn) if exception.state == "approved" else None
    effect = None if number is None else policy_effect(services, number)
    return {"id": str(id), "state": exception.state, "waits_for": list(exception.waits_for), "effective": effect}


@router.post("/policies/exceptions/{id}/refuse")
def refuse_exception(id: UUID, body: DecisionBody, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Refuse an exception, by a duty that the caller holds, or as the operator."""
    approver = None if caller.operator else approver_of(caller)
    with services.release_turn() as conn:
        exceptions.check_undecided(conn, id, services.clock.now())
        services.releases.refuse(conn, approver, id, Answer(comment=body.reason))
    return {"id": str(id), "state": "refused"}


@router.post("/policies/exceptions/{id}/end")
def end_exception(id: UUID, body: DecisionBody, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """End an exception, effective at every gateway within a second. Permitted for the owner of the rule and for holders
    of the duty security or compliance."""
    del body
    with services.transaction() as conn:
        _require_may_end(conn, caller, id)
        number = exceptions.end_exception(conn, caller.actor, id, services.clock.now())
    return {"id": str(id), "state": "ended", "effective": policy_effect(services, number)}


def _person_id(conn: Connection[Any], email: str) -> Person | None:
    """The id of the person with this address; None (everybody) for an empty one. Raises `NotFound`
    (`unknown_person`)."""
    return identity.find_person(conn, email) if email.strip() else None


def _require_may_end(conn: Connection[Any], caller: Caller, id: UUID) -> None:
    """Raise `Denied` unless the caller owns the rule of the exception or holds one of `END_DUTIES`. Raises
    `NotFound`."""
    exception = exceptions.get_exception(conn, id)
    owners = {rule.owner for rule in _rules(current_blueprint(conn).policies).rules if rule.id == exception.rule}
    if caller.email is None or caller.email not in owners:
        require_duty(caller, END_DUTIES, f"workload/{exception.workload}")
