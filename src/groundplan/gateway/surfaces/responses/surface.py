"""`POST /v1/responses`: reads requests and serves them by a deployment's own Responses API or by its chat.

Refuses what would break the bound of a call's cost (tools that run at the provider, prompts and conversations that are
kept there). Storing responses is in `call.stored_answers`, making them in the background in `gateway.background`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from groundplan.blueprint.model import Deployment
from groundplan.core.errors import Conflict, Invalid
from groundplan.economics.prices.provider_usage import normalize_tier
from groundplan.gateway.caching.replay_forms import RESPONSES_REPLAY_FORMS, ReplayForms
from groundplan.gateway.call.ask import Ask, note_left_out
from groundplan.gateway.call.pricing import NAMED_CLASSES
from groundplan.gateway.http.splicing import replace_fields
from groundplan.gateway.surfaces import thought_signatures
from groundplan.gateway.surfaces.body import (
    UNBOUNDED_FIELDS,
    decode_value,
    read_fields,
    refuse_fields,
    unreadable_body,
)
from groundplan.gateway.surfaces.chat.annotations import marked_pages, names_of_uncited, url_citations, with_pages
from groundplan.gateway.surfaces.chat.answer_types import parse_completion
from groundplan.gateway.surfaces.chat.surface import FILE, SERVICES, TIER_HINT
from groundplan.gateway.surfaces.codec import Malformed, Relay, UpstreamAnswer
from groundplan.gateway.surfaces.file_references import NamedFile, find_file, with_files_inlined, without_fields
from groundplan.gateway.surfaces.responses import items as responses_items
from groundplan.gateway.surfaces.responses import shapes
from groundplan.gateway.surfaces.responses.request_types import Item, Part, ResponseRequest, unsupported
from groundplan.gateway.surfaces.responses.stream import (
    ResponsesChatRelay,
    ResponsesRelay,
    ResponseSummary,
    restore_request_fields,
)
from groundplan.gateway.surfaces.responses.to_chat import ENCRYPTED_REASONING, REASONING_SUMMARY, Translation
from groundplan.gateway.surfaces.upstream_json import decode_upstream, refuse_encoding
from groundplan.gateway.surfaces.via_chat import (
    ServedViaChat,
    ViaChat,
    chat_request,
    eligible_deployments,
    served_natively,
)
from groundplan.gateway.upstream import provider_refusals, providers
from groundplan.ledger.model import Usage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from groundplan.gateway.http.server import Request

_REFUSED_FIELDS = UNBOUNDED_FIELDS | {
    "best_of", "n", "max_tokens", "max_completion_tokens",
    "conversation", "prompt", "context_management", "image", "moderation", "background_options",
}  # fmt: skip
_NULL = msgspec.Raw(b"null")
_CODEX_FIELD = "client_metadata"
"""A field with which Codex describes itself in each of its requests."""
_SUMMARY = REASONING_SUMMARY.encode()
_SEALED_FIELD = b'"encrypted_content"'
_encode = msgspec.json.Encoder().encode
_request_decoder = msgspec.json.Decoder(ResponseRequest)
_response = msgspec.json.Decoder(ResponseSummary).decode


class RequestState:
    """The state of one request (`Ask.parsed`), with its translation to chat once that is needed. `store`: whether the
    caller wants the response stored; `previous_id`: the response that this one continues."""

    __slots__ = (
        "_body", "_translation", "background", "cannot_unseal", "has_reasoning", "has_reasoning_references",
        "original_fields", "own_input", "pinned_deployment", "previous_id", "response_id", "store", "stored",
    )  # fmt: skip

    def __init__(self, body: bytes, previous_id: str | None, *, store: bool) -> None:
        self._body = body
        self._translation: Translation | None = None
        self.response_id = shapes.new_object_id("resp")
        self.store = store
        self.stored = False
        self.background = False
        """Whether the response is made in the background: its caller does not wait for it."""
        self.previous_id = previous_id
        self.original_fields: dict[str, bytes] = {}
        """The caller's values of the fields that were changed for an upstream with its own Responses API."""
        self.own_input: object = None
        """The caller's own input, where more items were added to it; else None."""
        self.pinned_deployment = ""
        """Name of the deployment that made the response which this one continues; empty: any may serve."""
        self.has_reasoning_references = False
        """Whether the input names reasoning that only an upstream which stored it could resolve."""
        self.has_reasoning = False
        """Whether the input contains reasoning, in plain text or sealed."""
        self.cannot_unseal: tuple[str, ...] = ()
        """Names of deployments that cannot unseal the reasoning in the input, which another one sealed."""

    def translation(self) -> Translation:
        """The request translated to chat. Raises `Invalid`."""
        if self._translation is None:
            try:
                self._translation = Translation(self._body)
                self._translation.asked["previous_response_id"] = self.previous_id
            except msgspec.DecodeError as error:
                raise unreadable_body(error) from error
        return self._translation


