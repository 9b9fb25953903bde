"""`POST /v1/messages` and its token count: reads requests of Anthropic's clients, and answers in Anthropic's shapes.

Refuses what would break the bound of a call's cost (tools that run at the provider, URLs instead of contents, a cache
that is kept for an hour). The codecs are in `native` and `from_chat`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from groundplan.blueprint.model import Deployment
from groundplan.core.errors import GroundplanError, Invalid
from groundplan.economics.price import AUTO, STANDARD
from groundplan.gateway.caching.replay_forms import MESSAGES_REPLAY_FORMS, ReplayForms
from groundplan.gateway.call.ask import Ask
from groundplan.gateway.surfaces.body import BASE64, UNBOUNDED_FIELDS, read_fields, refuse_fields
from groundplan.gateway.surfaces.chat.surface import FILE, TOOL_TOKENS
from groundplan.gateway.surfaces.codec import Codec
from groundplan.gateway.surfaces.file_references import IMAGES, PDF, NamedFile, find_file, with_files_inlined
from groundplan.gateway.surfaces.messages.errors import ID_HEADER, error_response, upstream_refusal_body
from groundplan.gateway.surfaces.messages.from_chat import (
    ABUSE_FIELDS,
    LazyTranslation,
    MessagesByChat,
    chat_fields,
    translation_of,
)
from groundplan.gateway.surfaces.messages.native import AnthropicMessages, TokenCount, thinking_budget
from groundplan.gateway.surfaces.messages.request_types import Block, CountRequest, MessageRequest, ToolReference
from groundplan.gateway.surfaces.messages.to_chat import API
from groundplan.gateway.surfaces.via_chat import ServedViaChat, TokenCounting, eligible_deployments
from groundplan.gateway.upstream import providers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from groundplan.gateway.http.server import Request

_messages = msgspec.json.Decoder(MessageRequest)
_count = msgspec.json.Decoder(CountRequest)
_tools = msgspec.json.Decoder(list[msgspec.Raw]).decode
_tool = msgspec.json.Decoder(ToolReference).decode
_BLOCKS = frozenset(
    {
        "text", "image", "document", "thinking", "redacted_thinking", "tool_use", "tool_result", "search_result",
        "tool_reference", "tool_addition", "tool_removal",
    }
)  # fmt: skip
"""Types of content whose cost is bounded by its bytes, or by a count of its own."""
_encode = msgspec.json.Encoder().encode
_REFERENCE = "tool_reference"
"""A block that names a tool of `tools`; the model reads the tool's definition in its place."""
_is_local_tool = re.compile(r"(?:bash|text_editor|memory|computer)_[0-9]+").fullmatch
"""Matches types of Anthropic's own tools that run at the caller. No toolset is one: it adds many tools."""
_REFUSED_FIELDS = UNBOUNDED_FIELDS | {
    "best_of", "n", "max_completion_tokens", "max_output_tokens", "container", "mcp_servers", "inference_geo",
    "compaction", "billing_policy",
}  # fmt: skip
_THREAD_DETAILS = {"details": {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}}
"""Details by which Anthropic's clients know that they have to send the whole conversation."""
_PROFILE_HEADER = b"anthropic-user-profile-id"
"""Names the party for whom a request is made: clients send their parameter `user_profile_id` as this header."""
_HEADERS = (
    (b"anthropic-beta", re.compile(rb"[A-Za-z0-9._, -]{1,800}")),
    (_PROFILE_HEADER, re.compile(rb"[\x21-\x7e]{1,200}")),
)
_VERSION = re.compile(rb"[\x21-\x7e]{1,60}")
VERSION = b"2023-06-01"


