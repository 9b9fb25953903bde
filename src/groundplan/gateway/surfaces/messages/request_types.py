"""Types of an Anthropic request, as far as the gateway reads it. Other fields pass through unread."""

from __future__ import annotations

from typing import Any

import msgspec

from groundplan.core.errors import Invalid


class CacheControl(msgspec.Struct, frozen=True):
    type: str = "ephemeral"
    ttl: str | None = None

    def check(self) -> None:
        """Raise `Invalid` for a cache that costs more to write than the declared price says."""
        if self.ttl not in (None, "5m"):
            raise Invalid(
                f"cache_control.ttl {self.ttl[:20]!r} is not supported",
                code="field_unsupported",
                hint='A longer cache has a price of its own; use "5m" or leave ttl out.',
            )


class Source(msgspec.Struct, frozen=True):
    """The source of an image or a document."""

    type: str
    media_type: str = ""
    data: str | None = None
    file_id: str | None = None
    content: str | list[Block] | None = None


class ToolReference(msgspec.Struct, frozen=True):
    """The tool that a block offers or withdraws."""

    type: str = ""
    name: str = ""


class Block(msgspec.Struct, frozen=True):
    type: str
    text: str = ""
    source: Source | str | None = None
    content: str | list[Block] | dict[str, Any] | None = None
    """An object only in results of tools that run at the provider, which are not supported."""
    cache_control: CacheControl | None = None
    tool_name: str = ""
    tool: ToolReference | None = None


class Message(msgspec.Struct, frozen=True):
    role: str
    content: str | list[Block]


class Tool(msgspec.Struct, frozen=True):
    type: str | None = None
    cache_control: CacheControl | None = None


class Edit(msgspec.Struct, frozen=True):
    type: str = ""


class ContextManagement(msgspec.Struct, frozen=True):
    edits: list[Edit] | None = None

    def check(self) -> None:
        """Raise `Invalid` for edits that do not only remove content: a summary is an answer of its own, which no cap
        bounds."""
        for edit in self.edits or ():
            if not edit.type.startswith("clear_"):
                raise Invalid(
                    f"context_management.edits {edit.type[:40]!r} is not supported",
                    code="field_unsupported",
                    hint="What is made of a conversation there has no bound of cost; only clear what is not needed.",
                )


class CountRequest(msgspec.Struct, frozen=True):
    """A request to count tokens; the fields that a request for a message shares with it."""

    model: str
    messages: list[Message]
    system: str | list[Block] | None = None
    tools: list[Tool] | None = None
    output_config: Any = None
    output_format: Any = None
    context_management: ContextManagement | None = None
    speed: str | None = None
    cache_control: CacheControl | None = None


class MessageRequest(CountRequest, frozen=True, kw_only=True):
    max_tokens: int
    stream: bool | None = None
