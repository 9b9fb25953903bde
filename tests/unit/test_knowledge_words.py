"""BM25 against the textbook, written out: with everything visible the same, else as if nothing hidden existed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from uuid import uuid4

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundplan.knowledge.retrieval import words
from groundplan.knowledge.retrieval.bm25 import bm25, top_scores
from groundplan.knowledge.retrieval.projection import DocumentEntry, Projection, Row
from groundplan.knowledge.retrieval.words import (
    Analyzer,
    Counts,
    Ints,
    Segment,
    VisibleRows,
    build_segment,
    query_terms,
)

_TERMS = ("ape", "bee", "cat", "dog", "elk")
_texts = st.lists(st.lists(st.sampled_from(_TERMS), max_size=8), min_size=1, max_size=30)
_question = st.lists(st.sampled_from((*_TERMS, "unknown")), min_size=1, max_size=5)


def reference(texts: Sequence[Sequence[str]], question: Sequence[str]) -> list[float]:
    """Robertson's BM25 with k1 1.2, b 0.75 and the idf that is never negative, as slow and plain as can be."""
    mean = sum(map(len, texts)) / max(1, len(texts))
    scores = []
    for text in texts:
        counts, score = Counter(text), 0.0
        for term in question:
            frequency = sum(term in other for other in texts)
            idf = math.log(1 + (len(texts) - frequency + 0.5) / (frequency + 0.5))
            norm = 1.2 * (1 - 0.75 + 0.75 * len(text) / mean) if mean else 1.2
            score += idf * counts[term] * 2.2 / (counts[term] + norm) if counts[term] else 0.0
        scores.append(score)
    return scores


def _projection(texts: Sequence[Sequence[str]], acls: Sequence[int], batch: int) -> Projection:
    index = Projection()
    entries = [
        DocumentEntry(uuid4(), "s", acl, [Row(uuid4(), text, None)]) for text, acl in zip(texts, acls, strict=True)
    ]
    for start in range(0, len(entries), batch):
        index.replace_documents(entries[start : start + batch], start + 1)
    return index


def _scores(index: Projection, question: Sequence[str], acls: set[int]) -> dict[int, float]:
    seen = index.view.visible_rows({"s"}, acls)
    found = bm25(index.view.segments, query_terms(question, index.view.terms), index.view.columns.lengths, seen)
    leading = found.top_rows(index.view.size)
    rows, scores = leading.rows, leading.scores
    assert not len(rows) or scores.max() < found.possible
    assert found.scores(np.sort(rows)).tolist() == scores[np.argsort(rows)].tolist()
    return dict(zip(rows.tolist(), scores.tolist(), strict=True))


@settings(deadline=None)
@given(texts=_texts, question=_question, batch=st.integers(1, 7))
def test_with_everything_visible_the_score_is_that_of_the_textbook(
    texts: list[list[str]], question: list[str], batch: int
) -> None:
    found = _scores(_projection(texts, [1] * len(texts), batch), question, {1})
    wanted = {row: score for row, score in enumerate(reference(texts, question)) if score > 0}
    assert found == pytest.approx(wanted)


def test_a_question_of_hundreds_of_words_is_scored_by_all_of_them() -> None:
    """As sets have them whose questions are arguments or whole documents."""
    texts = [[f"w{number}" for number in range(start, start + 90)] for start in range(0, 300, 30)]
    question = [f"w{number}" for number in range(380)]
    found = _scores(_projection(texts, [1] * len(texts), 4), question, {1})
    assert found == pytest.approx(dict(enumerate(reference(texts, question))))


@settings(deadline=None)
@given(texts=_texts, question=_question, data=st.data())
def test_hidden_documents_change_no_score(texts: list[list[str]], question: list[str], data: st.DataObject) -> None:
    acls = data.draw(st.lists(st.integers(1, 3), min_size=len(texts), max_size=len(texts)))
    seen = [row for row, acl in enumerate(acls) if acl != 2]
    found = _scores(_projection(texts, acls, 4), question, {1, 3})
    alone = reference([texts[row] for row in seen], question)
    assert found == pytest.approx({row: score for row, score in zip(seen, alone, strict=True) if score > 0})


