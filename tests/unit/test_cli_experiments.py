"""`groundplan experiments stop` tells by its exit whether every gateway has ended it."""

from __future__ import annotations

from typing import Any

import pytest
from typer.testing import CliRunner

from groundplan.cli.client import ControlClient
from groundplan.cli.experiments import app
from groundplan.core.errors import NotFound


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


class Reviewing:
    """A control plane of one replay, made before a hundred others, and one experiment."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def get(self, path: str) -> dict[str, Any]:
        assert path == "/api/replays"
        return {"replays": [{"id": str(number)} for number in range(100, 200)]}

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        assert body == {"kept": True}
        self.asked.append(path)
        if path.startswith("/api/replays/") and "/8/" not in path:
            raise NotFound("there is no replay 7", code="replay_unknown", hint="")
        if path.endswith("/gone/review"):
            raise NotFound("call gone was not judged in this run", code="pair_unknown", hint="")
        return {"kept": True}


@pytest.mark.parametrize(
    ("id", "call", "asked"),
    [
        ("8", "c", ["/api/replays/8/calls/c/review"]),
        ("7", "c", ["/api/replays/7/calls/c/review", "/api/experiments/7/pairs/c/review"]),
        ("8", "gone", ["/api/replays/8/calls/gone/review"]),
    ],
)
def test_a_review_is_of_a_replay_however_many_came_after_it(
    monkeypatch: pytest.MonkeyPatch, id: str, call: str, asked: list[str]
) -> None:
    control = Reviewing()
    monkeypatch.setattr(ControlClient, "connect", lambda _: control)
    done = CliRunner().invoke(app, ["review", id, call, "--as-good"])
    assert control.asked == asked
    assert (done.exit_code == 0) is (call == "c")