def request_state(ask: Ask) -> RequestState:
    if not isinstance(ask.parsed, RequestState):
        raise AssertionError("not a request for a response")
    return ask.parsed


def read(body: bytes, decoder: msgspec.json.Decoder[ResponseRequest] = _request_decoder) -> Ask:
    """Parse a request. Raises `Invalid` with what is wrong with it."""
    fields, request = read_fields(body, decoder)
    _check(fields, request)
    query, images, length, needs, named = "", 0, 0, set[str](), list[str]()
    references = reasoning = found_tools = False
    items = [] if isinstance(request.input, str) or request.input is None else request.input
    for item in items:
        item.check()
        found_tools = found_tools or bool(item.tools)
        if item.only_named:
            references = True
        elif item.type == "reasoning":
            reasoning = True
        text = ""
        for part in _parts_of(item):
            part.check()
            if part.type in ("input_image", "input_file"):
                image = part.type == "input_image"
                images, length = images + image, length + part.media_bytes()
                needs.add("image" if image else FILE)
                if part.file_id is not None:
                    named.append(part.file_id)
            text += part.text
        if item.role == "user":
            query = item.content if isinstance(item.content, str) else text
    service = SERVICES[request.service_tier]
    if service in NAMED_CLASSES:
        needs.add(service)
    state = RequestState(body, request.previous_response_id, store=request.store is not False)
    state.has_reasoning_references, state.has_reasoning = references, reasoning
    state.background = request.background is True
    return Ask(
        fields=fields,
        model=request.model,
        messages=len(items) + 2,
        query=request.input if isinstance(request.input, str) else query,
        stream=bool(request.stream),
        include_usage=True,
        cap=request.max_output_tokens,
        copies=1,
        size=len(body) - length,
        needs=frozenset(needs),
        images=images,
        service=service,
        body=body,
        files=tuple(dict.fromkeys(named)),
        parsed=state,
        offers_found_tools=found_tools,
        left_out=set(),
    )


def _parts_of(item: Item) -> list[Part]:
    found = item.content if isinstance(item.content, list) else []
    return found + item.output if isinstance(item.output, list) else found


def _check(fields: dict[str, msgspec.Raw], request: ResponseRequest) -> None:
    refuse_fields(fields, _REFUSED_FIELDS)
    if not request.input and request.previous_response_id is None:
        raise Invalid("input is empty", code="input_empty", hint="Send a text or a list of items.")
    if request.max_output_tokens is not None and request.max_output_tokens < 1:
        details, hint = {"field": "max_output_tokens"}, "Use max_output_tokens of at least 1."
        raise Invalid("max_output_tokens is below 1", code="cap_range", hint=hint, details=details)
    if request.prompt_cache_options is not None:
        request.prompt_cache_options.check()
    if request.reasoning is not None:
        request.reasoning.check()
    if request.service_tier not in SERVICES:
        raise unsupported("service_tier", TIER_HINT)
    for tool in request.tools or ():
        tool.check()


def reasoning_changes(ask: Ask, deployment: Deployment) -> dict[str, bytes | None]:
    """The change to a request whose reasoning this deployment would have to have stored, or sealed."""
    state = request_state(ask)
    unread = deployment.name in state.cannot_unseal
    if not (unread or state.has_reasoning_references):
        return {}
    items = responses_items.input_items(input_of(ask))
    return {
        "input": _encode(
            responses_items.without_sealed_reasoning(items) if unread else responses_items.without_ids(items)
        )
    }


class OpenAIResponses:
    """The codec for upstreams with their own Responses API: bytes pass, a few fields are spliced in."""

    translated = False

    def path(self, deployment: Deployment) -> bytes:  # noqa: ARG002 -- the protocol's signature
        return b"/responses"

    def request_body(self, ask: Ask, deployment: Deployment, cap: int, system: list[str]) -> bytes:
        """The caller's bytes with model, cap and store spliced in, and the workload's texts before its instructions.

        Reasoning that the upstream would have to have stored is left out, since it was told to store nothing. So is
        reasoning that it said it cannot read.
        """
        changes: dict[str, bytes | None] = {
            "model": _encode(deployment.upstream_model),
            "max_output_tokens": b"%d" % cap,
            "store": b"false",
        }
        if system:
            instructions = ask.fields.get("instructions", msgspec.Raw(b"null"))
            own, request_state(ask).original_fields["instructions"] = (
                msgspec.json.decode(instructions),
                bytes(instructions),
            )
            changes["instructions"] = _encode("\n\n".join([*system, own] if isinstance(own, str) and own else system))
        if (previous := request_state(ask).previous_id) is not None:
            request_state(ask).original_fields["previous_response_id"] = _encode(previous)
        changes |= reasoning_changes(ask, deployment)
        given = changes.get("input") or bytes(ask.fields.get("input", b""))
        if (plain := thought_signatures.without_signatures(given)) is not None:
            changes["input"] = plain
        return replace_fields(ask.body, ask.fields, changes)

    def parse_answer(self, data: bytes, ask: Ask) -> UpstreamAnswer:
        """Parse a whole response. Raises `Malformed`."""
        found = decode_upstream(_response, data)
        refuse_encoding(data)
        if found.object != "response" or found.status not in ("completed", "incomplete"):
            raise Malformed("the upstream's response failed")
        if original_fields := request_state(ask).original_fields:
            data = shapes.with_request_fields(decode_upstream(shapes.fields_of, data), original_fields)
        return UpstreamAnswer(data, found.reported_usage())

    def new_relay(self, ask: Ask) -> Relay:
        return ResponsesRelay(request_state(ask).original_fields)


