"""What a site lets a reader of its pages fetch and keep: robots.txt by RFC 9309, `X-Robots-Tag`, words of a page. Pure.

Of the rules that match an address the longest decides, whatever their order; of two that are as long the one that
allows. `*` stands for anything, `$` for the end. Addresses are compared as they are asked for.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote, urlsplit

MAX_BYTES: Final = 512 << 10
"""Of robots.txt: what is behind is not read, as others do it."""
_AGENT = re.compile(r"[A-Za-z_-]+|\*")
_META = re.compile(rb"<meta\b[^>]{0,2000}>", re.IGNORECASE)
_ATTRIBUTE = re.compile(rb"\b(name|content)\s*=\s*(\"[^\"]*\"|'[^']*'|[^\s\"'>]+)", re.IGNORECASE)
_NAMED = re.compile(r"\s*([A-Za-z0-9_*-]+)\s*:(.*)", re.DOTALL)
_VALUED: Final = frozenset({"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"})
"""Words before a colon that are no names of readers."""
_HEAD: Final = 256 << 10
_ASKED: Final = frozenset({"noindex", "nofollow"})


@dataclass(frozen=True, slots=True)
class Rule:
    """Where an address begins as `pattern` says, whether it may be fetched."""

    pattern: str
    allow: bool


@dataclass(frozen=True, slots=True)
class Robots:
    """The rules for one reader; `delay` in seconds between requests, where the site asks for one."""

    rules: tuple[Rule, ...] = ()
    delay: float | None = None
    sitemaps: tuple[str, ...] = ()

    def allows(self, url: str) -> bool:
        """Raises `ValueError` for what is no address."""
        parts = urlsplit(url)
        path = normalised_path(parts.path)
        if path == "/robots.txt":
            return True
        place = _plain(f"{path}?{parts.query}" if parts.query else path)
        found = [rule for rule in self.rules if _matches(rule.pattern, place)]
        return max(found, key=lambda rule: (len(rule.pattern), rule.allow)).allow if found else True


def normalised_path(path: str) -> str:
    """The path of an address as it is asked for: what is written as a number stays so."""
    return quote(path, safe="/%:@!$&'()*+,;=~") or "/"


def parse_robots(data: bytes, agent: str) -> Robots:
    """The rules for `agent`: those of every group that names it, else of those for everybody."""
    own, every = _Group(), _Group()
    sitemaps: list[str] = []
    current: list[_Group] = []
    naming = named = False
    for line in data[:MAX_BYTES].decode("utf-8-sig", "replace").splitlines():
        name, found, value = line.partition("#")[0].partition(":")
        name, value = name.strip().lower(), value.strip()
        if not found:
            continue
        if name == "user-agent":
            current = current if naming else []
            naming = True
            match = _AGENT.match(value)
            if match is not None and match[0] == "*":
                current.append(every)
            elif match is not None and match[0].lower() == agent:
                current.append(own)
                named = True
        elif name == "sitemap":
            sitemaps.append(value)
        elif name in ("allow", "disallow", "crawl-delay"):
            naming = False
            for group in current:
                group.add(name, value)
    group = own if named else every
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
            self.rules.append(Rule(_pattern(value if value.startswith(("/", "*")) else f"/{value}"), name == "allow"))


def _pattern(value: str) -> str:
    """A rule's, with its wildcards as they are: what is written as a number (`%2A`, `%24`) is the sign itself."""
    end = "$" if value.endswith("$") else ""
    return "*".join(map(_plain, value.removesuffix("$").split("*"))) + end


def _plain(text: str) -> str:
    """An address with every sign written the same way, and none that is a wildcard."""
    return quote(unquote(text, errors="surrogateescape"), safe="/?&=:;,@+!~'()[]", errors="surrogateescape")


def _matches(pattern: str, place: str) -> bool:
    whole = pattern.endswith("$")
    first, *rest = (pattern[:-1] if whole else pattern).split("*")
    if not place.startswith(first):
        return False
    at = len(first)
    if not rest:
        return not whole or at == len(place)
    for part in rest[:-1]:
        at = place.find(part, at)
        if at < 0:
            return False
        at += len(part)
    last = rest[-1]
    return place.endswith(last) and len(place) - len(last) >= at if whole else place.find(last, at) >= 0


def directives_of(headers: Iterable[str], page: bytes, agent: str) -> frozenset[str]:
    """What an answer asks for, of `noindex` (not to be found) and `nofollow` (its links not to be): in one of its
    `X-Robots-Tag`, or in the head of its page."""
    said = set[str]()
    for header in headers:
        match = _NAMED.match(header)
        if match is None or match[1].lower() in _VALUED:
            said |= _directives(header)
        elif match[1].lower() in (agent, "*"):
            said |= _directives(match[2])
    for tag in _META.findall(page[:_HEAD]):
        told = {name.lower(): value.strip(b"\"'").decode("latin-1") for name, value in _ATTRIBUTE.findall(tag)}
        if told.get(b"name", "").strip().lower() in ("robots", agent):
            said |= _directives(told.get(b"content", ""))
    return frozenset(said & _ASKED if "none" not in said else _ASKED)


def _directives(text: str) -> set[str]:
    return {word.strip().lower() for word in text.split(",")}
