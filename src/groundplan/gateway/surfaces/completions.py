"""`POST /v1/completions`, the older text API: served by an upstream's own completions, or by its chat.

Chat cannot express `echo`, `suffix`, `logprobs`, `best_of` and several prompts: without a deployment that serves
completions these are refused by name. Tokens belong to one model: prompts given as tokens go only to deployments of
that model, and nothing of the workload's can be put before them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from groundplan.blueprint.model import Deployment
from groundplan.core.errors import Invalid
from groundplan.economics.price import AUTO
from groundplan.economics.prices.provider_usage import ChatUsage, normalize_tier
from groundplan.gateway.caching.replay_forms import COMPLETIONS_REPLAY_FORMS
from groundplan.gateway.call.ask import Ask, note_left_out
from groundplan.gateway.http.splicing import replace_fields
from groundplan.gateway.http.sse import END, append_field, format_event
from groundplan.gateway.surfaces.body import (
    UNBOUNDED_FIELDS,
    has_tokens,
    read_fields,
    refuse_fields,
    stream_options_with_usage,
)
from groundplan.gateway.surfaces.chat.annotations import CITATIONS_LEFT_OUT, names_of_uncited
from groundplan.gateway.surfaces.chat.answer_types import (
    AnswerMessage,
    Chunk,
    Completion,
    Delta,
    parse_chunk,
    parse_completion,
)
from groundplan.gateway.surfaces.chat.chunk import NULL, remove_usage
from groundplan.gateway.surfaces.chat.surface import MAX_COPIES
from groundplan.gateway.surfaces.chat.whole_messages import WholeMessages
from groundplan.gateway.surfaces.codec import Malformed, Relay, UpstreamAnswer
from groundplan.gateway.surfaces.openai_relay import OpenAIRelay, refuse_failure, refuse_unfinished
from groundplan.gateway.surfaces.upstream_json import STREAM, decode_upstream, refuse_encoding
from groundplan.gateway.surfaces.via_chat import ServedViaChat, ViaChat, eligible_deployments, served_natively
from groundplan.gateway.upstream import providers
from groundplan.ledger.model import Usage

if TYPE_CHECKING:
    from groundplan.gateway.http.server import Request

DEFAULT_TOKENS = 16
"""The default of `max_tokens`, as OpenAI's."""
MAX_PROMPTS = 256
Prompt = str | list[int]
"""A text, or its tokens."""
_TO_CHAT = (
    "stream", "stream_options", "n", "temperature", "top_p", "stop", "presence_penalty", "frequency_penalty", "seed",
    "logit_bias", "user",
)  # fmt: skip
_FINISHES = {"length": "length", "content_filter": "content_filter"}
_UNSET_VALUES = (b"null", b"false", b'""')
_DEFAULT_VALUES = frozenset({("best_of", b"1"), ("presence_penalty", b"0"), ("frequency_penalty", b"0")})
"""Fields with their default values, as many clients send them."""
_encode = msgspec.json.Encoder().encode

_REFUSED_FIELDS = UNBOUNDED_FIELDS | {"max_completion_tokens", "max_output_tokens"}


class _Options(msgspec.Struct, frozen=True):
    include_usage: bool = False


class _Request(msgspec.Struct, frozen=True):
    model: str
    prompt: str | list[str | int | list[int]]
    stream: bool | None = None
    stream_options: _Options | None = None
    max_tokens: int | None = None
    n: int | None = None
    best_of: int | None = None


class _Choice(msgspec.Struct, frozen=True):
    index: int = 0
    text: str = ""
    finish_reason: str | None = None


class _Chunk(msgspec.Struct, frozen=True):
    choices: list[_Choice] = []
    usage: ChatUsage | None = None
    error: msgspec.Raw = NULL


_request_decoder = msgspec.json.Decoder(_Request)
_chunk = msgspec.json.Decoder(_Chunk).decode


def read(body: bytes) -> Ask:
    """Parse a request. Raises `Invalid` with what is wrong with it."""
    fields, request = read_fields(body, _request_decoder)
    refuse_fields(fields, _REFUSED_FIELDS)
    prompts = _split_prompts(request.prompt)
    if not 1 <= len(prompts) <= MAX_PROMPTS:
        raise Invalid(f"there are {len(prompts)} prompts", code="prompts_range", hint=f"Send 1 to {MAX_PROMPTS}.")
    copies = max(1 if request.n is None else request.n, 1 if request.best_of is None else request.best_of)
    if not 1 <= copies <= MAX_COPIES or (request.n is not None and request.n < 1):
        raise Invalid("n or best_of is out of range", code="copies_range", hint=f"Use 1 to {MAX_COPIES}.")
    cap = DEFAULT_TOKENS if request.max_tokens is None else request.max_tokens
    if cap < 1:
        raise Invalid("the output cap is below 1", code="cap_range", hint="Use max_tokens of at least 1.")
    return Ask(
        fields=fields,
        model=request.model,
        messages=len(prompts),
        query=last if isinstance(last := prompts[-1], str) else "",
        stream=bool(request.stream),
        include_usage=request.stream_options is not None and request.stream_options.include_usage,
        cap=cap,
        copies=copies * len(prompts),
        size=len(body),
        extra_tokens=sum(len(each) for each in prompts if not isinstance(each, str)),
        service=AUTO,
        body=body,
        parsed=prompts,
        left_out=set(),
    )


