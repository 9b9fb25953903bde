"""Authentication of control API requests: the local operator or a service by bearer token, or a person by the cookie of
a console session (with a CSRF token on writes).

Routes decide what a caller may do, with the small checks at the end of this module; `identity` stores people and
sessions.
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
from groundplan.api.context import Services, ServicesDep
from groundplan.api.served_blueprint import current_or_none
from groundplan.core.audit.entry import OPERATOR, ActingAs, service_actor
from groundplan.core.errors import Denied, Unauthenticated
from groundplan.identity import rights, rights_store, sessions
from groundplan.identity.model import COMPANY, DUTIES, Session

LOOPBACK = frozenset({"127.0.0.1", "::1"})
RECOVERY_PATHS = frozenset(
    {"/api/session", "/api/sessions", "/api/logout", "/api/passkeys", "/api/passkeys/registration"}
)
"""Paths that a person who only followed a link may use from another machine: those needed to register a passkey."""
_FORWARDED = frozenset({"forwarded", "via", "x-real-ip"})
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated caller. `person` is None for services, and for the local operator who acts as nobody else."""

    actor: str
    """The name in the audit log; an `ActingAs` while acting as somebody in the demo."""
    person: UUID | None
    email: str | None
    name: str
    operator: bool
    """Has the operator's rights: by token, or signed in as the local operator and acting as nobody."""
    csrf: str | None = None
    session: str | None = None
    duties: tuple[tuple[str, str], ...] = ()
    """(subject, duty) pairs."""
    browser_session: Session | None = None
    """None for a bearer token."""
    scopes: frozenset[str] = frozenset()
    """The scopes of a service token; empty for everybody else."""

    @property
    def acting(self) -> bool:
        """Whether the caller acts as a person of the demo; such actions are evidence of nothing."""
        return isinstance(self.actor, ActingAs)

    @property
    def kind(self) -> str:
        """The principal type in access policies: `Operator`, `Person` or `Service`."""
        return "Operator" if self.operator else "Service" if self.browser_session is None else "Person"

    @property
    def proof(self) -> str:
        """How the caller signed in (`identity.model.Proof`); `token` for a bearer token."""
        return "token" if self.browser_session is None else self.browser_session.proof

    @property
    def proven(self) -> bool:
        """Whether the person proved to be present, which the operator's token and links do not prove."""
        return self.browser_session is not None and self.browser_session.is_proven and not self.acting

    @property
    def real(self) -> str:
        """The actor who signed in, even while acting as somebody else."""
        return self.actor.by if isinstance(self.actor, ActingAs) else self.actor


def caller_of(request: Request, services: ServicesDep) -> Caller:
    """The authenticated caller of a request, looked up once per request. Raises `Unauthenticated`, or `Denied` for a
    write without its CSRF token."""
    cached: Caller | None = getattr(request.state, "caller", None)
    if cached is None:
        cached = request.state.caller = _authenticate(request, services)
    return cached


def refreshed_caller(request: Request, services: Services) -> Caller:
    """The caller, looked up again: a streamed response must end when the caller was signed out or lost a duty."""
    return _authenticate(request, services)


def _authenticate(request: Request, services: Services) -> Caller:
    header = request.headers.get("authorization", "")
    if header:
        service = _service_by_token(services, header)
        if service is not None:
            return service
        _require_local(request, services)
        return _operator_by_token(services, header)
    token = request.cookies.get(cookie_name(request, services.settings.console_url))
    caller = _caller_by_session(services, token, is_loopback(request)) if token else None
    if caller is not None and not caller.proven and request.url.path not in RECOVERY_PATHS:
        _require_local(request, services)
    if caller is None:
        raise Unauthenticated(
            "you are not signed in", code="not_signed_in", hint="Run `groundplan login` for a one-time link."
        )
    if request.method not in _SAFE_METHODS:
        _check_same_site(request, caller)
    return caller


def _require_local(request: Request, services: Services) -> None:
    """Raise `Denied` for a request from another machine: the operator's token and links are valid only on this one.
    Where there is an address of the console, and so a proxy, a request that a proxy passed on is from another one also
    if the proxy replaced the Host header, as nginx does unless it is told to keep it."""
    url = services.settings.console_url
    if is_remote(request, url) or (url is not None and _was_passed_on(request)):
        raise Denied(
            "from another machine only a passkey or the company's sign-in is accepted",
            code="proof_missing",
            hint="Register a passkey on the page Sign-in, then sign in with it.",
        )


def is_remote(request: Request, console_url: str | None) -> bool:
    """Whether the request came to the company's address of the console instead of this machine's own address."""
    return console_url is not None and request.url.hostname == urlsplit(console_url).hostname


def _was_passed_on(request: Request) -> bool:
    """Whether a proxy says in a header that it passed the request on for somebody."""
    return any(name in _FORWARDED or name.startswith("x-forwarded-") for name in request.headers)