_FREQUENCIES = (9, 300, 2_000, 9_000, 30_000, 50_000, 55_000)


@pytest.fixture(scope="module")
def many() -> tuple[Counts, Ints]:
    """How often each of 60,000 texts (a row) has each term (a column), rare ones first, and the length of each text."""
    random = np.random.default_rng(7)
    counts = np.zeros((60_000, len(_FREQUENCIES)), np.uint16)
    for term, frequency in enumerate(_FREQUENCIES):
        rows = random.choice(len(counts), frequency, replace=False)
        counts[rows, term] = random.geometric(0.7, frequency)
    return counts, (counts.sum(axis=1) + random.integers(20, 90, len(counts))).astype(np.int32)


def _segments(counts: Counts) -> tuple[Segment, ...]:
    parts = []
    for first, end in ((0, 40_000), (40_000, 55_000), (55_000, 60_000)):
        rows, terms = np.nonzero(counts[first:end])
        times = counts[first:end][rows, terms]
        parts.append(
            build_segment(np.repeat(terms, times).astype(np.int32), np.repeat(rows + first, times).astype(np.int32))
        )
    return tuple(parts)


@pytest.mark.parametrize("share", [1.0, 0.5, 0.1, 0.02, 0.0005])
@pytest.mark.parametrize("question", [(0, 1, 2, 3, 4, 5, 6), (4, 5, 6), (6, 2), (0, 5)])
def test_of_many_the_best_are_the_same_whatever_is_left_out(
    many: tuple[Counts, Ints], share: float, question: tuple[int, ...]
) -> None:
    counts, lengths = many
    mask = np.random.default_rng(3).random(len(counts)) < share
    seen = np.flatnonzero(mask)
    frequency = (counts[seen] > 0).sum(axis=0)
    weights = 2.2 * np.log1p((len(seen) - frequency + 0.5) / (frequency + 0.5))
    norm = 1.2 * (1 - 0.75 + 0.75 * lengths / lengths[seen].mean())
    own = [weights[term] * counts[:, term] / (counts[:, term] + norm) for term in question]
    every = np.where(mask, sum(own), 0.0)
    wanted = np.lexsort((np.arange(len(every)), -every.round(9)))[:100]
    wanted = wanted[every[wanted] > 0]
    visible = VisibleRows(None if share == 1 else mask, len(seen), int(lengths[seen].sum()))
    found = bm25(_segments(counts), dict.fromkeys(question, 1), lengths, visible)
    leading = found.top_rows(100)
    rows, scores = leading.rows, leading.scores
    assert scores.tolist() == pytest.approx(every[wanted].tolist())
    assert every[rows].tolist() == pytest.approx(scores.tolist())
    assert len(set(rows.tolist())) == len(wanted)
    assert found.scores(seen.astype(np.int32)) == pytest.approx(every[seen])
    half = mask & (np.arange(len(mask)) % 2 == 0)
    part = found.restrict(half).top_rows(100).rows
    assert every[part].tolist() == pytest.approx(np.sort(every[half & (every > 0)])[::-1][:100].tolist())


def test_the_best_come_first_and_of_equals_the_earlier() -> None:
    rows, scores = top_scores(np.array([4, 7, 9, 2], np.int32), np.array([1.0, 3.0, 3.0, 2.0]), 3)
    assert (rows.tolist(), scores.tolist()) == ([7, 9, 2], [3.0, 3.0, 2.0])
    assert top_scores(np.zeros(0, np.int32), np.zeros(0), 3)[0].tolist() == []


def test_questions_are_words_without_case_accents_endings_and_stop_words() -> None:
    terms = Analyzer().terms
    assert terms("Is my DOG sleeping?") == terms("dogs sleep") == ["dog", "sleep"]
    assert terms("Títle") == terms("title")
    assert terms("What about the ones who do it?") == terms("ones")
    assert terms('the "of" AND (title:* OR') == terms("title")
    assert query_terms(["a", "b", "a"], {"a": 5}) == {5: 2}
    nothing = VisibleRows(None, 0, 0)
    assert bm25((), {1: 1}, np.zeros(0, np.int32), nothing).top_rows(9).rows.tolist() == []


