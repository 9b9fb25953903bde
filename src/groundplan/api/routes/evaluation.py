"""Evaluation of search on labelled questions, each searched with the permissions of the person who would ask it."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from groundplan.api.access.protected_routes import protected_router
from groundplan.api.caller import Operator
from groundplan.api.context import ServicesDep
from groundplan.api.knowledge import labelled_questions
from groundplan.api.knowledge.labelled_questions import LabelledQuestion
from groundplan.core.audit import SYSTEM, record

router = protected_router("knowledge")
_COMPARED = ("ndcg@10", "recall@100", "mrr@10", "confidence", "p50_ms", "p95_ms")


class Questions(BaseModel):
    """The labelled questions to evaluate."""

    model_config = ConfigDict(extra="forbid")
    questions: Annotated[list[LabelledQuestion], Field(min_length=1, max_length=labelled_questions.MAX_QUESTIONS)]


@router.post("/knowledge/evaluate")
def evaluate(body: Questions, services: ServicesDep, _: Operator) -> dict[str, Any]:
    """Measure search on labelled questions, each with the permissions of its person.

    Returns nDCG, recall and reciprocal rank with confidence intervals, how abstentions would change with the floor (in
    all, by source, by sensitivity), and the covered spans. If a workload has a reranker, also the figures without it.
    Neither questions nor passages are returned.
    """
    with services.transaction() as conn:
        requests = [
            labelled_questions.search_request(conn, f"question {number}", question)
            for number, question in enumerate(body.questions, 1)
        ]
        record(conn, action="knowledge.evaluated", actor=SYSTEM, subject="company", detail={"questions": len(requests)})
    figures = labelled_questions.evaluate_questions(services, body.questions, requests)
    if any(request["rerank"] for request in requests):
        plain = labelled_questions.evaluate_questions(
            services, body.questions, [{**request, "rerank": None} for request in requests]
        )
        figures["without_reranker"] = {name: plain[name] for name in _COMPARED}
    return figures
