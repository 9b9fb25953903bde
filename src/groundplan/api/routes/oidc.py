"""Sign-in at the company's OpenID provider. These are pages, since the browser is redirected to the provider and
back."""

from __future__ import annotations

from html import escape
from typing import Annotated
from urllib.parse import quote, unquote

from fastapi import Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from groundplan.api.caller import cookie_name, is_remote
from groundplan.api.context import Services, ServicesDep
from groundplan.api.http.lazy_routes import lazy_router
from groundplan.api.routes.session import page_after_sign_in, set_session_cookie
from groundplan.core.errors import Denied, NotFound
from groundplan.core.settings import resolve_secret
from groundplan.identity import oidc
from groundplan.identity.oidc import Provider

pages = lazy_router(include_in_schema=False)
CALLBACK_PATH = "/sign-in/company/back"
CONTINUE = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Signed in</title>'
    '<meta http-equiv="refresh" content="0;url={page}"></head><body><p><a href="{page}">Continue</a></p></body></html>'
)
"""A page that continues the sign-in: browsers do not send the session cookie on a redirect from another site, but do
send it on a navigation from this page."""


def provider_of(services: Services) -> Provider:
    """The company's OpenID provider. Raises `NotFound` (`oidc_not_set`) if none is configured."""
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
def go(
    request: Request, services: ServicesDep, wanted: Annotated[str, Query(alias="next", max_length=1001)] = ""
) -> Response:
    """Redirect the browser to the company's sign-in; the state of this sign-in and the page to open after it are also
    kept in a cookie of this browser."""
    provider = provider_of(services)
    url = services.settings.console_url
    base = url if url is not None and is_remote(request, url) else f"http://{request.url.netloc}"
    provider_url, state, sign_in = oidc.prepare_sign_in(provider, f"{base}{CALLBACK_PATH}")
    with services.transaction() as conn:
        oidc.save_sign_in(conn, state, sign_in, services.clock.now())
    response = RedirectResponse(provider_url, status_code=303)
    response.set_cookie(
        _state_cookie(request, url), f"{state}.{quote(wanted, safe='')}", httponly=True, samesite="lax", path="/",
        max_age=600, secure=is_remote(request, url),
    )  # fmt: skip
    return response


@pages.get(CALLBACK_PATH)
def back(
    request: Request,
    services: ServicesDep,
    state: Annotated[str, Query(max_length=200)] = "",
    code: Annotated[str, Query(max_length=4000)] = "",
) -> Response:
    """Finish a sign-in after the provider redirected the browser back. Raises `Denied` (`oidc_state`) if the state is
    not that of the browser's cookie."""
    url = services.settings.console_url
    cookie_state, _, wanted = request.cookies.get(_state_cookie(request, url), "").partition(".")
    if not state or cookie_state != state:
        raise Denied("this sign-in was not started in this browser", code="oidc_state", hint="Start again.")
    provider, agent = provider_of(services), request.headers.get("user-agent", "")
    with services.transaction() as conn:
        sign_in = oidc.take_sign_in(conn, state, services.clock.now())
    claims = oidc.fetch_claims(provider, code, sign_in, services.clock.now())
    with services.transaction() as conn:
        secret = oidc.begin_session(conn, provider, claims, services.clock.now(), agent)
    response = HTMLResponse(CONTINUE.format(page=escape(page_after_sign_in(unquote(wanted)))))
    response.delete_cookie(_state_cookie(request, url), path="/", secure=is_remote(request, url))
    set_session_cookie(response, request, services, secret)
    return response


def _state_cookie(request: Request, console_url: str | None) -> str:
    return f"{cookie_name(request, console_url)}_state"
