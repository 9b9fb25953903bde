"""Warnings about fields that have no effect wherever a workload is placed: the feature they belong to is not declared,
or another field overrules them. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase

from groundplan.catalog import model as doc
from groundplan.catalog.transport import DIRECT
from groundplan.catalog.units import format_like
from groundplan.catalog.workspace import Workspace
from groundplan.core.errors import Problem

FieldCheck = tuple[tuple[str, ...], bool, str, str]
"""(path of a field, whether it is declared without effect, the reason, a hint)"""
_WEIGHTED_BALANCES = ("weighted", "least-outstanding", "prefix")
"""balances that use weights other than 0"""
_FIELD_NAMES = {"for_": "for"}
_PRICE_FIELDS = (
    ("images", ("images",), "images are made by `type: images`"),
    ("characters", ("speech",), "characters are spoken by `type: speech`"),
    ("minute", ("transcription",), "minutes are heard by `type: transcription`"),
    ("shortest", ("transcription",), "audio is heard by `type: transcription`"),
)
"""(field of a price, types of deployments that charge by it, the reason at other types)"""


def workload_warnings(workspace: Workspace, item: doc.WorkloadDoc) -> Iterator[Problem]:
    """Fields of one workload that have no effect."""
    for path, is_ineffective, reason, hint in (
        *_source_fields(item),
        *_disabled_fields(item),
        *_overruled_fields(item),
        *_guardrail_fields(item),
    ):
        if is_ineffective:
            yield no_effect_problem(workspace, "workload", item.name, path, reason, hint)


def deployment_warnings(workspace: Workspace) -> Iterator[Problem]:
    """Fields of deployments, tools and the company that have no effect."""
    company = workspace.company
    if company.proxy_key is not None and company.proxy in (None, DIRECT):
        hint = "Write `proxy: http://HOST:PORT` beside it, or leave it out."
        yield no_effect_problem(workspace, "company", company.name, ("proxy_key",), "the company has no proxy", hint)
    weighted = {
        name
        for each in workspace.workloads.values()
        if each.reliability.balance in _WEIGHTED_BALANCES
        for name in (each.deployments or workspace.deployments)
    }
    for name, item in workspace.deployments.items():
        for path, is_ineffective, reason, hint in (
            *_price_fields(item),
            *_deployment_fields(item),
            _weight_field(item, name in weighted),
        ):
            if is_ineffective:
                yield no_effect_problem(workspace, "deployment", name, path, reason, hint)
    yield from _unused_problems(workspace)
    for name, tool in workspace.tools.items():
        for i, used in enumerate(tool.dangerous):
            if tool.tools and ":" not in used and not _matches_any(used, tool.tools):
                hint = "Name it under `tools`, too, or leave it out."
                yield no_effect_problem(
                    workspace, "tool", name, ("dangerous", str(i)), "it is not among its `tools`", hint
                )


def _unused_problems(workspace: Workspace) -> Iterator[Problem]:
    """Deployments that only a workload's naming them would use, and budgets and limits of teams without workloads."""
    workloads = workspace.workloads.values()
    named = {name for each in workloads for name in (*each.embeddings, *each.also)}
    for name, item in workspace.deployments.items():
        if item.type != "chat" and name not in named:
            field = "embeddings" if item.type == "embeddings" else "also"
            reason, hint = f"no workload names it under `{field}`", "Name it there, at whichever may use it."
            yield no_effect_problem(workspace, "deployment", name, ("type",), reason, hint)
    teams = {f"team/{each.team}" for each in workloads}
    declared = (("budget", workspace.budgets), ("limit", workspace.limits))
    for kind, name, covers in (
        (kind, name, each.covers) for kind, documents in declared for name, each in documents.items()
    ):
        if covers.startswith("team/") and covers not in teams:
            reason, hint = f"no workload belongs to {covers}", f"Write `team: {covers[5:]}` at those that do."
            yield no_effect_problem(workspace, kind, name, ("covers",), reason, hint)


def no_effect_problem(
    workspace: Workspace, kind: str, name: str, path: tuple[str, ...], reason: str, hint: str
) -> Problem:
    """The warning about a field that has no effect, with its location."""
    place = tuple(int(part) if part.isdecimal() else _FIELD_NAMES.get(part, part) for part in path)
    field = ".".join(part for part in map(str, place) if not part.isdecimal())
    owner = name if kind == "workload" else f"{kind} {name}"
    return Problem(
        f"`{field}` of {owner} has no effect: {reason}", "no_effect", hint, workspace.where(kind, name, *place)
    )


def _source_fields(item: doc.WorkloadDoc) -> Iterator[FieldCheck]:
    if item.sources:
        return
    reason, hint = "it has no sources", "Name its `sources`, or leave it out."
    yield ("grounding",), item.grounding != doc.GroundingRule(), reason, hint
    yield ("needs", "quality"), item.needs.quality > 0, reason, hint
    yield ("needs", "scanned"), item.needs.scanned, reason, hint
    yield ("guardrails", "passages"), item.guardrails is not None and item.guardrails.passages is not None, reason, hint


