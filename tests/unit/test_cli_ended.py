"""What takes something away, or lets it run, exits with 69 while a gateway may still go by what was."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from typer.testing import CliRunner

from groundplan.cli.client import ControlClient
from groundplan.cli.main import app

WAITING = [{"epoch": "01a2", "until": "2026-01-01T00:00:30Z"}]


@dataclass(frozen=True)
class Answering:
    """A control API that says the same to everything."""

    said: dict[str, Any]

    def post(self, *_: Any) -> dict[str, Any]:
        return self.said

    delete = post


@pytest.mark.parametrize("complete", [True, False])
@pytest.mark.parametrize(
    "arguments",
    [
        ["keys", "revoke", "01a2"],
        ["people", "leave", "ana@acme.example"],
        ["groups", "leave", "staff", "ana@acme.example"],
        ["policy", "end", "01a2"],
        ["cache", "clear", "--workload", "assistant"],
        ["policy", "approve", "01a2"],
        ["experiments", "start", "assistant", "small", "--budget", "1", "--reason", "cheaper"],
        ["experiments", "approve", "01a2"],
        ["experiments", "stop", "01a2"],
    ],
)
def test_a_command_says_whether_every_gateway_goes_by_it(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], complete: bool
) -> None:
    effective = {"complete": complete, "acknowledged": [], "waiting": [] if complete else WAITING}
    monkeypatch.setattr(
        ControlClient, "connect", lambda _: Answering({"effective": effective, "id": "01a2", "state": "runs"})
    )
    told = CliRunner().invoke(app, arguments)
    assert told.exit_code == (0 if complete else 69)
    assert ("effective at every gateway" if complete else "may serve until 2026-01-01T00:00:30Z") in told.stdout