def _split_prompts(prompt: str | list[str | int | list[int]]) -> list[Prompt]:
    """The prompts, given as a text, several texts, the tokens of one prompt, or of several. Raises `Invalid` where
    texts and tokens are mixed."""
    if isinstance(prompt, str):
        return [prompt]
    texts = [each for each in prompt if isinstance(each, str)]
    lists = [each for each in prompt if isinstance(each, list)]
    tokens = [each for each in prompt if isinstance(each, int)]
    if len(prompt) not in (len(texts), len(lists), len(tokens)):
        hint = "Send texts only, or tokens only."
        raise Invalid("texts and tokens are mixed in prompt", code="content_unsupported", hint=hint)
    return [*texts] if len(texts) == len(prompt) else [*lists] if lists else [tokens]


class Unfinished(msgspec.Struct, frozen=True):
    """A prompt whose answer broke off and is to be continued: the answer so far (`text_so_far`), and the
    instruction for chat."""

    prompt: str
    text_so_far: str
    instruction: str


def prompts_of(ask: Ask) -> list[Prompt]:
    if isinstance(ask.parsed, Unfinished):
        return [ask.parsed.prompt + ask.parsed.text_so_far]
    if not isinstance(ask.parsed, list):
        raise AssertionError("not a request for a completion")
    return ask.parsed


class CompletionsRelay(OpenAIRelay):
    """A stream of completions: the chunk that finishes the last text is held back. Complete when every text that began
    has ended and, unless the upstream said that nothing follows, as many ended as were requested."""

    __slots__ = ("_begun", "_ended", "_held", "_include_usage", "_texts", "_tier")

    def __init__(self, include_usage: bool, texts: int) -> None:
        super().__init__()
        self._include_usage = include_usage
        self._texts = texts
        self._begun: set[int] = set()
        self._ended: set[int] = set()
        self._held: bytes | None = None
        self._tier: object = None
        """The service tier that a chat named last; completions themselves name none."""

    def _feed(self, data: bytes) -> bytes:
        found = decode_upstream(_chunk, data, STREAM)
        self.output_bytes += sum(len(choice.text.encode()) for choice in found.choices)
        refuse_failure(self, found, data, self._tier, copies=self._texts)
        if found.usage is not None:
            self.usage = found.usage.usage(normalize_tier(self._tier)) or self.usage
            if not self._include_usage:
                if not found.choices:
                    return b""
                data = remove_usage(data)
        self._begun.update(choice.index for choice in found.choices)
        self._ended.update(choice.index for choice in found.choices if choice.finish_reason)
        earlier = b"" if self._held is None else format_event(self._held)
        self._held = data if self._all_ended else None
        return earlier if self._all_ended else earlier + format_event(data)

    @property
    def _all_ended(self) -> bool:
        """Whether every text that began has ended."""
        return bool(self._ended) and self._begun == self._ended

    @property
    def complete(self) -> bool:
        return self._all_ended and (self.done or len(self._ended) >= self._texts)

    def closing_events(self, facts: bytes) -> bytes:
        """The held chunk with the facts, then `[DONE]`."""
        return (format_event(append_field(self._held, b"groundplan", facts)) if self._held is not None else b"") + END


