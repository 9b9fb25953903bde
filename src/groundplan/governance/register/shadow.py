"""Undeclared AI: calls to providers found in logs of a proxy, and charges of providers found in bills. Pure.

Lines may have any format: whatever looks like a host is looked up, and the first IP or e-mail address in a line is
taken for the caller. Only counts are kept; contents of calls are not read. A provider that is not listed is not found.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Final

MAX_LINE_CHARACTERS: Final = 16_384
"""The rest of a longer line is not read."""
_HOST = re.compile(r"(?<![A-Za-z0-9._-])((?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24})(?![A-Za-z0-9-])")
_CALLER = re.compile(r"(?<![0-9.])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?![0-9.])|[\w.+-]{1,64}@[\w.-]{1,128}")
_BEDROCK = re.compile(r"bedrock(-runtime)?(-fips)?\.[a-z0-9-]+\.amazonaws\.com")


@dataclass(slots=True)
class ShadowUse:
    """Calls to one host of a provider, or charges of one provider."""

    host: str
    provider: str
    declared: bool
    calls: int = 0
    callers: set[str] = field(default_factory=set)


@cache
def providers_by_host() -> dict[str, str]:
    """Host -> provider."""
    file = resources.files("groundplan.governance.register") / "providers.json"
    raw = json.loads(file.read_text(encoding="utf-8"))
    return {host: each["name"] for each in raw["providers"] for host in each["hosts"]}


def provider_of_host(host: str, also: Iterable[str] = ()) -> str | None:
    """The provider that a host belongs to, or the domain of `also`; None if it is no provider's."""
    lower = host.lower()
    if _BEDROCK.fullmatch(lower):
        return "Amazon"
    for end in also:
        if lower == end or lower.endswith(f".{end}"):
            return end
    parts = lower.split(".")
    for start in range(len(parts) - 1):
        found = providers_by_host().get(".".join(parts[start:]))
        if found is not None:
            return found
    return None


@cache
def _providers_by_bill_name() -> dict[str, str]:
    """Name of a provider in bills and card statements -> the provider."""
    file = resources.files("groundplan.governance.register") / "providers.json"
    raw = json.loads(file.read_text(encoding="utf-8"))
    return {name: each["name"] for each in raw["providers"] for name in each["bills"]}


def find_charges(lines: Iterable[str], declared: Iterable[str], also: Iterable[str] = ()) -> list[ShadowUse]:
    """Providers named in lines of a bill, of expenses or of a card statement; of each line the first name, so that a
    model sold by a platform counts as the platform's. A provider is declared if some deployment is at one of its hosts;
    whether each charge is explained by calls, reconciling tells."""
    names = _providers_by_bill_name() | {end.lower(): end for end in also}
    longest = sorted(names, key=len, reverse=True)
    named = re.compile(rf"(?<![a-z0-9])(?:{'|'.join(map(re.escape, longest))})(?![a-z0-9])")
    ours = {provider for host in declared if (provider := provider_of_host(host, also)) is not None}
    found: dict[str, ShadowUse] = {}
    for line in lines:
        match = named.search(line[:MAX_LINE_CHARACTERS].lower())
        if match is not None:
            provider = names[match.group()]
            seen = found.setdefault(provider, ShadowUse(provider, provider, provider in ours))
            seen.calls += 1
    return sorted(found.values(), key=lambda each: (each.declared, -each.calls, each.host))


def find_calls(lines: Iterable[str], declared: Iterable[str], also: Iterable[str] = ()) -> list[ShadowUse]:
    """Hosts of providers in lines of a log, undeclared and most called first. `declared`: hosts of deployments."""
    ours, more = {host.lower() for host in declared}, tuple(end.lower() for end in also)
    found: dict[str, ShadowUse] = {}
    providers: dict[str, str | None] = {}
    for line in lines:
        text = line[:MAX_LINE_CHARACTERS]
        for host in dict.fromkeys(match.group(1).lower() for match in _HOST.finditer(text)):
            if host not in providers:
                providers[host] = provider_of_host(host, more)
            provider = providers[host]
            if provider is None:
                continue
            seen = found.setdefault(host, ShadowUse(host, provider, host in ours))
            seen.calls += 1
            who = _CALLER.search(text)
            if who is not None:
                seen.callers.add(who.group())
    return sorted(found.values(), key=lambda each: (each.declared, -each.calls, each.host))
