"""Warnings about settings of retries, hedging, balance and review that have no effect, since the workload has only one
deployment or one attempt. Only warnings, since the rest of the workload is served. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from groundplan.blueprint.model import Placement
from groundplan.catalog import model as doc
from groundplan.catalog.workspace import Workspace
from groundplan.core.errors import Problem
from groundplan.release.compile import routing, workloads

_RELIABILITY, _LIMITS = "reliability", "limits"
_ADD_DEPLOYMENT_HINT = (
    "Name another deployment in `deployments` or `fallbacks` that its rules allow, or leave `{}` out."
)
_ADD_OR_RETRY_HINT = f"{_ADD_DEPLOYMENT_HINT} `reliability: {{{{retries: {{{{same: 1}}}}}}}}` asks the same one again."
_ROUTING_REASON = (
    "for model `auto` its `routing`, or a floor of `objectives.quality`, says who is asked, and in which order"
)
_ADD_PEER_HINT = "Name another deployment in `deployments`, since `fallbacks` share no calls, or leave `balance` out."
_MORE_ATTEMPTS_HINT = "Write `attempts: 2` or more, or leave `{}` out."
_REVIEW_HINT = "Write `before_sending: true`, by which answers wait for a person, or leave `{}` out."
_SHORTER_TIMEOUT_HINT = "Write a shorter `timeouts: {{first_token: ...}}` at {}, a longer `deadline`, or a `hedge`."


def warnings(workspace: Workspace, item: doc.WorkloadDoc, placement: Placement) -> Iterator[Problem]:
    """Reliability settings of one workload that have no effect where it is placed."""
    rule, chats = item.reliability, workloads.deployment_chain(placement)
    longest_chain = max((chats, *_by_type(workspace, (*item.embeddings, *item.also))), key=len)
    retries_same = rule.retries.same > 0
    settings = (
        ("hedge", "hedge", rule.hedge is not None, len(longest_chain) > 1, longest_chain),
        ("on_broken_stream", "resume", rule.on_broken_stream == "resume", len(chats) > 1 or retries_same, chats),
        ("retries", f"same: {rule.retries.same}", retries_same, True, longest_chain),
    )
    attempts = rule.attempts or item.limits.attempts
    for key, declaration, declared, possible, names in settings:
        if declared and attempts < 2:
            yield _no_effect(
                workspace, item, (_RELIABILITY, key), declaration, "its calls have one attempt", _MORE_ATTEMPTS_HINT
            )
        elif declared and not possible:
            yield _no_effect(
                workspace, item, (_RELIABILITY, key), declaration, _only_deployment(names), _ADD_DEPLOYMENT_HINT
            )
    peers = chats[: workloads.peer_count(item, placement)]
    if rule.balance != "ordered" and len(peers) < 2:
        yield _no_effect(
            workspace,
            item,
            (_RELIABILITY, "balance"),
            f"balance: {rule.balance}",
            _only_deployment(peers),
            _ADD_PEER_HINT,
        )
    if routing.compile_routing(workspace, item, chats) is not None:
        yield from _overruled_by_routing(workspace, item)
    if attempts > 1 and _declares_attempts(item) and not retries_same and len(longest_chain) < 2:
        path = (_RELIABILITY if rule.attempts else _LIMITS, "attempts")
        yield _no_effect(
            workspace, item, path, f"attempts: {attempts}", _only_deployment(longest_chain), _ADD_OR_RETRY_HINT
        )
    if "share" in item.review.model_fields_set and not item.review.before_sending:
        declaration = f"share: {item.review.share * 100:g}%"
        yield _no_effect(
            workspace, item, ("review", "share"), declaration, "nobody is shown answers that were sent", _REVIEW_HINT
        )
    if attempts > 1 and rule.hedge is None:
        yield from _deadline_warning(workspace, item, longest_chain)


def _overruled_by_routing(workspace: Workspace, item: doc.WorkloadDoc) -> Iterator[Problem]:
    """Settings that have no effect because routing rules, a router, floors or ceilings choose the deployment; further
    ones are asked in the order of placement."""
    balance = item.reliability.balance
    for path, declaration, declared in (
        ((_RELIABILITY, "balance"), f"balance: {balance}", balance != "ordered"),
        (("placement", "ramp"), "ramp", item.placement.ramp is not None),
    ):
        if declared:
            yield _no_effect(
                workspace, item, path, declaration, _ROUTING_REASON, "Leave `{}` out, or what chooses for `auto`."
            )


def _deadline_warning(workspace: Workspace, item: doc.WorkloadDoc, longest_chain: Sequence[str]) -> Iterator[Problem]:
    """A deployment that is connected but silent uses up the deadline, so that those after it are never asked."""
    deadline, named = item.reliability.deadline or item.limits.deadline, item.reliability.deadline is not None
    silent_deployment = next((name for name in longest_chain[:-1] if _first_token(workspace, name) >= deadline), None)
    if silent_deployment is not None:
        message = (
            f"where {silent_deployment} is silent, calls of {item.name} end before another deployment is asked: its "
        )
        message += "`timeouts.first_token` is no shorter than their `deadline`"
        where = workspace.where("workload", item.name, _RELIABILITY if named else _LIMITS, "deadline")
        yield Problem(message, "no_time", _SHORTER_TIMEOUT_HINT.format(silent_deployment), where)


def _first_token(workspace: Workspace, deployment: str) -> int:
    found = workspace.deployments.get(deployment)
    return 0 if found is None else found.timeouts.first_token


def _declares_attempts(item: doc.WorkloadDoc) -> bool:
    return item.reliability.attempts is not None or "attempts" in item.limits.model_fields_set


def _by_type(workspace: Workspace, names: Sequence[str]) -> list[list[str]]:
    """The deployments by type: those of one type can replace each other."""
    found: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        if (place := workspace.deployments.get(name)) is not None:
            found.setdefault(place.type, []).append(name)
    return list(found.values())


def _only_deployment(names: Sequence[str]) -> str:
    return f"{names[0]} is the only deployment that it would use for that" if names else "it has no chat deployment"


def _no_effect(
    workspace: Workspace, item: doc.WorkloadDoc, path: tuple[str, ...], declaration: str, reason: str, hint: str
) -> Problem:
    where = workspace.where("workload", item.name, *path)
    return Problem(f"`{declaration}` of {item.name} has no effect: {reason}", "no_effect", hint.format(path[-1]), where)