def cookie_name(request: Request, console_url: str | None) -> str:
    """The name of the session cookie. At the company's address it has the prefix for which browsers accept no cookie
    from pages of neighbouring names. On this machine it has the port: browsers keep cookies by host only, and several
    installations on one machine must not sign each other out."""
    if is_remote(request, console_url):
        return f"__Host-{sessions.COOKIE}"
    return f"{sessions.COOKIE}_{request.url.port or 80}"


def _operator_by_token(services: Services, header: str) -> Caller:
    scheme, _, token = header.partition(" ")
    if scheme.lower() == "bearer" and sessions.is_operator_token(services.home, token.strip()):
        return Caller(OPERATOR, None, None, "local operator", operator=True)
    raise Unauthenticated(
        "this token is not valid here", code="token_invalid", hint="Use the token in HOME/operator.token."
    )


def _service_by_token(services: Services, header: str) -> Caller | None:
    """The service of a service token; None if the header has no token of that form."""
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


def _caller_by_session(services: Services, token: str, on_this_machine: bool) -> Caller | None:
    with services.transaction() as conn:
        session = sessions.find_session(conn, token)
        if session is None:
            return None
        if session.acting_as is not None and not (on_this_machine and is_demo(services, conn)):
            session = replace(session, acting_as=None)
        person_id = session.person
        person = store.person(conn, person_id) if person_id is not None else None
        duties = _duties_and_roles(conn, services, person_id) if person_id is not None else ()
    if person_id is not None and (person is None or not person["active"]):
        return None
    if person is None or person_id is None:
        return Caller(
            OPERATOR,
            None,
            None,
            "local operator",
            operator=True,
            csrf=session.csrf,
            session=token,
            browser_session=session,
        )
    name = str(person["name"]) if session.acting_as is None else f"you as {person['name']}"
    return Caller(
        sessions.actor_of(session),
        person_id,
        str(person["email"]),
        name,
        operator=False,
        csrf=session.csrf,
        session=token,
        duties=duties,
        browser_session=session,
    )


def _duties_and_roles(conn: Connection[Any], services: Services, person: UUID) -> tuple[tuple[str, str], ...]:
    """(subject, duty) pairs: the duties that a person holds, and the company roles they are appointed to now."""
    roles = rights_store.roles_of(conn, person, services.clock.now())
    return (*store.duties_of(conn, person), *((COMPANY, role) for role in roles))


def _check_same_site(request: Request, caller: Caller) -> None:
    token = request.headers.get("x-csrf-token", "")
    if caller.csrf is None or not secrets.compare_digest(token.encode(), caller.csrf.encode()):
        raise Denied(
            "this write lacks the session's CSRF token", code="csrf", hint="Send X-CSRF-Token from GET /api/session."
        )
    origin = request.headers.get("origin")
    if origin and urlsplit(origin).netloc != request.headers.get("host"):
        raise Denied("this write comes from another site", code="csrf_origin", hint="Use the console itself.")


def require_operator(caller: SignedIn) -> Caller:
    """Return the caller if it is the local operator. Raises `Denied`."""
    if not caller.operator:
        raise Denied(
            "only the local operator may do this", code="operator_only",
            hint="Use the command line of whoever runs `groundplan up`.",
        )  # fmt: skip
    return caller


def require_reader(caller: SignedIn) -> Caller:
    """Return the caller if it may read everything: the operator, or anybody with a duty. Raises `Denied`."""
    if not can_read_all(caller):
        raise Denied(
            "you hold no duty here", code="duty_missing", hint="People with a duty see this; ask one of the owners."
        )
    return caller


def can_read_all(caller: Caller) -> bool:
    """Whether the caller is the operator, holds any duty, or has the scope `read`."""
    return caller.operator or bool(caller.duties) or "read" in caller.scopes


def require_duty(caller: Caller, duties: frozenset[str], subject: str) -> None:
    """Raise `Denied` unless the caller is the operator or holds one of `duties` for the company or for `subject`."""
    if caller.operator:
        return
    if any(duty in duties and scope in {"company", subject} for scope, duty in caller.duties):
        return
    names = ", ".join(sorted(duties))
    raise Denied(f"this needs one of the duties {names}", code="duty_missing", hint=f"Ask an owner of {subject}.")


def readable_workloads(caller: Caller) -> frozenset[str] | None:
    """The workloads that the caller holds a duty for; None means all: the operator, a company duty, or a service token,
    whose scope was checked before."""
    if caller.operator or caller.kind == "Service":
        return None
    subjects = [of for of, duty in caller.duties if duty in DUTIES]
    if COMPANY in subjects:
        return None
    return frozenset(of.removeprefix("workload/") for of in subjects if of.startswith("workload/"))


def is_demo(services: Services, conn: Connection[Any]) -> bool:
    """Whether `up --demo` runs and the served blueprint is that of a demo, not of a real company."""
    if not services.demo:
        return False
    blueprint = current_or_none(conn)
    return blueprint is not None and blueprint.demo


def is_loopback(request: Request) -> bool:
    """Whether the request comes from this machine."""
    return request.client is not None and request.client.host in LOOPBACK


SignedIn = Annotated[Caller, Depends(caller_of)]
Operator = Annotated[Caller, Depends(require_operator)]
Reader = Annotated[Caller, Depends(require_reader)]
