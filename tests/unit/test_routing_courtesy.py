"""What is said around a question to be polite changes nothing of how a router reads it."""

from __future__ import annotations

from random import Random

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.test_routing_model import entangled, trained_router

from groundplan.economics.routing.decide.courtesy import strip_courtesy
from groundplan.economics.routing.decide.features import abbreviate
from groundplan.economics.routing.decide.predict import predict, text_to_embed
from groundplan.economics.routing.learn import perturb
from groundplan.economics.routing.model import Router
from groundplan.economics.routing.versions.artifact import dump, load

OPENS = [
    "Hi! ", "Hello there,\n", "Good morning. ", "Dear team: ", "Hi! Could you please ", "could you kindly tell me: ",
    "Hey, I have a quick question: ", "Quick question - ", "I'd like to know the following. ",
    "PLEASE HELP ME WITH THIS: ",
    "Excuse me, ", "Sorry to bother you, but, ", "Would you please help me: ", "Please, please ",
]  # fmt: skip
ENDS = ["", " Thank you!", "\n\nThanks in advance.", " many thanks", " Thank you so much for your help!!", " please"]
ASKED = [
    "What is 3 plus 4?",
    "name three rivers",
    "Explain gravity.",
    "write a poem about thanks.",
    "List (all) of:\nA. one\nB. two)",
]


@pytest.fixture(scope="module")
def router() -> Router:
    return trained_router()


@given(st.lists(st.sampled_from(OPENS), max_size=3), st.sampled_from(ASKED), st.sampled_from(ENDS), st.booleans())
def test_only_what_is_asked_is_read(opens: list[str], text: str, end: str, small: bool) -> None:
    said = "".join(opens) + text + end
    assert strip_courtesy(said.lower() if small else said) == (text.lower() if small else text)


@given(st.text(max_size=300) | st.lists(st.sampled_from(OPENS + ENDS + ["x", "  ", "\n"]), max_size=12).map("".join))
def test_something_is_always_left(text: str) -> None:
    found = strip_courtesy(text)
    assert found in text and any(map(str.isalnum, found)) == any(map(str.isalnum, text))


@pytest.mark.parametrize(
    "text",
    [
        "Thank you!", "Hi", "please", "Hi, thanks!", "How do I say thank you", "what does please mean?",
        "Can you swim?", "Could you tell me a joke?", "Can you help me fix this bug?", "Hi Bob bought 3 apples",
        "Good morning America was on air when?", "  What is 3 plus 4? ", "",
    ],
)  # fmt: skip
def test_what_asks_for_something_stays(text: str) -> None:
    assert strip_courtesy(text) == text


@pytest.mark.timeout(60)
@pytest.mark.parametrize("begin", ["could you", "excuse me", "hi", "i would like to ask", "quick question", ""])
@pytest.mark.parametrize("space", [" ", "\n"])
def test_a_frame_that_does_not_end_takes_no_time(begin: str, space: str) -> None:
    """By the square of its length it would take hours, in which the gateway answers nobody."""
    text = begin + 1_000_000 * space + "x"
    assert strip_courtesy(text) == text


def test_the_same_is_expected_of_it_and_of_what_is_embedded(router: Router) -> None:
    dice = Random(1)
    for sample in entangled(60, 8).samples:
        polite = perturb.add_politeness(sample.prompt + ".", dice)
        one, other = predict(router, sample.prompt), predict(router, polite)
        assert np.array_equal(one.scores, other.scores) and one.sure == other.sure
        assert text_to_embed(polite, router) == text_to_embed(polite) == abbreviate(sample.prompt + ".")


def test_a_router_of_format_6_reads_it_as_it_did(router: Router) -> None:
    kept = msgspec.msgpack.decode(dump(router))
    before = load(msgspec.msgpack.encode({**kept, "format": 6}))
    assert router.bare and before.plain and not before.bare
    prompt = entangled(1, 8).samples[0].prompt
    now, then = predict(router, f"Hi! {prompt}"), predict(before, f"Hi! {prompt}")
    assert not np.array_equal(now.scores, then.scores)
    assert np.array_equal(predict(before, prompt).scores, now.scores)
    assert text_to_embed(f"Hi! {prompt}", before) == abbreviate(f"Hi! {prompt}")
