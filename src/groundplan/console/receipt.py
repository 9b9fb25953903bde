"""From the API's receipt of a call to the lines that its page shows. Pure; it neither fetches nor decides."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

STEPS = ("identify", "admit", "cache", "ground", "serve", "settle")
WHAT = {
    "identify": "whose call it is",
    "admit": "allowed, and paid for",
    "cache": "answered before?",
    "ground": "passages they may read",
    "serve": "the model answers",
    "settle": "what it really cost",
}


@dataclass(frozen=True, slots=True)
class StepView:
    """One of the six steps. `ms` is how long it took, None where it was not timed; `told` is what came out of it."""

    name: str
    what: str
    reached: bool
    ms: float | None
    told: str


def steps(call: dict[str, Any]) -> tuple[StepView, ...]:
    """`call` is the answer of GET /api/calls/ID, whose steps say when each ended, in ms since the call began."""
    ended = {row["step"]: float(row["ms"]) for row in call["steps"]}
    told = _told(call)
    served = call["status"] != "refused"
    views = []
    before = 0.0
    for name in STEPS:
        at = ended.get(name)
        if name == "settle" and at is None and served and call.get("duration_ms") is not None:
            at = float(call["duration_ms"])
        views.append(StepView(name, WHAT[name], at is not None or served, _span(before, at), told[name]))
        before = before if at is None else at
    return tuple(views)


def share_used(call: dict[str, Any]) -> float:
    """How much of what was reserved was charged, 0..1."""
    reserved = Decimal(call["reserved_usd"])
    return 0.0 if reserved == 0 else float(min(Decimal(1), Decimal(call["cost_usd"]) / reserved))


def _span(before: float, at: float | None) -> float | None:
    return None if at is None else max(0.0, at - before)


def _told(call: dict[str, Any]) -> dict[str, str]:
    passages = len(call["passages"])
    tried = len(call["attempts"])
    refused = call["status"] == "refused"
    return {
        "identify": call["who"] or "the workload's own key",
        "admit": f"refused: {call['error_code']}" if refused else f"blueprint {call['blueprint']}",
        "cache": "not asked" if call["cache"] in ("none", "") else call["cache"],
        "ground": f"{passages} passage{'' if passages == 1 else 's'}" if passages else "no sources",
        "serve": _served(call, tried),
        "settle": "nothing to settle" if refused else f"{call['prompt_tokens']} + {call['completion_tokens']} tokens",
    }


def _served(call: dict[str, Any], tried: int) -> str:
    if not tried:
        return "not sent"
    if call["status"] != "ok":
        return str(call["status"])
    return str(call["deployment"]) if tried == 1 else f"{call['deployment']}, attempt {tried}"
