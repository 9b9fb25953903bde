"""What the search service holds of the chunks in memory: terms and vectors, and of each row whose readers it has.

A projection of PostgreSQL that can be thrown away at any time. It proposes ids and never gives a text: the numbers of
readers' sets that a person has come from PostgreSQL with each question, and what is proposed is read there again. One
thread writes it; any number read the last published `View` meanwhile.

A view stays as it was published. Whoever takes one and then begins to read PostgreSQL is told there which documents
changed after it, and puts these right (`View.visible`): so nothing of a moment that is over counts.
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
from groundplan.knowledge.retrieval.access_classes import GONE, ClassBook, Classes, Name
from groundplan.knowledge.retrieval.columns import Columns, empty, grown, taken
from groundplan.knowledge.retrieval.documents import DocumentBook, Documents, Metadata
from groundplan.knowledge.retrieval.masks import Masks
from groundplan.knowledge.retrieval.wire import Where

_FIRST_CAPACITY: Final = 1024
_LEAST_DEAD: Final = 20_000
_SPREAD: Final = 8
"""Times as many rows as are asked about from which each of them is written by itself."""
NOTHING_SAID: Final = Metadata()


@dataclass(frozen=True, slots=True)
class Row:
    """A chunk to be held: `terms` are what words find it by; `vector` may be missing."""

    chunk: UUID
    terms: Sequence[str]
    vector: NDArray[np.float32] | None


@dataclass(frozen=True, slots=True)
class Entry:
    """A document to be held with all its rows; without rows it is forgotten. `acl`: the number of its readers' set."""

    document: UUID
    source: str
    acl: int
    rows: Sequence[Row]
    metadata: Metadata = NOTHING_SAID


class Places:
    """Where the rows of each document are: its first row, and how many. One thread writes it, others read meanwhile.
    By id, as 16 bytes: thousands of them are looked up for a question about some documents."""

    def __init__(self, now: dict[bytes, tuple[int, int]] | None = None) -> None:
        self.now = now if now is not None else {}
        self._before: dict[bytes, tuple[tuple[int, int], ...]] = {}

    def give_up(self, document: bytes) -> tuple[int, int]:
        """Where its rows were until now."""
        place = self.now.get(document)
        if place is None:
            return 0, 0
        # first there, then gone here: who reads finds it in one or the other
        self._before[document] = (*self._before.get(document, ()), place)
        del self.now[document]
        return place

    def of(self, document: bytes, size: int) -> tuple[int, int]:
        """Where they are in a view with so many rows."""
        place = self.now.get(document)
        if place is not None and place[0] < size:
            return place
        return next((one for one in reversed(self._before.get(document, ())) if one[0] < size), (0, 0))


