"""Refusals of declarations that need an optional package which is not installed: their first call would fail. The
packages are not imported here.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

from groundplan.catalog.workspace import Workspace
from groundplan.core import presidio
from groundplan.core.errors import Problem

_BUILT_IN_APIS = ("openai", "anthropic")
"""APIs that need no further library; of Anthropic's only Messages."""


def missing_extras(workspace: Workspace) -> list[Problem]:
    """Problems of guardrail checks that cannot run here, and of deployments that cannot be reached."""
    found: list[Problem] = []
    if not presidio.installed():
        found += _presidio_problems(workspace)
    if find_spec("pyqwest") is None:
        found += _transport_problems(workspace)
    if find_spec("websockets") is None:
        found += _realtime_problems(workspace)
    if find_spec("any_llm") is None:
        found += _provider_problems(workspace)
    return found


def _presidio_problems(workspace: Workspace) -> Iterator[Problem]:
    for name, item in workspace.workloads.items():
        rule = item.guardrails
        if rule is not None:
            for place, asked in (("input", rule.input.presidio), ("output", rule.output.presidio)):
                if asked != "off":
                    path = ("workload", name, "guardrails", place, "presidio")
                    yield _problem(workspace, path, "guardrails name presidio, which", "governance")


def _transport_problems(workspace: Workspace) -> Iterator[Problem]:
    for name, item in workspace.deployments.items():
        proxy = workspace.company.proxy if item.proxy is None else item.proxy
        secure = (proxy or "").startswith("https:") and not item.url.startswith("local:")
        if item.http == 2:
            yield _problem(workspace, ("deployment", name, "http"), f"{name} is reached by HTTP/2, which", "http2")
        elif secure:
            yield _problem(workspace, ("deployment", name, "proxy"), f"the way to {name} by a proxy of https", "http2")


def _realtime_problems(workspace: Workspace) -> Iterator[Problem]:
    for name, item in workspace.deployments.items():
        if item.type == "realtime":
            yield _problem(workspace, ("deployment", name, "type"), f"WebSocket, by which {name} talks,", "realtime")


def _provider_problems(workspace: Workspace) -> Iterator[Problem]:
    for name, item in workspace.deployments.items():
        if item.api not in _BUILT_IN_APIS:
            yield _problem(workspace, ("deployment", name, "api"), f"what asks {item.api} for {name}", "providers")


def _problem(workspace: Workspace, path: tuple[str, ...], what: str, extra: str) -> Problem:
    kind, name, *rest = path
    return Problem(
        f"{what} is not installed",
        "extra_missing",
        f"Install it where the control process and the gateways run: pip install 'groundplan[{extra}]'.",
        workspace.where(kind, name, *rest),
    )
