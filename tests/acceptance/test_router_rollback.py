"""A learned router is versioned and undone like a model: a blueprint brings a version in, and rolling it back lets the
gateway choose by the version before."""

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


def learn(folder: Path, hard: str, easy: str) -> tuple[str, str]:
    """(version, digest) of the next router: the small model is good at what is easy, and at nothing else."""
    is_hard = np.arange(200) % 2 == 0
    samples = tuple(
        Sample(str(i), str(i), (hard if each else easy).format(i)) for i, each in enumerate(is_hard.tolist())
    )
    scores = np.stack([np.ones(200), np.where(is_hard, 0.0, 1.0)], axis=1)
    matrix = Matrix(samples, ("acme/large", "acme/small"), scores, np.tile([0.01, 0.001], (200, 1)))
    version = registry.save_router(folder, train(matrix, None, (0.99,), name="support"))
    return version, registry.router_digest(folder, version)


def test_rolling_a_router_back_lets_the_gateway_choose_by_the_one_before(tmp_path: Path) -> None:
    proofs, greetings = "prove that {} is the sum of primes", "say hello to guest {}"
    upstream, workspace = Upstream(tmp_path / "upstream"), tmp_path / "workspace"
    upstream.start()
    workspace.mkdir()
    stack = Stack(tmp_path, workspace)
    routers = stack.home / "routers"
    stack.home.mkdir(mode=0o700)
    old = learn(routers, proofs, greetings)
    declare(workspace, upstream.url, *old)
    try:
        stack.start()
        key = stack.key("support")
        assert choice(stack, key) == ("support@1", "small")
        new = learn(routers, greetings, proofs)
        assert new[0] == "support@2"
        declare(workspace, upstream.url, *new)
        served(stack, stack.cli("apply")["blueprint"])
        assert choice(stack, key) == ("support@2", "large")
        served(stack, stack.cli("rollback")["blueprint"])
        assert choice(stack, key) == ("support@1", "small")
    finally:
        stack.stop()
        upstream.stop()


def declare(workspace: Path, url: str, router: str, digest: str) -> None:
    (workspace / "acme.yaml").write_text(WORKSPACE.format(url=url, router=router, digest=digest))


def served(stack: Stack, number: int) -> None:
    wait_until(
        lambda: stack.serve(number),
        30,
        f"the gateways took blueprint {number} up",
    )


def choice(stack: Stack, key: str) -> tuple[str, str]:
    """(router that had a say, deployment that was asked) of a greeting."""
    answer = stack.chat(key, GREETING)
    assert answer.status == 200, answer.body
    call = answer.body["groundplan"]["call_id"]

    def explained() -> Any:
        found = stack.cli("routing", "explain", call, code=None)
        return found if found is not None and "deployment" in found else None

    route = wait_until(explained, 60, "the call is in the ledger")
    return route.get("router", ""), route["deployment"]
