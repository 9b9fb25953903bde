"""Reads the events of `/v1/realtime`, and refuses or changes some of the caller's. Pure.

What an event begins, and what is billed for it, is decided in `conversation`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote

import msgspec

from groundplan.core.errors import Invalid
from groundplan.economics.prices.provider_usage import ChatUsage, RealtimeUsage
from groundplan.gateway.call.identify import KEY_HEADERS
from groundplan.gateway.http.strict_json import (
    DECODE_ERRORS,
    check_complexity,
    check_duplicate_names,
    check_item_spelling,
    check_name_spelling,
)
from groundplan.gateway.surfaces.body import REDIRECTING_FIELDS, image_bytes
from groundplan.gateway.upstream import provider_refusals
from groundplan.ledger.model import Usage

if TYPE_CHECKING:
    from groundplan.blueprint.model import Deployment
    from groundplan.gateway.policy.catalog import Plan

HINT = "See docs/tasks.md."
RESPONSE_TRIGGERS = frozenset({"response.create", "input_audio_buffer.append", "input_audio_buffer.commit"})
"""Types of client events after which the model may begin a response."""
TURN_EVENTS = frozenset({"input_audio_buffer.speech_started", "input_audio_buffer.committed"})
"""Types of events by which an upstream says that a turn began, or was committed."""
_VLLM_PREFIX = "transcription."
"""Prefix of the event types of vLLM, which only transcribes; other upstreams' events of a response begin with
`response.`."""
RESPONSE_ENDS = frozenset({"response.done", "transcription.done"})
TRANSCRIPTION_PREFIX = "conversation.item.input_audio_transcription."
"""Prefix of the types of transcript events; they come in addition to those of responses."""
TRANSCRIPTION_COMPLETED, TRANSCRIPTION_FAILED = f"{TRANSCRIPTION_PREFIX}completed", f"{TRANSCRIPTION_PREFIX}failed"
CAP_FIELDS = ("max_output_tokens", "max_response_output_tokens", "max_tokens")
"""Fields that cap the tokens of an answer: in the current API, in the beta, and at Qwen-Omni."""
_EVENT_FIELDS = frozenset({"type", "session", "response", "item", "audio", "model"})
_SESSION_FIELDS = frozenset(
    {
        "audio",
        "input",
        "input_audio_transcription",
        "tools",
        "prompt",
        "model",
        "turn_detection",
        "tracing",
        "service_tier",
        *CAP_FIELDS,
    }
)
"""Fields of an event, and of a session or a response in it, that decide something here."""
_DECISIVE_FIELDS = _SESSION_FIELDS | REDIRECTING_FIELDS
_STANDARD_TIERS = (None, "auto", "default")
_PASSED_PARAMETERS = ("temperature", "voice")
"""Query parameters besides the model that are passed on, as guides of telephone providers use them; they are free."""
_KEY_PROTOCOL = b"openai-insecure-api-key."
MAX_WAITING_SIZE = 512 << 10
"""Characters of a request for a response that may wait for the active one."""
CLEAR, CANCEL = '{"type":"input_audio_buffer.clear"}', '{"type":"response.cancel"}'
CLEARED = "input_audio_buffer.cleared"


_NULL = msgspec.Raw(b"null")
_REFUSALS = {"invalid_api_key": provider_refusals.UNKNOWN_KEY, "rate_limit_exceeded": provider_refusals.BUSY}
_UPSTREAM_FAILED = 503


class _UsageReport(msgspec.Struct, frozen=True):
    usage: RealtimeUsage | None = None


class _Error(msgspec.Struct, frozen=True):
    message: str = ""
    code: Any = None
    type: Any = None


class _Details(msgspec.Struct, frozen=True):
    error: _Error | None = None


class _EndedResponse(msgspec.Struct, frozen=True):
    status: Any = None
    status_details: Any = None
    """An object; at xAI a string."""


class ServerEvent(msgspec.Struct, frozen=True):
    type: str
    response: msgspec.Raw = _NULL
    session: msgspec.Raw = _NULL
    error: msgspec.Raw = _NULL
    usage: msgspec.Raw = _NULL

    @property
    def concerns_response(self) -> bool:
        """Whether the event is about a response."""
        return self.type.startswith(("response.", _VLLM_PREFIX))


read_server = msgspec.json.Decoder(ServerEvent).decode
_usage_report = msgspec.json.Decoder(_UsageReport).decode
_chat_usage = msgspec.json.Decoder(ChatUsage).decode
_error = msgspec.json.Decoder(_Error).decode
_ended_response = msgspec.json.Decoder(_EndedResponse).decode
_client_event = msgspec.json.Decoder(dict[str, Any]).decode


def requested_model(target: bytes) -> str:
    """The model in the query of a conversation's URL; `auto` where it names none. Raises `Invalid` for parameters that
    are not passed on, such as those to join a call (`call_id`) or to transcribe only (`intent`)."""
    query = _query(target)
    if (other := next((name for name in query if name not in ("model", *_PASSED_PARAMETERS)), None)) is not None:
        hint = "Connect with model alone; transcribe by /v1/audio/transcriptions."
        raise Invalid(f"{other[:60]} is not supported", code="field_unsupported", hint=hint)
    return query.get("model", ["auto"])[-1]


def passed_parameters(target: bytes) -> str:
    """The query parameters to pass on, as text behind the model's."""
    query = _query(target)
    return "".join(f"&{name}={quote(query[name][-1], safe='')}" for name in _PASSED_PARAMETERS if name in query)


