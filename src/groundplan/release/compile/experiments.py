"""What a workload declares to be tried (experiments, replays), as it is in a blueprint. Pure."""

from __future__ import annotations

from groundplan.blueprint.experiment import DeclaredExperiment, Replay
from groundplan.catalog import model as doc

TOLERANCE = {"ab": 0.02, "shadow": 0.1}
"""How much worse a candidate may be, where nothing is said."""


def experiment(item: doc.WorkloadDoc) -> DeclaredExperiment | None:
    """None where nothing is tried."""
    rule = item.experiment
    if rule is None:
        return None
    return DeclaredExperiment(
        name=rule.name,
        type=rule.type,
        candidate=rule.candidate,
        judge=rule.judge,
        share=max(1, round(rule.share * 10_000)),
        split=rule.by,
        tolerance=TOLERANCE[rule.type] if rule.tolerance is None else rule.tolerance,
        guard_tolerance=rule.guard_tolerance,
        budget=rule.budget,
        until=rule.until.isoformat() if rule.until else None,
    )


def replay(item: doc.WorkloadDoc) -> Replay | None:
    """None where kept calls are replayed only when somebody asks."""
    rule = item.replay
    if rule is None:
        return None
    return Replay(candidates=list(rule.candidates), judge=rule.judge, budget=rule.budget, calls=rule.calls)
