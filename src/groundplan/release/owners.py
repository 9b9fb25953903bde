"""Refusals for workloads whose owner has left: once the time to name a successor is over, the workload changes only
together with a new owner. Pure. Nothing that is served stops; taking a workload out is always possible.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date

from groundplan.blueprint import model as bp
from groundplan.catalog.workspace import Workspace
from groundplan.core.errors import Problem
from groundplan.release import units

SuccessionDeadlines = Mapping[str, date]
"""E-mail address of everybody who has left -> the last day to name a successor."""


def overdue_owners(
    workspace: Workspace, draft: bp.Blueprint, served: bp.Blueprint | None, departed: SuccessionDeadlines, today: date
) -> list[Problem]:
    """A refusal for each duty whose owners have all left and whose deadline is over, of each workload that would change
    without naming a new owner."""
    if served is None or not departed:
        return []
    before = {item.name: item for item in served.workloads}
    return [
        Problem(
            f"{', '.join(old.owners[duty])} has left, and nobody else was named for {duty} "
            f"by {_succession_deadline(old, duty, departed)}",
            "owner_overdue",
            f"It goes on serving, but changes only together with a new owner: owners: {{{duty}: NAME@HOST}}.",
            workspace.where("workload", workload.name, "owners"),
        )
        for workload in draft.workloads
        if (old := before.get(workload.name)) is not None
        for duty in _overdue_duties(old, workload, departed, today)
        if units.workload_digest(served, old) != units.workload_digest(draft, workload)
    ]


def _overdue_duties(old: bp.Workload, new: bp.Workload, departed: SuccessionDeadlines, today: date) -> Iterator[str]:
    for duty, people in sorted(old.owners.items()):
        have_all_left = bool(people) and all(person in departed for person in people)
        if (
            have_all_left
            and _succession_deadline(old, duty, departed) < today
            and all(person in departed for person in new.owners.get(duty, ()))
        ):
            yield duty


def _succession_deadline(workload: bp.Workload, duty: str, departed: SuccessionDeadlines) -> date:
    """The last day to name a successor, counted from the owner who left last."""
    return max(departed[person] for person in workload.owners[duty])
