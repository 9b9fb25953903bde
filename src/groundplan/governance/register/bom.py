"""The register as a CycloneDX 1.6 bill of materials for machine learning: models, data and services. Pure.

Weights are not opened: nothing is known of a model beyond its declaration.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from groundplan.governance.register.entries import Entry

_SENSITIVITY = {"public": "public", "internal": "internal", "confidential": "confidential", "restricted": "restricted"}


def ml_bom(entries: Sequence[Entry], company: str, number: int, now: datetime) -> dict[str, Any]:
    """The bill of materials, valid under CycloneDX's own schema."""
    names = [each.name for each in entries if each.kind == "model"]
    models = [_model(each) for each in entries if each.kind == "model"]
    data = [_data(each) for each in entries if each.kind == "source"]
    prompts = [_prompt(each) for each in entries if each.kind == "prompt"]
    services = [_service(each) for each in entries if each.kind == "deployment"]
    services += [_tool(each) for each in entries if each.kind == "tool"]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid5(NAMESPACE_URL, f'groundplan:{company}:{number}')}",
        "version": 1,
        "metadata": {
            "timestamp": now.isoformat(),
            "component": {
                "type": "application", "bom-ref": f"company/{company}", "name": company,
                "version": f"blueprint {number}",
            },
        },
        "components": [*models, *data, *prompts],
        "services": services,
        "dependencies": [
            {
                "ref": f"deployment/{each.name}",
                "dependsOn": [f"model/{name}" for name in names if each.title == name],
            }
            for each in entries
            if each.kind == "deployment"
        ],
    }  # fmt: skip


def _model(each: Entry) -> dict[str, Any]:
    made: dict[str, Any] = {
        "type": "machine-learning-model",
        "bom-ref": f"model/{each.name}",
        "name": each.name,
        "description": each.title,
        "modelCard": {"considerations": {"useCases": list(each.used_by) or ["not used"]}},
        "properties": [{"name": "groundplan:digest", "value": each.digest or "not declared"}],
    }
    if each.origin:
        made["supplier"] = {"name": each.origin}
    if each.licence:
        made["licenses"] = [{"license": {"name": each.licence}}]
    return made


def _data(each: Entry) -> dict[str, Any]:
    return {
        "type": "data",
        "bom-ref": f"source/{each.name}",
        "name": each.name,
        "description": each.title,
        "data": [
            {
                "type": "dataset",
                "name": each.name,
                "classification": _SENSITIVITY[each.sensitivity],
                "governance": {"owners": [{"contact": {"email": each.owner}}]},
            }
        ],
    }


def _prompt(each: Entry) -> dict[str, Any]:
    return {
        "type": "data",
        "bom-ref": f"prompt/{each.name}",
        "name": each.name,
        "version": each.version,
        "data": [{"type": "definition", "name": each.name}],
        "hashes": [{"alg": "SHA-256", "content": each.digest}],
    }


def _tool(each: Entry) -> dict[str, Any]:
    return {
        "bom-ref": f"tool/{each.name}",
        "name": each.name,
        "description": f"Tools at {each.origin}",
        "properties": [
            {"name": "groundplan:used-by", "value": ", ".join(each.used_by) or "nobody"},
            {"name": "groundplan:digest", "value": each.digest},
        ],
    }


def _service(each: Entry) -> dict[str, Any]:
    return {
        "bom-ref": f"deployment/{each.name}",
        "name": each.name,
        "version": each.version or "not known",
        "description": f"{each.title} at {each.origin}",
        "x-trust-boundary": each.detail.get("jurisdiction") not in ("", None),
        "properties": [
            {"name": "groundplan:terms", "value": each.terms or "not declared"},
            {"name": "groundplan:used-by", "value": ", ".join(each.used_by) or "nobody"},
        ],
    }
