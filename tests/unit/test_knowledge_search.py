"""Ranking and fitting are pure; the word index proposes ids within sources."""

from dataclasses import replace
from datetime import date
from pathlib import Path
from uuid import UUID, uuid4

from hypothesis import given
from hypothesis import strategies as st

from groundplan.knowledge.ingest import context
from groundplan.knowledge.model import Chunk, StoredChunk
from groundplan.knowledge.retrieval.search import OVERHEAD_BYTES, demote, distinct, fit, fuse
from groundplan.knowledge.retrieval.words import WordIndex
from groundplan.knowledge.store import FedChunk


def _chunk(number: int, text: str = "") -> StoredChunk:
    return StoredChunk(UUID(int=number), UUID(int=0), "s", f"p{number:03}", "t", text or f"text {number}", 1, 2)


def test_what_both_rankings_name_comes_first() -> None:
    a, b, c = _chunk(1), _chunk(2), _chunk(3)
    assert [chunk.id for chunk, _ in fuse([a, b], [c, b])] == [b.id, a.id, c.id]


@given(st.lists(st.lists(st.integers(0, 9), unique=True), max_size=3))
def test_fusion_loses_nothing_and_is_ordered(rankings: list[list[int]]) -> None:
    fused = fuse(*[[_chunk(number) for number in ranking] for ranking in rankings])
    assert {chunk.id.int for chunk, _ in fused} == {number for ranking in rankings for number in ranking}
    scores = [score for _, score in fused]
    assert scores == sorted(scores, reverse=True)
    assert len(fused) == len({chunk.id for chunk, _ in fused})


@given(st.lists(st.text(max_size=40), max_size=12), st.integers(0, 6), st.integers(0, 600))
def test_passages_never_exceed_number_or_bytes(texts: list[str], k: int, most: int) -> None:
    ranked = [(_chunk(number, text), 1.0 - number / 100) for number, text in enumerate(texts, start=1)]
    chosen = fit(ranked, k, most)
    assert len(chosen) <= k
    assert sum(len((one.text + one.title + one.path).encode()) + OVERHEAD_BYTES for one in chosen) <= most


def test_the_same_text_is_quoted_once_from_the_original() -> None:
    copy, original = replace(_chunk(1, "same"), path="leave-copy.md"), replace(_chunk(2, "same"), path="leave.md")
    ((chunk, score),) = distinct([(copy, 0.9), (original, 0.5)])
    assert (chunk.path, score) == ("leave.md", 0.9)


def test_overdue_documents_come_after_current_ones() -> None:
    overdue, current = (
        replace(_chunk(1), review_by=date(2022, 12, 31)),
        replace(_chunk(2), review_by=date(2026, 11, 25)),
    )
    ranked = demote([(overdue, 0.9), (current, 0.5)], date(2026, 11, 25))
    assert [chunk.id for chunk, _ in ranked] == [current.id, overdue.id]


def test_a_passage_that_does_not_fit_gives_way_to_a_smaller_one() -> None:
    chosen = fit([(_chunk(1, "x" * 500), 1.0), (_chunk(2, "small"), 0.5)], 2, 200)
    assert [one.text for one in chosen] == ["small"]


def test_a_chunk_is_embedded_with_where_it_stands() -> None:
    chunk = Chunk(0, "## Sick leave\n\nCall.", 0, 20, 1, 3, ("Leave", "Sick leave"))
    assert context("Leave", chunk) == "Leave\n## Sick leave\n\nCall."


def _fed(document: UUID, text: str, source: str = "s", title: str = "Title") -> FedChunk:
    return FedChunk(uuid4(), document, source, title, text)


def test_words_are_found_by_their_stem_within_sources(tmp_path: Path) -> None:
    index = WordIndex(tmp_path)
    one, other = uuid4(), uuid4()
    dogs, tax = _fed(one, "Dogs may sleep in the office."), _fed(other, "The tax office is closed.", source="t")
    index.take([one, other], [dogs, tax], 7)
    assert [found.chunk for found in index.propose("Is my dog sleeping?", ["s", "t"], 10)] == [dogs.id]
    assert [found.chunk for found in index.propose("office", ["t"], 10)] == [tax.id]
    assert {found.chunk for found in index.propose("Títle", ["s", "t"], 10)} == {dogs.id, tax.id}
    assert index.propose("office", [], 10) == []
    assert index.propose('the "of" AND (title:* OR', ["s"], 10) != []
    assert index.propose("What about the ones who do it?", ["s"], 10) == []


def test_a_document_replaces_its_chunks_and_the_cursor_survives(tmp_path: Path) -> None:
    index = WordIndex(tmp_path)
    one = uuid4()
    index.take([one], [_fed(one, "alpha"), _fed(one, "beta")], 2)
    index.take([one], [_fed(one, "gamma")], 3)
    assert index.propose("alpha", ["s"], 5) == []
    del index
    again = WordIndex(tmp_path)
    assert (again.cursor, again.count) == (3, 1)
    again.reset()
    assert (again.cursor, again.count) == (0, 0)
