"""What follows when an owner has left and the time to name another is over: the workload changes no more before one is
named. Pure. Nothing that is served stops; taking a workload out is always possible.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date

from groundplan.blueprint import model as bp
from groundplan.catalog.workspace import Workspace
from groundplan.core.errors import Problem
from groundplan.release import units

Left = Mapping[str, date]
"""E-mail address of everybody who has left -> the last day to name somebody else."""


def overdue(
    workspace: Workspace, draft: bp.Blueprint, served: bp.Blueprint | None, left: Left, today: date
) -> list[Problem]:
    """A refusal for each duty whose owners are gone for too long, of each workload that would change without naming
    another."""
    if served is None or not left:
        return []
    before = {item.name: item for item in served.workloads}
    return [
        Problem(
            f"{', '.join(old.owners[duty])} has left, and nobody else was named for {duty} by {_last(old, duty, left)}",
            "owner_overdue",
            f"It goes on serving, but changes only together with a new owner: owners: {{{duty}: NAME@HOST}}.",
            workspace.where("workload", workload.name, "owners"),
        )
        for workload in draft.workloads
        if (old := before.get(workload.name)) is not None
        for duty in _unanswered(old, workload, left, today)
        if units.workload_digest(served, old) != units.workload_digest(draft, workload)
    ]


def _unanswered(old: bp.Workload, new: bp.Workload, left: Left, today: date) -> Iterator[str]:
    for duty, people in sorted(old.owners.items()):
        gone = bool(people) and all(person in left for person in people)
        if gone and _last(old, duty, left) < today and all(person in left for person in new.owners.get(duty, ())):
            yield duty


def _last(workload: bp.Workload, duty: str, left: Left) -> date:
    """Counted from whoever left last."""
    return max(left[person] for person in workload.owners[duty])
