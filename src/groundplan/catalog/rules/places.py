"""Rules for the inputs of placement: names must exist, shares add up, objectives not contradict each other. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from groundplan.catalog.model import WorkloadDoc
from groundplan.catalog.workspace import Workspace
from groundplan.core.errors import Problem, Where


def placement_problems(workspace: Workspace) -> Iterator[Problem]:
    """Problems of all inputs of placement."""
    for name, doc in workspace.workloads.items():
        yield from _unknown_name_problems(workspace, name, doc)
        yield from _figure_problems(workspace, name, doc)
    for name, model in workspace.models.items():
        for index, site in enumerate(model.weights.at):
            if site not in workspace.sites:
                yield _unknown_problem(
                    "site", site, workspace.where("model", name, "weights", "at", index), "unknown_site"
                )
        if (model.weights.active or 0) > (model.weights.total or model.weights.active or 0):
            yield Problem(
                f"model {name} has more active parameters than parameters",
                "weights_active",
                "active is the part of total that one token uses.",
                workspace.where("model", name, "weights", "active"),
            )
    for name, item in workspace.deployments.items():
        site_doc = workspace.sites.get(item.site)
        hardware = item.hosted.hardware
        if hardware and site_doc is not None and hardware not in {each.type for each in site_doc.hosting.hardware}:
            yield Problem(
                f"deployment {name} runs on {hardware}, and its site {item.site} declares none",
                "hosted_hardware",
                f"Declare it under hosting.hardware of {item.site}, or leave hosted.hardware out.",
                workspace.where("deployment", name, "hosted", "hardware"),
            )


def _unknown_name_problems(workspace: Workspace, name: str, doc: WorkloadDoc) -> Iterator[Problem]:
    rule = doc.placement
    for key, site in (("today", rule.today), ("data", rule.data.site if rule.data else None)):
        if site is not None and site not in workspace.sites:
            path = ("placement", key, "site") if key == "data" else ("placement", key)
            yield _unknown_problem("site", site, workspace.where("workload", name, *path), "unknown_site")
    for index, model in enumerate(rule.models):
        if model not in workspace.models:
            yield _unknown_problem(
                "model", model, workspace.where("workload", name, "placement", "models", index), "unknown_model"
            )


def _figure_problems(workspace: Workspace, name: str, doc: WorkloadDoc) -> Iterator[Problem]:
    rule = doc.placement
    total = sum(rule.users.values())
    if rule.users and not 0.99 <= total <= 1.01:
        yield Problem(
            f"the users of {name} are {100 * total:.4g}% in all",
            "users_share",
            "The shares of all regions add up to 100%.",
            workspace.where("workload", name, "placement", "users"),
        )
    objectives = doc.objectives
    if (
        objectives.first_token is not None
        and objectives.complete is not None
        and objectives.complete < objectives.first_token
    ):
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


def _unknown_problem(kind: str, name: str, where: Where, code: str) -> Problem:
    return Problem(f"{kind} {name} is not declared", code, f"Declare it as kind: {kind}, or mend the name.", where)
