"""AI that nobody declared: calls to providers found in the logs of a proxy, charges of providers found in bills. Pure.

Lines of any form are read: whatever looks like a host is looked up, and the first address or name in a line is taken
for who called. Only counts are kept. What calls said is not looked at; a provider that is not listed is not found.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Final

LONGEST: Final = 16_384
"""Bytes of a line that are looked at."""
_HOST = re.compile(r"(?<![A-Za-z0-9._-])((?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24})(?![A-Za-z0-9-])")
_WHO = re.compile(r"(?<![0-9.])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?![0-9.])|[\w.+-]{1,64}@[\w.-]{1,128}")
_BEDROCK = re.compile(r"bedrock(-runtime)?(-fips)?\.[a-z0-9-]+\.amazonaws\.com")


@dataclass(slots=True)
class Seen:
    """Calls to one host."""

    host: str
    provider: str
    declared: bool
    calls: int = 0
    callers: set[str] = field(default_factory=set)


@cache
def known() -> dict[str, str]:
    """host -> provider"""
    file = resources.files("groundplan.governance.register") / "providers.json"
    read = json.loads(file.read_text(encoding="utf-8"))
    return {host: each["name"] for each in read["providers"] for host in each["hosts"]}


def provider_of(host: str, also: Iterable[str] = ()) -> str | None:
    """Which provider a host belongs to; None for a host that is none's."""
    lower = host.lower()
    if _BEDROCK.fullmatch(lower):
        return "Amazon"
    for end in also:
        if lower == end or lower.endswith(f".{end}"):
            return end
    parts = lower.split(".")
    for start in range(len(parts) - 1):
        found = known().get(".".join(parts[start:]))
        if found is not None:
            return found
    return None


@cache
def _charged() -> dict[str, str]:
    """How bills and statements of cards name a provider -> the provider."""
    file = resources.files("groundplan.governance.register") / "providers.json"
    read = json.loads(file.read_text(encoding="utf-8"))
    return {name: each["name"] for each in read["providers"] for name in each["bills"]}


def charged_in(lines: Iterable[str], declared: Iterable[str], also: Iterable[str] = ()) -> list[Seen]:
    """Providers that lines of a bill, of expenses or of a card's statement name; of a line the first that it names, so
    that a model sold by a platform is the platform's. One is declared where some deployment is at one of its hosts:
    whether each charge is explained by calls is for reconciling to say."""
    names = _charged() | {end.lower(): end for end in also}
    longest = sorted(names, key=len, reverse=True)
    named = re.compile(rf"(?<![a-z0-9])(?:{'|'.join(map(re.escape, longest))})(?![a-z0-9])")
    ours = {provider for host in declared if (provider := provider_of(host, also)) is not None}
    found: dict[str, Seen] = {}
    for line in lines:
        match = named.search(line[:LONGEST].lower())
        if match is not None:
            provider = names[match.group()]
            seen = found.setdefault(provider, Seen(provider, provider, provider in ours))
            seen.calls += 1
    return sorted(found.values(), key=lambda each: (each.declared, -each.calls, each.host))


def seen_in(lines: Iterable[str], declared: Iterable[str], also: Iterable[str] = ()) -> list[Seen]:
    """Hosts of providers in the lines, the undeclared and most called first. `declared`: hosts of deployments."""
    ours, more = {host.lower() for host in declared}, tuple(end.lower() for end in also)
    found: dict[str, Seen] = {}
    providers: dict[str, str | None] = {}
    for line in lines:
        text = line[:LONGEST]
        for host in dict.fromkeys(match.group(1).lower() for match in _HOST.finditer(text)):
            if host not in providers:
                providers[host] = provider_of(host, more)
            provider = providers[host]
            if provider is None:
                continue
            seen = found.setdefault(host, Seen(host, provider, host in ours))
            seen.calls += 1
            who = _WHO.search(text)
            if who is not None:
                seen.callers.add(who.group())
    return sorted(found.values(), key=lambda each: (each.declared, -each.calls, each.host))
