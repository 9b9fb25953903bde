"""What a company holds itself to in OSCAL 1.1.2: the catalog of its controls, the profile that it takes of them, and
what Groundplan checks of them as a component definition. Pure.

`groundplan import oscal` reads catalog and profile back as what was declared, but for the owner, who is a person.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Literal
from uuid import NAMESPACE_URL, UUID, uuid5

from groundplan.catalog.frameworks import FrameworkDoc
from groundplan.catalog.imports.oscal_files import NAMESPACE
from groundplan.governance.controls.checks import CHECKS
from groundplan.governance.controls.model import Applied, Control
from groundplan.governance.controls.oscal import VERSION, token

Document = Literal["catalog", "profile", "component-definition"]


def declared(document: Document, applied: Applied, doc: FrameworkDoc, company: str, now: datetime) -> dict[str, Any]:
    """`{"catalog": {...}}`, `{"profile": {...}}` or `{"component-definition": {...}}`."""
    base = uuid5(NAMESPACE_URL, f"groundplan:{company}:{doc.name}")
    made = {
        "catalog": lambda: _catalog(applied, doc),
        "profile": lambda: _profile(base, applied, doc),
        "component-definition": lambda: _component(base, applied, doc),
    }[document]()
    metadata = {
        "title": applied.framework.title, "last-modified": now.isoformat(),
        "version": applied.framework.as_of.isoformat(), "oscal-version": VERSION,
        "props": [_prop("framework", doc.name), *(_taken(doc) if document == "profile" else [])],
        "remarks": f"Source: {applied.framework.source}",
    }  # fmt: skip
    return {document: {"uuid": str(uuid5(base, document)), "metadata": metadata, **made}}


def _catalog(applied: Applied, doc: FrameworkDoc) -> dict[str, Any]:
    own = {each.id for each in doc.controls}
    shipped = [(each, "shipped") for each in applied.framework.controls]
    added = [(each, "own") for each in applied.controls if each.id in own]
    return {
        "controls": [
            {"id": token(each.id), "class": origin, "title": each.title, "props": _about(each)}
            for each, origin in (*shipped, *added)
        ]
    }


def _taken(doc: FrameworkDoc) -> list[dict[str, str]]:
    """What a profile of OSCAL has no place for."""
    props = [] if doc.profile is None else [_prop("profile", doc.profile)]
    props += [_prop("workload", name) for name in doc.workloads]
    for i, out in enumerate(doc.excluded):
        props += _grouped(f"excluded-{i}", [("control", out.control), ("reason", out.reason)])
    for i, law in enumerate(doc.amended):
        told = [("on", law.on.isoformat()), ("what", law.what), ("source", law.source)]
        props += _grouped(f"amended-{i}", [*told, *(("controls", control) for control in law.controls)])
    return props


def _profile(base: UUID, applied: Applied, doc: FrameworkDoc) -> dict[str, Any]:
    chosen: dict[str, Any] = {"href": f"#{uuid5(base, 'catalog')}"}
    chosen["include-controls"] = [{"with-ids": [token(each.id) for each in applied.controls]}]
    if applied.excluded:
        chosen["exclude-controls"] = [{"with-ids": [token(each) for each in applied.excluded]}]
    return {"imports": [chosen], "merge": {"as-is": True}, "back-matter": _beside(base, doc.name)}


def _component(base: UUID, applied: Applied, doc: FrameworkDoc) -> dict[str, Any]:
    own = uuid5(base, "component")
    checked = [(each, _judged(each.needs)) for each in applied.controls]
    implementation = {
        "uuid": str(uuid5(own, "implementation")),
        "source": f"#{uuid5(base, 'catalog')}",
        "description": "Facts of the calls, the declarations and the audit log are judged every ten minutes.",
        "implemented-requirements": [
            {
                "uuid": str(uuid5(own, each.id)), "control-id": token(each.id), "props": _about(each),
                "description": "; ".join(f"{CHECKS[need].title} ({need})" for need in needs),
            }
            for each, needs in checked
            if needs
        ],
    }  # fmt: skip
    component: dict[str, Any] = {
        "uuid": str(own), "type": "service", "title": "Groundplan",
        "description": "The control plane for AI in production: what it checks of each control by itself.",
    }  # fmt: skip
    if implementation["implemented-requirements"]:
        component["control-implementations"] = [implementation]
    return {"components": [component], "back-matter": _beside(base, doc.name)}


def _judged(needs: Sequence[str]) -> list[str]:
    return [need for need in needs if need in CHECKS and CHECKS[need].judge is not None]


def _about(control: Control) -> list[dict[str, str]]:
    needs = [_prop("need", need) for need in control.needs]
    return [{"name": "label", "value": control.id}, _prop("id", control.id), *needs]


def _prop(name: str, value: str) -> dict[str, str]:
    return {"name": name, "ns": NAMESPACE, "value": " ".join(value.split())}


def _grouped(group: str, values: Iterable[tuple[str, str]]) -> list[dict[str, str]]:
    return [{**_prop(name, value), "group": group} for name, value in values]


def _beside(base: UUID, name: str) -> dict[str, Any]:
    link = {"href": f"{name}-catalog.json", "media-type": "application/oscal.catalog+json"}
    return {"resources": [{"uuid": str(uuid5(base, "catalog")), "title": "Catalog", "rlinks": [link]}]}
