"""Resources and prompts of declared MCP servers: as callers see them, and which of them they may see. Pure.

A resource is `groundplan-mcp://SERVER/` with its own address behind, so that two servers never meet; a prompt bears its
server's name as tools do. Rules, kill switches and approvals know them as `resource:ADDRESS` and `prompt:NAME`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

from groundplan.blueprint.model import ToolServer
from groundplan.core.errors import Invalid
from groundplan.gateway.mcp.wire import SEPARATOR, named, objects, split

SCHEME = "groundplan-mcp://"
LONGEST = 4000
"""Characters of an address or a name."""
EVERYTHING = frozenset({"image", "audio", "file"})
_TOLD = ("text", "title", "description")
"""Of a part what a model may read of it; of what is only linked, too."""
_ESCAPED = re.compile("%([0-9A-Fa-f]{2})")
_UNRESERVED = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~")
_PASSED_OVER = {9: None, 10: None, 13: None}
"""Characters that are none of an address, wherever they stand."""
_EDGES = "".join(map(chr, range(33)))
_BY_HOST = frozenset({"http", "https", "ws", "wss", "ftp", "file"})
"""Schemes whose hosts are the same in any case."""
_LEFT_OUT = "(left out: no guardrail of this workload can look at it)"


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
    if kind.what != "resource":
        return named(name, server.prompts) if server.prompts else not server.tools
    if not server.resources:
        return not server.tools
    patterns = [*server.resources, *map(plain, server.resources)]
    return named(name, server.resources) and all(named(each, patterns) for each in others(name))


def others(uri: str) -> tuple[str, ...]:
    """What else a server may take an address for: most read it as browsers do, some decode all of it."""
    return tuple(dict.fromkeys(each for each in (plain(uri), plain(unquote(uri))) if each != uri))


def plain(uri: str) -> str:
    """An address without what makes no difference: `FILE:///a/./b/../%63` is `file:///a/c`."""
    text = uri.translate(_PASSED_OVER).strip(_EDGES)
    scheme, colon, rest = text.partition(":")
    if not colon:
        return text
    end = min((at for at in (rest.find("?"), rest.find("#")) if at >= 0), default=len(rest))
    rest, query = _ESCAPED.sub(_unescaped, rest[:end]), _ESCAPED.sub(_unescaped, rest[end:])
    scheme, rest = scheme.lower(), rest.replace("\\", "/")
    host, path = "", rest
    if rest.startswith("//"):
        host, slash, path = rest[2:].partition("/")
        host, path = "//" + (host.lower() if scheme in _BY_HOST else host), slash + path
    return f"{scheme}:{host}{_walked(path) if path.startswith('/') else path}{query}"


def _walked(path: str) -> str:
    parts = path.split("/")
    made: list[str] = []
    for part in parts[1:]:
        if part == "..":
            del made[-1:]
        elif part != ".":
            made.append(part)
    return "/" + "/".join(made) + ("/" if parts[-1] in (".", "..") and made else "")


def _unescaped(found: re.Match[str]) -> str:
    """Letters, digits and a few marks mean the same escaped or not."""
    one = chr(int(found[1], 16))
    return one if one in _UNRESERVED else found[0].upper()


def outward(server: str, kind: Kind, entry: dict[str, Any]) -> dict[str, Any]:
    """An entry of a list as callers see it."""
    name = str(entry[kind.field])
    entry = {"name": name, **{each: value for each, value in entry.items() if value is not None}}
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


@dataclass(frozen=True, slots=True)
class Looker:
    """What is looked at. `passes`: what may pass though no check can look at it (`image`, `audio`, `file`)."""

    look: Callable[[str], str]
    passes: Collection[str] = EVERYTHING

    def part(self, content: Any) -> Any:
        """One part of a message or of a tool's result, with its texts, or that of the resource in it, looked at."""
        if isinstance(content, str):
            return self.look(content)
        if not isinstance(content, dict):
            return content
        inner = content.get("resource")
        told = [name for name in _TOLD if isinstance(content.get(name), str)]
        made = {**content, **{name: self.look(content[name]) for name in told}}
        if isinstance(inner, dict) and isinstance(inner.get("text"), str):
            made["resource"] = {**inner, "text": self.look(inner["text"])}
        elif inner is not None or "data" in content or not (told or "uri" in content):
            return made if self._kind(content) in self.passes else {"type": "text", "text": _LEFT_OUT}
        return made

    def _kind(self, content: dict[str, Any]) -> str:
        kind, inner = content.get("type"), content.get("resource")
        return kind if kind in EVERYTHING else _medium(inner if isinstance(inner, dict) else content)


def checked(kind: Kind, server: str, result: dict[str, Any], by: Looker) -> Any:
    """What a server gave, with every text of it looked at."""
    if kind.what == "prompt":
        messages = [_message(each, by) for each in objects(result.get("messages"))]
        described = result.get("description")
        made = {"description": by.look(described)} if isinstance(described, str) else {}
        return {**result, **made, "messages": messages}
    contents = [_content(each, server, by) for each in objects(result.get("contents"))]
    return {**result, "contents": contents}


def _content(each: dict[str, Any], server: str, by: Looker) -> dict[str, Any]:
    made = {**each, "uri": address(server, str(each.get("uri", "")))}
    if isinstance(each.get("text"), str):
        made["text"] = by.look(each["text"])
    elif "blob" in each and _medium(each) not in by.passes:
        del made["blob"]
        made |= {"mimeType": "text/plain", "text": _LEFT_OUT}
    return made


def _medium(each: dict[str, Any]) -> str:
    """What a blob is: an image, sound, or any other file."""
    kind = str(each.get("mimeType", "")).partition("/")[0]
    return kind if kind in EVERYTHING else "file"


def _message(each: dict[str, Any], by: Looker) -> dict[str, Any]:
    content = each.get("content")
    return {**each, "content": [by.part(one) for one in content] if isinstance(content, list) else by.part(content)}
