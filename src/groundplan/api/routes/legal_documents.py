"""Documents that laws ask for about a workload, filled from facts by one exporter; what is missing is marked."""

from __future__ import annotations

from typing import Any, Literal

from fastapi.responses import PlainTextResponse

from groundplan.api import controls, legal_documents
from groundplan.api.access.protected_routes import protected_router
from groundplan.api.caller import Reader
from groundplan.api.context import ServicesDep
from groundplan.core.audit.store import record
from groundplan.governance.documents.fill import Document, markdown
from groundplan.governance.documents.template import NAMES, load_template

router = protected_router("controls")
Name = Literal["annex-iv", "fria", "dpia"]


@router.get("/exports/documents")
def list_documents(services: ServicesDep, _: Reader) -> dict[str, Any]:
    """The kinds of documents that there are, and about which workloads."""
    with services.transaction() as conn:
        current = controls.current_or_none(conn)
    return {
        "documents": [
            {
                "name": name, "title": made.title, "law": made.law, "source": made.source, "as_of": made.as_of,
                "sections": len(made.sections),
            }
            for name in NAMES
            for made in [load_template(name)]
        ],
        "workloads": sorted(current.workspace.workloads) if current is not None else [],
    }  # fmt: skip


@router.get("/exports/documents/{name}/{workload}")
def document(name: Name, workload: str, services: ServicesDep, caller: Reader) -> dict[str, Any]:
    """One document about one workload: each section with its sentences, where each is from, and what is missing."""
    return _made(services, caller, name, workload).to_json()


@router.get("/exports/documents/{name}/{workload}/text", response_class=PlainTextResponse)
def text(name: Name, workload: str, services: ServicesDep, caller: Reader) -> PlainTextResponse:
    """The same as Markdown."""
    made = markdown(_made(services, caller, name, workload))
    return PlainTextResponse(made, media_type="text/markdown; charset=utf-8")


def _made(services: ServicesDep, caller: Reader, name: str, workload: str) -> Document:
    with services.transaction() as conn:
        made = legal_documents.fill_document(services, conn, controls.current(conn), name, workload)
        detail = {"document": name, "missing": list(made.missing)}
        record(conn, action="export.document", actor=caller.actor, subject=f"workload/{workload}", detail=detail)
    return made
