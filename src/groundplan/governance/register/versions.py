"""Whether a hosted model is still what was approved: what its upstream says of itself, compared with what it said.

Pure. A provider may change a model behind the same name; the name that answers bear and their fingerprint show it. Of
each deployment and asked version the first that was reported is what was looked at when it was approved; what is
reported later is told until the model is approved again, or, where nobody approves it, for `TOLD`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from groundplan.blueprint.model import Blueprint, Deployment
from groundplan.governance.approved_parts import declaration_digest, model_declaration
from groundplan.ledger.finding import Finding

KIND = "governance.model_changed"
TOLD = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Version:
    """What an upstream reported for a version that was asked of it."""

    deployment: str
    asked: str
    model: str
    fingerprint: str
    first_at: datetime
    last_at: datetime

    @property
    def named(self) -> str:
        return f"{self.model or 'no name'}{f' with fingerprint {self.fingerprint}' if self.fingerprint else ''}"


@dataclass(frozen=True, slots=True)
class Changed:
    """An upstream that is not what it was. `digest`: of the model as it is declared, to which approvals are bound."""

    deployment: Deployment
    digest: str
    before: Version
    now: Version
    production: bool


def changes(
    blueprint: Blueprint, versions: Iterable[Version], approved: Mapping[str, datetime], now: datetime
) -> list[Changed]:
    """Deployments whose upstream reports something else than before. `approved`: digest -> when it last was."""
    known: dict[tuple[str, str], list[Version]] = {}
    for each in versions:
        known.setdefault((each.deployment, each.asked), []).append(each)
    live = {name for item in blueprint.workloads if item.stage == "production" for name in item.places}
    used = {name for item in blueprint.workloads for name in item.places}
    found: list[Changed] = []
    for item in blueprint.deployments:
        said = sorted(known.get((item.name, item.upstream_model), ()), key=lambda each: each.first_at)
        if len(said) < 2 or item.name not in used:
            continue
        digest = declaration_digest("model", f"model/{item.model}", model_declaration(item))
        since = max(approved.get(digest, said[0].first_at), said[0].first_at, now - TOLD)
        later = [each for each in said[1:] if each.first_at > since]
        if later:
            found.append(Changed(item, digest, said[said.index(later[0]) - 1], later[-1], item.name in live))
    return found


def finding(changed: Changed) -> Finding:
    """What is told of it: high where production rests on it."""
    item, before, now = changed.deployment, changed.before, changed.now
    return Finding(
        kind=KIND,
        severity="high" if changed.production else "medium",
        subject=f"deployment/{item.name}",
        mark=changed.digest[:16],
        message=f"{item.model} at {item.name} has changed: asked for {now.asked}, its upstream reported "
        f"{before.named} and now {now.named}.",
        hint="Evaluate it again, then have the model approved again (Governance, its approval, Request again), or pin "
        "a dated version as upstream_model.",
        detail={
            "before": before.named,
            "now": now.named,
            "since": now.first_at.isoformat(),
            "approval": changed.digest,
        },
    )
