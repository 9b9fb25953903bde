"""An agent that calls in a loop is stopped by the budget of its key, and named: who, for what, and what it did."""

from __future__ import annotations

import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.stack import Answer, Stack, installation, wait_until
from tests.integration.nursery import run_command

TOKENS = 20
LIMIT = Decimal("0.02")
SAID_S = 150.0
"""Within which the finding is there, the interval of the watch and a busy machine included: minutes, not days."""


def run_away(stack: Stack, key: str) -> tuple[int, Answer]:
    """Every answer becomes part of the next question, until somebody says no: (calls that were answered, that no)."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Reconcile the ledger. " + "step " * 40}]
    for turn in range(1, 500):
        reply = stack.chat(key, messages=messages, max_tokens=TOKENS, headers={"groundplan-feature": "reconciler"})
        if reply.status != 200:
            return turn - 1, reply
        messages.append(reply.body["choices"][0]["message"])
        messages.append({"role": "user", "content": "That did not work, try again. " + "detail " * 30})
    pytest.fail("nothing stopped the agent")


def loop_of(stack: Stack) -> Any:
    told = stack.control("GET", "/api/cost/anomalies").body["anomalies"]
    return next((row for row in told if row["detail"]["kind"] == "runaway"), None)


def test_an_agent_in_a_loop_is_stopped_by_its_budget_and_named(tmp_path: Path) -> None:
    with installation(tmp_path, price="1/10", start=False) as (stack, upstream):
        declared = stack.workspace / "assistant.yaml"
        text = declared.read_text().replace("stage: pilot", "team: care\nstage: pilot", 1)
        declared.write_text(f"{text}---\nkind: team\nname: care\n")
        stack.start()
        upstream.control(mode="ok", tokens=TOKENS)
        agent = stack.key("assistant", "--budget", f"{LIMIT} USD/month")
        colleague = stack.key("assistant")
        assert stack.chat(colleague, "hello").status == 200

        answered, refusal = run_away(stack, agent)

        assert answered >= 10
        assert refusal.status == 429
        error = refusal.body["error"]
        assert set(error) >= {"message", "type", "param", "code", "hint"}
        assert error["code"] == "budget_exhausted"
        assert Decimal(error["remaining_usd"]) < Decimal(error["needed_usd"].removeprefix("$"))
        assert stack.chat(agent, "again", max_tokens=TOKENS * 100).status == 429
        assert stack.chat(colleague, "and I?").status == 200, "the budget of one key stops nobody else"
        wait_until(lambda: stack.in_ledger() >= answered + 2, 60, "its calls are in the ledger")
        spent = Decimal(stack.control("GET", "/api/cost").body["total_usd"])
        assert spent <= LIMIT + Decimal("0.001")

        told = wait_until(lambda: loop_of(stack), SAID_S, "the loop is named")

        key = stack.control("GET", "/api/keys").body["keys"]
        prefix = next(each["prefix"] for each in key if agent.startswith(each["prefix"]))
        seen = told["detail"]["loop"]
        assert (told["subject"], told["severity"]) == ("workload/assistant", "high")
        assert (seen["team"], seen["feature"], seen["calls"], seen["growing"]) == ("care", "reconciler", answered, True)
        assert seen["last_tokens"] > 2 * seen["first_tokens"] > 0
        assert seen["budget"].startswith("key/") and Decimal(seen["limit_usd"]) == LIMIT
        assert Decimal(seen["cost_usd"]) <= LIMIT
        assert f"(key {prefix}) of team care, feature reconciler, made" in told["message"]
        assert f"its own budget of ${LIMIT}" in told["message"] and "calls a minute" in told["message"]
        assert stack.cli("cost", "anomalies")["anomalies"][0]["id"] == told["id"]
        shown = run_command(("cost", "anomalies", "--home", str(stack.home)), os.environ, 60)
        assert "stopped it at" in shown.stdout and "groundplan keys revoke" in shown.stdout, shown.stderr
