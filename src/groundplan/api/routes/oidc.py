"""Sign-in by the company's OpenID provider. Pages, since the browser is redirected there and back."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from groundplan.api.caller import cookie_name, is_remote
from groundplan.api.context import Services, ServicesDep
from groundplan.api.http.lazy_routes import lazy_router
from groundplan.api.routes.session import set_session_cookie
from groundplan.core.errors import Denied, NotFound
from groundplan.core.settings import resolve_secret
from groundplan.identity import oidc
from groundplan.identity.oidc import Provider

pages = lazy_router(include_in_schema=False)
CALLBACK_PATH = "/sign-in/company/back"
CONTINUE = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Signed in</title>'
    '<meta http-equiv="refresh" content="0;url=/begin"></head><body><p><a href="/begin">Continue</a></p></body></html>'
)
"""A page that continues the sign-in: the session cookie is not sent on a redirect from another site, but from here."""


def provider_of(services: Services) -> Provider:
    """The company's OpenID provider. Raises `NotFound` (`oidc_not_set`) where none is configured."""
    settings = services.settings
    if settings.oidc_issuer is None or settings.oidc_client is None or settings.oidc_secret is None:
        raise NotFound(
            "no company sign-in is configured",
            code="oidc_not_set",
            hint="Set GROUNDPLAN_OIDC_ISSUER, _CLIENT and _SECRET.",
        )
    secret = resolve_secret(settings.oidc_secret)
    return Provider(settings.oidc_issuer, settings.oidc_client, secret, settings.oidc_trust_email)


@pages.get("/sign-in/company")
def go(request: Request, services: ServicesDep) -> Response:
    """Send the browser to the company's sign-in, with a state that only it holds."""
    provider = provider_of(services)
    url = services.settings.console_url
    base = url if url is not None and is_remote(request, url) else f"http://{request.url.netloc}"
    there, state, asked = oidc.prepare_sign_in(provider, f"{base}{CALLBACK_PATH}")
    with services.transaction() as conn:
        oidc.save_sign_in(conn, state, asked, services.clock.now())
    answer = RedirectResponse(there, status_code=303)
    answer.set_cookie(
        _state_cookie(request), state, httponly=True, samesite="lax", path=CALLBACK_PATH, max_age=600,
        secure=is_remote(request, url),
    )  # fmt: skip
    return answer


@pages.get(CALLBACK_PATH)
def back(
    request: Request,
    services: ServicesDep,
    state: Annotated[str, Query(max_length=200)] = "",
    code: Annotated[str, Query(max_length=4000)] = "",
) -> Response:
    """The browser returns; the state must be the one that it was sent away with."""
    held = request.cookies.get(_state_cookie(request))
    if not state or held != state:
        raise Denied("this sign-in was not started in this browser", code="oidc_state", hint="Start again.")
    provider, agent = provider_of(services), request.headers.get("user-agent", "")
    with services.transaction() as conn:
        asked = oidc.take_sign_in(conn, state, services.clock.now())
    claims = oidc.fetch_claims(provider, code, asked, services.clock.now())
    with services.transaction() as conn:
        secret = oidc.begin_session(conn, provider, claims, services.clock.now(), agent)
    answer = HTMLResponse(CONTINUE)
    answer.delete_cookie(_state_cookie(request), path=CALLBACK_PATH)
    set_session_cookie(answer, request, services, secret)
    return answer


def _state_cookie(request: Request) -> str:
    return f"{cookie_name(request)}_state"