def _query(target: bytes) -> dict[str, list[str]]:
    return parse_qs(target.partition(b"?")[2].decode("latin-1"))


def move_key_to_header(headers: dict[bytes, bytes]) -> None:
    """Set `Authorization` from a key among the subprotocols, where OpenAI's client puts it if its WebSockets take no
    headers. A header with a key counts before it. Raises `Invalid` for two keys: a proxy may have checked the other
    one."""
    offered = [each.strip() for each in headers.get(b"sec-websocket-protocol", b"").split(b",")]
    keys = [each.removeprefix(_KEY_PROTOCOL) for each in offered if each.startswith(_KEY_PROTOCOL)]
    if len(keys) > 1:
        raise Invalid(
            "sec-websocket-protocol has two keys",
            code="duplicate_header",
            hint=f"Offer {_KEY_PROTOCOL.decode()}KEY once.",
            details={"field": "sec-websocket-protocol"},
        )
    if keys and not any(name in headers for name in KEY_HEADERS):
        headers[b"authorization"] = b"Bearer " + keys[0]


def beta_header(headers: dict[bytes, bytes]) -> dict[str, str]:
    """The header to send for a client of the beta API (`beta.realtime`), whose events have other names."""
    offered = headers.get(b"sec-websocket-protocol", b"")
    is_beta = b"realtime=v1" in headers.get(b"openai-beta", b"") or b"openai-beta.realtime-v1" in offered
    return {"OpenAI-Beta": "realtime=v1"} if is_beta else {}


def usage_of(event: ServerEvent) -> Usage | None:
    """The usage that the final event of a response reports; None where there is none, or an impossible one."""
    try:
        report = (
            _chat_usage(event.usage) if event.type.startswith(_VLLM_PREFIX) else _usage_report(event.response).usage
        )
    except DECODE_ERRORS:
        return None
    return report.usage() if report is not None else None


def failure_status(event: ServerEvent) -> int | None:
    """As `error_status`, for a failed response; None: the response did not fail."""
    try:
        ended = _ended_response(event.response)
    except DECODE_ERRORS:
        return None
    if ended.status != "failed":
        return None
    try:
        return _status_of(msgspec.convert(ended.status_details, _Details).error)
    except msgspec.ValidationError:
        return _UPSTREAM_FAILED


def error_status(error: msgspec.Raw) -> int:
    """The HTTP status that an upstream's error amounts to; 0: it is about what the client sent."""
    try:
        return _status_of(_error(error))
    except DECODE_ERRORS:
        return _UPSTREAM_FAILED


def _status_of(error: _Error | None) -> int:
    if error is None:
        return _UPSTREAM_FAILED
    known = provider_refusals.status_of_message(error.message, error.code) or (
        _REFUSALS.get(error.code, 0) if isinstance(error.code, str) else 0
    )
    return known or (0 if error.type == "invalid_request_error" else _UPSTREAM_FAILED)


def read_client(text: str) -> dict[str, Any]:
    """Decode an event of the client strictly: it is passed on as it came, so every reader must understand it alike.
    Raises `Invalid`, `DecodeError`, `RecursionError`."""
    data = text.encode()
    check_complexity(data)
    event = _client_event(data)
    check_duplicate_names(data, 0)
    check_name_spelling(event, _EVENT_FIELDS)
    return event


