"""Labelled questions, asked of search as the people who would ask them: what they were given, measured."""

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
    """What to ask."""

    model_config = ConfigDict(extra="forbid")
    questions: Annotated[list[LabelledQuestion], Field(min_length=1, max_length=labelled_questions.MAX_QUESTIONS)]


@router.post("/knowledge/evaluate")
def evaluate(body: Questions, services: ServicesDep, _: Operator) -> dict[str, Any]:
    """Figures of search on these questions, each asked with the permissions of who is named: nDCG, recall, reciprocal
    rank with confidence and how abstention would change with its floor, in all, by source and by sensitivity; covered
    spans; where a workload has a reranker, also without it. No text is told."""
    with services.transaction() as conn:
        asked = [
            labelled_questions.search_request(conn, f"question {at}", one) for at, one in enumerate(body.questions, 1)
        ]
        record(conn, action="knowledge.evaluated", actor=SYSTEM, subject="company", detail={"questions": len(asked)})
    figures = labelled_questions.evaluate_questions(services, body.questions, asked)
    if any(one["rerank"] for one in asked):
        plain = labelled_questions.evaluate_questions(
            services, body.questions, [{**one, "rerank": None} for one in asked]
        )
        figures["without_reranker"] = {name: plain[name] for name in _COMPARED}
    return figures
