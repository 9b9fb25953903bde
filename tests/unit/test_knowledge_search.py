"""Ranking and fitting are pure: what is put together loses nothing, and what is quoted fits."""

from collections.abc import Callable
from dataclasses import replace
from datetime import date
from uuid import UUID, uuid4

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from groundplan.knowledge.intake.vectors import embedding_text
from groundplan.knowledge.retrieval import propose as propose_module
from groundplan.knowledge.retrieval.documents import Metadata
from groundplan.knowledge.retrieval.fuse import (
    MAX_QUOTED_WORDS,
    OVERHEAD_BYTES,
    Weights,
    add_neighbours,
    demote_overdue,
    fit_passages,
    fuse_scores,
    longest_runs,
    may_contain_quote,
    merge_duplicates,
    min_quote_length,
    normalise_text,
    relevance_mask,
    smooth_scores,
    verbatim_share,
)
from groundplan.knowledge.retrieval.projection import DocumentEntry, Projection, Row
from groundplan.knowledge.retrieval.propose import ProposalRequest, propose, quotable_query
from groundplan.knowledge.retrieval.replication import search_text
from groundplan.knowledge.retrieval.search_store import ChunkSpan, ReadableChunk
from groundplan.knowledge.retrieval.wire import SearchRequest, Where
from groundplan.knowledge.retrieval.words import Analyzer


def _chunk(number: int, text: str = "") -> ReadableChunk:
    return ReadableChunk(UUID(int=number), UUID(int=0), "s", f"p{number:03}", "t", text or f"text {number}", 1, 2)


def test_what_both_rankings_name_comes_first() -> None:
    scores = fuse_scores(np.array([0.4, 0.3, 0, 0]), np.array([0, 0.8, 0.8, 0.1]))
    assert np.argsort(-scores).tolist()[:2] == [1, 2]


def test_a_neighbour_of_a_good_passage_is_better_than_a_stranger() -> None:
    scores = smooth_scores(np.array([1.0, 0.3, 0.3]), np.array([0, 1.0, 0]), np.array([0.3, 0, 0]))
    assert np.argsort(-scores).tolist() == [0, 1, 2]
    assert scores[2] == 0.3


_some = st.lists(st.tuples(st.floats(0, 1), st.floats(-1, 1)), max_size=6)


@given(_some, st.floats(0, 3))
def test_fusion_loses_nothing_and_keeps_what_both_say(said: list[tuple[float, float]], weight: float) -> None:
    words, near = np.array(said, np.float64).reshape(-1, 2).T
    scores = fuse_scores(words, near, Weights(weight))
    for one in range(len(said)):
        for other in range(len(said)):
            if words[one] >= words[other] and near[one] >= near[other]:
                assert scores[one] >= scores[other] - 1e-9


def test_neighbours_are_of_the_same_document_and_count_for_each_other() -> None:
    index = Projection()
    rows = [Row(uuid4(), [word], None) for word in ("leave", "pay", "leave", "pay")]
    index.replace_documents(
        [DocumentEntry(uuid4(), "s", acl, own) for acl, own in ((1, rows[:2]), (1, rows[2:]), (2, rows[:1]))], 1
    )
    found = propose(index.view, ProposalRequest(["leave"], None, frozenset("s"), frozenset({1})), Weights(1.0, 0.5))
    assert found.words.keys() == found.scores.keys() == {0, 2}, "what nothing says anything of has no score"
    assert found.order == [0, 2]
    both = ProposalRequest(["leave", "pay"], None, frozenset("s"), frozenset({1}))
    alone, beside = (propose(index.view, both, Weights(1.0, neighbour)).scores for neighbour in (0.0, 0.5))
    assert beside == pytest.approx({row: score * 1.5 for row, score in alone.items()}), "nobody has two of them"


def test_what_shares_only_common_words_and_no_subject_is_left_out() -> None:
    assert relevance_mask(np.array([8.0, 1.0, 0]), np.array([0, 0.2, 0.3]), 8.0).tolist() == [True, False, True]
    assert relevance_mask(np.zeros(2), np.array([0.2, 0.3]), 0.0).tolist() == [False, True]
    assert relevance_mask(np.zeros(0), np.zeros(0), 0.0).tolist() == []


