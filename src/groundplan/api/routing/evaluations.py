"""Evaluations of routers for people who approve a change of routing: results of the new router on held-out prompts,
the present router, and the workload's quality floors. Decides nothing.

Figures are read from the router's own file, which its digest covers.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from psycopg import Connection

from groundplan.api import served_blueprint
from groundplan.api.context import Services
from groundplan.api.routing import choices
from groundplan.catalog.loader import load_served
from groundplan.catalog.workload import WorkloadDoc
from groundplan.catalog.workspace import Workspace
from groundplan.core.errors import GroundplanError
from groundplan.economics.routing.versions.evaluated import EvaluationSummary, read_evaluation
from groundplan.economics.routing.versions.registry import SUFFIX

DAYS = 30
_ROUTER_FIELDS = frozenset({"routing.router", "routing.digest", "routing.keep", "routing.floor"})
"""Fields of a workload that say which router decides, and how."""
_UNSERVED = ("proposed", "retired")
_FALLBACK_SENTENCE = " Until then the order of its deployments decides."


def change_evaluation(services: Services, conn: Connection[Any], change: dict[str, Any]) -> dict[str, Any] | None:
    """`router` with its evaluation, `before` (the present router, if it is another), `floors` by dimension and `told`
    (all of it in sentences). None if the change brings no router. `change`: with its files."""
    summary = change["summary"]
    if change["type"] != "workload" or not any(row["field"] in _ROUTER_FIELDS for row in summary.get("fields", ())):
        return None
    name = str(summary["subject"]).partition("/")[2]
    item = _declared_workload(change["sources"], name)
    if item is None or item.routing.by != "learned" or item.routing.router is None:
        return None
    rule, folder = item.routing, services.home.root / "routers"
    new = _router_json(folder, item.routing.router, rule.digest, rule.keep)
    now = _served_router(conn, name)
    before = None
    if now is not None and now != (rule.router, rule.digest, rule.keep):
        before = _router_json(folder, *now)
    since = services.clock.now() - timedelta(days=DAYS)
    floors = choices.quality_floors(conn, item.objectives.quality, name, since)
    return {"router": new, "before": before, "floors": floors, "told": evaluation_sentences(new, before, floors)}


def plan_notes(services: Services, files: dict[str, str], differences: Sequence[dict[str, Any]]) -> list[str]:
    """Sentences on the evaluation of each router that is new or changed in a plan, and on each router that is not in
    this HOME and so decides nothing."""
    notes = []
    for difference in differences:
        kind, _, name = str(difference["subject"]).partition("/")
        fields = {row["field"] for row in difference.get("fields", ())}
        if (
            kind != "workload"
            or difference["type"] == "removed"
            or (difference["type"] == "changed" and not fields & _ROUTER_FIELDS)
        ):
            continue
        item = _declared_workload(files, name)
        router = None if item is None else _workload_router(services, item)
        if router is not None and router["state"] == "known":
            notes.append(f"workload/{name}: {_router_sentence(router)}")
    return [*notes, *inactive_router_notes(services, files)]


def inactive_router_notes(services: Services, files: dict[str, str]) -> list[str]:
    """Sentences on workloads whose router decides nothing: it is not in this HOME, or knows too few of their models."""
    try:
        declared = load_served(files)
    except GroundplanError:
        return []
    routers = ((name, item, _workload_router(services, item)) for name, item in sorted(declared.workloads.items()))
    return [
        f"workload/{name}: {reason}"
        for name, item, router in routers
        if router is not None and (reason := _inactive_reason(router, _candidate_models(declared, item)))
    ]


def _inactive_reason(router: dict[str, Any], models: frozenset[str]) -> str:
    """Why a router decides nothing among these models; empty if it does."""
    if router["state"] != "known":
        return f"{_router_sentence(router)}{_FALLBACK_SENTENCE}"
    knows, strongest = router["evaluation"]["models"], router["evaluation"]["strongest"]
    among = sorted(models.intersection(knows))
    if len(among) > 1 and (strongest in among or models <= set(knows)):
        return ""
    known_models = f"of these models the workload has {' and '.join(among) or 'none'}"
    without = f", not {strongest}, which it takes for the strongest" if len(among) > 1 else ""
    chooses = f"{router['router']} chooses among {', '.join(knows)}, and {known_models}{without}"
    return f"{chooses}. The order of its deployments decides."


def _candidate_models(declared: Workspace, item: WorkloadDoc) -> frozenset[str]:
    """The models that may answer the workload; all models where placement chooses."""
    names = {*item.deployments, *item.fallbacks} if item.deployments else declared.deployments
    return frozenset(declared.deployments[name].model for name in names if name in declared.deployments)


def _workload_router(services: Services, item: WorkloadDoc) -> dict[str, Any] | None:
    rule = item.routing
    if rule.by != "learned" or rule.router is None or item.stage in _UNSERVED:
        return None
    return _router_json(services.home.root / "routers", rule.router, rule.digest, rule.keep)


def evaluation_sentences(
    router: dict[str, Any], before: dict[str, Any] | None, floors: list[dict[str, Any]]
) -> list[str]:
    """The evaluation in sentences."""
    lines = [_router_sentence(router)]
    if before is not None:
        lines.append(f"Now decides: {_router_sentence(before)}")
    if floors:
        lines.append("What a router expects has no dimensions; the floors of the workload, as judged in 30 days:")
    return lines + [_floor_sentence(floor) for floor in floors]


def _declared_workload(sources: dict[str, str], name: str) -> WorkloadDoc | None:
    try:
        return load_served(sources).workloads.get(name)
    except GroundplanError:  # of a version before, whose words are no longer known
        return None


def _served_router(conn: Connection[Any], name: str) -> tuple[str, str | None, float] | None:
    blueprint = served_blueprint.current_or_none(conn)
    workloads = () if blueprint is None else blueprint.workloads
    routing = next((workload.routing for workload in workloads if workload.name == name), None)
    if routing is None or routing.router is None:
        return None
    return routing.router, routing.digest, routing.keep


def _router_json(folder: Path, version: str, digest: str | None, keep: float) -> dict[str, Any]:
    """`state`: known | absent (its file is not in this HOME) | other (other bytes than `digest` names) | unreadable."""
    base: dict[str, Any] = {"router": version, "pinned": digest, "keep": keep}
    try:
        evaluation = read_evaluation((folder / f"{version}{SUFFIX}").read_bytes(), keep)
    except OSError:
        return {**base, "state": "absent", "digest": None, "evaluation": None}
    except GroundplanError:
        return {**base, "state": "unreadable", "digest": None, "evaluation": None}
    same = digest in (None, evaluation.digest)
    return {
        **base, "state": "known" if same else "other", "digest": evaluation.digest,
        "evaluation": _evaluation(evaluation) if same else None,
    }  # fmt: skip


def _evaluation(summary: EvaluationSummary) -> dict[str, Any]:
    return {
        "point": summary.point, "trained": summary.trained, "from": summary.origin, "prompts": summary.prompts,
        "groups": summary.groups, "models": list(summary.models), "strongest": summary.strongest,
        "against": summary.against, "saved": summary.saved, "kept": summary.kept, "low": summary.low,
        "high": summary.high, "shown": summary.shown,
        "ridge_saved": summary.ridge_saved, "calibration_error": summary.calibration,
    }  # fmt: skip


def _router_sentence(router: dict[str, Any]) -> str:
    name, evaluation = router["router"], router["evaluation"]
    if router["state"] == "absent":
        return f"{name} is not in HOME/routers here, so that nobody knows how good it is: copy its file."
    if router["state"] == "unreadable":
        return f"{name} in HOME/routers is no router that this version reads: train it again."
    if router["state"] == "other":
        return (
            f"{name} in HOME/routers has the digest {router['digest'][:12]}, and {router['pinned'][:12]} is asked for."
        )
    if evaluation["point"] is None:
        return f"{name} proved nothing cheaper at {router['keep']:.4g}: the strongest model takes every call."
    if evaluation["kept"] is None:
        evaluate = f"`groundplan routing evaluate SET.jsonl --router {name}` with prompts it was not trained on"
        return f"{name} does not say how it was evaluated: {evaluate}."
    between = (
        "no interval was kept"
        if evaluation["low"] is None
        else f"95 %: {evaluation['low']:.1%} to {evaluation['high']:.1%}"
    )
    against = evaluation["against"] or "the best single model"
    shown_text = {True: "shown", False: "not shown", None: "not shown"}[evaluation["shown"]]
    ridge_text = (
        "" if evaluation["ridge_saved"] is None else f"; a ridge regression saves {evaluation['ridge_saved']:.1%}"
    )
    prompts = f"{evaluation['prompts'] or 0:,} prompts that it had not seen"
    return (
        f"{name} keeps {evaluation['kept']:.1%} ({between}) of {against} on {prompts}, from {evaluation['from']}, "
        f"{evaluation['trained']}; that it keeps {router['keep']:.4g} is {shown_text}. It saves "
        f"{evaluation['saved']:.1%}{ridge_text}."
    )


def _floor_sentence(floor: dict[str, Any]) -> str:
    head = f"{floor['dimension']}: floor {floor['floor']:.0%}"
    if floor["share"] is None:
        return f"{head}, not known ({floor['judged']} judgements)."
    standing = {"yes": "kept", "no": "not kept", "unknown": "not sure"}[floor["kept"]]
    return f"{head}, {floor['share']:.1%} ({floor['low']:.1%} to {floor['high']:.1%}) of {floor['judged']}: {standing}."