class _ContentScan:
    """What a scan of the content found: the newest user text, images, files, and bytes that are no tokens."""

    __slots__ = ("file_ids", "files", "images", "media_bytes", "query", "tools")

    def __init__(self) -> None:
        self.tools: list[str] = []
        """Names of tools whose definitions the model reads again, at a reference to them."""
        self.query = ""
        self.images = 0
        self.files = 0
        self.media_bytes = 0
        self.file_ids: list[str] = []
        """Ids of files that are named by id; they are counted in `images` and `files` too."""

    def scan_blocks(self, blocks: list[Block]) -> str:
        """Scan blocks and return their text. Raises `Invalid` for content whose cost has no bound."""
        texts = []
        for block in blocks:
            if block.type not in _BLOCKS:
                raise _unsupported_content(
                    f"content of type {block.type[:40]} is not supported", "Send text, images and tools."
                )
            if block.cache_control is not None:
                block.cache_control.check()
            if block.type == "text":
                texts.append(block.text)
            elif block.type in ("image", "document"):
                self._scan_source(block)
            elif block.type == _REFERENCE:
                self.tools.append(block.tool_name)
            elif block.tool is not None:
                self._scan_tool_change(block.tool)
            if isinstance(block.content, list):
                self.scan_blocks(block.content)
            elif isinstance(block.content, dict):
                raise _unsupported_content(
                    f"an object as the content of {block.type[:40]} is not supported",
                    "Send a text, or a list of blocks.",
                )
        return " ".join(texts)

    def _scan_tool_change(self, tool: ToolReference) -> None:
        """Note a change of tools, which must be of one in `tools`, since rules about tools check those."""
        if tool.type != _REFERENCE:
            hint = "Define it in tools, and name it by a tool_reference."
            raise _unsupported_content(f"a change of tools by {tool.type[:40]} is not supported", hint)
        self.tools.append(tool.name)

    def _scan_source(self, block: Block) -> None:
        source = block.source
        if source is None or isinstance(source, str):
            raise _unsupported_content(f"the {block.type} has no source", "Send its content.")
        if source.type == "url":
            raise Invalid(
                f"{'an' if block.type == 'image' else 'a'} {block.type} is given by its URL",
                code="image_url",
                hint='Send its content: "source": {"type": "base64", ...}.',
            )
        if source.type == "file" and source.file_id is not None:
            self.file_ids.append(source.file_id)
            self.images, self.files = self.images + (block.type == "image"), self.files + (block.type == "document")
            return
        if block.type == "document":
            if source.type == "base64":
                if source.media_type != PDF or source.data is None or BASE64.match(source.data) is None:
                    raise _unsupported_content("the document is not one", "Send text, or a PDF in base64.")
                self.files += 1
                self.media_bytes += len(source.data)
            elif source.type not in ("text", "content"):
                raise _unsupported_content("the document is of no known kind", 'Send "source": {"type": "text", ...}.')
            if isinstance(source.content, list):
                self.scan_blocks(source.content)
            return
        if source.media_type not in IMAGES or source.data is None or BASE64.match(source.data) is None:
            raise _unsupported_content("the image is not one", "Send PNG, JPEG, WebP or GIF in base64.")
        self.images += 1
        self.media_bytes += len(source.data)


def _unsupported_content(message: str, hint: str) -> Invalid:
    return Invalid(message, code="content_unsupported", hint=hint)


def _nested_names(request: CountRequest) -> int:
    return 2 * len(request.messages)


def read(body: bytes, headers: dict[bytes, bytes]) -> Ask:
    """Parse a request. Raises `Invalid` with what is wrong with it."""
    fields, request = read_fields(body, _messages, _nested_names, API)
    return _build_ask(body, headers, fields, request, request.max_tokens)


def read_count(body: bytes, headers: dict[bytes, bytes]) -> Ask:
    """Parse a request to count tokens. Raises `Invalid`."""
    fields, request = read_fields(body, _count, _nested_names, API)
    return _build_ask(body, headers, fields, request, 0)


