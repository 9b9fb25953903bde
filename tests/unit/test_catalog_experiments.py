"""What a workload declares to be tried is read, checked with its place, and brought into the blueprint."""

from __future__ import annotations

import pytest

from groundplan.catalog.check import validate_files
from groundplan.catalog.workspace import Workspace
from groundplan.core.errors import Invalid
from groundplan.core.money import PICO
from groundplan.release.compile import experiments

PLACE = """---
kind: deployment
name: {name}
site: here
model: acme/{name}
url: http://127.0.0.1:9/v1
price: {{input: 1 USD/Mtok, output: 2 USD/Mtok}}
"""
WORKSPACE = (
    """kind: company
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
kind: budget
name: support
covers: workload/support
limit: 100 USD/month
"""
    + "".join(PLACE.format(name=name) for name in ("large", "small", "judge", "other"))
    + """---
kind: workload
name: support
purpose: Answer customers
stage: pilot
keep: {content: redacted}
deployments: [large]
fallbacks: [small, judge]
owners: {business: ana, security: ana}
"""
)
TRIED = "experiment: {name: small, type: shadow, candidate: small, judge: judge, budget: 2 USD, until: 2026-12-31}\n"
REPLAYED = "replay: {candidates: [small], judge: judge, budget: 0.50 USD, calls: 300}\n"


def workspace(more: str) -> Workspace:
    return validate_files({"acme.yaml": WORKSPACE + more}, known_price=lambda _: True)


def test_what_is_declared_is_in_the_blueprint_with_its_defaults() -> None:
    support = workspace(TRIED + REPLAYED).workloads["support"]
    made, replay = experiments.compile_experiment(support), experiments.compile_replay(support)
    assert made is not None and replay is not None
    assert (made.candidate, made.judge, made.share, made.tolerance) == ("small", "judge", 1000, 0.1)
    assert (made.budget, made.until, made.split) == (2 * PICO, "2026-12-31", "person")
    assert (replay.candidates, replay.judge, replay.budget, replay.calls) == (["small"], "judge", PICO // 2, 300)
    two_arms = workspace("experiment: {name: a, type: ab, candidate: small, budget: 1 USD}\n").workloads["support"]
    arms = experiments.compile_experiment(two_arms)
    assert arms is not None and arms.tolerance == 0.02
    plain = workspace("").workloads["support"]
    assert experiments.compile_experiment(plain) is None and experiments.compile_replay(plain) is None


@pytest.mark.parametrize(
    ("was", "now", "code"),
    [
        ("candidate: small", "candidate: nowhere", "experiment_unknown"),
        ("candidate: small", "candidate: other", "experiment_outside"),
        ("candidate: small", "candidate: large", "experiment_primary"),
        ("judge: judge, budget: 2", "judge: small, budget: 2", "experiment_judge"),
        ("type: shadow", "type: ab", "experiment_judge"),
        ("candidates: [small]", "candidates: [judge]", "replay_judge"),
        ("candidates: [small]", "candidates: [other]", "experiment_outside"),
        ("keep: {content: redacted}", "keep: {content: none}", "replay_nothing_kept"),
        ("calls: 300", "calls: 3", "invalid_value"),
        ("budget: 2 USD", "budget: 0 USD", "invalid_value"),
        ("type: shadow", "type: dark", "value"),
    ],
)
def test_what_cannot_work_is_told_with_its_place(was: str, now: str, code: str) -> None:
    text = WORKSPACE + TRIED + REPLAYED
    assert was in text
    with pytest.raises(Invalid) as told:
        validate_files({"acme.yaml": text.replace(was, now)}, known_price=lambda _: True)
    problems = told.value.problems
    assert any(code in problem.code for problem in problems), problems
    assert all(problem.hint and problem.where for problem in problems)