def check(event: dict[str, Any]) -> None:
    """Raise `Invalid` for whatever costs something in addition to responses."""
    for part in (_object(event.get("session")), _object(event.get("response"))):
        check_name_spelling(part, _DECISIVE_FIELDS)
        _refuse_redirecting(part)
        audio_input = _object(_object(part.get("audio")).get("input"))
        for transcriber in (part.get("input_audio_transcription"), audio_input.get("transcription")):
            _refuse_redirecting(_object(transcriber))  # the transcriber is checked in `transcripts`
        _refuse_idle_timeout(part.get("turn_detection"), audio_input.get("turn_detection"))
        if part.get("service_tier") not in _STANDARD_TIERS:
            hint = "Leave it out: responses are reserved at the standard price."
            raise Invalid("service_tier is not supported", code="field_unsupported", hint=hint)
        tools = part.get("tools")
        if isinstance(tools, list) and any(not isinstance(t, dict) or t.get("type") != "function" for t in tools):
            raise Invalid("only tools of type function are supported", code="field_unsupported", hint=HINT)
        if part.get("prompt") is not None:
            hint = "It is kept at the provider, and may have tools of its own; send instructions."
            raise Invalid("prompt is not supported", code="field_unsupported", hint=hint)
    check_item_spelling(_object(event.get("response")).get("input"))
    for piece in content_parts(event):
        if piece.get("type") == "input_image" or piece.get("image_url") is not None:
            image_bytes(str(piece.get("image_url", "")))


def with_upstream_model(event: dict[str, Any], plan: Plan, deployment: Deployment) -> dict[str, Any]:
    """The event with the upstream's name of the model, where the event names it by another; else the same object.
    Raises `Invalid` for another model: some upstreams (LocalAI) switch to it, but money is reserved for this one."""
    changed = event
    for place in ("session", "response", ""):  # vLLM's own clients name it in the event itself
        part = _object(event.get(place)) if place else event
        model = part.get("model")
        if model is None or model == deployment.upstream_model:
            continue
        allowed = plan.allowed(model, deployment.kind) if isinstance(model, str) else ()
        if all(each.name != deployment.name for each in allowed):
            hint = f"Leave {place or 'event'}.model out, or connect with it."
            message = "the model of a conversation is the one that it was connected with"
            raise Invalid(message, code="field_unsupported", hint=hint)
        renamed = {**part, "model": deployment.upstream_model}
        changed = {**changed, place: renamed} if place else {**changed, "model": deployment.upstream_model}
    return changed


def with_capped_output(event: dict[str, Any], max_tokens: int) -> dict[str, Any]:
    """The event with output caps lowered to what is reserved for; the same object where none is above it. A cap that is
    no number, such as the usual `inf`, is removed, so that the session's own holds."""
    changed = event
    for place in ("session", "response"):
        part = _object(event.get(place))
        above = [
            name for name in CAP_FIELDS if name in part and not (type(part[name]) is int and part[name] <= max_tokens)
        ]
        if above:
            part = dict(part)
            for name in above:
                if type(part[name]) is int:
                    part[name] = max_tokens
                else:
                    del part[name]
            changed = {**changed, place: part}
    return changed


def may_wait(event: dict[str, Any], size: int) -> bool:
    """Whether a request for a response may wait for the active one: it is out-of-band, of which providers make several
    at once, and not too large (`size` in characters) to be kept."""
    return size <= MAX_WAITING_SIZE and _object(event.get("response")).get("conversation") == "none"


def without_tracing(event: dict[str, Any]) -> dict[str, Any]:
    """The event without `tracing`, which would store the conversation at the provider; the same object where it has
    none."""
    session = event.get("session")
    if not isinstance(session, dict) or session.get("tracing") is None:
        return event
    return {**event, "session": {name: value for name, value in session.items() if name != "tracing"}}


def content_parts(event: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The content parts of an event: of its item, and of the input items of a response."""
    input_items = _object(event.get("response")).get("input")
    for item in (event.get("item"), *(input_items if isinstance(input_items, list) else ())):
        content = _object(item).get("content")
        yield from (each for each in (content if isinstance(content, list) else ()) if isinstance(each, dict))


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _refuse_redirecting(settings: dict[str, Any]) -> None:
    """Raise `Invalid` for `REDIRECTING_FIELDS` that are set, as in every API."""
    for name in REDIRECTING_FIELDS.intersection(settings):
        if settings[name] is not None and settings[name] is not False and settings[name] != []:
            raise Invalid(f"{name} is not supported", code="field_unsupported", hint=f"Leave {name} out.")


def _refuse_idle_timeout(*settings: object) -> None:
    """Raise `Invalid` for an idle timeout, by which responses begin again and again without any input: money is
    reserved only when there is input."""
    for each in settings:
        if isinstance(each, dict) and each.get("idle_timeout_ms") is not None:
            hint = "Leave it out, and send response.create when it is to speak."
            raise Invalid("idle_timeout_ms is not supported", code="field_unsupported", hint=hint)
