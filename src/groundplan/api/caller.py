"""Who is asking: the local operator by bearer token, or somebody with a console session (and a CSRF token on writes).

What they may do is decided by the routes with the small rules at the end; who somebody is, by `identity`.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from typing import Annotated, Any
from urllib.parse import urlsplit
from uuid import UUID

from fastapi import Depends, Request
from psycopg import Connection

from groundplan.api import store
from groundplan.api.context import Services, Using
from groundplan.api.served_blueprint import current_or_none
from groundplan.core.audit.entry import OPERATOR, ActingAs, service_actor
from groundplan.core.errors import Denied, Unauthenticated
from groundplan.identity import rights, rights_store, sessions
from groundplan.identity.model import COMPANY, DUTIES, Session

LOOPBACK = frozenset({"127.0.0.1", "::1"})
FOR_RECOVERY = frozenset(
    {"/api/session", "/api/sessions", "/api/logout", "/api/passkeys", "/api/passkeys/registration"}
)
"""What somebody may reach from another machine who has only followed a link: what it takes to register a passkey."""
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who is known. `person` is None for the local operator who acts as nobody else."""

    actor: str
    """As the audit log names them; an `ActingAs` while acting as somebody in the demo."""
    person: UUID | None
    email: str | None
    name: str
    operator: bool
    """Holds the operator's rights: by token, or signed in as the local operator and acting as nobody."""
    csrf: str | None = None
    session: str | None = None
    duties: tuple[tuple[str, str], ...] = ()
    """(subject, duty) pairs."""
    signed: Session | None = None
    """The session of a browser; None for a token."""
    scopes: frozenset[str] = frozenset()
    """What a service token may do; empty for everybody else."""

    @property
    def acting(self) -> bool:
        """Acts as a person of the demo; what is done so is evidence of nothing."""
        return isinstance(self.actor, ActingAs)

    @property
    def kind(self) -> str:
        """What the policies of access call them: `Operator`, `Person` or `Service`."""
        return "Operator" if self.operator else "Service" if self.signed is None else "Person"

    @property
    def proof(self) -> str:
        """How they signed in (`identity.model.Proof`); `token` for a bearer token."""
        return "token" if self.signed is None else self.signed.proof

    @property
    def proven(self) -> bool:
        """Whether the person was there, and not only somebody with the operator's token."""
        return self.signed is not None and self.signed.is_proven and not self.acting

    @property
    def real(self) -> str:
        """The actor who signed in, also while acting as somebody else."""
        return self.actor.by if isinstance(self.actor, ActingAs) else self.actor


def caller_of(request: Request, services: Using) -> Caller:
    """Whoever sends this request. Raises `Unauthenticated`, or `Denied` for a write without its CSRF token."""
    known: Caller | None = getattr(request.state, "caller", None)
    if known is None:
        known = request.state.caller = _caller(request, services)
    return known


def caller_by_now(request: Request, services: Services) -> Caller:
    """The same, looked up again: for an answer that goes on after somebody was signed out, or lost a duty."""
    return _caller(request, services)


def _caller(request: Request, services: Services) -> Caller:
    header = request.headers.get("authorization", "")
    if header:
        service = _by_service_token(services, header)
        if service is not None:
            return service
        _check_here(request, services)
        return _by_token(services, header)
    token = request.cookies.get(cookie_name(request))
    caller = _by_session(services, token, is_loopback(request)) if token else None
    if caller is not None and not caller.proven and request.url.path not in FOR_RECOVERY:
        _check_here(request, services)
    if caller is None:
        raise Unauthenticated(
            "you are not signed in", code="not_signed_in", hint="Run `groundplan login` for a one-time link."
        )
    if request.method not in _SAFE_METHODS:
        _check_same_site(request, caller)
    return caller


def _check_here(request: Request, services: Services) -> None:
    """The operator's token and links are good on this machine only; elsewhere people prove who they are."""
    if elsewhere(request, services.settings.console_url):
        raise Denied(
            "from another machine only a passkey or the company's sign-in is accepted",
            code="proof_missing",
            hint="Register a passkey on the page Sign-in, then sign in with it.",
        )


def elsewhere(request: Request, console_url: str | None) -> bool:
    """Whether the request came to the company's address of the console instead of to this machine's own."""
    return console_url is not None and request.url.hostname == urlsplit(console_url).hostname


def cookie_name(request: Request) -> str:
    """Browsers keep cookies by host, not by port: so that several copies on one machine do not sign each other out."""
    return f"{sessions.COOKIE}_{request.url.port or 80}"


def _by_token(services: Services, header: str) -> Caller:
    scheme, _, token = header.partition(" ")
    if scheme.lower() == "bearer" and sessions.is_operator_token(services.home, token.strip()):
        return Caller(OPERATOR, None, None, "local operator", operator=True)
    raise Unauthenticated(
        "this token is not valid here", code="token_invalid", hint="Use the token in HOME/operator.token."
    )


