"""Authorization by `access.cedar`: for every route before it runs, and by the route again for its subject.

Before a route, duties for any subject count; a route that knows its subject checks again with the duties for it.
`COMPANY_WIDE` actions have no other subject and are checked for the company at once. Proof of presence for approvals is
checked by governance. A route that is missing in `routes.json` is a bug: a test lists it, and until then only the
operator and holders of a duty may use it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from importlib import resources
from typing import Any

from fastapi import Request
from psycopg import Connection

from groundplan.api.access.query_names import reject_unknown_names
from groundplan.api.caller import Caller, caller_of
from groundplan.api.context import ServicesDep
from groundplan.core.errors import Denied
from groundplan.governance import store as governance
from groundplan.governance.policy.cedar import Ruleset, Slice, Source, Verdict, parse_entities, policy_denial
from groundplan.identity.model import COMPANY, SCOPES
from groundplan.identity.scim import resources as scim

UNLISTED_ACTION = "work"
COMPANY_WIDE = frozenset({"people", "appoint", "handover", "erase"})
"""Actions about everybody: a duty for one workload does not permit them."""
PREFIX = "/api"


@cache
def access_rules() -> Slice:
    """The policies of `access.cedar`."""
    text = (resources.files(__package__) / "access.cedar").read_text(encoding="utf-8")
    return Ruleset.of([Source("access", text, "access.cedar")]).full_slice()


@cache
def actions_by_route() -> dict[str, str]:
    """`METHOD /path` of every route -> its action."""
    text = (resources.files(__package__) / "routes.json").read_text(encoding="utf-8")
    return {route: action for action, routes in json.loads(text).items() for route in routes}


@cache
def _no_entities() -> Any:
    return parse_entities([])


def access_verdict(
    kind: str, action: str, duties: Iterable[str], *, proven: bool, scopes: Iterable[str] = ()
) -> Verdict:
    """The verdict of the policies for a principal of this kind (`Operator | Person | Service | Anybody`)."""
    context = {"duties": sorted(set(duties)), "proven": proven, "scopes": sorted(scopes), "scope": action}
    request = {
        "principal": {"type": kind, "id": "caller"},
        "action": {"type": "Action", "id": action},
        "resource": {"type": "Installation", "id": "here"},
        "context": json.dumps(context),
    }
    return access_rules().decide(request, _no_entities())


def authorize(caller: Caller, action: str, subject: str | None = None) -> None:
    """Raise `Denied` (`duty_missing`, with the rule's hint; `proof_missing`) unless the policies permit the action.

    `subject` None: all duties of the caller count; else only those for the subject or the company.
    """
    duties = [duty for of, duty in caller.duties if subject is None or of in (COMPANY, subject)]
    if caller.operator:
        duties.append("operations")
    verdict = access_verdict(caller.kind, action, duties, proven=caller.proven, scopes=caller.scopes)
    if verdict.allowed:
        return
    if not verdict.rules and not caller.proven and access_verdict(caller.kind, action, duties, proven=True).allowed:
        raise Denied(
            f"your duty lets you do this ({action}) only once you have proved who you are", code="proof_missing",
            hint="Sign in with your passkey or at the company's sign-in. A link, or acting as somebody, is no proof.",
        )  # fmt: skip
    raise _refusal(verdict, caller, action)


def company_duties(conn: Connection[Any], caller: Caller) -> set[str]:
    """The caller's duties for the company, and those for any subject that nobody holds for the company: the same people
    decide about company changes (`governance.store.holders`)."""
    duties = {duty for of, duty in caller.duties if of == COMPANY}
    for duty in {duty for _, duty in caller.duties} - duties:
        if any(holder.person_id == caller.person for holder in governance.holders(conn, COMPANY, duty)):
            duties.add(duty)
    return duties


def authorize_company(conn: Connection[Any], caller: Caller, action: str) -> None:
    """As `authorize`, for company-wide actions."""
    duties = sorted(company_duties(conn, caller))
    authorize(replace(caller, duties=tuple((COMPANY, duty) for duty in duties)), action, COMPANY)


def authorize_request(request: Request, services: ServicesDep) -> None:
    """The dependency of every route below /api: raises `Denied` unless the caller may use the route."""
    action = actions_by_route().get(f"{request.method} {_route_path(request)}", UNLISTED_ACTION)
    if action == "open":
        return
    caller = caller_of(request, services)
    authorize(caller, action)
    if action in COMPANY_WIDE and any(of != COMPANY for of, _ in caller.duties):
        with services.transaction() as conn:
            authorize_company(conn, caller, action)
    if not request.url.path.startswith(scim.PREFIX):  # directories ask what they like
        reject_unknown_names(request)


def _route_path(request: Request) -> str:
    """The path of the route as OpenAPI writes it."""
    return str(getattr(request.scope.get("route"), "path_format", request.url.path))


def _refusal(verdict: Verdict, caller: Caller, action: str) -> Denied:
    if verdict.errors or verdict.rules:
        error = policy_denial(verdict, f"this ({action})")
        rule = min(verdict.rules, key=lambda candidate: candidate.id) if verdict.rules else None
        code = error.code if rule is None else rule.id.partition(".")[2]
        return Denied(error.message, code=code, hint=error.hint if rule is None else rule.hint)
    permitting = [rule for rule in access_rules().rules if rule.effect == "permit" and _is_about(rule.body, action)]
    hints = [rule.hint for rule in permitting if rule.hint]
    hint = hints[0] if hints else "Ask one of the owners."
    if caller.kind == "Service":
        scope = {"own": "read", "settle": "work"}.get(action, action)
        message = f"this token has no scope that lets it do this ({action})"
        hint = f"Make one that has it: `groundplan tokens create NAME --scope {scope}`." if scope in SCOPES else hint
        return Denied(message, code="scope_missing", hint=hint)
    if caller.duties:
        message = f"none of your duties lets you do this ({action})"
    else:
        message = f"you hold no duty here that lets you do this ({action})"
    return Denied(message, code="operator_only" if action == "operate" else "duty_missing", hint=hint)


def _is_about(body: Any, action: str) -> bool:
    return f'"id": "{action}"' in json.dumps(body.get("action", {}))
