"""From the command line alone, with everything `groundplan up` starts: a cheaper model is replayed, proposed, shadowed,
and decided."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.acceptance.stack import Stack, Upstream, wait_until

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]
WORKSPACE = """\
kind: company
name: acme
---
kind: person
name: ana
email: ana@acme.example
full_name: Ana Lind
---
kind: site
name: here
type: private
jurisdiction: EU
---
kind: deployment
name: large
site: here
model: acme/large
url: {large}
price: {{input: 2 USD/Mtok, output: 8 USD/Mtok}}
---
kind: deployment
name: small
site: here
model: acme/small
url: {small}
price: {{input: 0.1 USD/Mtok, output: 0.4 USD/Mtok}}
---
kind: workload
name: support
purpose: Answer customers
stage: pilot
keep: {{content: redacted}}
deployments: [large]
fallbacks: [small]
experiment: {{name: declared, type: shadow, candidate: small, share: 100%, budget: 1 USD}}
owners: {{business: ana@acme.example, security: ana@acme.example}}
---
kind: budget
name: support
covers: workload/support
limit: 1000 USD/month
"""
CALLS = 34


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, Upstream, Upstream]]:
    folder = tmp_path_factory.mktemp("experiments")
    large, small = Upstream(folder / "large"), Upstream(folder / "small")
    large.start()
    small.start()
    workspace = folder / "workspace"
    workspace.mkdir()
    (workspace / "acme.yaml").write_text(WORKSPACE.format(large=large.url, small=small.url))
    stack = Stack(folder, workspace)
    try:
        stack.start()
        yield stack, large, small
    finally:
        stack.stop()
        large.stop()
        small.stop()


def test_a_cheaper_model_from_kept_calls_to_a_decision(world: tuple[Stack, Upstream, Upstream]) -> None:
    stack, large, small = world
    large.control(say="a thorough answer")
    small.control(say="SAME")
    # what is declared runs by itself, and stops at once
    wait_until(lambda: _running(stack.control("GET", "/api/experiments").body), 30, "it begins")
    (declared,) = _running(stack.cli("experiments", "list"))
    assert (declared["name"], declared["blueprint"]) == ("declared", 1)
    stopped = stack.cli("experiments", "stop", declared["id"], "-m", "another one first", code=None)
    stack.wait_until_effective(stopped["effective"])
    # kept calls are replayed and judged; the judge is the one that answers anyway
    key = stack.key("support")
    for number in range(CALLS):
        assert stack.chat(key, f"question {number}", headers={"groundplan-feature": "orders"}).status == 200
    assert not small.counted(), "the experiment that was stopped went on"
    large.control(say="SAME")
    wait_until(lambda: _replayed(stack) >= CALLS, 120, "kept calls are judged")
    done = stack.cli("experiments", "replays")["replays"]
    proposal = next(each["proposal"] for each in done if each["proposal"])
    assert proposal["text"].startswith("same quality on ") and "of support calls" in proposal["text"]
    told = [f for f in stack.control("GET", "/api/findings").body["findings"] if f["kind"] == "cost.cheaper_model"]
    assert len(told) == 1
    # one click tries it in shadow, until it is decided
    body = {**proposal["shadow"], "share": 1.0, "tolerance": 0.4}
    shadow = stack.control("POST", "/api/experiments", body).body
    for number in range(70):
        assert stack.chat(key, f"other question {number}").status == 200
    told_of = f"/api/experiments/{shadow['id']}"
    wait_until(lambda: stack.control("GET", told_of).body["state"] == "ended", 60, "it is decided")
    found = stack.cli("experiments", "show", shadow["id"])
    assert found["outcome"] == "kept", found["outcome_reason"]
    assert found["looks"][-1]["low"] >= 0.6
    shown = [f for f in stack.control("GET", "/api/findings").body["findings"] if f["kind"] == "cost.experiment"]
    assert len(shown) == 1
    features = {f["feature"]: float(f["cost_usd"]) for f in stack.control("GET", "/api/cost/features").body["features"]}
    assert features["experiment/shadow"] > 0 and features["experiment/replay"] > 0 and features["experiment/judge"] > 0


def _replayed(stack: Stack) -> int:
    """Judged calls so far; asks for a run where none waits."""
    runs = stack.control("GET", "/api/replays").body["replays"]
    if not any(each["state"] in ("waiting", "running") for each in runs):
        proposed = [each["proposal"]["judged"] for each in runs if each["proposal"]]
        if proposed and max(proposed) >= CALLS:
            return int(max(proposed))
        stack.cli("experiments", "replay", "support", "small", "--judge", "large", "--budget", "1")
    return 0


def _running(told: dict[str, Any]) -> list[dict[str, Any]]:
    return [each for each in told["experiments"] if each["state"] == "running"]
