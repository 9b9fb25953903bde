"""The pages Rights and Who decides, and the forms of rights for a time, emergencies, tokens and renewals."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

from fastapi import Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse

from groundplan.api.http.lazy_routes import lazy_router
from groundplan.console.form_result import redirect_with_result
from groundplan.console.pagination import search_page
from groundplan.console.render import VisitorDep, fetch_json, render_for, visitor_api

router = lazy_router(include_in_schema=False, default_response_class=HTMLResponse)
Text = Annotated[str, Form(max_length=1000)]
PAGE = "/governance/rights"


@router.get(PAGE)
async def rights(request: Request, visitor: VisitorDep) -> HTMLResponse:
    paths = ("/api/appointments", "/api/tokens", "/api/access-review", "/api/people")
    appointments, tokens, review, people = [await fetch_json(visitor, path) for path in paths]
    values = {
        "appointments": appointments["appointments"],
        "tokens": tokens["tokens"],
        "review": review,
        "part": search_page(
            request,
            review["rights"],
            lambda row: " ".join((row["name"], row["person"], *row["duties"], *row["groups"])),
        ),
        "people": [person for person in people["people"] if person["active"]],
        "others": [each for each in people["people"] if each["active"] and each["email"] != visitor.session["email"]],
        "leavers": [person for person in people["people"] if not person["active"] and person["duties"]],
    }
    return await render_for(request, visitor, "rights.html", "/governance", **values)


@router.get("/governance/who")
async def who(request: Request, visitor: VisitorDep) -> HTMLResponse:
    body = await fetch_json(visitor, "/api/who-decides")
    return await render_for(request, visitor, "who.html", "/governance", questions=body["questions"])


@router.post("/do/emergency")
async def emergency(request: Request, csrf: Text, reason: Text) -> RedirectResponse:
    reply = await visitor_api(request, csrf).post("/api/emergency", {"reason": reason})
    return redirect_with_result(PAGE, reply, "You may stop and roll back for an hour. Everybody is notified.")


@router.post("/do/appoint")
async def appoint(
    request: Request, csrf: Text, person: Text, role: Text, days: Annotated[float, Form()], reason: Text
) -> RedirectResponse:
    body = {"person": person, "role": role, "days": days, "reason": reason}
    reply = await visitor_api(request, csrf).post("/api/appointments", body)
    return redirect_with_result(PAGE, reply, f"{person} is {role} from now on.")


@router.post("/do/appointment-end")
async def end(request: Request, csrf: Text, appointment: Text) -> RedirectResponse:
    reply = await visitor_api(request, csrf).post(f"/api/appointments/{quote(appointment, safe='')}/end")
    return redirect_with_result(PAGE, reply, "It is ended.")


@router.post("/do/appointment-review")
async def review(request: Request, csrf: Text, appointment: Text, reason: Text) -> RedirectResponse:
    path = f"/api/appointments/{quote(appointment, safe='')}/review"
    return redirect_with_result(
        PAGE, await visitor_api(request, csrf).post(path, {"reason": reason}), "The emergency is reviewed."
    )


@router.post("/do/handover")
async def hand_over(request: Request, csrf: Text, person: Text, to: Text) -> RedirectResponse:
    path = f"/api/people/{quote(person, safe='')}/handover"
    reply = await visitor_api(request, csrf).post(path, {"to": to})
    return redirect_with_result(PAGE, reply, f"{to} holds now: {', '.join(reply.body['duties'])}." if reply.ok else "")


@router.post("/do/access-review")
async def access_review(request: Request, csrf: Text, comment: Text) -> RedirectResponse:
    reply = await visitor_api(request, csrf).post("/api/access-review", {"comment": comment})
    return redirect_with_result(PAGE, reply, "You reviewed everybody's rights; the next review is due in 90 days.")


@router.post("/do/token-revoke")
async def revoke(request: Request, csrf: Text, token: Text) -> RedirectResponse:
    reply = await visitor_api(request, csrf).call("DELETE", f"/api/tokens/{quote(token, safe='')}")
    return redirect_with_result(PAGE, reply, "The token is revoked.")


@router.post("/do/renew")
async def renew(request: Request, csrf: Text, change: Text, reason: Text) -> RedirectResponse:
    reply = await visitor_api(request, csrf).post(f"/api/changes/{quote(change, safe='')}/renew", {"reason": reason})
    return redirect_with_result("/governance", reply, "Requested again; the holders of its duties decide.")


@router.post("/do/ask-parts")
async def ask_parts(request: Request, csrf: Text, change: Text, workload: Text, reason: Text) -> RedirectResponse:
    reply = await visitor_api(request, csrf).post("/api/approvals/missing", {"workload": workload, "reason": reason})
    path = f"/governance/changes/{quote(change, safe='')}"
    return redirect_with_result(path, reply, "Requested; the holders of its duties find it in their inbox.")
