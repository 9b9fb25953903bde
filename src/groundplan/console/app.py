"""The control process with its console: the API's application plus server-rendered pages.

Pages know only the HTTP API (see `client`), so whatever a page shows or does, a program with the same rights can too.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from groundplan.api import errors
from groundplan.api.app import create_app, run
from groundplan.console import (
    actions,
    calls,
    controls,
    cost_pages,
    erasures,
    experiments,
    keys,
    knowledge,
    knowledge_index,
    opportunities,
    pages,
    placement,
    policies,
    reconcile,
    rejected_forms,
    rights,
    sign_in,
    trade_off,
)
from groundplan.console.render import RespondWith, render, templates
from groundplan.core.errors import GroundplanError, NotFound
from groundplan.core.home import Home
from groundplan.core.settings import Settings

STATIC = Path(__file__).parent / "static"
ROUTERS = (
    pages.router,
    placement.router,
    calls.router,
    keys.router,
    knowledge.router,
    knowledge_index.router,
    erasures.router,
    actions.router,
    cost_pages.router,
    opportunities.router,
    experiments.router,
    experiments.forms,
    trade_off.router,
    reconcile.router,
    controls.router,
    controls.forms,
    sign_in.router,
    rights.router,
    policies.router,
    policies.forms,
)
"""Routers of pages and forms; the first match wins."""


def create_console(home: Home, settings: Settings, workspace: Path | None = None, demo: bool = False) -> FastAPI:
    """Create the API application with the console's pages, forms and static files."""
    app = create_app(home, settings, workspace, demo)
    templates.globals["company_sign_in"] = settings.oidc_issuer is not None
    for router in ROUTERS:
        app.router.routes += router.routes
    app.add_exception_handler(GroundplanError, _on_api_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(RespondWith, _on_respond_with)
    app.add_exception_handler(rejected_forms.FormRejected, rejected_forms.on_form_rejected)
    app.add_exception_handler(RequestValidationError, rejected_forms.on_invalid_form)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    return app


async def _on_api_error(request: Request, error: Exception) -> Response:
    """The response for an API error; for an invalid sign-in link it is a page."""
    assert isinstance(error, GroundplanError)
    if request.url.path.startswith(("/login/", "/sign-in/")):
        await run_in_threadpool(request.app.state.failed_sign_ins.record_if_failed, request, error)
        return render("signin.html", code=error.status, problem=f"{error.message}. {error.hint}")
    return await errors.on_groundplan_error(request, error)


async def _on_respond_with(request: Request, error: Exception) -> Response:
    assert isinstance(error, RespondWith)
    if request.method == "POST" and error.response.status_code == 401:
        return await rejected_forms.on_form_rejected(
            request, rejected_forms.FormRejected(401, rejected_forms.SIGNED_OUT)
        )
    return error.response


async def _on_http_error(request: Request, error: Exception) -> Response:
    """The response for an unknown path: a page for people, JSON below /api and for clients that look for the gateway
    here. GET of a form's address, as by reloading its response, goes to the overview."""
    assert isinstance(error, HTTPException)
    if request.url.path.startswith("/v1/"):
        return await errors.on_groundplan_error(request, _gateway_is_elsewhere())
    if request.url.path.startswith("/do/") and request.method == "GET":
        return RedirectResponse("/", status_code=303)
    if request.url.path.startswith(("/api/", "/static/")):
        return await errors.on_http_error(request, error)
    return render("error.html", code=error.status_code, problem=f"There is no page {request.url.path[:200]}.")


def _gateway_is_elsewhere() -> NotFound:
    return NotFound(
        "this is the console and its API", code="path_unknown",
        hint="The gateway, with the OpenAI API, has an address of its own: `groundplan status` tells it.",
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of `python -m groundplan.console.app --home HOME --fd N`."""
    return run(create_console, arguments)


if __name__ == "__main__":
    sys.exit(main())