@given(st.lists(st.text(max_size=40), max_size=12), st.integers(0, 6), st.integers(0, 600))
def test_passages_never_exceed_number_or_bytes(texts: list[str], k: int, most: int) -> None:
    ranked = [(_chunk(number, text), 1.0 - number / 100) for number, text in enumerate(texts, start=1)]
    chosen = fit_passages(ranked, k, most)
    assert len(chosen) <= k
    assert sum(len((one.text + one.title + one.path).encode()) + OVERHEAD_BYTES for one in chosen) <= most


_TEXT = "One.\n\nTwo two. Three three.\n  Four."
_SPANS = ((0, 4, 1, 1), (6, 14, 3, 3), (15, 27, 3, 3), (30, 35, 4, 4))
_PARTS = [ChunkSpan(UUID(int=0), n, _TEXT[a:b], a, b, first, last) for n, (a, b, first, last) in enumerate(_SPANS)]


def _placed(number: int, score: float) -> tuple[ReadableChunk, float]:
    part = _PARTS[number]
    return replace(
        _chunk(number + 1, part.text),
        number=number,
        start_line=part.start_line,
        end_line=part.end_line,
        start_char=part.start_char,
        end_char=part.end_char,
    ), score


@given(st.permutations(range(4)), st.integers(1, 4), st.integers(0, 500))
def test_a_passage_is_given_with_the_text_around_it_and_nothing_twice(order: list[int], k: int, most: int) -> None:
    ranked = [_placed(number, 1.0 - place / 10) for place, number in enumerate(order)]
    request = SearchRequest(workload="w", person=None, query="q", sources=["s"], k=k, max_bytes=most)
    around = {(part.document, part.number): part for part in _PARTS}
    found = fit_passages(add_neighbours(ranked, around, request), k, most)
    assert sum(len((one.text + one.title + one.path).encode()) + OVERHEAD_BYTES for one in found) <= most
    assert all(one.text == _TEXT[one.start_char : one.end_char] for one in found)
    lines = _TEXT.split("\n")
    assert all(one.text in "\n".join(lines[one.start_line - 1 : one.end_line]) for one in found)
    taken = [place for one in found for place in range(one.start_char, one.end_char)]
    assert len(taken) == len(set(taken))
    if most == 500:
        best = _PARTS[order[0]]
        assert found[0].start_char <= best.start_char < best.end_char <= found[0].end_char


def test_the_same_text_is_quoted_once_from_the_original() -> None:
    copy, original = replace(_chunk(1, "same"), path="leave-copy.md"), replace(_chunk(2, "same"), path="leave.md")
    ((chunk, score),) = merge_duplicates([(copy, 0.9), (original, 0.5)])
    assert (chunk.path, score) == ("leave.md", 0.9)
    (told,) = fit_passages([(chunk, score)], 1, 500)
    assert [(one.path, one.start_line) for one in told.also] == [("leave-copy.md", copy.start_line)]


def test_of_a_document_that_repeats_itself_the_best_place_is_quoted_and_the_others_are_told() -> None:
    places = [(replace(_chunk(number, "same"), start_line=number), 1 - number / 10) for number in range(9)]
    ((chunk, score),) = merge_duplicates([*places, (_chunk(20, "other"), 0.01)])[:-1]
    assert (chunk.start_line, score, [one.start_line for one in chunk.duplicates]) == (0, 1.0, [1, 2, 3, 4, 5])


def test_overdue_documents_come_after_current_ones() -> None:
    overdue, current = (
        replace(_chunk(1), review_by=date(2022, 12, 31)),
        replace(_chunk(2), review_by=date(2026, 11, 25)),
    )
    ranked = demote_overdue([(overdue, 0.9), (current, 0.5)], date(2026, 11, 25))
    assert [chunk.id for chunk, _ in ranked] == [current.id, overdue.id]


def test_a_passage_that_does_not_fit_gives_way_to_a_smaller_one() -> None:
    chosen = fit_passages([(_chunk(1, "x" * 500), 1.0), (_chunk(2, "small"), 0.5)], 2, 200)
    assert [one.text for one in chosen] == ["small"]


def test_a_chunk_is_found_and_embedded_with_where_it_stands() -> None:
    for made in (embedding_text, search_text):
        assert made("Leave", ["Leave", "Sick leave"], "## Sick leave\n\nCall.") == "Leave\n## Sick leave\n\nCall."


