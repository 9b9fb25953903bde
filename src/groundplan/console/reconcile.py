"""The form on the Cost page that compares a provider's bill with the ledger, and its result. Keeps nothing."""

from __future__ import annotations

from urllib.parse import urlencode

from fastapi import Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.datastructures import FormData, UploadFile

from groundplan.api.http.lazy_routes import lazy_router
from groundplan.console.render import VisitorDep, render_for, visitor_api

router = lazy_router(prefix="/do", include_in_schema=False)
MAX_BYTES = 16 << 20
"""The file and the form around it."""
OPTIONS = ("provider", "from", "to")


@router.post("/reconcile", response_class=HTMLResponse)
async def reconcile(request: Request, visitor: VisitorDep) -> Response:
    """The result as a page, or the Cost page again with what is wrong. The size is known before anything is read."""
    length = request.headers.get("content-length", "")
    if not length.isdigit() or int(length) > MAX_BYTES:
        return _again("The file is larger than 16 MiB. Split it by day or model.")
    async with request.form(max_files=1, max_fields=10) as form:
        file = form.get("file")
        if not isinstance(file, UploadFile) or not file.size:
            return _again("No file was chosen. Export the bill as CSV.")
        data = await file.read()
        query = [("name", (file.filename or "bill.csv")[:200]), *_options(form)]
        csrf = str(form.get("csrf") or "")
    reply = await visitor_api(request, csrf).post_file("/api/cost/reconcile", data, query)
    if not reply.ok:
        return _again(reply.problem)
    return await render_for(request, visitor, "reconcile.html", "/cost", result=reply.body)


def _options(form: FormData) -> list[tuple[str, str]]:
    found = [(name, text) for name in OPTIONS if (text := str(form.get(name) or "").strip())]
    for name in ("columns", "rate", "account", "source"):
        found += [(name, part.strip()) for part in str(form.get(name) or "").splitlines() if part.strip()]
    return found


def _again(problem: str) -> RedirectResponse:
    return RedirectResponse(f"/cost?{urlencode({'problem': problem[:500]})}", status_code=303)
