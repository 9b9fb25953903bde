"""Approvals, policies, tools and control frameworks."""

from __future__ import annotations

import msgspec


class ApprovalTerms(msgspec.Struct, frozen=True, kw_only=True):
    """How many people must approve a change, and how long an approval holds."""

    seats: int = 1
    valid_days: int = 365
    grace_days: int = 0
    """Days for which production goes on after the end of an approval, where no data is restricted."""
    price_band: float = 0.2
    """Share by which a price may rise above the approved one."""


class PolicyRules(msgspec.Struct, frozen=True, kw_only=True):
    """One policy document: Cedar text that governs calls."""

    name: str
    text: str
    owner: str
    hint: str = ""
    enforced: bool = False
    """False: the policy refuses nothing, and is only tried against recorded calls."""
    closed: bool = False
    """Whether, while the policy is enforced, everything that no permit allows is refused."""


class ToolServer(msgspec.Struct, frozen=True, kw_only=True):
    """An MCP server that workloads use through the gateway."""

    name: str
    url: str
    key: str | None = None
    """Secret reference."""
    owner: str
    workloads: list[str]
    tools: list[str] = []
    """Names of the offered tools; empty: all. A star at the end matches any rest."""
    dangerous: list[str] = []
    """Names of the tools each use of which waits for the approval of a person."""
    timeout_ms: int = 30000
    resources: list[str] = []
    """The offered resources; empty: all where `tools` is empty too, else none."""
    prompts: list[str] = []


class Described(msgspec.Struct, frozen=True, kw_only=True):
    """How a workload is described; policies may use it. A change of it ends no approval."""

    pattern: str = "other"
    effect: str = "informs"
    regimes: list[str] = []
    risk: str = ""
    """Digest of the declared risk; empty: none is declared."""


class Framework(msgspec.Struct, frozen=True, kw_only=True):
    """A control framework that the company follows."""

    name: str
    owner: str
    profile: str | None = None
    workloads: list[str] = []
    """Empty: all workloads that are served."""
    excluded: dict[str, str] = {}
    """control -> reason"""
    controls: list[str] = []
    """Identifiers of the company's own controls."""
