"""Assessment results in OSCAL 1.1.2 (NIST), from standings: what was looked at, what was seen, what holds. Pure.

Identifiers are derived from the content, so the same standings give the same document but for its times. Plans,
catalogs and profiles in OSCAL are not made; the assessment plan is referred to as a resource.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

from groundplan.governance.controls.model import Applied, Evidence, Standing

VERSION = "1.1.2"
_METHODS = {
    "test": "TEST",
    "drill": "TEST",
    "query": "EXAMINE",
    "document": "EXAMINE",
    "review": "INTERVIEW",
    "approval": "INTERVIEW",
}
_NOT_TOKEN = re.compile(r"[^a-z0-9._-]+")


def token(identifier: str) -> str:
    """An identifier as OSCAL may write it: letters first, no spaces (`GOVERN 1.1` -> `govern-1.1`, `4` -> `c-4`)."""
    made = _NOT_TOKEN.sub("-", identifier.lower()).strip("-.")
    return made if made[:1].isalpha() else f"c-{made}"


def assessment_results(
    applied: Applied, standings: Mapping[str, Sequence[Standing]], company: str, now: datetime, start: datetime
) -> dict[str, Any]:
    """`{"assessment-results": {...}}` of one framework over its workloads."""
    base = uuid5(NAMESPACE_URL, f"groundplan:{company}:{applied.framework.name}")
    plan = uuid5(base, "plan")
    results = [_result(base, applied, workload, each, now, start) for workload, each in standings.items()]
    return {
        "assessment-results": {
            "uuid": str(uuid5(base, now.isoformat())),
            "metadata": {
                "title": f"{applied.framework.title}: {company}",
                "last-modified": now.isoformat(),
                "version": now.strftime("%Y-%m-%d"),
                "oscal-version": VERSION,
            },
            "import-ap": {"href": f"#{plan}"},
            "results": results,
            "back-matter": {
                "resources": [
                    {
                        "uuid": str(plan),
                        "title": "Checks of controls",
                        "description": "Every control is judged by checks of facts, or by evidence that people give.",
                    }
                ]
            },
        }
    }


def _result(
    base: UUID, applied: Applied, workload: str, standings: Sequence[Standing], now: datetime, start: datetime
) -> dict[str, Any]:
    own = uuid5(base, workload)
    component = str(uuid5(own, "component"))
    looked_at = [each for each in standings if each.state != "excluded"]
    seen = {shown.evidence.id: shown.evidence for each in looked_at for shown in each.shown if shown.evidence}
    selection: dict[str, Any] = {"include-controls": [{"control-id": token(each.control.id)} for each in looked_at]}
    left_out = [each for each in standings if each.state == "excluded"]
    if left_out:
        selection["exclude-controls"] = [{"control-id": token(each.control.id)} for each in left_out]
        selection["remarks"] = "; ".join(f"{each.control.id}: {each.reason}" for each in left_out)
    result: dict[str, Any] = {
        "uuid": str(uuid5(own, now.isoformat())),
        "title": workload,
        "description": f"{applied.framework.title} for the workload {workload}.",
        "start": start.isoformat(),
        "end": now.isoformat(),
        "local-definitions": {
            "components": [
                {
                    "uuid": component,
                    "type": "service",
                    "title": workload,
                    "description": f"The workload {workload}.",
                    "status": {"state": "operational"},
                }
            ]
        },
        "reviewed-controls": {"control-selections": [selection]},
        "findings": [_finding(own, each) for each in looked_at],
    }
    if seen:
        result["observations"] = [_observation(own, component, each) for each in seen.values()]
    return result


def _observation(own: UUID, component: str, evidence: Evidence) -> dict[str, Any]:
    return {
        "uuid": str(uuid5(own, str(evidence.id))),
        "title": evidence.what,
        "description": evidence.says,
        "methods": [_METHODS[evidence.type]],
        "subjects": [{"subject-uuid": component, "type": "component"}],
        "relevant-evidence": [
            {
                "href": f"#audit/{evidence.audit_entry}",
                "description": f"SHA-256 {evidence.digest}, collected by {evidence.collector}",
            }
        ],
        "collected": evidence.at.isoformat(),
        "expires": evidence.valid_until.isoformat(),
    }


def _finding(own: UUID, standing: Standing) -> dict[str, Any]:
    satisfied = standing.state == "satisfied"
    missing = "; ".join(f"{each.need}: {each.hint}" for each in standing.shown if each.state != "satisfied")
    related = [{"observation-uuid": str(uuid5(own, str(each.evidence.id)))} for each in standing.shown if each.evidence]
    found: dict[str, Any] = {
        "uuid": str(uuid5(own, f"finding {standing.control.id}")),
        "title": f"{standing.control.id} {standing.control.title}",
        "description": "Every need is met." if satisfied else f"{standing.state}: {missing}",
        "target": {
            "type": "objective-id",
            "target-id": token(standing.control.id),
            "status": {"state": "satisfied" if satisfied else "not-satisfied"},
        },
    }
    if related:
        found["related-observations"] = related
    return found
