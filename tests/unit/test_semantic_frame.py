"""The questions of a frame: the likest ones are found among those that came last, whatever came before."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundplan.economics.semantic.reading import read
from groundplan.economics.semantic.similarity import EmbeddedReading, Vector
from groundplan.gateway.caching import semantic_frame
from groundplan.gateway.caching.semantic_frame import Frame

READING, WORDS = read("How do I renew my permit?"), np.zeros((2, 3), dtype=np.int8)


def said(turn: int) -> EmbeddedReading:
    """A direction of its own for each of a circle's hundred turns."""
    angle = turn * 2 * np.pi / 100
    return EmbeddedReading(READING, np.array([np.cos(angle), np.sin(angle), 0.0], dtype=np.float32), WORDS)


def likest(kept: Sequence[Vector], of: Vector, most: int, least: float) -> list[float]:
    found = sorted((float(each @ of) for each in kept), reverse=True)[:most]
    return [each for each in found if each > least]


@given(turns=st.lists(st.integers(0, 99), max_size=60), asked=st.integers(0, 99), most=st.integers(1, 4))
def test_of_those_that_came_last_the_likest_are_found(turns: list[int], asked: int, most: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(semantic_frame, "MAX_QUESTIONS", 20)
        frame = Frame()
        for number, turn in enumerate(turns):
            frame.add((str(number).encode(), False), said(turn))
        of = said(asked).vector
        found = list(islice(frame.nearest(of, 0.5), most))
        last = {(str(number).encode(), False): said(turn).vector for number, turn in list(enumerate(turns))[-20:]}
        assert len(frame.keys) == len(last)
        for key, each in found:
            assert np.array_equal(each.vector, last[key]) and each.reading is READING and each.words is WORDS
        alike = [float(each.vector @ of) for _, each in found]
        assert alike == pytest.approx(likest(list(last.values()), of, most, 0.5), abs=1e-6)


def test_of_questions_as_like_as_each_other_the_older_one_is_found_first() -> None:
    frame = Frame()
    for name in (b"first", b"second", b"third"):
        frame.add((name, False), said(0))
    names = [key[0] for key, _ in frame.nearest(said(0).vector, 0.5)]
    assert names == [b"first", b"second", b"third"]
    assert not list(Frame().nearest(said(0).vector, 0.5))


def test_a_question_that_is_answered_anew_takes_its_own_place() -> None:
    """Once for each time it was it would crowd out those that are nearly as like."""
    frame, turns = Frame(), (0, 1, 0, 2, 0)
    grew = [frame.add((b"%d" % turn, False), said(turn)) for turn in turns]
    assert grew == [True, True, False, True, False]
    assert [key[0] for key, _ in frame.nearest(said(0).vector, 0.5)] == [b"0", b"1", b"2"]
