"""MCP servers whose tools workloads may use through the gateway."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from groundplan.catalog.base import Strict
from groundplan.catalog.fields import LIST, FarUrl, Line, Name, PersonRef, Secret, Wait, list_schema

ToolName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}\*?$")]
ToolNames = Annotated[tuple[ToolName, ...], LIST, list_schema({"type": "string"})]
Pattern = Annotated[str, StringConstraints(pattern=r"^[\x21-\x29\x2b-\x7e]{1,200}\*?$")]
Patterns = Annotated[tuple[Pattern, ...], LIST, list_schema({"type": "string"})]
Workloads = Annotated[tuple[Name, ...], LIST, list_schema({"type": "string"}), Field(min_length=1)]


class ToolDoc(Strict):
    """An MCP server (Streamable HTTP). Its tools are at the gateway's /mcp under the workload's own keys."""

    kind: Literal["tool"] = "tool"
    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,30}$")]
    title: Line | None = None
    url: FarUrl
    """Its endpoint, such as https://crm.example/mcp."""
    key: Secret | None = None
    """Sent as a bearer token."""
    owner: PersonRef
    workloads: Workloads
    """Which may use it."""
    tools: ToolNames = ()
    """Tools that are offered; a star at the end matches any rest. Left out: all."""
    resources: Patterns = ()
    """Which of its resources, by their addresses; a star at the end stands for any rest. Left out: all where `tools` is
    left out too, else none."""
    prompts: Patterns = ()
    """Prompts that are offered; as `resources`."""
    dangerous: Patterns = ()
    """Each use of these waits for a person's approval: tools, `resource:ADDRESS`, `prompt:NAME`."""
    timeout: Wait = 30_000
    """Until an answer is whole."""
