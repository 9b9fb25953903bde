"""`groundplan experiments stop` tells by its exit whether every gateway has ended it."""

from __future__ import annotations

from typing import Any

import pytest
from typer.testing import CliRunner

from groundplan.cli.client import ControlClient
from groundplan.cli.experiments import app


class Stopping:
    """A control plane of gateways, some of which have not acknowledged the end yet."""

    def __init__(self, waiting: list[dict[str, str]]) -> None:
        self._waiting = waiting

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        assert (path, body) == ("/api/experiments/7/stop", {"reason": "enough"})
        return {"id": "7", "state": "ended", "effective": {"complete": not self._waiting, "waiting": self._waiting}}


@pytest.mark.parametrize(("waiting", "code"), [([], 0), ([{"epoch": "b", "until": "14:05"}], 69)])
def test_an_end_that_a_gateway_has_not_acknowledged_is_no_success(
    monkeypatch: pytest.MonkeyPatch, waiting: list[dict[str, str]], code: int
) -> None:
    monkeypatch.setattr(ControlClient, "connect", lambda _: Stopping(waiting))
    done = CliRunner().invoke(app, ["stop", "7", "-m", "enough"])
    assert done.exit_code == code, done.output
    assert "experiment 7 has ended" in done.output
