"""The example company as `make run` starts it, and what is read of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.acceptance.stack import Stack, request

EXAMPLE = Path(__file__).parents[2] / "examples/company"


@contextlib.contextmanager
def company(folder: Path) -> Iterator[Stack]:
    stack = Stack(folder, EXAMPLE, options=("--demo", "--tour"))
    try:
        stack.start(240)
        yield stack
    finally:
        stack.stop()


def trade_off(run: Stack, workload: str) -> dict[str, Any]:
    found = run.control("GET", f"/api/routing/trade-off?workload={workload}")
    return dict(found.body) if found.status == 200 else {"quality": [], "saved": None}


def page(run: Stack, workload: str) -> str:
    """What the console shows."""
    link = str(run.control("POST", "/api/login-links", {"person": None}).body["url"]).partition("/login/")[2]
    host = {"host": f"localhost:{run.control_port}"}
    given = request(run.control_port, "GET", f"/login/{link}", headers=host).headers["set-cookie"]
    signed = {**host, "cookie": given.partition(";")[0]}
    body = request(run.control_port, "GET", f"/cost/trade-off?workload={workload}", headers=signed).body
    return " ".join(bytes(body).decode().split())


def judged(run: Stack, workload: str, least: int) -> dict[str, Any] | None:
    """The same once so many answers are judged in each dimension."""
    found = trade_off(run, workload)
    return found if found["quality"] and all(each["judged"] >= least for each in found["quality"]) else None


def kept(found: dict[str, Any]) -> dict[str, str]:
    """Dimension -> whether its floor is."""
    return {each["dimension"]: each["kept"] for each in found["quality"]}
