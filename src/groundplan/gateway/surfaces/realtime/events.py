"""Events of `/v1/realtime`: what is read of those that pass, and which of a caller's are refused. Pure.

What an event begins, and what is billed for it, is `conversation`'s.
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
    check_name_spelling,
)
from groundplan.gateway.surfaces.body import REDIRECTING_FIELDS, image_bytes
from groundplan.gateway.upstream import provider_refusals
from groundplan.ledger.model import Usage

if TYPE_CHECKING:
    from groundplan.blueprint.model import Deployment
    from groundplan.gateway.policy.catalog import Plan

HINT = "See docs/tasks.md."
BEGINS = frozenset({"response.create", "input_audio_buffer.append", "input_audio_buffer.commit"})
"""Events after which the model may begin a response."""
TURNS = frozenset({"input_audio_buffer.speech_started", "input_audio_buffer.committed"})
"""Events by which an upstream says that it hears a turn, or took what it heard for one."""
_BY_VLLM = "transcription."
"""Begins the types of its events, which only transcribe; `response.` those of all others that are of a response."""
ENDS = frozenset({"response.done", "transcription.done"})
HEARD_AS = "conversation.item.input_audio_transcription."
"""Begins the types of events that tell as text what is said; they come beside those of responses."""
HEARD_WHOLE, UNHEARD = f"{HEARD_AS}completed", f"{HEARD_AS}failed"
CAPS = ("max_output_tokens", "max_response_output_tokens", "max_tokens")
"""What the most tokens of an answer are called: now, in the API as it was before, and by Qwen-Omni."""
_EVENT = frozenset({"type", "session", "response", "item", "audio", "model"})
_SESSION = frozenset(
    {"audio", "input", "input_audio_transcription", "tools", "prompt", "model", "turn_detection", "tracing", *CAPS}
)
"""Names in an event, and in what it says of a session or a response, by which anything is decided here."""
_DECIDES = _SESSION | REDIRECTING_FIELDS
_MANNER = ("temperature", "voice")
"""Names in an address beside the model's, as the guides of telephone providers have them; they cost nothing."""
_KEY_PROTOCOL = b"openai-insecure-api-key."
CLEAR, CANCEL = '{"type":"input_audio_buffer.clear"}', '{"type":"response.cancel"}'
CLEARED = "input_audio_buffer.cleared"


_NULL = msgspec.Raw(b"null")
_REFUSALS = {"invalid_api_key": provider_refusals.UNKNOWN_KEY, "rate_limit_exceeded": provider_refusals.BUSY}
_FAILED = 503


class _Used(msgspec.Struct, frozen=True):
    usage: RealtimeUsage | None = None


class _Error(msgspec.Struct, frozen=True):
    message: str = ""
    code: Any = None
    type: Any = None


class _Details(msgspec.Struct, frozen=True):
    error: _Error | None = None


class _Ended(msgspec.Struct, frozen=True):
    status: Any = None
    status_details: Any = None
    """An object; of xAI a word."""


class ServerEvent(msgspec.Struct, frozen=True):
    type: str
    response: msgspec.Raw = _NULL
    session: msgspec.Raw = _NULL
    error: msgspec.Raw = _NULL
    usage: msgspec.Raw = _NULL

    @property
    def of_response(self) -> bool:
        """Whether a response is being made, or was."""
        return self.type.startswith(("response.", _BY_VLLM))


read_server = msgspec.json.Decoder(ServerEvent).decode
_used = msgspec.json.Decoder(_Used).decode
_counted = msgspec.json.Decoder(ChatUsage).decode
_error = msgspec.json.Decoder(_Error).decode
_ended = msgspec.json.Decoder(_Ended).decode
_client_event = msgspec.json.Decoder(dict[str, Any]).decode


