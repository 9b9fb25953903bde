"""A company's framework in OSCAL 1.1.2: the catalog of its controls, the profile chosen from them, and a component
definition of what Groundplan checks by itself. Pure.

`groundplan import oscal` reads catalog and profile back as what was declared, except for the owner, who is a person.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Literal
from uuid import NAMESPACE_URL, UUID, uuid5

from groundplan.catalog.frameworks import FrameworkDoc
from groundplan.catalog.imports.oscal_files import NAMESPACE
from groundplan.governance.controls.checks import CHECKS
from groundplan.governance.controls.model import AppliedFramework, Control
from groundplan.governance.controls.oscal import VERSION, oscal_token

Document = Literal["catalog", "profile", "component-definition"]


def oscal_document(
    document: Document, applied: AppliedFramework, doc: FrameworkDoc, company: str, now: datetime
) -> dict[str, Any]:
    """`{"catalog": {...}}`, `{"profile": {...}}` or `{"component-definition": {...}}`."""
    base = uuid5(NAMESPACE_URL, f"groundplan:{company}:{doc.name}")
    body = {
        "catalog": lambda: _catalog(applied, doc),
        "profile": lambda: _profile(base, applied, doc),
        "component-definition": lambda: _component(base, applied, doc),
    }[document]()
    metadata = {
        "title": applied.framework.title, "last-modified": now.isoformat(),
        "version": applied.framework.as_of.isoformat(), "oscal-version": VERSION,
        "props": [_prop("framework", doc.name), *(_declared_props(doc) if document == "profile" else [])],
        "remarks": f"Source: {applied.framework.source}",
    }  # fmt: skip
    return {document: {"uuid": str(uuid5(base, document)), "metadata": metadata, **body}}


def _catalog(applied: AppliedFramework, doc: FrameworkDoc) -> dict[str, Any]:
    own = {each.id for each in doc.controls}
    shipped = [(each, "shipped") for each in applied.framework.controls]
    added = [(each, "own") for each in applied.controls if each.id in own]
    return {
        "controls": [
            {"id": oscal_token(each.id), "class": origin, "title": each.title, "props": _control_props(each)}
            for each, origin in (*shipped, *added)
        ]
    }


def _declared_props(doc: FrameworkDoc) -> list[dict[str, str]]:
    """Properties for what OSCAL profiles have no field for."""
    props = [] if doc.profile is None else [_prop("profile", doc.profile)]
    props += [_prop("workload", name) for name in doc.workloads]
    for i, out in enumerate(doc.excluded):
        props += _props_group(f"excluded-{i}", [("control", out.control), ("reason", out.reason)])
    for i, law in enumerate(doc.amended):
        values = [("on", law.on.isoformat()), ("what", law.what), ("source", law.source)]
        props += _props_group(f"amended-{i}", [*values, *(("controls", control) for control in law.controls)])
    return props


def _profile(base: UUID, applied: AppliedFramework, doc: FrameworkDoc) -> dict[str, Any]:
    chosen: dict[str, Any] = {"href": f"#{uuid5(base, 'catalog')}"}
    chosen["include-controls"] = [{"with-ids": [oscal_token(each.id) for each in applied.controls]}]
    if applied.excluded:
        chosen["exclude-controls"] = [{"with-ids": [oscal_token(each) for each in applied.excluded]}]
    return {"imports": [chosen], "merge": {"as-is": True}, "back-matter": _catalog_resource(base, doc.name)}


def _component(base: UUID, applied: AppliedFramework, doc: FrameworkDoc) -> dict[str, Any]:
    own = uuid5(base, "component")
    checked = [(each, _checked_needs(each.needs)) for each in applied.controls]
    implementation = {
        "uuid": str(uuid5(own, "implementation")),
        "source": f"#{uuid5(base, 'catalog')}",
        "description": "Facts of the calls, the declarations and the audit log are judged every ten minutes.",
        "implemented-requirements": [
            {
                "uuid": str(uuid5(own, each.id)), "control-id": oscal_token(each.id), "props": _control_props(each),
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
    return {"components": [component], "back-matter": _catalog_resource(base, doc.name)}


def _checked_needs(needs: Sequence[str]) -> list[str]:
    return [need for need in needs if need in CHECKS and CHECKS[need].judge is not None]


def _control_props(control: Control) -> list[dict[str, str]]:
    needs = [_prop("need", need) for need in control.needs]
    return [{"name": "label", "value": control.id}, _prop("id", control.id), *needs]


def _prop(name: str, value: str) -> dict[str, str]:
    return {"name": name, "ns": NAMESPACE, "value": " ".join(value.split())}


def _props_group(group: str, values: Iterable[tuple[str, str]]) -> list[dict[str, str]]:
    return [{**_prop(name, value), "group": group} for name, value in values]


def _catalog_resource(base: UUID, name: str) -> dict[str, Any]:
    link = {"href": f"{name}-catalog.json", "media-type": "application/oscal.catalog+json"}
    return {"resources": [{"uuid": str(uuid5(base, "catalog")), "title": "Catalog", "rlinks": [link]}]}
