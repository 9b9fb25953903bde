"""One thing in place of another is refused where no capital shows a name, and other words for the same are not."""

from __future__ import annotations

from importlib import resources
from itertools import combinations

import numpy as np
import pytest

from groundplan.core.settings import load_settings
from groundplan.economics import semantic
from groundplan.economics.semantic import accept, vocabulary
from groundplan.economics.semantic.guards import veto
from groundplan.economics.semantic.likeness import FEATURES, features
from groundplan.economics.semantic.reading import read, stem
from groundplan.economics.semantic.synonyms import say_the_same
from groundplan.knowledge.embedding.encoder import Encoder
from groundplan.runtime.models import MINILM, ensure


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(ensure(load_settings().models, MINILM.name))


@pytest.mark.parametrize(
    ("one", "other", "kind"),
    [
        ("Germany VAT rate?", "France VAT rate?", "substitution"),
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
        ("Germany VAT rate?", "What is the VAT rate in Germany?", ""),
        ("How do I cancel my order?", "How can an order be terminated?", ""),
        ("What does the training cost?", "What is the price of the training?", ""),
        ("The export is discontinued", "The export is deprecated", ""),
        ("Yes, the form holds notes", "The form contains notes", ""),
        ("The form holds notes", "The following holds notes", "substitution"),
        ("The invoice holds the respective prices", "Such an invoice contains the prices", ""),
    ],
)
def test_one_thing_in_place_of_another_is_refused_where_no_capital_shows_it(
    encoder: Encoder, one: str, other: str, kind: str
) -> None:
    def word(text: str) -> np.ndarray:
        return np.asarray(encoder.embed([text])[0])

    for a, b in ((one, other), (other, one)):
        assert veto(read(a), read(b)) == "", "another guard sees it"
        assert accept.judge(accept.shipped(), read(a), read(b), 0.9, word).veto == kind


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
    ],
)
def test_words_say_the_same_where_a_line_has_both(one: str, other: str, same: bool) -> None:
    assert say_the_same(one, other) is same
    assert say_the_same(other, one) is same


def test_no_line_of_synonyms_holds_opposites_units_times_or_numbers() -> None:
    text = resources.files(semantic).joinpath("synonyms.txt").read_text(encoding="utf-8")
    lines = [line.split() for line in text.splitlines()]
    assert len(lines) > 900
    assert all(len(set(line)) == len(line) > 1 for line in lines)
    opposites = {frozenset(map(stem, pair)) for pair in vocabulary.OPPOSITES}
    for line in lines:
        assert not any(frozenset(map(stem, pair)) in opposites for pair in combinations(line, 2)), line
        assert vocabulary.UNITS.union(vocabulary.TIMES, vocabulary.NUMBER_WORDS).isdisjoint(line), line


def test_words_without_a_counterpart_are_counted_on_each_side(encoder: Encoder) -> None:
    def word(text: str) -> np.ndarray:
        return np.asarray(encoder.embed([text])[0])

    a, b = read("The form holds notes of the visit"), read("The form contains notes of the surgery and its giraffe")
    told = dict(zip(FEATURES, features(a, b, 0.9, word), strict=True))
    assert (told["open_a"], told["open_b"]) == (1 / 4, 2 / 5)
    same = dict(zip(FEATURES, features(a, read("Visit notes are held in the form"), 0.9, word), strict=True))
    assert (same["open_a"], same["open_b"], same["worst_a"]) == (0, 0, 1)
