"""Reads the data behind a workload's choice of models from ledger, blueprint and workspace, for economics. Decides
nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from psycopg import Connection

from groundplan.blueprint.model import Blueprint
from groundplan.catalog.workspace import Workspace
from groundplan.core.money import format_usd, from_decimal
from groundplan.economics.levers import model_choice
from groundplan.economics.routing.watch.tradeoff import share_interval
from groundplan.ledger import route_store


def choice_json(
    conn: Connection[Any], blueprint: Blueprint, workspace: Workspace, workload: str, since: datetime,
    rows: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:  # fmt: skip
    """`saved` (null without answers), `places`, `quality` by dimension, and `told` (all of it in sentences). `rows`:
    the workload's `route_store.answers` since then."""
    named = candidate_places(blueprint, workspace, workload)
    answers = [_answer(row) for row in rows]
    item = workspace.workloads.get(workload)
    others = model_choice.compare_places(answers, named)
    found = model_choice.routing_savings(answers, named) if answers else None
    return {
        "saved": None if found is None else _saved(found),
        "places": [_place(each) for each in others],
        "quality": quality_floors(conn, item.objectives.quality if item is not None else {}, workload, since),
        "told": model_choice.describe_savings(found, others),
    }


def strongest_place(
    conn: Connection[Any], named: Sequence[model_choice.Place], workload: str, since: datetime
) -> model_choice.Place | None:
    """The best of the places that may take the workload's calls, by declared quality, else by price."""
    return model_choice.strongest_place([_answer(row) for row in route_store.answers(conn, workload, since)], named)


def quality_floors(
    conn: Connection[Any], declared: Mapping[str, float], workload: str, since: datetime
) -> list[dict[str, Any]]:
    """Each declared quality floor with the judgements of the workload's answers."""
    judged = route_store.judged_by_dimension(conn, workload, since, sorted(declared)) if declared else {}
    return [_floor(name, floor, judged.get(name, (0, 0))) for name, floor in sorted(declared.items())]


def candidate_places(blueprint: Blueprint, workspace: Workspace, workload: str) -> list[model_choice.Place]:
    """The deployments that the workload names, each with what bars it from calls."""
    item = workspace.workloads.get(workload)
    served = next((each for each in blueprint.workloads if each.name == workload), None)
    judged = next((each for each in blueprint.placements if each.workload == workload), None)
    barred = dict(served.routing.barred) if served is not None and served.routing is not None else {}
    refused = (
        {each.deployment: ", ".join(each.reasons) for each in judged.alternatives if not each.allowed} if judged else {}
    )
    names = set(served.deployments if served else ()) | (set((*item.deployments, *item.fallbacks)) if item else set())
    named = item.objectives.quality if item is not None else {}
    found = []
    for place in blueprint.deployments:
        if place.name in names:
            model = workspace.models.get(place.model)
            scores = {each.task: each.score for each in model.quality if each.task in named} if model else {}
            why = barred.get(place.name) or refused.get(place.name, "")
            found.append(model_choice.Place(place.name, place.model, place.rates, scores, why))
    return found


def _answer(row: Mapping[str, Any]) -> model_choice.Answer:
    parts: dict[str, list[int]] = row["parts"] or {}
    return model_choice.Answer(
        row["deployment"] or "",
        from_decimal(row["cost_usd"]),
        {name: int(count) for name, (count, _) in parts.items()},
        sum(int(amount) for _, amount in parts.values()),
        row["cached"],
        from_decimal(row["saved_usd"]),
        round(row["at"].timestamp() * 1000),
    )


def _saved(found: model_choice.RoutingSavings) -> dict[str, Any]:
    amounts = {"alone_usd": found.alone, "cost_usd": found.cost, "by_routing_usd": found.by_routing,
               "by_cache_usd": found.by_cache}  # fmt: skip
    told = {name: format_usd(amount) for name, amount in amounts.items()}
    return {"strongest": found.strongest, "answers": found.answers, "cached": found.cached, **told}


def _place(each: model_choice.AlternativeCost) -> dict[str, Any]:
    place = each.place
    return {
        "deployment": place.name, "model": place.model, "scores": dict(place.scores), "barred": place.barred or None,
        "answers": each.answers, "alone_usd": format_usd(each.cost), "saves_usd": format_usd(each.saves),
    }  # fmt: skip


def _floor(name: str, floor: float, said: tuple[int, int]) -> dict[str, Any]:
    accepted, judged = said
    interval = share_interval(accepted, judged) if judged else None
    low, high = (interval.low, interval.high) if interval else (0.0, 1.0)
    made = model_choice.check_floor(name, floor, accepted / judged if judged else 0.0, low, high, judged)
    return {
        "dimension": made.dimension, "floor": made.floor, "judged": made.judged, "share": made.share, "low": made.low,
        "high": made.high, "kept": made.kept,
    }  # fmt: skip
