"""The projection against a plain model of it, and its vectors against all similarities computed."""

from __future__ import annotations

import errno
import json
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

import numpy as np
import pytest
from benchmarks.knowledge_scale import nearest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from numpy.typing import NDArray

from groundplan.knowledge.retrieval import access_classes, masks, projection, vectors
from groundplan.knowledge.retrieval.bm25 import bm25
from groundplan.knowledge.retrieval.documents import Metadata
from groundplan.knowledge.retrieval.masks import MaskCache
from groundplan.knowledge.retrieval.projection import DocumentEntry, Projection, Row, View
from groundplan.knowledge.retrieval.projection_file import FORMAT, RETRY_SECONDS, ProjectionFile
from groundplan.knowledge.retrieval.wire import Where
from groundplan.knowledge.retrieval.words import query_terms

_documents = st.sampled_from([uuid4() for _ in range(6)])
MAY = datetime(2026, 5, 1, tzinfo=UTC)
_metadata = st.builds(
    Metadata,
    path=st.sampled_from(["hr/a", "hr/b", "it/a"]),
    owner=st.sampled_from([None, "ana", "ben"]),
    sensitivity=st.just("internal"),
    modified_at=st.sampled_from([None, datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)]),
)
_WHERE: dict[str, tuple[Where, Callable[[Metadata], bool]]] = {
    "path": (Where(path="hr/"), lambda one: one.path.startswith("hr/")),
    "owner": (Where(owner="ana"), lambda one: one.owner == "ana"),
    "time": (Where(path="hr/", after=datetime(2026, 2, 1, tzinfo=UTC)), lambda one: (
        one.path.startswith("hr/") and one.modified_at == datetime(2026, 2, 1, tzinfo=UTC))),
}  # fmt: skip
_words = st.lists(st.lists(st.sampled_from("abcd"), min_size=1, max_size=4), max_size=3)


@pytest.fixture(scope="module", autouse=True)
def _soon_compacted() -> Iterator[None]:
    before = projection._MIN_GONE_ROWS
    projection._MIN_GONE_ROWS = 3  # type: ignore[misc]
    yield
    projection._MIN_GONE_ROWS = before  # type: ignore[misc]


Model = Mapping[UUID, tuple[str, int, dict[UUID, list[str]]]]


class Machine(RuleBasedStateMachine):
    """Documents come, change, move to other readers and go; each person sees exactly theirs."""

    def __init__(self) -> None:
        super().__init__()
        self.index = Projection()
        self.model: dict[UUID, tuple[str, int, dict[UUID, list[str]]]] = {}
        self.what: dict[UUID, Metadata] = {}
        self.cursor = 0
        self.look()

    @rule()
    def look(self) -> None:
        """Somebody begins a question: what they have stays as it is, whatever is taken over meanwhile."""
        self.before, self.said, self.changed = self.index.view, dict(self.model), dict[UUID, int]()
        self.was = dict(self.what)

    @rule()
    def purge(self) -> None:
        self.index.purge()

    @rule(document=_documents, source=st.sampled_from("st"), acl=st.integers(1, 3), texts=_words, what=_metadata)
    def take(self, document: UUID, source: str, acl: int, texts: list[list[str]], what: Metadata) -> None:
        chunks = {uuid4(): text for text in texts}
        self.cursor += 1
        rows = [Row(chunk, text, None) for chunk, text in chunks.items()]
        self.index.replace_documents([DocumentEntry(document, source, acl, rows, what)], self.cursor)
        self.what[document] = what
        self.model.pop(document, None)
        self.changed[document] = -1
        if chunks:
            self.model[document] = (source, acl, chunks)

    @rule(document=_documents, acl=st.integers(1, 3), what=_metadata)
    def note(self, document: UUID, acl: int, what: Metadata) -> None:
        self.cursor += 1
        source, _, chunks = self.model.get(document, ("s", 0, {}))
        self.index.update_documents([(document, source, acl)], self.cursor, {document: what})
        self.what[document] = what
        if self.changed.get(document) != -1:
            self.changed[document] = acl
        if chunks:
            self.model[document] = (source, acl, chunks)

    @invariant()
    def the_same_is_seen(self) -> None:
        assert (self.index.cursor, self.index.count) == (self.cursor, sum(len(one[2]) for one in self.model.values()))
        _same(self.index.view, self.model, {})
        _asked_about(self.index.view, self.model, self.what, {})

    @invariant()
    def of_what_changed_since_a_question_began_the_same_is_seen_as_now(self) -> None:
        now = {
            document: (source, self.changed.get(document, acl), chunks)
            for document, (source, acl, chunks) in self.said.items()
        }
        _same(self.before, now, self.changed)
        _same(self.before, self.said, {})
        _asked_about(self.before, self.said, self.was, self.changed)


