"""What a call rested on: passages, and documents that contradict one, wherever it is told or stopped by."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from groundplan.core.ids import new_id_bytes
from groundplan.gateway.caching.cache import subjects_of_answer
from groundplan.gateway.call.ask import Passage
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.call.facts_api import record_passages
from groundplan.gateway.call.grounding.notes import GroundingNotes
from groundplan.gateway.guard.kills import stop_error
from groundplan.gateway.http.server import Request, Response
from groundplan.gateway.policy.snapshot import Policy
from groundplan.gateway.surfaces.chat.surface import CHAT
from groundplan.knowledge.retrieval.wire import Conflict
from groundplan.ledger.model import Finish
from groundplan.ledger.used_documents import conflicts, passages, used_documents

PASSAGE = Passage(document="d1", path="a.md", title="A", source="handbook", start_line=1, end_line=2, text="30 days")


def against(document: str, path: str, source: str = "archive") -> Conflict:
    return Conflict(
        document="d1", path="a.md", title="A", source="handbook", says="30 days", other_document=document,
        other_path=path, other_title="B", other_source=source, other_says="28 days",
    )  # fmt: skip


@pytest.fixture
def exchange() -> Exchange:
    made = Exchange(new_id_bytes(), Request(0.0), Response.__new__(Response), CHAT)
    made.passages = [PASSAGE]
    made.grounding_notes = GroundingNotes([against("d2", "b.md")], ())
    return made


def test_documents_that_contradict_are_told_once_and_only_where_no_passage_is_of_them() -> None:
    other = replace_document(PASSAGE, "d3")
    told = GroundingNotes([against("d2", "b.md"), against("d2", "b.md"), against("d3", "c.md")], ())
    assert told.opposing_documents([PASSAGE, other]) == [("d2", "b.md")]


def replace_document(passage: Passage, document: str) -> Passage:
    return Passage(document=document, path="c.md", title="C", source="handbook", start_line=1, end_line=2, text="")


def test_rows_keep_passages_and_the_rest_apart() -> None:
    fields: dict[str, Any] = dict.fromkeys(Finish.__struct_fields__[:14], "")
    end = Finish(**fields, steps=[], sources=[("d1", "a.md", 1, 2)], conflicts=[("d2", "b.md")])
    rows = used_documents(end)
    assert passages(rows) == [("d1", "a.md", 1, 2)]
    assert conflicts(rows) == [("d2", "b.md", None, None, "conflict")]


def test_a_killed_source_invalidates_an_answer_that_it_only_contradicted(exchange: Exchange) -> None:
    policy = Policy(0, {}, {}, frozenset(), frozenset())
    assert stop_error(policy, exchange) is None
    severed = replace(policy, severed=frozenset({"source/archive"}))
    error = stop_error(severed, exchange)
    assert error is not None and "source/archive was stopped" in error.message
    assert subjects_of_answer(exchange) >= {"source/archive", "source/handbook"}


def test_a_search_records_the_passages_and_its_person(exchange: Exchange) -> None:
    exchange.grounding_notes = None
    found = (
        b'{"passages": [{"document": "d1", "path": "a.md", "title": "A", "source": "handbook", "start_line": 1,'
        b'"end_line": 2, "text": "30 days"}], "conflicts": [{"document": "d1", "path": "a.md", "title": "A",'
        b'"source": "handbook", "says": "30", "other_document": "d2", "other_path": "b.md", "other_title": "B",'
        b'"other_source": "archive", "other_says": "28"}]}'
    )
    record_passages(exchange, found)
    assert exchange.grounding_notes is not None
    assert GroundingNotes(exchange.grounding_notes.conflicts, ()).opposing_documents(exchange.passages) == [
        ("d2", "b.md")
    ]
