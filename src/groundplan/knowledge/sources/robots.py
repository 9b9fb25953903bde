"""What a site allows a crawler to fetch and index: robots.txt by RFC 9309, `X-Robots-Tag`, `<meta name=robots>`. Pure.

Of the rules that match an address the longest decides, whatever their order; of two equally long ones, the one that
allows. `*` stands for anything, `$` for the end. Addresses are compared in the form in which they are requested.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote, urlsplit

MAX_BYTES: Final = 512 << 10
"""Bytes of robots.txt that are read, as by other crawlers; the rest is ignored."""
_AGENT = re.compile(r"[A-Za-z_-]+|\*")
_META = re.compile(rb"<meta\b[^>]{0,2000}>", re.IGNORECASE)
_ATTRIBUTE = re.compile(rb"\b(name|content)\s*=\s*(\"[^\"]*\"|'[^']*'|[^\s\"'>]+)", re.IGNORECASE)
_NAMED_HEADER = re.compile(r"\s*([A-Za-z0-9_*-]+)\s*:(.*)", re.DOTALL)
_VALUED_DIRECTIVES: Final = frozenset({"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"})
"""Directives with a value, whose names before the colon are no names of crawlers."""
_HEAD_BYTES: Final = 256 << 10
_DIRECTIVES: Final = frozenset({"noindex", "nofollow"})


@dataclass(frozen=True, slots=True)
class Rule:
    """Whether addresses that begin with `pattern` may be fetched."""

    pattern: str
    allow: bool


@dataclass(frozen=True, slots=True)
class Robots:
    """The rules for one crawler; `delay`: the seconds between requests, if the site asks for a delay."""

    rules: tuple[Rule, ...] = ()
    delay: float | None = None
    sitemaps: tuple[str, ...] = ()

    def allows(self, url: str) -> bool:
        """Whether an address may be fetched. Raises `ValueError` if it is no valid address."""
        parts = urlsplit(url)
        path = normalised_path(parts.path)
        if path == "/robots.txt":
            return True
        address = _normalise(f"{path}?{parts.query}" if parts.query else path)
        found = [rule for rule in self.rules if _matches(rule.pattern, address)]
        return max(found, key=lambda rule: (len(rule.pattern), rule.allow)).allow if found else True


def normalised_path(path: str) -> str:
    """The path of an address in the form in which it is requested; percent escapes stay."""
    return quote(path, safe="/%:@!$&'()*+,;=~") or "/"


def parse_robots(data: bytes, agent: str) -> Robots:
    """The rules for `agent`: those of every group that names it, else those for all crawlers."""
    own_group, default_group = _Group(), _Group()
    sitemaps: list[str] = []
    current: list[_Group] = []
    in_agent_lines = is_named = False
    for line in data[:MAX_BYTES].decode("utf-8-sig", "replace").splitlines():
        name, found, value = line.partition("#")[0].partition(":")
        name, value = name.strip().lower(), value.strip()
        if not found:
            continue
        if name == "user-agent":
            current = current if in_agent_lines else []
            in_agent_lines = True
            match = _AGENT.match(value)
            if match is not None and match[0] == "*":
                current.append(default_group)
            elif match is not None and match[0].lower() == agent:
                current.append(own_group)
                is_named = True
        elif name == "sitemap":
            sitemaps.append(value)
        elif name in ("allow", "disallow", "crawl-delay"):
            in_agent_lines = False
            for group in current:
                group.add(name, value)
    group = own_group if is_named else default_group
    return Robots(tuple(group.rules), group.delay, tuple(sitemaps))


class _Group:
    def __init__(self) -> None:
        self.rules: list[Rule] = []
        self.delay: float | None = None

    def add(self, name: str, value: str) -> None:
        if name == "crawl-delay":
            try:
                seconds = float(value)
            except ValueError:
                return
            self.delay = seconds if math.isfinite(seconds) and seconds >= 0 else self.delay
        elif value:
            self.rules.append(
                Rule(_parse_pattern(value if value.startswith(("/", "*")) else f"/{value}"), name == "allow")
            )


def _parse_pattern(value: str) -> str:
    """The normalised pattern of a rule; only literal wildcards count: `%2A` and `%24` are the characters themselves."""
    end = "$" if value.endswith("$") else ""
    return "*".join(map(_normalise, value.removesuffix("$").split("*"))) + end


def _normalise(text: str) -> str:
    """An address in one spelling of all characters, with those escaped that would be wildcards."""
    return quote(unquote(text, errors="surrogateescape"), safe="/?&=:;,@+!~'()[]", errors="surrogateescape")


def _matches(pattern: str, address: str) -> bool:
    is_anchored = pattern.endswith("$")
    first, *rest = (pattern[:-1] if is_anchored else pattern).split("*")
    if not address.startswith(first):
        return False
    at = len(first)
    if not rest:
        return not is_anchored or at == len(address)
    for part in rest[:-1]:
        at = address.find(part, at)
        if at < 0:
            return False
        at += len(part)
    last = rest[-1]
    return address.endswith(last) and len(address) - len(last) >= at if is_anchored else address.find(last, at) >= 0


def page_directives(headers: Iterable[str], page: bytes, agent: str) -> frozenset[str]:
    """The directives of a response for `agent`, among `noindex` (do not index the page) and `nofollow` (do not follow
    its links): from its `X-Robots-Tag` headers, or from the head of its page."""
    found = set[str]()
    for header in headers:
        match = _NAMED_HEADER.match(header)
        if match is None or match[1].lower() in _VALUED_DIRECTIVES:
            found |= _parse_directives(header)
        elif match[1].lower() in (agent, "*"):
            found |= _parse_directives(match[2])
    for tag in _META.findall(page[:_HEAD_BYTES]):
        attributes = {name.lower(): value.strip(b"\"'").decode("latin-1") for name, value in _ATTRIBUTE.findall(tag)}
        if attributes.get(b"name", "").strip().lower() in ("robots", agent):
            found |= _parse_directives(attributes.get(b"content", ""))
    return frozenset(found & _DIRECTIVES if "none" not in found else _DIRECTIVES)


def _parse_directives(text: str) -> set[str]:
    return {word.strip().lower() for word in text.split(",")}
