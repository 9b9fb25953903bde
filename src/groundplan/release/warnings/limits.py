"""Warnings about limits, budgets and caps that are too small for any ordinary call of a workload, or so large that its
deployments never reach them. They apply nevertheless: the author is warned before the first call. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from groundplan.blueprint import model as bp
from groundplan.catalog import model as doc
from groundplan.catalog.workspace import Workspace
from groundplan.core.errors import Problem
from groundplan.core.money import short_usd
from groundplan.economics.price import cost_bound
from groundplan.release.compile import context_windows, workloads

_MESSAGES = 3
"""template parts of a chat with one message: its own, and two for the whole prompt"""
_FEWER_TOKENS_HINT = "lower `limits.max_output` of {}, or have its callers ask for fewer tokens."


@dataclass(frozen=True, slots=True)
class _SmallestCall:
    """The smallest reservation of a call that does not ask for fewer tokens."""

    workload: str
    tokens: int
    cost: int
    cap: int


def warnings(
    workspace: Workspace, deployments: Sequence[bp.Deployment], placements: Iterable[bp.Placement]
) -> Iterator[Problem]:
    """Limits and budgets that are too small for a call of a served workload, and caps that its answers never reach."""
    yield from _context_problems(workspace)
    known = {each.name: each for each in deployments}
    covers: dict[str, list[doc.LimitDoc]] = {}
    for limit in workspace.limits.values():
        covers.setdefault(limit.covers, []).append(limit)
    for placement in placements:
        item = workspace.workloads[placement.workload]
        chats = [known[name] for name in workloads.deployment_chain(placement) if name in known]
        if item.stage in doc.SERVED_STAGES and chats:
            yield from _unreachable_cap(workspace, item, chats)
            call = _smallest_call(item, chats)
            yield from _small_call_limit(workspace, item, call)
            yield from _small_budgets(workspace, call)
            covering = ("company", "user", "key", f"workload/{item.name}", f"team/{item.team}")
            applicable = [(limit, call) for scope in covering for limit in covers.get(scope, ())]
            for each in chats:
                scopes = (f"deployment/{each.name}", f"model/{each.model}")
                applicable += [
                    (limit, _smallest_call(item, [each])) for scope in scopes for limit in covers.get(scope, ())
                ]
            yield from _small_limits(workspace, applicable)


def key_budget_warnings(
    workload: bp.Workload, deployments: Iterable[bp.Deployment], models: Collection[str], budget: int, declared: str
) -> Iterator[Problem]:
    """The same warning about the budget of a new key that may use these `models` (none: all) of its workload."""
    chats = [each for each in deployments if each.name in workload.deployments]
    chats = [each for each in chats if not models or each.name in models or each.model in models]
    if chats and (call := _smallest_call_of(workload.name, workload.max_output_tokens, chats)).cost > budget:
        hint = f"Make a key with a larger one, {_FEWER_TOKENS_HINT.format(workload.name)}"
        yield Problem(
            _too_small_message("the budget of the key", declared, call, short_usd(call.cost)), "too_small", hint
        )


def _context_problems(workspace: Workspace) -> Iterator[Problem]:
    """Deployments whose longest answer leaves no room for a prompt in their context."""
    for name, item in workspace.deployments.items():
        context, answer = (
            context_windows.context_tokens(workspace, item),
            context_windows.answer_tokens(workspace, item),
        )
        if item.type == "chat" and item.context is not None and context <= answer:
            yield Problem(
                f"`context: {context}` of deployment {name} has no room for a prompt beside its longest answer, of "
                f"{answer} tokens: it refuses whoever asks for so many",
                "too_small",
                "Write a smaller `max_output` at it, or the `context` that its model has.",
                workspace.where("deployment", name, "context"),
            )


def _smallest_call(item: doc.WorkloadDoc, chats: Sequence[bp.Deployment]) -> _SmallestCall:
    return _smallest_call_of(item.name, item.limits.max_output, chats)


def _smallest_call_of(workload: str, max_tokens: int, chats: Sequence[bp.Deployment]) -> _SmallestCall:
    sizes = [(_MESSAGES * each.input_overhead_tokens, min(max_tokens, each.max_output_tokens), each) for each in chats]
    return _SmallestCall(
        workload,
        tokens=min(prompt + answer for prompt, answer, _ in sizes),
        cost=min(cost_bound(each.rates, prompt, answer) for prompt, answer, each in sizes),
        cap=min(answer for _, answer, _ in sizes),
    )


def _unreachable_cap(workspace: Workspace, item: doc.WorkloadDoc, chats: Sequence[bp.Deployment]) -> Iterator[Problem]:
    """A declared cap on answers that no deployment reaches."""
    max_tokens = item.limits.max_output
    if "max_output" not in item.limits.model_fields_set:
        return
    if all(each.max_output_tokens < max_tokens for each in chats):
        message = ", ".join(f"{each.name} answers with at most {each.max_output_tokens} tokens" for each in chats)
        yield Problem(
            f"`max_output: {max_tokens}` of {item.name} has no effect above that: {message}",
            "no_effect",
            f"Write `max_output` at {chats[0].name}, as its model allows, or a smaller one at {item.name}.",
            workspace.where("workload", item.name, "limits", "max_output"),
        )


def _small_call_limit(workspace: Workspace, item: doc.WorkloadDoc, call: _SmallestCall) -> Iterator[Problem]:
    limit = item.limits.max_cost_per_call
    if limit is not None and call.cost > limit:
        place = ("workload", item.name, "limits", "max_cost_per_call")
        yield _too_small(
            workspace, place, f"`max_cost_per_call` of {item.name}", short_usd(limit), call, short_usd(call.cost)
        )


def _small_budgets(workspace: Workspace, call: _SmallestCall) -> Iterator[Problem]:
    for name in workspace.budgets_of(call.workload):
        budget = workspace.budgets[name]
        if budget.hard and call.cost > budget.limit.amount:
            place = ("budget", name, "limit")
            yield _too_small(workspace, place, f"the budget {name}", str(budget.limit), call, short_usd(call.cost))


def _small_limits(workspace: Workspace, applicable: Iterable[tuple[doc.LimitDoc, _SmallestCall]]) -> Iterator[Problem]:
    for limit, call in applicable:
        name = limit.name
        for rate in limit.tokens:
            if call.tokens > rate.amount:
                declared, place = f"{rate.amount} tokens/{rate.period}", ("limit", name, "tokens")
                yield _too_small(workspace, place, f"the limit {name}", declared, call, f"{call.tokens} tokens")
        for rate in limit.cost:
            if call.cost > rate.amount:
                declared, place = f"{short_usd(rate.amount)}/{rate.period}", ("limit", name, "cost")
                yield _too_small(workspace, place, f"the limit {name}", declared, call, short_usd(call.cost))


def _too_small(
    workspace: Workspace, place: tuple[str, ...], what: str, declared: str, call: _SmallestCall, needed: str
) -> Problem:
    kind, name, *path = place
    return Problem(
        _too_small_message(what, declared, call, needed),
        "too_small",
        f"Write a larger one, {_FEWER_TOKENS_HINT.format(call.workload)}",
        workspace.where(kind, name, *path),
    )


def _too_small_message(what: str, declared: str, call: _SmallestCall, needed: str) -> str:
    return (
        f"{what} ({declared}) has no room for a call of {call.workload} that does not ask for fewer tokens: with an "
        f"answer of {call.cap} it may take {needed}"
    )
