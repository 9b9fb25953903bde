"""Control frameworks, evidence, the register of AI assets, risk, and exports for auditors. Reading requires any
duty."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit
from uuid import UUID

from fastapi import Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from groundplan.api import controls
from groundplan.api.access.protected_routes import protected_router
from groundplan.api.caller import Reader, SignedIn, require_duty
from groundplan.api.context import ServicesDep
from groundplan.api.served_blueprint import require_workload
from groundplan.catalog.fields import NAME, is_email
from groundplan.catalog.imports.oscal import import_oscal
from groundplan.core.audit.store import record
from groundplan.core.errors import Invalid, NotFound, TooLarge
from groundplan.governance.controls import evidence_store, service
from groundplan.governance.controls.assess import assess, coverage
from groundplan.governance.controls.checks import CHECKS
from groundplan.governance.controls.model import APPROVED, AppliedFramework
from groundplan.governance.controls.oscal import assessment_results
from groundplan.governance.controls.oscal_declared import Document, oscal_document
from groundplan.governance.register.bom import ml_bom
from groundplan.governance.register.cards import card_markdown
from groundplan.governance.register.entries import Entry, overlaps
from groundplan.governance.register.shadow import ShadowUse, find_calls, find_charges
from groundplan.governance.risk.eu_ai_act import applies_from, classify, timeline
from groundplan.ledger import finding_store
from groundplan.ledger.finding import Finding
from groundplan.release.model import Current, effective_terms

router = protected_router("controls")
Kind = Literal["", "workload", "model", "deployment", "provider", "prompt", "integration", "tool", "source"]
EVIDENCE_DUTIES = frozenset({"compliance", "security", "data", "operations", "business", "product"})
PERIOD = timedelta(days=365)
MAX_LOG_BYTES = 64 << 20
Text = Annotated[str, StringConstraints(min_length=1, max_length=1000, strip_whitespace=True)]
FileName = Annotated[str, StringConstraints(min_length=1, max_length=300)]


class EvidenceBody(BaseModel):
    """Evidence that a person provides."""

    model_config = ConfigDict(extra="forbid")
    what: Annotated[str, StringConstraints(min_length=1, max_length=120)]
    """`FRAMEWORK/CONTROL`, or the name of a check that cannot be derived from facts."""
    workload: Annotated[str, StringConstraints(max_length=63)] | None = None
    """None: the company as a whole."""
    type: Literal["test", "drill", "review", "document"] = "document"
    says: Text
    days: Annotated[int, Field(ge=1, le=1098)] = 180
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = None
    """SHA-256 of the document."""
    link: Annotated[str, StringConstraints(pattern=r"^https://[^\s<>\"']{1,500}$")] | None = None


class WithdrawalBody(BaseModel):
    """The reason of a withdrawal."""

    model_config = ConfigDict(extra="forbid")
    reason: Text


class OscalImport(BaseModel):
    """OSCAL documents by file name. `name` is the name of the resulting framework, if there is only one."""

    model_config = ConfigDict(extra="forbid")
    files: Annotated[dict[FileName, str], Field(min_length=1, max_length=100)]
    owner: Annotated[str, StringConstraints(min_length=3, max_length=320, strip_whitespace=True, to_lower=True)]
    name: Annotated[str, StringConstraints(pattern=NAME)] | None = None


@router.get("/frameworks")
def list_frameworks(services: ServicesDep, _: Reader) -> dict[str, Any]:
    """List the frameworks in force, with the coverage of each workload."""
    now = services.clock.now()
    with services.transaction() as conn:
        evidence = controls.decisive_evidence(conn, now)
        frameworks = controls.frameworks(conn, now)
    return {
        "frameworks": [
            {
                "name": applied.framework.name, "title": applied.framework.title, "owner": applied.owner,
                "source": applied.framework.source, "as_of": applied.framework.as_of, "controls": len(applied.controls),
                "coverage": {name: coverage(statuses) for name, statuses in assess(applied, evidence, now).items()},
            }
            for applied in frameworks
        ]
    }  # fmt: skip


@router.get("/frameworks/{name}")
def show_framework(
    name: str,
    services: ServicesDep,
    _: Reader,
    search: Annotated[str, Query(max_length=200)] = "",
    after: Annotated[str, Query(max_length=63)] = "",
    limit: Annotated[int | None, Query(ge=1, le=1000)] = None,
) -> dict[str, Any]:
    """The state of every control of a framework for each workload, with its evidence and what is missing, sorted by
    workload. `search`: part of the workload's name. For the next page pass `next` as `after`; `total` counts all
    matching workloads."""
    now = services.clock.now()
    with services.transaction() as conn:
        applied = _find_framework(conn, name, now)
        matching = sorted(workload for workload in applied.workloads if search.strip().lower() in workload)
        following = [workload for workload in matching if workload > after]
        page = tuple(following[:limit])
        evidence = controls.decisive_evidence(conn, now, workloads=page)
        value = controls.framework_json(replace(applied, workloads=page), evidence, now)
        return {**value, "total": len(matching), "next": page[-1] if len(page) < len(following) else None}


@router.get("/checks")
def list_checks(_: Reader) -> dict[str, Any]:
    """List the checks that controls can require."""
    return {
        "checks": [
            {
                "name": c.name, "title": c.title, "type": c.type, "days": c.days, "hint": c.hint,
                "by_facts": c.judge is not None,
            }
            for c in CHECKS.values()
        ]
    }  # fmt: skip


@router.get("/evidence")
def list_evidence(
    services: ServicesDep,
    _: Reader,
    subject: str = "",
    what: str = "",
    before: datetime | None = None,
    limit: int = 200,
) -> dict[str, Any]:
    """List evidence, newest first. `leaf_index` is its index in the audit log; `expired` says whether its validity has
    ended."""
    now = services.clock.now()
    with services.transaction() as conn:
        rows = evidence_store.list_evidence(
            conn, subject=subject, what=what, before=before, limit=max(1, min(limit, 1000))
        )
    return {"evidence": [{**row, "expired": row["valid_until"] <= now} for row in rows]}


@router.post("/evidence")
def add_evidence(body: EvidenceBody, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Add evidence that cannot be derived from facts: a document, a review, a drill or a test. Its digest is written to
    the audit log. If the company requires approvals of evidence, it counts only once its `change` is approved."""
    subject = "company" if body.workload is None else f"workload/{body.workload}"
    require_duty(caller, EVIDENCE_DUTIES, subject)
    detail = {"sha256": body.sha256} if body.sha256 else {}
    with services.transaction() as conn:
        current = controls.current(conn)
        if body.workload is not None:
            require_workload(current.blueprint, body.workload)
        new_evidence = service.NewEvidence(
            what=body.what, subject=subject, type=body.type, says=body.says, days=body.days, detail=detail,
            link=body.link,
        )  # fmt: skip
        needs_approval = APPROVED in current.blueprint.approved_parts
        seats = effective_terms(current).seats if needs_approval else None
        evidence, change = service.add_evidence(conn, caller.actor, new_evidence, services.clock.now(), seats=seats)
    return {
        "id": evidence.id, "what": evidence.what, "subject": evidence.subject, "valid_until": evidence.valid_until,
        "digest": evidence.digest, "change": None if change is None else change.id,
    }  # fmt: skip


