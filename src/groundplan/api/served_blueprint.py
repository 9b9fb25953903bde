"""The served blueprint and look-ups in it, decoded once for each number. Gateways check its signature, not this."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from importlib.util import find_spec
from typing import Any

from psycopg import Connection

from groundplan.api import store
from groundplan.blueprint import artifact
from groundplan.blueprint.model import Blueprint, Deployment, Workload
from groundplan.catalog.loader import load_served
from groundplan.catalog.workspace import Workspace
from groundplan.core.errors import NotFound
from groundplan.economics.experiment import experiment_store
from groundplan.economics.experiment.model import SHADOW
from groundplan.release import store as release_store

SEARCH = "search"
TRANSLATE = "translate"
"""The local service that reaches deployments with another API than OpenAI's."""
LOCAL = "local:"
_MAX_LISTED, _MAX_SUGGESTIONS = 30, 3
"""The most names that a hint lists, and the most similar names that it suggests instead."""
_SERVED_BY_SEARCH = frozenset({"embeddings"})
"""Local deployments that the search service serves."""


def current_or_none(conn: Connection[Any]) -> Blueprint | None:
    """The newest blueprint, None before genesis."""
    return release_store.load_blueprint(conn)


def blueprint_at(conn: Connection[Any], number: int) -> Blueprint:
    """Blueprint `number`. Raises `NotFound`."""
    blueprint = release_store.load_blueprint(conn, number)
    return blueprint if blueprint is not None else artifact.decode(bytes(store.blueprint(conn, number)["body"]))


def add_cached_placement(conn: Connection[Any], calls: Iterable[dict[str, Any]]) -> None:
    """Set model and site of calls that a cache answered, from their blueprint: no deployment was called for them, so
    their facts only name the deployment that made the answer. Changes `calls` in place."""
    deployments: dict[int, dict[str, Deployment]] = {}
    for call in calls:
        if call["model"] is None and call["deployment"] is not None and call["cache"] in ("exact", "semantic"):
            if (number := call["blueprint"]) not in deployments:
                blueprint = release_store.load_blueprint(conn, number)
                deployments[number] = (
                    {} if blueprint is None else {deployment.name: deployment for deployment in blueprint.deployments}
                )
            if (origin := deployments[number].get(call["deployment"])) is not None:
                call["model"], call["site"] = origin.model, origin.site


def workspace_at(conn: Connection[Any], number: int) -> Workspace:
    """The declared workspace of blueprint `number`, read and parsed once. Raises `NotFound`."""
    workspace = release_store.load_workspace(conn, number)
    return workspace if workspace is not None else load_served(store.blueprint(conn, number)["sources"])


def current_blueprint(conn: Connection[Any]) -> Blueprint:
    """The newest blueprint. Raises `NotFound` before genesis."""
    blueprint = current_or_none(conn)
    if blueprint is None:
        raise NotFound(
            "nothing is declared yet",
            code="no_blueprint",
            hint="Start with `groundplan up --workspace DIR`, or `apply`.",
        )
    return blueprint


def require_workload(blueprint: Blueprint, name: str) -> Workload:
    """The served workload of this name. Raises `NotFound` with the names that are served."""
    for workload in blueprint.workloads:
        if workload.name == name:
            return workload
    raise _not_served("workload", name, [item.name for item in blueprint.workloads])


def require_deployment(blueprint: Blueprint, name: str) -> Deployment:
    """The served deployment of this name. Raises `NotFound` with the names that are served."""
    for deployment in blueprint.deployments:
        if deployment.name == name:
            return deployment
    raise _not_served("deployment", name, [item.name for item in blueprint.deployments])


def require_served(blueprint: Blueprint, workload: str | None, deployment: str | None) -> None:
    """Raise `NotFound` if a workload or deployment is named that is not served."""
    if workload is not None:
        require_workload(blueprint, workload)
    if deployment is not None:
        require_deployment(blueprint, deployment)


def undeclared_workload(name: str, declared: Iterable[str]) -> NotFound:
    """The error for a workload that is not declared."""
    return _unknown_name("workload", name, sorted(declared), "declared")


def _not_served(kind: str, name: str, served: list[str]) -> NotFound:
    return _unknown_name(kind, name, served, "served")


def _unknown_name(kind: str, name: str, known_names: list[str], how: str) -> NotFound:
    hint = f"{how.capitalize()} are: {', '.join(known_names) or 'none'}."
    if len(known_names) > _MAX_LISTED:
        suggestions = difflib.get_close_matches(name[:80], known_names, _MAX_SUGGESTIONS)
        hint = f"{len(known_names)} are {how}" + (f", among them {', '.join(suggestions)}." if suggestions else ".")
    return NotFound(f"no {kind} '{name[:80]}' is {how}", code=f"{kind}_unknown", hint=hint)


def needs_translation(blueprint: Blueprint, *, installed: bool) -> bool:
    """Whether the translation service is needed. Anthropic's Messages work without it, so deployments with that API do
    not require it where its library is not installed."""
    other_apis = {deployment.api for deployment in blueprint.deployments} - {"openai"}
    return bool(other_apis - {"anthropic"}) or (bool(other_apis) and installed)


def required_services(conn: Connection[Any]) -> tuple[str, ...]:
    """Sorted names of the local services that are needed now."""
    return local_services(current_or_none(conn), likeness=experiment_store.has_unjudged(conn))


def local_services(blueprint: Blueprint | None, *, likeness: bool = False) -> tuple[str, ...]:
    """Sorted names of the local services that a blueprint needs. `likeness`: a running experiment compares answers by
    their likeness, which the search service computes."""
    if blueprint is None:
        return ()
    names = {d.url.removeprefix(LOCAL) for d in blueprint.deployments if d.url.startswith(LOCAL)}
    if needs_translation(blueprint, installed=find_spec("any_llm") is not None):
        names |= {TRANSLATE}
    needs_search = likeness or blueprint.sources or any(map(_needs_search, blueprint.workloads))
    if needs_search or names & _SERVED_BY_SEARCH:
        names = (names - _SERVED_BY_SEARCH) | {SEARCH}
    return tuple(sorted(names))


def _needs_search(workload: Workload) -> bool:
    """Whether calls of a workload need the search service for more than passages: for the meaning of a question, the
    likeness of two answers, or what Presidio finds in a text."""
    cache, routing, guard, experiment = workload.cache, workload.routing, workload.guardrails, workload.experiment
    return (
        (cache is not None and cache.semantic is not None)
        or (routing is not None and routing.router is not None)
        or (guard is not None and bool(guard.presidio or guard.presidio_input))
        or (experiment is not None and experiment.type == SHADOW and experiment.judge is None)
    )
