"""The gateways' own check of where calls may be sent, made when they load a blueprint; shares no code with its making.

Residency, sensitivity and purposes are checked again from the blueprint itself, so that a forbidden deployment in a
workload's fallbacks is never called. It costs a call nothing: forbidden deployments are removed from its list.
"""

from __future__ import annotations

from collections.abc import Mapping

from groundplan.blueprint.model import Deployment, Site, Workload
from groundplan.placement.model import EEA, EU, SENSITIVITY_ORDER


def is_allowed(workload: Workload, deployment: Deployment, sites: Mapping[str, Site]) -> bool:
    """Whether calls of a workload may be sent to a deployment. At a site that the blueprint does not know, only
    workloads without residency, and with public or internal data, are allowed."""
    site = sites.get(deployment.site)
    if _is_purpose_limited(deployment.purposes, workload) or _is_purpose_limited(
        site.purposes if site else [], workload
    ):
        return False
    if site is None:
        return not workload.residency and workload.sensitivity in ("public", "internal")
    site_limit = site.holds or ("confidential" if site.type == "cloud" else "restricted")
    if SENSITIVITY_ORDER.index(workload.sensitivity) > SENSITIVITY_ORDER.index(site_limit):
        return False
    return not workload.residency or _is_inside(site.jurisdiction, workload.residency)


def _is_purpose_limited(allowed: list[str], workload: Workload) -> bool:
    """Whether a place for the `allowed` purposes excludes the workload."""
    purposes = workload.needs.purposes
    return bool(allowed) and not (purposes and all(each in allowed for each in purposes))


def _is_inside(jurisdiction: str, residency: list[str]) -> bool:
    if jurisdiction in residency:
        return True
    return (jurisdiction in EU and "EU" in residency) or (jurisdiction in EEA and "EEA" in residency)
