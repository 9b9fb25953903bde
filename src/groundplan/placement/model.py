"""What placement needs to know of a workload, and the rules about places. Types, constants and their words."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from decimal import Decimal

SENSITIVITY_ORDER = ("public", "internal", "confidential", "restricted")

_MEMBERS = "AT BE BG CY CZ DE DK EE ES FI FR GR HR HU IE IT LT LU LV MT NL PL PT RO SE SI SK"
EU = frozenset(_MEMBERS.split())
EEA = EU | {"EU", "IS", "LI", "NO"}
"""Members, and the names of the unions themselves: a site in `SE` is inside `EU`, a site in `EU` is inside `EEA`."""

ASSUMED_CALLS_PER_MONTH = Decimal(3000)
"""100 calls a day, where a workload declares no traffic."""


@dataclass(frozen=True, slots=True)
class Demand:
    """One workload as placement sees it. Names refer to deployments."""

    workload: str
    sensitivity: str
    residency: tuple[str, ...]
    """empty: anywhere"""
    preferred: tuple[str, ...] = ()
    """declared order; empty: the cheapest first"""
    fallbacks: tuple[str, ...] = ()
    calls_per_month: Decimal = ASSUMED_CALLS_PER_MONTH
    prompt_tokens: int = 800
    completion_tokens: int = 200
    assumed: bool = False
    """True where the traffic is our assumption"""
    purposes: tuple[str, ...] = ()
    chats: bool = True
    """False: it asks deployments of other types, so that none for chat is no refusal"""


def purpose_rule(allowed: Collection[str], purposes: Collection[str], what: str) -> str | None:
    """The rule that keeps a workload of these purposes away from a place for `allowed` ones; None: it is served."""
    lacking = sorted(set(purposes) - set(allowed))
    if not allowed or (purposes and not lacking):
        return None
    others = ", ".join(lacking) or "what names no purpose"
    return f"the {what} is for {', '.join(sorted(allowed))} only, not for {others}"
