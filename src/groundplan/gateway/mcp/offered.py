"""Resources and prompts of declared MCP servers: as callers see them, and which of them they may see. Pure.

A resource is `groundplan-mcp://SERVER/` with its own address behind, so that two servers never meet; a prompt bears its
server's name as tools do. Rules, kill switches and approvals know them as `resource:ADDRESS` and `prompt:NAME`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

from groundplan.blueprint.model import ToolServer
from groundplan.core.errors import Invalid
from groundplan.gateway.mcp.wire import SEPARATOR, named, split

SCHEME = "groundplan-mcp://"
LONGEST = 4000
"""Characters of an address or a name."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of thing that a server has. `lists`, `gets`: methods; `key`: the list; `field`: the name in it."""

    lists: str
    key: str
    field: str
    gets: str
    what: str


RESOURCES = Kind("resources/list", "resources", "uri", "resources/read", "resource")
TEMPLATES = Kind("resources/templates/list", "resourceTemplates", "uriTemplate", "", "resource")
PROMPTS = Kind("prompts/list", "prompts", "name", "prompts/get", "prompt")
LISTS = {each.lists: each for each in (RESOURCES, TEMPLATES, PROMPTS)}
GETS = {each.gets: each for each in (RESOURCES, PROMPTS)}


def offers(server: ToolServer, kind: Kind, name: str) -> bool:
    """Whether a thing of a server may be seen at all: as declared, or all where its tools are not restricted either."""
    patterns = server.resources if kind.what == "resource" else server.prompts
    return named(name, patterns) if patterns else not server.tools


def outward(server: str, kind: Kind, entry: dict[str, Any]) -> dict[str, Any]:
    """An entry of a list as callers see it."""
    name = str(entry[kind.field])
    return {**entry, kind.field: address(server, name) if kind.what == "resource" else f"{server}{SEPARATOR}{name}"}


def address(server: str, uri: str) -> str:
    return f"{SCHEME}{server}/{quote(uri, safe='{}')}"


def inward(kind: Kind, params: dict[str, Any]) -> tuple[str, str]:
    """(server, its own name) of what a caller asks for. Raises `Invalid` (`mcp_message`)."""
    asked = params.get("uri" if kind.what == "resource" else "name")
    if not isinstance(asked, str) or not 0 < len(asked) <= LONGEST:
        raise Invalid(f"{kind.gets} names a {kind.what}", code="mcp_message", hint="See the MCP.")
    if kind.what == "prompt":
        return split(asked)
    server, _, rest = asked.removeprefix(SCHEME).partition("/")
    return (server, unquote(rest)) if asked.startswith(SCHEME) else ("", asked)


def checked(kind: Kind, server: str, result: dict[str, Any], look: Callable[[str], str], *, bytes_too: bool) -> Any:
    """What a server gave, with every text of it looked at. `bytes_too`: what no check can look at may pass."""
    if kind.what == "prompt":
        messages = [_message(each, look, bytes_too) for each in result.get("messages") or () if isinstance(each, dict)]
        return {**result, "messages": messages}
    contents = [_content(each, server, look, bytes_too) for each in result.get("contents") or ()
                if isinstance(each, dict)]  # fmt: skip
    return {**result, "contents": contents}


def _content(each: dict[str, Any], server: str, look: Callable[[str], str], bytes_too: bool) -> dict[str, Any]:
    made = {**each, "uri": address(server, str(each.get("uri", "")))}
    if isinstance(each.get("text"), str):
        made["text"] = look(each["text"])
    elif "blob" in each and not bytes_too:
        del made["blob"]
        made |= {"mimeType": "text/plain", "text": "(left out: no guardrail of this workload can look at it)"}
    return made


def _message(each: dict[str, Any], look: Callable[[str], str], bytes_too: bool) -> dict[str, Any]:
    content = each.get("content")
    if isinstance(content, list):
        return {**each, "content": [part(one, look, bytes_too=bytes_too) for one in content]}
    return {**each, "content": part(content, look, bytes_too=bytes_too)}


def part(content: Any, look: Callable[[str], str], *, bytes_too: bool) -> Any:
    """One part of a message or of a tool's result, with its text, or that of the resource in it, looked at."""
    if isinstance(content, str):
        return look(content)
    if not isinstance(content, dict):
        return content
    inner = content.get("resource")
    if isinstance(content.get("text"), str):
        content = {**content, "text": look(content["text"])}
    elif not (isinstance(inner, dict) and isinstance(inner.get("text"), str)) and not bytes_too:
        return {"type": "text", "text": "(left out: no guardrail of this workload can look at it)"}
    if isinstance(inner, dict) and isinstance(inner.get("text"), str):
        content = {**content, "resource": {**inner, "text": look(inner["text"])}}
    return content
