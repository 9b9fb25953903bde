"""Promise 2: nothing undeclared runs; each workload has a business owner and a budget."""

from __future__ import annotations

from pathlib import Path

from tests.acceptance.stack import Stack, installation


def edit(stack: Stack, old: str, new: str) -> None:
    """Replace text in whichever file of the workspace has it."""
    for file in sorted(stack.workspace.rglob("*.yaml")):
        text = file.read_text()
        if old in text:
            file.write_text(text.replace(old, new))
            return
    raise AssertionError(f"{old!r} stands in no file of the workspace")


def test_only_what_is_declared_is_served(tmp_path: Path) -> None:
    with installation(tmp_path) as (stack, upstream):
        key = stack.key()
        assert stack.chat(key).status == 200
        unknown = stack.chat("gp_" + "a" * 46)
        assert (unknown.status, unknown.code) == (401, "invalid_api_key")
        elsewhere = stack.chat(key, model="some/other-model")
        assert (elsewhere.status, elsewhere.code) == (404, "model_not_found")
        assert len(upstream.counted()) == 1
        refused = stack.cli("keys", "create", "--workload", "nobody-declared-this", code=None)
        assert refused["error"]["code"] and refused["error"]["hint"]


def test_no_owner_no_budget_no_service(tmp_path: Path) -> None:
    with installation(tmp_path) as (stack, _upstream):
        before = stack.cli("status")["blueprint"]
        edit(stack, "business:", "# business:")
        refused = stack.cli("apply", code=65)
        problems = refused["error"]["problems"]
        assert any("business" in problem["message"] for problem in problems)
        assert all(problem["where"].count(":") >= 2 for problem in problems)
        assert stack.cli("status")["blueprint"] == before
