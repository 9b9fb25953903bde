"""Sentences that explain calls, changes, keys, blueprints and scopes. They only read the facts that are passed in."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from groundplan.blueprint.model import Placement
from groundplan.core.errors import Problem
from groundplan.gateway.call.attempts.failure import REFUSAL_MEANINGS

Facts = dict[str, Any]

_ENDINGS = {
    "ok": "It was answered.",
    "refused": "It was refused before anything was sent to a model.",
    "failed": "Every attempt failed.",
    "cancelled": "The caller went away; what was used until then is charged.",
    "crashed": "The gateway worker died; what was open is charged at its bound.",
}
_TEXT_ENDPOINTS = ("chat.completions", "messages", "responses", "completions")
"""Endpoints whose calls are answered without an attempt only where retrieval found nothing."""


def explain_call(facts: Facts) -> list[str]:
    """Explain a receipt: what was asked, what happened at each attempt, and what it cost."""
    lines = [f"Call to {facts['workload']} at {facts['at']}, under blueprint {facts['blueprint']}."]
    if facts["who"] is not None:
        lines.append(f"It was made by {facts['who']}{' in the demo' if facts['acting'] else ''}.")
    said = [f"the {name} {facts[name]}" for name in ("feature", "ticket") if facts.get(name)]
    if said:
        lines.append(f"Its caller says that it is for {' and '.join(said)}.")
    if facts.get("tool"):
        lines.append(f"It was a use of the tool {facts['tool']}.")
    ending = _ENDINGS.get(str(facts["status"]), str(facts["status"]))
    if facts["status"] == "ok" and any(step["step"] == "estimate" for step in facts.get("steps", ())):
        ending = "It was estimated, as its caller asked, and not made."
    told = f": {facts['refusal']}" if facts.get("refusal") else ""
    code = f" Reason: {facts['error_code']}{told}." if facts.get("error_code") else ""
    lines.append(ending + code)
    lines += [_attempt(attempt) for attempt in facts.get("attempts", ())]
    if facts["status"] != "refused":
        lines.append(f"Reserved {facts['reserved_usd']} USD, charged {facts['cost_usd']} USD.{_savings(facts)}")
    beside = facts.get("allocated") if facts["status"] != "refused" else None
    if beside is not None:
        carried = f"It carries {beside['cost_usd']} USD of what is allocated beside the calls of {beside['day']}."
        lines.append(carried if beside["known"] else f"{beside['told'][:1].upper()}{beside['told'][1:]}.")
    return lines


def _savings(facts: Facts) -> str:
    """What caches saved: the gateway's, and the provider's own prompt cache."""
    named = (("saved_usd", "The cache saved"), ("prefix_saved_usd", "The provider's own cache saved"))
    return "".join(f" {words} {facts[name]} USD." for name, words in named if float(facts.get(name) or 0))


def _attempt(attempt: Facts) -> str:
    where = f"Attempt {attempt['number'] + 1} went to {attempt['deployment']} at {attempt['site']}"
    estimated = ", estimated" if attempt.get("estimated") else ""
    return f"{where}: {_outcome(attempt)}, {attempt['cost_usd']} USD{estimated}{_times(attempt)}."


_ERROR_FLAGS = frozenset({"no_connection", "connect_timeout", "timeout", "cut", "malformed", "no_room"})
"""Flags of an attempt that name an error which has no HTTP status."""


def _outcome(attempt: Facts) -> str:
    """How an attempt ended, with the error where no status names it."""
    wrong = "".join(f" ({flag})" for flag in attempt.get("flags") or () if flag in _ERROR_FLAGS)
    return f"{attempt['outcome']}{wrong}".replace("_", " ")


def _times(attempt: Facts) -> str:
    """The measured times of an attempt: start, connection, first byte, duration."""
    named = (("began after", "started_ms"), ("connected in", "connect_ms"), ("first byte after", "first_byte_ms"))
    parts = [f"{words} {attempt[field]:.1f} ms" for words, field in named if attempt.get(field) is not None]
    if attempt.get("duration_ms") is not None:
        parts.append(f"took {attempt['duration_ms']:.1f} ms")
    return f"; {', '.join(parts)}" if parts else ""


CACHED_REQUESTS = {
    "exact": "the same question", "semantic": "a question that means the same",
    "replay": "the request with the same Idempotency-Key",
}  # fmt: skip
"""Kind of cache -> the request that got the cached answer before."""


def explain_source(facts: Facts, placement: Placement | None, *, routes: bool = False) -> list[str]:
    """Explain where the answer of a receipt came from: the cache, the router or the placement, and which attempts
    failed before. `routes`: the workload's router chooses for callers that name no model."""
    if facts["cache"] in CACHED_REQUESTS:
        return [f"It is the answer that {CACHED_REQUESTS[facts['cache']]} got before; no model was asked."]
    if facts["status"] == "ok" and not facts["attempts"] and facts.get("endpoint") in _TEXT_ENDPOINTS:
        return ["Nothing that was found reached the floor of the workload, so no model was asked."]
    lines, route, answered = [], facts.get("route"), facts["deployment"]
    attempts: list[Facts] = facts["attempts"]
    last = next((attempt for attempt in attempts if attempt["outcome"] == "ok"), None)
    vain = [attempt for attempt in attempts if attempt["outcome"] != "ok"]
    first = answered
    if route is not None:
        lines.append(f"{route['model']} was chosen ({route['by']}): {route['reason']}.")
        first = route["deployment"] if route.get("answered") else answered
    elif facts.get("of"):
        lines.append(f"The gateway asked it itself, for call {facts['of']} ({facts['purpose']}).")
    elif routes:
        lines.append("The caller named a model, so none was chosen.")
    elif placement is not None and placement.primary is not None and _is_placed(facts, placement):
        first = placement.primary
        lines.append(f"It is placed at {first}: {placement.binding}.")
    lines += [_failed_attempt(attempt, facts, last) for attempt in vain]
    before = [
        attempt for attempt in vain if not _has_flag(attempt, "hedge")
    ]  # a hedge is beside another, not before it
    if last is not None and (told := _answer_note(last, before, in_place=first != answered)):
        lines.append(f"{answered}{told}")
    return lines


