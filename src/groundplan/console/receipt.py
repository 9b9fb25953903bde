"""From the API's receipt of a call to the lines that its page shows. Pure; it neither fetches nor decides."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from groundplan.core.words import quantity

_TIMED_STEPS = ("identify", "cache", "admit", "ground", "serve")
"""As they follow each other; a receipt shows them as they are told."""
_CACHED = ("exact", "semantic", "replay")
STEPS = ("identify", "admit", "cache", "ground", "serve", "settle")
STEP_DESCRIPTIONS = {
    "identify": "whose call it is",
    "admit": "allowed, and within budget",
    "cache": "answered before?",
    "ground": "passages the person may read",
    "serve": "the model answers",
    "settle": "what it actually cost",
}


@dataclass(frozen=True, slots=True)
class StepView:
    """One of the six steps of a call. `ms` is its duration, None where it was not timed; `told` is its result."""

    name: str
    what: str
    reached: bool
    ms: float | None
    told: str


def steps(call: dict[str, Any]) -> tuple[StepView, ...]:
    """The steps of `call`, a response of GET /api/calls/ID, whose steps have their ends in ms since the call began.

    A step may end twice (an Idempotency-Key is looked up again at other workers); its durations are added.
    """
    took: dict[str, float] = {}
    before = 0.0
    for row in call["steps"]:
        took[row["step"]] = took.get(row["step"], 0.0) + max(0.0, float(row["ms"]) - before)
        before = float(row["ms"])
    told = _step_texts(call)
    reached = set(took)
    if _is_identified_untimed(call):
        reached.add("identify")
    if call["tool"] is not None and call["status"] != "refused":
        reached.update(("admit", "serve"))
    if (refusal := refusing_step(call)) is not None:
        told[refusal.name] = f"refused: {call['error_code']}"
        reached.add(refusal.name)
        if refusal.ms is not None:
            took[refusal.name] = refusal.ms
    elif call["attempts"]:  # a worker that died wrote no step down, but what was sent had passed these
        reached.update(_TIMED_STEPS)
    elif call["cache"] in _CACHED:  # checked like any other, and its passages confirmed, before it was looked up
        reached.update(("admit", "ground") if call["passages"] else ("admit",))
    what = (
        STEP_DESCRIPTIONS
        if call["tool"] is None
        else {**STEP_DESCRIPTIONS, "serve": "the tool is used", "cache": "never of a tool"}
    )
    return tuple(StepView(name, what[name], name in reached, took.get(name), told[name]) for name in STEPS)


@dataclass(frozen=True, slots=True)
class Refusal:
    """The step that refused a call. `ms`: its duration, which nothing else recorded; None where it is not known."""

    name: str
    ms: float | None


def refusing_step(call: dict[str, Any]) -> Refusal | None:
    """The step that refused `call`, None where it was not refused. Only completed steps are recorded, so this one took
    what is left of the call's duration, such as the wait for idle amounts of a budget."""
    if call["status"] != "refused":
        return None
    recorded = [row["step"] for row in call["steps"]]
    passed = {*recorded, *(("identify", "cache") if _is_identified_untimed(call) else ())}
    name = next((name for name in _TIMED_STEPS if name not in passed), "serve")
    duration = call.get("duration_ms")
    if duration is None or call["attempts"] or not recorded or "settle" in recorded:
        return Refusal(name, None)
    return Refusal(name, max(0.0, float(duration) - max(float(row["ms"]) for row in call["steps"])))


def _is_identified_untimed(call: dict[str, Any]) -> bool:
    """Whether a tool or a conversation made the call, of which this step is not recorded."""
    return call["key_id"] is not None and all(row["step"] != "identify" for row in call["steps"])


_NO_TOKENS = {
    "images": "image sent in", "images_made": "image made", "characters": "character spoken",
    "seconds": "second of audio", "searches": "search of the web",
}  # fmt: skip


def usage_text(usage: dict[str, Any]) -> str:
    """The usage of an attempt in words: `12 input, 3 output, 2 reasoning tokens; 4 images made`. Parts come last."""
    flat = {name: count for name, count in usage.items() if isinstance(count, int)} | (usage.get("details") or {})
    tokens = [f"{count} {name.replace('_', ' ')}" for name, count in flat.items() if name not in _NO_TOKENS]
    others = [_number(count, word) for name, word in _NO_TOKENS.items() if (count := flat.get(name))]
    told = [f"{', '.join(tokens)} tokens"] if tokens else [] if others else ["no tokens"]
    return "; ".join([*told, *others])


def _number(count: int, word: str) -> str:
    noun, space, rest = word.partition(" ")
    many = noun if count == 1 else f"{noun}es" if noun.endswith("ch") else f"{noun}s"
    return f"{count} {many}{space}{rest}"


def share_used(call: dict[str, Any]) -> float:
    """The charged share of the reservation, 0 to 1."""
    reserved = Decimal(call["reserved_usd"])
    return 0.0 if reserved == 0 else float(min(Decimal(1), Decimal(call["cost_usd"]) / reserved))


def _step_texts(call: dict[str, Any]) -> dict[str, str]:
    passages = len(call["passages"])
    tried = len(call["attempts"])
    refused = call["status"] == "refused"
    return {
        "identify": call["who"] or "the workload's own key",
        "admit": f"blueprint {call['blueprint']}",
        "cache": "no" if call["cache"] in ("none", "") else call["cache"],
        "ground": quantity(passages, "passage") if passages else "no sources",
        "serve": _serve_text(call, tried),
        "settle": "nothing to settle" if refused else f"{call['prompt_tokens']} + {call['completion_tokens']} tokens",
    }


def _serve_text(call: dict[str, Any], tried: int) -> str:
    if call["tool"] is not None:
        return str(call["tool"])
    if not tried:
        return "not sent"
    if call["status"] != "ok":
        return str(call["status"])
    return str(call["deployment"]) if tried == 1 else f"{call['deployment']}, attempt {tried}"
