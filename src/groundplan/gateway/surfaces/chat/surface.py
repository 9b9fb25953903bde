"""Chat completions: reading what callers send, making what OpenAI-shaped upstreams get, and relaying their streams.

Every field stays the caller's own bytes but for listed splices. Refuses what would break the bound of a call's cost
(images, audio, provider-side tools, dearer service tiers). Does not know prices or people.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from groundplan.blueprint.model import Deployment
from groundplan.core.errors import Invalid
from groundplan.economics.price import AUTO, FLEX, PRIORITY, STANDARD, cost_bound
from groundplan.economics.prices.provider_usage import normalize_tier
from groundplan.gateway.caching.replay_forms import CHAT_REPLAY_FORMS
from groundplan.gateway.call import meter
from groundplan.gateway.call.ask import Ask
from groundplan.gateway.http.splicing import replace_fields
from groundplan.gateway.surfaces.body import (
    OTHERWISE,
    CacheOptions,
    Parts,
    Reasoning,
    message_parts,
    read_fields,
    refuse_fields,
    with_usage_told,
)
from groundplan.gateway.surfaces.chat.relay import ChatRelay, CopiesRelay
from groundplan.gateway.surfaces.codec import Codec, Malformed, UpstreamAnswer
from groundplan.gateway.surfaces.file_references import NamedFile, file_of, without, written
from groundplan.gateway.surfaces.interface import Interface
from groundplan.gateway.surfaces.messages.request_types import CacheControl
from groundplan.gateway.surfaces.openai_relay import refuse_unfinished
from groundplan.gateway.surfaces.upstream_json import refuse_encoding, understood
from groundplan.gateway.upstream import providers
from groundplan.gateway.upstream.translation import call_ids
from groundplan.ledger.model import Usage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from groundplan.gateway.http.server import Request

MAX_COPIES = 16
TOOL_TOKENS = 1024
"""What a provider's own instructions about tools, about one of its own tools, or about the form of an answer add to a
prompt at most, in tokens."""
_INSTRUCTED = frozenset({"tools", "response_format", "text"})
"""Fields for which a provider may add instructions of its own; OpenAI-shaped ones count no more than what is said."""
_NOTHING: frozenset[str] = frozenset()


_ABSENT = msgspec.Raw(b"null")


class _Message(msgspec.Struct, frozen=True):
    role: str
    content: msgspec.Raw = _ABSENT
    audio: msgspec.Raw = _ABSENT
    cache_control: CacheControl | None = None


class _StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool = False


class _Function(msgspec.Struct, frozen=True):
    cache_control: CacheControl | None = None


class _Tool(msgspec.Struct, frozen=True):
    type: str = ""
    cache_control: CacheControl | None = None
    function: _Function | None = None


class _Chat(msgspec.Struct, frozen=True):
    model: str
    messages: list[_Message]
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = None
    modalities: list[str] | None = None
    tools: list[_Tool] | None = None
    service_tier: str | None = None
    prompt_cache_options: CacheOptions | None = None
    cache_control: CacheControl | None = None
    reasoning: Reasoning | None = None


class _End(msgspec.Struct, frozen=True, gc=False):
    finish_reason: Any = None


class _Answer(msgspec.Struct, frozen=True):
    choices: list[_End] | None = None
    usage: meter.ReportedUsage | None = None
    service_tier: Any = None


_chat = msgspec.json.Decoder(_Chat)
_answer = msgspec.json.Decoder(_Answer).decode
_encode = msgspec.json.Encoder().encode
_QUOTE = ord('"')
FILE = "file"
"""In what is needed of a deployment: it is sent a file."""
_UNBOUNDED = OTHERWISE | {
    "best_of", "max_output_tokens", "audio", "prediction", "web_search_options", "moderation",
}  # fmt: skip
_TOOLS = ("function", "custom")
_OTHER_CAP = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}
"""The two fields for the most tokens of an answer."""
SERVICES = {None: AUTO, "auto": AUTO, "default": STANDARD, PRIORITY: PRIORITY, "fast": PRIORITY, FLEX: FLEX}
"""The class of service that a `service_tier` asks for; others have no bound here."""
OTHER_TIER = "Leave service_tier out, or use auto, default, priority or flex."


def _nested(chat: _Chat) -> int:
    """Names in messages and stream options, as far as they are known."""
    options = chat.stream_options
    told = [message.content for message in chat.messages]
    names = 2 * len(told) - told.count(_ABSENT)
    return names if options is None or not options.include_usage else names + 1


def read(body: bytes) -> Ask:
    """A chat request. Raises `Invalid` with what is wrong with it."""
    fields, chat = read_fields(body, _chat, _nested)
    refuse_fields(fields, _UNBOUNDED)
    service = _service(chat)
    if not chat.messages:
        raise Invalid("messages is empty", code="messages_empty", hint="Send at least one message.")
    question: msgspec.Raw | Parts = _ABSENT
    images, media, heard, files = 0, 0, 0, 0
    named: list[str] = []
    for message in chat.messages:
        if message.cache_control is not None:
            message.cache_control.check()
        content = message.content
        if message.role == "user":
            question = content
        elif message.audio is not _ABSENT and bytes(message.audio) != b"null":
            hint = "What was said at the provider has no bound here; send its text as content."
            raise Invalid("a message that names audio by its id", code="content_unsupported", hint=hint)
        if memoryview(content)[0] == _QUOTE:
            continue  # only the newest question is ever read
        parts = message_parts(content, media=True, thoughts=message.role == "assistant")
        if message.role == "user":
            question = parts
        if parts.media_bytes:
            images, media, heard = images + parts.images, media + parts.media_bytes, heard + parts.audio_bytes
        if parts.files:
            files += parts.files
            named += parts.named
    return Ask(
        fields=fields,
        model=chat.model,
        messages=len(chat.messages),
        query=question.text if isinstance(question, Parts) else message_parts(question).text,
        stream=bool(chat.stream),
        include_usage=chat.stream_options is not None and chat.stream_options.include_usage,
        cap=_cap(chat),
        copies=1 if chat.n is None else _counted(chat.n),
        size=len(body) - media,
        needs=_NOTHING if not (media or files) and service not in meter.OWN else _needs(images, heard, files, service),
        images=images,
        audio_kib=-(-heard // 1024),
        service=service,
        body=body,
        files=tuple(dict.fromkeys(named)) if named else (),
    )


def _counted(count: int) -> int:
    """Raises `Invalid`."""
    if not 1 <= count <= MAX_COPIES:
        raise Invalid(f"n is {count}", code="copies_range", hint=f"Use 1 to {MAX_COPIES}.")
    return count


def _cap(chat: _Chat) -> int | None:
    """The smaller of the two, where both are given. Raises `Invalid`."""
    cap, newer = chat.max_tokens, chat.max_completion_tokens
    if cap is None or (newer is not None and newer < cap):
        cap = newer
    if cap is not None and cap < 1:
        name = "max_completion_tokens" if cap == newer else "max_tokens"
        hint = f"Use {name} of at least 1."
        raise Invalid("the output cap is below 1", code="cap_range", hint=hint, details={"field": name})
    return cap


def _with_file(part: dict[str, Any], files: Mapping[str, NamedFile]) -> dict[str, Any]:
    sent = part.get("file") if part.get("type") == "file" else None
    if not isinstance(sent, dict) or (file := file_of(files, sent.get("file_id"))) is None:
        return part
    return {**part, "file": {"filename": file.name, **without(sent, "file_id", "file_data"), "file_data": file.url}}


def _needs(images: int, heard: int, files: int, service: str) -> frozenset[str]:
    named = {"image": images > 0, "audio": heard > 0, FILE: files > 0, service: service in meter.OWN}
    return frozenset(name for name, needed in named.items() if needed)


def _service(chat: _Chat) -> str:
    """The class of service. Raises `Invalid` for what would cost more than tokens of text, and so could break a hard
    budget."""
    if chat.tools:
        _check_tools(chat.tools)
    if chat.modalities and chat.modalities != ["text"]:
        raise Invalid("only text is supported", code="field_unsupported", hint='Use modalities ["text"].')
    _check_caches(chat)
    if chat.reasoning is not None:
        chat.reasoning.check()
    if (service := SERVICES.get(chat.service_tier)) is None:
        details = {"field": "service_tier"}
        raise Invalid("service_tier is not supported", code="field_unsupported", hint=OTHER_TIER, details=details)
    return service


def _check_tools(tools: list[_Tool]) -> None:
    """Raises `Invalid` for one that may run at the provider."""
    for tool in tools:
        if tool.type not in _TOOLS:
            told = f"the tool {tool.type[:60]}" if tool.type else "a tool without a type"
            hint = "It may run at the provider, without a bound of cost: each of tools is of type function or custom."
            raise Invalid(f"{told} is not supported", code="field_unsupported", hint=hint, details={"field": "tools"})


def _check_caches(chat: _Chat) -> None:
    """Of the whole prompt and its tools; parts and messages are looked at one by one. Raises `Invalid`."""
    if chat.prompt_cache_options is not None:
        chat.prompt_cache_options.check()
    if chat.cache_control is not None:
        chat.cache_control.check()
    if not chat.tools:
        return
    for tool in chat.tools:
        if tool.cache_control is not None:
            tool.cache_control.check()
        if tool.function is not None and tool.function.cache_control is not None:
            tool.function.cache_control.check()


class OpenAIChat:
    """Chat as OpenAI-shaped upstreams speak it."""

    translated = False

    def path(self, deployment: Deployment) -> bytes:  # noqa: ARG002 -- the protocol's signature
        return b"/chat/completions"

    def request_body(self, ask: Ask, deployment: Deployment, cap: int, system: list[str]) -> bytes:
        """The caller's fields with model, cap, include_usage and leading system messages spliced in."""
        changes: dict[str, bytes | None] = {"model": _encode(deployment.upstream_model)}
        field = deployment.cap_field
        if ask.cap != cap or field not in ask.fields or _OTHER_CAP[field] in ask.fields:  # else it stays as it came
            changes |= dict.fromkeys([name for name in _OTHER_CAP if name in ask.fields])
            changes[field] = b"%d" % cap
        if ask.stream and providers.is_strict(deployment):
            changes["stream_options"] = None  # it tells usage unasked
        elif ask.stream and not ask.include_usage:
            changes["stream_options"] = with_usage_told(ask.fields)
        if "store" in ask.fields:
            changes["store"] = None if "store" in providers.refused_at(deployment.url) else b"false"
            if "metadata" in ask.fields and bytes(ask.fields["store"]) == b"true":
                changes["metadata"] = None  # of what is stored, and taken with nothing else
        if not ask.fields.keys().isdisjoint(providers.OF_CACHES):
            changes.update(dict.fromkeys(providers.left_out(ask.fields, deployment, providers.OF_CACHES)))
        if (told := call_ids.for_chat(deployment, ask.fields["messages"], ask.body)) is not None:
            changes["messages"] = told
        if system:
            lead = _encode([{"role": "system", "content": text} for text in system])
            changes["messages"] = lead[:-1] + b"," + (told or bytes(ask.fields["messages"]))[1:]
        return replace_fields(ask.body, ask.fields, changes)

    def parse_answer(self, data: bytes, ask: Ask) -> UpstreamAnswer:  # noqa: ARG002 -- the protocol's signature
        """A whole answer. Raises `Malformed`."""
        found = understood(_answer, data)
        if not found.choices:
            raise Malformed("the upstream's answer has no content")
        for choice in found.choices:
            refuse_unfinished(choice.finish_reason)
        refuse_encoding(data)
        return UpstreamAnswer(
            data, None if found.usage is None else found.usage.usage(normalize_tier(found.service_tier))
        )

    def new_relay(self, ask: Ask) -> ChatRelay:
        relay = ChatRelay(ask.include_usage) if ask.copies == 1 else CopiesRelay(ask.include_usage, ask.copies)
        if ask.include_usage and b"continuous_usage_stats" in bytes(ask.fields.get("stream_options", b"")):
            relay.apart = False
        return relay