class ResponsesByChat(ViaChat):
    """The codec for upstreams that serve responses by their chat only."""

    droppable = providers.CACHE_FIELDS

    def chat_fields(self, ask: Ask, deployment: Deployment) -> dict[str, msgspec.Raw]:  # noqa: ARG002 -- the base's signature
        return chat_fields(ask)

    def parse_answer(self, data: bytes, ask: Ask) -> UpstreamAnswer:
        """Translate a chat completion into a response. Raises `Malformed`."""
        found, state = parse_completion(data), request_state(ask)
        choice = found.choices[0]
        annotated, pages = url_citations(choice.message.annotations), found.pages
        cited = with_pages(annotated, marked_pages(text, pages)) if (text := choice.message.text) else []
        note_left_out(
            ask, [*found.left_out, *choice.message.untranslated(), *names_of_uncited(annotated, pages, cited)]
        )
        usage = None if found.usage is None else found.usage.usage(normalize_tier(found.service_tier))
        response = shapes.new_response(state.translation().asked, state.response_id, found.model or ask.model)
        finish = choice.finish_reason or "stop"
        items = shapes.output_items(choice.message, finish, state.translation().groups, cited)
        counted = usage or Usage(input=-(-ask.size // 4), output=-(-len(_encode(items)) // 4))
        return UpstreamAnswer(_encode(shapes.finished_response(response, items, finish, counted)), usage)

    def new_relay(self, ask: Ask) -> Relay:
        state, translation = request_state(ask), request_state(ask).translation()
        return ResponsesChatRelay(
            translation.asked, state.response_id, ask.model, ask.size, translation.groups, ask.left_out
        )


def chat_fields(ask: Ask) -> dict[str, msgspec.Raw]:
    """The fields of the chat request, without model and caps. Raises `Invalid`."""
    return chat_request(request_state(ask).translation().fields)


def continued(ask: Ask, more: list[dict[str, Any]]) -> Ask:
    """The request with further items behind its input: the answer so far, and the instruction to continue it."""
    earlier = request_state(ask)
    fields: dict[str, Any] = {**ask.fields, "input": [*responses_items.input_items(input_of(ask)), *more]}
    continued_ask = read(_encode(fields))
    state = request_state(continued_ask)
    state.response_id, state.store, state.stored = earlier.response_id, earlier.store, earlier.stored
    state.previous_id, state.pinned_deployment = earlier.previous_id, earlier.pinned_deployment
    state.cannot_unseal = earlier.cannot_unseal
    state.own_input = input_of(ask) if earlier.own_input is None else earlier.own_input
    return replace(continued_ask, left_out=ask.left_out)


def _inline_file(part: dict[str, Any], files: Mapping[str, NamedFile]) -> dict[str, Any]:
    kind = part.get("type")
    if kind not in ("input_image", "input_file") or (file := find_file(files, part.get("file_id"))) is None:
        return part
    rest = without_fields(part, "file_id", "image_url", "file_data", "file_url")
    if kind == "input_image":
        return {**rest, "image_url": file.image_url()}
    return {"filename": file.name, **rest, "file_data": file.url}


def input_of(ask: Ask) -> object:
    """The decoded `input` of a request. Raises `Invalid`."""
    value: object = decode_value(ask.fields.get("input", _NULL))
    return value


def _requested_reasoning(ask: Ask) -> list[str]:
    """Names of the fields with which the caller asks for reasoning items, which chat answers do not have."""
    wanted = ["include"] if ENCRYPTED_REASONING.encode() in bytes(ask.fields.get("include", b"")) else []
    given = ask.fields.get("reasoning")
    if (
        given is not None
        and _SUMMARY in bytes(given)
        and (decode_value(given) or {}).get(REASONING_SUMMARY) is not None
    ):
        wanted.append(f"reasoning.{REASONING_SUMMARY}")
    return wanted


serves_responses = served_natively("responses")


class Responses(ServedViaChat):
    """`POST /v1/responses`"""

    name = "responses"
    grounded = True
    filters_deployments = True
    caps_output = True
    has_extra_facts = True
    can_store_answers = True
    replay_forms: ReplayForms | None = RESPONSES_REPLAY_FORMS
    _native = OpenAIResponses()
    via_chat = _via_chat = ResponsesByChat(translated=False)
    _via_service = ResponsesByChat(translated=True)

    def read(self, request: Request) -> Ask:
        return self.read_body(request.body)

    def read_body(self, body: bytes) -> Ask:
        """As `read`, of a body alone."""
        return read(body)

    def with_files(self, ask: Ask, files: Mapping[str, NamedFile]) -> Ask:
        """As the contract says; what is stored of the request keeps the ids."""
        fields = {
            **ask.fields,
            "input": with_files_inlined(ask.fields["input"], lambda part: _inline_file(part, files)),
        }
        body, earlier = _encode(fields), request_state(ask)
        state = RequestState(body, earlier.previous_id, store=earlier.store)
        state.response_id, state.stored, state.background = earlier.response_id, earlier.stored, earlier.background
        state.has_reasoning_references, state.has_reasoning = earlier.has_reasoning_references, earlier.has_reasoning
        state.pinned_deployment = earlier.pinned_deployment
        state.own_input = input_of(ask) if earlier.own_input is None else earlier.own_input
        return replace(ask, fields=fields, body=b"", parsed=state)

    def shareable_events(self, ask: Ask, events: tuple[bytes, ...]) -> tuple[bytes, ...]:
        original_fields = request_state(ask).original_fields
        return tuple(restore_request_fields(data, original_fields) for data in events) if original_fields else events

    def eligible_deployments(self, ask: Ask, deployments: tuple[Deployment, ...]) -> tuple[Deployment, ...]:
        """The deployments that serve responses themselves, and the others if the request can be translated to chat. A
        request that asks for reasoning items, or sends some back, is served by chat only where no other deployment is
        left. Raises `Invalid`, `Conflict`."""
        found = self.pinned(ask, deployments)
        own = tuple(deployment for deployment in found if serves_responses(deployment))
        if own and (request_state(ask).has_reasoning or _requested_reasoning(ask)):
            return own
        return eligible_deployments(ask, found, serves_responses, chat_fields, providers.CACHE_FIELDS)

    def pinned(self, ask: Ask, deployments: tuple[Deployment, ...]) -> tuple[Deployment, ...]:
        """The deployment that made the response which this one continues, otherwise all. Raises `Conflict`."""
        pinned = request_state(ask).pinned_deployment
        found = tuple(deployment for deployment in deployments if pinned in ("", deployment.name))
        if not found:
            raise Conflict(
                "the deployment that made the earlier response may not be used for this call",
                code="response_deployment",
                hint="Name its model, or send the earlier items in input.",
            )
        return found

    def drop_sealed_reasoning(self, ask: Ask, deployment: Deployment) -> bool:
        state = request_state(ask)
        if deployment.name in state.cannot_unseal or _SEALED_FIELD not in bytes(ask.fields.get("input", b"")):
            return False
        state.cannot_unseal = (*state.cannot_unseal, deployment.name)
        return True

    def extra_facts(self, ask: Ask, deployment: Deployment) -> dict[str, object]:
        """Whether the response was stored, unless the caller did not want that, which fields were left out for its
        deployment, and what of the answer."""
        state = request_state(ask)
        stored: dict[str, object] = {"store": state.stored} if state.store else {}
        left_out = list[str]()
        if not serves_responses(deployment):
            translation = state.translation()
            left_out += _requested_reasoning(ask) + providers.fields_to_drop(
                translation.fields, deployment, providers.CACHE_FIELDS
            )
            left_out += sorted(translation.left_out)
        unread = deployment.name in state.cannot_unseal or (state.has_reasoning and not serves_responses(deployment))
        left_out += ["reasoning"] if state.has_reasoning_references or unread else []
        left_out += [] if serves_responses(deployment) else sorted(ask.left_out or ())
        return stored | {"left_out": left_out} if left_out else stored

    def error_event(self, ask: Ask, status: int, error: bytes) -> bytes:
        """A prompt that is too long, for Codex: it shortens the conversation only where a stream says so, as OpenAI's
        does."""
        if (
            not ask.stream
            or _CODEX_FIELD not in ask.fields
            or not (why := provider_refusals.prompt_too_long(status, error))
        ):
            return b""
        return shapes.failed_stream(request_state(ask).response_id, ask.model, provider_refusals.TOO_LONG_CODES[0], why)

    def serves_natively(self, deployment: Deployment) -> bool:
        return serves_responses(deployment)


RESPONSES = Responses()
BACKGROUND_RESPONSES = Responses()
"""The surface of responses that are made in the background."""
