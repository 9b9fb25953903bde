"""For the management review: controls whose state has changed since the last one, and corrective actions. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from groundplan.governance.controls.model import AppliedFramework, ControlStatus, State
from groundplan.ledger.finding import Finding

ACTION = "governance.corrective_action"
Assessed = Mapping[str, Sequence[ControlStatus]]
"""By workload."""


@dataclass(frozen=True, slots=True)
class ControlChange:
    """A control of a workload whose state has changed."""

    framework: str
    control: str
    title: str
    workload: str
    before: State
    now: State
    hint: str
    """What to do if it is not satisfied."""


def drift(applied: AppliedFramework, before: Assessed, now: Assessed) -> list[ControlChange]:
    """Controls of today's framework whose state differs between two results of `assess`."""
    return [
        ControlChange(
            applied.framework.name, new.control.id, new.control.title, workload, old.state, new.state, _hint(new)
        )
        for workload in applied.workloads
        for old, new in zip(before[workload], now[workload], strict=True)
        if old.state != new.state
    ]  # fmt: skip


def _hint(status: ControlStatus) -> str:
    return next((each.hint for each in status.shown if each.hint), "")


def corrective_action(subject: str, says: str, control: str, owner: str, due: date, mark: str, today: date) -> Finding:
    """The finding of a corrective action with its due day. Its severity becomes high when it is overdue, so that
    controls that need `findings.none_critical` open. It ends when somebody settles it."""
    late = due < today
    about = f"{control}: {says}" if control else says
    return Finding(
        kind=ACTION, subject=subject, mark=mark, severity="high" if late else "medium", owner=owner, due=due,
        message=f"{about} (was due on {due})" if late else about,
        hint="Do it, then settle it here and say what was done.",
        detail={"says": says, "control": control},
    )  # fmt: skip
