"""Ramps: a workload moves to another primary deployment in steps. Where a ramp begins, and its next step. Pure.

Each step is a blueprint of its own, so that it is numbered and signed and can be undone. Nothing here waits or reads
results of calls: the time and the failing deployments are arguments. Going back to the origin is never in steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

import msgspec

from groundplan.blueprint import model as bp
from groundplan.catalog import model as doc


def with_ramp(
    item: doc.WorkloadDoc, placement: bp.Placement, current: bp.Blueprint | None, at_once: str | None = None
) -> bp.Placement:
    """The placement with its ramp: a running ramp continues, and a new primary begins one where ramps are declared and
    the old primary may still serve. `at_once`: why the old primary cannot take the rest of the calls, if so."""
    rule, to = item.placement.ramp, placement.primary
    served = next((each for each in current.workloads if each.name == item.name), None) if current else None
    if rule is None or to is None or served is None or current is None:
        return placement
    under_way = next((each.ramp for each in current.placements if each.workload == item.name), None)
    if under_way is not None and under_way.to == to:
        return msgspec.structs.replace(placement, ramp=under_way if under_way.origin in placement.fallbacks else None)
    origin = next(iter(served.deployments), None)
    if origin not in placement.fallbacks or (under_way is not None and under_way.origin == to):
        return placement
    if at_once is not None:
        return msgspec.structs.replace(placement, binding=f"{placement.binding}; all calls go at once: {at_once}")
    first, *rest = (round(100 * each) for each in rule.steps)
    ramp = bp.Ramp(origin=origin, to=to, share=first, steps=rest, every_s=rule.every // 1000)
    return msgspec.structs.replace(placement, ramp=ramp)


def active_ramps(blueprint: bp.Blueprint) -> dict[str, bp.Ramp]:
    """Served workload -> its running ramp."""
    served = {each.name for each in blueprint.workloads}
    return {each.workload: each.ramp for each in blueprint.placements if each.ramp and each.workload in served}


def step_starts(wanted: Mapping[str, bp.Ramp], history: Iterable[tuple[bp.Blueprint, datetime]]) -> dict[str, datetime]:
    """Workload -> since when its present step has been served without a break; `history`: blueprints, newest first."""
    found: dict[str, datetime] = {}
    open_ = set(wanted)
    for blueprint, at in history:
        there = active_ramps(blueprint)
        open_ = {name for name in open_ if there.get(name) == wanted[name]}
        if not open_:
            break
        found |= dict.fromkeys(open_, at)
    return found


def advance_steps(
    blueprint: bp.Blueprint, begins: Mapping[str, datetime], now: datetime, unhealthy: frozenset[str] = frozenset()
) -> tuple[bp.Blueprint, list[str]]:
    """(the blueprint with every step that is over replaced by the next one, sentences on what changed). A ramp to an
    `unhealthy` deployment stays at its step."""
    changes: list[str] = []
    placements: list[bp.Placement] = []
    for each in blueprint.placements:
        ramp = each.ramp
        begin = begins.get(each.workload)
        if ramp is None or begin is None or now < begin + timedelta(seconds=ramp.every_s) or ramp.to in unhealthy:
            placements.append(each)
            continue
        after = msgspec.structs.replace(ramp, share=ramp.steps[0], steps=ramp.steps[1:]) if ramp.steps else None
        share = after.share if after else 100
        changes.append(f"{share}% of the calls of {each.workload} go to {ramp.to}")
        placements.append(msgspec.structs.replace(each, ramp=after))
    return msgspec.structs.replace(blueprint, placements=placements), changes
