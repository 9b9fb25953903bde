"""Statements are weighed by all words that are left over together, and by weights of their own."""

from __future__ import annotations

import numpy as np
import pytest

from groundplan.core.settings import load_settings
from groundplan.economics.semantic import equivalence
from groundplan.economics.semantic.reading import read
from groundplan.economics.semantic.similarity import FEATURES as COMMON
from groundplan.economics.semantic.similarity import EmbeddedReading, align, lexical_nearness
from groundplan.economics.semantic.statements import FEATURES, OWN, combine_features, statement_features
from groundplan.knowledge.embedding.encoder import Encoder, quantise
from groundplan.runtime.models import MINILM, ensure


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(ensure(load_settings().models, MINILM.name))


def given(encoder: Encoder, *texts: str) -> bool:
    """Whether one answer is given to both, on the first day."""
    both = []
    for text in texts:
        reading = read(text)
        (spoken,) = encoder.embed_words([text], [reading.spans])
        both.append(
            EmbeddedReading(
                reading, spoken.vector, np.frombuffer(quantise(spoken.words), dtype=np.int8).reshape(-1, 384)
            )
        )
    one, other = both
    verdict = equivalence.judge(equivalence.load_acceptance(), one, other)
    return verdict.score >= equivalence.load_acceptance().threshold(0.01) and not verdict.veto and not verdict.unproven


@pytest.mark.parametrize(
    ("one", "other", "thing", "another"),
    [
        (
            "A password must have at least twelve characters, one of which is a digit.",
            "Passwords need to be at least twelve characters long and contain a digit.",
            "digit",
            "space",
        ),
        (
            "The bus to the airport leaves every twenty minutes from the central station.",
            "From the central station there is a bus to the airport every twenty minutes.",
            "bus",
            "train",
        ),
        (
            "You need a licence to fish in this lake, and it costs ten euros a day.",
            "Fishing in this lake requires a licence, which costs ten euros per day.",
            "lake",
            "river",
        ),
    ],
)
def test_a_statement_in_other_words_is_the_same_and_with_another_thing_it_is_not(
    encoder: Encoder, one: str, other: str, thing: str, another: str
) -> None:
    assert given(encoder, one, other)
    assert not given(encoder, one, other.replace(thing, another))
    assert not given(encoder, one.replace(thing, another), other)
    assert not given(encoder, one, one.replace(thing, another)), "where nothing else differs no score is asked"
    assert not given(encoder, one, f"{other[:-1]} at night."), "one word more"


def test_statements_have_weights_of_their_own() -> None:
    common, own = np.arange(1.0, len(COMMON) + 1), np.linspace(0.1, 0.9, len(OWN))
    question, statement = combine_features(common, None), combine_features(common, own)
    assert question.shape == statement.shape == (len(FEATURES),) and question[-1] == statement[-1] == 1.0
    assert not question[:-1][statement[:-1] != 0].any(), "no feature of one sort is one of the other"
    assert dict(zip(FEATURES, statement.tolist(), strict=True))["statement_meant_1"] == own[OWN.index("meant_1")]


def test_what_is_left_over_is_told_from_the_least_near_on() -> None:
    a, b = read("The form holds notes and prices of the visit"), read("The form keeps remarks of the visit")
    alone = np.full((len(a.content_words), len(b.content_words)), 0.1, dtype=np.float32)
    alone[1, 1], alone[2, 2], alone[3, 2] = 0.7, 0.3, 0.2
    assert (a.content_words[1:4], b.content_words[1:3]) == (("holds", "notes", "prices"), ("keeps", "remarks"))
    ours = dict(zip(OWN, statement_features(a, b, alone, alone, align(a, b)), strict=True))
    theirs = dict(zip(OWN, statement_features(b, a, alone.T, alone.T, align(b, a)), strict=True))
    assert (ours["instead_1"], ours["instead_2"], ours["instead_3"]) == pytest.approx((0.3, 0.7, 1.0))
    assert (ours["over_1"], ours["over_2"], ours["left"]) == pytest.approx((0.2, 1.0, 3))
    assert ours == pytest.approx(theirs), "whichever came first"


def test_what_lists_know_is_near_whatever_it_means_there() -> None:
    a, b = read("The form holds the colour"), read("The form holds the color")
    alone = np.zeros((len(a.content_words), len(b.content_words)), dtype=np.float32)
    found = dict(
        zip(
            OWN,
            statement_features(a, b, lexical_nearness(a.content_words, b.content_words), alone, align(a, b)),
            strict=True,
        )
    )
    assert (found["instead_1"], found["meant"], found["instead_unlisted"]) == (1.0, 0.0, 0.0)
