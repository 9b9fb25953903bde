"""One thing in place of another is refused where no capital shows a name, and other words for the same are not."""

from __future__ import annotations

from importlib import resources
from itertools import combinations

import numpy as np
import pytest

from groundplan.core.settings import load_settings
from groundplan.economics import semantic
from groundplan.economics.semantic import equivalence, vocabulary
from groundplan.economics.semantic.guards import veto
from groundplan.economics.semantic.reading import read, stem
from groundplan.economics.semantic.similarity import (
    FEATURES,
    Alignment,
    EmbeddedReading,
    align,
    features,
    lexical_nearness,
    nearness,
)
from groundplan.economics.semantic.substitution import has_substitution
from groundplan.economics.semantic.synonyms import synonym_places
from groundplan.knowledge.embedding.encoder import Encoder, quantise
from groundplan.runtime.models import MINILM, ensure


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(ensure(load_settings().models, MINILM.name))


def said(encoder: Encoder, text: str) -> EmbeddedReading:
    """A text as the search service tells it."""
    reading = read(text)
    (spoken,) = encoder.embed_words([text], [reading.spans])
    return EmbeddedReading(
        reading, spoken.vector, np.frombuffer(quantise(spoken.words), dtype=np.int8).reshape(-1, 384)
    )


@pytest.mark.parametrize(
    ("one", "other", "kind"),
    [
        ("Germany fees for a room?", "France fees for a room?", "substitution"),
        ("reset my jira password", "reset my slack password", "substitution"),
        ("how do i reset my jira password", "what is the way to reset the slack password", "substitution"),
        ("Berlin: are shoes sold in Berlin?", "Germany: are shoes sold in Berlin?", "substitution"),
        ("refund period for shoes?", "refund period for headphones?", "substitution"),
        (
            "A guide names cloud storage of several providers, examples of its use and the best settings for each",
            "A guide names cloud construction of several providers, examples of its use and the best settings for each",
            "substitution",
        ),
        ("reset my jira password", "how can the jira password be reset", ""),
        ("Germany fees for a room?", "What are the fees for a room in Germany?", ""),
        ("How do I cancel my order?", "How can an order be terminated?", ""),
        ("What does the training cost?", "What is the price of the training?", ""),
        ("The export is discontinued", "The export is deprecated", ""),
        ("Yes, the form holds notes", "The form contains notes", ""),
        ("The form holds notes", "The following holds notes", "relation"),
        ("The invoice holds the respective prices", "Such an invoice contains the prices", ""),
    ],
)
def test_one_thing_in_place_of_another_is_refused_where_no_capital_shows_it(
    encoder: Encoder, one: str, other: str, kind: str
) -> None:
    for a, b in ((one, other), (other, one)):
        assert veto(read(a), read(b)) == "", "another guard sees it"
        assert equivalence.judge(equivalence.load_acceptance(), said(encoder, a), said(encoder, b)).veto == kind


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("purchases", "bought", True),
        ("organisation", "company", True),
        ("deprecated", "discontinued", True),
        ("germany", "france", False),
        ("buy", "sell", False),
        ("increase", "reduce", False),
        ("invoice", "refund", False),
        ("safety", "security", False),
        ("monthly", "yearly", False),
        ("work", "lab", False),
        ("labor", "work", True),
        ("letter", "permit", False),
    ],
)
def test_words_say_the_same_where_a_line_has_both(one: str, other: str, same: bool) -> None:
    assert list(synonym_places([one], [other])) == [(0, 0)] * same
    assert list(synonym_places([other], [one])) == [(0, 0)] * same


def test_no_line_of_synonyms_holds_opposites_units_times_or_numbers() -> None:
    text = resources.files(semantic).joinpath("synonyms.txt").read_text(encoding="utf-8")
    lines = [line.split() for line in text.splitlines()]
    assert len(lines) > 900
    assert all(len(set(line)) == len(line) > 1 for line in lines)
    assert len({frozenset(pair) for pair in vocabulary.OPPOSITES}) == len(vocabulary.OPPOSITES), "each pair once"
    opposites = {frozenset(map(stem, pair)) for pair in vocabulary.OPPOSITES}
    for line in lines:
        assert not any(frozenset(map(stem, pair)) in opposites for pair in combinations(line, 2)), line
        assert vocabulary.UNITS.union(vocabulary.TIMES, vocabulary.NUMBER_WORDS).isdisjoint(line), line