def _asked_about(view: View, model: Model, what: Mapping[UUID, Metadata], changed: dict[UUID, int]) -> None:
    """What changed is looked at in any case."""
    seen = view.visible_rows({"s", "t"}, {1, 2, 3}).mask
    for where, holds in _WHERE.values():
        mask = view.matching_rows(where, changed.items()) & (True if seen is None else seen)
        wanted = [chunks for one, (*_, chunks) in model.items() if holds(what[one]) or one in changed]
        assert {view.chunk_id(row) for row in np.flatnonzero(mask).tolist()} == {one for own in wanted for one in own}


def _same(view: View, model: Model, changed: dict[UUID, int]) -> None:
    for sources, acls in (({"s", "t"}, {1, 2, 3}), ({"s"}, {1, 3}), ({"t"}, {2}), (set[str](), {1})):
        seen = view.visible_rows(sources, acls, changed.items())
        own = [chunks for source, acl, chunks in model.values() if source in sources and acl in acls]
        texts = {chunk: text for chunks in own for chunk, text in chunks.items()}
        assert (seen.count, seen.tokens) == (len(texts), sum(map(len, texts.values())))
        found = bm25(view.segments, query_terms(["a"], view.terms), view.columns.lengths, seen)
        rows = found.top_rows(view.size).rows.tolist()
        assert {view.chunk_id(row) for row in rows} == {one for one, text in texts.items() if "a" in text}


Machine.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestProjection = Machine.TestCase


@pytest.fixture(scope="module")
def many() -> NDArray[np.float32]:
    random = np.random.default_rng(3)
    centres = random.normal(size=(60, 384))
    rows = centres[random.integers(0, 60, 30_000)] + 0.8 * random.normal(size=(30_000, 384))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


@pytest.fixture(scope="module")
def coded(many: NDArray[np.float32]) -> vectors.EncodedVectors:
    return vectors.encode(many)


@pytest.mark.parametrize("share", [0.001, 0.05, 0.1, 0.3, 1.0])
def test_the_nearest_that_may_be_seen_are_found(
    many: NDArray[np.float32], coded: vectors.EncodedVectors, share: float
) -> None:
    assert _recall(many, coded, share, 40) >= 0.95


