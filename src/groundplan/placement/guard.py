"""The last word on where a call may go, read by gateways when they take up a blueprint. Independent of what made it.

Residency and sensitivity are judged again from the blueprint's own sites, so that a deployment that somebody wrote into
a workload's fallbacks is never asked. It costs a call nothing: what is forbidden is not among its deployments.
"""

from __future__ import annotations

from collections.abc import Mapping

from groundplan.blueprint.model import Deployment, Site, Workload
from groundplan.placement.model import EEA, EU, SENSITIVITY_ORDER


def may(workload: Workload, deployment: Deployment, sites: Mapping[str, Site]) -> bool:
    """Whether calls of a workload may be sent there. A site that the blueprint does not know may have only what may go
    anywhere."""
    site = sites.get(deployment.site)
    if site is None:
        return not workload.residency and workload.sensitivity in ("public", "internal")
    most = site.holds or ("confidential" if site.type == "cloud" else "restricted")
    if SENSITIVITY_ORDER.index(workload.sensitivity) > SENSITIVITY_ORDER.index(most):
        return False
    return not workload.residency or _inside(site.jurisdiction, workload.residency)


def _inside(jurisdiction: str, residency: list[str]) -> bool:
    if jurisdiction in residency:
        return True
    return (jurisdiction in EU and "EU" in residency) or (jurisdiction in EEA and "EEA" in residency)
