"""Labelled questions: read from a file of the workspace, asked as the people who would ask them, and measured."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from msgspec import convert, to_builtins
from psycopg import Connection
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from groundplan.api.context import Services
from groundplan.api.local_services import post_local
from groundplan.api.served_blueprint import current_blueprint
from groundplan.core.errors import Invalid
from groundplan.identity import store as identity_store
from groundplan.knowledge.evaluation import evaluation_store
from groundplan.knowledge.evaluation.draft import accepted_questions
from groundplan.knowledge.evaluation.labelled import QuestionResult, Span, summarise
from groundplan.knowledge.retrieval.wire import Passage

MAX_QUESTIONS = 2000
_DEPTH = 100
"""Passages for each question, as many as recall@100 needs."""


class LabelledSpan(BaseModel):
    """Characters `start` to `end` of a document, `SOURCE/PATH`, as search counts them."""

    model_config = ConfigDict(extra="forbid")
    document: str
    start: Annotated[int, Field(ge=0)]
    end: Annotated[int, Field(gt=0)]

    @model_validator(mode="after")
    def _begins_before_it_ends(self) -> LabelledSpan:
        if self.end <= self.start:
            raise ValueError("`end` is not after `start`")
        return self


class LabelledQuestion(BaseModel):
    """A question, who asks it (e-mail) for which workload, and what answers it: documents (`SOURCE/PATH`) or spans.
    Neither means that nothing should be found."""

    model_config = ConfigDict(extra="forbid")
    question: Annotated[str, Field(min_length=1, max_length=4000)]
    person: str
    workload: str
    documents: list[str] = []
    spans: list[LabelledSpan] = []


@dataclass(frozen=True, slots=True)
class QuestionLine:
    """A question with its line number in the file, from 1."""

    number: int
    question: LabelledQuestion


def read_questions(folder: Path, file: str) -> list[QuestionLine]:
    """The questions of a file of the workspace, as `read_lines`. Raises `Invalid` (questions_file)."""
    path = (folder / file).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise _invalid(f"{file} is outside the workspace", "Name a file of the workspace.")
    return read_lines(path, file)[0]


def read_lines(path: Path, name: str) -> tuple[list[QuestionLine], int]:
    """(questions of a file with one JSON object per line, number of drafts left out that nobody accepted). Raises
    `Invalid` (questions_file) with `name` and line."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise _invalid(f"{name} cannot be read: {error.strerror}", "Name a file of JSON lines.") from error
    except UnicodeDecodeError as error:
        raise _invalid(f"{name} is not UTF-8 (byte {error.start + 1})", "Save it as UTF-8.") from error
    accepted, drafts = [], 0
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            question = _parse_question(line, f"{name}:{number}")
            accepted += [] if question is None else [QuestionLine(number, question)]
            drafts += question is None
    if not 1 <= len(accepted) <= MAX_QUESTIONS:
        waiting = f" and {drafts} drafts that nobody accepted" if drafts else ""
        raise _invalid(f"{name} has {len(accepted)} questions{waiting}", f"Write, or accept, 1 to {MAX_QUESTIONS}.")
    return accepted, drafts


def _parse_question(line: str, place: str) -> LabelledQuestion | None:
    """Parse one line; None for a draft."""
    try:
        value = json.loads(line)
        if not isinstance(value, dict):
            raise ValueError("an object is needed")
        used = accepted_questions([value])
        return LabelledQuestion.model_validate(used[0]) if used else None
    except ValidationError as error:
        first = error.errors()[0]
        problem = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    except (ValueError, RecursionError) as error:
        problem = f"it is no JSON object: {error}"
    raise _invalid(
        f"{place}: {problem}",
        'Write {"question": "…", "documents": ["handbook/leave.md"], "person": "…", "workload": "…"}.',
    )


def _invalid(message: str, hint: str) -> Invalid:
    return Invalid(message, code="questions_file", hint=hint)


def search_request(conn: Connection[Any], place: str, question: LabelledQuestion) -> dict[str, Any]:
    """The request to the search service, with the permissions of the question's person. Raises `Invalid`
    (evaluation_question), whose message begins with the `place` of the question."""
    served = {workload.name: workload for workload in current_blueprint(conn).workloads}
    workload = served.get(question.workload)
    person = identity_store.person_by_email(conn, question.person.strip().lower())
    if workload is None or workload.grounding is None or person is None:
        message = f"nobody has the address {question.person}"
        if workload is None:
            message = f"no workload '{question.workload[:80]}' is served"
        elif workload.grounding is None:
            message = f"{workload.name} has no sources"
        hint = f"Name one of your people and a workload with sources; served are: {', '.join(served) or 'none'}."
        raise Invalid(f"{place}: {message}", code="evaluation_question", hint=hint)
    return {
        "workload": workload.name,
        "person": str(person.id),
        "query": question.question,
        "sources": workload.grounding.sources,
        "k": _DEPTH,
        "synonyms": workload.grounding.synonyms,
        "rerank": to_builtins(workload.grounding.rerank),
        "floor": workload.grounding.floor,
        "max_bytes": 1 << 20,
        "context": 0,
    }


def evaluate_questions(
    services: Services, questions: Sequence[LabelledQuestion], requests: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Evaluation figures of the questions, each searched with its entry of `requests`, and the labelled documents that
    do not exist (`not_there`). Raises `Unavailable` if the search service does not respond."""
    results = [_search(services, question, request) for question, request in zip(questions, requests, strict=True)]
    expected = {
        document for result in results for document in (*result.documents, *(span.document for span in result.spans))
    }
    with services.transaction() as conn:
        sensitivities = evaluation_store.sensitivities(conn, sorted(expected))
    return {**summarise(results, sensitivities), "not_there": sorted(expected - sensitivities.keys())}


def _search(services: Services, question: LabelledQuestion, request: dict[str, Any]) -> QuestionResult:
    begun = time.perf_counter()
    # passages below the floor are measured, too, to compare other floors
    answer = post_local(services.home, "search", "/search", {**request, "floor": 0.0})
    duration_ms = (time.perf_counter() - begun) * 1000
    return QuestionResult(
        documents=tuple(question.documents),
        spans=tuple(Span(span.document, span.start, span.end) for span in question.spans),
        passages=convert(answer["passages"], list[Passage]),
        confidence=float(answer["confidence"]),
        abstained=bool(answer["abstained"]),
        milliseconds=duration_ms,
        floor=float(request["floor"]),
        in_order=tuple(not step.get("skipped") for step in answer["steps"]),
    )
