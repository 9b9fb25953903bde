"""`POST /v1/responses`: reading what callers send, and asking a deployment for it, by its own Responses or by chat.

Refuses what would break the bound of a call's cost (tools that run at the provider, prompts and conversations that are
kept there). How responses are stored and found again is in `call.stored_answers`, and how they are made while nobody
waits in `gateway.background`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from groundplan.blueprint.model import Deployment
from groundplan.core.errors import Conflict, Invalid
from groundplan.economics.prices.provider_usage import normalize_tier
from groundplan.gateway.caching.replay_forms import RESPONSES_REPLAY_FORMS, ReplayForms
from groundplan.gateway.call.ask import Ask
from groundplan.gateway.call.meter import OWN
from groundplan.gateway.http.splicing import replace_fields
from groundplan.gateway.surfaces import thought_signatures
from groundplan.gateway.surfaces.body import (
    UNBOUNDED_FIELDS,
    decode_value,
    read_fields,
    refuse_fields,
    unreadable_body,
)
from groundplan.gateway.surfaces.chat.answer_types import parse_completion
from groundplan.gateway.surfaces.chat.surface import FILE, SERVICES, TIER_HINT
from groundplan.gateway.surfaces.codec import Malformed, Relay, UpstreamAnswer
from groundplan.gateway.surfaces.file_references import NamedFile, find_file, with_files_inlined, without_fields
from groundplan.gateway.surfaces.responses import items as responses_items
from groundplan.gateway.surfaces.responses import shapes
from groundplan.gateway.surfaces.responses.request_types import Asked, Item, Part, unsupported
from groundplan.gateway.surfaces.responses.stream import (
    ResponsesChatRelay,
    ResponsesRelay,
    Whole,
    as_asked,
)
from groundplan.gateway.surfaces.responses.to_chat import ENCRYPTED, SUMMARY, Translation
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

_UNBOUNDED = UNBOUNDED_FIELDS | {
    "best_of", "n", "max_tokens", "max_completion_tokens",
    "conversation", "prompt", "context_management", "image", "moderation", "background_options",
}  # fmt: skip
_NONE = msgspec.Raw(b"null")
_OF_CODEX = "client_metadata"
"""A field of Codex about itself, in each of its requests."""
_SUMMARY = SUMMARY.encode()
_SEALED = b'"encrypted_content"'
_encode = msgspec.json.Encoder().encode
_asked = msgspec.json.Decoder(Asked)
_whole = msgspec.json.Decoder(Whole).decode


class Told:
    """A request, and its translation once that is needed. `store`: the caller wants it kept."""

    __slots__ = (
        "_body", "_made", "asked", "background", "given", "name", "only_named", "pinned", "previous", "store", "stored",
        "thought", "unread",
    )  # fmt: skip

    def __init__(self, body: bytes, previous: str | None, *, store: bool) -> None:
        self._body = body
        self._made: Translation | None = None
        self.name = shapes.new_name("resp")
        self.store = store
        self.stored = False
        self.background = False
        """Its caller does not wait for it."""
        self.previous = previous
        self.asked: dict[str, bytes] = {}
        """Of its fields those that a deployment which has responses is asked otherwise."""
        self.given: object = None
        """The caller's own input, where more was put behind it."""
        self.pinned = ""
        """Deployment that made the response which this one goes on with."""
        self.only_named = False
        """Its input has reasoning that an upstream would have to have kept."""
        self.thought = False
        """Its input has reasoning itself, in the clear or sealed."""
        self.unread: tuple[str, ...] = ()
        """Deployments that cannot read the reasoning in it, which another one sealed."""

    def translation(self) -> Translation:
        """Raises `Invalid`."""
        if self._made is None:
            try:
                self._made = Translation(self._body)
                self._made.asked["previous_response_id"] = self.previous
            except msgspec.DecodeError as error:
                raise unreadable_body(error) from error
            except (KeyError, TypeError, AttributeError) as error:
                hint = "See OpenAI's Responses API."
                raise Invalid(f"the body has a wrong field near {error}", code="body_invalid", hint=hint) from error
        return self._made


