"""Sentences that explain calls, changes, keys, blueprints and scopes. They only read the facts that are passed in."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from groundplan.blueprint.model import Placement
from groundplan.core.errors import Problem
from groundplan.gateway.call.attempts.failure import REFUSAL_MEANINGS
from groundplan.ledger.model import BREAKER_OPEN

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
    """Explain a receipt: the request, the course of each attempt, and the cost."""
    lines = [f"Call to {facts['workload']} at {facts['at']}, under blueprint {facts['blueprint']}."]
    if facts["who"] is not None:
        lines.append(f"It was made by {facts['who']}{' in the demo' if facts['acting'] else ''}.")
    if facts.get("key_name"):
        lines.append(f"It came with the {facts['key_name']} to {facts['endpoint']}.")
    labels = [f"the {name} {facts[name]}" for name in ("feature", "ticket") if facts.get(name)]
    if labels:
        lines.append(f"Its caller says that it is for {' and '.join(labels)}.")
    if facts.get("tool"):
        lines.append(f"It was a use of the tool {facts['tool']}.")
    ending = _ENDINGS.get(str(facts["status"]), str(facts["status"]))
    if facts["status"] == "ok" and any(step["step"] == "estimate" for step in facts.get("steps", ())):
        ending = "It was estimated, as its caller asked, and not made."
    detail = f": {facts['refusal']}" if facts.get("refusal") else ""
    code = f" Reason: {facts['error_code']}{detail}." if facts.get("error_code") else ""
    lines.append(ending + code)
    lines += [_attempt(attempt) for attempt in facts.get("attempts", ())]
    if facts["status"] != "refused":
        lines.append(f"Reserved {facts['reserved_usd']} USD, charged {facts['cost_usd']} USD.{_savings(facts)}")
    allocated = facts.get("allocated") if facts["status"] != "refused" else None
    if allocated is not None:
        carried = f"Its share of the costs allocated on {allocated['day']} is {allocated['cost_usd']} USD."
        lines.append(carried if allocated["known"] else f"{allocated['told'][:1].upper()}{allocated['told'][1:]}.")
    return lines


def _savings(facts: Facts) -> str:
    """The savings by caches: the gateway's, and the provider's own prompt cache."""
    amounts = (("saved_usd", "The cache saved"), ("prefix_saved_usd", "The provider's own cache saved"))
    return "".join(f" {words} {facts[name]} USD." for name, words in amounts if float(facts.get(name) or 0))


def _attempt(attempt: Facts) -> str:
    target = f"Attempt {attempt['number'] + 1} went to {attempt['deployment']} at {attempt['site']}"
    estimated = ", estimated" if attempt.get("estimated") else ""
    return f"{target}: {_outcome(attempt)}, {attempt['cost_usd']} USD{estimated}{_times(attempt)}."


_ERROR_FLAGS = frozenset({"no_connection", "connect_timeout", "timeout", "cut", "malformed", "no_room"})
"""Flags of an attempt that name an error which has no HTTP status."""


def _outcome(attempt: Facts) -> str:
    """How an attempt ended, with the error where no status names it."""
    error_flags = "".join(f" ({flag})" for flag in attempt.get("flags") or () if flag in _ERROR_FLAGS)
    return f"{attempt['outcome']}{error_flags}".replace("_", " ")


def _times(attempt: Facts) -> str:
    """The measured times of an attempt: start, connection, first byte, duration."""
    fields = (("began after", "started_ms"), ("connected in", "connect_ms"), ("first byte after", "first_byte_ms"))
    parts = [f"{words} {attempt[field]:.1f} ms" for words, field in fields if attempt.get(field) is not None]
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
    failed before. `routes`: the workload has a router, which chooses for callers that name no model."""
    if facts["cache"] in CACHED_REQUESTS:
        return [f"It is the answer that {CACHED_REQUESTS[facts['cache']]} got before; no model was asked."]
    if facts["status"] == "ok" and not facts["attempts"] and facts.get("endpoint") in _TEXT_ENDPOINTS:
        return ["Nothing that was found reached the floor of the workload, so no model was asked."]
    lines, route, answered = [], facts.get("route"), facts["deployment"]
    attempts: list[Facts] = facts["attempts"]
    last = next((attempt for attempt in attempts if attempt["outcome"] == "ok"), None)
    failed = [attempt for attempt in attempts if attempt["outcome"] != "ok"]
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
    lines += [f"{name} was not asked first: its circuit breaker was open." for name in _left_for_last(attempts)]
    lines += [_failed_attempt(attempt, facts, last) for attempt in failed]
    # a hedge runs in parallel to another attempt, not before it
    before = [attempt for attempt in failed if not _has_flag(attempt, "hedge")]
    if last is not None and (note := _answer_note(last, before, in_place=first != answered)):
        lines.append(f"{answered}{note}")
    return lines


def _is_placed(facts: Facts, placement: Placement) -> bool:
    """Whether placement decided about the call: embeddings, images, audio and conversations have deployments of their
    own."""
    return facts.get("endpoint") in (None, *_TEXT_ENDPOINTS) or facts["deployment"] in (
        placement.primary,
        *placement.fallbacks,
    )


