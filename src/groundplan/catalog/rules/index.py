"""Rules for the search index between documents: whose deployments embed and rerank, and whether they may see it all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from groundplan.catalog.index import RerankRule
from groundplan.catalog.levels import SERVED_STAGES, sensitivity_rank
from groundplan.catalog.model import WorkloadDoc
from groundplan.catalog.workspace import Workspace, satisfies_residency
from groundplan.core.errors import Problem

Broken = frozenset[tuple[str, str]]
Place = tuple[str, ...]
_LISTS = {"embeddings": "embeddings", "also": "further deployments (also)"}


def reranker(workspace: Workspace, workload: WorkloadDoc) -> RerankRule | None:
    """Who puts passages in order for a workload."""
    own = workload.grounding.rerank
    if not workload.sources or own is False:
        return None
    return own or workspace.company.index.rerank


def index_problems(workspace: Workspace, broken: Broken) -> Iterator[Problem]:
    """What embeds and reranks is a served workload that has the deployment and may see what it is sent."""
    company = workspace.company
    at_index: Place = ("company", company.name, "index")
    embedding, rerank = company.index.embedding, company.index.rerank
    if embedding is not None:
        place: Place = (*at_index, "embedding")
        yield from _asked(workspace, broken, embedding.workload, embedding.deployment, "embeddings", place)
        yield from _sources(workspace, embedding.workload, (*place, "workload"))
    if rerank is not None:
        yield from _asked(workspace, broken, rerank.workload, rerank.deployment, "also", (*at_index, "rerank"))
    for workload in workspace.workloads.values():
        place = ("workload", workload.name)
        own = workload.grounding.rerank
        if own:
            yield from _asked(workspace, broken, own.workload, own.deployment, "also", (*place, "grounding", "rerank"))
        if not workload.sources or workload.stage not in SERVED_STAGES:
            continue
        if embedding is not None:
            yield from _sent(workspace, workload, embedding.workload, _EMBEDDED, (*place, "sources"))
        if (found := reranker(workspace, workload)) is not None:
            at = (*place, "grounding", "rerank") if own else (*place, "sources")
            yield from _sent(workspace, workload, found.workload, _RERANKED, at)


def _asked(
    workspace: Workspace, broken: Broken, name: str, deployment: str, among: str, place: Place
) -> Iterator[Problem]:
    """The workload is served and names the deployment, which is one of its kind."""
    where = workspace.where(*place, "workload")
    workload = workspace.workloads.get(name)
    if workload is None:
        if ("workload", name) not in broken:
            hint = "Declare a workload for these calls, with a budget, and name it here."
            yield Problem(f"workload {name} is not declared", "unknown_workload", hint, where)
        return
    if workload.stage not in SERVED_STAGES:
        yield Problem(
            f"workload {workload.name} is not served at stage {workload.stage}",
            "index_workload",
            f"Nothing is asked for it: choose one of {', '.join(SERVED_STAGES)}.",
            where,
        )
    place = (*place, "deployment")
    if deployment not in getattr(workload, among):
        yield Problem(
            f"{deployment} is not among the {_LISTS[among]} of {workload.name}",
            "index_deployment",
            f"Name it there: {among}: [{deployment}].",
            workspace.where(*place),
        )
    known = workspace.deployments.get(deployment)
    if among == "also" and known is not None and known.type != "rerank":
        yield Problem(
            f"{deployment} is of type {known.type} and puts nothing in order",
            "index_deployment",
            "Name a deployment with type: rerank.",
            workspace.where(*place),
        )


def _inside(residency: Sequence[str], allowed: tuple[str, ...]) -> bool:
    """Whether whoever runs in `residency` runs in what is `allowed` alone."""
    return bool(residency) and all(satisfies_residency(each, allowed) for each in residency)


def _sources(workspace: Workspace, name: str, place: Place) -> Iterator[Problem]:
    """What embeds may see every source."""
    workload = workspace.workloads.get(name)
    for source in workspace.sources.values():
        if workload is not None and sensitivity_rank(source.sensitivity) > sensitivity_rank(workload.sensitivity):
            yield Problem(
                f"source {source.name} is {source.sensitivity}, and its texts would go to {workload.name}, which may "
                f"see {workload.sensitivity} only",
                "source_too_sensitive",
                f"Raise the workload to sensitivity: {source.sensitivity}, so that only what may hold it embeds.",
                workspace.where(*place),
            )
        allowed = source.governed.residency
        if workload is not None and allowed and not _inside(workload.residency, allowed):
            yield Problem(
                f"source {source.name} may be processed in {', '.join(allowed)} only, and its texts would go to "
                f"{workload.name}, which may run elsewhere",
                "source_residency",
                f"Declare residency: [{', '.join(allowed)}] for {workload.name}.",
                workspace.where(*place),
            )


@dataclass(frozen=True, slots=True)
class _Sent:
    """What of a workload is sent to another one."""

    code: str
    what: str
    done: str
    """What becomes of it there."""
    otherwise: str = ""
    """What else than declaring the other one differently would do."""


_RERANKED = _Sent("rerank", "passages", "put in order", ", or say grounding: {rerank: false}")
_EMBEDDED = _Sent("embedding", "questions", "embedded")


def _sent(workspace: Workspace, workload: WorkloadDoc, name: str, sent: _Sent, place: Place) -> Iterator[Problem]:
    """The other one may see what that one sees, and only where it may be seen."""
    other = workspace.workloads.get(name)
    if other is None:
        return
    if sensitivity_rank(workload.sensitivity) > sensitivity_rank(other.sensitivity):
        yield Problem(
            f"{sent.what} of {workload.name}, which are {workload.sensitivity}, would be {sent.done} by {other.name}, "
            f"which may see {other.sensitivity} only",
            f"{sent.code}_sensitivity",
            f"Raise {other.name} to sensitivity: {workload.sensitivity}{sent.otherwise}.",
            workspace.where(*place),
        )
    if workload.residency and not _inside(other.residency, workload.residency):
        allowed = ", ".join(sorted(workload.residency))
        yield Problem(
            f"{sent.what} of {workload.name} stay in {allowed}, and would be {sent.done} by {other.name}, which may "
            f"run {'in ' + ', '.join(sorted(other.residency)) if other.residency else 'anywhere'}",
            f"{sent.code}_residency",
            f"Declare residency: [{allowed}] for {other.name}{sent.otherwise}.",
            workspace.where(*place),
        )
