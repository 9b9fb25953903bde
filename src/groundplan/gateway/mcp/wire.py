"""JSON-RPC and MCP messages: parsing those of callers, and building the gateway's own answers. Pure."""

from __future__ import annotations

import hashlib
from typing import Any, Final

import msgspec

from groundplan.blueprint.model import ToolServer
from groundplan.core.errors import GroundplanError, Invalid
from groundplan.gateway.http.strict_json import DECODE_ERRORS, check_complexity, check_duplicate_names
from groundplan.gateway.http.surrogates import has_lone_surrogate
from groundplan.gateway.surfaces.body import unreadable_body

VERSIONS = ("2025-06-18", "2025-03-26", "2024-11-05")
"""Supported versions of the protocol, the newest first."""
SEPARATOR = "__"
"""Separates the server's name from the tool's in the names that callers see."""
MAX_NAME = 200
"""Characters of such a name."""
SEARCH_TOOL = "search"
RETRY_META = "groundplan/retry_id"
RETRY_ARGUMENT = "groundplan_retry_id"
"""Where a caller puts the id of its approval: in `_meta`, or in an argument, for callers that can set nothing else."""
_encode = msgspec.json.encode


class Message(msgspec.Struct):
    """A request (with id) or a notification (without)."""

    method: str
    jsonrpc: str = "2.0"
    id: int | str | None = None
    params: dict[str, Any] = {}


_decode = msgspec.json.Decoder(Message).decode


def parse_message(body: bytes) -> Message:
    """Parse one message. Raises `Invalid` (`mcp_message`; `duplicate_key`; `body_not_json`, `body_too_complex` where it
    is nested too deep, or has half of a surrogate pair)."""
    check_complexity(body)
    try:
        message = _decode(body)
    except DECODE_ERRORS as error:
        if has_lone_surrogate(body):
            raise unreadable_body(error, body=body) from error
        hint = "Send one JSON-RPC 2.0 request or notification."
        raise Invalid(f"this is not an MCP message: {error}", code="mcp_message", hint=hint) from error
    if message.jsonrpc != "2.0":
        raise Invalid("this is not JSON-RPC 2.0", code="mcp_message", hint="Send jsonrpc: 2.0.")
    check_duplicate_names(body, 0)
    return message


def result(id: int | str | None, value: Any) -> bytes:
    return _encode({"jsonrpc": "2.0", "id": id, "result": value})


def error_response(id: int | str | None, code: int, message: str, data: Any = None) -> bytes:
    error = {"code": code, "message": message, **({"data": data} if data is not None else {})}
    return _encode({"jsonrpc": "2.0", "id": id, "error": error})


def refusal_result(error: GroundplanError, **more: Any) -> dict[str, Any]:
    """A tool result that says why the tool was not used, for the model that reads it and for programs."""
    facts = {"code": error.code, "message": error.message, "hint": error.hint, **error.details, **more}
    text = f"{error.message} [{error.code}] {error.hint}"
    return {"content": [{"type": "text", "text": text}], "structuredContent": {"error": facts}, "isError": True}


def initialize_result(requested_version: Any) -> dict[str, Any]:
    """The result of `initialize`."""
    version = requested_version if requested_version in VERSIONS else VERSIONS[0]
    return {
        "protocolVersion": version,
        "capabilities": {
            "tools": {"listChanged": False},
            "resources": {"listChanged": False, "subscribe": False},
            "prompts": {"listChanged": False},
        },
        "serverInfo": {"name": "groundplan", "version": "1"},
        "instructions": "A result with code approval_required names a retry id: call the tool again with the same "
        f"arguments and {RETRY_ARGUMENT} once a person has approved it.",
    }


def split_name(name: str) -> tuple[str, str]:
    """(server, tool) of a name that callers use; ('', name) for the gateway's own tool."""
    server, found, tool = name.partition(SEPARATOR)
    return (server, tool) if found else ("", name)


def matches_any(name: str, patterns: list[str]) -> bool:
    """Whether a name matches one of the patterns, in which `*` at the end matches any rest."""
    return any(name.startswith(p[:-1]) if p.endswith("*") else name == p for p in patterns)


def is_offered(server: ToolServer, tool: str) -> bool:
    """Whether a server's tool may be seen at all. One whose name is too long to be used is not, nor one with characters
    that nobody sees: a server may read it as a tool that a rule or a kill names."""
    if not tool.isprintable() or tool != tool.strip() or len(server.name) + len(SEPARATOR) + len(tool) > MAX_NAME:
        return False
    return not server.tools or matches_any(tool, server.tools)


def tool_for_callers(server: str, tool: dict[str, Any]) -> dict[str, Any]:
    """A server's tool as callers see it, without `outputSchema`: a refusal, or a result that a guardrail changed, does
    not conform to it, and clients would fail with an error of their own, where the model should read the reason."""
    kept = {name: value for name, value in tool.items() if name != "outputSchema" and value is not None}
    schema = {"type": "object", **kept["inputSchema"]}
    return {**kept, "inputSchema": schema, "name": f"{server}{SEPARATOR}{tool['name']}"}


def is_readable(tool: dict[str, Any]) -> bool:
    """Whether clients can read a tool's definition: for one that they cannot, they drop the whole list, and with it the
    tools of all other servers."""
    schema = tool.get("inputSchema")
    if not isinstance(schema, dict) or schema.get("type", "object") != "object":
        return False
    texts, mappings = (tool.get("title"), tool.get("description")), (tool.get("annotations"), tool.get("_meta"))
    return all(each is None or isinstance(each, str) for each in texts) and all(
        each is None or isinstance(each, dict) for each in mappings
    )


def dicts_in(value: Any) -> list[dict[str, Any]]:
    """The objects in a list from a server; none where it is no list."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def approval_digest(server: str, tool: str, arguments: dict[str, Any]) -> str:
    """The digest that an approval is bound to: of the server, the tool and its arguments."""
    data = msgspec.json.encode([server, tool, arguments], order="deterministic")
    return hashlib.sha256(data).hexdigest()


_SEARCH_FILTERS: Final[dict[str, Any]] = {
    "type": "object",
    "description": "Only documents of which all of this holds; the times bound the last modification.",
    "properties": {
        "path": {"type": "string", "description": "How it begins."},
        "owner": {"type": "string"},
        "sensitivity": {
            "type": "array",
            "items": {"type": "string", "enum": ["public", "internal", "confidential", "restricted"]},
        },
        "media": {"type": "string", "description": "md, pdf, csv and so on."},
        "after": {"type": "string", "format": "date-time"},
        "before": {"type": "string", "format": "date-time"},
    },
    "additionalProperties": False,
}
"""Filters of a search, as `POST /api/knowledge/search` has them."""


def search_tool(workload: str) -> dict[str, Any]:
    """The search in the workload's own sources, as a tool."""
    return {
        "name": SEARCH_TOOL,
        "description": f"Search the governed sources of {workload} with the permissions of the person who asks.",
        "inputSchema": {
            "type": "object",
            "properties": {
                "query": {"type": "string", "minLength": 1, "maxLength": 4000},
                "passages": {"type": "integer", "minimum": 1, "maximum": 20, "default": 5},
                "where": _SEARCH_FILTERS,
            },
            "required": ["query"],
            "additionalProperties": False,
        },
        "annotations": {"readOnlyHint": True},
    }