def test_a_word_is_compared_as_it_is_meant_in_its_text(encoder: Encoder) -> None:
    def near(one: str, other: str, word: str, instead: str) -> float:
        a, b = said(encoder, one), said(encoder, other)
        table = nearness(a.words, b.words, lexical_nearness(a.reading.content_words, b.reading.content_words))
        return float(table[a.reading.content_words.index(word), b.reading.content_words.index(instead)])

    paid = near("The plant pays its workers", "The mill pays its workers", "plant", "mill")
    green = near("The plant needs water and light", "The mill pays its workers", "plant", "mill")
    assert paid > green + 0.1
    assert near("Where is the form?", "Where are forms?", "form", "forms") == 1.0, "forms of one word"


@pytest.mark.parametrize("added", ["admin", "email", "wifi", "guest"])
def test_a_qualifier_makes_another_thing(encoder: Encoder, added: str) -> None:
    plain = said(encoder, "How do I reset my password?")
    other = said(encoder, f"How do I reset my {added} password?")
    assert equivalence.judge(equivalence.load_acceptance(), plain, other).veto == "substitution"
    assert equivalence.judge(equivalence.load_acceptance(), other, plain).veto == "substitution"


@pytest.mark.parametrize(
    "more",
    [
        "Portugal: who approves the overseas parking permit?",
        "Portugal: who approves the parking permit for students?",
        "Portugal: who approves the parking permit holder?",
        "Portugal: who approves the parking permit abroad?",
        "Portugal: who approves the work parking permit?",
        "Portugal: who approves the parking permit of my sister?",
    ],
)
def test_a_word_more_makes_another_thing_however_near_it_is_to_a_name_that_both_have(
    encoder: Encoder, more: str
) -> None:
    for text in ("Portugal: who approves the parking permit?", "Portugal: by whom is the parking permit approved?"):
        for one, other in ((text, more), (text.lower().rstrip("?"), more.lower().rstrip("?"))):
            assert equivalence.judge(equivalence.load_acceptance(), said(encoder, one), said(encoder, other)).veto in (
                "substitution",
                "verb",
            )
            assert equivalence.judge(equivalence.load_acceptance(), said(encoder, other), said(encoder, one)).veto in (
                "substitution",
                "verb",
            )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("How do I renew the parking permit?", "Hello, a question: how can I renew the parking permit?"),
        ("How do I renew the parking permit?", "How do I renew the parking permit? Thanks and regards"),
        ("How do I renew the parking permit?", "How do I properly renew the parking permit?"),
        ("How long does it take to get the permit?", "How many days does it take to get the permit?"),
        ("Is the parking permit valid in all car parks?", "In all car parks, is the permit valid for parking in them?"),
    ],
)
def test_what_is_said_around_a_question_or_said_again_is_nothing_more(encoder: Encoder, one: str, other: str) -> None:
    a, b = said(encoder, one), said(encoder, other)
    near = nearness(a.words, b.words, lexical_nearness(a.reading.content_words, b.reading.content_words))
    assert not has_substitution(a.reading, b.reading, near, align(a.reading, b.reading))
    assert not has_substitution(b.reading, a.reading, near.T, align(b.reading, a.reading))


def test_a_word_that_a_question_implies_names_a_thing_only_before_another_word() -> None:
    def adds(one: str, other: str) -> bool:
        a, b = read(one), read(other)
        near = np.array([[float(x == y) for y in b.stems] for x in a.stems], dtype=np.float32)
        return has_substitution(a, b, near, align(a, b))

    assert adds("Who checks the work laptop?", "Who checks the laptop?")
    assert not adds("Which work laptop?", "What laptop?"), "what was asked for is no qualifier"
    assert adds("Who checks the laptop at work?", "Who checks the laptop?")
    assert not adds("How does checking the laptop work?", "How do I check the laptop?")
    assert adds("Who checks the information desk?", "Who checks the desk?")
    assert not adds("Information about who checks the desk?", "Who checks the desk?")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Where can I pick up the parcel?", "At which place can the parcel be picked up?"),
        ("May contractors use the canteen?", "Are contractors allowed to use the canteen?"),
        ("Who pays for the taxi?", "Which person pays for the taxi?"),
    ],
)
def test_what_a_question_word_says_already_is_nothing_more(encoder: Encoder, one: str, other: str) -> None:
    assert equivalence.judge(equivalence.load_acceptance(), said(encoder, one), said(encoder, other)).veto == ""


