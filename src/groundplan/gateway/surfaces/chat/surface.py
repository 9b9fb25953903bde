"""Chat completions: reads requests, writes bodies for OpenAI-shaped upstreams, and relays their streams.

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
from groundplan.economics.prices.provider_usage import ChatUsage, normalize_tier
from groundplan.gateway.caching.replay_forms import CHAT_REPLAY_FORMS
from groundplan.gateway.call import pricing
from groundplan.gateway.call.ask import Ask, note_left_out
from groundplan.gateway.http.splicing import replace_fields
from groundplan.gateway.surfaces.body import (
    UNBOUNDED_FIELDS,
    CacheOptions,
    Parts,
    Reasoning,
    message_parts,
    read_fields,
    refuse_fields,
    stream_options_with_usage,
)
from groundplan.gateway.surfaces.chat.call_ids import with_text_ids
from groundplan.gateway.surfaces.chat.relay import ChatRelay, CopiesRelay, ServiceRelay, take_left_out
from groundplan.gateway.surfaces.codec import Codec, Malformed, UpstreamAnswer
from groundplan.gateway.surfaces.file_references import NamedFile, find_file, with_files_inlined, without_fields
from groundplan.gateway.surfaces.interface import Interface
from groundplan.gateway.surfaces.messages.request_types import CacheControl
from groundplan.gateway.surfaces.openai_relay import refuse_unfinished
from groundplan.gateway.surfaces.upstream_json import decode_upstream, refuse_encoding
from groundplan.gateway.upstream import providers
from groundplan.gateway.upstream.translation import call_ids
from groundplan.ledger.model import Usage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from groundplan.gateway.http.server import Request

MAX_COPIES = 16
TOOL_TOKENS = 1024
"""The most tokens that a provider's own instructions add to a prompt: about tools, about one of its own tools, or about
the form of an answer."""
_INSTRUCTED_FIELDS = frozenset({"tools", "response_format", "text"})
"""Fields for which a provider may add instructions of its own. OpenAI-shaped upstreams bill only the request's own
tokens."""
_NO_NEEDS: frozenset[str] = frozenset()


_NULL = msgspec.Raw(b"null")


class _Message(msgspec.Struct, frozen=True):
    role: str
    content: msgspec.Raw = _NULL
    audio: msgspec.Raw = _NULL
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


class _EndedChoice(msgspec.Struct, frozen=True, gc=False):
    finish_reason: Any = None


class _Answer(msgspec.Struct, frozen=True):
    choices: list[_EndedChoice] | None = None
    usage: ChatUsage | None = None
    service_tier: Any = None


_chat = msgspec.json.Decoder(_Chat)
_answer = msgspec.json.Decoder(_Answer).decode
_encode = msgspec.json.Encoder().encode
_QUOTE = ord('"')
FILE = "file"
"""In `Ask.needs`: the deployment must take files."""
_REFUSED_FIELDS = UNBOUNDED_FIELDS | {
    "best_of", "max_output_tokens", "audio", "prediction", "web_search_options", "moderation",
}  # fmt: skip
_CALLER_TOOL_TYPES = ("function", "custom")
_OTHER_CAP_FIELD = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}
"""The two fields that cap the tokens of an answer, each mapped to the other."""
SERVICES = {None: AUTO, "auto": AUTO, "default": STANDARD, PRIORITY: PRIORITY, "fast": PRIORITY, FLEX: FLEX}
"""The class of service by `service_tier`; the cost of other tiers has no bound here."""
TIER_HINT = "Leave service_tier out, or use auto, default, priority or flex."


def _nested_names(chat: _Chat) -> int:
    """The number of field names in messages and stream options, as far as they are known: see `read_fields`."""
    options = chat.stream_options
    changed = [message.content for message in chat.messages]
    names = 2 * len(changed) - changed.count(_NULL)
    return names if options is None or not options.include_usage else names + 1


def read(body: bytes) -> Ask:
    """Parse a chat request. Raises `Invalid` with what is wrong with it."""
    fields, chat = read_fields(body, _chat, _nested_names)
    refuse_fields(fields, _REFUSED_FIELDS)
    service = _check_service(chat)
    if not chat.messages:
        raise Invalid("messages is empty", code="messages_empty", hint="Send at least one message.")
    question: msgspec.Raw | Parts = _NULL
    images, media, audio, files = 0, 0, 0, 0
    file_ids: list[str] = []
    for message in chat.messages:
        if message.cache_control is not None:
            message.cache_control.check()
        content = message.content
        if message.role == "user":
            question = content
        elif message.audio is not _NULL and bytes(message.audio) != b"null":
            hint = "What was said at the provider has no bound here; send its text as content."
            raise Invalid("a message that names audio by its id", code="content_unsupported", hint=hint)
        if memoryview(content)[0] == _QUOTE:
            continue  # of plain strings only the newest question is ever read
        parts = message_parts(content, media=True, thoughts=message.role == "assistant")
        if message.role == "user":
            question = parts
        if parts.media_bytes:
            images, media, audio = images + parts.images, media + parts.media_bytes, audio + parts.audio_bytes
        if parts.files:
            files += parts.files
            file_ids += parts.file_ids
    return Ask(
        fields=fields,
        model=chat.model,
        messages=len(chat.messages),
        query=question.text if isinstance(question, Parts) else message_parts(question).text,
        stream=bool(chat.stream),
        include_usage=chat.stream_options is not None and chat.stream_options.include_usage,
        cap=_output_cap(chat),
        copies=1 if chat.n is None else _check_copies(chat.n),
        size=len(body) - media,
        needs=_NO_NEEDS
        if not (media or files) and service not in pricing.NAMED_CLASSES
        else _required_features(images, audio, files, service),
        images=images,
        audio_kib=-(-audio // 1024),
        service=service,
        body=body,
        files=tuple(dict.fromkeys(file_ids)) if file_ids else (),
    )


def _check_copies(count: int) -> int:
    """Return `count`. Raises `Invalid` where it is out of range."""
    if not 1 <= count <= MAX_COPIES:
        raise Invalid(f"n is {count}", code="copies_range", hint=f"Use 1 to {MAX_COPIES}.")
    return count


def _output_cap(chat: _Chat) -> int | None:
    """The output cap: the smaller one where both fields are set. Raises `Invalid`."""
    cap, newer = chat.max_tokens, chat.max_completion_tokens
    if cap is None or (newer is not None and newer < cap):
        cap = newer
    if cap is not None and cap < 1:
        name = "max_completion_tokens" if cap == newer else "max_tokens"
        hint = f"Use {name} of at least 1."
        raise Invalid("the output cap is below 1", code="cap_range", hint=hint, details={"field": name})
    return cap


def _inline_file(part: dict[str, Any], files: Mapping[str, NamedFile]) -> dict[str, Any]:
    sent = part.get("file") if part.get("type") == "file" else None
    if not isinstance(sent, dict) or (file := find_file(files, sent.get("file_id"))) is None:
        return part
    return {
        **part,
        "file": {"filename": file.name, **without_fields(sent, "file_id", "file_data"), "file_data": file.url},
    }


def _required_features(images: int, audio: int, files: int, service: str) -> frozenset[str]:
    file_ids = {"image": images > 0, "audio": audio > 0, FILE: files > 0, service: service in pricing.NAMED_CLASSES}
    return frozenset(name for name, needed in file_ids.items() if needed)


def _check_service(chat: _Chat) -> str:
    """The class of service. Raises `Invalid` for what costs more than tokens of text, and so could break a hard
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
        raise Invalid("service_tier is not supported", code="field_unsupported", hint=TIER_HINT, details=details)
    return service