def told(ask: Ask) -> Told:
    if not isinstance(ask.typed, Told):
        raise AssertionError("not a request for a response")
    return ask.typed


def read(body: bytes, decoder: msgspec.json.Decoder[Asked] = _asked) -> Ask:
    """A request. Raises `Invalid` with what is wrong with it."""
    fields, asked = read_fields(body, decoder)
    _check(fields, asked)
    query, images, length, needs, named, only_named, thought = "", 0, 0, set[str](), list[str](), False, False
    items = [] if isinstance(asked.input, str) or asked.input is None else asked.input
    for item in items:
        item.check()
        if item.only_named:
            only_named = True
        elif item.type == "reasoning":
            thought = True
        text = ""
        for part in _parts(item):
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
    service = SERVICES[asked.service_tier]
    if service in OWN:
        needs.add(service)
    telling = Told(body, asked.previous_response_id, store=asked.store is not False)
    telling.only_named, telling.thought, telling.background = only_named, thought, asked.background is True
    return Ask(
        fields=fields,
        model=asked.model,
        messages=len(items) + 2,
        query=asked.input if isinstance(asked.input, str) else query,
        stream=bool(asked.stream),
        include_usage=True,
        cap=asked.max_output_tokens,
        copies=1,
        size=len(body) - length,
        needs=frozenset(needs),
        images=images,
        service=service,
        body=body,
        files=tuple(dict.fromkeys(named)),
        typed=telling,
    )


def _parts(item: Item) -> list[Part]:
    found = item.content if isinstance(item.content, list) else []
    return found + item.output if isinstance(item.output, list) else found


def _check(fields: dict[str, msgspec.Raw], asked: Asked) -> None:
    refuse_fields(fields, _UNBOUNDED)
    if not asked.input and asked.previous_response_id is None:
        raise Invalid("input is empty", code="input_empty", hint="Send a text or a list of items.")
    if asked.max_output_tokens is not None and asked.max_output_tokens < 1:
        named, hint = {"field": "max_output_tokens"}, "Use max_output_tokens of at least 1."
        raise Invalid("max_output_tokens is below 1", code="cap_range", hint=hint, details=named)
    if asked.prompt_cache_options is not None:
        asked.prompt_cache_options.check()
    if asked.reasoning is not None:
        asked.reasoning.check()
    if asked.service_tier not in SERVICES:
        raise unsupported("service_tier", TIER_HINT)
    for tool in asked.tools or ():
        tool.check()


def without_unread(ask: Ask, deployment: Deployment) -> dict[str, bytes | None]:
    """The change of a request with reasoning that this upstream would have to have kept, or sealed."""
    asked = told(ask)
    unread = deployment.name in asked.unread
    if not (unread or asked.only_named):
        return {}
    items = responses_items.listed(input_of(ask))
    return {"input": _encode(responses_items.unsealed(items) if unread else responses_items.unnamed(items))}


