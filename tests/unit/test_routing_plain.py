"""White space, capital letters and a last sign change nothing of how a router reads a prompt."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.test_routing_model import entangled, trained_router

from groundplan.economics.routing.decide.features import hash_counts, normalize_text, split_words, surface_features
from groundplan.economics.routing.decide.predict import predict
from groundplan.economics.routing.learn import perturb
from groundplan.economics.routing.model import Router
from groundplan.economics.routing.versions.artifact import dump, load

CHOICES = "Which one is it?\nA. 12 apples\nB. not a pear\nC. all of them"
PIECES = st.sampled_from(
    ["Acme", "pays", "what", "12", "4096", "NOT", "more", "each", "x=2", "\nA. one", "\nb) two", "%"]
)


def read(text: str) -> tuple[dict[int, float], list[float]]:
    plain = normalize_text(text)
    words = split_words(plain)
    return hash_counts(words), surface_features(plain, words).tolist()


@pytest.fixture(scope="module")
def router() -> Router:
    return trained_router()


@given(st.lists(PIECES, min_size=1, max_size=30), st.data())
def test_however_it_is_typed_it_is_read_alike(pieces: list[str], data: st.DataObject) -> None:
    space = st.sampled_from([" ", "  ", "\t", " \t ", "\u00a0 "])
    case = data.draw(st.sampled_from([str.lower, str.upper, str.swapcase, str.title]))
    typed = data.draw(st.sampled_from(["", " ", "\n\n"])) + "".join(
        case(piece.replace("\n", data.draw(st.sampled_from(["\n", "\r\n", " \n\n\t"])))) + data.draw(space)
        for piece in pieces
    )
    assert read(typed + data.draw(st.sampled_from(["", ".", "?!", " ...", "\uff1f"]))) == read(" ".join(pieces))


@given(st.text(max_size=300))
def test_what_is_plain_stays_as_it_is(text: str) -> None:
    plain = normalize_text(text)
    assert normalize_text(plain) == plain
    assert bool(plain) == bool(text.strip()), "signs alone are a text, too"


def test_where_lines_end_counts_and_a_text_that_is_not_read_whole_stays() -> None:
    assert normalize_text("a \r\n\n b\tc  d ?") == "a\nb c d"
    assert normalize_text("?!") == "?!"
    long = "two  words " * 2000
    assert normalize_text(long) == long


@pytest.mark.parametrize("change", [perturb.change_case, perturb.add_spaces])
def test_the_same_is_expected_of_it(router: Router, change: Callable[[str, Random], str]) -> None:
    dice = Random(1)
    prompts = [sample.prompt for sample in entangled(60, 8).samples] + [CHOICES]
    for prompt in prompts:
        one, other = predict(router, prompt), predict(router, change(prompt, dice))
        assert np.array_equal(one.scores, other.scores) and np.array_equal(one.costs, other.costs)
        assert one.sure == other.sure


def test_a_router_of_format_5_reads_as_it_did(router: Router) -> None:
    kept = msgspec.msgpack.decode(dump(router))
    before = load(msgspec.msgpack.encode({**kept, "format": 5}))
    assert router.plain and not before.plain and before.apart
    prompt = entangled(1, 8).samples[0].prompt
    now, then = predict(router, f"{prompt}?"), predict(before, f"{prompt}?")
    assert not np.array_equal(now.scores, then.scores)
    assert not np.array_equal(predict(before, f"{prompt}   ?").scores, then.scores), "lengths are as they were"
    words = split_words("Is it?")
    assert (
        surface_features("Is it?", words, cased=True)[7] == pytest.approx(1 / 6)
        and surface_features("Is it?", words)[7] == 0
    )
