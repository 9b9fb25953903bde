"""`groundplan cost opportunities` tells what its page tells: effort and what is still to prove, and every workload."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from groundplan.cli import opportunities as command
from groundplan.cli.client import ControlClient

FOUND = {
    "lever": "the same asked by several teams", "workload": "returns", "workloads": ["returns", "support"],
    "saves_usd": "96.000000", "what": "answer care, sales from one workload", "evidence": "25 calls",
    "effort": "medium", "proof": "the same passages are not always the same question",
    "frees_usd": "0.000000", "candidate": None,
}  # fmt: skip


class Answering:
    """A control plane that knows one lever."""

    def get(self, path: str, **query: str) -> dict[str, Any]:
        assert (path, query) == ("/api/opportunities", {"days": "30", "workload": "support"})
        return {
            "days": 30,
            "together_usd": "120.500000",
            "opportunities": [FOUND, FOUND | {"workload": "", "workloads": [], "frees_usd": "0.031896"}],
        }


def test_effort_proof_and_all_workloads_are_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ControlClient, "connect", lambda _: Answering())
    context: Any = SimpleNamespace(obj=None)
    command.opportunities(context, days=30, workload="support", home=None, as_json=False)
    head, one, whole, most = capsys.readouterr().out.rstrip("\n").split("\n")
    assert head.split("  ")[0] == "workload" and "effort" in head and head.endswith("to be proven")
    assert one.startswith("returns, support  ") and "  medium  " in one
    assert one.endswith("the same passages are not always the same question")
    assert "25 calls; $0.0319 of a budget is reserved for each call and never spent" in whole
    assert "reserved" not in one
    assert (
        whole.startswith("the company ")
        and most == "At most $120.50 a month together, each applied to what the others leave."
    )