def _check_tools(tools: list[_Tool]) -> None:
    """Raise `Invalid` for a tool that may run at the provider."""
    for tool in tools:
        if tool.type not in _CALLER_TOOL_TYPES:
            changed = f"the tool {tool.type[:60]}" if tool.type else "a tool without a type"
            hint = "It may run at the provider, without a bound of cost: each of tools is of type function or custom."
            raise Invalid(
                f"{changed} is not supported", code="field_unsupported", hint=hint, details={"field": "tools"}
            )


def _check_caches(chat: _Chat) -> None:
    """Check cache settings of the whole prompt and of tools; those of messages and parts are checked in `read`. Raises
    `Invalid`."""
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
        # a cap that needs no change stays as it came
        if ask.cap != cap or field not in ask.fields or _OTHER_CAP_FIELD[field] in ask.fields:
            changes |= dict.fromkeys([name for name in _OTHER_CAP_FIELD if name in ask.fields])
            changes[field] = b"%d" % cap
        if ask.stream and providers.is_mistral_api(deployment):
            changes["stream_options"] = None  # it reports usage unasked
        elif ask.stream and not ask.include_usage:
            changes["stream_options"] = stream_options_with_usage(ask.fields)
        if "store" in ask.fields:
            changes["store"] = None if "store" in providers.refused_fields(deployment.url) else b"false"
            if "metadata" in ask.fields and bytes(ask.fields["store"]) == b"true":
                changes["metadata"] = None  # upstreams take it only with `store`
        if not ask.fields.keys().isdisjoint(providers.CACHE_FIELDS):
            changes.update(dict.fromkeys(providers.fields_to_drop(ask.fields, deployment, providers.CACHE_FIELDS)))
        if (changed := call_ids.with_chat_ids(deployment, ask.fields["messages"], ask.body)) is not None:
            changes["messages"] = changed
        if system:
            system_messages = _encode([{"role": "system", "content": text} for text in system])
            changes["messages"] = system_messages[:-1] + b"," + (changed or bytes(ask.fields["messages"]))[1:]
        return replace_fields(ask.body, ask.fields, changes)

    def parse_answer(self, data: bytes, ask: Ask) -> UpstreamAnswer:  # noqa: ARG002 -- the protocol's signature
        """A whole answer. Raises `Malformed`."""
        answer = decode_upstream(_answer, data)
        if not answer.choices:
            raise Malformed("the upstream's answer has no content")
        for choice in answer.choices:
            refuse_unfinished(choice.finish_reason)
        refuse_encoding(data)
        data = with_text_ids(data)
        return UpstreamAnswer(
            data, None if answer.usage is None else answer.usage.usage(normalize_tier(answer.service_tier))
        )

    def new_relay(self, ask: Ask) -> ChatRelay:
        relay = ChatRelay(ask.include_usage) if ask.copies == 1 else CopiesRelay(ask.include_usage, ask.copies)
        if ask.include_usage and b"continuous_usage_stats" in bytes(ask.fields.get("stream_options", b"")):
            relay.separate_usage = False
        return relay