def wanted(target: bytes) -> str:
    """The model that a conversation's address names; `auto` where it names none. Raises `Invalid` for whatever else is
    asked for there but `manner`: to join a call (`call_id`), or to transcribe only (`intent`)."""
    query = _query(target)
    if (other := next((name for name in query if name not in ("model", *_MANNER)), None)) is not None:
        hint = "Connect with model alone; transcribe by /v1/audio/transcriptions."
        raise Invalid(f"{other[:60]} is not supported", code="field_unsupported", hint=hint)
    return query.get("model", ["auto"])[-1]


def manner(target: bytes) -> str:
    """What an address says of how it is to be answered, as it goes on."""
    query = _query(target)
    return "".join(f"&{name}={quote(query[name][-1], safe='')}" for name in _MANNER if name in query)


def _query(target: bytes) -> dict[str, list[str]]:
    return parse_qs(target.partition(b"?")[2].decode("latin-1"))


def take_key(headers: dict[bytes, bytes]) -> None:
    """OpenAI's client for WebSockets that take no headers names its key among the subprotocols."""
    if any(name in headers for name in KEY_HEADERS):
        return
    for offered in headers.get(b"sec-websocket-protocol", b"").split(b","):
        if offered.strip().startswith(_KEY_PROTOCOL):
            headers[b"authorization"] = b"Bearer " + offered.strip().removeprefix(_KEY_PROTOCOL)


def beta(headers: dict[bytes, bytes]) -> dict[str, str]:
    """The header of a client that speaks the API as it was before (`beta.realtime`): its events have other names."""
    offered = headers.get(b"sec-websocket-protocol", b"")
    asked = b"realtime=v1" in headers.get(b"openai-beta", b"") or b"openai-beta.realtime-v1" in offered
    return {"OpenAI-Beta": "realtime=v1"} if asked else {}


def usage_of(event: ServerEvent) -> Usage | None:
    """What a response is reported to have used by the event that ends it, where that can be true."""
    try:
        told = _counted(event.usage) if event.type.startswith(_BY_VLLM) else _used(event.response).usage
    except DECODE_ERRORS:
        return None
    return told.usage() if told is not None else None


def failure_of(event: ServerEvent) -> int | None:
    """As `meant`, of a response that failed; None: it did not."""
    try:
        told = _ended(event.response)
    except DECODE_ERRORS:
        return None
    if told.status != "failed":
        return None
    try:
        return _meant(msgspec.convert(told.status_details, _Details).error)
    except msgspec.ValidationError:
        return _FAILED


def meant(error: msgspec.Raw) -> int:
    """The status that an upstream's error would have as an answer; 0: it is about what the client sent."""
    try:
        return _meant(_error(error))
    except DECODE_ERRORS:
        return _FAILED


def _meant(error: _Error | None) -> int:
    if error is None:
        return _FAILED
    known = provider_refusals.status_of_message(error.message, error.code) or (
        _REFUSALS.get(error.code, 0) if isinstance(error.code, str) else 0
    )
    return known or (0 if error.type == "invalid_request_error" else _FAILED)


def read_client(text: str) -> dict[str, Any]:
    """An event of the client, which is passed on as it came and so must mean the same to everybody. Raises `Invalid`,
    `DecodeError`, `RecursionError`."""
    data = text.encode()
    check_complexity(data)
    event = _client_event(data)
    check_duplicate_names(data, 0)
    check_name_spelling(event, _EVENT)
    return event


def check(event: dict[str, Any]) -> None:
    """Refuse what costs something beside responses. Raises `Invalid`."""
    for part in (_object(event.get("session")), _object(event.get("response"))):
        check_name_spelling(part, _DECIDES)
        _check_elsewhere(part)
        heard = _object(_object(part.get("audio")).get("input"))
        for told in (part.get("input_audio_transcription"), heard.get("transcription")):
            _check_elsewhere(_object(told))  # who makes it is `transcripts`'s
        _check_turns(part.get("turn_detection"), heard.get("turn_detection"))
        tools = part.get("tools")
        if isinstance(tools, list) and any(not isinstance(t, dict) or t.get("type") != "function" for t in tools):
            raise Invalid("only tools of type function are supported", code="field_unsupported", hint=HINT)
        if part.get("prompt") is not None:
            hint = "It is kept at the provider, and may have tools of its own; send instructions."
            raise Invalid("prompt is not supported", code="field_unsupported", hint=hint)
    for piece in pieces_of(event):
        if piece.get("type") == "input_image" or piece.get("image_url") is not None:
            image_bytes(str(piece.get("image_url", "")))


