"""Labelled questions, asked of search as the people who would ask them: what they were given, measured."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter
from psycopg import Connection
from pydantic import BaseModel, ConfigDict, Field

from groundplan.api.caller import Operator
from groundplan.api.context import Using
from groundplan.api.local import post_local
from groundplan.api.served import current_blueprint, known_workload
from groundplan.core.audit import SYSTEM, record
from groundplan.core.errors import Invalid
from groundplan.identity import store as identity_store
from groundplan.knowledge.evaluation.asked import Given, Span, figures
from groundplan.knowledge.model import Passage

router = APIRouter(tags=["knowledge"])
_DEPTH = 50


class LabelledSpan(BaseModel):
    """Characters `start` to `end` of a document, `SOURCE/PATH`, as search counts them."""

    model_config = ConfigDict(extra="forbid")
    document: str
    start: Annotated[int, Field(ge=0)]
    end: Annotated[int, Field(gt=0)]


class LabelledQuestion(BaseModel):
    """A question, who asks it (e-mail) for which workload, and what answers it: documents (`SOURCE/PATH`) or spans.
    Neither means that nothing should be found."""

    model_config = ConfigDict(extra="forbid")
    question: Annotated[str, Field(min_length=1, max_length=4000)]
    person: str
    workload: str
    documents: list[str] = []
    spans: list[LabelledSpan] = []


class Questions(BaseModel):
    """What to ask."""

    model_config = ConfigDict(extra="forbid")
    questions: Annotated[list[LabelledQuestion], Field(min_length=1, max_length=2000)]


@router.post("/knowledge/evaluate")
def evaluate(body: Questions, services: Using, _: Operator) -> dict[str, Any]:
    """Figures of search on these questions, each asked with the permissions of who is named: nDCG, recall, reciprocal
    rank with confidence, by source, covered spans, and how abstention would change with its floor. No text is told."""
    with services.transaction() as conn:
        asked = [_asked(conn, number, one) for number, one in enumerate(body.questions)]
        record(conn, action="knowledge.evaluated", actor=SYSTEM, subject="company", detail={"questions": len(asked)})
    return figures([_given(services, one, ask) for one, ask in zip(body.questions, asked, strict=True)])


def _asked(conn: Connection[Any], number: int, one: LabelledQuestion) -> dict[str, Any]:
    workload = known_workload(current_blueprint(conn), one.workload)
    person = identity_store.person_by_email(conn, one.person.strip().lower())
    if person is None or workload.grounding is None:
        what = f"nobody has the address {one.person}" if person is None else f"{workload.name} has no sources"
        raise Invalid(
            f"question {number + 1}: {what}", code="evaluation_question", hint="Name a person and a workload of yours."
        )
    return {
        "workload": workload.name,
        "person": str(person.id),
        "query": one.question,
        "sources": workload.grounding.sources,
        "k": _DEPTH,
        "max_bytes": 1 << 20,
        "context": 0,
    }


def _given(services: Using, one: LabelledQuestion, ask: dict[str, Any]) -> Given:
    begun = time.perf_counter()
    answer = post_local(services.home, "search", "/search", ask)
    took = (time.perf_counter() - begun) * 1000
    return Given(
        documents=tuple(one.documents),
        spans=tuple(Span(span.document, span.start, max(span.start + 1, span.end)) for span in one.spans),
        passages=[Passage(**passage) for passage in answer["passages"]],
        confidence=float(answer["confidence"]),
        abstained=bool(answer["abstained"]),
        milliseconds=took,
    )
