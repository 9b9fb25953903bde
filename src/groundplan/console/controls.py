"""Pages of controls, evidence, the register and risk, below Governance. Each asks the API and renders; none decides."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from groundplan.console.pages import fetch
from groundplan.console.render import Signed, failed, show

router = APIRouter(prefix="/governance", include_in_schema=False, default_response_class=HTMLResponse)
STATES = ("satisfied", "expired", "open", "excluded")
LEVELS = ("low", "medium", "high", "severe")
LIKELIHOODS = ("likely", "possible", "rare")


@router.get("/controls")
async def frameworks(request: Request, visitor: Signed) -> HTMLResponse:
    found = await fetch(visitor, frameworks="/api/frameworks")
    return await show(request, visitor, "frameworks.html", "/governance", **found)


@router.get("/controls/{name}")
async def framework(request: Request, visitor: Signed, name: str, workload: str = "") -> HTMLResponse:
    found = await fetch(visitor, board=f"/api/frameworks/{quote(name, safe='')}")
    chosen = workload if workload in found["board"]["workloads"] else ""
    values = {"chosen": chosen, "cells": _cells(found["board"])}
    return await show(request, visitor, "framework.html", "/governance", **found, **values)


@router.get("/evidence")
async def evidence(request: Request, visitor: Signed, subject: str = "", what: str = "") -> HTMLResponse:
    reply = await visitor.api.get("/api/evidence", subject=subject, what=what)
    if not reply.ok:
        return failed(reply, visitor)
    values = {"subject": subject, "what": what, "evidence": reply.body["evidence"]}
    return await show(request, visitor, "evidence.html", "/governance", **values)


@router.get("/register")
async def register(request: Request, visitor: Signed, kind: str = "") -> HTMLResponse:
    reply = await visitor.api.get("/api/register", kind=kind)
    if not reply.ok:
        return failed(reply, visitor)
    return await show(request, visitor, "register.html", "/governance", kind=kind, register=reply.body)


@router.get("/risk")
async def risk(request: Request, visitor: Signed) -> HTMLResponse:
    found = await fetch(visitor, risk="/api/risk")
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
    return await show(request, visitor, "risk.html", "/governance", matrix=matrix, levels=LEVELS, **found)


def _cells(board: dict[str, Any]) -> list[dict[str, Any]]:
    """One row for each family of controls (`GOVERN`, `ART`, `A.5`): how many are in each state, by workload."""
    families: dict[str, list[dict[str, Any]]] = {}
    for control in board["controls"]:
        families.setdefault(_family(control["id"]), []).append(control)
    return [
        {
            "family": family,
            "size": len(controls),
            "workloads": [
                {"name": name, **{state: _count(controls, name, state) for state in STATES}}
                for name in board["workloads"]
            ],
        }
        for family, controls in families.items()
    ]


def _family(identifier: str) -> str:
    head = identifier.split(" ")[0]
    return ".".join(head.split(".")[:2]) if "." in head else head.rstrip("0123456789") or "clauses"


def _count(controls: list[dict[str, Any]], workload: str, state: str) -> int:
    return sum(control["workloads"][workload]["state"] == state for control in controls)
