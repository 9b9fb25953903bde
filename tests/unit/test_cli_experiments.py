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


class Showing:
    """A control plane of one experiment, or replay, whose judge says nothing readable."""

    def get(self, path: str) -> dict[str, Any]:
        error = {"code": "judge_unreadable", "message": "the judge mini said nothing", "hint": "Name another judge."}
        if path == "/api/replays/8":
            return {
                "candidate": "small", "current": "large", "workload": "support", "state": "failed",
                "proposal": None, "progress": {"skipped": 5}, "waits": None, "outcome": error["message"],
                "error": error, "spent_usd": "0.1", "budget_usd": "2",
            }  # fmt: skip
        assert path == "/api/experiments/7"
        pairs = {"pairs": 13, "compared": 0, "reviewed": 0, "agreed": 0}
        return {
            "name": "try", "candidate": "small", "workload": "support", "type": "shadow", "state": "ended",
            "outcome": "judge", "outcome_reason": error["message"], "error": error, "budget_usd": "2",
            "figures": {"pairs": pairs, "left": "the judge mini gave no readable verdict on 13", "spent_usd": "0.1"},
        }  # fmt: skip


@pytest.mark.parametrize("asked", [["show", "7"], ["replays", "8"]])
def test_a_judge_that_says_nothing_readable_is_told_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, asked: list[str]
) -> None:
    monkeypatch.setattr(ControlClient, "connect", lambda _: Showing())
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    assert "the judge mini said nothing" in done.output and "Name another judge." in done.output
    if asked[0] == "show":
        assert "13 pairs, 0 compared; the judge mini gave no readable verdict on 13;" in done.output


@pytest.mark.parametrize(("waiting", "code"), [([], 0), ([{"epoch": "b", "until": "14:05"}], 69)])
def test_an_end_that_a_gateway_has_not_acknowledged_is_no_success(
    monkeypatch: pytest.MonkeyPatch, waiting: list[dict[str, str]], code: int
) -> None:
    monkeypatch.setattr(ControlClient, "connect", lambda _: Stopping(waiting))
    done = CliRunner().invoke(app, ["stop", "7", "-m", "enough"])
    assert done.exit_code == code, done.output
    assert "experiment 7 has ended" in done.output
