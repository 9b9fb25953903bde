"""Control frameworks, evidence, the register, risk, and what auditors take away. Reading needs any duty."""

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
    """Evidence that a person gives."""

    model_config = ConfigDict(extra="forbid")
    what: Annotated[str, StringConstraints(min_length=1, max_length=120)]
    """`FRAMEWORK/CONTROL`, or a check that facts cannot show."""
    workload: Annotated[str, StringConstraints(max_length=63)] | None = None
    """None: for the company as a whole."""
    type: Literal["test", "drill", "review", "document"] = "document"
    says: Text
    days: Annotated[int, Field(ge=1, le=1098)] = 180
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = None
    """SHA-256 of the document."""
    link: Annotated[str, StringConstraints(pattern=r"^https://[^\s<>\"']{1,500}$")] | None = None


class WithdrawalBody(BaseModel):
    """Reason of a withdrawal."""

    model_config = ConfigDict(extra="forbid")
    reason: Text


class OscalImport(BaseModel):
    """OSCAL documents by file name. `name`: of the framework, if they make only one."""

    model_config = ConfigDict(extra="forbid")
    files: Annotated[dict[FileName, str], Field(min_length=1, max_length=100)]
    owner: Annotated[str, StringConstraints(min_length=3, max_length=320, strip_whitespace=True, to_lower=True)]
    name: Annotated[str, StringConstraints(pattern=NAME)] | None = None