def _build_ask(
    body: bytes, headers: dict[bytes, bytes], fields: dict[str, msgspec.Raw], request: CountRequest, cap: int
) -> Ask:
    refuse_fields(fields, _REFUSED_FIELDS)
    if bytes(fields.get("thread", b"null")) != b"null":
        hint = (
            "Send the whole conversation in messages: what a provider holds of it has no bound, and is not looked at."
        )
        raise Invalid("thread is not supported", code="field_unsupported", hint=hint, details=_THREAD_DETAILS)
    if request.context_management is not None:
        request.context_management.check()
    if request.speed not in (None, "standard"):
        hint = 'It has a price of its own; use "standard" or leave speed out.'
        raise Invalid(f"speed {request.speed[:20]!r} is not supported", code="field_unsupported", hint=hint)
    if not request.messages:
        raise Invalid("messages is empty", code="messages_empty", hint="Send at least one message.")
    if cap < 0:
        raise Invalid("max_tokens is below 0", code="cap_range", hint="Use max_tokens of at least 1.")
    scan = _ContentScan()
    if request.cache_control is not None:
        request.cache_control.check()
    if isinstance(request.system, list):
        scan.scan_blocks(request.system)
    for message in request.messages:
        text = message.content if isinstance(message.content, str) else scan.scan_blocks(message.content)
        if message.role == "user" and text:
            scan.query = text
    return Ask(
        fields,
        request.model,
        len(request.messages),
        scan.query,  # of more than 13 further names a dict would be made first, which takes half a microsecond
        stream=bool(isinstance(request, MessageRequest) and request.stream),
        include_usage=True,
        cap=cap,
        copies=1,
        size=len(body) - scan.media_bytes,
        extra_tokens=_hidden_tokens(request) + (_referenced_tool_bytes(fields, scan.tools) if scan.tools else 0),
        needs=frozenset(name for name, count in (("image", scan.images), (FILE, scan.files)) if count),
        images=scan.images,
        service=STANDARD if bytes(fields.get("service_tier", b"")) == b'"standard_only"' else AUTO,
        body=body,
        header_lines=passed_header_lines(headers),
        files=tuple(dict.fromkeys(scan.file_ids)),
        parsed=LazyTranslation(body),
        left_out=set(),
    )


def _inline_file(block: dict[str, Any], files: Mapping[str, NamedFile]) -> dict[str, Any]:
    source = block.get("source") if block.get("type") in ("image", "document") else None
    if not isinstance(source, dict) or source.get("type") != "file":
        return block
    if (file := find_file(files, source.get("file_id"))) is None:
        return block
    file.check({PDF} if block["type"] == "document" else IMAGES)
    return {**block, "source": {"type": "base64", "media_type": file.kind, "data": file.data}}


def _hidden_tokens(request: CountRequest) -> int:
    """The most tokens that the provider itself adds to the prompt. Raises `Invalid` for tools that run there."""
    formed = request.output_config is not None or request.output_format is not None
    added = TOOL_TOKENS if request.tools or formed else 0
    for tool in request.tools or ():
        if tool.cache_control is not None:
            tool.cache_control.check()
        if tool.type in (None, "custom"):
            continue
        if _is_local_tool(tool.type) is None:
            raise Invalid(
                f"the tool {tool.type[:60]} is not supported",
                code="field_unsupported",
                hint="It runs at the provider, or adds an unknown number of tokens to the prompt, so its cost has no "
                "bound; leave it out of tools.",
            )
        added += TOOL_TOKENS
    return added


def _referenced_tool_bytes(fields: dict[str, msgspec.Raw], names: list[str]) -> int:
    """Bytes of tool definitions that the model reads again at references to them, in addition to `tools` itself."""
    tools = _tools(fields["tools"]) if bytes(fields.get("tools", b"null")) != b"null" else []
    sizes = {_tool(tool).name: len(bytes(tool)) for tool in tools}
    return sum(sizes.get(name, 0) for name in names)


