"""Resources and prompts of declared MCP servers: their names for callers, and which of them callers may see. Pure.

A resource is `groundplan-mcp://SERVER/` followed by its own URI, so that two servers never collide; a prompt has its
server's name as a prefix, as tools do. Rules, kill switches and approvals know them as `resource:URI` and
`prompt:NAME`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

from groundplan.blueprint.model import ToolServer
from groundplan.core.errors import Invalid
from groundplan.gateway.mcp.wire import SEPARATOR, dicts_in, matches_any, split_name

SCHEME = "groundplan-mcp://"
MAX_NAME_LENGTH = 4000
"""Most characters of a URI or a name."""
ALL_MEDIA = frozenset({"image", "audio", "file"})
_TEXT_FIELDS = ("text", "title", "description")
"""Fields of a content part that a model may read; of resource links, too."""
_ESCAPED = re.compile("%([0-9A-Fa-f]{2})")
_UNRESERVED = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~")
_IGNORED_CHARACTERS = {9: None, 10: None, 13: None}
"""Characters that URL parsers drop wherever they stand."""
_STRIPPED = "".join(map(chr, range(33)))
_CASELESS_HOST_SCHEMES = frozenset({"http", "https", "ws", "wss", "ftp", "file"})
"""Schemes whose hosts are case-insensitive."""
_LEFT_OUT = "(left out: no guardrail of this workload can look at it)"


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of entry of a server. `lists`, `gets`: its MCP methods; `key`: the list in an answer; `field`: the name
    in an entry; `what`: the word for messages."""

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


def is_offered(server: ToolServer, kind: Kind, name: str) -> bool:
    """Whether an entry of a server may be seen at all: as declared, or all where its tools are not restricted
    either."""
    if kind.what != "resource":
        return matches_any(name, server.prompts) if server.prompts else not server.tools
    if not server.resources:
        return not server.tools
    patterns = [*server.resources, *map(normalized_uri, server.resources)]
    return matches_any(name, server.resources) and all(matches_any(each, patterns) for each in alternative_uris(name))


def alternative_uris(uri: str) -> tuple[str, ...]:
    """Other URIs that a server may read this one as: most normalize it as browsers do, some decode all of it."""
    return tuple(dict.fromkeys(each for each in (normalized_uri(uri), normalized_uri(unquote(uri))) if each != uri))


def normalized_uri(uri: str) -> str:
    """A URI in normal form: `FILE:///a/./b/../%63` is `file:///a/c`."""
    text = uri.translate(_IGNORED_CHARACTERS).strip(_STRIPPED)
    scheme, colon, rest = text.partition(":")
    if not colon:
        return text
    end = min((at for at in (rest.find("?"), rest.find("#")) if at >= 0), default=len(rest))
    rest, query = _ESCAPED.sub(_unescape_unreserved, rest[:end]), _ESCAPED.sub(_unescape_unreserved, rest[end:])
    scheme, rest = scheme.lower(), rest.replace("\\", "/")
    host, path = "", rest
    if rest.startswith("//"):
        host, slash, path = rest[2:].partition("/")
        host, path = "//" + (host.lower() if scheme in _CASELESS_HOST_SCHEMES else host), slash + path
    return f"{scheme}:{host}{_resolve_dots(path) if path.startswith('/') else path}{query}"


def _resolve_dots(path: str) -> str:
    parts = path.split("/")
    resolved: list[str] = []
    for part in parts[1:]:
        if part == "..":
            del resolved[-1:]
        elif part != ".":
            resolved.append(part)
    return "/" + "/".join(resolved) + ("/" if parts[-1] in (".", "..") and resolved else "")


def _unescape_unreserved(found: re.Match[str]) -> str:
    """Decode escapes of unreserved characters, which mean the same escaped or not."""
    character = chr(int(found[1], 16))
    return character if character in _UNRESERVED else found[0].upper()


