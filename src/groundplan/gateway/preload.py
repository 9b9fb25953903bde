"""Imports modules that only some blueprints need when such a blueprint is loaded, not with the first call that uses
them.

An upgrade replaces the code under running workers some time before they are reloaded: a module imported in between
would be of another version than the worker, and might not fit. A worker whose blueprint needs none of them saves
megabytes.
"""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Iterable, Iterator

from groundplan.blueprint.model import Blueprint, Workload

REALTIME = ("groundplan.gateway.surfaces.realtime.conversation",)
ROUTER = tuple(
    f"groundplan.economics.routing.{name}" for name in ("decide.choose", "decide.predict", "model", "versions.artifact")
)
MEANING = (
    "groundplan.gateway.caching.semantic_frame",
    *(
        f"groundplan.economics.semantic.{name}"
        for name in (
            "differences",
            "equivalence",
            "guards",
            "phrasing",
            "reading",
            "regions",
            "similarity",
            "substitution",
        )
    ),
)
SCHEMA = ("jsonschema.validators",)
_log = logging.getLogger(__name__)


def missing(blueprint: Blueprint) -> list[str]:
    """Names of modules that calls under the blueprint may import and that are not imported yet."""
    found = {name for workload in blueprint.workloads for name in _needed(workload)}
    if any(deployment.kind == "realtime" for deployment in blueprint.deployments):
        found.update(REALTIME)
    return sorted(found - sys.modules.keys())


def _needed(workload: Workload) -> Iterator[str]:
    routing, cache, guards = workload.routing, workload.cache, workload.guardrails
    cascade = None if routing is None else routing.cascade
    if routing is not None and routing.router is not None:
        yield from ROUTER
    if cache is not None and cache.semantic is not None:
        yield from MEANING
    if any(each is not None and each.schema is not None for each in (guards, cascade)):
        yield from SCHEMA


def load(names: Iterable[str]) -> None:
    """Import modules. One that cannot be imported is logged: calls that need it are refused, all others served."""
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:  # noqa: BLE001 -- an extra that is not installed, or one that is broken
            _log.warning("%s cannot be loaded here: %r", name, error)
