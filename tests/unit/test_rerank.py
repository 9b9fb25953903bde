"""Passages put in order by somebody else: scores are handed out anew, and what is declared is checked."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from uuid import UUID

import msgspec
import pytest

from groundplan.blueprint.content import Rerank
from groundplan.catalog.check import validate_files
from groundplan.catalog.workspace import Workspace
from groundplan.core.errors import Invalid, Unavailable
from groundplan.gateway.call.grounding.notes import NOT_IN_ORDER, GroundingNotes
from groundplan.knowledge.retrieval.fuse import RankedChunks, demote_overdue
from groundplan.knowledge.retrieval.rerank import RerankStep, apply_order
from groundplan.knowledge.retrieval.search_store import ReadableChunk
from groundplan.knowledge.retrieval.wire import Step
from groundplan.release.compile.draft import compile_draft, declared_caps, declared_owners

TODAY = date(2026, 11, 25)
RULE = Rerank(workload="index", deployment="sorter")


def found(text: str, review_by: date | None = None) -> ReadableChunk:
    id = UUID(int=ord(text))
    return ReadableChunk(id, id, "s", f"{text}.md", text, text, 1, 1, review_by)


def texts(ranked: RankedChunks) -> str:
    return "".join(one.text for one, _ in ranked)


def test_scores_are_handed_out_along_the_order_and_the_rest_stays_behind() -> None:
    best = [(found("a"), 0.9), (found("b"), 0.7), (found("c"), 0.5), (found("d"), 0.4)]
    new = apply_order(best, {"c": 0, "a": 1, "b": 2}, TODAY)
    assert [(one.text, score) for one, score in new] == [("c", 0.9), ("a", 0.7), ("b", 0.5), ("d", 0.4)]
    equal = [(found("a"), 0.9), (found("b"), 0.9)]
    assert texts(apply_order(equal, {"b": 0, "a": 1}, TODAY)) == "ba"


def test_what_is_overdue_counts_half_wherever_it_is_put() -> None:
    old = found("o", date(2025, 1, 1))
    best = demote_overdue([(old, 0.9), (found("a"), 0.7), (found("b"), 0.6)], TODAY)
    assert texts(best) == "abo"
    new = apply_order(best, {"o": 0, "b": 1, "a": 2}, TODAY)
    assert [(one.text, score) for one, score in new] == [("b", 0.7), ("a", 0.6), ("o", 0.45)]


class Orders:
    """A reranker that turns the order round, or is away."""

    def __init__(self) -> None:
        self.asked: list[Sequence[str]] = []
        self.away = False

    def order(self, query: str, texts: Sequence[str]) -> list[int]:
        assert query == "q"
        self.asked.append(texts)
        if self.away:
            raise Unavailable("its budget is used up", code="service_call", hint="Raise it.")
        return list(range(len(texts)))[::-1]


def test_who_is_away_is_not_asked_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    orders = Orders()
    reranking = RerankStep(lambda _: orders)
    passages = [found("a"), found("b")]
    step, places = reranking.rerank(RULE, "q", passages)
    assert (step.passages, step.skipped, places) == (2, "", {"b": 0, "a": 1})
    assert orders.asked == [["a\na", "b\nb"]]
    orders.away = True
    for _ in range(2):
        step, places = reranking.rerank(RULE, "q", passages)
        assert (step.skipped, places) == ("its budget is used up", {})
    assert len(orders.asked) == 2
    orders.away = False
    other = Rerank(workload="index", deployment="other")
    assert reranking.rerank(other, "q", passages)[1], "another one is not kept waiting for it"
    monkeypatch.setattr("groundplan.knowledge.retrieval.rerank._PAUSE_SECONDS", 0.0)
    orders.away = True
    reranking.rerank(other, "q", passages)
    orders.away = False
    assert reranking.rerank(other, "q", passages)[1]
    assert RerankStep(None).rerank(RULE, "q", passages)[0].skipped


def test_callers_are_told_of_the_step_and_not_of_what_went_on_inside() -> None:
    step = Step(name="rerank", deployment="sorter", passages=3, ms=1.5)
    told = msgspec.json.decode(b"{" + GroundingNotes([], [], steps=[step]).json_members()[1:] + b"}")
    assert told == {"steps": [{"name": "rerank", "deployment": "sorter", "passages": 3, "ms": 1.5, "skipped": ""}]}
    late = msgspec.structs.replace(step, skipped="budget all has 3 USD left")
    told = msgspec.json.decode(b"{" + GroundingNotes([], [], steps=[late]).json_members()[1:] + b"}")
    assert told["steps"][0]["skipped"] == NOT_IN_ORDER


BASE = """kind: company
name: acme
format: 1
separation: solo
index: {rerank: {workload: sorting, deployment: sorter}}
---
kind: site
name: cloud
type: cloud
jurisdiction: EU
---
kind: deployment
name: chat
site: cloud
model: acme/chat
url: http://127.0.0.1:9/v1
price: {input: 0.1 USD/Mtok, output: 0.1 USD/Mtok}
---
kind: deployment
name: sorter
type: rerank
site: cloud
model: acme/sorter
url: http://127.0.0.1:9/v1
price: {input: 0.1 USD/Mtok, output: 0 USD/Mtok}
---
kind: source
name: handbook
path: ./handbook
sensitivity: internal
owner: ana@acme.example
readers: [everyone]
---
kind: workload
name: asked
purpose: Answers
audience: employees
stage: pilot
sensitivity: internal
residency: [EU]
sources: [handbook]
owners: {business: ana@acme.example}
grounding: {passages: 5}
---
kind: workload
name: sorting
purpose: Puts passages in order
audience: employees
stage: pilot
sensitivity: confidential
residency: [EU]
also: [sorter]
owners: {business: ana@acme.example}
---
kind: budget
name: all
covers: company
limit: 5 USD/month
---
kind: budget
name: asked
covers: workload/asked
limit: 5 USD/month
---
kind: budget
name: sorting
covers: workload/sorting
limit: 5 USD/month
"""
OWN = "grounding: {rerank: {workload: sorting, deployment: sorter, passages: 9, within: 80ms}}"


def refused(old: str, new: str) -> str:
    with pytest.raises(Invalid) as caught:
        validate_files({"workspace.yaml": BASE.replace(old, new, 1)})
    return str(caught.value)


def test_a_reranker_is_a_deployment_of_a_served_workload_that_may_see_what_it_is_sent() -> None:
    assert validate_files({"workspace.yaml": BASE}).company.index.rerank is not None
    assert "workload other is not declared" in refused("workload: sorting,", "workload: other,")
    assert "not among the further deployments" in refused("also: [sorter]", "also: []")
    assert "sorter is of type moderation" in refused("type: rerank", "type: moderation")
    assert "may see public only" in refused("sensitivity: confidential", "sensitivity: public")
    assert "may run anywhere" in refused("residency: [EU]\nalso", "also")
    part = BASE.replace("residency: [EU]\nalso", "residency: [DE]\nalso").replace(
        "jurisdiction: EU", "jurisdiction: DE"
    )
    assert validate_files({"workspace.yaml": part}), "Germany is in the EU"
    assert "at stage proposed" in refused(
        "stage: pilot\nsensitivity: confidential", "stage: proposed\nsensitivity: confidential"
    )
    assert "20ms to 3s" in refused("deployment: sorter}", "deployment: sorter, within: 9s}")
    # whoever needs none is not held against it
    loose = BASE.replace("residency: [EU]\nalso", "also").replace("{passages: 5}", "{rerank: false}")
    assert validate_files({"workspace.yaml": loose}).workloads["asked"].grounding.rerank is False
    own = refused("{passages: 5}", "{rerank: {workload: sorting, deployment: nothing}}")
    assert "nothing is not among the further deployments (also) of sorting" in own


def in_blueprint(workspace: Workspace) -> Rerank | None:
    draft = compile_draft(workspace, None, declared_caps(workspace), declared_owners(workspace), today=TODAY)
    grounding = {one.name: one.grounding for one in draft.blueprint.workloads}
    assert grounding["sorting"] is None
    asked = grounding["asked"]
    assert asked is not None
    return asked.rerank


def test_the_companys_reranker_holds_unless_a_workload_says_otherwise() -> None:
    files = {"workspace.yaml": BASE}
    assert in_blueprint(validate_files(files)) == Rerank(workload="sorting", deployment="sorter")
    own = {"workspace.yaml": BASE.replace("grounding: {passages: 5}", OWN)}
    assert in_blueprint(validate_files(own)) == Rerank(
        workload="sorting", deployment="sorter", passages=9, within_ms=80
    )
    for nobody in (
        BASE.replace("{passages: 5}", "{rerank: false}"),
        BASE.replace("index: {rerank: {workload: sorting, deployment: sorter}}\n", ""),
    ):
        assert in_blueprint(validate_files({"workspace.yaml": nobody})) is None
