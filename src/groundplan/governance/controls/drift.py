"""What management looks at: which controls are in another state than at the last look, and corrective actions. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from groundplan.governance.controls.model import Applied, Standing, State
from groundplan.ledger.finding import Finding

ACTION = "governance.corrective_action"
Assessed = Mapping[str, Sequence[Standing]]
"""By workload."""


@dataclass(frozen=True, slots=True)
class Moved:
    """A control of a workload that is in another state than it was."""

    framework: str
    control: str
    title: str
    workload: str
    before: State
    now: State
    hint: str
    """What to do where it is not satisfied."""


def drift(applied: Applied, was: Assessed, is_: Assessed) -> list[Moved]:
    """By today's framework, what differs between two moments; `was` and `is_` are what `assess` found of them."""
    return [
        Moved(
            applied.framework.name, new.control.id, new.control.title, workload, old.state, new.state, _hint(new)
        )
        for workload in applied.workloads
        for old, new in zip(was[workload], is_[workload], strict=True)
        if old.state != new.state
    ]  # fmt: skip


def _hint(standing: Standing) -> str:
    return next((each.hint for each in standing.shown if each.hint), "")


def action(subject: str, says: str, control: str, owner: str, due: date, mark: str, today: date) -> Finding:
    """What somebody is to put right until a day: high from the day after it on, so that controls which need no grave
    findings open. It ends when somebody says that it is done."""
    late = due < today
    about = f"{control}: {says}" if control else says
    return Finding(
        kind=ACTION, subject=subject, mark=mark, severity="high" if late else "medium", owner=owner, due=due,
        message=f"{about} (was due on {due})" if late else about,
        hint="Do it, then settle it here and say what was done.",
        detail={"says": says, "control": control},
    )  # fmt: skip
