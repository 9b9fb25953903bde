"""The search index in memory: terms and vectors of all chunks, and the readers' set of each row.

A projection of PostgreSQL that can be discarded at any time. It proposes ids and never returns text: the ids of a
person's readers' sets come from PostgreSQL with each question, and proposed chunks are read there again. One thread
writes it; any number of threads read the last published `View` meanwhile.

A view never changes. A search takes a view, then begins a transaction that reads which documents changed after it, and
corrects these (`View.visible_rows`), so that no outdated state counts.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from groundplan.knowledge.model import DIMENSION, Vectors
from groundplan.knowledge.retrieval import vectors, words
from groundplan.knowledge.retrieval.access_classes import GONE, AccessClasses, AccessClassRegistry, ClassKey
from groundplan.knowledge.retrieval.columns import Columns, empty_columns, grow, take_rows
from groundplan.knowledge.retrieval.documents import DocumentRegistry, DocumentsSnapshot, Metadata
from groundplan.knowledge.retrieval.masks import MaskCache
from groundplan.knowledge.retrieval.wire import Where

_FIRST_CAPACITY: Final = 1024
_MIN_GONE_ROWS: Final = 20_000
_SPREAD: Final = 8
"""If the view has this many times more rows than are selected, a mask is written row by row."""
NO_METADATA: Final = Metadata()


@dataclass(frozen=True, slots=True)
class Row:
    """A chunk to index: `terms` are the terms of its text; `vector` may be missing."""

    chunk: UUID
    terms: Sequence[str]
    vector: NDArray[np.float32] | None


@dataclass(frozen=True, slots=True)
class DocumentEntry:
    """A document to index with all its rows; without rows it is removed. `acl`: the id of its readers' set."""

    document: UUID
    source: str
    acl: int
    rows: Sequence[Row]
    metadata: Metadata = NO_METADATA


class RowRanges:
    """(first row, number of rows) of each document. One thread writes it, others read meanwhile. Keys are ids as 16
    bytes, since a question about some documents looks up thousands of them."""

    def __init__(self, current: dict[bytes, tuple[int, int]] | None = None) -> None:
        self.current = current if current is not None else {}
        self._former: dict[bytes, tuple[tuple[int, int], ...]] = {}

    def remove(self, document: bytes) -> tuple[int, int]:
        """Remove a document; returns where its rows were."""
        place = self.current.get(document)
        if place is None:
            return 0, 0
        # added there before it is deleted here, so that readers find it in one or the other
        self._former[document] = (*self._former.get(document, ()), place)
        del self.current[document]
        return place

    def find(self, document: bytes, size: int) -> tuple[int, int]:
        """Where the rows of a document are in a view with `size` rows; (0, 0) if it has none."""
        place = self.current.get(document)
        if place is not None and place[0] < size:
            return place
        return next((one for one in reversed(self._former.get(document, ())) if one[0] < size), (0, 0))


