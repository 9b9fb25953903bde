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
    the workload's `route_store.newest_answers` since then."""
    candidates = candidate_places(blueprint, workspace, workload)
    answers = [_answer(row) for row in rows]
    item = workspace.workloads.get(workload)
    alternatives = model_choice.compare_places(answers, candidates)
    savings = model_choice.routing_savings(answers, candidates) if answers else None
    return {
        "saved": None if savings is None else _saved(savings),
        "places": [_place(alternative) for alternative in alternatives],
        "quality": quality_floors(conn, item.objectives.quality if item is not None else {}, workload, since),
        "told": model_choice.describe_savings(savings, alternatives),
    }


def strongest_place(
    conn: Connection[Any], named: Sequence[model_choice.Place], workload: str, since: datetime
) -> model_choice.Place | None:
    """The best of the places that may take the workload's calls, by declared quality, else by price."""
    return model_choice.strongest_place(
        [_answer(row) for row in route_store.newest_answers(conn, workload, since)], named
    )


def quality_floors(
    conn: Connection[Any], declared: Mapping[str, float], workload: str, since: datetime
) -> list[dict[str, Any]]:
    """Each declared quality floor with the judgements of the workload's answers."""
    judged = route_store.judged_by_dimension(conn, workload, since, sorted(declared)) if declared else {}
    return [_floor(name, floor, judged.get(name, (0, 0))) for name, floor in sorted(declared.items())]


def candidate_places(blueprint: Blueprint, workspace: Workspace, workload: str) -> list[model_choice.Place]:
    """The deployments that the workload names, each with what bars it from calls."""
    declared = workspace.workloads.get(workload)
    served = next((item for item in blueprint.workloads if item.name == workload), None)
    placement = next((item for item in blueprint.placements if item.workload == workload), None)
    barred = dict(served.routing.barred) if served is not None and served.routing is not None else {}
    refused = (
        {option.deployment: ", ".join(option.reasons) for option in placement.alternatives if not option.allowed}
        if placement
        else {}
    )
    names = set(served.deployments if served else ())
    names |= set((*declared.deployments, *declared.fallbacks)) if declared else set()
    floors = declared.objectives.quality if declared is not None else {}
    places = []
    for deployment in blueprint.deployments:
        if deployment.name in names:
            model = workspace.models.get(deployment.model)
            scores = {score.task: score.score for score in model.quality if score.task in floors} if model else {}
            why = barred.get(deployment.name) or refused.get(deployment.name, "")
            places.append(model_choice.Place(deployment.name, deployment.model, deployment.rates, scores, why))
    return places


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


def _saved(savings: model_choice.RoutingSavings) -> dict[str, Any]:
    amounts = {"alone_usd": savings.alone, "cost_usd": savings.cost, "by_routing_usd": savings.by_routing,
               "by_cache_usd": savings.by_cache}  # fmt: skip
    amounts_usd = {name: format_usd(amount) for name, amount in amounts.items()}
    return {"strongest": savings.strongest, "answers": savings.answers, "cached": savings.cached, **amounts_usd}


def _place(alternative: model_choice.AlternativeCost) -> dict[str, Any]:
    place = alternative.place
    return {
        "deployment": place.name, "model": place.model, "scores": dict(place.scores), "barred": place.barred or None,
        "answers": alternative.answers, "alone_usd": format_usd(alternative.cost),
        "saves_usd": format_usd(alternative.saves),
    }  # fmt: skip


def _floor(name: str, floor: float, judgements: tuple[int, int]) -> dict[str, Any]:
    accepted, judged = judgements
    interval = share_interval(accepted, judged) if judged else None
    low, high = (interval.low, interval.high) if interval else (0.0, 1.0)
    result = model_choice.check_floor(name, floor, accepted / judged if judged else 0.0, low, high, judged)
    return {
        "dimension": result.dimension, "floor": result.floor, "judged": result.judged, "share": result.share,
        "low": result.low, "high": result.high, "kept": result.kept,
    }  # fmt: skip
