"""The SQL of search, as role `search`: a person's access at this moment, and the chunks that they may read.

Every function runs in the caller's transaction. What the role sees is decided by row-level security alone, from the
person and workload set by `assume_reader`; no statement here repeats or relaxes that rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from psycopg import ClientCursor, Connection
from psycopg.rows import args_row

from groundplan.knowledge.halfvec import Halfvec, from_binary
from groundplan.knowledge.model import Vectors
from groundplan.knowledge.retrieval.documents import Metadata
from groundplan.knowledge.retrieval.wire import Where
from groundplan.knowledge.store import CHANGE_LOCK

Conn = Connection[Any]

_COLUMNS = """c.id, c.document_id AS document, d.source, d.path, d.title, c.text, c.start_line, c.end_line, d.review_by,
  c.number, c.start_char, c.end_char, d.version, d.modified_at, d.sensitivity, d.owner,
  d.media, c.head"""


@dataclass(frozen=True, slots=True)
class AccessSnapshot:
    """A person's access at this moment: the ids of their readers' sets (`acls`), and the edition that is searched."""

    acls: tuple[int, ...]
    edition: int
    newest_change: int = 0
    """The largest change number given out; some changes up to it may not be committed yet."""
    changed: tuple[tuple[UUID, int], ...] | None = ()
    """(document, its readers' set now) of documents that changed after the requested number; -1 instead of the set
    where their passages changed, too. None: more than `MAX_CHANGED`."""
    today: date = date.min
    """PostgreSQL's date, which decides what is valid."""


@dataclass(frozen=True, slots=True)
class ChunkSpan:
    """The text of a chunk and its place in its document."""

    document: UUID
    number: int
    text: str
    start_char: int
    end_char: int
    start_line: int
    end_line: int
    head: str = ""


@dataclass(frozen=True, slots=True)
class ReadableChunk:
    """A chunk that the person may read; `similarity` is the exact cosine, None where the chunk has no vector yet."""

    id: UUID
    document: UUID
    source: str
    path: str
    title: str
    text: str
    start_line: int
    end_line: int
    review_by: date | None = None
    number: int = 0
    start_char: int = 0
    end_char: int = 0
    version: int = 1
    modified_at: datetime | None = None
    sensitivity: str | None = None
    owner: str | None = None
    media: str | None = None
    head: str = ""
    similarity: float | None = None
    duplicates: tuple[ReadableChunk, ...] = ()
    """Other chunks with the same text, which are not returned by themselves."""

    @property
    def span(self) -> ChunkSpan:
        """Its text and place."""
        return ChunkSpan(
            self.document, self.number, self.text, self.start_char, self.end_char, self.start_line, self.end_line,
            self.head,
        )  # fmt: skip


MAX_CHANGED: Final = 2000
"""Most changed documents that a search corrects in its view; if there are more, it waits for the index."""


def assume_reader(
    conn: Conn, person: UUID | None, workload: str, edition: int | None = None, after: int | None = None
) -> AccessSnapshot:
    """Until the end of the transaction, see what this person may read for this workload; None sees only what is public.

    The edition (None: the serving one) stays the same for the whole transaction, even if the index is switched to
    another meanwhile. `after`: read the documents changed after this number; None: none.
    """
    row = conn.execute(
        """SELECT set_config('groundplan.person', %(person)s, true),
             set_config('groundplan.workload', %(workload)s, true),
             set_config('groundplan.acls', %(person)s || ':' || acls::text, true), acls,
             set_config('groundplan.edition', edition::text, true), last_value,
             CASE WHEN last_value > %(after)s::bigint THEN changed_after(%(after)s, edition, %(most)s) END,
             (now() AT TIME ZONE 'UTC')::date
           FROM (SELECT acls_of(nullif(%(person)s, '')::uuid) AS acls,
             coalesce(%(edition)s, serving_edition()) AS edition OFFSET 0) AS mine, chunk_change""",
        {
            "person": "" if person is None else str(person),
            "workload": workload,
            "edition": edition,
            "after": after,
            "most": MAX_CHANGED + 1,
        },
        prepare=True,
    ).fetchone()
    if row is None:
        raise AssertionError("an array and a sequence always give a row")
    changed = row[6] or {}
    return AccessSnapshot(
        tuple(row[3]), int(row[4]), int(row[5]),
        None if len(changed) > MAX_CHANGED else tuple((UUID(id), acl) for id, acl in changed.items()), row[7],
    )  # fmt: skip


def readable_documents(conn: Conn, ids: Sequence[UUID], sources: Sequence[str]) -> list[UUID]:
    """Which of the documents the person may read now."""
    rows = conn.execute(
        "SELECT id FROM document WHERE id = ANY(%s) AND source = ANY(%s)", (list(ids), list(sources)), prepare=True
    ).fetchall()
    return [id for (id,) in rows]


# each row is looked up by itself: a generic plan of a join would read nearly everything
_CHANGED_CHUNKS: Final = """(SELECT document_id AS id FROM chunk WHERE changed > %(after)s
    UNION SELECT id FROM document WHERE noted > %(after)s) AS new,
  LATERAL (SELECT * FROM document WHERE id = new.id AND source = ANY(%(sources)s) OFFSET 0) d,
  LATERAL (SELECT * FROM chunk WHERE document_id = d.id AND text <> '' OFFSET 0) c"""
"""Readable chunks `c` of documents `d` that changed, or one of whose chunks changed, after a number."""


def changed_chunks(
    conn: Conn, after: int, sources: Sequence[str], question: Vectors, limit: int
) -> list[ReadableChunk]:
    """Readable chunks of documents that changed after this number, which the projection may not know yet; nearest
    first."""
    with conn.cursor(binary=True, row_factory=args_row(ReadableChunk)) as cursor:
        return cursor.execute(
            f"""SELECT {_COLUMNS}, 1 - (c.embedding <=> %(question)s::halfvec) AS similarity
                FROM {_CHANGED_CHUNKS} WHERE c.embedding IS NOT NULL
                ORDER BY c.embedding <=> %(question)s::halfvec LIMIT %(limit)s""",
            {"question": Halfvec(question), "after": after, "sources": list(sources), "limit": limit},
            prepare=True,
        ).fetchall()


@dataclass(frozen=True, slots=True)
class ChangedPassage:
    """A chunk of a changed document, with what words and vectors find it by."""

    title: str
    headings: tuple[str, ...]
    text: str
    vector: NDArray[np.float32] | None

    @property
    def search_text(self) -> str:
        return "\n".join((self.title, *self.headings, self.text))


def changed_passages(conn: Conn, after: int, sources: Sequence[str], limit: int) -> list[ChangedPassage]:
    """At most `limit` readable chunks of documents that changed, or one of whose chunks changed, after this number."""
    with conn.cursor(binary=True) as cursor:
        rows = cursor.execute(
            f"""SELECT d.title, array_remove(c.headings || c.head, ''), c.text, c.embedding
                FROM {_CHANGED_CHUNKS} LIMIT %(limit)s""",
            {"after": after, "sources": list(sources), "limit": limit},
            prepare=True,
        ).fetchall()
    return [ChangedPassage(title, tuple(headings), text, from_binary(stored)) for title, headings, text, stored in rows]


def newest_acl(conn: Conn) -> int:
    """The largest id of a readers' set."""
    row = conn.execute("SELECT coalesce(max(id), 0) FROM acl", prepare=True).fetchone()
    return int(row[0]) if row else 0


WHERE_SQL: Final = """(%(path)s::text IS NULL OR starts_with(d.path, %(path)s))
  AND (%(owner)s::text IS NULL OR d.owner = %(owner)s)
  AND (%(sensitivity)s::text[] IS NULL OR d.sensitivity = ANY(%(sensitivity)s))
  AND (%(media)s::text IS NULL OR d.media = %(media)s)
  AND (%(after)s::timestamptz IS NULL OR d.modified_at >= %(after)s)
  AND (%(before)s::timestamptz IS NULL OR d.modified_at < %(before)s)"""
"""Whether a document `d` matches a filter, with the parameters of `where_parameters`."""


_NO_FILTER: Final = Where()


def where_parameters(where: Where) -> dict[str, Any]:
    """The parameters of `WHERE_SQL`."""
    return {
        "path": where.path, "owner": where.owner, "sensitivity": where.sensitivity, "media": where.media,
        "after": where.after, "before": where.before,
    }  # fmt: skip


def read_chunks(
    conn: Conn, chunks: Sequence[UUID], sources: Sequence[str], question: Vectors | None, where: Where = _NO_FILTER
) -> dict[UUID, ReadableChunk]:
    """Those of the chunks that the person may read now and that match the filter, by id."""
    filtered = where != _NO_FILTER
    parameters = {"question": None if question is None else Halfvec(question), "chunks": list(chunks)}
    with conn.cursor(binary=True, row_factory=args_row(ReadableChunk)) as cursor:
        rows = cursor.execute(
            # looked up one by one: a join would start from the documents where these are few, including hidden ones
            f"""SELECT {_COLUMNS}, 1 - (c.embedding <=> %(question)s::halfvec) AS similarity
                FROM unnest(%(chunks)s::uuid[]) AS w(id),
                  LATERAL (SELECT * FROM chunk WHERE id = w.id AND text <> '' OFFSET 0) c,
                  LATERAL (SELECT * FROM document d
                    WHERE id = c.document_id AND source = ANY(%(sources)s) AND {WHERE_SQL if filtered else "true"}
                    OFFSET 0) d""",
            {**parameters, "sources": list(sources), **(where_parameters(where) if filtered else {})},
            prepare=True,
        ).fetchall()
    return {chunk.id: chunk for chunk in rows}


def matching_documents(conn: Conn, where: Where, sources: Sequence[str]) -> list[bytes]:
    """The ids of the documents that the person may read and that match the filter."""
    # planned with its values: a generic plan would read all documents of the sources one by one. Returned as one
    # value, since there may be tens of thousands
    cursor = ClientCursor(conn).execute(
        f"SELECT string_agg(uuid_send(d.id), '') FROM document d WHERE d.source = ANY(%(sources)s) AND {WHERE_SQL}",
        {"sources": list(sources), **where_parameters(where)},
    )
    ids = bytes((cursor.fetchone() or (None,))[0] or b"")
    return [ids[start : start + 16] for start in range(0, len(ids), 16)]


def neighbour_chunks(conn: Conn, wanted: Sequence[tuple[UUID, int]]) -> list[ChunkSpan]:
    """The readable ones of these chunks, given by (document, number)."""
    with conn.cursor(binary=True, row_factory=args_row(ChunkSpan)) as cursor:
        return cursor.execute(
            # each is looked up by itself: a join would read all of a small table, including hidden rows
            """SELECT c.* FROM unnest(%s::uuid[], %s::int[]) AS w(document, number), LATERAL (
                 SELECT c.document_id AS document, c.number, c.text, c.start_char, c.end_char, c.start_line, c.end_line,
                   c.head
                 FROM chunk c WHERE c.document_id = w.document AND c.number = w.number AND c.text <> '' OFFSET 0) c""",
            ([document for document, _ in wanted], [number for _, number in wanted]),
            prepare=True,
        ).fetchall()


def withheld_chunks(
    conn: Conn, chunks: Sequence[UUID], workload: str, where: Where
) -> list[tuple[UUID, UUID, str, str, str]]:
    """(chunk, document, path, title, reason) of the chunks that the person may read and that match the filter, but that
    the workload may not use now."""
    conn.execute("SELECT set_config('groundplan.explain', 'on', true)")
    found = conn.execute(
        f"""SELECT c.id, d.id, d.path, d.title, kept_back(d, %(workload)s)
            FROM chunk c JOIN document d ON d.id = c.document_id
            WHERE c.id = ANY(%(chunks)s) AND kept_back(d, %(workload)s) IS NOT NULL AND {WHERE_SQL}""",
        {"workload": workload, "chunks": list(chunks), **where_parameters(where)},
    ).fetchall()
    conn.execute("SELECT set_config('groundplan.explain', 'off', true)")
    return found


# --- followed by the projection, as control

_METADATA: Final = "d.path, d.owner, d.sensitivity, d.media, d.modified_at"


@dataclass(frozen=True, slots=True)
class DocumentChange:
    """A changed document; `has_new_chunks`: its chunks changed, not only its readers or attributes."""

    document: UUID
    number: int
    has_new_chunks: bool
    change_count: int = 1
    """How many changes it stands for."""


@dataclass(frozen=True, slots=True)
class FeedChunk:
    """A chunk for the projection, whoever may read it; `headings` includes the head of its table, if it has one."""

    id: UUID
    document: UUID
    source: str
    acl: int
    title: str
    headings: tuple[str, ...]
    text: str
    vector: NDArray[np.float32] | None
    metadata: Metadata


@dataclass(frozen=True, slots=True)
class DocumentAttributes:
    """What the projection keeps of a document besides its chunks."""

    document: UUID
    source: str
    acl: int
    """Id of its readers' set."""
    metadata: Metadata


def next_changes(conn: Conn, after: int, limit: int, edition: int) -> list[DocumentChange]:
    """The documents of the next `limit` changes after a number, in the order of their last change; the rest comes with
    the next call. Each part of the UNION is limited too, so that an index returns it in order: otherwise every batch
    would read and sort all changes."""
    rows = conn.execute(
        """SELECT id, max(number), bool_or(chunks), count(*) FROM (
             SELECT * FROM (
               (SELECT document_id AS id, changed AS number, true AS chunks FROM chunk
                 WHERE edition = %(edition)s AND changed > %(after)s ORDER BY changed LIMIT %(most)s)
               UNION ALL
               (SELECT id, noted, false FROM document WHERE noted > %(after)s ORDER BY noted LIMIT %(most)s)) AS later
             ORDER BY number LIMIT %(most)s) AS next
           GROUP BY id ORDER BY max(number)""",
        {"after": after, "most": limit, "edition": edition},
    ).fetchall()
    return [DocumentChange(*row) for row in rows]


def feed_chunks(conn: Conn, documents: Sequence[UUID], edition: int) -> list[FeedChunk]:
    """The chunks with text of some documents in an edition, grouped by document."""
    with conn.cursor(binary=True) as cursor:
        rows = cursor.execute(
            f"""SELECT c.id, c.document_id, d.source, d.acl, d.title, array_remove(c.headings || c.head, ''), c.text,
                 c.embedding, {_METADATA} FROM chunk c
               JOIN document d ON d.id = c.document_id
               WHERE c.document_id = ANY(%s) AND c.edition = %s AND c.text <> '' ORDER BY c.document_id, c.number""",
            (list(documents), edition),
        ).fetchall()
    return [
        FeedChunk(id, document, source, -1 if acl is None else acl, title, tuple(headings), text, from_binary(stored),
            Metadata(*metadata))
        for id, document, source, acl, title, headings, text, stored, *metadata in rows
    ]  # fmt: skip


def document_attributes(conn: Conn, documents: Sequence[UUID]) -> list[DocumentAttributes]:
    """The attributes of documents whose chunks did not change."""
    rows = conn.execute(
        f"SELECT d.id, d.source, coalesce(d.acl, -1), {_METADATA} FROM document d WHERE d.id = ANY(%s)",
        (list(documents),),
    ).fetchall()
    return [DocumentAttributes(id, source, acl, Metadata(*metadata)) for id, source, acl, *metadata in rows]


def change_counts(conn: Conn, edition: int) -> tuple[int, int, int]:
    """(largest change number stored, largest change number given out, chunks with text in an edition)."""
    row = conn.execute(
        """SELECT greatest((SELECT max(changed) FROM chunk), (SELECT max(noted) FROM document), 0), last_value,
             (SELECT count(*) FROM chunk WHERE text <> '' AND edition = %s) FROM chunk_change""",
        (edition,),
    ).fetchone()
    if row is None:
        raise AssertionError("a SELECT without FROM always gives a row")
    return int(row[0]), int(row[1]), int(row[2])


def count_pending(conn: Conn, after: int, edition: int) -> int:
    """How many documents have a change after this number."""
    row = conn.execute(
        """SELECT count(*) FROM (SELECT document_id FROM chunk WHERE edition = %(edition)s AND changed > %(after)s
             UNION SELECT id FROM document WHERE noted > %(after)s) AS w""",
        {"after": after, "edition": edition},
    ).fetchone()
    return int(row[0]) if row else 0


def newest_visible_change(conn: Conn) -> int:
    """A number up to which every change, in any edition, is visible to the next statement.

    If no change is in progress, the last number given out: some numbers belong to changes that were rolled back, and
    otherwise every search would look for them forever.
    """
    row = conn.execute(
        """SELECT CASE WHEN pg_try_advisory_xact_lock_shared(%s)
             THEN (SELECT last_value FROM chunk_change WHERE is_called)
             ELSE greatest((SELECT max(changed) FROM chunk), (SELECT max(noted) FROM document)) END""",
        (CHANGE_LOCK,),
    ).fetchone()
    return int(row[0]) if row and row[0] is not None else 0
