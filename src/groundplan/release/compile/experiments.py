"""Compiles the experiments and replays of a workload. Pure."""

from __future__ import annotations

from groundplan.blueprint.experiment import DeclaredExperiment, Replay
from groundplan.catalog import model as doc

TOLERANCE = {"ab": 0.02, "shadow": 0.1}
"""by how much a candidate may be worse, unless declared"""


def compile_experiment(item: doc.WorkloadDoc) -> DeclaredExperiment | None:
    """The workload's experiment; None without one."""
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


def compile_replay(item: doc.WorkloadDoc) -> Replay | None:
    """The workload's replay; None where kept calls are replayed on request only."""
    rule = item.replay
    if rule is None:
        return None
    return Replay(candidates=list(rule.candidates), judge=rule.judge, budget=rule.budget, calls=rule.calls)
