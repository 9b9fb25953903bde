"""Who brings a router in is told how it was evaluated, or that it is unknown, before and when it takes effect."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.integration.test_api_control import Control, fresh_control  # noqa: F401 -- a fixture
from tests.unit.test_routing_model import make_matrix

from groundplan.cli.release import applied_text, plan_text
from groundplan.economics.routing.learn.fit import train
from groundplan.economics.routing.versions import registry

OTHER = """\
kind: deployment
name: other
site: here
model: small
url: http://127.0.0.1:9/v1
price: free
"""


def routed(control: Control, router: str, more: str = "") -> dict[str, str]:
    """The files with a workload that chooses by that router."""
    rule = f"routing: {{by: learned, router: {router}{more}}}"
    files = {name: text.replace("stage: pilot", f"stage: pilot\n{rule}") for name, text in control.files().items()}
    assert any(rule in text for text in files.values())
    return files


@pytest.mark.parametrize("reached", ["/api/plan", "/api/apply"])
def test_a_router_that_is_not_here_is_told(fresh_control: Control, reached: str) -> None:  # noqa: F811 -- the fixture
    found = fresh_control.ask("POST", reached, {"files": routed(fresh_control, "suport@1")})
    assert found.status in (200, 201)
    (note,) = [each for each in found.body["notes"] if "suport@1" in each]
    assert note.startswith("workload/assistant: suport@1 is not in HOME/routers")
    assert note.endswith("the order of its deployments decides.")
    assert note in (plan_text if reached == "/api/plan" else applied_text)(found.body)


def test_a_router_that_is_here_is_told_with_what_it_keeps(fresh_control: Control) -> None:  # noqa: F811 -- the fixture
    folder: Path = fresh_control.home.root / "routers"
    router = train(make_matrix(60), None, (0.95,), name="support")
    version = registry.save_router(folder, router)
    note, nothing = fresh_control.ask("POST", "/api/plan", {"files": routed(fresh_control, version)}).body["notes"]
    assert note.startswith(f"workload/assistant: {version} ")
    assert "not in HOME/routers" not in note and "order of its deployments" not in note
    assert nothing == (
        f"workload/assistant: {version} chooses among large, small, and of these models the workload has none. The "
        "order of its deployments decides."
    )
    one = registry.save_router(folder, replace(router, models=("acme/model", "small")))
    assert fresh_control.ask("POST", "/api/apply", {"files": routed(fresh_control, one)}).body["notes"] == [
        f"workload/assistant: {one} chooses among acme/model, small, and of these models the workload has acme/model. "
        "The order of its deployments decides."
    ]
    files = routed(fresh_control, one)
    both = {
        name: text.replace("deployments: [local]", "deployments: [local, other]") for name, text in files.items()
    } | {"other.yaml": OTHER}
    found = fresh_control.ask("POST", "/api/plan", {"files": both})
    assert (found.status, found.body["notes"]) == (200, []), "it may choose among two"
    matrix = make_matrix(60)
    third = replace(
        matrix,
        models=("acme/model", "small", "old"),
        scores=np.column_stack([matrix.scores, np.ones(len(matrix.scores))]),
        costs=np.column_stack([matrix.costs, matrix.costs.max(axis=1)]),
    )
    renamed = registry.save_router(folder, train(third, None, (0.95,), name="third"))
    files = {name: text.replace(one, renamed) for name, text in both.items()}
    files["other.yaml"] += "---\n" + OTHER.replace("name: other", "name: newer").replace("model: small", "model: new")
    files = {name: text.replace("[local, other]", "[local, other, newer]") for name, text in files.items()}
    assert fresh_control.ask("POST", "/api/plan", {"files": files}).body["notes"][-1] == (
        f"workload/assistant: {renamed} chooses among acme/model, small, old, and of these models the workload has "
        "acme/model and small, not old, which it takes for the strongest. The order of its deployments decides."
    )
    other = routed(fresh_control, version, f", digest: {'ab' * 32}")
    (note,) = fresh_control.ask("POST", "/api/apply", {"files": other}).body["notes"]
    assert "is asked for" in note and note.endswith("the order of its deployments decides.")
    plain = fresh_control.ask("POST", "/api/plan", {"files": fresh_control.files()})
    told = [note for note in plain.body["notes"] if "goes back to what it was before blueprint" not in note]
    assert told == [], "a workload without a router has nothing to tell"