@router.post("/evidence/collect")
def collect_evidence(services: ServicesDep, caller: SignedIn, request: Request) -> dict[str, Any]:
    """Collect evidence from facts now instead of in the next round, which follows within ten minutes."""
    require_duty(caller, EVIDENCE_DUTIES, "company")
    log_check = request.app.state.log_check
    collected = controls.collect(services, lambda: controls.last_verification(log_check))
    return {"added": collected.added, "kept": collected.kept}


@router.post("/evidence/{evidence_id}/withdraw")
def withdraw_evidence(
    evidence_id: UUID, body: WithdrawalBody, services: ServicesDep, caller: SignedIn
) -> dict[str, Any]:
    """Withdraw evidence: it no longer counts, and controls that it satisfied are open again."""
    require_duty(caller, EVIDENCE_DUTIES, "company")
    with services.transaction() as conn:
        service.withdraw_evidence(conn, caller.actor, evidence_id, body.reason, services.clock.now())
    return {"id": evidence_id, "withdrawn": True}


@router.get("/register")
def list_register(services: ServicesDep, _: Reader, kind: Kind = "") -> dict[str, Any]:
    """List the register: models, deployments, providers, prompts, integrations, tools, sources and workloads, each with
    what is missing."""
    with services.transaction() as conn:
        entries = _entries(conn, services.clock.now())
        teams = {name: doc.team for name, doc in controls.current(conn).workspace.workloads.items() if doc.team}
    listed = [entry.to_json() for entry in entries if kind in ("", entry.kind)]
    return {"entries": listed, "overlaps": overlaps(entries, teams)}