class ServiceChat(OpenAIChat):
    """Chat as the local translating service speaks it for deployments with another API."""

    translated = True

    def path(self, deployment: Deployment) -> bytes:
        return b"/%b/chat/completions" % deployment.name.encode()


class ChatCompletions(Interface):
    """`POST /v1/chat/completions`"""

    name = "chat.completions"
    grounded = True
    filters_deployments = True
    caps_output = True
    depends_on_body_only = True
    replay_forms = CHAT_REPLAY_FORMS
    via_chat = _openai = OpenAIChat()
    _service = ServiceChat()

    def read(self, request: Request) -> Ask:
        return read(request.body)

    def with_files(self, ask: Ask, files: Mapping[str, NamedFile]) -> Ask:
        messages = written(ask.fields["messages"], lambda part: _with_file(part, files))
        return replace(ask, fields={**ask.fields, "messages": messages}, body=b"")

    def eligible_deployments(self, ask: Ask, deployments: tuple[Deployment, ...]) -> tuple[Deployment, ...]:
        """Those whose API has words for every field. Raises `Invalid` (`field_untranslatable`)."""
        for deployment in deployments:
            if deployment.api != "openai":
                return providers.able(ask.fields, deployments)
        return deployments

    def codec(self, deployment: Deployment) -> Codec:
        return self._openai if deployment.api == "openai" else self._service

    def cost_bound(self, ask: Ask, deployment: Deployment, added: int, cap: int) -> int:
        return _bound(ask, deployment, _tokens_in(ask, deployment, added), cap * ask.copies)

    def estimate(self, ask: Ask, deployment: Deployment, added: int, output_bytes: int, cap: int) -> tuple[Usage, int]:
        """What streamed is counted, otherwise the bound."""
        tokens_in = _tokens_in(ask, deployment, added)
        most = cap * ask.copies
        tokens_out = min(most, meter.text_bound(deployment, output_bytes)) if output_bytes else most
        usage = Usage(input=tokens_in, output=tokens_out, images=ask.images)
        return usage, _bound(ask, deployment, tokens_in, tokens_out)

    def token_bound(self, ask: Ask, deployment: Deployment, added: int, cap: int) -> int:
        return _tokens_in(ask, deployment, added) + cap * ask.copies

    def cost_and_token_bounds(self, ask: Ask, deployment: Deployment, added: int, cap: int) -> tuple[int, int]:
        tokens_in, tokens_out = _tokens_in(ask, deployment, added), cap * ask.copies
        return _bound(ask, deployment, tokens_in, tokens_out), tokens_in + tokens_out


def _tokens_in(ask: Ask, deployment: Deployment, added: int) -> int:
    tokens = meter.input_bound(deployment, ask.size + added, ask.messages) + ask.hidden
    if deployment.api != "openai" and not ask.hidden and not _INSTRUCTED.isdisjoint(ask.fields):
        tokens += TOOL_TOKENS
    if not ask.needs:
        return tokens
    tokens += ask.images * deployment.image_tokens + ask.audio_kib * deployment.audio_tokens
    # how much a provider reads in a file is bounded by what its model can read at all, and by nothing else
    return tokens if FILE not in ask.needs else max(tokens, deployment.context_tokens)


def _bound(ask: Ask, deployment: Deployment, tokens_in: int, tokens_out: int) -> int:
    if not ask.needs and deployment.rates.priority is None:
        return cost_bound(deployment.rates, tokens_in, tokens_out)
    return meter.most(ask, deployment, tokens_in, tokens_out)


CHAT = ChatCompletions()
