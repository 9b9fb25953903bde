"""One use of what an MCP server has. Types only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from groundplan.blueprint.model import ToolServer
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.mcp.wire import named


@dataclass(slots=True)
class Use:
    """One use of a tool on its way. `server` is None for the gateway's own."""

    exchange: Exchange
    server: ToolServer | None
    tool: str
    arguments: dict[str, Any]
    retry: str
    asked: bool = False
    """Whoever has it was asked for it, and may have acted: it counts as a request."""

    others: tuple[str, ...] = ()
    """What else its server may take it for: rules hold for these, too."""

    @property
    def names(self) -> tuple[str, ...]:
        return (self.tool, *self.others)

    @property
    def given(self) -> tuple[str, ...]:
        """What a caller says in its name: an address may be filled in with anything."""
        kind, _, address = self.tool.partition(":")
        return (unquote(address),) if kind == "resource" and self.server is not None else ()

    @property
    def dangerous(self) -> bool:
        server = self.server
        return server is not None and any(named(name, server.dangerous) for name in self.names)

    @property
    def name(self) -> str:
        return f"{self.server.name}/{self.tool}" if self.server is not None else self.tool

    @property
    def step(self) -> str:
        """As the ledger tells it."""
        return f"tool {self.name}"[:120]


def caller_of(exchange: Exchange) -> str:
    """Whose session at a server it is: a key's, for whom it acts now."""
    return f"{exchange.key.id if exchange.key is not None else ''} {exchange.person}"
