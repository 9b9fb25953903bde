"""The spans of a call, derived from its journal records: the call, its steps, its attempts. Pure.

Names and attributes are those of OpenTelemetry's GenAI conventions where there are any; ours begin with `groundplan.`.
No person, prompt, answer, passage or key is in a span. Sending them is `trace_export`'s.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import UUID

from groundplan.core.money import format_usd
from groundplan.gateway.call.trace import attempt_span, call_span, step_span
from groundplan.gateway.journal.ledger_rows import attempt_state
from groundplan.gateway.journal.recovery import Attempt, CallState
from groundplan.gateway.telemetry.conventions import OPERATIONS, provider_and_model
from groundplan.ledger.model import Finish, Reservation, Usage

SERVER, CLIENT, INTERNAL = "server", "client", "internal"
_TOOL_STEP = "tool "
"""Begins the step of a use of a tool, before `SERVER/TOOL`."""
_TOOL_ENDPOINT = "mcp"
Value = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Span:
    """Times are nanoseconds since the epoch; ids are 16 and 8 bytes. `error` is the error type."""

    trace: bytes
    id: bytes
    parent: bytes | None
    name: str
    kind: str
    start: int
    end: int
    attributes: Mapping[str, Value] = field(default_factory=dict)
    error: str = ""


def is_traced(call: CallState) -> bool:
    """Whether to trace this call: the client decides where it sent a trace context; all other calls are traced."""
    return call.finish is None or not call.finish.trace or call.finish.trace[-1] in "13579bdf"


def call_spans(call: CallState) -> list[Span]:
    """Return the span of the call first, then those below it."""
    end = call.finish
    ids = UUID(bytes=call.call)
    parent = bytes.fromhex(end.trace[36:52]) if end and end.trace else None
    trace = bytes.fromhex(end.trace[3:35]) if end and end.trace else call.call
    started, ended = _call_times(call)
    source = call.describing_record
    operation = OPERATIONS.get(source.endpoint, source.endpoint)
    status = end.status if end else "crashed"
    attributes: dict[str, Value] = {
        **_call_operation(call, operation),
        "groundplan.call.id": str(ids),
        "groundplan.workload": source.workload,
        "groundplan.endpoint": source.endpoint,
        "groundplan.status": status,
        "groundplan.blueprint": source.blueprint,
        "groundplan.cost_usd": float(format_usd(call.cost)),
    }
    error = ""
    if end is not None:
        attributes |= {"http.response.status_code": end.http_status, "groundplan.cache": end.cache}
    if status != "ok":
        error = (end.error_code if end else "") or status
        attributes["error.type"] = error
    name = f"{_TOOL_ENDPOINT if source.endpoint == _TOOL_ENDPOINT else operation} {source.workload}".strip()
    own = Span(trace, call_span(ids), parent, name, SERVER, started, ended, attributes, error)
    steps = _step_spans(ids, trace, end, started) if end else []
    attempts = [_attempt_span(ids, trace, one, operation, started) for _, one in sorted(call.attempts.items())]
    return [own, *steps, *attempts]


def _call_operation(call: CallState, operation: str) -> dict[str, Value]:
    """Return the conventions' attributes of the whole call, with the model that answered, or was asked last.

    An operation at a model needs a provider: there is none where no model was asked (refused calls, cached answers).
    The operation of a tool is on the span of its step, which has the tool's name."""
    if operation == "retrieval":
        return {"gen_ai.operation.name": operation}
    attempts = [attempt for _, attempt in sorted(call.attempts.items())]
    asked = [each for each in attempts if not each.reservation.purpose] or attempts
    answered = [each for each in asked if each.settlement is not None and each.settlement.outcome == "ok"]
    if not asked:
        return {}
    return _model_operation((answered or asked)[-1].reservation, operation)


def _model_operation(made: Reservation, operation: str) -> dict[str, Value]:
    provider, model = provider_and_model(made.model)
    attributes: dict[str, Value] = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": provider,
        "gen_ai.request.model": model,
    }
    if made.streamed:
        attributes["gen_ai.request.stream"] = True  # without it a request counts as one that is not streamed
    return attributes