def as_named(event: dict[str, Any], plan: Plan, deployment: Deployment) -> dict[str, Any]:
    """The event under the upstream's name of the model, where its session names one by another; else the same object.
    Raises `Invalid` for any other model: some upstreams (LocalAI) go over to it, and money is reserved for this one."""
    made = event
    for place in ("session", "response", ""):  # vLLM's own clients name it in the event itself
        part = _object(event.get(place)) if place else event
        named = part.get("model")
        if named is None or named == deployment.upstream_model:
            continue
        allowed = plan.allowed(named, deployment.kind) if isinstance(named, str) else ()
        if all(each.name != deployment.name for each in allowed):
            hint = f"Leave {place or 'event'}.model out, or connect with it."
            told = "the model of a conversation is the one that it was connected with"
            raise Invalid(told, code="field_unsupported", hint=hint)
        renamed = {**part, "model": deployment.upstream_model}
        made = {**made, place: renamed} if place else {**made, "model": deployment.upstream_model}
    return made


def bounded(event: dict[str, Any], most: int) -> dict[str, Any]:
    """The event with no more tokens of an answer than are reserved for; the same object where it has none. Whatever is
    no number, as the usual `inf`, leaves what the session has, which is no more."""
    made = event
    for place in ("session", "response"):
        part = _object(event.get(place))
        above = [name for name in CAPS if name in part and not (type(part[name]) is int and part[name] <= most)]
        if above:
            part = dict(part)
            for name in above:
                if type(part[name]) is int:
                    part[name] = most
                else:
                    del part[name]
            made = {**made, place: part}
    return made


def is_aside(event: dict[str, Any]) -> bool:
    """Whether a response is asked for that is none of the conversation, of which providers make several at once."""
    return _object(event.get("response")).get("conversation") == "none"


def untraced(event: dict[str, Any]) -> dict[str, Any]:
    """The event without a wish that the provider keep what is said, in its traces: nothing is kept there. The same
    object where it has none."""
    session = event.get("session")
    if not isinstance(session, dict) or session.get("tracing") is None:
        return event
    return {**event, "session": {name: value for name, value in session.items() if name != "tracing"}}


def pieces_of(event: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What is sent in, piece by piece: of an item of the conversation, and of those that one response is made of."""
    given = _object(event.get("response")).get("input")
    for item in (event.get("item"), *(given if isinstance(given, list) else ())):
        content = _object(item).get("content")
        yield from (each for each in (content if isinstance(content, list) else ()) if isinstance(each, dict))


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _check_elsewhere(settings: dict[str, Any]) -> None:
    """Refuse by which an upstream searches, or asks somebody else, as in every API. Raises `Invalid`."""
    for name in REDIRECTING_FIELDS.intersection(settings):
        if settings[name] is not None and settings[name] is not False and settings[name] != []:
            raise Invalid(f"{name} is not supported", code="field_unsupported", hint=f"Leave {name} out.")


def _check_turns(*settings: object) -> None:
    """Refuse responses that begin by themselves, again and again, though nothing is sent in: money for one is taken
    when something is. Raises `Invalid`."""
    for each in settings:
        if isinstance(each, dict) and each.get("idle_timeout_ms") is not None:
            hint = "Leave it out, and send response.create when it is to speak."
            raise Invalid("idle_timeout_ms is not supported", code="field_unsupported", hint=hint)