@router.get("/frameworks")
def list_frameworks(services: ServicesDep, _: Reader) -> dict[str, Any]:
    """Frameworks in force, with the coverage of each workload."""
    now = services.clock.now()
    with services.transaction() as conn:
        known = controls.decisive_evidence(conn, now)
        found = controls.frameworks(conn, now)
    return {
        "frameworks": [
            {
                "name": one.framework.name, "title": one.framework.title, "owner": one.owner,
                "source": one.framework.source, "as_of": one.framework.as_of, "controls": len(one.controls),
                "coverage": {name: coverage(each) for name, each in assess(one, known, now).items()},
            }
            for one in found
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
    """Every control of a framework for every workload, with its evidence and what is missing. `search`: only workloads
    with this in their names. `limit`: number of workloads; `next`: value of `after` for the next page; `total`: number
    of all."""
    now = services.clock.now()
    with services.transaction() as conn:
        one = _find_framework(conn, name, now)
        found = sorted(each for each in one.workloads if search.strip().lower() in each)
        rest = [each for each in found if each > after]
        shown = tuple(rest[:limit])
        known = controls.decisive_evidence(conn, now, workloads=shown)
        board = controls.framework_json(replace(one, workloads=shown), known, now)
        return {**board, "total": len(found), "next": shown[-1] if len(shown) < len(rest) else None}


@router.get("/checks")
def list_checks(_: Reader) -> dict[str, Any]:
    """The checks that controls may need."""
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
    """Evidence, newest first. `leaf_index`: its index in the audit log; `expired`: whether it has ended."""
    now = services.clock.now()
    with services.transaction() as conn:
        found = evidence_store.list_evidence(
            conn, subject=subject, what=what, before=before, limit=max(1, min(limit, 1000))
        )
    return {"evidence": [{**each, "expired": each["valid_until"] <= now} for each in found]}


@router.post("/evidence")
def add_evidence(body: EvidenceBody, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """Add evidence that facts cannot show: a document, a review, a drill, a test. Its digest is in the audit log. If
    the company requires approval of evidence, it counts once its `change` is approved."""
    subject = "company" if body.workload is None else f"workload/{body.workload}"
    require_duty(caller, EVIDENCE_DUTIES, subject)
    detail = {"sha256": body.sha256} if body.sha256 else {}
    with services.transaction() as conn:
        current = controls.current(conn)
        if body.workload is not None:
            require_workload(current.blueprint, body.workload)
        given = service.NewEvidence(
            what=body.what, subject=subject, type=body.type, says=body.says, days=body.days, detail=detail,
            link=body.link,
        )  # fmt: skip
        demanded = APPROVED in current.blueprint.approved_parts
        seats = effective_terms(current).seats if demanded else None
        kept, change = service.add_evidence(conn, caller.actor, given, services.clock.now(), seats=seats)
    return {
        "id": kept.id, "what": kept.what, "subject": kept.subject, "valid_until": kept.valid_until,
        "digest": kept.digest, "change": None if change is None else change.id,
    }  # fmt: skip


@router.post("/evidence/collect")
def collect_evidence(services: ServicesDep, caller: SignedIn, request: Request) -> dict[str, Any]:
    """Judge the facts now instead of within ten minutes."""
    require_duty(caller, EVIDENCE_DUTIES, "company")
    log_check = request.app.state.log_check
    done = controls.collect(services, lambda: controls.last_verification(log_check))
    return {"added": done.added, "kept": done.kept}


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
    """The register: models, deployments, providers, prompts, integrations, tools, sources and workloads, with what is
    missing."""
    with services.transaction() as conn:
        entries = _entries(conn, services.clock.now())
        teams = {name: doc.team for name, doc in controls.current(conn).workspace.workloads.items() if doc.team}
    shown = [each.to_json() for each in entries if kind in ("", each.kind)]
    return {"entries": shown, "overlaps": overlaps(entries, teams)}


@router.get("/register/{kind}/{name:path}", response_class=PlainTextResponse)
def register_card(kind: str, name: str, services: ServicesDep, _: Reader) -> PlainTextResponse:
    """The card of one entry in Markdown."""
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
    """Calls to providers in the lines of a proxy's log (the body, at most 64 MiB), or, with `bill`, charges of
    providers in the lines of a bill, of expenses or of a card's statement; undeclared ones are findings."""
    require_duty(caller, EVIDENCE_DUTIES, "company")
    lines = (await _read_text(request)).splitlines()
    return await run_in_threadpool(_find_shadow_ai, services, caller, lines, tuple(also or ()), bill)


def _find_shadow_ai(
    services: ServicesDep, caller: SignedIn, lines: list[str], also: tuple[str, ...], bill: bool
) -> dict[str, Any]:
    with services.transaction() as conn:
        declared = [urlsplit(each.url).hostname or "" for each in controls.current(conn).blueprint.deployments]
        found = (find_charges if bill else find_calls)(lines, declared, also)
        for each in found:
            if not each.declared:
                finding_store.report(conn, _undeclared_finding(each, bill))
        told = {"bill": bill, "lines": len(lines), "undeclared": [each.host for each in found if not each.declared]}
        record(conn, action="register.shadow", actor=caller.actor, subject="company", detail=told)
    return {
        "lines": len(lines),
        "hosts": [
            {
                "host": each.host, "provider": each.provider, "declared": each.declared, "calls": each.calls,
                "callers": len(each.callers),
            }
            for each in found
        ],
    }  # fmt: skip


def _undeclared_finding(each: ShadowUse, bill: bool) -> Finding:
    called = f"{each.host} ({each.provider}) is undeclared: {each.calls} calls, {len(each.callers)} callers."
    return Finding(
        kind="governance.shadow_ai", subject="company", severity="high",
        mark=f"bill {each.host}" if bill else each.host,
        message=f"{each.host} is undeclared and paid: {each.calls} lines of a bill." if bill else called,
        hint="Find out what it is used for; declare the workload with an owner and a budget, or block that connection.",
        detail={"host": each.host, "provider": each.provider, "calls": each.calls, "callers": len(each.callers)},
    )  # fmt: skip


async def _read_text(request: Request) -> str:
    data = bytearray()
    async for piece in request.stream():
        data += piece
        if len(data) > MAX_LOG_BYTES:
            raise TooLarge("the log is too large", code="log_size", hint="Send at most 64 MiB at once.")
    return data.decode("utf-8", "replace")


@router.get("/risk")
def list_risk(services: ServicesDep, _: Reader) -> dict[str, Any]:
    """The declared risk of each served workload, its class under the EU AI Act, and the dates that are known."""
    with services.transaction() as conn:
        current = controls.current(conn)
    names = sorted(each.name for each in current.blueprint.workloads)
    return {"workloads": [_risk_json(current, name) for name in names], "timeline": timeline()}


@router.post("/imports/oscal")
def convert_oscal(body: OscalImport, _: Reader) -> dict[str, Any]:
    """Convert OSCAL catalogs, profiles and component definitions to `kind: framework`; changes nothing."""
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
    """Assessment results in OSCAL 1.1.2, of all workloads or of one; or the controls as a catalog, the selected ones as
    a profile, and automatic checks as a component definition."""
    now = services.clock.now()
    with services.transaction() as conn:
        one = _find_framework(conn, name, now)
        current = controls.current(conn)
        told: dict[str, str] = {"framework": name, "document": document}
        if workload is not None:
            one = replace(one, workloads=(require_workload(current.blueprint, workload).name,))
            told["workload"] = workload
        known = controls.decisive_evidence(conn, now, workloads=one.workloads)
        record(conn, action="export.oscal", actor=caller.actor, subject="company", detail=told)
    company = current.blueprint.company
    if document != "assessment-results":
        return oscal_document(document, one, current.workspace.frameworks[name], company, now)
    return assessment_results(one, assess(one, known, now), company, now, now - PERIOD)


@router.get("/exports/cyclonedx")
def export_cyclonedx(services: ServicesDep, caller: Reader) -> dict[str, Any]:
    """The register as a CycloneDX 1.6 bill of materials."""
    with services.transaction() as conn:
        current = controls.current(conn)
        entries = controls.register_entries(conn, current, services.clock.now())
        record(conn, action="export.cyclonedx", actor=caller.actor, subject="company", detail={})
    return ml_bom(entries, current.blueprint.company, current.blueprint.number, services.clock.now())


@router.get("/exports/applicability/{name}")
def export_applicability(name: str, services: ServicesDep, caller: Reader) -> dict[str, Any]:
    """The statement of applicability: each control, whether it applies, and why not."""
    now = services.clock.now()
    with services.transaction() as conn:
        one = _find_framework(conn, name, now)
        record(conn, action="export.applicability", actor=caller.actor, subject="company", detail={"framework": name})
    return {
        "framework": name,
        "owner": one.owner,
        "workloads": list(one.workloads),
        "controls": [
            {"id": c.id, "title": c.title, "applies": c.id not in one.excluded, "reason": one.excluded.get(c.id, "")}
            for c in one.controls
        ],
    }


def _risk_json(current: Current, name: str) -> dict[str, Any]:
    doc = current.workspace.workloads[name]
    declared = doc.risk
    found = classify(declared.eu_ai_act) if declared is not None and declared.eu_ai_act is not None else None
    return {
        "workload": name,
        "declared": declared is not None,
        **({} if declared is None else declared.model_dump(mode="json", exclude={"eu_ai_act"})),
        "eu_ai_act": None
        if found is None
        else {
            "class": found.name, "role": found.role, "why": found.why, "profile": found.profile,
            "duties": list(found.duties), "since": applies_from("ART 26" if found.name == "high-risk" else "ART 50"),
        },
    }  # fmt: skip


def _entries(conn: Any, now: datetime) -> list[Entry]:
    current = controls.current(conn)
    return controls.register_entries(conn, current, now)


def _find_framework(conn: Any, name: str, now: datetime) -> AppliedFramework:
    for one in controls.frameworks(conn, now):
        if one.framework.name == name:
            return one
    raise NotFound(
        f"no framework {name[:63]} is in force here", code="framework_unknown",
        hint="Declare it: kind: framework. `groundplan controls` lists those in force.",
    )  # fmt: skip