@router.get("/register/{kind}/{name:path}", response_class=PlainTextResponse)
def register_card(kind: str, name: str, services: ServicesDep, _: Reader) -> PlainTextResponse:
    """The card of one register entry, in Markdown. Raises `NotFound` (`register_unknown`)."""
    with services.transaction() as conn:
        entry = next((e for e in _entries(conn, services.clock.now()) if e.kind == kind and e.name == name), None)
    if entry is None:
        raise NotFound(
            f"the register has no {kind[:40]} {name[:80]}", code="register_unknown",
            hint="`groundplan register` lists what there is.",
        )  # fmt: skip
    return PlainTextResponse(
        card_markdown(entry, services.clock.now().date()), media_type="text/markdown; charset=utf-8"
    )


@router.post("/register/shadow")
async def find_shadow_ai(
    request: Request,
    services: ServicesDep,
    caller: SignedIn,
    also: Annotated[list[str] | None, Query(max_length=64)] = None,
    bill: bool = False,
) -> dict[str, Any]:
    """Find AI use that is not declared: calls to providers in the lines of a proxy log (the body, at most 64 MiB), or,
    with `bill`, charges by providers in the lines of a bill, an expense report or a card statement. Undeclared hosts
    become findings."""
    require_duty(caller, EVIDENCE_DUTIES, "company")
    lines = (await _read_text(request)).splitlines()
    return await run_in_threadpool(_find_shadow_ai, services, caller, lines, tuple(also or ()), bill)


def _find_shadow_ai(
    services: ServicesDep, caller: SignedIn, lines: list[str], also: tuple[str, ...], bill: bool
) -> dict[str, Any]:
    with services.transaction() as conn:
        declared = [urlsplit(use.url).hostname or "" for use in controls.current(conn).blueprint.deployments]
        uses = (find_charges if bill else find_calls)(lines, declared, also)
        for use in uses:
            if not use.declared:
                finding_store.report(conn, _undeclared_finding(use, bill))
        detail = {"bill": bill, "lines": len(lines), "undeclared": [use.host for use in uses if not use.declared]}
        record(conn, action="register.shadow", actor=caller.actor, subject="company", detail=detail)
    return {
        "lines": len(lines),
        "hosts": [
            {
                "host": use.host, "provider": use.provider, "declared": use.declared, "calls": use.calls,
                "callers": len(use.callers),
            }
            for use in uses
        ],
    }  # fmt: skip


def _undeclared_finding(use: ShadowUse, bill: bool) -> Finding:
    called = f"{use.host} ({use.provider}) is undeclared: {use.calls} calls, {len(use.callers)} callers."
    return Finding(
        kind="governance.shadow_ai", subject="company", severity="high",
        mark=f"bill {use.host}" if bill else use.host,
        message=f"{use.host} is undeclared and paid: {use.calls} lines of a bill." if bill else called,
        hint="Find out what it is used for; declare the workload with an owner and a budget, or block that connection.",
        detail={"host": use.host, "provider": use.provider, "calls": use.calls, "callers": len(use.callers)},
    )  # fmt: skip


async def _read_text(request: Request) -> str:
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > MAX_LOG_BYTES:
            raise TooLarge("the log is too large", code="log_size", hint="Send at most 64 MiB at once.")
    return data.decode("utf-8", "replace")


@router.get("/risk")
def list_risk(services: ServicesDep, _: Reader) -> dict[str, Any]:
    """The declared risk of each served workload, its class under the EU AI Act, and the known dates of application."""
    with services.transaction() as conn:
        current = controls.current(conn)
    names = sorted(workload.name for workload in current.blueprint.workloads)
    return {"workloads": [_risk_json(current, name) for name in names], "timeline": timeline()}


