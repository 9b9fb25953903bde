"""What a call is for, in short labels that routers learn from: the same for recorded and for live calls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import msgspec

_JSON, _FORMAT = b'"json', b'"format"'
"""Marks in the fields that demand JSON or a schema, of chat completions and Responses, and of Messages."""


def task_of(
    endpoint: str, fields: Mapping[str, msgspec.Raw], feature: str, prompt: str | None = None
) -> tuple[str, ...]:
    """`endpoint NAME`, `feature NAME`, `prompt NAME@VERSION` (the workload's), `tools` and `schema`, as far as there
    are any. `fields`: of the request."""
    found = [f"endpoint {endpoint}"]
    if feature:
        found.append(f"feature {feature}")
    if prompt is not None:
        found.append(f"prompt {prompt}")
    if "tools" in fields or "functions" in fields:
        found.append("tools")
    chat, messages, responses = (bytes(fields.get(name, b"")) for name in ("response_format", "output_config", "text"))
    if _JSON in chat or _FORMAT in messages or _JSON in responses:
        found.append("schema")
    return tuple(found)
