"""Finds hosted models that are no longer what was approved, by the versions that their upstreams report. Pure.

A provider may change a model behind the same name; the name and fingerprint in its answers show it. For each deployment
and requested version, the first reported version is the one that was approved; a later one is a finding until the model
is approved again, or, if nobody approves it, for `FINDING_LIFETIME`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from groundplan.blueprint.model import Blueprint, Deployment
from groundplan.governance.approved_parts import declaration_digest, model_declaration
from groundplan.ledger.finding import Finding

KIND = "governance.model_changed"
FINDING_LIFETIME = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Version:
    """The model that an upstream reported when `asked` was requested."""

    deployment: str
    asked: str
    model: str
    fingerprint: str
    first_at: datetime
    last_at: datetime

    @property
    def label(self) -> str:
        return f"{self.model or 'no name'}{f' with fingerprint {self.fingerprint}' if self.fingerprint else ''}"


@dataclass(frozen=True, slots=True)
class ModelChange:
    """An upstream that reports another version. `digest`: of the model's declaration, to which approvals are bound."""

    deployment: Deployment
    digest: str
    before: Version
    now: Version
    production: bool


def model_changes(
    blueprint: Blueprint, versions: Iterable[Version], approved: Mapping[str, datetime], now: datetime
) -> list[ModelChange]:
    """Deployments whose upstream reports another version than before. `approved`: digest -> last approval."""
    by_version: dict[tuple[str, str], list[Version]] = {}
    for each in versions:
        by_version.setdefault((each.deployment, each.asked), []).append(each)
    live = {name for item in blueprint.workloads if item.stage == "production" for name in item.all_deployments}
    used = {name for item in blueprint.workloads for name in item.all_deployments}
    found: list[ModelChange] = []
    for item in blueprint.deployments:
        reported = sorted(by_version.get((item.name, item.upstream_model), ()), key=lambda each: each.first_at)
        if len(reported) < 2 or item.name not in used:
            continue
        digest = declaration_digest("model", f"model/{item.model}", model_declaration(item))
        since = max(approved.get(digest, reported[0].first_at), reported[0].first_at, now - FINDING_LIFETIME)
        later = [each for each in reported[1:] if each.first_at > since]
        if later:
            found.append(
                ModelChange(item, digest, reported[reported.index(later[0]) - 1], later[-1], item.name in live)
            )
    return found


def model_change_finding(changed: ModelChange) -> Finding:
    """The finding: severity high if a workload in production uses the deployment."""
    item, before, now = changed.deployment, changed.before, changed.now
    return Finding(
        kind=KIND,
        severity="high" if changed.production else "medium",
        subject=f"deployment/{item.name}",
        mark=changed.digest[:16],
        message=f"{item.model} at {item.name} has changed: asked for {now.asked}, its upstream reported "
        f"{before.label} and now {now.label}.",
        hint="Evaluate it again, then have the model approved again (Governance, its approval, Request again), or pin "
        "a dated version as upstream_model.",
        detail={
            "before": before.label,
            "now": now.label,
            "since": now.first_at.isoformat(),
            "approval": changed.digest,
        },
    )
