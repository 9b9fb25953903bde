"""Why a call went where it went. A value; `routes` decides it."""

from __future__ import annotations

import msgspec


class Route(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why a call went where it went; in its receipt."""

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
    """The first answer did not pass its checks."""
    answered: str = ""
    """The deployment that the call ended at, where it is another one: a fallback, or what a cascade went on to."""