@pytest.mark.parametrize(("share", "least"), [(0.2, 0.95), (0.6, 0.75), (1.0, 0.6)])
def test_where_half_of_the_bits_choose_first_the_other_half_is_looked_at(
    many: NDArray[np.float32],
    coded: vectors.EncodedVectors,
    share: float,
    least: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # so few that it matters which; 8,192 of a million are found in the same way
    monkeypatch.setattr(vectors, "CHOSEN_RANGE", (120, 240))
    assert _recall(many, coded, share, 10) >= least


def test_among_fewer_rows_fewer_are_compared(
    many: NDArray[np.float32], coded: vectors.EncodedVectors, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = len(vectors.nearest_candidates(coded, many[0], None, len(many), 10)[0])
    monkeypatch.setattr(vectors, "_LARGE_INDEX", len(many) - 1)
    assert 4096 <= few < 5000 and 6000 <= len(vectors.nearest_candidates(coded, many[0], None, len(many), 10)[0]) < 8192


def _recall(many: NDArray[np.float32], coded: vectors.EncodedVectors, share: float, limit: int) -> float:
    """Of the ten nearest, of those that may be seen."""
    random = np.random.default_rng(5)
    found = wanted = 0
    for question in many[random.integers(0, len(many), 10)]:
        mask = random.random(len(many)) < share
        rows, near = nearest(coded, question, None if share == 1 else mask, int(mask.sum()), limit)
        seen = np.flatnonzero(mask)
        exact = many[seen] @ question
        best = set(seen[np.argsort(-exact)[:10]].tolist())
        assert share == 1 or mask[rows].all()
        assert np.abs(near - many[rows] @ question).max() < 0.00002
        assert (np.diff(near) <= 0).all()
        found, wanted = found + len(best & set(rows.tolist())), wanted + len(best)
    return found / wanted


@pytest.mark.parametrize("count", [5_000, 20_000])
def test_rows_that_were_hidden_since_they_were_counted_are_not_near(
    many: NDArray[np.float32], coded: vectors.EncodedVectors, count: int
) -> None:
    mask = np.zeros(len(many), np.bool_)
    assert nearest(coded, many[0], mask, count, 40)[0].tolist() == []
    mask[7] = True
    assert nearest(coded, many[0], mask, count, 40)[0].tolist() == [7]


def test_nothing_is_near_where_nothing_is_seen(many: NDArray[np.float32]) -> None:
    coded = vectors.encode(many[:10])
    assert nearest(coded, many[0], np.zeros(10, np.bool_), 0, 5)[0].tolist() == []
    assert nearest(coded, many[0], None, 10, 1)[0].tolist() == [0]
    assert vectors.similarity(vectors.encode(np.zeros((1, 384), np.float32)), many[0], np.array([0], np.int32)) == [0]


def test_a_view_of_before_stays_as_it_was_and_is_put_right_by_what_changed() -> None:
    index = Projection()
    document = uuid4()
    index.replace_documents(
        [DocumentEntry(document, "s", 1, [Row(uuid4(), ["a"], None)]), DocumentEntry(uuid4(), "s", 2, [])], 1
    )
    index.replace_documents([DocumentEntry(uuid4(), "s", 2, [Row(uuid4(), ["a"], None)])], 2)
    before = index.view
    index.update_documents([(document, "s", 77)], 3)
    for changed, seen in (([], [True, False]), ([(document, 77)], [False, False]), ([(document, 1)], [True, False])):
        mask = before.visible_rows({"s"}, {1}, changed).mask
        assert mask is not None
        assert mask.tolist() == seen
    assert before.visible_rows({"s"}, {2}, [(document, 2)]).count == 2, "who may read it now sees it as well"


def test_sets_of_readers_that_no_row_has_are_given_up_and_views_of_before_stay_as_they_were() -> None:
    index, document, other = Projection(), uuid4(), uuid4()
    index.replace_documents(
        [
            DocumentEntry(document, "s", 1, [Row(uuid4(), ["a"], None)]),
            DocumentEntry(other, "s", 2, [Row(uuid4(), ["a"], None)]),
        ],
        1,
    )
    before = index.view
    for acl in range(3, 3000):
        index.update_documents([(document, "s", acl)], acl)
    assert len(index.view.classes.acls) < 600, "not one for each set that there ever was"
    assert index.view.visible_rows({"s"}, {2999, 2}).count == 2
    seen = index.view.visible_rows({"s"}, {2})
    assert seen.mask is not None
    assert (seen.count, seen.mask.tolist()) == (1, [False, True])
    assert index.view.visible_rows({"s"}, set(range(3, 2999))).count == 0
    old = before.visible_rows({"s"}, {2})
    assert old.mask is not None
    assert old.mask.tolist() == [False, True]
    index.update_documents([(document, "s", 2)], 3000)
    assert index.view.visible_rows({"s"}, {2}).mask is None


def test_words_and_numbers_of_what_is_gone_leave_the_copy_on_disk(tmp_path: Path) -> None:
    saved = ProjectionFile(tmp_path / "kept")
    index, document = saved.load(), uuid4()
    rows = [Row(uuid4(), ["zanzibar", "leave"], np.ones(384, np.float32) / 384**0.5)]
    index.replace_documents(
        [DocumentEntry(document, "s", 1, rows), DocumentEntry(uuid4(), "s", 1, [Row(uuid4(), ["leave", "pay"], None)])],
        1,
    )
    saved.save()

    def on_disk() -> tuple[bool, int]:
        folder = tmp_path / "kept" / f"projection-{FORMAT}"
        return "zanzibar" in (folder / "terms").read_text(), int(np.load(folder / "small.npy").any(axis=1).sum())

    assert on_disk() == (True, 1)
    before = index.view
    index.replace_documents([DocumentEntry(document, "", -1, ())], 2)
    saved.save_if_due(index)
    assert on_disk() == (False, 0)
    for view, count in ((index.view, 1), (before, 2)):
        found = bm25(
            view.segments, query_terms(["leave"], view.terms), view.columns.lengths, view.visible_rows({"s"}, {1})
        )
        assert len(found.top_rows(9).rows) == count, "a view goes on with the terms that it began with"
    again = ProjectionFile(tmp_path / "kept").load()
    assert (again.count, set(again.view.terms)) == (1, {"leave", "pay"})
    index.replace_documents([DocumentEntry(document, "s", 1, rows)], 3)
    index.replace_documents([DocumentEntry(document, "", -1, ())], 4)
    saved.save_if_due(index)
    saved.save()
    assert on_disk() == (True, 1), "within the hour"
    later = ProjectionFile(tmp_path / "kept")
    later.save_if_due(later.load())
    assert on_disk() == (False, 0), "and at every start"


def test_a_copy_that_the_disk_does_not_take_is_made_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever follows PostgreSQL goes on; what is there stays whole, and no half of a copy takes room meanwhile."""
    saved, now = ProjectionFile(tmp_path), [1e6]
    index, document = saved.load(), uuid4()
    index.replace_documents([DocumentEntry(document, "s", 1, [Row(uuid4(), ["zanzibar"], None)])], 1)
    saved.save()
    index.replace_documents([DocumentEntry(document, "", -1, ())], 2)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with monkeypatch.context() as disk:
        disk.setattr(np, "save", full)
        saved.save_if_due(index)
        assert [path.name for path in tmp_path.iterdir()] == [f"projection-{FORMAT}"]
    saved.save_if_due(index)
    assert "zanzibar" in (tmp_path / f"projection-{FORMAT}" / "terms").read_text(), "it is not tried at once"
    now[0] += RETRY_SECONDS
    saved.save_if_due(index)
    assert "zanzibar" not in (tmp_path / f"projection-{FORMAT}" / "terms").read_text()


@pytest.mark.parametrize("left", ["nothing", "half", "zeros", "another's"])
def test_what_a_loss_of_power_left_of_a_copy_is_not_searched(tmp_path: Path, left: str) -> None:
    """Of each file: some file systems leave one of the right length with zeros, which found fewer documents."""
    saved, random = ProjectionFile(tmp_path / "kept"), np.random.default_rng(4)
    index = saved.load()
    for number in range(3):
        made = random.normal(size=(400, 384)).astype(np.float32)
        rows = [Row(uuid4(), ["leave", f"t{number}"], one / np.linalg.norm(one)) for one in made]
        index.replace_documents(
            [DocumentEntry(uuid4(), "s", number, rows, Metadata(f"a/{number}.md", "ana"))], number + 1
        )
    saved.save()
    folder = tmp_path / "kept" / f"projection-{FORMAT}"
    files = sorted(path.name for path in folder.iterdir())
    assert len(files) > 15
    for name in files:
        whole = (folder / name).read_bytes()
        cut = {"nothing": b"", "half": whole[: len(whole) // 2], "another's": b"x" + whole[1:]}
        (folder / name).write_bytes(cut.get(left, whole[: len(whole) // 2].ljust(len(whole), b"\0")))
        changed = (folder / name).read_bytes() != whole
        assert ProjectionFile(tmp_path / "kept").load().count == (0 if changed else 1200), name
        (folder / name).write_bytes(whole)
    assert ProjectionFile(tmp_path / "kept").load().count == 1200


def test_signs_are_the_same_a_row_a_row(tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    saved = ProjectionFile(tmp_path / "kept")
    index = saved.load()
    documents = [uuid4() for _ in range(4)]
    for number, document in enumerate(documents):
        made = random.normal(size=(700, 384)).astype(np.float32)
        rows = [Row(uuid4(), ["leave"], one / np.linalg.norm(one)) for one in made]
        index.replace_documents([DocumentEntry(document, "s", number, rows)], number + 1)
    index.replace_documents([DocumentEntry(documents[1], "", -1, ())], 9)
    index.purge()
    saved.save()
    for view in (index.view, ProjectionFile(tmp_path / "kept").load().view):
        coded = view.columns.encoded
        assert (view.size, coded.signs.shape) == (2100, (2100, 6))
        assert np.array_equal(coded.signs, coded.bits.T) and coded.signs.any(axis=1).all()


@pytest.mark.parametrize("first", [0, 3, 5])
def test_bits_of_single_rows_are_counted_from_a_word_on(first: int) -> None:
    random = np.random.default_rng(3)
    signs = random.integers(0, 1 << 63, (20_000, 6), dtype=np.uint64)
    question = random.integers(0, 1 << 63, 6, dtype=np.uint64)
    rows = np.sort(random.choice(len(signs), 9001, replace=False))
    wanted = np.bitwise_count(signs[rows, first:] ^ question[first:]).sum(axis=1)
    assert np.array_equal(vectors._hamming_distances_of(signs, question, rows, first), wanted)
    assert len(vectors._hamming_distances_of(signs, question, rows[:0], first)) == 0


def test_what_a_document_is_no_more_leaves_the_copy_on_disk(tmp_path: Path) -> None:
    saved = ProjectionFile(tmp_path)
    index, document, other = saved.load(), uuid4(), uuid4()
    index.replace_documents(
        [
            DocumentEntry(document, "s", 1, [Row(uuid4(), ["a"], None)], Metadata("hr/é.md", "ana", modified_at=MAY)),
            DocumentEntry(other, "s", 1, [Row(uuid4(), ["a"], None)], Metadata("it/vpn.md", "ben", "internal", "md")),
        ],
        1,
    )
    index.update_documents([(document, "s", 1)], 2, {document: Metadata("hr/é.md", "cem", modified_at=MAY)})
    saved.save()

    def on_disk() -> set[str]:
        kept = json.loads((tmp_path / f"projection-{FORMAT}" / "state.json").read_bytes())
        return set(kept["metadata"])

    assert on_disk() == {"ana", "ben", "cem", "internal", "md"}
    again = ProjectionFile(tmp_path)
    index = again.load()
    for where, seen in (
        (Where(path="hr/é", owner="cem"), [True, False]),
        (Where(owner="ana"), [False, False]),
        (Where(path="it/", sensitivity=["internal", "public"], media="md"), [False, True]),
        (Where(after=MAY), [True, False]),
        (Where(before=MAY), [False, False]),
        (Where(sensitivity=[]), [False, False]),
        (Where(path=""), [True, True]),
    ):
        assert index.view.matching_rows(where).tolist() == seen, where
    again.save_if_due(index)
    assert on_disk() == {"ben", "cem", "internal", "md"}
    assert index.view.matching_rows(Where(owner="cem")).tolist() == [True, False]
    index.replace_documents([DocumentEntry(document, "", -1, ())], 3)
    index.purge()
    again.save()
    assert on_disk() == {"ben", "internal", "md"}
    assert b"hr/" not in (tmp_path / f"projection-{FORMAT}" / "paths.npy").read_bytes()
    (tmp_path / "projection-6").mkdir()
    assert ProjectionFile(tmp_path).load().view.matching_rows(Where(path="it/")).tolist() == [True]
    assert [one.name for one in tmp_path.iterdir()] == [f"projection-{FORMAT}"], "nor is one in another format left"


def test_what_somebody_sees_is_worked_out_once_and_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    index, (mine, other) = Projection(), (uuid4(), uuid4())
    index.replace_documents(
        [
            DocumentEntry(mine, "s", 1, [Row(uuid4(), ["a"], None)]),
            DocumentEntry(other, "s", 2, [Row(uuid4(), ["a"], None)]),
        ],
        1,
    )
    first, again = index.view.visible_rows({"s"}, {1}), index.view.visible_rows({"s"}, {1, 9})
    assert first.mask is not None
    assert again.mask is first.mask, "another set that no row has makes no difference"
    moved = index.view.visible_rows({"s"}, {1}, [(other, 1), (mine, 2)])
    assert moved.mask is not None
    assert (first.mask.tolist(), moved.mask.tolist()) == ([True, False], [False, True])
    monkeypatch.setattr(masks, "_BYTES", 6)
    kept = MaskCache(np.array([0, 1, 2], np.int32))
    one, two, three = (np.arange(3) == number for number in range(3))
    made = kept.get(one)
    kept.get(two)
    assert kept.get(one) is made, "two are kept"
    kept.get(three)
    assert kept.get(one) is made, "those that were asked for last"
    kept.get(two)
    kept.get(three)
    assert kept.get(one) is not made
    assert kept.get(one).tolist() == made.tolist() == [True, False, False]


@pytest.mark.parametrize("largest", [1, 1 << 18])
def test_readers_sets_with_numbers_of_any_size_are_told_apart(largest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_classes, "_LARGEST_TABLE", largest)
    book = access_classes.AccessClassRegistry()
    for number in (-1, 1, 5, 7, 200_000):
        book.class_number("s", number)
    now = book.snapshot()
    seen = now.visible_to({"s"}, {0, 5, 200_000, 200_001, 2_000_000_000})
    assert [acl for (_, acl), one in zip(now.keys(), seen.tolist(), strict=True) if one] == [5, 200_000]
    assert not now.visible_to({"s"}, set()).any()
