"""The example company as `make run` starts it, and what tests read from it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.acceptance.stack import Stack, request

EXAMPLE = Path(__file__).parents[2] / "examples/company"


@contextlib.contextmanager
def run_example_company(folder: Path) -> Iterator[Stack]:
    stack = Stack(folder, EXAMPLE, options=("--demo", "--tour"))
    try:
        stack.start(240)
        yield stack
    finally:
        stack.stop()


def get_trade_off(stack: Stack, workload: str) -> dict[str, Any]:
    reply = stack.control("GET", f"/api/routing/trade-off?workload={workload}")
    return dict(reply.body) if reply.status == 200 else {"quality": [], "saved": None}


def trade_off_page(stack: Stack, workload: str) -> str:
    """The text of the console's trade-off page, with its HTML and single spaces."""
    link = str(stack.control("POST", "/api/login-links", {"person": None}).body["url"]).partition("/login/")[2]
    host = {"host": f"localhost:{stack.control_port}"}
    cookie = request(stack.control_port, "GET", f"/login/{link}", headers=host).headers["set-cookie"]
    headers = {**host, "cookie": cookie.partition(";")[0]}
    body = request(stack.control_port, "GET", f"/cost/trade-off?workload={workload}", headers=headers).body
    return " ".join(bytes(body).decode().split())


def trade_off_once_judged(stack: Stack, workload: str, least: int) -> dict[str, Any] | None:
    """The trade-off of a workload; None until at least `least` answers are judged in each dimension."""
    trade_off = get_trade_off(stack, workload)
    return trade_off if trade_off["quality"] and all(each["judged"] >= least for each in trade_off["quality"]) else None


def floors_kept(trade_off: dict[str, Any]) -> dict[str, str]:
    """Dimension -> whether its floor is kept (`yes`, `no`)."""
    return {each["dimension"]: each["kept"] for each in trade_off["quality"]}
