"""Questions that wait at the same time are embedded together, each as it would be by itself."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import pytest

from groundplan.knowledge.embedding.batching import BatchingEmbedder, RunOnceAfter
from groundplan.knowledge.embedding.encoder import MAX_QUESTION_BATCH
from groundplan.knowledge.model import Vectors


class Slow:
    """Embeds a text as its length, once it is let."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.begun = threading.Semaphore(0)
        self.go = threading.Event()

    def embed(self, texts: Sequence[str]) -> Vectors:
        self.asked.append(list(texts))
        self.begun.release()
        assert self.go.wait(10)
        if "bad" in texts:
            raise ValueError("it cannot be embedded")
        return np.array([[len(text)] for text in texts], dtype=np.float32)


def busy(slow: Slow, together: BatchingEmbedder) -> None:
    """Both threads have a text, so that what is asked now waits."""
    for text in ("one", "two"):
        together.submit(text)
        assert slow.begun.acquire(timeout=10)


def test_those_that_wait_are_embedded_at_once_and_told_their_own_vector() -> None:
    slow = Slow()
    together = BatchingEmbedder(slow)
    busy(slow, together)
    waiting = [together.submit("x" * length) for length in range(1, MAX_QUESTION_BATCH + 3)]
    slow.go.set()
    assert [float(each.result(10)[0]) for each in waiting] == list(range(1, MAX_QUESTION_BATCH + 3))
    assert [len(texts) for texts in slow.asked[:2]] == [1, 1]
    assert max(len(texts) for texts in slow.asked) == MAX_QUESTION_BATCH
    assert sum(len(texts) for texts in slow.asked) == MAX_QUESTION_BATCH + 4


def test_a_long_one_is_embedded_by_itself() -> None:
    slow = Slow()
    together = BatchingEmbedder(slow)
    busy(slow, together)
    waiting = [together.submit(text) for text in ("short", "long" * 500, "brief")]
    slow.go.set()
    assert [float(each.result(10)[0]) for each in waiting] == [5, 2000, 5]
    assert ["long" * 500] in slow.asked


def test_what_fails_is_told_to_those_who_asked() -> None:
    slow = Slow()
    together = BatchingEmbedder(slow)
    busy(slow, together)
    bad = together.submit("bad")
    slow.go.set()
    with pytest.raises(ValueError, match="cannot be embedded"):
        bad.result(10)
    assert float(together.submit("after").result(10)[0]) == 5


def test_who_goes_away_is_not_embedded_and_holds_nobody_up() -> None:
    slow = Slow()
    together = BatchingEmbedder(slow)
    busy(slow, together)
    asked = [together.submit(text) for text in ("a", "gone", "long" * 500, "gone too", "b")]
    assert asked[1].cancel() and asked[2].cancel() and asked[3].cancel()
    slow.go.set()
    assert [float(asked[place].result(10)[0]) for place in (0, 4)] == [1, 1]
    assert not {"gone", "gone too", "long" * 500} & {text for texts in slow.asked for text in texts}
    assert not together.submit("after").cancelled()


def test_what_is_being_embedded_is_not_taken_back() -> None:
    slow = Slow()
    together = BatchingEmbedder(slow)
    began = together.submit("began")
    assert slow.begun.acquire(timeout=10)
    assert not began.cancel()
    slow.go.set()
    assert float(began.result(10)[0]) == 5


class Quick:
    def embed(self, texts: Sequence[str]) -> Vectors:
        return np.array([[len(text)] for text in texts], dtype=np.float32)


def test_what_pays_only_for_many_questions_is_done_once_when_they_have_come_and_beside_them() -> None:
    done, go = threading.Semaphore(0), threading.Event()

    def work() -> None:
        assert go.wait(10)
        done.release()

    often = RunOnceAfter(5, work)
    one, other = often.count_texts(Quick()), often.count_texts(Quick())
    assert one.embed(["a", "bb"]).tolist() == [[1], [2]]
    assert other.embed(["ccc", "dddd"]).tolist() == [[3], [4]]
    go.set()
    assert not done.acquire(timeout=0.05)
    go.clear()
    assert one.embed(["e"]).tolist() == [[1]], "answered while it is done"
    for _ in range(12):
        other.embed(["f"])
    go.set()
    assert done.acquire(timeout=10)
    assert not done.acquire(timeout=0.05)


def test_where_no_thread_can_be_had_it_is_done_later(monkeypatch: pytest.MonkeyPatch) -> None:
    done = threading.Event()
    embedder = RunOnceAfter(2, done.set).count_texts(Quick())

    def refused(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as full:
        full.setattr(threading.Thread, "start", refused)
        assert embedder.embed(["a", "b"]).tolist() == [[1], [1]]
    assert not done.is_set()
    embedder.embed(["c"])
    assert done.wait(10)


def test_what_could_not_be_embedded_is_not_counted() -> None:
    done, slow = threading.Event(), Slow()
    slow.go.set()
    embedder = RunOnceAfter(1, done.set).count_texts(slow)
    with pytest.raises(ValueError, match="cannot be embedded"):
        embedder.embed(["bad"])
    assert not done.wait(0.05)
    embedder.embed(["good"])
    assert done.wait(10)