@router.post("/imports/oscal")
def convert_oscal(body: OscalImport, _: Reader) -> dict[str, Any]:
    """Convert OSCAL catalogs, profiles and component definitions to `kind: framework` documents; stores nothing."""
    if not is_email(body.owner):
        raise Invalid("the owner is not an e-mail address", code="email_syntax", hint="Write ana@acme.example.")
    return import_oscal(body.files, body.owner, body.name).body()


@router.get("/exports/oscal/{name}")
def export_oscal(
    name: str,
    services: ServicesDep,
    caller: Reader,
    document: Document | Literal["assessment-results"] = "assessment-results",
    workload: Annotated[str | None, Query(max_length=63)] = None,
) -> dict[str, Any]:
    """Export OSCAL 1.1.2: the assessment results of one workload or of all, the controls as a catalog, the selected
    controls as a profile, or the automatic checks as a component definition."""
    now = services.clock.now()
    with services.transaction() as conn:
        applied = _find_framework(conn, name, now)
        current = controls.current(conn)
        detail: dict[str, str] = {"framework": name, "document": document}
        if workload is not None:
            applied = replace(applied, workloads=(require_workload(current.blueprint, workload).name,))
            detail["workload"] = workload
        evidence = controls.decisive_evidence(conn, now, workloads=applied.workloads)
        record(conn, action="export.oscal", actor=caller.actor, subject="company", detail=detail)
    company = current.blueprint.company
    if document != "assessment-results":
        return oscal_document(document, applied, current.workspace.frameworks[name], company, now)
    return assessment_results(applied, assess(applied, evidence, now), company, now, now - PERIOD)


@router.get("/exports/cyclonedx")
def export_cyclonedx(services: ServicesDep, caller: Reader) -> dict[str, Any]:
    """Export the register as a CycloneDX 1.6 bill of materials."""
    with services.transaction() as conn:
        current = controls.current(conn)
        entries = controls.register_entries(conn, current, services.clock.now())
        record(conn, action="export.cyclonedx", actor=caller.actor, subject="company", detail={})
    return ml_bom(entries, current.blueprint.company, current.blueprint.number, services.clock.now())


@router.get("/exports/applicability/{name}")
def export_applicability(name: str, services: ServicesDep, caller: Reader) -> dict[str, Any]:
    """Export the statement of applicability: for each control whether it applies, and why not."""
    now = services.clock.now()
    with services.transaction() as conn:
        applied = _find_framework(conn, name, now)
        record(conn, action="export.applicability", actor=caller.actor, subject="company", detail={"framework": name})
    return {
        "framework": name,
        "owner": applied.owner,
        "workloads": list(applied.workloads),
        "controls": [
            {
                "id": c.id,
                "title": c.title,
                "applies": c.id not in applied.excluded,
                "reason": applied.excluded.get(c.id, ""),
            }
            for c in applied.controls
        ],
    }


def _risk_json(current: Current, name: str) -> dict[str, Any]:
    doc = current.workspace.workloads[name]
    declared = doc.risk
    risk_class = classify(declared.eu_ai_act) if declared is not None and declared.eu_ai_act is not None else None
    return {
        "workload": name,
        "declared": declared is not None,
        **({} if declared is None else declared.model_dump(mode="json", exclude={"eu_ai_act"})),
        "eu_ai_act": None
        if risk_class is None
        else {
            "class": risk_class.name, "role": risk_class.role, "why": risk_class.why, "profile": risk_class.profile,
            "duties": list(risk_class.duties),
            "since": applies_from("ART 26" if risk_class.name == "high-risk" else "ART 50"),
        },
    }  # fmt: skip


def _entries(conn: Any, now: datetime) -> list[Entry]:
    current = controls.current(conn)
    return controls.register_entries(conn, current, now)


def _find_framework(conn: Any, name: str, now: datetime) -> AppliedFramework:
    for applied in controls.frameworks(conn, now):
        if applied.framework.name == name:
            return applied
    raise NotFound(
        f"no framework {name[:63]} is in force here", code="framework_unknown",
        hint="Declare it: kind: framework. `groundplan controls` lists those in force.",
    )  # fmt: skip