def test_who_quotes_means_that_passage() -> None:
    text = normalise_text("The pump is stopped before the filter is opened, and not after it.")

    def part(question: str) -> float:
        return verbatim_share(normalise_text(question).split(), text)

    assert part("before the filter is opened and not") == 1
    assert part("filter is opened") == 1, "all of a short question"
    assert part("filter pump is opened") == 0, "the words alone are no quotation"
    assert part("is opened") == 0, "two words are a chance"
    assert part("who says that the pump is stopped before the filter") == 0.7
    assert verbatim_share(normalise_text("pump is stopped now").split(), text, 3) == 0.75
    assert verbatim_share([], text) == 0


def test_who_quotes_without_spaces_means_that_passage() -> None:
    said = "フィルターを開ける前にポンプを止めてください。"
    text = normalise_text(said)

    def part(question: str) -> float:
        words = normalise_text(question).split()
        found = verbatim_share(words, text)
        assert may_contain_quote(words, said) or found == 0
        return found

    assert part("フィルターを開ける前にポンプを止めて") == 1
    assert part("ポンプを止めて") == 1, "all of a short question"
    assert part("ポンプを") == 0, "four characters are a chance"
    assert part("ポンプを止めるのはフィルターを開ける前ですか") == 0, "eleven characters in a row are a chance"
    assert part("なぜフィルターを開ける前にポンプを止めるのか") == pytest.approx(17 / 22)
    assert part("\uff8c\uff68\uff99\uff80\uff70を開ける前に") == 1, "half as wide"


@given(st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=12), st.integers(0, 5), st.integers(1, 8))
def test_a_run_is_found_wherever_it_stands(words: list[str], before: int, size: int) -> None:
    found = verbatim_share(words, normalise_text(" ".join(["x"] * before + words[:size])), 1)
    assert found >= (min(size, len(words)) / len(words) if len(words) >= 3 else 0)
    assert found <= 1


_SAID = st.lists(st.sampled_from(["pump", "Filter", "is", "OPEN", "É", "x1"]), max_size=14)


@given(_SAID, _SAID, st.sampled_from([" ", ", ", "-\n"]))
def test_what_may_not_quote_quotes_nothing(asked: list[str], said: list[str], between: str) -> None:
    question, text = normalise_text(" ".join(asked)).split(), between.join(said)
    assert may_contain_quote(question, text) or verbatim_share(question, normalise_text(text)) == 0


def test_of_a_question_without_end_the_beginning_may_be_a_quotation() -> None:
    index = Projection()
    index.replace_documents(
        [DocumentEntry(uuid4(), "s", 1, [Row(uuid4(), ["leave"], np.eye(384, dtype=np.float32)[0])])], 1
    )
    found = propose(index.view, ProposalRequest(["leave"], None, frozenset({"s"}), frozenset({1})))
    (row,) = found.quote_potential
    question = " ".join(f"w{number}" for number in range(MAX_QUOTED_WORDS + 6))
    ends = [" ".join(question.split()[start:][:6]) for start in (0, MAX_QUOTED_WORDS - 6, MAX_QUOTED_WORDS)]
    told = [found.quote_scores(question, {row: text}).get(row, 0.0) for text in ends]
    assert told[0] == told[1] > 0 == told[2]


def test_a_text_without_enough_words_in_a_row_is_passed_over() -> None:
    question = normalise_text("is the pump stopped before the filter").split()
    assert may_contain_quote(question, "The PUMP is stopped; before, the filter.")
    assert not may_contain_quote(question, "The filter is opened before the valve is shut.")
    assert not may_contain_quote(["the", "pump"], "the pump"), "two words are a chance"


def test_the_head_of_a_table_stays_beside_its_rows_and_counts_towards_what_fits() -> None:
    text, head = "| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |\n| 5 | 6 |", "| a | b |"
    spans = ((0, 29, ""), (30, 39, head), (40, 49, head))
    lines = [1 + text.count("\n", 0, at) for at in range(len(text) + 1)]
    parts = [
        ChunkSpan(UUID(int=0), number, text[start:end], start, end, lines[start], lines[end], above)
        for number, (start, end, above) in enumerate(spans)
    ]

    def given(number: int, most: int = 6000) -> list[tuple[str, str]]:
        part = parts[number]
        chunk = replace(
            _chunk(1, part.text), number=number, start_char=part.start_char, end_char=part.end_char,
            start_line=part.start_line, end_line=part.end_line, head=part.head,
        )  # fmt: skip
        request = SearchRequest(workload="w", person=None, query="q", sources=["s"], k=1, max_bytes=most)
        found = add_neighbours([(chunk, 1.0)], {(one.document, one.number): one for one in parts}, request)
        return [(one.head, one.text) for one in fit_passages(found, 1, most)]

    ((above, last),) = given(2)
    assert (above, last.endswith("| 3 | 4 |\n| 5 | 6 |")) == (head, True)
    assert given(1) == [("", text)], "with the passage that has it, the head stands in the text"
    alone = OVERHEAD_BYTES + len("t" + "p001" + "| 5 | 6 |")
    assert given(2, alone + len(head) - 1) == [] and given(2, alone + len(head)) == [(head, "| 5 | 6 |")]