def _disabled_fields(item: doc.WorkloadDoc) -> Iterator[FieldCheck]:
    rule = item.reliability
    for path, on, block, names, reason, hint in (
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
            yield (*path, name), not on and name in block.model_fields_set, reason, hint


def _overruled_fields(item: doc.WorkloadDoc) -> Iterator[FieldCheck]:
    rule, limits = item.reliability, item.limits
    for name, own in (("attempts", rule.attempts), ("deadline", rule.deadline)):
        is_ineffective = own is not None and name in limits.model_fields_set and own != getattr(limits, name)
        yield (
            ("limits", name),
            is_ineffective,
            f"`reliability.{name}` is declared, too, and holds",
            "Leave one of both out.",
        )
    ends = limits.expires is not None and item.stage == "production"
    yield (
        ("limits", "expires"),
        ends,
        "what is in production ends by no date",
        "Leave it out; `stage: retired` ends it.",
    )
    most = format_like(rule.retries.max_backoff, "800ms")
    is_ineffective = rule.retries.same > 0 and rule.retries.backoff > rule.retries.max_backoff
    reason = f"nobody waits longer than `max_backoff`, which is {most}"
    yield (
        ("reliability", "retries", "backoff"),
        is_ineffective,
        reason,
        "Write a longer `max_backoff`, or a shorter `backoff`.",
    )
    after = 0 if rule.hedge is None else rule.hedge.after_ms or 0
    deadline = rule.deadline or limits.deadline
    reason = f"its calls end before that: their `deadline` is {format_like(deadline, '800ms')}"
    hint = "Write a shorter time or a percentile such as `after: p95`, or a longer `deadline`."
    yield ("reliability", "hedge", "after"), after >= deadline, reason, hint


def _guardrail_fields(item: doc.WorkloadDoc) -> Iterator[FieldCheck]:
    rule = item.guardrails
    if rule is None:
        return
    checks = (rule.input, rule.output, *([] if rule.passages is None else [rule.passages]))
    for i, each in enumerate(rule.entities):
        kind = "secrets" if each.secret else "personal_data"
        is_ineffective = all(getattr(check, kind) == "off" for check in checks)
        hint = f"Write `input: {{{kind}: mask}}` or another check of it, or leave it out."
        yield ("guardrails", "entities", str(i)), is_ineffective, f"nothing is checked for `{kind}`", hint
    asks = rule.output.judge is not None or any(each.presidio != "off" for each in (rule.input, rule.output))
    is_ineffective, reason = rule.on_failure == "open" and not asks, "all of its checks can be made at any time"
    yield (
        ("guardrails", "on_failure"),
        is_ineffective,
        reason,
        "Declare an `output.judge` or `presidio`, or leave it out.",
    )


def _price_fields(item: doc.DeploymentDoc) -> Iterator[FieldCheck]:
    for i, price in enumerate(item.price):
        for name, types, reason in _PRICE_FIELDS:
            yield (
                ("price", str(i), name),
                bool(getattr(price, name)) and item.type not in types,
                reason,
                "Leave it out.",
            )
        is_ineffective = bool(price.image) and item.type == "chat" and "image" not in item.accepts
        yield (
            ("price", str(i), "image"),
            is_ineffective,
            "it accepts no images",
            "Write `accepts: image`, or leave it out.",
        )


def _deployment_fields(item: doc.DeploymentDoc) -> Iterator[FieldCheck]:
    chat = item.type == "chat"
    for name in ("image", "audio"):
        is_ineffective = chat and getattr(item, f"{name}_tokens") is not None and name not in item.accepts
        yield (
            (f"{name}_tokens",),
            is_ineffective,
            f"it does not accept {name}",
            f"Write `accepts: {name}`, or leave it out.",
        )
    transcribes = item.type == "transcription"
    yield ("audio",), item.audio is not None and not transcribes, "it transcribes nothing", "Leave it out."
    hint = "Write `proxy: http://HOST:PORT`, or leave it out."
    yield ("proxy_key",), item.proxy_key is not None and item.proxy == DIRECT, "it is reached directly", hint
    yield ("cap_field",), item.cap_field is not None and not chat, "it is for `type: chat`", "Leave it out."
    for i, served in enumerate(item.serves):
        yield (
            ("serves", str(i)),
            served != "batches" and not chat,
            f"{served} are asked of `type: chat`",
            "Leave it out.",
        )


def _weight_field(item: doc.DeploymentDoc, is_used: bool) -> FieldCheck:
    is_ineffective = item.weight > 1 and not is_used
    hint = "Write `reliability: {balance: weighted}` at the workload that shares its calls, or leave it out."
    return ("weight",), is_ineffective, "no workload shares its calls by weight", hint


def _matches_any(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, each) or fnmatchcase(each, name) for each in patterns)
