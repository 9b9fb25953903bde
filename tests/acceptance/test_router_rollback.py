"""A learned router is versioned and rolled back like a model: a blueprint introduces a version, and a rollback makes
the gateway route by the previous version."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from groundplan.economics.routing.learn.fit import train
from groundplan.economics.routing.model import Matrix, Sample
from groundplan.economics.routing.versions import registry
from tests.acceptance.stack import Stack, Upstream, wait_until

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
url: {url}
price: {{input: 1 USD/Mtok, output: 10 USD/Mtok}}
---
kind: deployment
name: small
site: here
model: acme/small
url: {url}
price: {{input: 0.1 USD/Mtok, output: 1 USD/Mtok}}
---
kind: workload
name: support
purpose: Answers
stage: pilot
deployments: [large, small]
owners: {{business: ana, security: ana}}
routing: {{by: learned, router: {router}, digest: {digest}}}
---
kind: budget
name: support
covers: workload/support
limit: 1000 USD/month
"""
GREETING = "say hello to guest 900"


def train_router(folder: Path, hard: str, easy: str) -> tuple[str, str]:
    """Train the next router on scores by which the small model is good at easy prompts only; (version, digest)."""
    is_hard = np.arange(200) % 2 == 0
    samples = tuple(
        Sample(str(i), str(i), (hard if each else easy).format(i)) for i, each in enumerate(is_hard.tolist())
    )
    scores = np.stack([np.ones(200), np.where(is_hard, 0.0, 1.0)], axis=1)
    matrix = Matrix(samples, ("acme/large", "acme/small"), scores, np.tile([0.01, 0.001], (200, 1)))
    version = registry.save_router(folder, train(matrix, None, (0.99,), name="support"))
    return version, registry.router_digest(folder, version)


def test_a_rollback_makes_the_gateway_route_by_the_previous_router(tmp_path: Path) -> None:
    proofs, greetings = "prove that {} is the sum of primes", "say hello to guest {}"
    upstream, workspace = Upstream(tmp_path / "upstream"), tmp_path / "workspace"
    upstream.start()
    workspace.mkdir()
    stack = Stack(tmp_path, workspace)
    routers = stack.home / "routers"
    stack.home.mkdir(mode=0o700)
    old = train_router(routers, proofs, greetings)
    declare(workspace, upstream.url, *old)
    try:
        stack.start()
        key = stack.key("support")
        assert router_and_deployment(stack, key) == ("support@1", "small")
        new = train_router(routers, greetings, proofs)
        assert new[0] == "support@2"
        declare(workspace, upstream.url, *new)
        wait_until_served(stack, stack.cli("apply")["blueprint"])
        assert router_and_deployment(stack, key) == ("support@2", "large")
        wait_until_served(stack, stack.cli("rollback")["blueprint"])
        assert router_and_deployment(stack, key) == ("support@1", "small")
    finally:
        stack.stop()
        upstream.stop()


def declare(workspace: Path, url: str, router: str, digest: str) -> None:
    (workspace / "acme.yaml").write_text(WORKSPACE.format(url=url, router=router, digest=digest))


def wait_until_served(stack: Stack, number: int) -> None:
    wait_until(
        lambda: stack.serves_blueprint(number),
        30,
        f"every worker serves blueprint {number}",
    )


def router_and_deployment(stack: Stack, key: str) -> tuple[str, str]:
    """(router version, chosen deployment) of a call with a greeting."""
    answer = stack.chat(key, GREETING)
    assert answer.status == 200, answer.body
    call = answer.body["groundplan"]["call_id"]

    def explanation() -> Any:
        explained = stack.cli("routing", "explain", call, code=None)
        return explained if explained is not None and "deployment" in explained else None

    route = wait_until(explanation, 60, "the call is in the ledger")
    return route.get("router", ""), route["deployment"]