class OpenAIResponses:
    """Responses as upstreams speak them that have them: bytes pass, a few fields are spliced in."""

    translated = False

    def path(self, deployment: Deployment) -> bytes:  # noqa: ARG002 -- the protocol's signature
        return b"/responses"

    def request_body(self, ask: Ask, deployment: Deployment, cap: int, system: list[str]) -> bytes:
        """The caller's bytes with model, cap and store spliced in, and ours in front of its instructions.

        Reasoning that the upstream would have to have kept is left out: it was told to keep nothing. So is what it said
        that it cannot read.
        """
        changes: dict[str, bytes | None] = {
            "model": _encode(deployment.upstream_model),
            "max_output_tokens": b"%d" % cap,
            "store": b"false",
        }
        if system:
            said = ask.fields.get("instructions", msgspec.Raw(b"null"))
            own, told(ask).asked["instructions"] = msgspec.json.decode(said), bytes(said)
            changes["instructions"] = _encode("\n\n".join([*system, own] if isinstance(own, str) and own else system))
        if (previous := told(ask).previous) is not None:
            told(ask).asked["previous_response_id"] = _encode(previous)
        changes |= without_unread(ask, deployment)
        given = changes.get("input") or bytes(ask.fields.get("input", b""))
        if (plain := thought_signatures.without(given)) is not None:
            changes["input"] = plain
        return replace_fields(ask.body, ask.fields, changes)

    def parse_answer(self, data: bytes, ask: Ask) -> UpstreamAnswer:
        """A whole response. Raises `Malformed`."""
        found = decode_upstream(_whole, data)
        refuse_encoding(data)
        if found.object != "response" or found.status not in ("completed", "incomplete"):
            raise Malformed("the upstream's response failed")
        if asked := told(ask).asked:
            data = shapes.told_back(decode_upstream(shapes.fields_of, data), asked)
        return UpstreamAnswer(data, found.counted())

    def new_relay(self, ask: Ask) -> Relay:
        return ResponsesRelay(told(ask).asked)