def _is_placed(facts: Facts, placement: Placement) -> bool:
    """Whether placement decided about the call: embeddings, images, audio and conversations have deployments of their
    own."""
    return facts.get("endpoint") in (None, *_TEXT_ENDPOINTS) or facts["deployment"] in (
        placement.primary,
        *placement.fallbacks,
    )


def _answer_note(last: Facts, before: list[Facts], *, in_place: bool) -> str:
    """How the successful attempt came about, after the failed attempts `before` it; empty where it was the first.
    `in_place`: its deployment is not the first choice of the call."""
    if _has_flag(last, "resumed"):
        return " went on from there."
    if _has_flag(last, "hedge"):
        return ", which was asked as well, answered first."
    if any(attempt["deployment"] == last["deployment"] for attempt in before):
        return " answered when it was asked again."
    return " answered in its place." if before or in_place else ""


def _has_flag(attempt: Facts, flag: str) -> bool:
    return flag in attempt.get("flags", ())


def _failed_attempt(attempt: Facts, facts: Facts, last: Facts | None) -> str:
    """How an attempt ended that gave no answer; `last` is the successful one."""
    name, beside = attempt["deployment"], " as well" if _has_flag(attempt, "hedge") else ""
    begun = attempt["outcome"] == "failed" and attempt["http_status"] == 200
    later = facts["attempts"][facts["attempts"].index(attempt) + 1 :]
    if begun and (any(_has_flag(each, "resumed") for each in later) or facts.get("error_code") == "stream_broken"):
        return f"{name} broke off in the middle of its answer."
    if attempt["outcome"] == "cancelled" and last is not None and (beside or _has_flag(last, "hedge")):
        return f"{name} was asked{beside} and had said nothing when {last['deployment']} answered: cancelled."
    answered = attempt["http_status"]
    meant = f": {REFUSAL_MEANINGS[answered]}" if answered in REFUSAL_MEANINGS else ""
    status = f" (HTTP {answered}{meant})" if answered else ""
    return f"{name} was asked{beside} and gave no answer: {_outcome(attempt)}{status}."


def explain_change(facts: Facts) -> list[str]:
    """Explain a change: who requested it, what it needs, who decided."""
    lines = [f"A change of type {facts['type']} on blueprint {facts['base']}, asked for by {facts['requested_by']}."]
    lines.append(f"It is {facts['state']}.")
    lines += [f"It needs {need['duty']} of {need['subject']}." for need in facts["needs"]]
    lines += [_approval(approval) for approval in facts["approvals"]]
    return lines


def _approval(approval: Facts) -> str:
    marks = [name for name in ("unseparated", "demo") if approval[name]]
    marks += ["withdrawn"] if approval["withdrawn_at"] else []
    told = f" ({', '.join(marks)})" if marks else ""
    return f"{approval['name']} {approval['decision']} it as {approval['duty']} of {approval['subject']}{told}."


def explain_key(facts: Facts) -> list[str]:
    """Explain a key: what it may do, and its state."""
    who = f"carries the permissions of {facts['user']}" if facts["user"] else "carries nobody's permissions"
    lines = [f"A key for {facts['workload']}, made by {facts['created_by']} at {facts['created_at']}; it {who}."]
    lines.append(f"It is {facts['state']}.")
    if facts["acts_for_others"]:
        lines.append("It may name other people in groundplan-on-behalf-of.")
    return lines


def explain_blueprint(facts: Facts) -> list[str]:
    """Explain who made a blueprint, when and why."""
    lines = [
        f"Blueprint {facts['number']} was made at {facts['created_at']} by {facts['created_by']}: {facts['reason']}."
    ]
    if facts["rollback_of"]:
        lines.append(f"It has the content of blueprint {facts['rollback_of']}, decided again by the rules of that day.")
    return lines


def explain_missing_approvals(lapses: Iterable[Problem]) -> list[str]:
    """Explain which missing approvals would refuse such a call today."""
    return [_lapse(each) for each in lapses] or ["What it uses is approved now."]


def _lapse(problem: Problem) -> str:
    return f"Gateways refuse it: {problem.message}. {problem.hint}"


def explain_scope(
    subject: str, kills: list[Facts], placements: list[Placement], lapses: Iterable[Problem] = ()
) -> list[str]:
    """Explain a scope: whether it is stopped, where the workload runs and why not elsewhere, what is not approved."""
    lines = [f"{kill['scope']} is stopped since {kill['at']}: {kill['reason']}" for kill in kills]
    if not lines:
        lines.append(f"{subject} is not stopped.")
    lines += [_lapse(each) for each in lapses]
    for placement in placements:
        lines.append(f"It runs at {placement.primary or 'no deployment'}: {placement.binding}.")
        for option in placement.alternatives:
            if option.reasons:
                lines.append(f"Not at {option.deployment}: {', '.join(option.reasons)}.")
    return lines