def passed_header_lines(headers: dict[bytes, bytes]) -> bytes:
    """Header lines for an upstream that speaks this API itself. Raises `Invalid`."""
    version = headers.get(b"anthropic-version", VERSION)
    if _VERSION.fullmatch(version) is None:
        raise _invalid_header("anthropic-version")
    lines = b"anthropic-version: %b\r\n" % version
    for name, form in _HEADERS:
        if (value := headers.get(name)) is not None:
            if form.fullmatch(value) is None:
                raise _invalid_header(name.decode())
            lines += b"%b: %b\r\n" % (name, value)
    return lines


def _invalid_header(name: str) -> Invalid:
    return Invalid(f"{name} is not one", code="header_invalid", hint="Send names only.")


class Messages(ServedViaChat):
    """`POST /v1/messages`"""

    name = "messages"
    grounded = True
    filters_deployments = True
    caps_output = True
    has_extra_facts = True
    id_header = ID_HEADER
    uses_anthropic_headers = True
    replay_forms: ReplayForms | None = MESSAGES_REPLAY_FORMS
    _native = AnthropicMessages()
    via_chat = _via_chat = MessagesByChat(translated=False)
    _via_service = MessagesByChat(translated=True)

    def read(self, request: Request) -> Ask:
        return read(request.body, request.headers)

    def with_files(self, ask: Ask, files: Mapping[str, NamedFile]) -> Ask:
        fields = dict(ask.fields)
        for name in ("messages", "system"):
            if bytes(fields.get(name, b"")).startswith(b"["):
                fields[name] = with_files_inlined(fields[name], lambda block: _inline_file(block, files))
        return replace(ask, fields=fields, body=b"", parsed=LazyTranslation(_encode(fields)))

    def eligible_deployments(self, ask: Ask, deployments: tuple[Deployment, ...]) -> tuple[Deployment, ...]:
        """Those that serve the request and whose answers may be longer than its thinking budget, as the others would
        refuse it; those that serve it, if no answer may be so long."""
        found = eligible_deployments(ask, deployments, self.serves_natively, chat_fields, ABUSE_FIELDS)
        if not (budget := thinking_budget(ask)):
            return found
        roomy = tuple(each for each in found if not self.serves_natively(each) or each.max_output_tokens > budget)
        return roomy or found

    def extra_facts(self, ask: Ask, deployment: Deployment) -> dict[str, object]:
        """The fields that were left out for a deployment, since they do not affect the answer, and what of the answer
        was left out."""
        if deployment.api == "anthropic":
            return {}
        translation = translation_of(ask)
        drops_user = providers.fields_to_drop(translation.fields, deployment, ABUSE_FIELDS)
        named = {*translation.left_out, *(ask.left_out or ())}
        if translation.asks_default_effort and not providers.takes_effort(deployment):
            named.add("output_config.effort")
        if _PROFILE_HEADER in ask.header_lines:
            named.add("user_profile_id")
        left_out = sorted({*named, "metadata.user_id"} if drops_user else named)
        return {"left_out": left_out} if left_out else {}

    def serves_natively(self, deployment: Deployment) -> bool:
        return deployment.api == "anthropic"

    def error_response(self, error: GroundplanError, call_id: str) -> tuple[int, bytes, bytes]:
        return error_response(error, call_id)

    def upstream_refusal_body(self, status: int, data: bytes, call_id: str) -> bytes:
        return upstream_refusal_body(status, data, call_id)


class CountTokens(TokenCounting, Messages):
    """`POST /v1/messages/count_tokens`"""

    name = "messages.count_tokens"
    answer_template = b'{"input_tokens":%d}'
    file_hint = "that its provider counts"
    counts_tokens = Messages.serves_natively
    _native_count = TokenCount()

    def read(self, request: Request) -> Ask:
        return read_count(request.body, request.headers)

    def codec(self, deployment: Deployment) -> Codec:  # noqa: ARG002 -- the contract's signature
        return self._native_count


MESSAGES = Messages()
COUNT_TOKENS = CountTokens()