def test_what_a_head_says_is_found_and_embedded_with_its_rows() -> None:
    assert (
        search_text("T", ["S", "| bar |"], "| 12 |")
        == embedding_text("T", ["S", "| bar |"], "| 12 |")
        == "T\nS\n| bar |\n| 12 |"
    )


def test_a_few_documents_are_ranked_by_themselves_with_the_scores_that_they_have_among_all() -> None:
    index, ids = Projection(), [uuid4() for _ in range(300)]
    vector = np.eye(384, dtype=np.float32)[0]
    entries = [
        DocumentEntry(id, "s", 1, [Row(uuid4(), ["leave"] * (1 + (at == 299)), vector)]) for at, id in enumerate(ids)
    ]
    index.replace_documents([*entries, DocumentEntry(uuid4(), "s", 2, [Row(uuid4(), ["leave"], vector)])], 1)
    every = ProposalRequest(["leave"], vector, frozenset("s"), frozenset({1}), limit=50)
    rare = replace(every, documents=[ids[0].bytes, ids[298].bytes, uuid4().bytes])
    all_of_them = propose(index.view, replace(every, limit=1000))
    found = propose(index.view, rare)
    assert set(found.order) == {0, 298}
    assert {row: found.scores[row] for row in (0, 298)} == {row: all_of_them.scores[row] for row in (0, 298)}
    assert (
        set(found.quote_potential) == set(all_of_them.quote_potential) & {0, 298}
        and found.best_word_score == all_of_them.words[299]
    )
    hidden = replace(rare, acls=frozenset({2}))
    assert propose(index.view, hidden).order == [], "a filter opens nothing"


@pytest.mark.parametrize("variants", [(), (["holiday"],)])
def test_what_is_good_by_words_and_vectors_together_is_proposed_though_many_are_better_by_either(
    variants: tuple[list[str], ...],
) -> None:
    index, basis = Projection(), np.eye(384, dtype=np.float32)
    texts = {"worded": ["leave", "leave"], "near": ["x", "y"], "both": ["leave", "x"]}
    vectors = {"worded": basis[1], "near": basis[0], "both": 0.9 * basis[0] + np.float32(1 - 0.81) ** 0.5 * basis[2]}
    kinds = ["worded"] * 300 + ["near"] * 300 + ["both"] * 5 + ["near"] * 300
    entries = [DocumentEntry(uuid4(), "s", 1, [Row(uuid4(), texts[kind], vectors[kind])]) for kind in kinds]
    index.replace_documents(entries, 1)
    wanted = ProposalRequest(["leave"], basis[0], frozenset("s"), frozenset({1}), limit=20, variants=variants)
    found = propose(index.view, wanted)
    assert found.order[:5] == list(range(600, 605))
    assert len(found.order) < len(kinds)
    assert propose(index.view, replace(wanted, vector=None)).order == list(range(20))


