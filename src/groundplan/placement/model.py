"""Types, constants and wording of the rules about places that solver, guard and explanations share."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from decimal import Decimal

SENSITIVITY_ORDER = ("public", "internal", "confidential", "restricted")

_MEMBERS = "AT BE BG CY CZ DE DK EE ES FI FR GR HR HU IE IT LT LU LV MT NL PL PT RO SE SI SK"
EU = frozenset(_MEMBERS.split())
EEA = EU | {"EU", "IS", "LI", "NO"}
"""Members, and the names of smaller unions: a site in `SE` is inside `EU`, a site in `EU` is inside `EEA`."""

ASSUMED_CALLS_PER_MONTH = Decimal(3000)
"""100 calls a day, for workloads that declare no traffic."""


@dataclass(frozen=True, slots=True)
class Demand:
    """The demand of one workload. `preferred` and `fallbacks` are names of deployments."""

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
    """True if the traffic is an assumption"""
    purposes: tuple[str, ...] = ()
    chats: bool = True
    """False: the workload calls deployments of other types only, so that it needs none of type chat"""


def purpose_rule(allowed: Collection[str], purposes: Collection[str], what: str) -> str | None:
    """The rule that excludes a workload with these purposes from a place for the `allowed` ones; None: it may run."""
    lacking = sorted(set(purposes) - set(allowed))
    if not allowed or (purposes and not lacking):
        return None
    others = ", ".join(lacking) or "what names no purpose"
    return f"the {what} is for {', '.join(sorted(allowed))} only, not for {others}"
