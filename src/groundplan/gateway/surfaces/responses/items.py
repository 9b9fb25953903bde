"""Items of a conversation of responses, as they are sent on, stored and returned. Pure."""

from __future__ import annotations

from typing import Any

from groundplan.gateway.surfaces.responses.shapes import new_object_id
from groundplan.gateway.surfaces.responses.to_chat import has_own_content, is_reference


def without_ids(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The items without ids and references, for an upstream that stored none: by an id it would look for the item, and
    for the reasoning before it, and refuse the request."""
    return [{name: value for name, value in each.items() if name != "id"} for each in items if has_own_content(each)]


def without_sealed_reasoning(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same for an upstream that cannot unseal the reasoning; reasoning in plain text stays."""
    return without_ids(
        [
            {name: value for name, value in each.items() if name != "encrypted_content"}
            if each.get("type") == "reasoning"
            else each
            for each in items
        ]
    )


def input_items(given: object) -> list[dict[str, Any]]:
    """A request's `input` as a list of items."""
    if isinstance(given, str):
        return [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": given}]}]
    return [each for each in given if isinstance(each, dict)] if isinstance(given, list) else []


def stored_item(given: dict[str, Any]) -> dict[str, Any]:
    """An item as it is stored and returned: with an id, and its content in parts."""
    kind = "item_reference" if is_reference(given) else given.get("type") or "message"
    made = {"id": None, "status": "completed", **given, "type": kind}
    if not isinstance(made["id"], str) or not made["id"]:
        made["id"] = new_object_id("item")
    if made["type"] == "message" and isinstance(made.get("content"), str):
        part: dict[str, Any] = {"type": "input_text", "text": made["content"]}
        if made.get("role") == "assistant":
            part = {"type": "output_text", "text": made["content"], "annotations": [], "logprobs": []}
        made["content"] = [part]
    elif isinstance(made.get("content"), list):
        made["content"] = [_stored_part(each) for each in made["content"]]
    return made


def _stored_part(part: object) -> object:
    """A part of a message as it is returned: an image always says in which detail it is read."""
    if isinstance(part, dict) and part.get("type") == "input_image" and part.get("detail") is None:
        return {**part, "detail": "auto"}
    return part