class ResponsesByChat(ViaChat):
    """Responses by way of an upstream's chat."""

    droppable = providers.CACHE_FIELDS

    def chat_fields(self, ask: Ask) -> dict[str, msgspec.Raw]:
        return chat_fields(ask)

    def parse_answer(self, data: bytes, ask: Ask) -> UpstreamAnswer:
        """The response that a completion means. Raises `Malformed`."""
        found, asked = parse_completion(data), told(ask)
        choice = found.choices[0]
        usage = None if found.usage is None else found.usage.usage(normalize_tier(found.service_tier))
        response = shapes.begun(asked.translation().asked, asked.name, found.model or ask.model)
        finish = choice.finish_reason or "stop"
        items = shapes.output(choice.message, finish, asked.translation().groups)
        counted = usage or Usage(input=-(-ask.size // 4), output=-(-len(_encode(items)) // 4))
        return UpstreamAnswer(_encode(shapes.ended(response, items, finish, counted)), usage)

    def new_relay(self, ask: Ask) -> Relay:
        asked, said = told(ask), told(ask).translation()
        return ResponsesChatRelay(said.asked, asked.name, ask.model, ask.size, said.groups)


def chat_fields(ask: Ask) -> dict[str, msgspec.Raw]:
    """The request in chat, but for model and caps. Raises `Invalid`."""
    return chat_request(told(ask).translation().fields)


def gone_on(ask: Ask, more: list[dict[str, Any]]) -> Ask:
    """The same request with further items behind its input: what was said so far, and that it is to go on."""
    earlier = told(ask)
    fields: dict[str, Any] = {**ask.fields, "input": [*responses_items.listed(input_of(ask)), *more]}
    whole = read(_encode(fields))
    asked = told(whole)
    asked.name, asked.store, asked.stored = earlier.name, earlier.store, earlier.stored
    asked.previous, asked.pinned, asked.unread = earlier.previous, earlier.pinned, earlier.unread
    asked.given = input_of(ask) if earlier.given is None else earlier.given
    return whole


def _with_file(part: dict[str, Any], files: Mapping[str, NamedFile]) -> dict[str, Any]:
    kind = part.get("type")
    if kind not in ("input_image", "input_file") or (file := find_file(files, part.get("file_id"))) is None:
        return part
    rest = without_fields(part, "file_id", "image_url", "file_data", "file_url")
    if kind == "input_image":
        return {**rest, "image_url": file.image_url()}
    return {"filename": file.name, **rest, "file_data": file.url}


def input_of(ask: Ask) -> object:
    """Raises `Invalid`."""
    value: object = decode_value(ask.fields.get("input", _NONE))
    return value


def _of_reasoning(ask: Ask) -> list[str]:
    """What the caller wants of items of reasoning, of which what a chat says has none."""
    wanted = ["include"] if ENCRYPTED.encode() in bytes(ask.fields.get("include", b"")) else []
    given = ask.fields.get("reasoning")
    if given is not None and _SUMMARY in bytes(given) and (decode_value(given) or {}).get(SUMMARY) is not None:
        wanted.append(f"reasoning.{SUMMARY}")
    return wanted


native = served_natively("responses")


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
        """As `read`."""
        return read(body)

    def with_files(self, ask: Ask, files: Mapping[str, NamedFile]) -> Ask:
        """What is stored of it keeps the ids."""
        fields = {**ask.fields, "input": with_files_inlined(ask.fields["input"], lambda part: _with_file(part, files))}
        body, earlier = _encode(fields), told(ask)
        asked = Told(body, earlier.previous, store=earlier.store)
        asked.name, asked.stored, asked.pinned = earlier.name, earlier.stored, earlier.pinned
        asked.only_named, asked.thought, asked.background = earlier.only_named, earlier.thought, earlier.background
        asked.given = input_of(ask) if earlier.given is None else earlier.given
        return replace(ask, fields=fields, body=b"", typed=asked)

    def shareable_events(self, ask: Ask, events: tuple[bytes, ...]) -> tuple[bytes, ...]:
        asked = told(ask).asked
        return tuple(as_asked(data, asked) for data in events) if asked else events

    def eligible_deployments(self, ask: Ask, deployments: tuple[Deployment, ...]) -> tuple[Deployment, ...]:
        """Those that serve responses themselves, and the others where the request can be put into chat; who wants its
        reasoning back, or gives some back, is answered by a chat only where nobody else is there. Raises `Invalid`,
        `Conflict`."""
        found = self.pinned(ask, deployments)
        own = tuple(deployment for deployment in found if native(deployment))
        if own and (told(ask).thought or _of_reasoning(ask)):
            return own
        return eligible_deployments(ask, found, native, chat_fields, providers.CACHE_FIELDS)

    def pinned(self, ask: Ask, deployments: tuple[Deployment, ...]) -> tuple[Deployment, ...]:
        """The one that made the response which this one goes on with; otherwise all. Raises `Conflict`."""
        pinned = told(ask).pinned
        found = tuple(deployment for deployment in deployments if pinned in ("", deployment.name))
        if not found:
            raise Conflict(
                "the deployment that made the earlier response may not be used for this call",
                code="response_deployment",
                hint="Name its model, or send the earlier items in input.",
            )
        return found

    def drop_sealed_reasoning(self, ask: Ask, deployment: Deployment) -> bool:
        asked = told(ask)
        if deployment.name in asked.unread or _SEALED not in bytes(ask.fields.get("input", b"")):
            return False
        asked.unread = (*asked.unread, deployment.name)
        return True

    def extra_facts(self, ask: Ask, deployment: Deployment) -> dict[str, object]:
        """Whether it was stored; told where the caller did not say that it should not be. And what its deployment was
        not told."""
        asked = told(ask)
        stored: dict[str, object] = {"store": asked.stored} if asked.store else {}
        left_out = list[str]()
        if not native(deployment):
            left_out += _of_reasoning(ask) + providers.fields_to_drop(
                asked.translation().fields, deployment, providers.CACHE_FIELDS
            )
        unread = deployment.name in asked.unread or (asked.thought and not native(deployment))
        left_out += ["reasoning"] if asked.only_named or unread else []
        return stored | {"left_out": left_out} if left_out else stored

    def error_event(self, ask: Ask, status: int, error: bytes) -> bytes:
        """Codex makes room in a conversation that is too long where it hears of that in the stream, as from OpenAI."""
        if (
            not ask.stream
            or _OF_CODEX not in ask.fields
            or not (why := provider_refusals.prompt_too_long(status, error))
        ):
            return b""
        return shapes.refused(told(ask).name, ask.model, provider_refusals.TOO_LONG_CODES[0], why)

    def serves_natively(self, deployment: Deployment) -> bool:
        return native(deployment)


RESPONSES = Responses()
OF_BACKGROUND = Responses()
"""The same for what is made while nobody waits for it."""
