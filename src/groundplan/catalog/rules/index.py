"""Rules for the search index: which workloads embed and rerank, and whether they may see the texts that they get."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from groundplan.catalog.index import RerankRule
from groundplan.catalog.levels import SERVED_STAGES, sensitivity_rank
from groundplan.catalog.model import WorkloadDoc
from groundplan.catalog.workspace import Workspace, satisfies_residency
from groundplan.core.errors import Problem

Broken = frozenset[tuple[str, str]]
Path = tuple[str, ...]
_FIELD_TITLES = {"embeddings": "embeddings", "also": "further deployments (also)"}


def rerank_rule(workspace: Workspace, workload: WorkloadDoc) -> RerankRule | None:
    """The rule by which passages of a workload are reranked: its own or the company's; None if they are not."""
    own_rule = workload.grounding.rerank
    if not workload.sources or own_rule is False:
        return None
    return own_rule or workspace.company.index.rerank


def index_problems(workspace: Workspace, broken: Broken) -> Iterator[Problem]:
    """Problems of the workloads that embed and rerank: each must be served, have the named deployment, and be allowed
    to see the texts that it gets."""
    company = workspace.company
    index_path: Path = ("company", company.name, "index")
    embedding, rerank = company.index.embedding, company.index.rerank
    if embedding is not None:
        path: Path = (*index_path, "embedding")
        yield from _workload_problems(workspace, broken, embedding.workload, embedding.deployment, "embeddings", path)
        yield from _source_problems(workspace, embedding.workload, (*path, "workload"))
    if rerank is not None:
        yield from _workload_problems(
            workspace, broken, rerank.workload, rerank.deployment, "also", (*index_path, "rerank")
        )
    for workload in workspace.workloads.values():
        path = ("workload", workload.name)
        own_rule = workload.grounding.rerank
        if own_rule:
            yield from _workload_problems(
                workspace, broken, own_rule.workload, own_rule.deployment, "also", (*path, "grounding", "rerank")
            )
        if not workload.sources or workload.stage not in SERVED_STAGES:
            continue
        if embedding is not None:
            yield from _transfer_problems(
                workspace, workload, embedding.workload, _EMBEDDING_TRANSFER, (*path, "sources")
            )
        if (rule := rerank_rule(workspace, workload)) is not None:
            problem_path = (*path, "grounding", "rerank") if own_rule else (*path, "sources")
            yield from _transfer_problems(workspace, workload, rule.workload, _RERANK_TRANSFER, problem_path)


def _workload_problems(
    workspace: Workspace, broken: Broken, name: str, deployment: str, field: str, path: Path
) -> Iterator[Problem]:
    """Problems of the workload `name`, at `path` in the index rules: it must be declared and served, and `field` of it
    must name the deployment, which must be of the right type."""
    where = workspace.where(*path, "workload")
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
    path = (*path, "deployment")
    if deployment not in getattr(workload, field):
        yield Problem(
            f"{deployment} is not among the {_FIELD_TITLES[field]} of {workload.name}",
            "index_deployment",
            f"Name it there: {field}: [{deployment}].",
            workspace.where(*path),
        )
    declared = workspace.deployments.get(deployment)
    if field == "also" and declared is not None and declared.type != "rerank":
        yield Problem(
            f"{deployment} is of type {declared.type} and puts nothing in order",
            "index_deployment",
            "Name a deployment with type: rerank.",
            workspace.where(*path),
        )


def _stays_inside(residency: Sequence[str], allowed: tuple[str, ...]) -> bool:
    """Whether a workload with this `residency` runs only in `allowed` jurisdictions."""
    return bool(residency) and all(satisfies_residency(each, allowed) for each in residency)


def _source_problems(workspace: Workspace, name: str, path: Path) -> Iterator[Problem]:
    """Sources that the embedding workload may not see."""
    workload = workspace.workloads.get(name)
    for source in workspace.sources.values():
        if workload is not None and sensitivity_rank(source.sensitivity) > sensitivity_rank(workload.sensitivity):
            yield Problem(
                f"source {source.name} is {source.sensitivity}, and its texts would go to {workload.name}, which may "
                f"see {workload.sensitivity} only",
                "source_too_sensitive",
                f"Raise the workload to sensitivity: {source.sensitivity}, so that only what may hold it embeds.",
                workspace.where(*path),
            )
        allowed = source.governed.residency
        if workload is not None and allowed and not _stays_inside(workload.residency, allowed):
            yield Problem(
                f"source {source.name} may be processed in {', '.join(allowed)} only, and its texts would go to "
                f"{workload.name}, which may run elsewhere",
                "source_residency",
                f"Declare residency: [{', '.join(allowed)}] for {workload.name}.",
                workspace.where(*path),
            )


@dataclass(frozen=True, slots=True)
class _Transfer:
    """Texts of a workload that are sent to another one, as named in problems."""

    code: str
    content: str
    action: str
    """What the receiver does with them, as a past participle."""
    alternative: str = ""
    """Alternative to changing the receiver's declaration."""


_RERANK_TRANSFER = _Transfer("rerank", "passages", "put in order", ", or say grounding: {rerank: false}")
_EMBEDDING_TRANSFER = _Transfer("embedding", "questions", "embedded")


def _transfer_problems(
    workspace: Workspace, workload: WorkloadDoc, name: str, transfer: _Transfer, path: Path
) -> Iterator[Problem]:
    """Problems if the receiver may not see texts of `workload`, or may run outside its residency."""
    receiver = workspace.workloads.get(name)
    if receiver is None:
        return
    if sensitivity_rank(workload.sensitivity) > sensitivity_rank(receiver.sensitivity):
        yield Problem(
            f"{transfer.content} of {workload.name}, which are {workload.sensitivity}, would be {transfer.action} by "
            f"{receiver.name}, which may see {receiver.sensitivity} only",
            f"{transfer.code}_sensitivity",
            f"Raise {receiver.name} to sensitivity: {workload.sensitivity}{transfer.alternative}.",
            workspace.where(*path),
        )
    if workload.residency and not _stays_inside(receiver.residency, workload.residency):
        allowed = ", ".join(sorted(workload.residency))
        yield Problem(
            f"{transfer.content} of {workload.name} stay in {allowed}, and would be {transfer.action} by "
            f"{receiver.name}, which may run "
            f"{'in ' + ', '.join(sorted(receiver.residency)) if receiver.residency else 'anywhere'}",
            f"{transfer.code}_residency",
            f"Declare residency: [{allowed}] for {receiver.name}{transfer.alternative}.",
            workspace.where(*path),
        )