class ByChatRelay(CompletionsRelay):
    """Translates a chat stream into one of completions."""

    __slots__ = ("_left_out", "_model", "_whole_messages")

    def __init__(self, include_usage: bool, texts: int, model: str, left_out: set[str] | None) -> None:
        """`left_out`: see `Ask.left_out`."""
        super().__init__(include_usage, texts)
        self._model = model
        self._left_out = set[str]() if left_out is None else left_out
        self._whole_messages = WholeMessages()

    def _feed(self, data: bytes) -> bytes:
        if (chunks := self._whole_messages.as_deltas(data, self.output_bytes > 0)) is not None:
            return b"".join(map(self._feed, chunks))
        chat_chunk = parse_chunk(data)
        if chat_chunk.service_tier is not None:
            self._tier = chat_chunk.service_tier
        refuse_failure(self, chat_chunk, data, self._tier, copies=self._texts)
        choices = []
        self._left_out.update(chat_chunk.left_out)
        if chat_chunk.pages:
            self._left_out.add(CITATIONS_LEFT_OUT)
        for choice in chat_chunk.choices:
            if choice.delta is not None:
                self.output_bytes += choice.delta.reasoning_bytes
                self._left_out.update(_untranslated(choice.delta))
            text = "" if choice.delta is None else "\n".join(filter(None, (choice.delta.text, choice.delta.refusal)))
            if text or choice.finish_reason:
                finish = _FINISHES.get(choice.finish_reason, "stop") if choice.finish_reason else None
                choices.append({"index": choice.index, "text": text, "logprobs": None, "finish_reason": finish})
        usage = None if chat_chunk.usage is None else _complete_report(chat_chunk.usage)
        if not choices and usage is None:
            return b""
        chunk = {**_head(chat_chunk, self._model), "choices": choices}
        if usage is not None:
            chunk["usage"] = usage
        return super()._feed(_encode(chunk))


def _complete_report(report: ChatUsage) -> ChatUsage | None:
    """A usage report with all three counts; as it is where one is missing, None where it is impossible."""
    used = report.usage()
    if used is None or None not in (report.prompt_tokens, report.completion_tokens, report.total_tokens):
        return report if used is not None else None
    return msgspec.structs.replace(report, **_totals(used))


def _totals(usage: Usage) -> dict[str, int]:
    return {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
    }


def _usage_json(usage: Usage) -> dict[str, Any]:
    """The `usage` of a whole answer, with the details that are not zero."""
    read = {
        "cached_tokens": usage.cache_read,
        "cache_write_tokens": usage.cache_write,
        "audio_tokens": usage.input_audio,
    }
    written = {"reasoning_tokens": usage.reasoning, "audio_tokens": usage.output_audio}
    details = {"prompt_tokens_details": read, "completion_tokens_details": written}
    told = {name: {each: count for each, count in counts.items() if count} for name, counts in details.items()}
    return {**_totals(usage), **{name: counts for name, counts in told.items() if counts}}


def _head(found: Completion | Chunk, model: str) -> dict[str, Any]:
    """The fields of an answer beside its choices and usage. `model` is used where the upstream names none."""
    head = {
        "id": f"cmpl-{found.id.removeprefix('chatcmpl-')}",
        "object": "text_completion",
        "created": found.created,
        "model": found.model or model,
    }
    if isinstance(found.system_fingerprint, str):
        head["system_fingerprint"] = found.system_fingerprint
    return head


def _untranslated(message: AnswerMessage | Delta) -> list[str]:
    """Names of what a text cannot have: it was asked for without tools."""
    return message.untranslated(cites=False) + (["answer.tool_calls"] if message.tool_calls else [])


class OpenAICompletions:
    """The codec for upstreams with completions of their own: bytes pass, a few fields are spliced in."""

    translated = False

    def path(self, deployment: Deployment) -> bytes:  # noqa: ARG002 -- the protocol's signature
        return b"/completions"

    def request_body(self, ask: Ask, deployment: Deployment, cap: int, system: list[str]) -> bytes:
        """The caller's bytes with model, cap and include_usage spliced in, and the workload's texts before each
        prompt."""
        changes: dict[str, bytes | None] = {"model": _encode(deployment.upstream_model), "max_tokens": b"%d" % cap}
        if ask.stream and not ask.include_usage:
            changes["stream_options"] = stream_options_with_usage(ask.fields)
        if system:
            prompts = ["\n\n".join([*system, _text(prompt)]) for prompt in prompts_of(ask)]
            changes["prompt"] = _encode(prompts[0] if len(prompts) == 1 else prompts)
        return replace_fields(ask.body, ask.fields, changes)

    def parse_answer(self, data: bytes, ask: Ask) -> UpstreamAnswer:  # noqa: ARG002 -- the protocol's signature
        """Parse a whole answer. Raises `Malformed`."""
        found = decode_upstream(_chunk, data)
        if not found.choices:
            raise Malformed("the upstream's answer has no content")
        for choice in found.choices:
            refuse_unfinished(choice.finish_reason)
        refuse_encoding(data)
        return UpstreamAnswer(data, found.usage.usage() if found.usage is not None else None)

    def new_relay(self, ask: Ask) -> Relay:
        return CompletionsRelay(ask.include_usage, _texts(ask))


def _texts(ask: Ask) -> int:
    """How many texts an answer has; those of `best_of` are not all returned."""
    raw = bytes(ask.fields.get("n", msgspec.Raw(b"null")))
    return len(prompts_of(ask)) * (1 if raw == b"null" else int(raw))


