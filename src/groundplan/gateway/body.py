"""Reading what callers send and making what upstreams get: every field stays the caller's own bytes but for listed
splices.

Refuses what would break the bound of a call's cost (images, audio, provider-side tools, dearer service tiers). Does not
know prices or people.
"""

from __future__ import annotations

from typing import Any

import msgspec

from groundplan.blueprint.model import Deployment
from groundplan.core.errors import Invalid
from groundplan.gateway.exchange import CHAT, Ask

MAX_COPIES = 16


class _Message(msgspec.Struct, frozen=True):
    role: str
    content: msgspec.Raw = msgspec.Raw(b"null")


class _StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool = False


class _Chat(msgspec.Struct, frozen=True):
    model: str
    messages: list[_Message]
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = None
    audio: Any = None
    prediction: Any = None
    web_search_options: Any = None
    modalities: list[str] | None = None
    service_tier: str | None = None


class _Embeddings(msgspec.Struct, frozen=True):
    model: str
    input: str | list[str | int | list[int]]
    encoding_format: str | None = None


class _Part(msgspec.Struct, frozen=True):
    type: str
    text: str = ""


_chat = msgspec.json.Decoder(_Chat)
_embeddings = msgspec.json.Decoder(_Embeddings)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_parts = msgspec.json.Decoder(list[_Part])
_text = msgspec.json.Decoder(str)
_raw_list = msgspec.json.Decoder(list[msgspec.Raw])
_encode = msgspec.json.Encoder().encode

_INCLUDE_USAGE = msgspec.Raw(b'{"include_usage":true}')


def read(endpoint: str, body: bytes) -> Ask:
    """The caller's body. Raises `Invalid` with what is wrong with it."""
    try:
        if not body.isascii():
            body.decode("utf-8")
        fields = _fields.decode(body)
        return _read_chat(fields, body) if endpoint == CHAT else _read_embeddings(fields, body)
    except UnicodeDecodeError as error:
        raise Invalid("the body is not UTF-8", code="body_encoding", hint="Send JSON in UTF-8.") from error
    except msgspec.ValidationError as error:
        raise Invalid(
            f"the body has a wrong field: {error}", code="body_invalid", hint="See the OpenAI API."
        ) from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise Invalid(f"the body is not JSON: {error}", code="body_not_json", hint="Send a JSON object.") from error


def _read_chat(fields: dict[str, msgspec.Raw], body: bytes) -> Ask:
    chat = _chat.decode(body)
    _refuse_unbounded(chat)
    if not chat.messages:
        raise Invalid("messages is empty", code="messages_empty", hint="Send at least one message.")
    query = ""
    for message in chat.messages:
        text = content_text(message.content)
        if message.role == "user":
            query = text
    copies = 1 if chat.n is None else chat.n
    if not 1 <= copies <= MAX_COPIES:
        raise Invalid(f"n is {copies}", code="copies_range", hint=f"Use 1 to {MAX_COPIES}.")
    caps = [cap for cap in (chat.max_tokens, chat.max_completion_tokens) if cap is not None]
    if any(cap < 1 for cap in caps):
        raise Invalid("the output cap is below 1", code="cap_range", hint="Use max_tokens of at least 1.")
    return Ask(
        fields=fields,
        model=chat.model,
        messages=len(chat.messages),
        query=query,
        stream=bool(chat.stream),
        include_usage=chat.stream_options is not None and chat.stream_options.include_usage,
        cap=min(caps) if caps else None,
        copies=copies,
        size=len(body),
    )


def _refuse_unbounded(chat: _Chat) -> None:
    """What would cost more than tokens of text, and so could break a hard budget."""
    named = (("audio", chat.audio), ("prediction", chat.prediction), ("web_search_options", chat.web_search_options))
    for name, value in named:
        if value is not None:
            raise Invalid(f"{name} is not supported", code="field_unsupported", hint=f"Leave {name} out.")
    if chat.modalities and chat.modalities != ["text"]:
        raise Invalid("only text is supported", code="field_unsupported", hint='Use modalities ["text"].')
    if chat.service_tier not in (None, "auto", "default"):
        raise Invalid("service_tier is not supported", code="field_unsupported", hint="Leave service_tier out.")


def content_text(content: msgspec.Raw) -> str:
    """Text of a message's content: a string, a list of text parts, or null. Raises `Invalid` for other parts."""
    raw = bytes(content)
    if raw.startswith(b'"'):
        return _text.decode(raw)
    if raw == b"null":
        return ""
    parts = _parts.decode(raw)
    for part in parts:
        if part.type not in ("text", "refusal"):
            raise Invalid(
                f"content of type {part.type[:40]} is not supported", code="content_unsupported", hint="Send text only."
            )
    return " ".join(part.text for part in parts)


def _read_embeddings(fields: dict[str, msgspec.Raw], body: bytes) -> Ask:
    asked = _embeddings.decode(body)
    if not asked.input:
        raise Invalid("input is empty", code="input_empty", hint="Send a text or a list of texts.")
    inputs = 1 if isinstance(asked.input, str) else len(asked.input)
    return Ask(
        fields=fields, model=asked.model, messages=inputs, query="", stream=False, include_usage=False, cap=0, copies=1,
        size=len(body),
    )  # fmt: skip


def forward(ask: Ask, deployment: Deployment, cap: int, system: list[str]) -> bytes:
    """Body for the upstream: the caller's fields with model, cap, include_usage and leading system messages spliced
    in."""
    fields: dict[str, Any] = dict(ask.fields)
    fields["model"] = deployment.upstream_model
    if deployment.kind == "embeddings":
        return _encode(fields)
    fields.pop("max_tokens", None)
    fields.pop("max_completion_tokens", None)
    fields[deployment.cap_field] = cap
    if ask.stream:
        fields["stream_options"] = _INCLUDE_USAGE
    if system:
        lead = [{"role": "system", "content": text} for text in system]
        fields["messages"] = [*lead, *_raw_list.decode(fields["messages"])]
    return _encode(fields)