@dataclass(frozen=True, slots=True)
class View:
    """What a question is answered from. It stays as it is, whatever is taken over later."""

    columns: Columns
    segments: tuple[words.Segment, ...]
    terms: dict[str, int]
    """The number of each term in `segments`, and of later ones; it only grows."""
    classes: Classes
    places: Places
    documents: Documents
    masks: Masks
    cursor: int
    size: int

    def visible(
        self, sources: Collection[str], acls: Collection[int], changed: Iterable[tuple[UUID, int]] = ()
    ) -> words.Visible:
        """The rows of these sources whose readers' set is among `acls`.

        `changed`: documents that changed after this view, with the number of their readers' set now; -1 where they do
        not say what they said: then their rows are seen by nobody.
        """
        seen = self.classes.among(sources, acls)
        count, tokens = int(self.classes.counts[seen].sum()), int(self.classes.tokens[seen].sum())
        moved = self._moved(seen, sources, acls, changed)
        if count == self.size and not moved:
            return words.Visible(None, count, tokens)
        mask = self.masks.of(seen)
        if moved:
            mask = mask.copy()
        for rows, now in moved:
            mask[rows] = now
            count += (rows.stop - rows.start) * (1 if now else -1)
            tokens += int(self.columns.lengths[rows].sum()) * (1 if now else -1)
        return words.Visible(mask, count, tokens)

    def _moved(
        self,
        seen: NDArray[np.bool_],
        sources: Collection[str],
        acls: Collection[int],
        changed: Iterable[tuple[UUID, int]],
    ) -> list[tuple[slice, bool]]:
        """Rows that are seen now and were not, or were and are not."""
        found = []
        for document, acl in changed:
            first, count = self.places.of(document.bytes, self.size)
            if count:
                former = int(self.columns.classes[first])
                now = former != GONE and acl in acls and self.classes.source_of(former) in sources
                if now != bool(seen[former]):
                    found.append((slice(first, first + count), now))
        return found

    def about(self, where: Where, changed: Iterable[tuple[UUID, int]] = ()) -> NDArray[np.bool_]:
        """Which rows are of documents that a question is about, and of whichever are `changed`: this view does not know
        what these are now."""
        mask = self._of(*self.documents.asked(where))
        for one, _ in changed:
            first, count = self.places.of(one.bytes, self.size)
            mask[first : first + count] = True
        return mask

    def mask(self, documents: Iterable[bytes]) -> NDArray[np.bool_]:
        """Which rows are of these documents, given by id."""
        held = [place for one in documents if (place := self.places.of(one, self.size))[1]]
        first, count = np.array(held, np.int32).reshape(-1, 2).T
        return self._of(first, count)

    def _of(self, first: NDArray[np.int32], count: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Which rows are of the documents that have so many rows from these on."""
        mask, many = np.zeros(self.size, np.bool_), int(count.sum())
        if many == int(self.documents.count.sum()):
            return ~mask
        if many * _SPREAD < self.size:
            within = np.arange(many) - np.repeat(np.cumsum(count) - count, count)
            mask[np.repeat(first, count) + within] = True
            return mask
        mask[first] = True
        return mask.take(self.columns.documents, mode="clip")

    def chunk(self, row: int) -> UUID:
        """The id of a row's chunk."""
        return UUID(bytes=self.columns.chunks[row].tobytes())


class Projection:
    """The rows of one edition of the index, empty at first; `dimension` is the length of its vectors."""

    def __init__(self, edition: int = 1, dimension: int = DIMENSION) -> None:
        self.edition = edition
        self._dimension = dimension
        self._lock = threading.Lock()
        self._terms: dict[str, int] = {}
        self._places = Places()
        self._classes = ClassBook()
        self._documents = DocumentBook()
        self._columns = empty(_FIRST_CAPACITY, dimension)
        self._segments: tuple[words.Segment, ...] = ()
        self.forgotten = 0
        """Rows that are gone, and documents that are described otherwise, counted up: whoever kept a copy has too much
        once this has changed."""
        self._publish(0, 0)

    @property
    def cursor(self) -> int:
        """Number of the last change that was taken over."""
        return self.view.cursor

    @property
    def count(self) -> int:
        """Number of chunks that exist."""
        return self.view.size - int(self.view.classes.counts[GONE])

    @property
    def serving(self) -> int:
        """Its edition: alone, it is what is asked."""
        return self.edition

    def of(self, edition: int) -> Projection | None:
        """Itself, where it is of that edition."""
        return self if edition == self.edition else None

    def known(self, edition: int) -> None:
        """Alone, it knows no settings of editions."""

    def reset(self) -> None:
        """Forget everything; the next changes are taken over from the first one on."""
        with self._lock:
            self._terms, self._places = {}, Places()
            self._classes, self._documents = ClassBook(), DocumentBook()
            self._columns, self._segments = empty(_FIRST_CAPACITY, self._dimension), ()
            self._publish(0, 0)

    def take(self, entries: Sequence[Entry], cursor: int) -> None:
        """Hold these documents as they are now, instead of what was held of them; `cursor`: of the last change."""
        with self._lock:
            places = [self._places.give_up(entry.document.bytes) for entry in entries]
            self.forgotten += sum(count for _, count in places)
            self._move([(*place, GONE) for place in places])
            size = self._append(entries) if any(entry.rows for entry in entries) else self.view.size
            self._publish(size, cursor)
            gone = int(self.view.classes.counts[GONE])
            if gone > _LEAST_DEAD and gone * 2 > size:
                self._compact()

    def note(
        self,
        readers: Iterable[tuple[UUID, str, int]],
        cursor: int,
        metadata: Mapping[UUID, Metadata] = MappingProxyType({}),
    ) -> None:
        """Documents that say what they said, but may have other readers: (document, source, acl); what they are is told
        of those in `metadata`."""
        with self._lock:
            held = self._places.now
            self.forgotten += self._documents.change(
                {held[one.bytes]: said for one, said in metadata.items() if one.bytes in held}
            )
            self._move(
                [
                    (*self._places.now.get(one.bytes, (0, 0)), self._classes.number(source, acl))
                    for one, source, acl in readers
                ]
            )
            self._publish(self.view.size, cursor)

    def purge(self) -> None:
        """Leave out rows that are gone, and terms that no row has any more."""
        with self._lock:
            self._compact()

    def _move(self, moves: Iterable[tuple[int, int, int]]) -> None:
        """Rows of documents to other classes: (first row, how many, class). In an array of its own, since whoever has a
        view from before goes on with that."""
        some = [one for one in moves if one[1]]
        if not some:
            return
        classes = np.zeros_like(self._columns.classes)
        classes[: self.view.size] = self.view.columns.classes
        for first, count, to in some:
            tokens = int(self._columns.lengths[first : first + count].sum())
            self._classes.add(int(classes[first]), -count, -tokens)
            self._classes.add(to, count, tokens)
            classes[first : first + count] = to
        self._columns = replace(self._columns, classes=classes)

    def _append(self, entries: Sequence[Entry]) -> int:
        """Write the rows behind the last one; nobody reads there before they are published. Returns the new size."""
        rows = [row for entry in entries for row in entry.rows]
        first, size = self.view.size, self.view.size + len(rows)
        if size > len(self._columns.classes):
            self._columns = grown(self._columns, first, max(size, 2 * len(self._columns.classes)))
        columns, place = self._columns, first
        filled = [entry for entry in entries if entry.rows]
        for entry in filled:
            number = self._classes.number(entry.source, entry.acl)
            self._classes.add(number, len(entry.rows), sum(len(row.terms) for row in entry.rows))
            columns.classes[place : place + len(entry.rows)] = number
            columns.documents[place : place + len(entry.rows)] = place
            self._places.now[entry.document.bytes] = (place, len(entry.rows))
            place += len(entry.rows)
        self._documents.add(
            [self._places.now[entry.document.bytes] for entry in filled], [entry.metadata for entry in filled]
        )
        columns.chunks[first:size] = np.frombuffer(b"".join(row.chunk.bytes for row in rows), np.uint8).reshape(-1, 16)
        columns.lengths[first:size] = [len(row.terms) for row in rows]
        columns.embedded[first:size] = [row.vector is not None for row in rows]
        coded = vectors.code(_stacked(rows, self._dimension))
        columns.coded.bits[:, first:size] = coded.bits
        columns.coded.signs[first:size] = coded.signs
        columns.coded.small[first:size] = coded.small
        columns.coded.rest[first:size] = coded.rest
        columns.coded.scale[first:size] = coded.scale
        self._segments = words.add(self._segments, self._segment(rows, first))
        return size

    def _segment(self, rows: Sequence[Row], first: int) -> words.Segment:
        known = self._terms
        numbers = [known.setdefault(term, len(known)) for row in rows for term in row.terms]
        places = np.repeat(np.arange(first, first + len(rows), dtype=np.int32), [len(row.terms) for row in rows])
        return words.segment(np.array(numbers, dtype=np.int32), places)

    def _publish(self, size: int, cursor: int) -> None:
        if (places := self._classes.give_up()) is not None:
            self._columns = replace(self._columns, classes=places[self._columns.classes])
        columns = self._columns.part(size)
        classes, masks, documents = self._classes.now(), Masks(columns.classes), self._documents.now()
        self.view = View(columns, self._segments, self._terms, classes, self._places, documents, masks, cursor, size)

    def _compact(self) -> None:
        """Leave out rows that are gone. Readers go on with the view they have."""
        view = self.view
        kept = np.flatnonzero(view.columns.classes != GONE)
        places = np.full(view.size, -1, dtype=np.int32)
        places[kept] = np.arange(len(kept), dtype=np.int32)
        self._columns = taken(view.columns, kept)
        self._columns.documents[:] = places[self._columns.documents]
        documents = self._places.now.items()
        self._places = Places({one: (int(places[first]), count) for one, (first, count) in documents})
        self._documents.keep(places)
        moved = (words.renumbered(part, places) for part in view.segments)
        self._terms, self._segments = words.used(self._terms, [part for part in moved if part is not None])
        gone = view.classes
        self._classes.add(GONE, -int(gone.counts[GONE]), -int(gone.tokens[GONE]))
        self._publish(len(kept), view.cursor)

    # --- kept on disk by `projection_file`

    def state(self) -> dict[str, Any]:
        """Everything but the columns and postings, for `restore`."""
        with self._lock:
            return {
                "edition": self.edition,
                "view": self.view,
                "documents": dict(self._places.now),
            }

    def skip(self, cursor: int) -> None:
        """Note that no change of this edition has a number up to `cursor` that is not taken over."""
        with self._lock:
            if cursor > self.view.cursor:
                self.view = replace(self.view, cursor=cursor)

    def restore(
        self,
        columns: Columns,
        segments: tuple[words.Segment, ...],
        names: list[Name],
        cursor: int,
        terms: Sequence[str],
        documents: dict[bytes, tuple[int, int]],
        described: DocumentBook,
    ) -> None:
        """Go on from what was saved; `columns` must be writable, `names` are those of their classes."""
        with self._lock:
            self._dimension = columns.coded.small.shape[1]
            self._terms = {term: number for number, term in enumerate(terms)}
            self._places, self._documents = Places(documents), described
            self._classes.restore(names, columns.classes, columns.lengths)
            self.forgotten = int(np.count_nonzero(columns.classes == GONE)) + described.outdated
            self._columns, self._segments = columns, words.settled(segments)
            self._publish(len(columns.classes), cursor)


def _stacked(rows: Sequence[Row], dimension: int) -> Vectors:
    blank = np.zeros(dimension, dtype=np.float32)
    return np.stack([blank if row.vector is None else row.vector for row in rows])
