"""Rules for experiments and replays of a workload, and for the deployments that they name."""

from __future__ import annotations

from collections.abc import Iterator

from groundplan.catalog.workload import WorkloadDoc
from groundplan.catalog.workspace import Workspace
from groundplan.core.errors import Problem, Where


def experiment_problems(workspace: Workspace, doc: WorkloadDoc) -> Iterator[Problem]:
    """Candidates and judges that the workload may not use, and settings whose results prove nothing."""
    rule, replay = doc.experiment, doc.replay
    if rule is not None:
        where = workspace.where("workload", doc.name, "experiment")
        yield from _deployment_problems(workspace, doc, f"experiment {rule.name}", (rule.candidate, rule.judge), where)
        if doc.deployments and rule.candidate == doc.deployments[0]:
            hint = "Name another candidate: it would be compared with itself."
            message = f"experiment {rule.name} tries {rule.candidate}, which answers anyway"
            yield Problem(message, "experiment_primary", hint, where)
        if rule.type == "ab" and rule.judge is not None:
            hint = "Leave judge out: what callers report (`POST /api/outcomes`) decides."
            yield Problem(f"experiment {rule.name} shows one answer only", "experiment_judge", hint, where)
        if rule.judge is not None and rule.judge == rule.candidate:
            hint = "Let another deployment judge."
            yield Problem(f"{rule.candidate} would judge itself", "experiment_judge", hint, where)
    if replay is not None:
        where = workspace.where("workload", doc.name, "replay")
        yield from _deployment_problems(workspace, doc, "replay", (*replay.candidates, replay.judge), where)
        if replay.judge in replay.candidates:
            yield Problem(f"{replay.judge} would judge itself", "replay_judge", "Let another one judge.", where)
        if doc.keep.content == "none":
            hint = "Write `keep: {content: redacted}`: only calls that were kept can be replayed."
            yield Problem(f"workload {doc.name} replays calls and keeps none", "replay_nothing_kept", hint, where)


def _deployment_problems(
    workspace: Workspace, doc: WorkloadDoc, label: str, names: tuple[str | None, ...], where: Where
) -> Iterator[Problem]:
    usable = {*doc.deployments, *doc.fallbacks}
    for name in names:
        if name is None:
            continue
        if name not in workspace.deployments:
            hint = f"Use one of: {', '.join(sorted(usable or workspace.deployments))}."
            yield Problem(f"{label} names {name}, which is no deployment", "experiment_unknown", hint, where)
        elif doc.deployments and name not in usable:
            hint = f"Name {name} among the workload's deployments or fallbacks, so that every rule holds for it."
            yield Problem(f"{label} names {name}, which {doc.name} may not use", "experiment_outside", hint, where)
