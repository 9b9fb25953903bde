"""Items of a conversation of responses, as they are sent on, stored and told back. Pure."""

from __future__ import annotations

from typing import Any

from groundplan.gateway.surfaces.responses.shapes import new_name
from groundplan.gateway.surfaces.responses.to_chat import is_here


def unnamed(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Items of a conversation for an upstream that keeps none: by an id it would look for the item, and for the
    reasoning before it, and refuse the request."""
    return [{name: value for name, value in each.items() if name != "id"} for each in items if is_here(each)]


def unsealed(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same for one that cannot read what was sealed elsewhere: reasoning that is in the clear stays."""
    return unnamed(
        [
            {name: value for name, value in each.items() if name != "encrypted_content"}
            if each.get("type") == "reasoning"
            else each
            for each in items
        ]
    )


def listed(given: object) -> list[dict[str, Any]]:
    """A request's input as items."""
    if isinstance(given, str):
        return [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": given}]}]
    return [each for each in given if isinstance(each, dict)] if isinstance(given, list) else []


def item(given: dict[str, Any]) -> dict[str, Any]:
    """An item as it is told back: with an id, and its content in parts."""
    made = {"id": new_name("item"), "status": "completed", **given, "type": given.get("type", "message")}
    if made["type"] == "message" and isinstance(made.get("content"), str):
        part: dict[str, Any] = {"type": "input_text", "text": made["content"]}
        if made.get("role") == "assistant":
            part = {"type": "output_text", "text": made["content"], "annotations": [], "logprobs": []}
        made["content"] = [part]
    return made