def test_of_some_documents_the_same_is_proposed_by_what_they_are_as_by_their_ids() -> None:
    random, index = np.random.default_rng(5), Projection()
    ids = [uuid4() for _ in range(900)]
    rows = random.normal(size=(900, 3, 384)).astype(np.float32)
    rows[:, :, 0] += random.random((900, 3)) * 30
    rows /= np.linalg.norm(rows, axis=2, keepdims=True)
    words = random.choice(list("abcdefgh"), (900, 3, 5), p=np.array([128, 64, 32, 16, 8, 4, 2, 2]) / 256)
    for at, id in enumerate(ids):
        held = [Row(uuid4(), list(own), row) for own, row in zip(words[at], rows[at], strict=True)]
        what = Metadata(f"{'ab'[at % 3 == 0]}/{at}.md", owner="ana" if at % 5 else "ben")
        index.replace_documents([DocumentEntry(id, "s", 1 + at % 2, held, what)], at + 1)
    vector = np.eye(384, dtype=np.float32)[0]
    for acls in ({1, 2}, {2}):
        every = ProposalRequest(list("abdg"), vector, frozenset("s"), frozenset(acls))
        all_of_them = propose(index.view, replace(every, limit=10_000))
        cases: list[tuple[Where, Callable[[int], bool]]] = [
            (Where(path="b/"), lambda at: at % 3 == 0),
            (Where(path="a/1", owner="ben"), lambda at: at % 3 > 0 and at % 5 == 0 and str(at).startswith("1")),
            (Where(path="a/9999"), lambda at: at > len(ids)),
            (Where(path=""), lambda at: at >= 0),
        ]
        for where, holds in cases:
            found = propose(index.view, replace(every, where=where))
            by_id = propose(index.view, replace(every, documents=[id.bytes for at, id in enumerate(ids) if holds(at)]))
            assert found.best_scores == by_id.best_scores and found.quote_potential == by_id.quote_potential
            wanted = [row for row in all_of_them.order if holds(row // 3)]
            assert found.order[:20] == wanted[:20]
            best = [all_of_them.best_scores[row] for row in wanted[:20]]
            assert [found.best_scores[row] for row in wanted[:20]] == pytest.approx(best, abs=1e-6)


_PLAIN = ["alpha", "beta", "gamma", "delta", "omega", "sigma", "kappa", "the"]


@pytest.mark.parametrize("seed", range(6))
def test_what_quotes_the_question_is_read_however_far_behind_it_stands(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing else is: with what is read one after the other, the best are those of whoever reads everything."""
    monkeypatch.setattr(propose_module, "_READ_AHEAD", 100)
    random, index, analyzer = np.random.default_rng(seed), Projection(), Analyzer()
    question = [str(word) for word in random.choice(_PLAIN, 9)]
    texts = []
    for _ in range(700):
        words = [str(word) for word in random.choice(_PLAIN, 12)]
        if random.random() < 0.2:
            start, length = int(random.integers(0, 3)), int(random.integers(5, 8))
            words[3 : 3 + length] = question[start : start + length]
        texts.append(" ".join(words))
    rows = random.normal(size=(len(texts), 384)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    for at, text in enumerate(texts):
        index.replace_documents(
            [DocumentEntry(uuid4(), "s", 1, [Row(uuid4(), analyzer.terms(text), rows[at])])], at + 1
        )
    asked = " ".join(question)
    wanted = ProposalRequest(
        analyzer.terms(asked), rows[0], frozenset("s"), frozenset({1}), 1000, quotable=quotable_query(asked, analyzer)
    )
    proposed = propose(index.view, wanted)

    def worth(some: list[int]) -> list[tuple[float, int]]:
        more = proposed.quote_scores(asked, {row: texts[row] for row in some})
        return sorted((-proposed.best_scores[row] - more.get(row, 0.0), row) for row in some)

    read: list[int] = []
    for batch, reach in proposed.batches(24, 40):
        assert not set(read).intersection(batch)
        read += batch
        if len(read) >= 24 and -worth(read)[9][0] >= reach:
            break
    assert worth(read)[:10] == worth(proposed.order)[:10]
    assert len(read) < len(proposed.order) / 2
    every = [row for batch, _ in proposed.batches(24, 40) for row in batch]
    assert sorted(every) == sorted(proposed.order)


def test_how_many_words_in_a_row_a_text_may_have() -> None:
    def told(there: list[NDArray[np.bool_] | None], least: int, known: int) -> list[list[int]]:
        return [each.tolist() for each in longest_runs(there, 3, least, known)]

    first, second, third = np.array([[True, True, False], [True, True, True], [True, False, True]])
    assert told([first, second, third], 2, 3) == [[3, 2, 2], [3, 0, 0]]
    assert told([first, third], 2, 2) == [[2, 0, 0], [2, 0, 0]]
    assert told([first, None, second, third], 3, 3) == [[4, 3, 3], [4, 0, 0]]
    assert told([first, None, second, None, first], 4, 3) == [[5, 5, 0], [5, 5, 0]]
    assert told([None, None], 2, 1) == [[2, 2, 2], [0, 0, 0]]
    assert min_quote_length(["a"] * 9) == 6 and min_quote_length(["a"] * 4) == 4 and min_quote_length(["a"] * 2) == 3


@given(st.text(st.characters(max_codepoint=127)))
def test_a_text_in_ascii_is_taken_apart_as_any_other(text: str) -> None:
    assert normalise_text(f"{text} é") == f"{normalise_text(text).rstrip()} é "
