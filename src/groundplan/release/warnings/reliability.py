"""What a workload declares of retries, hedging, balance and review that has no effect, since it has only one deployment
or one attempt for it. A warning, since everything else of it is served. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from groundplan.blueprint.model import Placement
from groundplan.catalog import model as doc
from groundplan.catalog.workspace import Workspace
from groundplan.core.errors import Problem
from groundplan.release.compile import routing, workloads

_RULE, _LIMITS = "reliability", "limits"
_ADD = "Name another deployment in `deployments` or `fallbacks` that its rules allow, or leave `{}` out."
_ADD_OR_SAME = f"{_ADD} `reliability: {{{{retries: {{{{same: 1}}}}}}}}` asks the same one again."
_CHOSEN = "for model `auto` its `routing`, or a floor of `objectives.quality`, says who is asked, and in which order"
_PEER = "Name another deployment in `deployments`, since `fallbacks` share no calls, or leave `balance` out."
_TRIES = "Write `attempts: 2` or more, or leave `{}` out."
_WAIT = "Write `before_sending: true`, by which answers wait for a person, or leave `{}` out."
_SHORTER = "Write a shorter `timeouts: {{first_token: ...}}` at {}, a longer `deadline`, or a `hedge`."


def warnings(workspace: Workspace, item: doc.WorkloadDoc, placement: Placement) -> Iterator[Problem]:
    """What one workload says of its reliability that has no effect where it is placed."""
    rule, chats = item.reliability, workloads.deployment_chain(placement)
    most = max((chats, *_by_type(workspace, (*item.embeddings, *item.also))), key=len)
    again = rule.retries.same > 0
    asked = (
        ("hedge", "hedge", rule.hedge is not None, len(most) > 1, most),
        ("on_broken_stream", "resume", rule.on_broken_stream == "resume", len(chats) > 1 or again, chats),
        ("retries", f"same: {rule.retries.same}", again, True, most),
    )
    attempts = rule.attempts or item.limits.attempts
    for key, said, declared, possible, names in asked:
        if declared and attempts < 2:
            yield _no_effect(workspace, item, (_RULE, key), said, "its calls have one attempt", _TRIES)
        elif declared and not possible:
            yield _no_effect(workspace, item, (_RULE, key), said, _only_deployment(names), _ADD)
    peers = chats[: workloads.peer_count(item, placement)]
    if rule.balance != "ordered" and len(peers) < 2:
        yield _no_effect(
            workspace, item, (_RULE, "balance"), f"balance: {rule.balance}", _only_deployment(peers), _PEER
        )
    if routing.routing(workspace, item, chats) is not None:
        yield from _overruled_by_routing(workspace, item)
    if attempts > 1 and _declares_attempts(item) and not again and len(most) < 2:
        path = (_RULE if rule.attempts else _LIMITS, "attempts")
        yield _no_effect(workspace, item, path, f"attempts: {attempts}", _only_deployment(most), _ADD_OR_SAME)
    if "share" in item.review.model_fields_set and not item.review.before_sending:
        said = f"share: {item.review.share * 100:g}%"
        yield _no_effect(workspace, item, ("review", "share"), said, "nobody is shown answers that were sent", _WAIT)
    if attempts > 1 and rule.hedge is None:
        yield from _deadline_warning(workspace, item, most)


def _overruled_by_routing(workspace: Workspace, item: doc.WorkloadDoc) -> Iterator[Problem]:
    """Where rules, a router, floors or ceilings say who takes a call, the others follow in the order of placement."""
    balance = item.reliability.balance
    for path, said, declared in (
        ((_RULE, "balance"), f"balance: {balance}", balance != "ordered"),
        (("placement", "ramp"), "ramp", item.placement.ramp is not None),
    ):
        if declared:
            yield _no_effect(workspace, item, path, said, _CHOSEN, "Leave `{}` out, or what chooses for `auto`.")


def _deadline_warning(workspace: Workspace, item: doc.WorkloadDoc, most: Sequence[str]) -> Iterator[Problem]:
    """Where a deployment that is reached and says nothing has all the time of a call, and those behind it have none."""
    deadline, named = item.reliability.deadline or item.limits.deadline, item.reliability.deadline is not None
    silent = next((name for name in most[:-1] if _first_token(workspace, name) >= deadline), None)
    if silent is not None:
        told = f"where {silent} is silent, calls of {item.name} end before another deployment is asked: its "
        told += "`timeouts.first_token` is no shorter than their `deadline`"
        where = workspace.where("workload", item.name, _RULE if named else _LIMITS, "deadline")
        yield Problem(told, "no_time", _SHORTER.format(silent), where)


def _first_token(workspace: Workspace, deployment: str) -> int:
    found = workspace.deployments.get(deployment)
    return 0 if found is None else found.timeouts.first_token


def _declares_attempts(item: doc.WorkloadDoc) -> bool:
    return item.reliability.attempts is not None or "attempts" in item.limits.model_fields_set


def _by_type(workspace: Workspace, names: Sequence[str]) -> list[list[str]]:
    """Deployments that can stand in for each other."""
    found: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        if (place := workspace.deployments.get(name)) is not None:
            found.setdefault(place.type, []).append(name)
    return list(found.values())


def _only_deployment(names: Sequence[str]) -> str:
    return f"{names[0]} is the only deployment that it would use for that" if names else "it has no chat deployment"


def _no_effect(
    workspace: Workspace, item: doc.WorkloadDoc, path: tuple[str, ...], said: str, why: str, todo: str
) -> Problem:
    where = workspace.where("workload", item.name, *path)
    return Problem(f"`{said}` of {item.name} has no effect: {why}", "no_effect", todo.format(path[-1]), where)
