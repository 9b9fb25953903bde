"""One use of a tool, resource or prompt of an MCP server. Types only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from groundplan.blueprint.model import ToolServer
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.mcp.wire import matches_any


@dataclass(slots=True)
class McpUse:
    """One use in progress. `server` is None for the gateway's own tool; `retry`: the id of an approval, or empty."""

    exchange: Exchange
    server: ToolServer | None
    tool: str
    arguments: dict[str, Any]
    retry: str
    was_sent: bool = False
    """Whether the server was asked, and may have acted: then the use counts as a request."""

    alternative_names: tuple[str, ...] = ()
    """Other names that the server may read this one as: rules hold for these, too."""

    @property
    def names(self) -> tuple[str, ...]:
        return (self.tool, *self.alternative_names)

    @property
    def caller_texts(self) -> tuple[str, ...]:
        """Texts of the caller that are part of the name: a URI from a template may contain anything."""
        kind, _, address = self.tool.partition(":")
        return (unquote(address),) if kind == "resource" and self.server is not None else ()

    @property
    def is_dangerous(self) -> bool:
        server = self.server
        return server is not None and any(matches_any(name, server.dangerous) for name in self.names)

    @property
    def name(self) -> str:
        return f"{self.server.name}/{self.tool}" if self.server is not None else self.tool

    @property
    def step(self) -> str:
        """The name of this step in the ledger."""
        return f"tool {self.name}"[:120]


def session_owner(exchange: Exchange) -> str:
    """The owner of a session at a server: a key, and the person for whom it acts now."""
    return f"{exchange.key.id if exchange.key is not None else ''} {exchange.person}"
