"""Rollback to an earlier blueprint: what of it may come back today, and the blueprint that results. Pure.

The content is that of the earlier blueprint, not compiled anew from its files, so that exactly what was served comes
back. Today's values apply to caps, company-wide duties, prices, grants on what is served now and restrictions of
sources; what was withdrawn or stopped or has ended since does not come back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from typing import TypeVar

import msgspec

from groundplan.blueprint import model as bp
from groundplan.catalog.workspace import Workspace
from groundplan.core.errors import Problem
from groundplan.governance import approved_parts
from groundplan.governance.decide import decide_workload, lower_caps
from groundplan.governance.model import ApprovalStatus
from groundplan.governance.policy.vocabulary import provider_of
from groundplan.knowledge.governance.inherit import stricter
from groundplan.release import units
from groundplan.release.compile.pricing import Prices
from groundplan.release.plan import without_workload

Granted = TypeVar("Granted", bp.Workload, bp.Source)


def unrestorable(
    old: bp.Blueprint, served: bp.Blueprint, standing: ApprovalStatus, killed: Mapping[str, str], today: date
) -> dict[str, str]:
    """Subject -> reason, for each workload of an old blueprint that may not come back. `killed` is scope -> reason."""
    found: dict[str, str] = {}
    served_ends = {(item.name, item.expires) for item in served.workloads}
    for workload in old.workloads:
        subject = units.workload_subject(workload.name)
        scopes = [scope for scope in _kill_scopes(old, workload) if scope in killed]
        digests = (units.workload_digest(old, workload), *units.former_digests(old, workload))
        if standing.is_revoked(subject, *digests):
            found[subject] = "an approval was withdrawn"
        elif lapsed_part := _lapsed_part(old, workload, standing, served.approved_parts, today):
            found[subject] = f"the approval of {lapsed_part} does not hold any more"
        elif scopes:
            found[subject] = f"{scopes[0]} was stopped: {killed[scopes[0]]}"
        elif _has_ended(workload, today) and (workload.name, workload.expires) not in served_ends:
            found[subject] = f"it ended on {workload.expires}"
        elif duties := _missing_duties(old, workload, served, standing, today):
            found[subject] = f"caps were lowered since, so it needs approval by {', '.join(duties)}"
    return found


def todays_rates(workspace: Workspace, old: bp.Blueprint, today: date, prices: Prices) -> dict[str, bp.Rates]:
    """Deployment -> today's rates, for the deployments of an old blueprint that its files still price."""
    found: dict[str, bp.Rates] = {}
    for deployment in old.deployments:
        declared = workspace.deployments.get(deployment.name)
        if declared is None or declared.model != deployment.model:
            continue
        rates = prices(workspace, declared, today)
        if not isinstance(rates, Problem):
            found[deployment.name] = rates
    return found


def restored_blueprint(
    old: bp.Blueprint,
    served: bp.Blueprint,
    left_out: Iterable[str],
    rates: Mapping[str, bp.Rates],
    *,
    demo: bool = False,
) -> bp.Blueprint:
    """The next blueprint: the content of `old` without the subjects `left_out`."""
    blueprint = old
    for subject in left_out:
        blueprint = without_workload(blueprint, subject.partition("/")[2])
    deployments = [
        msgspec.structs.replace(item, rates=rates.get(item.name, item.rates)) for item in blueprint.deployments
    ]
    return msgspec.structs.replace(
        blueprint,
        number=served.number + 1,
        rollback_of=old.number,
        demo=demo,
        deployments=deployments,
        sources=[
            _with_current_restrictions(_with_current_grants(item, served.sources, "read"), served.sources)
            for item in blueprint.sources
        ],
        workloads=[
            _with_current_grants(item, served.workloads, "use", "act_for_others") for item in blueprint.workloads
        ],
        caps=lower_caps(served.caps, old.caps),
        owners=served.owners,
        approved_parts=served.approved_parts,
        approval_terms=served.approval_terms,
        policies=_merge_policies(old.policies, served.policies),
        separation="enforced" if "enforced" in (served.separation, old.separation) else "solo",
    )


def _merge_policies(old: Iterable[bp.PolicyRules], served: Iterable[bp.PolicyRules]) -> list[bp.PolicyRules]:
    """The old rules, with the rules that are enforced today as they are: a rollback never removes a rule."""
    kept = {item.name: item for item in old} | {item.name: item for item in served if item.enforced}
    return [kept[name] for name in sorted(kept)]


def _with_current_grants(item: Granted, served: Iterable[Granted], *fields: str) -> Granted:
    """The item with today's grants, so that no revoked grant comes back."""
    served_item = next((each for each in served if each.name == item.name), item)
    return msgspec.structs.replace(item, **{field: getattr(served_item, field) for field in fields})


def _with_current_restrictions(item: bp.Source, served: Iterable[bp.Source]) -> bp.Source:
    """A source restricted to the readers, purposes and workloads that it is open to today, if it is served: nothing
    that was taken away comes back, no draft is used again, and no legal hold ends."""
    served_item = next((each for each in served if each.name == item.name), item)
    old, held = item.governed, served_item.governed
    return msgspec.structs.replace(
        item,
        readers=[reader for reader in item.readers if reader in served_item.readers],
        governed=msgspec.structs.replace(
            old,
            state=stricter("state", old.state, held.state),
            purposes=_intersection(old.purposes, held.purposes),
            workloads=_intersection(old.workloads, held.workloads),
            legal_hold=old.legal_hold or held.legal_hold,
        ),
    )


def _intersection(old: list[str], current: list[str]) -> list[str]:
    """What both lists allow; an empty list allows anything. Without a common entry: what is allowed today."""
    return [each for each in old if each in current] or current if current else old


def _lapsed_part(
    old: bp.Blueprint, workload: bp.Workload, standing: ApprovalStatus, kinds: Iterable[str], today: date
) -> str | None:
    """A part that the workload uses and whose approval was withdrawn or has ended; None where there is none."""
    found = approved_parts.find_lapses(old, workload, standing.parts, tuple(kinds), today)
    return next((each.part.label for each in found if each.reason not in ("missing", "price")), None)


def _missing_duties(
    old: bp.Blueprint, workload: bp.Workload, served: bp.Blueprint, standing: ApprovalStatus, today: date
) -> list[str]:
    """Duties that must approve a workload again: none, unless caps were lowered since it was served."""
    if lower_caps(served.caps, old.caps) == old.caps:
        return []
    served_item = next((item for item in served.workloads if item.name == workload.name), None)
    decision = decide_workload(
        units.terms(served, served_item) if served_item else None,
        units.terms(old, workload),
        caps=served.caps,
        standing=standing,
        today=today,
    )
    return [need.duty for need in decision.needs]


def _has_ended(workload: bp.Workload, today: date) -> bool:
    return bool(workload.stage != "production" and workload.expires and workload.expires < today.isoformat())


def _kill_scopes(blueprint: bp.Blueprint, workload: bp.Workload) -> Iterable[str]:
    """Scopes of kills that stop a workload, except for the company as a whole."""
    used = set(workload.all_deployments)
    yield units.workload_subject(workload.name)
    for deployment in blueprint.deployments:
        if deployment.name in used:
            yield f"deployment/{deployment.name}"
            yield f"site/{deployment.site}"
            yield f"model/{deployment.model}"
            yield f"provider/{provider_of(deployment)}"
    for name in workload.grounding.sources if workload.grounding else []:
        yield f"source/{name}"