@pytest.mark.parametrize("words", ["file folder", "invoice receipt", "laptop phone", "manager director"])
@pytest.mark.parametrize(
    "text", ["Who is responsible for the {} in our company?", "The {} is wrong, what should I do?", "Is a {} needed?"]
)
def test_two_things_of_one_sort_do_not_stand_for_each_other(encoder: Encoder, words: str, text: str) -> None:
    one, other = (said(encoder, text.format(word)) for word in words.split())
    verdict = equivalence.judge(equivalence.load_acceptance(), one, other)
    assert verdict.veto in ("substitution", "unlike") or verdict.score < equivalence.load_acceptance().threshold(0.01)


def test_of_words_over_on_one_side_half_as_many_are_enough_to_ask_for_more() -> None:
    a = read("The cast function changes the schema of a table.")
    for more, asks in (("and reports errors", False), ("and reports values beyond its range as errors", True)):
        b = read(f"The cast function changes the schema of a table {more}.")
        near = np.full((len(a.content_words), len(b.content_words)), 0.9, dtype=np.float32)
        assert has_substitution(a, b, near, align(a, b)) is asks
        assert has_substitution(b, a, near.T, align(b, a)) is asks


@pytest.mark.parametrize(("near", "apart"), [(0.7, True), (0.9, True), (1.0, False)])
def test_where_nothing_but_words_at_their_places_differ_they_must_be_known_to_say_the_same(
    near: float, apart: bool
) -> None:
    for text in (
        "Who pays for the taxi?",
        "A guide names storage of providers, examples of its use and settings for all",
    ):
        a = read(text)
        table = np.full((len(a.content_words), len(a.content_words)), near, dtype=np.float32)
        assert has_substitution(a, a, table, Alignment([1], [1], frozenset({(1, 1)}), 0.9)) is apart


@pytest.mark.parametrize(
    ("one", "other"),
    [("Who tends hedges?", "Who trims and cuts hedges?"), ("tend hedges", "trim and cut hedges"),
     ("I tend hedges.", "I trim and cut hedges.")],
)  # fmt: skip
def test_where_somebody_asks_being_near_is_not_enough(one: str, other: str) -> None:
    a, b = read(one), read(other)
    table = np.full((len(a.content_words), len(b.content_words)), 0.95, dtype=np.float32)
    table[-1, -1] = table[-2, -2] = 1.0
    assert has_substitution(a, b, table, align(a, b)) and has_substitution(b, a, table.T, align(b, a))


@pytest.mark.parametrize(
    ("one", "other", "apart"),
    [
        ("Who repairs the lift?", "Which person repairs the lift?", False),
        ("Who repairs the lift?", "Who repairs the lift in person?", True),
        ("When can I restart it?", "At what time can I restart it?", False),
        ("When can I restart it?", "When can I restart it one at a time?", True),
        ("May I smoke?", "May I smoke outside?", True),
        ("May I smoke?", "May I smoke at work?", True),
        ("Can I pay?", "Can I pay in advance?", True),
        ("Where do I pick up the parcel?", "Where do I collect the parcel?", False),
        ("Where do I pick the parcel up?", "Where can the parcel be collected?", False),
        ("Who is in charge of the lift?", "Who is responsible for the lift?", False),
        ("How much does the lift cost?", "What is the price of the lift?", False),
        ("How many lifts are there?", "What is the number of lifts?", False),
        ("How many lifts are there?", "How many lift numbers are there?", True),
        ("How do I order the lift?", "How do I properly order the lift?", False),
        ("Can I order the lift?", "Can I properly order the lift?", True),
        ("How do I order the lift?", "Could you please tell me how to order the lift? Many thanks in advance", False),
        ("What is my adress?", "What is my address?", False),
    ],
)
def test_in_a_question_a_word_more_must_be_said_already(encoder: Encoder, one: str, other: str, apart: bool) -> None:
    a, b = said(encoder, one), said(encoder, other)
    for x, y in ((a, b), (b, a)):
        near = nearness(x.words, y.words, lexical_nearness(x.reading.content_words, y.reading.content_words))
        assert has_substitution(x.reading, y.reading, near, align(x.reading, y.reading)) is apart


