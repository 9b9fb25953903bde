"""Sign-in by one-time links, sessions, and acting as another person in the demo."""

from __future__ import annotations

import re
from typing import Annotated, Any

from fastapi import Request, Response
from fastapi.responses import RedirectResponse
from pydantic import BaseModel, ConfigDict, StringConstraints

from groundplan.api.access.protected_routes import protected_router
from groundplan.api.caller import Operator, SignedIn, cookie_name, is_demo, is_loopback, is_remote
from groundplan.api.context import Services, ServicesDep
from groundplan.api.http.lazy_routes import lazy_router
from groundplan.api.knowledge import ownership
from groundplan.api.people import find_person_id
from groundplan.core.errors import Denied
from groundplan.identity import sessions

router = protected_router("session")
pages = lazy_router(include_in_schema=False)
FIRST_PAGE = "/begin"
"""The page of the console that opens after signing in, unless another one was asked for."""
_OWN_PAGE = re.compile(r"/(?![/\\])[!-~]{1,1000}")
"""Path and query of a page here: two slashes would be an address elsewhere, and a cookie of
more than 4 KiB is not kept."""
Email = Annotated[str, StringConstraints(min_length=3, max_length=320)]


def page_after_sign_in(asked: str) -> str:
    """The page to open after signing in where `asked` was asked for before; the first page where it is none of ours."""
    return asked if _OWN_PAGE.fullmatch(asked) else FIRST_PAGE


class LinkFor(BaseModel):
    """The person who is to sign in; None: the local operator."""

    model_config = ConfigDict(extra="forbid")
    person: Email | None = None


class ActAs(BaseModel):
    """The person to act as in the demo; None: stop acting as somebody."""

    model_config = ConfigDict(extra="forbid")
    person: Email | None = None


@router.post("/login-links", status_code=201)
def login_link(body: LinkFor, request: Request, services: ServicesDep, caller: Operator) -> dict[str, Any]:
    """Create a link that signs in once and is valid for ten minutes."""
    with services.transaction() as conn:
        person = None if body.person is None else find_person_id(conn, body.person)
        token = sessions.create_login_link(conn, caller.actor, person)
    port = request.url.port or 80
    return {"url": f"http://localhost:{port}/login/{token}", "person": body.person}


@pages.get("/login/{token}")
def redeem(token: str, request: Request, services: ServicesDep) -> Response:
    """Sign in with a one-time link, and redirect to the console."""
    with services.transaction() as conn:
        session = sessions.redeem_link(conn, token, agent=request.headers.get("user-agent", ""))
    response = RedirectResponse(FIRST_PAGE, status_code=303)
    set_session_cookie(response, request, services, session)
    return response


def set_session_cookie(response: Response, request: Request, services: Services, secret: str) -> None:
    """Set the cookie of a new session on the response."""
    url = services.settings.console_url
    response.set_cookie(
        cookie_name(request, url),
        secret,
        httponly=True,
        samesite="strict",
        path="/",
        secure=is_remote(request, url),
        max_age=int(sessions.SESSION_LIFETIME.total_seconds()),
    )


@router.get("/session")
def who_am_i(services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """The caller with their duties, and the CSRF token that writes need. `owns` says whether they are owner or steward
    of a source or document, or have a finding of their own."""
    with services.transaction() as conn:
        owns = ownership.owns_anything(conn, caller)
    return {
        "name": caller.name,
        "email": caller.email,
        "operator": caller.operator,
        "acting": caller.acting,
        "proof": caller.proof,
        "proven": caller.proven,
        "duties": [{"subject": subject, "duty": duty} for subject, duty in caller.duties],
        "owns": owns,
        "csrf": caller.csrf,
        "demo": services.demo,
    }


@router.post("/session/act-as")
def act_as(body: ActAs, request: Request, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Act as another person ("you as Maria"), only in the demo and on this machine; such actions never count as
    evidence."""
    if not is_loopback(request):
        raise _demo_only_error()
    if caller.session is None:
        raise Denied(
            "a token cannot act as a person",
            code="act_as",
            hint="Sign in with `groundplan login`, then act as somebody.",
        )
    with services.transaction() as conn:
        if not is_demo(services, conn):
            raise _demo_only_error()
        person = None if body.person is None else find_person_id(conn, body.person)
        sessions.act_as(conn, caller.session, person)
    return {"acting_as": body.person}


@router.post("/logout")
def sign_out(request: Request, response: Response, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """End the caller's session."""
    if caller.session is not None:
        with services.transaction() as conn:
            sessions.end_session(conn, caller.session)
        url = services.settings.console_url
        response.delete_cookie(cookie_name(request, url), path="/", secure=is_remote(request, url))
    return {"signed_in": False}


def _demo_only_error() -> Denied:
    return Denied(
        "acting as somebody is possible only in the demo, on this machine",
        code="act_as",
        hint="Start `groundplan up --demo` with a HOME of its own.",
    )
