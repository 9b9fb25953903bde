"""Fields that have no effect wherever a workload is placed: what they belong to is not declared, or something else
overrules them. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase

from groundplan.catalog import model as doc
from groundplan.catalog.transport import DIRECT
from groundplan.catalog.units import format_like
from groundplan.catalog.workspace import Workspace
from groundplan.core.errors import Problem

Row = tuple[tuple[str, ...], bool, str, str]
"""Path of a field, whether it is declared in vain, why, and what to do."""
_SHARED = ("weighted", "least-outstanding", "prefix")
"""Balances that heed a weight other than 0."""
_NAMES = {"for_": "for"}
_PRICED = (
    ("images", ("images",), "images are made by `type: images`"),
    ("characters", ("speech",), "characters are spoken by `type: speech`"),
    ("minute", ("transcription",), "minutes are heard by `type: transcription`"),
    ("shortest", ("transcription",), "audio is heard by `type: transcription`"),
)
"""Field of a price, types of deployments that charge by it, and what to tell of others."""


def workload_warnings(workspace: Workspace, item: doc.WorkloadDoc) -> Iterator[Problem]:
    """What one workload declares in vain."""
    for path, vain, why, todo in (*_without_sources(item), *_switched_off(item), *_overruled(item), *_guarded(item)):
        if vain:
            yield problem(workspace, "workload", item.name, path, why, todo)


def deployment_warnings(workspace: Workspace) -> Iterator[Problem]:
    """What deployments, tools and the company declare in vain."""
    company = workspace.company
    if company.proxy_key is not None and company.proxy in (None, DIRECT):
        todo = "Write `proxy: http://HOST:PORT` beside it, or leave it out."
        yield problem(workspace, "company", company.name, ("proxy_key",), "the company has no proxy", todo)
    weighed = {
        name
        for each in workspace.workloads.values()
        if each.reliability.balance in _SHARED
        for name in (each.deployments or workspace.deployments)
    }
    for name, item in workspace.deployments.items():
        for path, vain, why, todo in (*_priced(item), *_sent(item), _weighed(item, name in weighed)):
            if vain:
                yield problem(workspace, "deployment", name, path, why, todo)
    yield from _unused(workspace)
    for name, tool in workspace.tools.items():
        for i, used in enumerate(tool.dangerous):
            if tool.tools and ":" not in used and not _matches_any(used, tool.tools):
                todo = "Name it under `tools`, too, or leave it out."
                yield problem(workspace, "tool", name, ("dangerous", str(i)), "it is not among its `tools`", todo)


def _unused(workspace: Workspace) -> Iterator[Problem]:
    """Deployments that have to be named to be used, and are not; what covers a team to which no workload belongs."""
    works = workspace.workloads.values()
    named = {name for each in works for name in (*each.embeddings, *each.also)}
    for name, item in workspace.deployments.items():
        if item.type != "chat" and name not in named:
            field = "embeddings" if item.type == "embeddings" else "also"
            why, todo = f"no workload names it under `{field}`", "Name it there, at whichever may use it."
            yield problem(workspace, "deployment", name, ("type",), why, todo)
    teams = {f"team/{each.team}" for each in works}
    declared = (("budget", workspace.budgets), ("limit", workspace.limits))
    for kind, name, covers in ((kind, name, each.covers) for kind, of in declared for name, each in of.items()):
        if covers.startswith("team/") and covers not in teams:
            why, todo = f"no workload belongs to {covers}", f"Write `team: {covers[5:]}` at those that do."
            yield problem(workspace, kind, name, ("covers",), why, todo)


def problem(workspace: Workspace, kind: str, name: str, path: tuple[str, ...], why: str, todo: str) -> Problem:
    """A field that has no effect, with its place."""
    place = tuple(int(part) if part.isdecimal() else _NAMES.get(part, part) for part in path)
    field = ".".join(part for part in map(str, place) if not part.isdecimal())
    of = name if kind == "workload" else f"{kind} {name}"
    return Problem(f"`{field}` of {of} has no effect: {why}", "no_effect", todo, workspace.where(kind, name, *place))


def _without_sources(item: doc.WorkloadDoc) -> Iterator[Row]:
    if item.sources:
        return
    why, todo = "it has no sources", "Name its `sources`, or leave it out."
    yield ("grounding",), item.grounding != doc.GroundingRule(), why, todo
    yield ("needs", "quality"), item.needs.quality > 0, why, todo
    yield ("needs", "scanned"), item.needs.scanned, why, todo
    yield ("guardrails", "passages"), item.guardrails is not None and item.guardrails.passages is not None, why, todo


def _switched_off(item: doc.WorkloadDoc) -> Iterator[Row]:
    rule = item.reliability
    for path, on, block, names, why, todo in (
        (("cache",), item.cache.answers != "off", item.cache, ("ttl", "max_size", "scope"),
         "its answers are not given again", "Write `answers: exact` beside it, or leave it out."),
        (("keep",), item.keep.content != "none", item.keep, ("for_", "share"),
         "it keeps no content", "Write `content: redacted` or `content: full` beside it, or leave it out."),
        (("review",), item.review.before_sending, item.review, ("by", "within", "after"),
         "no answer waits for a person", "Write `before_sending: true` beside it, or leave it out."),
        (("reliability", "retries"), rule.retries.same > 0, rule.retries, ("backoff", "max_backoff"),
         "no deployment is asked again before the next one", "Write `same: 1` beside it, or leave it out."),
    ):  # fmt: skip
        for name in names:
            yield (*path, name), not on and name in block.model_fields_set, why, todo


def _overruled(item: doc.WorkloadDoc) -> Iterator[Row]:
    rule, limits = item.reliability, item.limits
    for name, own in (("attempts", rule.attempts), ("deadline", rule.deadline)):
        vain = own is not None and name in limits.model_fields_set and own != getattr(limits, name)
        yield ("limits", name), vain, f"`reliability.{name}` is declared, too, and holds", "Leave one of both out."
    ends = limits.expires is not None and item.stage == "production"
    yield (
        ("limits", "expires"),
        ends,
        "what is in production ends by no date",
        "Leave it out; `stage: retired` ends it.",
    )
    most = format_like(rule.retries.max_backoff, "800ms")
    vain = rule.retries.same > 0 and rule.retries.backoff > rule.retries.max_backoff
    why = f"nobody waits longer than `max_backoff`, which is {most}"
    yield ("reliability", "retries", "backoff"), vain, why, "Write a longer `max_backoff`, or a shorter `backoff`."
    after = 0 if rule.hedge is None else rule.hedge.after_ms or 0
    deadline = rule.deadline or limits.deadline
    why = f"its calls end before that: their `deadline` is {format_like(deadline, '800ms')}"
    todo = "Write a shorter time or a percentile such as `after: p95`, or a longer `deadline`."
    yield ("reliability", "hedge", "after"), after >= deadline, why, todo


def _guarded(item: doc.WorkloadDoc) -> Iterator[Row]:
    rule = item.guardrails
    if rule is None:
        return
    checks = (rule.input, rule.output, *([] if rule.passages is None else [rule.passages]))
    for i, each in enumerate(rule.entities):
        kind = "secrets" if each.secret else "personal_data"
        vain = all(getattr(check, kind) == "off" for check in checks)
        todo = f"Write `input: {{{kind}: mask}}` or another check of it, or leave it out."
        yield ("guardrails", "entities", str(i)), vain, f"nothing is checked for `{kind}`", todo
    asks = rule.output.judge is not None or any(each.presidio != "off" for each in (rule.input, rule.output))
    vain, why = rule.on_failure == "open" and not asks, "all of its checks can be made at any time"
    yield ("guardrails", "on_failure"), vain, why, "Declare an `output.judge` or `presidio`, or leave it out."


def _priced(item: doc.DeploymentDoc) -> Iterator[Row]:
    for i, price in enumerate(item.price):
        for name, types, why in _PRICED:
            yield ("price", str(i), name), bool(getattr(price, name)) and item.type not in types, why, "Leave it out."
        vain = bool(price.image) and item.type == "chat" and "image" not in item.accepts
        yield ("price", str(i), "image"), vain, "it accepts no images", "Write `accepts: image`, or leave it out."


def _sent(item: doc.DeploymentDoc) -> Iterator[Row]:
    chat = item.type == "chat"
    for name in ("image", "audio"):
        vain = chat and getattr(item, f"{name}_tokens") is not None and name not in item.accepts
        yield (f"{name}_tokens",), vain, f"it does not accept {name}", f"Write `accepts: {name}`, or leave it out."
    heard = item.type == "transcription"
    yield ("audio",), item.audio is not None and not heard, "it transcribes nothing", "Leave it out."
    todo = "Write `proxy: http://HOST:PORT`, or leave it out."
    yield ("proxy_key",), item.proxy_key is not None and item.proxy == DIRECT, "it is reached directly", todo
    yield ("cap_field",), item.cap_field is not None and not chat, "it is for `type: chat`", "Leave it out."
    for i, served in enumerate(item.serves):
        yield (
            ("serves", str(i)),
            served != "batches" and not chat,
            f"{served} are asked of `type: chat`",
            "Leave it out.",
        )


def _weighed(item: doc.DeploymentDoc, heeded: bool) -> Row:
    vain = item.weight > 1 and not heeded
    todo = "Write `reliability: {balance: weighted}` at the workload that shares its calls, or leave it out."
    return ("weight",), vain, "no workload shares its calls by weight", todo


def _matches_any(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, each) or fnmatchcase(each, name) for each in patterns)