def _call_times(call: CallState) -> tuple[int, int]:
    if call.finish is not None:
        end = call.finish.at * 1_000_000
        return end - call.finish.duration_us * 1000, end
    times = [attempt.reservation.at * 1_000_000 for attempt in call.attempts.values()] or [
        call.describing_record.at * 1_000_000
    ]
    return min(times), max(times)


def _step_spans(ids: UUID, trace: bytes, end: Finish, started: int) -> list[Span]:
    """Return one span for each step, from the end of the one before; `ground` as a retrieval if it found passages."""
    found: list[Span] = []
    before = 0
    times_of: Counter[str] = Counter()
    for step, at in end.steps:
        times_of[step] += 1
        attributes: dict[str, Value] = {"groundplan.step": step}
        name, kind = step, INTERNAL
        if step == "ground" and end.sources:
            name, kind = f"retrieval {end.workload}", CLIENT
            attributes |= {"gen_ai.operation.name": "retrieval", "groundplan.passages": len(end.sources)}
        elif step.startswith(_TOOL_STEP):
            name, attributes = _tool_step(step, end)
        times = (started + before * 1000, started + max(before, at) * 1000)
        own = step_span(ids, step, times_of[step])
        error = str(attributes.get("error.type", ""))
        found.append(Span(trace, own, call_span(ids), name, kind, *times, attributes, error))
        before = max(before, at)
    return found


def _tool_step(step: str, end: Finish) -> tuple[str, dict[str, Value]]:
    """Return the name and attributes of the span of a use of a tool, resource or prompt.

    A name that is not declared is the caller's own text, and so may be the address of a resource: neither is shown."""
    used = step.removeprefix(_TOOL_STEP)
    failure: dict[str, Value] = {} if end.status == "ok" else {"error.type": end.error_code or end.status}
    if end.error_code.endswith("_unknown"):
        return "tool", {"groundplan.step": "tool", **failure}
    server, _, name = used.partition("/")
    if name.startswith("resource:"):
        return f"resource {server}", {"groundplan.step": f"tool {server}/resource", **failure}
    if name.startswith("prompt:"):
        return f"prompt {used}", {"groundplan.step": step, "gen_ai.prompt.name": used, **failure}
    operation = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": used}
    return f"execute_tool {used}", {"groundplan.step": step, **operation, **failure}


def _attempt_span(ids: UUID, trace: bytes, attempt: Attempt, operation: str, started: int) -> Span:
    made, settled = attempt.reservation, attempt.settlement
    attributes = _model_operation(made, operation)
    attributes |= {
        "groundplan.deployment": made.deployment,
        "groundplan.site": made.site,
        "groundplan.attempt": made.attempt,
        "groundplan.cost_usd": float(format_usd(attempt.cost)),
    }
    outcome = settled.outcome if settled else attempt_state(attempt)
    attributes["groundplan.outcome"] = outcome
    begin = made.at * 1_000_000
    finish = begin
    error = "" if outcome == "ok" else outcome
    if settled is not None:
        if settled.started_us:
            begin = started + settled.started_us * 1000
        finish = begin + settled.duration_us * 1000
        attributes |= _usage_attributes(settled.usage)
        if settled.first_chunk_us:
            attributes["gen_ai.response.time_to_first_chunk"] = settled.first_chunk_us / 1e6
        if settled.http_status:
            attributes["http.response.status_code"] = settled.http_status
            error = str(settled.http_status) if settled.http_status >= 400 else error
        attributes |= {
            f"groundplan.{name}_ms": microseconds / 1000
            for name, microseconds in (("connect", settled.connect_us), ("first_byte", settled.first_byte_us))
            if microseconds
        }
    if error:
        attributes["error.type"] = error
    name = f"{operation} {attributes['gen_ai.request.model']}"
    return Span(trace, attempt_span(ids, made.attempt), call_span(ids), name, CLIENT, begin, finish, attributes, error)


def _usage_attributes(usage: Usage) -> dict[str, Value]:
    counted = {
        "gen_ai.usage.input_tokens": usage.input,
        "gen_ai.usage.output_tokens": usage.output,
        "gen_ai.usage.cache_read.input_tokens": usage.cache_read,
        "gen_ai.usage.cache_creation.input_tokens": usage.cache_write,
        "gen_ai.usage.reasoning.output_tokens": usage.reasoning,
    }
    return {name: count for name, count in counted.items() if count}
