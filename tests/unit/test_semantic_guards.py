"""One answer for two requests: every kind of trap is refused, other words for the same are not, bounds are bounds."""

from __future__ import annotations

from math import inf
from pathlib import Path
from random import Random

import numpy as np
import pytest
from benchmarks.semantic_labelled import read_pairs
from benchmarks.semantic_traps import KINDS, trap
from benchmarks.semantic_tune import lowest_threshold, share_upper_bound
from hypothesis import given
from hypothesis import strategies as st

from groundplan.core.errors import Invalid
from groundplan.economics.semantic.equivalence import (
    is_within_bound,
    judge,
    load_acceptance,
)
from groundplan.economics.semantic.guards import is_english, veto
from groundplan.economics.semantic.reading import language_of, read, stem
from groundplan.economics.semantic.similarity import EmbeddedReading

SAME = [
    ("How do I reset my Jira password?", "What is the way to reset the Jira password?"),
    ("Is water damage covered by the warranty?", "Does the warranty cover water damage?"),
    ("How can data be exported from GitLab?", "How do I export data from GitLab?"),
    ("How large can an upload be at most?", "What is the maximum size of an upload?"),
    ("The trip takes 3 hours", "The trip takes three hours"),
    ("No, it doesn't exist in version 2.10.0.", "Version 2.10.0 does not have it."),
    ("Ship 1,000 parcels", "ship 1000 parcels"),
    ("Which is the most recent list?", "Which is the latest list?"),
    (
        "When setting the format of a table to text, all tables are formatted as text",
        "When formatting a table to text, all tables are converted to the text format",
    ),
    ("Thousands of files", "A thousand files"),
    ("Give the file path to the list and sort it", "Give the file path for the list, to sort the file"),
]
TRAPS = [
    ("negation", "Can I return shoes?", "Can I not return shoes?"),
    ("negation", "Is the certificate valid?", "Is the certificate invalid?"),
    ("negation", "How do I use it with caching?", "How do I use it without caching?"),
    ("number", "May I return it within 14 days?", "May I return it within 30 days?"),
    ("number", "a table for four people", "a table for five people"),
    ("unit", "How heavy is 5 kg of it?", "How heavy is 5 lb of it?"),
    ("time", "Which meetings are planned for June?", "Which meetings are planned for July?"),
    ("time", "What happened yesterday?", "What happened today?"),
    ("entity", "What is the tax in Germany?", "What is the tax in France?"),
    ("entity", "What does `map_rows` do?", "What does `map_cols` do?"),
    ("opposite", "How do I enable backups?", "How do I disable backups?"),
    ("opposite", "It is more than mine, less than yours", "It is more than mine, more than yours"),
    ("direction", "move files from Berlin to Madrid", "move files from Madrid to Berlin"),
    ("entity", "What is in `schema` of the schema lists?", "What is in `list` of the schema lists?"),
    ("direction", "send Ana to Ben by train", "send Ben to Ana by train"),
    ("direction", "from Berlin to Madrid the next time", "from Madrid to Berlin the next time"),
    ("direction", "Is Slack slower than Teams?", "Is Teams slower than Slack?"),
    ("quantity", "Are all regions covered?", "Are only some regions covered?"),
    ("question", "Who signs the contract?", "When is the contract signed?"),
    ("language", "What is the notice period?", "Was ist die notice period?"),
    ("obligation", "Which fields are required?", "Which fields are optional?"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_other_words_for_the_same_pass_the_guards(one: str, other: str) -> None:
    assert veto(read(one), read(other)) == ""
    assert veto(read(other), read(one)) == ""


@pytest.mark.parametrize(("kind", "one", "other"), TRAPS)
def test_each_kind_of_trap_is_refused_both_ways(kind: str, one: str, other: str) -> None:
    found = veto(read(one), read(other))
    assert found
    assert veto(read(other), read(one))
    if kind in ("number", "unit", "time", "language", "negation"):
        assert found == kind


@given(st.text(max_size=200))
def test_any_text_is_read_and_means_what_it_means(text: str) -> None:
    found = read(text)
    assert veto(found, read(text)) == ("" if is_english(found) else "language")
    assert all(stem(word) for word in found.words)


WORDS = st.lists(
    st.sampled_from(
        ["move", "Berlin", "Madrid", "to", "from", "than", "more", "less", "not", "invalid", "valid", "one", "5", "kg",
         "only", "must", "may", "May", "when", "who", "`map_rows`", "die", "was", "all", "and", "faster", "."]
    ), max_size=16,
).map(" ".join)  # fmt: skip


@given(WORDS)
def test_what_is_said_twice_over_means_what_it_means(text: str) -> None:
    assert veto(read(text), read(text)) == ("" if is_english(read(text)) else "language")


def test_a_way_there_and_back_means_what_it_means() -> None:
    text = "Is the way from Berlin to Madrid by train at night as long as the road from Madrid to Berlin?"
    assert veto(read(text), read(text)) == ""
    one, other = "from Berlin Madrid to Madrid Berlin", "from Madrid to Berlin Madrid"
    assert bool(veto(read(one), read(other))) == bool(veto(read(other), read(one)))


@given(st.text(max_size=120) | WORDS, st.text(max_size=120) | WORDS)
def test_guards_do_not_depend_on_the_order(one: str, other: str) -> None:
    assert bool(veto(read(one), read(other))) == bool(veto(read(other), read(one)))


@given(st.sampled_from(KINDS), st.integers(0, 1000))
def test_traps_change_the_text(kind: str, seed: int) -> None:
    text = "How do I buy 3 kg from Berlin to Madrid in June without paying in Germany?"
    changed = trap(text, kind, Random(seed))
    assert changed is None or changed.lower() != text.lower()


def test_the_language_is_told_only_where_it_shows() -> None:
    assert language_of("what is the price of this", ["what", "is", "the", "price", "of", "this"]) == "en"
    assert language_of("wie ist der Preis für das", ["wie", "ist", "der", "preis", "für", "das"]) == "de"
    assert language_of("сколько это стоит", []) == "cyrillic"
    assert language_of("Kubernetes", ["kubernetes"]) == ""


def said(text: str, length: float = 1.0) -> EmbeddedReading:
    """A text of which all words are alike, and with others of its kind so alike as their lengths tell."""
    reading = read(text)
    return EmbeddedReading(
        reading, np.array([length], dtype=np.float32), np.ones((len(reading.content_words), 4), dtype=np.int8)
    )


def test_a_trap_is_never_accepted_however_alike() -> None:
    found = judge(load_acceptance(), said("Pay in 2 parts"), said("Pay in 3 parts"))
    assert (found.score, found.veto) == (-inf, "number")
    assert judge(load_acceptance(), said("a"), said("b", 0.1)).veto == "unlike"


def test_a_few_words_again_and_again_are_not_compared() -> None:
    def told(one: str, other: str) -> str:
        return judge(load_acceptance(), said(one), said(other)).veto

    assert told("tip " * 500, "tip " * 499 + "top") == told("to be " * 300, "to be to go " * 150) == "repeats"
    much = (Path(__file__).parents[2] / "docs" / "cost.md").read_text()[8000:10000]
    assert told(much, much) == "", "as much as anybody says at once is"


def test_what_ships_keeps_its_bounds_where_it_was_set() -> None:
    found = load_acceptance()
    for bound, (accepted, wrong) in found.evidence.items():
        assert share_upper_bound(wrong, accepted) <= float(bound)
    assert found.threshold(0.01) >= found.threshold(0.05)
    assert found.threshold(0.0001) == inf


def test_clopper_pearson() -> None:
    assert share_upper_bound(0, 298) == pytest.approx(0.01, rel=0.01)
    assert share_upper_bound(5, 100) == pytest.approx(0.1022, abs=5e-4)
    assert share_upper_bound(3, 3) == 1.0


def test_the_threshold_is_the_lowest_that_keeps_the_bound() -> None:
    scores = [float(1000 - i) for i in range(1000)]
    same = [i not in (600, 601, 602, 603, 604, 605) for i in range(1000)]
    threshold, accepted, wrong = lowest_threshold(scores, same, 0.01)
    assert (threshold, accepted, wrong) == (400.0 - 1, 602, 1) or wrong <= 2
    assert share_upper_bound(wrong, accepted) <= 0.01
    assert lowest_threshold([1.0] * 50, [True] * 50, 0.01)[0] == inf


def test_without_confidence_the_threshold_keeps_the_share_that_was_found() -> None:
    scores = [float(1000 - i) for i in range(1000)]
    same = [i % 50 != 49 for i in range(1000)]
    threshold, accepted, wrong = lowest_threshold(scores, same, 0.02, confidence=0.0)
    assert (threshold, accepted, wrong) == (1.0, 1000, 20)
    assert lowest_threshold(scores, same, 0.02)[1] < 1000
    assert lowest_threshold(scores, same, 0.0199, confidence=0.0) == (2.0, 999, 19)
    assert share_upper_bound(7, 50, 0.0) == pytest.approx(7 / 50)


def test_pairs_that_are_none_are_refused_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"a": "x", "b": "y", "same": true}\n{"a": "x"}\n')
    with pytest.raises(Invalid) as told:
        read_pairs(path)
    assert str(told.value.where).endswith("pairs.jsonl:2:1")
    path.write_text('\ufeff{"a": "x", "b": "y", "same": true}\n', encoding="utf-8")
    assert len(read_pairs(path)) == 1, "a mark of the byte order is no part of it"
    path.write_text("\n")
    with pytest.raises(Invalid, match="no pairs"):
        read_pairs(path)
    with pytest.raises(Invalid, match="cannot be read"):
        read_pairs(tmp_path / "absent")


@given(st.integers(0, 30), st.integers(1, 900), st.sampled_from([0.01, 0.02, 0.03, 0.05, 0.15]))
def test_a_share_is_within_a_bound_where_its_upper_end_is(wrong: int, of: int, bound: float) -> None:
    upper = share_upper_bound(wrong, of)
    assert is_within_bound(wrong, of, bound) == (upper <= bound) or upper == pytest.approx(bound, abs=1e-9)


@pytest.mark.parametrize(
    "forms",
    ["policy policies", "class classes", "process processes processing", "document documents documented documenting",
     "access accessed", "enter entered entering", "company companies", "pass passed", "library libraries"],
)  # fmt: skip
def test_forms_of_a_word_have_one_stem(forms: str) -> None:
    assert len(set(map(stem, forms.split()))) == 1


@given(st.from_regex(r"[a-z]{1,14}", fullmatch=True))
def test_a_stem_begins_as_its_word_and_its_plural_is_the_same(word: str) -> None:
    assert word.startswith(stem(word)[:-1])
    assert len(word) < 3 or len(stem(word)) >= 3


def test_in_order_to_says_nothing_and_an_order_does() -> None:
    assert "order" not in read("What do I do in order to pay?").content_words
    assert read("Who pays the order?").content_words == ("pays", "order")
    assert read("Order paper").content_words == ("order", "paper")


def test_a_capital_at_the_beginning_of_a_sentence_says_nothing() -> None:
    assert read("Go to the page. Click Save as Ana does.\nPress it!").names == {"save", "ana"}
    assert read("Thanks. May I leave in May?").times == {"may"}
    assert read("Thanks. May I leave?").times == frozenset()


def test_names_are_of_no_language() -> None:
    assert is_english(read("price Denver Lisbon"))
    assert not is_english(read("Preis Denver Lissabon"))
    assert not is_english(read("Denver Lisbon"))
