"""Approvals, policies, tools and control frameworks."""

from __future__ import annotations

import msgspec


class ApprovalTerms(msgspec.Struct, frozen=True, kw_only=True):
    """How many people must agree, and how long that holds."""

    seats: int = 1
    valid_days: int = 365
    grace_days: int = 0
    """Production goes on so long after the end, where no data is restricted."""
    price_band: float = 0.2
    """Share by which a price may rise above the approved one."""


class PolicyRules(msgspec.Struct, frozen=True, kw_only=True):
    """One policy document: Cedar text that governs calls."""

    name: str
    text: str
    owner: str
    hint: str = ""
    enforced: bool = False
    """False: it refuses nothing, and is only tried against recorded calls."""
    closed: bool = False
    """While it is enforced, what no permit allows is refused."""


class ToolServer(msgspec.Struct, frozen=True, kw_only=True):
    """An MCP server that workloads use through the gateway."""

    name: str
    url: str
    key: str | None = None
    """Secret reference."""
    owner: str
    workloads: list[str]
    tools: list[str] = []
    """Those of its tools that are offered; empty: all. A star at the end stands for any rest."""
    dangerous: list[str] = []
    """Each use of these waits for the approval of a person."""
    timeout_ms: int = 30000
    resources: list[str] = []
    """Those of its resources that are offered; empty: all where `tools` is empty too, else none."""
    prompts: list[str] = []


class Described(msgspec.Struct, frozen=True, kw_only=True):
    """What a workload is said to be; policies may look at it. Ends no approval when it changes."""

    pattern: str = "other"
    effect: str = "informs"
    regimes: list[str] = []
    risk: str = ""
    """Digest of the declared risk; empty: none is declared."""


class Framework(msgspec.Struct, frozen=True, kw_only=True):
    """A control framework that the company holds itself to."""

    name: str
    owner: str
    profile: str | None = None
    workloads: list[str] = []
    """Empty: all that are served."""
    excluded: dict[str, str] = {}
    """control -> reason"""
    controls: list[str] = []
    """Own ones, by identifier."""