@dataclass(frozen=True, slots=True)
class View:
    """An immutable state of the projection, which questions are answered from."""

    columns: Columns
    segments: tuple[words.Segment, ...]
    terms: dict[str, int]
    """Term -> its number in `segments`; may have later terms, since it only grows."""
    classes: AccessClasses
    row_ranges: RowRanges
    documents: DocumentsSnapshot
    masks: MaskCache
    cursor: int
    size: int

    def visible_rows(
        self, sources: Collection[str], acls: Collection[int], changed: Iterable[tuple[UUID, int]] = ()
    ) -> words.VisibleRows:
        """The rows of these sources whose readers' set is among `acls`.

        `changed`: (document, its readers' set now) of documents that changed after this view; -1 where their text
        changed: then their rows are visible to nobody.
        """
        visible = self.classes.visible_to(sources, acls)
        count, tokens = int(self.classes.counts[visible].sum()), int(self.classes.tokens[visible].sum())
        changes = self._access_changes(visible, sources, acls, changed)
        if count == self.size and not changes:
            return words.VisibleRows(None, count, tokens)
        mask = self.masks.get(visible)
        if changes:
            mask = mask.copy()
        for rows, is_visible in changes:
            mask[rows] = is_visible
            count += (rows.stop - rows.start) * (1 if is_visible else -1)
            tokens += int(self.columns.lengths[rows].sum()) * (1 if is_visible else -1)
        return words.VisibleRows(mask, count, tokens)

    def _access_changes(
        self,
        visible: NDArray[np.bool_],
        sources: Collection[str],
        acls: Collection[int],
        changed: Iterable[tuple[UUID, int]],
    ) -> list[tuple[slice, bool]]:
        """(rows, whether visible now) of changed documents whose visibility differs from the view."""
        changes = []
        for document, acl in changed:
            first, count = self.row_ranges.find(document.bytes, self.size)
            if count:
                old_class = int(self.columns.classes[first])
                is_visible = old_class != GONE and acl in acls and self.classes.source_of(old_class) in sources
                if is_visible != bool(visible[old_class]):
                    changes.append((slice(first, first + count), is_visible))
        return changes

    def matching_rows(self, where: Where, changed: Iterable[tuple[UUID, int]] = ()) -> NDArray[np.bool_]:
        """Mask of the rows of documents that match a filter, and of all `changed` ones, since this view does not know
        their attributes now."""
        mask = self._rows_mask(*self.documents.matching(where))
        for document, _ in changed:
            first, count = self.row_ranges.find(document.bytes, self.size)
            mask[first : first + count] = True
        return mask

    def document_rows(self, documents: Iterable[bytes]) -> NDArray[np.bool_]:
        """Mask of the rows of these documents, given by id."""
        ranges = [row_range for document in documents if (row_range := self.row_ranges.find(document, self.size))[1]]
        first, count = np.array(ranges, np.int32).reshape(-1, 2).T
        return self._rows_mask(first, count)

    def _rows_mask(self, first: NDArray[np.int32], count: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Mask of the rows of documents, given by their first rows and numbers of rows."""
        mask, many = np.zeros(self.size, np.bool_), int(count.sum())
        if many == int(self.documents.count.sum()):
            return ~mask
        if many * _SPREAD < self.size:
            within = np.arange(many) - np.repeat(np.cumsum(count) - count, count)
            mask[np.repeat(first, count) + within] = True
            return mask
        mask[first] = True
        return mask.take(self.columns.documents, mode="clip")

    def chunk_id(self, row: int) -> UUID:
        """The id of a row's chunk."""
        return UUID(bytes=self.columns.chunks[row].tobytes())


class Projection:
    """The projection of one edition of the index, empty at first; `dimension` is the length of its vectors."""

    def __init__(self, edition: int = 1, dimension: int = DIMENSION) -> None:
        self.edition = edition
        self._dimension = dimension
        self._lock = threading.Lock()
        self._terms: dict[str, int] = {}
        self._row_ranges = RowRanges()
        self._classes = AccessClassRegistry()
        self._documents = DocumentRegistry()
        self._columns = empty_columns(_FIRST_CAPACITY, dimension)
        self._segments: tuple[words.Segment, ...] = ()
        self.forgotten_count = 0
        """How many rows and document attributes were removed or replaced so far: once it has changed, a saved copy
        contains outdated data."""
        self._publish(0, 0)

    @property
    def cursor(self) -> int:
        """Number of the last change that was applied."""
        return self.view.cursor

    @property
    def count(self) -> int:
        """Number of existing chunks."""
        return self.view.size - int(self.view.classes.counts[GONE])

    @property
    def serving(self) -> int:
        """Its own edition, as a `ProjectionSource` of one projection."""
        return self.edition

    def find(self, edition: int) -> Projection | None:
        """Itself if it is of this edition, else None."""
        return self if edition == self.edition else None

    def known_edition(self, edition: int) -> None:
        """None: a single projection knows no settings of editions."""

    def reset(self) -> None:
        """Remove everything; changes are applied from the first one on again."""
        with self._lock:
            self._terms, self._row_ranges = {}, RowRanges()
            self._classes, self._documents = AccessClassRegistry(), DocumentRegistry()
            self._columns, self._segments = empty_columns(_FIRST_CAPACITY, self._dimension), ()
            self._publish(0, 0)

    def replace_documents(self, entries: Sequence[DocumentEntry], cursor: int) -> None:
        """Replace these documents with all their rows; `cursor`: the number of the last change."""
        with self._lock:
            places = [self._row_ranges.remove(entry.document.bytes) for entry in entries]
            self.forgotten_count += sum(count for _, count in places)
            self._reclassify([(*place, GONE) for place in places])
            size = self._append_rows(entries) if any(entry.rows for entry in entries) else self.view.size
            self._publish(size, cursor)
            gone = int(self.view.classes.counts[GONE])
            if gone > _MIN_GONE_ROWS and gone * 2 > size:
                self._compact()

    def update_documents(
        self,
        readers: Iterable[tuple[UUID, str, int]],
        cursor: int,
        metadata: Mapping[UUID, Metadata] = MappingProxyType({}),
    ) -> None:
        """Update documents whose rows stay: their readers' sets by (document, source, acl), and the attributes of those
        in `metadata`."""
        with self._lock:
            ranges = self._row_ranges.current
            self.forgotten_count += self._documents.update(
                {ranges[one.bytes]: attributes for one, attributes in metadata.items() if one.bytes in ranges}
            )
            self._reclassify(
                [
                    (*self._row_ranges.current.get(one.bytes, (0, 0)), self._classes.class_number(source, acl))
                    for one, source, acl in readers
                ]
            )
            self._publish(self.view.size, cursor)

    def purge(self) -> None:
        """Drop the rows of deleted chunks, and terms that no row has any more."""
        with self._lock:
            self._compact()

    def _reclassify(self, moves: Iterable[tuple[int, int, int]]) -> None:
        """Move rows of documents to other classes: (first row, number of rows, class). In a new array, since earlier
        views still use the old one."""
        nonempty = [move for move in moves if move[1]]
        if not nonempty:
            return
        classes = np.zeros_like(self._columns.classes)
        classes[: self.view.size] = self.view.columns.classes
        for first, count, target in nonempty:
            tokens = int(self._columns.lengths[first : first + count].sum())
            self._classes.add_rows(int(classes[first]), -count, -tokens)
            self._classes.add_rows(target, count, tokens)
            classes[first : first + count] = target
        self._columns = replace(self._columns, classes=classes)

    def _append_rows(self, entries: Sequence[DocumentEntry]) -> int:
        """Write rows after the last one, where nobody reads before they are published. Returns the new size."""
        rows = [row for entry in entries for row in entry.rows]
        first, size = self.view.size, self.view.size + len(rows)
        if size > len(self._columns.classes):
            self._columns = grow(self._columns, first, max(size, 2 * len(self._columns.classes)))
        columns, place = self._columns, first
        filled = [entry for entry in entries if entry.rows]
        for entry in filled:
            number = self._classes.class_number(entry.source, entry.acl)
            self._classes.add_rows(number, len(entry.rows), sum(len(row.terms) for row in entry.rows))
            columns.classes[place : place + len(entry.rows)] = number
            columns.documents[place : place + len(entry.rows)] = place
            self._row_ranges.current[entry.document.bytes] = (place, len(entry.rows))
            place += len(entry.rows)
        self._documents.add(
            [self._row_ranges.current[entry.document.bytes] for entry in filled], [entry.metadata for entry in filled]
        )
        columns.chunks[first:size] = np.frombuffer(b"".join(row.chunk.bytes for row in rows), np.uint8).reshape(-1, 16)
        columns.lengths[first:size] = [len(row.terms) for row in rows]
        columns.embedded[first:size] = [row.vector is not None for row in rows]
        coded = vectors.encode(_stack_vectors(rows, self._dimension))
        columns.encoded.bits[:, first:size] = coded.bits
        columns.encoded.signs[first:size] = coded.signs
        columns.encoded.small[first:size] = coded.small
        columns.encoded.rest[first:size] = coded.rest
        columns.encoded.scale[first:size] = coded.scale
        self._segments = words.add_segment(self._segments, self._build_segment(rows, first))
        return size

    def _build_segment(self, rows: Sequence[Row], first: int) -> words.Segment:
        known = self._terms
        numbers = [known.setdefault(term, len(known)) for row in rows for term in row.terms]
        places = np.repeat(np.arange(first, first + len(rows), dtype=np.int32), [len(row.terms) for row in rows])
        return words.build_segment(np.array(numbers, dtype=np.int32), places)

    def _publish(self, size: int, cursor: int) -> None:
        if (places := self._classes.compact()) is not None:
            self._columns = replace(self._columns, classes=places[self._columns.classes])
        columns = self._columns.head(size)
        classes, masks, documents = self._classes.snapshot(), MaskCache(columns.classes), self._documents.snapshot()
        self.view = View(
            columns, self._segments, self._terms, classes, self._row_ranges, documents, masks, cursor, size
        )

    def _compact(self) -> None:
        """Drop the rows of deleted chunks. Readers keep the view they have."""
        view = self.view
        kept = np.flatnonzero(view.columns.classes != GONE)
        places = np.full(view.size, -1, dtype=np.int32)
        places[kept] = np.arange(len(kept), dtype=np.int32)
        self._columns = take_rows(view.columns, kept)
        self._columns.documents[:] = places[self._columns.documents]
        documents = self._row_ranges.current.items()
        self._row_ranges = RowRanges({one: (int(places[first]), count) for one, (first, count) in documents})
        self._documents.compact(places)
        moved = (words.renumber_rows(part, places) for part in view.segments)
        self._terms, self._segments = words.compact_terms(self._terms, [part for part in moved if part is not None])
        gone = view.classes
        self._classes.add_rows(GONE, -int(gone.counts[GONE]), -int(gone.tokens[GONE]))
        self._publish(len(kept), view.cursor)

    # --- saved on disk by `projection_file`

    def snapshot(self) -> dict[str, Any]:
        """The state to save: edition, view and the row ranges of documents."""
        with self._lock:
            return {
                "edition": self.edition,
                "view": self.view,
                "documents": dict(self._row_ranges.current),
            }

    def advance_cursor(self, cursor: int) -> None:
        """Note that all changes of this edition with a number up to `cursor` are applied."""
        with self._lock:
            if cursor > self.view.cursor:
                self.view = replace(self.view, cursor=cursor)

    def restore(
        self,
        columns: Columns,
        segments: tuple[words.Segment, ...],
        names: list[ClassKey],
        cursor: int,
        terms: Sequence[str],
        documents: dict[bytes, tuple[int, int]],
        described: DocumentRegistry,
    ) -> None:
        """Restore a saved state; `columns` must be writable, `names` are the keys of their access classes."""
        with self._lock:
            self._dimension = columns.encoded.small.shape[1]
            self._terms = {term: number for number, term in enumerate(terms)}
            self._row_ranges, self._documents = RowRanges(documents), described
            self._classes.restore(names, columns.classes, columns.lengths)
            self.forgotten_count = int(np.count_nonzero(columns.classes == GONE)) + described.outdated
            self._columns, self._segments = columns, words.merge_small_segments(segments)
            self._publish(len(columns.classes), cursor)


def _stack_vectors(rows: Sequence[Row], dimension: int) -> Vectors:
    blank = np.zeros(dimension, dtype=np.float32)
    return np.stack([blank if row.vector is None else row.vector for row in rows])
