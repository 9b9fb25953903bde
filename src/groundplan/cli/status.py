"""`groundplan status`: the blueprint, gateways, pending changes and problems."""

from __future__ import annotations

from typing import Any

from groundplan.cli.client import ControlClient
from groundplan.cli.options import HomeOption, JsonOption
from groundplan.cli.output import emit, pending_text, table
from groundplan.core.words import quantity

ROWS_SHOWN = 20
API_TIMEOUT_SECONDS = 20.0
"""Short, since this command must also report a control process that does not answer."""


def status(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Show the blueprint, gateways, pending changes and whom they wait for, and what the workspace would change."""
    value = ControlClient.connect(home, API_TIMEOUT_SECONDS).get("/api/status")
    emit(value, as_json, status_text(value))


def status_text(value: dict[str, Any]) -> str:
    """The status for people."""
    lines = [
        f"{value['company'] or 'no company yet'}: blueprint {value['blueprint'] or 'none'}, "
        f"PostgreSQL {value['postgres']}"
    ]
    addresses = value.get("addresses") or {}
    lines += [f"gateway at {addresses['public']}, console at {addresses['control']}"] if len(addresses) > 1 else []
    lines += [f"NOT WELL: {problem}" for problem in value.get("problems", ())]
    gateways = value["gateways"]
    if gateways:
        lines += ["", table(
            ("gateway", "blueprint", "ready", "not in the ledger yet"),
            [(g["pid"], g["blueprint"], "yes" if g["ready"] else "no", _lag(g["journal_lag"])) for g in gateways],
        )]  # fmt: skip
    else:
        lines.append("no gateway is connected")
    states = _breaker_states(gateways)
    lines += [_breaker_text(name, found, len(gateways)) for name, found in sorted(states.items())]
    if gateways and all(state.startswith("closed") for found in states.values() for state in found):
        lines.append("no deployment's breaker is open")
    lines += [pending_text(pending) for pending in value["pending"][:ROWS_SHOWN]]
    if (more := len(value["pending"]) - ROWS_SHOWN) > 0:
        lines.append(f"{quantity(more, 'more change waits', 'more changes wait')}: `groundplan changes list`")
    if value["difference"]:
        lines += ["", "the workspace differs from the blueprint (see `groundplan plan`):"]
        lines += [f"  {difference}" for difference in value["difference"]]
    if value.get("kills"):
        lines += [f"STOPPED: {kill['scope']} ({kill['reason']})" for kill in value["kills"]]
    lines += [f"used up, or nearly: {exhausted}" for exhausted in value.get("near_limits", [])]
    if value["findings"]:
        lines.append(f"{quantity(value['findings'], 'finding')} in the inbox")
    return "\n".join(lines)


def _breaker_states(gateways: list[dict[str, Any]]) -> dict[str, list[str]]:
    """The state of each deployment's breaker, such as `open: 8 failures in a row`, at each worker that names it."""
    states: dict[str, list[str]] = {}
    for gateway in gateways:
        for name, state in gateway["health"].items():
            states.setdefault(name, []).append(state)
    return states


def _breaker_text(name: str, states: list[str], workers: int) -> str:
    """One line for a deployment: the worst state, and at how many workers it is not closed."""
    worst = min(states, key=lambda state: (not state.startswith("open"), state))
    where = f", at {len(states)} of {quantity(workers, 'worker')}" if workers > 1 else ""
    return f"deployment {name}: breaker {worst.replace('_', ' ')}{where}"


def _lag(size: int) -> str:
    return f"{size:,} bytes" if size else "-"
