"""Types of a Responses request, as far as the gateway reads it. Other fields pass through unread."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

import msgspec

from groundplan.core.errors import Invalid
from groundplan.gateway.surfaces.body import BREAKPOINT, CacheOptions, Reasoning, file_bytes, image_bytes
from groundplan.gateway.surfaces.file_references import file_given_twice
from groundplan.gateway.surfaces.responses.to_chat import REASONING_PREFIX

_TOOLS = ("function", "custom")
_PARTS = frozenset(
    {"input_text", "output_text", "refusal", "input_image", "input_file", "reasoning_text", "summary_text"}
)
_ITEMS = frozenset(
    {
        "message", "function_call", "function_call_output", "custom_tool_call", "custom_tool_call_output", "reasoning",
        "item_reference",
    }
)  # fmt: skip
_SEARCHES = frozenset({"tool_search_call", "tool_search_output"})
"""Items of a search among tools. One that the caller runs costs no more than the bytes of what it found."""
_REFERENCE_REFUSED = (
    "items by reference (item_reference) are not supported; clients that are told store: false send them whole"
)
"""The message has the remedy too, since most clients show nothing else."""
_REFERENCE_HINT = "Nothing is kept at a provider. AI SDK: providerOptions.openai.store = false, or openai.chat(model)."
_NULL = msgspec.Raw(b"null")


class Part(msgspec.Struct, frozen=True):
    """A part of an item's content."""

    type: str = ""
    text: str = ""
    image_url: str | None = None
    file_data: str | None = None
    file_id: str | None = None
    file_url: str | None = None
    video_url: msgspec.Raw = _NULL
    audio_url: msgspec.Raw = _NULL
    input_audio: msgspec.Raw = _NULL
    image_embeds: msgspec.Raw = _NULL
    audio_embeds: msgspec.Raw = _NULL
    image_pil: msgspec.Raw = _NULL
    prompt_cache_breakpoint: CacheOptions | None = None

    def check(self) -> None:
        """Raise `Invalid` for an unknown type, for media fields of another type, which some upstreams read or fetch
        whatever the part's type is, and for a cache that costs more than the declared price."""
        if self.type not in _PARTS:
            raise unsupported_content(f"content of type {self.type[:40]}" if self.type else "content without a type")
        if self.prompt_cache_breakpoint is not None:
            self.prompt_cache_breakpoint.check(BREAKPOINT)
        others = _media_fields_of(self)
        if others == _NO_MEDIA:
            return
        for name, given in zip(_MEDIA_FIELDS, others, strict=True):
            if given is not None and given != _NULL and name not in _MEDIA_BY_TYPE.get(self.type, ()):
                raise unsupported_content(f"content of type {self.type[:40]} that has {name}")

    def media_bytes(self) -> int:
        """Bytes of the request body that are this image or file; 0 where it is named by id. Raises `Invalid`."""
        media = self.image_url if self.type == "input_image" else self.file_data
        if self.file_url is not None:
            return file_bytes(None)
        if self.file_id is None:
            return image_bytes(media or "") if self.type == "input_image" else file_bytes(media)
        if media is not None:
            raise file_given_twice("the image" if self.type == "input_image" else "the file")
        return 0


_MEDIA_BY_TYPE = {"input_image": ("image_url",), "input_file": ("file_data", "file_url")}
_MEDIA_FIELDS = (
    "image_url", "file_data", "file_url", "video_url", "audio_url", "input_audio", "image_embeds", "audio_embeds",
    "image_pil",
)  # fmt: skip
_NO_MEDIA = (*[None] * 3, *[_NULL] * 6)
_media_fields_of = attrgetter(*_MEDIA_FIELDS)


class NamespacedTool(msgspec.Struct, frozen=True):
    """A tool within a namespace."""

    type: str = ""

    def check(self) -> None:
        """Raise `Invalid` for a tool that does not run at the caller."""
        if self.type not in _TOOLS:
            hint = "Send functions and custom tools: what runs at a provider has no bound of cost."
            named = f"the tool {self.type[:60]}" if self.type else "a tool without a type"
            raise unsupported(named, hint, "tools")


class Tool(NamespacedTool, frozen=True):
    """A function, a namespace of several, or a search among tools that the caller runs."""

    execution: str | None = None
    tools: list[NamespacedTool] | None = None

    def check(self) -> None:
        """As `Named.check`."""
        if self.type == "namespace":
            for each in self.tools or ():
                each.check()
        elif self.type != "tool_search" or self.execution != "client":
            super().check()


class Item(msgspec.Struct, frozen=True):
    """An item of a request's input."""

    type: str | None = None
    """None: a message, or a reference to an item, where nothing but an id is given."""
    role: str = ""
    content: str | list[Part] | None = None
    output: str | list[Part] | dict[str, Any] | None = None
    """An object only in outputs of tools that are not supported."""
    encrypted_content: str | None = None
    id: str | None = None
    execution: str | None = None
    tools: list[Tool] | None = None

    def check(self) -> None:
        """Raise `Invalid` for a reference, an unknown type, and found tools that do not run at the caller."""
        if self._is_reference and not self.only_named:
            raise Invalid(_REFERENCE_REFUSED, code="content_unsupported", hint=_REFERENCE_HINT)
        kind = "message" if self.type is None else self.type
        if kind not in _ITEMS and not (kind in _SEARCHES and self.execution == "client"):
            raise unsupported_content(f"an item of type {kind[:40]}")
        if isinstance(self.output, dict):
            raise unsupported_content(f"an object as the output of an item of type {kind[:40]}")
        for tool in self.tools or ():
            tool.check()

    @property
    def _is_reference(self) -> bool:
        """Whether this is a reference to a stored item. Its type may be left out: it has an id and nothing else."""
        if self.type is None:
            return bool(self.id) and not self.role and self.content is None
        return self.type == "item_reference"

    @property
    def only_named(self) -> bool:
        """Whether this is earlier reasoning of which only the id is given."""
        if self._is_reference:
            return (self.id or "").startswith(REASONING_PREFIX)
        return self.type == "reasoning" and not self.encrypted_content and not self.content


class ResponseRequest(msgspec.Struct, frozen=True):
    """A request, as far as the gateway reads it."""

    model: str
    input: str | list[Item] | None = None
    stream: bool | None = None
    max_output_tokens: int | None = None
    tools: list[Tool] | None = None
    service_tier: str | None = None
    prompt_cache_options: CacheOptions | None = None
    reasoning: Reasoning | None = None
    store: bool | None = None
    background: bool | None = None
    previous_response_id: str | None = None


def unsupported(name: str, hint: str | None = None, field: str | None = None) -> Invalid:
    """The refusal of `name`; `field`: the request's field, where that is another name."""
    hint = hint or f"Leave {name} out."
    return Invalid(f"{name} is not supported", code="field_unsupported", hint=hint, details={"field": field or name})


def unsupported_content(what: str) -> Invalid:
    return Invalid(
        f"{what} is not supported", code="content_unsupported", hint="Send text, images, files and functions."
    )
