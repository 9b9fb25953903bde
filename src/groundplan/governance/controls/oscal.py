"""Assessment results in OSCAL 1.1.2 (NIST) from the statuses of controls: controls, observations, findings. Pure.

Identifiers are derived from the content, so that the same statuses give the same document, except for its times. The
assessment plan is only referred to, as a resource; `oscal_declared` has catalogs and profiles.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

from groundplan.governance.controls.model import AppliedFramework, ControlStatus, Evidence

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


def oscal_token(identifier: str) -> str:
    """An identifier as an OSCAL token: a letter first, no spaces (`GOVERN 1.1` -> `govern-1.1`, `4` -> `c-4`)."""
    text = _NOT_TOKEN.sub("-", identifier.lower()).strip("-.")
    return text if text[:1].isalpha() else f"c-{text}"


def assessment_results(
    applied: AppliedFramework,
    standings: Mapping[str, Sequence[ControlStatus]],
    company: str,
    now: datetime,
    start: datetime,
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
    base: UUID,
    applied: AppliedFramework,
    workload: str,
    standings: Sequence[ControlStatus],
    now: datetime,
    start: datetime,
) -> dict[str, Any]:
    own = uuid5(base, workload)
    component = str(uuid5(own, "component"))
    looked_at = [each for each in standings if each.state != "excluded"]
    seen = {shown.evidence.id: shown.evidence for each in looked_at for shown in each.shown if shown.evidence}
    selection: dict[str, Any] = {
        "include-controls": [{"control-id": oscal_token(each.control.id)} for each in looked_at]
    }
    left_out = [each for each in standings if each.state == "excluded"]
    if left_out:
        selection["exclude-controls"] = [{"control-id": oscal_token(each.control.id)} for each in left_out]
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


def _finding(own: UUID, status: ControlStatus) -> dict[str, Any]:
    satisfied = status.state == "satisfied"
    missing = "; ".join(f"{each.need}: {each.hint}" for each in status.shown if each.state != "satisfied")
    related = [{"observation-uuid": str(uuid5(own, str(each.evidence.id)))} for each in status.shown if each.evidence]
    found: dict[str, Any] = {
        "uuid": str(uuid5(own, f"finding {status.control.id}")),
        "title": f"{status.control.id} {status.control.title}",
        "description": "Every need is met." if satisfied else f"{status.state}: {missing}",
        "target": {
            "type": "objective-id",
            "target-id": oscal_token(status.control.id),
            "status": {"state": "satisfied" if satisfied else "not-satisfied"},
        },
    }
    if related:
        found["related-observations"] = related
    return found
