"""The deployment chosen for a call, and why. A value; `routes` decides it."""

from __future__ import annotations

import msgspec


class Route(msgspec.Struct, frozen=True, omit_defaults=True):
    """The deployment chosen for a call, and why; part of its receipt."""

    deployment: str
    model: str
    by: str
    """`rule NAME`, `learned`, `unsure`, `strongest`, `affinity`, `cascade`, `only`, `order`"""
    reason: str
    router: str = ""
    expected: dict[str, float] = {}
    """model -> expected score"""
    costs: dict[str, float] = {}
    """model -> expected US dollars"""
    barred: dict[str, str] = {}
    """deployment -> the hard rule that kept it out"""
    escalated: bool = False
    """Whether the first answer of a cascade did not pass its checks."""
    answered: str = ""
    """The deployment that answered, where it is another one: a fallback, or a later one of a cascade."""