def _answer_note(last: Facts, before: list[Facts], *, in_place: bool) -> str:
    """How the successful attempt `last` came about, after the failed attempts `before` it; empty if it was the first.
    `in_place`: its deployment was not the first choice for the call."""
    if _has_flag(last, "resumed"):
        return " went on from there."
    if _has_flag(last, "hedge"):
        return ", which was asked as well, answered first."
    if any(attempt["deployment"] == last["deployment"] for attempt in before):
        return " answered when it was asked again."
    return " answered in its place." if before or in_place else ""


def _has_flag(attempt: Facts, flag: str) -> bool:
    return flag in attempt.get("flags", ())


def _left_for_last(attempts: list[Facts]) -> list[str]:
    """Names of the deployments that were left for last as their breakers were open."""
    flags = dict.fromkeys(flag for attempt in attempts for flag in attempt.get("flags", ()))
    return [flag.removeprefix(BREAKER_OPEN) for flag in flags if flag.startswith(BREAKER_OPEN)]


def _failed_attempt(attempt: Facts, facts: Facts, last: Facts | None) -> str:
    """How an attempt ended that gave no answer; `last` is the successful one."""
    name, as_well = attempt["deployment"], " as well" if _has_flag(attempt, "hedge") else ""
    begun = attempt["outcome"] == "failed" and attempt["http_status"] == 200
    later = facts["attempts"][facts["attempts"].index(attempt) + 1 :]
    if begun and (any(_has_flag(item, "resumed") for item in later) or facts.get("error_code") == "stream_broken"):
        return f"{name} broke off in the middle of its answer."
    if attempt["outcome"] == "cancelled" and (winner := last or _hedge_winner(attempt, facts)) is not None:
        if as_well or _has_flag(winner, "hedge"):
            return f"{name} was asked{as_well} and had said nothing when {winner['deployment']} answered: cancelled."
    elif attempt["outcome"] == "cancelled" and facts.get("error_code") == "client_gone":
        return f"{name} was asked{as_well}, and the caller disconnected before its answer was complete: cancelled."
    answered = attempt["http_status"]
    meaning = f": {REFUSAL_MEANINGS[answered]}" if answered in REFUSAL_MEANINGS else ""
    status = f" (HTTP {answered}{meaning})" if answered else ""
    return f"{name} was asked{as_well} and gave no answer: {_outcome(attempt)}{status}."


def _hedge_winner(attempt: Facts, facts: Facts) -> Facts | None:
    """The attempt that had begun to answer when this one, hedged by it or its hedge, had said nothing."""
    if attempt.get("first_byte_ms") is not None:
        return None
    begun = (other for other in facts["attempts"] if other is not attempt and other.get("first_byte_ms") is not None)
    return next((other for other in begun if _has_flag(other, "hedge") or _has_flag(attempt, "hedge")), None)


def explain_change(facts: Facts) -> list[str]:
    """Explain a change: who requested it, which approvals it needs, who decided."""
    lines = [f"A change of type {facts['type']} on blueprint {facts['base']}, asked for by {facts['requested_by']}."]
    lines.append(f"It is {facts['state']}.")
    lines += [f"It needs {need['duty']} of {need['subject']}." for need in facts["needs"]]
    lines += [_approval(approval) for approval in facts["approvals"]]
    return lines


def _approval(approval: Facts) -> str:
    marks = [name for name in ("unseparated", "demo") if approval[name]]
    marks += ["withdrawn"] if approval["withdrawn_at"] else []
    suffix = f" ({', '.join(marks)})" if marks else ""
    return f"{approval['name']} {approval['decision']} it as {approval['duty']} of {approval['subject']}{suffix}."


def explain_key(facts: Facts, kills: Iterable[Facts] = ()) -> list[str]:
    """Explain a key: what it may do, its state, and the `kills` by which it is stopped, of it or of another key of its
    line of rotations."""
    permissions = f"carries the permissions of {facts['user']}" if facts["user"] else "carries nobody's permissions"
    lines = [
        f"A key for {facts['workload']}, made by {facts['created_by']} at {facts['created_at']}; it {permissions}."
    ]
    lines.append(f"It is {facts['state']}.")
    if facts["acts_for_others"]:
        lines.append("It may name other people in groundplan-on-behalf-of.")
    for kill in kills:
        line = "" if kill["scope"] == f"key/{facts['id']}" else ", a key of its line of rotations,"
        lines.append(f"{kill['scope']}{line} is stopped since {kill['at']}: {kill['reason']}")
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
    return [_lapse(lapse) for lapse in lapses] or ["What it uses is approved now."]


def _lapse(problem: Problem) -> str:
    return f"Gateways refuse it: {problem.message}. {problem.hint}"


def explain_scope(
    subject: str, kills: list[Facts], placements: list[Placement], lapses: Iterable[Problem] = ()
) -> list[str]:
    """Explain a scope: whether it is stopped, where the workload runs and why not elsewhere, what is not approved."""
    lines = [f"{kill['scope']} is stopped since {kill['at']}: {kill['reason']}" for kill in kills]
    if not lines:
        lines.append(f"{subject} is not stopped.")
    lines += [_lapse(lapse) for lapse in lapses]
    for placement in placements:
        lines.append(f"It runs at {placement.primary or 'no deployment'}: {placement.binding}.")
        for option in placement.alternatives:
            if option.reasons:
                lines.append(f"Not at {option.deployment}: {', '.join(option.reasons)}.")
    return lines