@pytest.mark.parametrize(
    ("one", "other", "kind"),
    [
        ("What is the state tax?", "What is the statement tax?", "form"),
        ("What is the final amount?", "What is the fine amount?", "form"),
        ("Who gave the order?", "Who gave the command?", "sense"),
        ("How do I renew the card?", "How do I update the card?", "sense"),
        ("How do I cancel the contract?", "How do I terminate the contract?", ""),
        ("Where do I pick up the parcel?", "Where do I collect the parcel?", ""),
        ("Can the room be booked?", "Can I book the room?", ""),
        ("How do I cancel the course?", "How does the cancellation of the course work?", ""),
    ],
)
def test_a_form_of_a_word_that_means_something_else_is_another_word(
    encoder: Encoder, one: str, other: str, kind: str
) -> None:
    for a, b in ((one, other), (other, one)):
        assert equivalence.judge(equivalence.load_acceptance(), said(encoder, a), said(encoder, b)).veto == kind


def test_a_qualifier_that_is_near_a_word_of_both_is_one_more() -> None:
    a, b = read("Portugal: who checks the garden hedges?"), read("Portugal: who checks the foreign garden hedges?")
    table = np.array([[float(x == y) for y in b.stems] for x in a.stems], dtype=np.float32)
    table[0, b.content_words.index("foreign")] = 0.79
    assert has_substitution(a, b, table, align(a, b)) and has_substitution(b, a, table.T, align(b, a))


def test_who_says_half_as_much_again_asks_for_more(encoder: Encoder) -> None:
    short = said(encoder, "The cast function changes the schema of a table")
    more = said(
        encoder, "The cast function changes the schema of a table and reports values beyond its range as errors"
    )
    assert equivalence.judge(equivalence.load_acceptance(), short, more).veto == "substitution"
    assert equivalence.judge(equivalence.load_acceptance(), more, short).veto == "substitution"


def test_another_thing_in_a_long_paraphrase_is_refused(encoder: Encoder) -> None:
    text = "You can find the settings of the report on the second page, where the manager chooses colours and fonts"
    again = "On the second page, where colours and fonts are chosen by the manager, the settings of the {} can be found"
    assert (
        equivalence.judge(
            equivalence.load_acceptance(), said(encoder, text), said(encoder, again.format("report"))
        ).veto
        == ""
    )
    for thing in ("printer", "holiday", "parcel", "garden"):
        assert equivalence.judge(
            equivalence.load_acceptance(), said(encoder, text), said(encoder, again.format(thing))
        ).veto


def test_words_stand_at_their_places_whatever_stands_between(encoder: Encoder) -> None:
    text = "Ship 10kg of “tea” — 5kg by air, 5kg by sea?"
    reading = read(text)
    assert [text[begin:end] for begin, end in reading.spans] == ["Ship", "kg", "tea", "kg", "air", "kg", "sea"]
    assert said(encoder, text).words.shape == (7, 384)


def test_words_without_a_counterpart_are_counted_on_each_side(encoder: Encoder) -> None:
    def told(one: str, other: str) -> dict[str, float]:
        a, b = said(encoder, one), said(encoder, other)
        near = nearness(a.words, b.words, lexical_nearness(a.reading.content_words, b.reading.content_words))
        found = align(a.reading, b.reading)
        return dict(zip(FEATURES, features(a.reading, b.reading, 0.9, near, found).tolist(), strict=True))

    form = "The form holds notes of the visit"
    other = told(form, "The form contains notes of the surgery and its giraffe")
    assert other["open_a"] > 0 and other["open_b"] > other["open_a"], "the giraffe is nowhere"
    assert other["swaps"] == 2 / 4 and other["added"] == 1 / 4
    same = told(form, "Visit notes: the form holds them")
    assert (same["open_a"], same["open_b"], same["worst_a"], same["swaps"], same["added"]) == (0, 0, 1, 0, 0)
