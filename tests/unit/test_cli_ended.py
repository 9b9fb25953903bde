"""What takes something away exits with 69 while a gateway may still go by what was."""

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
    ],
)
def test_a_command_that_ends_something_says_whether_it_has_ended(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], complete: bool
) -> None:
    effective = {"complete": complete, "acknowledged": [], "waiting": [] if complete else WAITING}
    monkeypatch.setattr(ControlClient, "connect", lambda _: Answering({"effective": effective}))
    told = CliRunner().invoke(app, arguments)
    assert told.exit_code == (0 if complete else 69)
    assert ("effective at every gateway" if complete else "may serve until 2026-01-01T00:00:30Z") in told.stdout