class ServiceChat(OpenAIChat):
    """Chat by way of the local translating service, for deployments with another API."""

    translated = True

    def path(self, deployment: Deployment) -> bytes:
        return b"/%b/chat/completions" % deployment.name.encode()

    def request_body(self, ask: Ask, deployment: Deployment, cap: int, system: list[str]) -> bytes:
        if names := providers.left_out_of_request(deployment, ask.fields):
            note_left_out(ask, names)
        return super().request_body(ask, deployment, cap, system)

    def parse_answer(self, data: bytes, ask: Ask) -> UpstreamAnswer:
        return super().parse_answer(take_left_out(data, ask), ask)

    def new_relay(self, ask: Ask) -> ChatRelay:
        return ServiceRelay(ask)


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
        messages = with_files_inlined(ask.fields["messages"], lambda part: _inline_file(part, files))
        return replace(ask, fields={**ask.fields, "messages": messages}, body=b"")

    def eligible_deployments(self, ask: Ask, deployments: tuple[Deployment, ...]) -> tuple[Deployment, ...]:
        """The deployments whose API can express every field, and without the embedded model where tools are offered.
        Raises `Invalid` (`field_untranslatable`)."""
        for deployment in deployments:
            if deployment.api != "openai" or deployment.url == providers.EMBEDDED_URL:
                return providers.capable_deployments(ask.fields, deployments)
        return deployments

    def codec(self, deployment: Deployment) -> Codec:
        return self._openai if deployment.api == "openai" else self._service

    def cost_bound(self, ask: Ask, deployment: Deployment, added: int, cap: int) -> int:
        return _bound(ask, deployment, _input_tokens(ask, deployment, added), cap * ask.copies)

    def estimate(self, ask: Ask, deployment: Deployment, added: int, output_bytes: int, cap: int) -> tuple[Usage, int]:
        """The output is what was streamed, where anything was, else the cap."""
        input_tokens = _input_tokens(ask, deployment, added)
        most = cap * ask.copies
        output_tokens = min(most, pricing.text_bound(deployment, output_bytes)) if output_bytes else most
        usage = Usage(input=input_tokens, output=output_tokens, images=ask.images)
        return usage, _bound(ask, deployment, input_tokens, output_tokens)

    def token_bound(self, ask: Ask, deployment: Deployment, added: int, cap: int) -> int:
        return _input_tokens(ask, deployment, added) + cap * ask.copies

    def cost_and_token_bounds(self, ask: Ask, deployment: Deployment, added: int, cap: int) -> tuple[int, int]:
        input_tokens, output_tokens = _input_tokens(ask, deployment, added), cap * ask.copies
        return _bound(ask, deployment, input_tokens, output_tokens), input_tokens + output_tokens


def _input_tokens(ask: Ask, deployment: Deployment, added: int) -> int:
    tokens = pricing.input_bound(deployment, ask.size + added, ask.messages) + ask.extra_tokens
    if deployment.api != "openai" and not ask.extra_tokens and not _INSTRUCTED_FIELDS.isdisjoint(ask.fields):
        tokens += TOOL_TOKENS
    if not ask.needs:
        return tokens
    tokens += ask.images * deployment.image_tokens + ask.audio_kib * deployment.audio_tokens
    # the tokens of a file are bounded by the model's context window, and by nothing else
    return tokens if FILE not in ask.needs else max(tokens, deployment.context_tokens)


def _bound(ask: Ask, deployment: Deployment, input_tokens: int, output_tokens: int) -> int:
    if not ask.needs and deployment.rates.priority is None:
        return cost_bound(deployment.rates, input_tokens, output_tokens)
    return pricing.cost_bound(ask, deployment, input_tokens, output_tokens)


CHAT = ChatCompletions()