@settings(deadline=None)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=12),
    at_once=st.sampled_from([1, 7, 1 << 16]),
    seed=st.integers(0, 1000),
)
def test_segments_that_are_merged_are_as_if_they_had_been_one(sizes: list[int], at_once: int, seed: int) -> None:
    random, before = np.random.default_rng(seed), words._COPY_BLOCK
    rows = np.repeat(np.arange(sum(sizes), dtype=np.int32), 6)
    terms = random.integers(0, 25, len(rows)).astype(np.int32)
    kept: tuple[Segment, ...] = ()
    words._COPY_BLOCK = at_once  # type: ignore[misc]
    try:
        for first, size in zip(np.cumsum([0, *sizes[:-1]]).tolist(), sizes, strict=True):
            own = slice(6 * first, 6 * (first + size))
            kept = words.add_segment(kept, build_segment(terms[own], rows[own]))
    finally:
        words._COPY_BLOCK = before  # type: ignore[misc]
    counts = [len(one.rows) for one in kept]
    assert all(size > words._MERGE_RATIO * sum(counts[place + 1 :]) for place, size in enumerate(counts[:-1]))
    whole = build_segment(terms, rows)
    for term in range(25):
        said = [held for one in kept if (held := one.postings(term)) is not None]
        wanted = whole.postings(term)
        assert [row for held, _ in said for row in held.tolist()] == ([] if wanted is None else wanted[0].tolist())
        assert [count for _, held in said for count in held.tolist()] == ([] if wanted is None else wanted[1].tolist())
    assert {(one.rows.dtype, one.counts.dtype, one.terms.dtype) for one in kept} == {
        (whole.rows.dtype, whole.counts.dtype, whole.terms.dtype)
    }


def test_no_segment_grows_beyond_what_can_be_copied_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "_LARGEST_SEGMENT", 100)
    kept: tuple[Segment, ...] = ()
    for row in range(0, 200, 10):
        kept = words.add_segment(
            kept, build_segment(np.arange(10, dtype=np.int32), np.arange(row, row + 10, dtype=np.int32))
        )
    assert sum(len(one.rows) for one in kept) == 200
    assert max(len(one.rows) for one in kept) <= 100


WRITTEN = (
    "员工每年有二十八天带薪年假。申请年假须提前两周。",
    "有給休暇は年に28日です。VPNの設定は情報システム部に連絡してください。",
    "พนักงานมีวันหยุดประจำปี 28 วัน",
    "연차 휴가는 1년에 28일입니다. 서울에서 신청합니다.",
    "Employees have 28 days of paid leave a year.",
    "报销差旅费须提交发票。",
)


def _found(question: str) -> list[int]:
    """The texts that have words of a question, best first, after their scores were compared with the textbook's."""
    said = [Analyzer().terms(text) for text in WRITTEN]
    terms = Analyzer().terms(question)
    scores, wanted = _scores(_projection(said, [1] * len(said), 2), terms, {1}), reference(said, terms)
    assert scores == {row: pytest.approx(score) for row, score in enumerate(wanted) if score}
    return sorted(scores, key=lambda row: -scores[row])


@pytest.mark.parametrize(
    ("question", "first"),
    [
        ("带薪年假有几天", 0),
        ("VPNを設定したい", 1),
        ("有給休暇", 1),
        ("วันหยุด", 2),
        ("서울 휴가", 3),
        ("paid leave", 4),
        ("差旅费怎么报销？", 5),
    ],
)
def test_a_question_finds_the_text_that_has_its_words(question: str, first: int) -> None:
    assert _found(question)[0] == first


@pytest.mark.parametrize("question", ["天气预报", "猫は眠る", "สวัสดี", "축구", "weather"])
def test_a_question_whose_words_nobody_has_finds_nothing(question: str) -> None:
    assert _found(question) == []
