"""The last word on where a call may go, read by gateways when they take up a blueprint. Independent of what made it.

Residency, sensitivity and purposes are judged again from what the blueprint itself says, so that a deployment that
somebody wrote into a workload's fallbacks is never asked. It costs a call nothing: what is forbidden is not among its
deployments.
"""

from __future__ import annotations

from collections.abc import Mapping

from groundplan.blueprint.model import Deployment, Site, Workload
from groundplan.placement.model import EEA, EU, SENSITIVITY_ORDER


def is_allowed(workload: Workload, deployment: Deployment, sites: Mapping[str, Site]) -> bool:
    """Whether calls of a workload may be sent there. A site that the blueprint does not know may have only what may go
    anywhere."""
    site = sites.get(deployment.site)
    if _is_purpose_limited(deployment.purposes, workload) or _is_purpose_limited(
        site.purposes if site else [], workload
    ):
        return False
    if site is None:
        return not workload.residency and workload.sensitivity in ("public", "internal")
    most = site.holds or ("confidential" if site.type == "cloud" else "restricted")
    if SENSITIVITY_ORDER.index(workload.sensitivity) > SENSITIVITY_ORDER.index(most):
        return False
    return not workload.residency or _is_inside(site.jurisdiction, workload.residency)


def _is_purpose_limited(allowed: list[str], workload: Workload) -> bool:
    """Whether a place for these purposes is not for those of the workload."""
    asked = workload.needs.purposes
    return bool(allowed) and not (asked and all(each in allowed for each in asked))


def _is_inside(jurisdiction: str, residency: list[str]) -> bool:
    if jurisdiction in residency:
        return True
    return (jurisdiction in EU and "EU" in residency) or (jurisdiction in EEA and "EEA" in residency)
