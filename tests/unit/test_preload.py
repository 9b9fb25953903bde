"""What a blueprint may load is loaded as it is taken up: later the code below a worker may be another one's."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.gateway_stack import blueprint, deployment, workload

import groundplan.gateway
from groundplan.blueprint.model import Cache, Cascade, Guardrails, Routing, Semantic
from groundplan.gateway import preload

FOLDER = Path(groundplan.gateway.__file__).parent
LOADED = {"groundplan.gateway.telemetry.otel", "groundplan.gateway.surfaces.chat.surface"}
"""By whoever exports traces, as it starts; and by every worker."""
CACHE: dict[str, Any] = {"seconds": 60, "max_bytes": 1000, "scope": "workload"}
CASES: list[tuple[dict[str, Any], str, tuple[str, ...]]] = [
    ({}, "chat", ()),
    ({}, "realtime", preload.REALTIME),
    ({"cache": Cache(**CACHE)}, "chat", ()),
    ({"cache": Cache(**CACHE, semantic=Semantic())}, "chat", preload.MEANING),
    ({"routing": Routing()}, "chat", ()),
    ({"routing": Routing(router="small@1")}, "chat", preload.ROUTER),
    ({"routing": Routing(cascade=Cascade(first="one", schema="{}"))}, "chat", preload.SCHEMA),
    ({"guardrails": Guardrails(schema="{}")}, "chat", preload.SCHEMA),
]


@pytest.mark.parametrize(("more", "kind", "names"), CASES)
def test_what_a_blueprint_needs_is_loaded_before_a_call_asks_for_it(
    more: dict[str, Any], kind: str, names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    made = blueprint(1, [deployment("one", 1, kind=kind)], [workload("assistant", ["one"], **more)])
    assert preload.missing(made) == sorted(names)
    monkeypatch.undo()
    preload.load(("groundplan.not_there", *names))
    assert preload.missing(made) == []


def test_whatever_a_call_may_load_of_ours_is_known() -> None:
    assert set(_of_functions()) - {*preload.REALTIME, *preload.ROUTER, *preload.MEANING} == LOADED


def _of_functions() -> Iterator[str]:
    for path in FOLDER.rglob("*.py"):
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                for node in ast.walk(function):
                    if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("groundplan."):
                        yield from _modules(node)


def _modules(node: ast.ImportFrom) -> list[str]:
    """Those that it names, or the one that it takes something of."""
    module = node.module or ""
    place = FOLDER.parent.joinpath(*module.split(".")[1:])
    return [f"{module}.{name.name}" for name in node.names] if place.is_dir() else [module]
