"""What documents are, against a plain list of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from groundplan.knowledge.retrieval import documents
from groundplan.knowledge.retrieval.documents import DocumentRegistry, DocumentsSnapshot, Metadata
from groundplan.knowledge.retrieval.wire import Where

START = datetime(2026, 1, 1, tzinfo=UTC)
_names = st.sampled_from([None, "ana", "ben", "internal"])
_paths = st.text("aé/", max_size=4)
_times = st.integers(0, 3).map(lambda days: START + timedelta(days, microseconds=days))
_said = st.builds(Metadata, path=_paths, owner=_names, sensitivity=_names, media=_names, modified_at=st.none() | _times)
_where = st.builds(
    Where,
    path=st.none() | _paths,
    owner=_names,
    sensitivity=st.none() | st.just([]) | st.just(["internal", "nobody"]),
    media=_names,
    after=st.none() | _times,
    before=st.none() | _times,
)


@pytest.fixture(scope="module", autouse=True)
def _soon_put_together() -> Iterator[None]:
    before = documents._LARGEST_ORDER
    documents._LARGEST_ORDER = 5  # type: ignore[misc]
    yield
    documents._LARGEST_ORDER = before  # type: ignore[misc]


class Machine(RuleBasedStateMachine):
    """Documents come, are described otherwise and go; whoever has a moment from before goes on with it."""

    def __init__(self) -> None:
        super().__init__()
        self.book, self.rows = DocumentRegistry(), 0
        self.model: dict[tuple[int, int], Metadata] = {}
        self.look()

    @rule()
    def look(self) -> None:
        self.before, self.was = self.book.snapshot(), dict(self.model)

    @rule(said=st.lists(_said, max_size=4))
    def add(self, said: list[Metadata]) -> None:
        places = [(self.rows + 2 * at, 2) for at in range(len(said))]
        self.rows += 2 * len(said)
        self.book.add(places, said)
        self.model |= dict(zip(places, said, strict=True))

    @rule(said=_said, chance=st.randoms(use_true_random=False))
    def change(self, said: Metadata, chance: object) -> None:
        if not self.model:
            return
        place = chance.choice(list(self.model))  # type: ignore[attr-defined]
        assert self.book.update({place: said}) == (self.model[place] != said)
        self.model[place] = said

    @rule(every=st.integers(2, 3))
    def keep(self, every: int) -> None:
        kept = [place for place in self.model if place[0] // 2 % every]
        moved = np.full(self.rows, -1, np.int32)
        for to, (first, count) in enumerate(kept):
            moved[first : first + count] = np.arange(2 * to, 2 * to + count)
        self.book.compact(moved)
        self.model = {(2 * to, 2): self.model[place] for to, place in enumerate(kept)}
        self.rows = 2 * len(kept)
        assert self.book.outdated == 0
        named = {name for one in self.model.values() for name in (one.owner, one.sensitivity, one.media)}
        assert set(self.book.snapshot().names) == named - {None}

    @rule(where=_where)
    def ask(self, where: Where) -> None:
        _same(self.book.snapshot(), self.model, where)
        _same(self.before, self.was, where)

    @invariant()
    def what_was_stays(self) -> None:
        _same(self.before, self.was, Where(path="a"))


def _same(moment: DocumentsSnapshot, model: dict[tuple[int, int], Metadata], where: Where) -> None:
    first, count = moment.matching(where)
    found = list(zip(first.tolist(), count.tolist(), strict=True))
    assert sorted(found) == sorted(place for place, one in model.items() if _holds(one, where))


def _holds(one: Metadata, where: Where) -> bool:
    told: list[tuple[object, Callable[[], bool]]] = [
        (where.path, lambda: one.path.startswith(where.path or "")),
        (where.owner, lambda: one.owner == where.owner),
        (where.sensitivity, lambda: one.sensitivity in (where.sensitivity or [])),
        (where.media, lambda: one.media == where.media),
        (where.after, lambda: one.modified_at is not None and one.modified_at >= (where.after or START)),
        (where.before, lambda: one.modified_at is not None and one.modified_at < (where.before or START)),
    ]
    return all(holds() for asked, holds in told if asked is not None)


Machine.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
TestDocuments = Machine.TestCase


def test_paths_are_in_few_parts_however_documents_come() -> None:
    documents._LARGEST_ORDER = 1 << 16  # type: ignore[misc]
    try:
        book = DocumentRegistry()
        for number in range(3000):
            book.add([(number, 1)], [Metadata(f"folder{number % 7}/{number}.md")])
        moment = book.snapshot()
        assert len(moment.orders) <= 6
        first, count = moment.matching(Where(path="folder3/"))
        assert sorted(first.tolist()) == list(range(3, 3000, 7))
        assert set(count.tolist()) == {1}
    finally:
        documents._LARGEST_ORDER = 5  # type: ignore[misc]