class CompletionsByChat(ViaChat):
    """The codec for upstreams that serve completions by their chat."""

    include_usage = None

    def chat_fields(self, ask: Ask, deployment: Deployment) -> dict[str, msgspec.Raw]:  # noqa: ARG002 -- the base's signature
        return chat_fields(ask)

    def parse_answer(self, data: bytes, ask: Ask) -> UpstreamAnswer:
        """Translate a chat answer into a completion. Raises `Malformed`."""
        found = parse_completion(data)
        note_left_out(ask, [*found.left_out, *names_of_uncited([], found.pages, ())])
        note_left_out(ask, (name for choice in found.choices for name in _untranslated(choice.message)))
        choices = [
            {
                "index": choice.index,
                "text": "\n".join(filter(None, (choice.message.text, choice.message.refusal))),
                "logprobs": None,
                "finish_reason": _FINISHES.get(choice.finish_reason or "stop", "stop"),
            }
            for choice in found.choices
        ]
        made = {**_head(found, ask.model), "choices": choices}
        usage = None if found.usage is None else found.usage.usage(normalize_tier(found.service_tier))
        if usage is not None:
            made["usage"] = _usage_json(usage)
        return UpstreamAnswer(_encode(made), usage)

    def new_relay(self, ask: Ask) -> Relay:
        return ByChatRelay(ask.include_usage, ask.copies, ask.model, ask.left_out)


def chat_fields(ask: Ask) -> dict[str, msgspec.Raw]:
    """The fields of the chat request, without model and caps. Raises `Invalid`."""
    prompts = prompts_of(ask)
    if has_tokens(prompts):
        raise _untranslatable("prompt: tokens")
    if len(prompts) > 1:
        raise _untranslatable("prompt: several")
    fields = {"messages": msgspec.Raw(_encode(_messages(ask, _text(prompts[0]))))}
    for name, raw in ask.fields.items():
        value = bytes(raw)
        if name in ("model", "prompt", "max_tokens") or value in _UNSET_VALUES or (name, value) in _DEFAULT_VALUES:
            continue
        if name not in _TO_CHAT:
            raise _untranslatable(name)
        fields[name] = raw
    return fields


def _messages(ask: Ask, prompt: str) -> list[dict[str, str]]:
    unfinished = ask.parsed
    if not isinstance(unfinished, Unfinished):
        return [{"role": "user", "content": prompt}]
    return [
        {"role": "user", "content": unfinished.prompt},
        {"role": "assistant", "content": unfinished.text_so_far},
        {"role": "user", "content": unfinished.instruction},
    ]


def _untranslatable(name: str) -> Invalid:
    return providers.unsupported_field_error(name, requirement="serves completions itself")


def _text(prompt: Prompt) -> str:
    """The text of a prompt. Raises `Invalid` for tokens."""
    if isinstance(prompt, str):
        return prompt
    raise _tokens_refused()


def _tokens_refused() -> Invalid:
    """The refusal of tokens where the workload's texts have to be put before the prompt."""
    return Invalid(
        "a prompt is given as tokens, and this workload puts text of its own in front",
        code="content_unsupported",
        hint="Send the text that the tokens stand for.",
    )


serves_completions = served_natively("completions")


class Completions(ServedViaChat):
    """`POST /v1/completions`"""

    name = "completions"
    grounded = True
    filters_deployments = True
    caps_output = True
    replay_forms = COMPLETIONS_REPLAY_FORMS
    _native = OpenAICompletions()
    via_chat = _via_chat = CompletionsByChat(translated=False)
    _via_service = CompletionsByChat(translated=True)

    def read(self, request: Request) -> Ask:
        return read(request.body)

    def eligible_deployments(self, ask: Ask, deployments: tuple[Deployment, ...]) -> tuple[Deployment, ...]:
        found = eligible_deployments(ask, deployments, serves_completions, chat_fields)
        if not has_tokens(ask.parsed):
            return found
        return tuple(deployment for deployment in found if deployment.model == found[0].model)

    def serves_natively(self, deployment: Deployment) -> bool:
        return serves_completions(deployment)

    def extra_facts(self, ask: Ask, deployment: Deployment) -> dict[str, object]:
        return {} if serves_completions(deployment) else super().extra_facts(ask, deployment)

    def cost_bound(self, ask: Ask, deployment: Deployment, added: int, cap: int) -> int:
        """As its base. Raises `Invalid` for tokens where the workload adds texts."""
        if added and has_tokens(ask.parsed):
            raise _tokens_refused()
        return super().cost_bound(ask, deployment, added * ask.messages, cap)

    def estimate(self, ask: Ask, deployment: Deployment, added: int, output_bytes: int, cap: int) -> tuple[Usage, int]:
        return super().estimate(ask, deployment, added * ask.messages, output_bytes, cap)


COMPLETIONS = Completions()
