"""Promise 2: nothing undeclared runs; each workload has a business owner and a budget."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.acceptance.stack import Stack, Upstream, installation

Installed = tuple[Stack, Upstream]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    with installation(tmp_path_factory.mktemp("declared")) as running:
        yield running


def edit(stack: Stack, old: str, new: str) -> None:
    """Replace text in the first file of the workspace that contains it."""
    for file in sorted(stack.workspace.rglob("*.yaml")):
        text = file.read_text()
        if old in text:
            file.write_text(text.replace(old, new))
            return
    raise AssertionError(f"no file of the workspace contains {old!r}")


def test_only_what_is_declared_is_served(installed: Installed) -> None:
    stack, upstream = installed
    key = stack.key()
    assert stack.chat(key).status == 200
    unknown = stack.chat("gp_" + "a" * 46)
    assert (unknown.status, unknown.code) == (401, "invalid_api_key")
    elsewhere = stack.chat(key, model="some/other-model")
    assert (elsewhere.status, elsewhere.code) == (404, "model_not_found")
    assert len(upstream.counted()) == 1
    refused = stack.cli("keys", "create", "--workload", "nobody-declared-this", code=None)
    assert refused["error"]["code"] and refused["error"]["hint"]


def test_no_owner_no_budget_no_service(installed: Installed) -> None:
    stack, _upstream = installed
    before = stack.cli("status")["blueprint"]
    edit(stack, "business:", "# business:")
    refused = stack.cli("apply", code=65)
    problems = refused["error"]["problems"]
    assert any("business" in problem["message"] for problem in problems)
    assert all(problem["where"].count(":") >= 2 for problem in problems)
    assert stack.cli("status")["blueprint"] == before