def _by_service_token(services: Services, header: str) -> Caller | None:
    """The program behind a service token; None where the header holds none of that form."""
    scheme, _, secret = header.partition(" ")
    if scheme.lower() != "bearer" or not secret.strip().startswith(rights.TOKEN_PREFIX):
        return None
    with services.transaction() as conn:
        token = rights.find_token(conn, secret.strip(), services.clock.now())
    if token is None:
        raise Unauthenticated(
            "this token is unknown, revoked or expired",
            code="token_invalid",
            hint="Make one: `groundplan tokens create`.",
        )
    return Caller(service_actor(token.id), None, None, token.name, operator=False, scopes=frozenset(token.scopes))


def _by_session(services: Services, token: str, on_this_machine: bool) -> Caller | None:
    with services.transaction() as conn:
        found = sessions.find_session(conn, token)
        if found is None:
            return None
        if found.acting_as is not None and not (on_this_machine and is_demo(services, conn)):
            found = replace(found, acting_as=None)
        who = found.person
        person = store.person(conn, who) if who is not None else None
        duties = _duties(conn, services, who) if who is not None else ()
    if who is not None and (person is None or not person["active"]):
        return None
    if person is None or who is None:
        return Caller(
            OPERATOR, None, None, "local operator", operator=True, csrf=found.csrf, session=token, signed=found
        )
    name = str(person["name"]) if found.acting_as is None else f"you as {person['name']}"
    return Caller(
        sessions.actor_of(found), who, str(person["email"]), name, operator=False, csrf=found.csrf, session=token,
        duties=duties, signed=found,
    )  # fmt: skip


def _duties(conn: Connection[Any], services: Services, person: UUID) -> tuple[tuple[str, str], ...]:
    """What somebody holds, and what they are appointed to now, as (subject, duty)."""
    roles = rights_store.roles_of(conn, person, services.clock.now())
    return (*store.duties_of(conn, person), *((COMPANY, role) for role in roles))


def _check_same_site(request: Request, caller: Caller) -> None:
    given = request.headers.get("x-csrf-token", "")
    if caller.csrf is None or not secrets.compare_digest(given.encode(), caller.csrf.encode()):
        raise Denied(
            "this write lacks the session's CSRF token", code="csrf", hint="Send X-CSRF-Token from GET /api/session."
        )
    origin = request.headers.get("origin")
    if origin and urlsplit(origin).netloc != request.headers.get("host"):
        raise Denied("this write comes from another site", code="csrf_origin", hint="Use the console itself.")


def operator_of(caller: SignedIn) -> Caller:
    """The local operator only."""
    if not caller.operator:
        raise Denied(
            "only the local operator may do this", code="operator_only",
            hint="Use the command line of whoever runs `groundplan up`.",
        )  # fmt: skip
    return caller


def reader_of(caller: SignedIn) -> Caller:
    """The operator, or somebody who holds any duty: those who answer for something may look at everything."""
    if not sees_all(caller):
        raise Denied(
            "you hold no duty here", code="duty_missing", hint="People with a duty see this; ask one of the owners."
        )
    return caller


def sees_all(caller: Caller) -> bool:
    """Whether somebody answers for anything here, or reads for those who do."""
    return caller.operator or bool(caller.duties) or "read" in caller.scopes


def require_duty(caller: Caller, duties: frozenset[str], subject: str) -> None:
    """Pass the operator and holders of one of `duties` for the company or for `subject`; raise `Denied` for others."""
    if caller.operator:
        return
    if any(duty in duties and held in {"company", subject} for held, duty in caller.duties):
        return
    names = ", ".join(sorted(duties))
    raise Denied(f"this needs one of the duties {names}", code="duty_missing", hint=f"Ask an owner of {subject}.")


def workloads_of(caller: Caller) -> frozenset[str] | None:
    """Those that somebody answers for; None where that is all of them: by a duty for the company, or a token whose
    scope let it in."""
    if caller.operator or caller.kind == "Service":
        return None
    held = [of for of, duty in caller.duties if duty in DUTIES]
    if COMPANY in held:
        return None
    return frozenset(of.removeprefix("workload/") for of in held if of.startswith("workload/"))


def is_demo(services: Services, conn: Connection[Any]) -> bool:
    """Whether this is a demo: `up --demo` runs, and it serves the blueprint of a demo, not that of a real company."""
    if not services.demo:
        return False
    blueprint = current_or_none(conn)
    return blueprint is not None and blueprint.demo


def is_loopback(request: Request) -> bool:
    """Whether the request comes from this machine."""
    return request.client is not None and request.client.host in LOOPBACK


SignedIn = Annotated[Caller, Depends(caller_of)]
Operator = Annotated[Caller, Depends(operator_of)]
Reader = Annotated[Caller, Depends(reader_of)]
