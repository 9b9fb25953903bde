"""Legally required documents about a workload, generated from facts; gaps are marked."""

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
    """List the kinds of legal documents that can be generated, and the workloads."""
    with services.transaction() as conn:
        current = controls.current_or_none(conn)
    return {
        "documents": [
            {
                "name": name, "title": template.title, "law": template.law, "source": template.source,
                "as_of": template.as_of, "sections": len(template.sections),
            }
            for name in NAMES
            for template in [load_template(name)]
        ],
        "workloads": sorted(current.workspace.workloads) if current is not None else [],
    }  # fmt: skip


@router.get("/exports/documents/{name}/{workload}")
def document(name: Name, workload: str, services: ServicesDep, caller: Reader) -> dict[str, Any]:
    """A legal document about a workload: sections with sentences, the origin of each, and what is missing."""
    return _generate(services, caller, name, workload).to_json()


@router.get("/exports/documents/{name}/{workload}/text", response_class=PlainTextResponse)
def text(name: Name, workload: str, services: ServicesDep, caller: Reader) -> PlainTextResponse:
    """The same document as Markdown."""
    content = markdown(_generate(services, caller, name, workload))
    return PlainTextResponse(content, media_type="text/markdown; charset=utf-8")


def _generate(services: ServicesDep, caller: Reader, name: str, workload: str) -> Document:
    """Generate a document, and record the export in the audit log."""
    with services.transaction() as conn:
        document = legal_documents.fill_document(services, conn, controls.current(conn), name, workload)
        detail = {"document": name, "missing": list(document.missing)}
        record(conn, action="export.document", actor=caller.actor, subject=f"workload/{workload}", detail=detail)
    return document
