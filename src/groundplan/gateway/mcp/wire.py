"""JSON-RPC and MCP as types: what callers send, what servers answer, the few answers that the gateway gives. Pure."""

from __future__ import annotations

import hashlib
from typing import Any, Final

import msgspec

from groundplan.blueprint.model import ToolServer
from groundplan.core.errors import GroundplanError, Invalid
from groundplan.gateway.http.strict_json import DECODE_ERRORS, check_complexity

VERSIONS = ("2025-06-18", "2025-03-26", "2024-11-05")
"""Of the protocol; the newest first."""
SEPARATOR = "__"
"""Between the name of a server and that of its tool, in the names that callers see."""
SEARCH_TOOL = "search"
RETRY_META = "groundplan/retry_id"
RETRY_ARGUMENT = "groundplan_retry_id"
"""Where a caller says which approval it has; an argument, for callers that set nothing else."""
_encode = msgspec.json.encode


class Message(msgspec.Struct):
    """A request (with id) or a notification (without)."""

    method: str
    jsonrpc: str = "2.0"
    id: int | str | None = None
    params: dict[str, Any] = {}


_decode = msgspec.json.Decoder(Message).decode


def read(body: bytes) -> Message:
    """Raises `Invalid` (`mcp_message`; `body_not_json`, `body_too_complex` for what is nested too deep)."""
    check_complexity(body)
    try:
        message = _decode(body)
    except DECODE_ERRORS as error:
        hint = "Send one JSON-RPC 2.0 request or notification."
        raise Invalid(f"this is not an MCP message: {error}", code="mcp_message", hint=hint) from error
    if message.jsonrpc != "2.0":
        raise Invalid("this is not JSON-RPC 2.0", code="mcp_message", hint="Send jsonrpc: 2.0.")
    return message


def result(id: int | str | None, value: Any) -> bytes:
    return _encode({"jsonrpc": "2.0", "id": id, "result": value})


def failure(id: int | str | None, code: int, message: str, data: Any = None) -> bytes:
    told = {"code": code, "message": message, **({"data": data} if data is not None else {})}
    return _encode({"jsonrpc": "2.0", "id": id, "error": told})


def refused(error: GroundplanError, **more: Any) -> dict[str, Any]:
    """A tool result that says why it was not used, for the model that reads it and for programs."""
    told = {"code": error.code, "message": error.message, "hint": error.hint, **error.details, **more}
    text = f"{error.message} [{error.code}] {error.hint}"
    return {"content": [{"type": "text", "text": text}], "structuredContent": {"error": told}, "isError": True}


def initialized(asked: Any) -> dict[str, Any]:
    """The answer to `initialize`."""
    version = asked if asked in VERSIONS else VERSIONS[0]
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


def split(name: str) -> tuple[str, str]:
    """(server, tool) of a name that callers use; ('', name) for the gateway's own. Raises `Invalid`."""
    server, found, tool = name.partition(SEPARATOR)
    return (server, tool) if found else ("", name)


def named(name: str, patterns: list[str]) -> bool:
    """Whether a tool is one of these; a star at the end stands for any rest."""
    return any(name.startswith(p[:-1]) if p.endswith("*") else name == p for p in patterns)


def offers(server: ToolServer, tool: str) -> bool:
    """Whether a server's tool may be seen at all."""
    return not server.tools or named(tool, server.tools)


def outward(server: str, tool: dict[str, Any]) -> dict[str, Any]:
    """A server's tool as callers see it. The form of its results is left out: what is refused here, or a guardrail
    changed, does not have it, and clients end in an error of their own then, where a model should read why."""
    kept = {name: value for name, value in tool.items() if name != "outputSchema" and value is not None}
    schema = {"type": "object", **kept["inputSchema"]}
    return {**kept, "inputSchema": schema, "name": f"{server}{SEPARATOR}{tool['name']}"}


def readable(tool: dict[str, Any]) -> bool:
    """Whether clients can make anything of it: they give up the whole list for one that they cannot read, and with it
    the tools of all other servers."""
    schema = tool.get("inputSchema")
    if not isinstance(schema, dict) or schema.get("type", "object") != "object":
        return False
    texts, objects = (tool.get("title"), tool.get("description")), (tool.get("annotations"), tool.get("_meta"))
    return all(each is None or isinstance(each, str) for each in texts) and all(
        each is None or isinstance(each, dict) for each in objects
    )


def objects(told: Any) -> list[dict[str, Any]]:
    """Those of a list that a server tells; none of what is no list."""
    return [each for each in told if isinstance(each, dict)] if isinstance(told, list) else []


def digest(server: str, tool: str, arguments: dict[str, Any]) -> str:
    """What an approval is bound to."""
    told = msgspec.json.encode([server, tool, arguments], order="deterministic")
    return hashlib.sha256(told).hexdigest()


_WHERE: Final[dict[str, Any]] = {
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
                "where": _WHERE,
            },
            "required": ["query"],
            "additionalProperties": False,
        },
        "annotations": {"readOnlyHint": True},
    }
