"""Rules for the search index between documents: whose deployment embeds, and whether it may see the sources."""

from __future__ import annotations

from collections.abc import Iterator

from groundplan.catalog.levels import SERVED_STAGES, sensitivity_rank
from groundplan.catalog.workspace import Workspace
from groundplan.core.errors import Problem


def index(workspace: Workspace, broken: frozenset[tuple[str, str]]) -> Iterator[Problem]:
    """The embedding names a served workload that has the deployment, and that may see every source."""
    company = workspace.company
    rule = company.index.embedding
    if rule is None:
        return
    place = ("index", "embedding")
    where = workspace.where("company", company.name, *place, "workload")
    workload = workspace.workloads.get(rule.workload)
    if workload is None:
        if ("workload", rule.workload) not in broken:
            hint = "Declare a workload for embeddings, with a budget, and name it here."
            yield Problem(f"workload {rule.workload} is not declared", "unknown_workload", hint, where)
        return
    if workload.stage not in SERVED_STAGES:
        yield Problem(
            f"workload {workload.name} is not served at stage {workload.stage}",
            "index_workload",
            f"Nothing is embedded for it: choose one of {', '.join(SERVED_STAGES)}.",
            where,
        )
    if rule.deployment not in workload.embeddings:
        yield Problem(
            f"{rule.deployment} is not among the embeddings of {workload.name}",
            "index_deployment",
            f"Name it there: embeddings: [{rule.deployment}].",
            workspace.where("company", company.name, *place, "deployment"),
        )
    for source in workspace.sources.values():
        if sensitivity_rank(source.sensitivity) > sensitivity_rank(workload.sensitivity):
            yield Problem(
                f"source {source.name} is {source.sensitivity}, and its texts would go to {workload.name}, which may "
                f"see {workload.sensitivity} only",
                "source_too_sensitive",
                f"Raise the workload to sensitivity: {source.sensitivity}, so that only what may hold it embeds.",
                where,
            )
