"""Pages of controls, evidence, the register and risk, below Governance. Each asks the API and renders; none decides."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlencode

from fastapi import Request
from fastapi.responses import HTMLResponse, RedirectResponse

from groundplan.api.http.lazy_routes import lazy_router
from groundplan.console.actions import Text
from groundplan.console.form_result import redirect_with_result
from groundplan.console.pages import fetch_all
from groundplan.console.pagination import PAGE_SIZE, search_page
from groundplan.console.render import VisitorDep, fetch_json, render_for, visitor_api

router = lazy_router(prefix="/governance", include_in_schema=False, default_response_class=HTMLResponse)
forms = lazy_router(prefix="/do", include_in_schema=False)
STATES = ("satisfied", "expired", "open", "excluded")
COLUMNS = 20
"""Workloads side by side, and of each framework below each other."""
LEVELS = ("low", "medium", "high", "severe")
LIKELIHOODS = ("likely", "possible", "rare")


@router.get("/controls")
async def frameworks(request: Request, visitor: VisitorDep) -> HTMLResponse:
    review = f"/api/management-review?limit={PAGE_SIZE}"
    found = await fetch_all(visitor, frameworks="/api/frameworks", review=review)
    names = sorted({name for one in found["frameworks"] for name in one["coverage"]})
    part = search_page(request, names, str, COLUMNS)
    return await render_for(request, visitor, "frameworks.html", "/governance", **found, part=part)


@router.get("/controls/{name}")
async def framework(request: Request, visitor: VisitorDep, name: str, workload: str = "") -> HTMLResponse:
    search, after = request.query_params.get("search", "")[:200], request.query_params.get("after", "")[:63]
    query = {"search": search} if search else {}
    wanted = {**query, **({"after": after} if after else {}), "limit": COLUMNS}
    if workload:
        wanted = {"search": workload[:63], "limit": COLUMNS}
    found = await fetch_all(visitor, board=f"/api/frameworks/{quote(name, safe='')}?{urlencode(wanted)}")
    board = found["board"]
    values = {
        "chosen": workload if workload in board["workloads"] else "", "cells": _heat_map_rows(board), "search": search,
        "first": urlencode(query) if after else None,
        "more": urlencode({**query, "after": board["next"]}) if board["next"] and not workload else None,
    }  # fmt: skip
    return await render_for(request, visitor, "framework.html", "/governance", **found, **values)


@router.get("/evidence")
async def evidence(request: Request, visitor: VisitorDep, subject: str = "", what: str = "") -> HTMLResponse:
    body = await fetch_json(visitor, "/api/evidence", subject=subject, what=what)
    values = {"subject": subject, "what": what, "evidence": body["evidence"]}
    return await render_for(request, visitor, "evidence.html", "/governance", **values)


@router.get("/register")
async def register(request: Request, visitor: VisitorDep, kind: str = "") -> HTMLResponse:
    body = await fetch_json(visitor, "/api/register", kind=kind)
    part = search_page(request, body["entries"], _search_text)
    return await render_for(request, visitor, "register.html", "/governance", kind=kind, register=body, part=part)


@router.get("/prompts/{name}")
async def prompt(request: Request, visitor: VisitorDep, name: str, old: str = "", new: str = "") -> HTMLResponse:
    """The versions of a prompt, and the difference between two: by default the newest from the one before."""
    path = f"/api/prompts/{quote(name, safe='')}"
    found = await fetch_all(visitor, prompt=path)
    known = [str(each["digest"])[:12] for each in found["prompt"]["versions"]]
    new = new if new in known else known[0]
    old = old if old in known else known[min(1, len(known) - 1)]
    body = await fetch_json(visitor, f"{path}/diff", old=old, new=new)
    values = {"old": old, "new": new, "diff": body}
    return await render_for(request, visitor, "prompt.html", "/governance", **found, **values)


@forms.post("/prompt-rollback")
async def roll_back(request: Request, csrf: Text, prompt: Text, to: Text, reason: Text) -> RedirectResponse:
    path = f"/api/prompts/{quote(prompt, safe='')}/rollback"
    reply = await visitor_api(request, csrf).post(path, {"to": to, "reason": reason})
    told = "Approval is requested again. The workspace must say the same, or the next apply reverts it."
    return redirect_with_result(f"/governance/prompts/{quote(prompt, safe='')}", reply, told)


@router.get("/documents")
async def documents(request: Request, visitor: VisitorDep, name: str = "", workload: str = "") -> HTMLResponse:
    """Documents that laws ask for: one of them about one workload, with what is missing."""
    found = await fetch_all(visitor, kinds="/api/exports/documents")
    names = [each["name"] for each in found["kinds"]["documents"]]
    known = found["kinds"]["workloads"]
    made = None
    if name in names and workload in known:
        made = await fetch_json(visitor, f"/api/exports/documents/{name}/{quote(workload, safe='')}")
    values = {"name": name, "workload": workload, "made": made}
    return await render_for(request, visitor, "legal_documents.html", "/governance", **found, **values)


@router.get("/risk")
async def risk(request: Request, visitor: VisitorDep) -> HTMLResponse:
    found = await fetch_all(visitor, risk="/api/risk")
    declared = [row for row in found["risk"]["workloads"] if row["declared"]]
    matrix = [
        (
            likelihood,
            [
                (impact, [r for r in declared if (r["likelihood"], r["impact"]) == (likelihood, impact)])
                for impact in LEVELS
            ],
        )
        for likelihood in LIKELIHOODS
    ]
    part = search_page(request, found["risk"]["workloads"], lambda row: str(row["workload"]), 50)
    return await render_for(
        request, visitor, "risk.html", "/governance", matrix=matrix, levels=LEVELS, part=part, **found
    )


def _search_text(entry: dict[str, Any]) -> str:
    return " ".join((entry["kind"], entry["name"], entry["owner"] or "", *entry["missing"]))


def _heat_map_rows(board: dict[str, Any]) -> list[dict[str, Any]]:
    """One row for each family of controls (`GOVERN`, `ART`, `A.5`): how many are in each state, by workload."""
    families: dict[str, list[dict[str, Any]]] = {}
    for control in board["controls"]:
        families.setdefault(_family(control["id"]), []).append(control)
    return [
        {
            "family": family,
            "size": len(controls),
            "workloads": [
                {"name": name, **{state: _count_state(controls, name, state) for state in STATES}}
                for name in board["workloads"]
            ],
        }
        for family, controls in families.items()
    ]


def _family(identifier: str) -> str:
    head = identifier.split(" ")[0]
    return ".".join(head.split(".")[:2]) if "." in head else head.rstrip("0123456789") or "clauses"


def _count_state(controls: list[dict[str, Any]], workload: str, state: str) -> int:
    return sum(control["workloads"][workload]["state"] == state for control in controls)