def entry_for_callers(server: str, kind: Kind, entry: dict[str, Any]) -> dict[str, Any]:
    """An entry of a list as callers see it."""
    name = str(entry[kind.field])
    entry = {"name": name, **{each: value for each, value in entry.items() if value is not None}}
    return {**entry, kind.field: caller_uri(server, name) if kind.what == "resource" else f"{server}{SEPARATOR}{name}"}


def caller_uri(server: str, uri: str) -> str:
    return f"{SCHEME}{server}/{quote(uri, safe='{}')}"


def requested_name(kind: Kind, params: dict[str, Any]) -> tuple[str, str]:
    """(server, the server's own name) of the entry that a caller requests. Raises `Invalid` (`mcp_message`)."""
    name = params.get("uri" if kind.what == "resource" else "name")
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME_LENGTH:
        raise Invalid(f"{kind.gets} names a {kind.what}", code="mcp_message", hint="See the MCP.")
    if kind.what == "prompt":
        return split_name(name)
    server, _, rest = name.removeprefix(SCHEME).partition("/")
    return (server, unquote(rest)) if name.startswith(SCHEME) else ("", name)


@dataclass(frozen=True, slots=True)
class ContentChecker:
    """Checks contents of servers. `check_text` returns a text as the client may get it; `unchecked_media`: kinds of
    media that pass although no check can read them (`image`, `audio`, `file`)."""

    check_text: Callable[[str], str]
    unchecked_media: Collection[str] = ALL_MEDIA

    def check_part(self, content: Any) -> Any:
        """One part of a message or of a tool's result, with its texts, or that of an embedded resource, checked."""
        if isinstance(content, str):
            return self.check_text(content)
        if not isinstance(content, dict):
            return content
        inner = content.get("resource")
        text_fields = [name for name in _TEXT_FIELDS if isinstance(content.get(name), str)]
        made = {**content, **{name: self.check_text(content[name]) for name in text_fields}}
        if isinstance(inner, dict) and isinstance(inner.get("text"), str):
            made["resource"] = {**inner, "text": self.check_text(inner["text"])}
        elif inner is not None or "data" in content or not (text_fields or "uri" in content):
            return made if self._kind(content) in self.unchecked_media else {"type": "text", "text": _LEFT_OUT}
        return made

    def _kind(self, content: dict[str, Any]) -> str:
        kind, inner = content.get("type"), content.get("resource")
        return kind if kind in ALL_MEDIA else _media_kind(inner if isinstance(inner, dict) else content)


def checked_result(kind: Kind, server: str, result: dict[str, Any], checker: ContentChecker) -> Any:
    """A server's answer with every text of it checked."""
    if kind.what == "prompt":
        messages = [_checked_message(each, checker) for each in dicts_in(result.get("messages"))]
        described = result.get("description")
        made = {"description": checker.check_text(described)} if isinstance(described, str) else {}
        return {**result, **made, "messages": messages}
    contents = [_checked_content(each, server, checker) for each in dicts_in(result.get("contents"))]
    return {**result, "contents": contents}


def _checked_content(each: dict[str, Any], server: str, checker: ContentChecker) -> dict[str, Any]:
    made = {**each, "uri": caller_uri(server, str(each.get("uri", "")))}
    if isinstance(each.get("text"), str):
        made["text"] = checker.check_text(each["text"])
    elif "blob" in each and _media_kind(each) not in checker.unchecked_media:
        del made["blob"]
        made |= {"mimeType": "text/plain", "text": _LEFT_OUT}
    return made


def _media_kind(each: dict[str, Any]) -> str:
    """The kind of a blob: `image`, `audio`, or `file` for any other."""
    kind = str(each.get("mimeType", "")).partition("/")[0]
    return kind if kind in ALL_MEDIA else "file"


def _checked_message(each: dict[str, Any], checker: ContentChecker) -> dict[str, Any]:
    content = each.get("content")
    return {
        **each,
        "content": [checker.check_part(one) for one in content]
        if isinstance(content, list)
        else checker.check_part(content),
    }
