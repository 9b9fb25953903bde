"""The metrics of a worker in a test, at once: the worker itself answers calls between their parts."""

from __future__ import annotations

from groundplan.gateway.call.context import Gateway
from groundplan.gateway.telemetry.exposition import Family
from groundplan.gateway.telemetry.worker_families import FAMILY_GROUPS


def families(gateway: Gateway) -> list[Family]:
    """All families of the worker, in a fixed order."""
    return [family for part in FAMILY_GROUPS for family in part(gateway)]
