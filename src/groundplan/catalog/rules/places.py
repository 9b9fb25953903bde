"""Rules about what placement is told: names that exist, shares that add up, objectives that do not contradict. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from groundplan.catalog.model import WorkloadDoc
from groundplan.catalog.workspace import Workspace
from groundplan.core.errors import Problem, Where


def placement_problems(workspace: Workspace) -> Iterator[Problem]:
    """Everything that is wrong with what placement would read."""
    for name, doc in workspace.workloads.items():
        yield from _names(workspace, name, doc)
        yield from _figures(workspace, name, doc)
    for name, model in workspace.models.items():
        for at, site in enumerate(model.weights.at):
            if site not in workspace.sites:
                yield _unknown("site", site, workspace.where("model", name, "weights", "at", at), "unknown_site")
        if (model.weights.active or 0) > (model.weights.total or model.weights.active or 0):
            yield Problem(
                f"model {name} has more active parameters than parameters",
                "weights_active",
                "active is the part of total that one token uses.",
                workspace.where("model", name, "weights", "active"),
            )
    for name, item in workspace.deployments.items():
        site_doc = workspace.sites.get(item.site)
        wanted = item.hosted.hardware
        if wanted and site_doc is not None and wanted not in {each.type for each in site_doc.hosting.hardware}:
            yield Problem(
                f"deployment {name} runs on {wanted}, and its site {item.site} declares none",
                "hosted_hardware",
                f"Declare it under hosting.hardware of {item.site}, or leave hosted.hardware out.",
                workspace.where("deployment", name, "hosted", "hardware"),
            )


def _names(workspace: Workspace, name: str, doc: WorkloadDoc) -> Iterator[Problem]:
    rule = doc.placement
    for key, site in (("today", rule.today), ("data", rule.data.site if rule.data else None)):
        if site is not None and site not in workspace.sites:
            path = ("placement", key, "site") if key == "data" else ("placement", key)
            yield _unknown("site", site, workspace.where("workload", name, *path), "unknown_site")
    for at, model in enumerate(rule.models):
        if model not in workspace.models:
            yield _unknown(
                "model", model, workspace.where("workload", name, "placement", "models", at), "unknown_model"
            )


def _figures(workspace: Workspace, name: str, doc: WorkloadDoc) -> Iterator[Problem]:
    rule = doc.placement
    total = sum(rule.users.values())
    if rule.users and not 0.99 <= total <= 1.01:
        yield Problem(
            f"the users of {name} are {100 * total:.4g}% in all",
            "users_share",
            "The shares of all regions add up to 100%.",
            workspace.where("workload", name, "placement", "users"),
        )
    aims = doc.objectives
    if aims.first_token is not None and aims.complete is not None and aims.complete < aims.first_token:
        yield Problem(
            f"{name} has to be complete before its first token",
            "objectives_contradict",
            "objectives.complete is at least objectives.first_token.",
            workspace.where("workload", name, "objectives", "complete"),
        )
    if rule.ramp is not None and doc.reliability.balance != "ordered":
        yield Problem(
            f"{name} shares its calls by {doc.reliability.balance}, so that no step of a ramp would hold",
            "ramp_balance",
            "Leave placement.ramp out, or write reliability: {balance: ordered}.",
            workspace.where("workload", name, "placement", "ramp"),
        )
    if rule.offline and doc.sources and rule.data is None:
        yield Problem(
            f"{name} must go on offline, and where its data lies is not said",
            "offline_data",
            "Write placement.data.site: the site whose connection may fail.",
            workspace.where("workload", name, "placement", "offline"),
        )


def _unknown(kind: str, name: str, where: Where, code: str) -> Problem:
    return Problem(f"{kind} {name} is not declared", code, f"Declare it as kind: {kind}, or mend the name.", where)
