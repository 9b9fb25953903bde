"""Labelled questions: read from a file of the workspace, asked as the people who would ask them, and measured."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from msgspec import to_builtins
from psycopg import Connection
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from groundplan.api.context import Services
from groundplan.api.local import post_local
from groundplan.api.served import current_blueprint, known_workload
from groundplan.core.errors import Invalid
from groundplan.identity import store as identity_store
from groundplan.knowledge.evaluation import asked_store
from groundplan.knowledge.evaluation.asked import Given, Span, figures
from groundplan.knowledge.evaluation.draft import usable
from groundplan.knowledge.retrieval.wire import Passage

MOST = 2000
_DEPTH = 100
"""Passages of each question: as many as recall@100 speaks of."""


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


def read(folder: Path, file: str) -> list[LabelledQuestion]:
    """The questions of a file of the workspace, one JSON object a line, without drafts that nobody accepted. Raises
    `Invalid` (questions_file)."""
    path = (folder / file).resolve()
    try:
        if not path.is_relative_to(folder.resolve()):
            raise OSError("it is outside the workspace")
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(
            f"{file} cannot be read: {error}", code="questions_file", hint="Name a file of JSON lines."
        ) from error
    found = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                value = json.loads(line)
                found += [LabelledQuestion.model_validate(one) for one in usable([value])]
            except (ValidationError, ValueError, AttributeError) as error:
                told = error.errors()[0]["msg"] if isinstance(error, ValidationError) else "it is no JSON object"
                raise Invalid(
                    f"{file}:{number}: {told}", code="questions_file",
                    hint='Write {"question": "…", "documents": ["handbook/leave.md"], "person": "…", "workload": "…"}.',
                ) from error  # fmt: skip
    if not 1 <= len(found) <= MOST:
        raise Invalid(f"{file} has {len(found)} questions", code="questions_file", hint=f"Write 1 to {MOST}.")
    return found


def asked(conn: Connection[Any], number: int, one: LabelledQuestion) -> dict[str, Any]:
    """What the search service is asked, with that person's permissions. Raises `Invalid` (evaluation_question)."""
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
        "synonyms": workload.grounding.synonyms,
        "rerank": to_builtins(workload.grounding.rerank),
        "floor": workload.grounding.floor,
        "max_bytes": 1 << 20,
        "context": 0,
    }


def judged(
    services: Services, questions: Sequence[LabelledQuestion], wanted: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Figures of the questions, each asked as `wanted` says. Raises `Unavailable` where search does not answer."""
    given = [_given(services, one, ask) for one, ask in zip(questions, wanted, strict=True)]
    answering = {document for one in given for document in (*one.documents, *(span.document for span in one.spans))}
    with services.transaction() as conn:
        return figures(given, asked_store.sensitivities(conn, sorted(answering)))


def _given(services: Services, one: LabelledQuestion, ask: dict[str, Any]) -> Given:
    begun = time.perf_counter()
    # what is found below the floor is measured as well: other floors are compared with it
    answer = post_local(services.home, "search", "/search", {**ask, "floor": 0.0})
    took = (time.perf_counter() - begun) * 1000
    return Given(
        documents=tuple(one.documents),
        spans=tuple(Span(span.document, span.start, max(span.start + 1, span.end)) for span in one.spans),
        passages=[Passage(**passage) for passage in answer["passages"]],
        confidence=float(answer["confidence"]),
        abstained=bool(answer["abstained"]),
        milliseconds=took,
        floor=float(ask["floor"]),
        in_order=tuple(not step.get("skipped") for step in answer["steps"]),
    )
