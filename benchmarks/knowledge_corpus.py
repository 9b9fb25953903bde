"""A company of any size for the benchmarks of search: topics, groups that follow them, documents, and their readers.

Vectors are real embeddings with noise, texts are real paragraphs of the same topic. A document is readable by one group
of its topic, so the documents that a person may see are similar in meaning: the hard case for an index.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from uuid import UUID

import numpy as np
import psycopg
from benchmarks.knowledge_texts import embed_texts, passages
from numpy.typing import NDArray

from groundplan.core.ids import new_id
from groundplan.knowledge.model import DIMENSION, Vectors

TOPICS = 200
GROUPS = 10
"""Groups of each topic."""
SOURCES = ("handbook", "wiki", "contracts", "tickets", "archive")
CHUNKS_A_DOCUMENT = 5
BANDS = (0.0001, 0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_NOISE = 0.5
"""Length of the random vector added to a real embedding; the result has a cosine of about .89 with the embedding."""
_QUESTIONS = 300
MIN_REAL_EMBEDDINGS = 5000
"""Fewest real embeddings for a corpus that resembles a company's."""
_BLOCK = 20_000


@dataclass(frozen=True, slots=True)
class Corpus:
    """The generated corpus. `vectors` (chunks, 384) as stored; `acl` and `source` by document; `people` by visible
    share."""

    ids: list[UUID]
    vectors: NDArray[np.float16]
    acl: NDArray[np.int32]
    source: NDArray[np.int8]
    people: dict[float, UUID]
    seen: dict[float, set[int]]
    """Numbers of the reader sets that the person of a band belongs to."""
    questions: list[str]
    base: list[str]
    parts: NDArray[np.int32]
    """(chunks, 3): the paragraphs of `base` that a text consists of."""

    @property
    def real_count(self) -> int:
        """Number of real embeddings that the vectors are derived from."""
        return len(self.base)

    def text(self, row: int) -> str:
        """The text of a chunk."""
        return " ".join(self.base[part] for part in self.parts[row].tolist())

    def sort_key(self, row: int) -> tuple[object, ...]:
        """The key by which chunks with equal scores are ordered."""
        path = path_of(row // CHUNKS_A_DOCUMENT)
        return len(path), path, str(self.ids[row])

    def with_path_prefix(self, path: str) -> NDArray[np.bool_]:
        """Mask of the chunks of documents whose path has this prefix."""
        matches = np.array([path_of(number).startswith(path) for number in range(len(self.acl))])
        return np.repeat(matches, CHUNKS_A_DOCUMENT)

    def visible(self, band: float, source: int | None = None) -> NDArray[np.int64]:
        """The chunks that the person of this band may see, of one source or all."""
        documents = np.isin(self.acl, list(self.seen[band]))
        if source is not None:
            documents &= self.source == source
        return np.flatnonzero(np.repeat(documents, CHUNKS_A_DOCUMENT))


def path_of(document: int) -> str:
    """The path of a document by its number."""
    return f"d{document}.md"


def build_corpus(superuser: str, chunks: int, seed: int = 11) -> Corpus:
    """Fill the database; `superuser` may copy past row-level security."""
    random = np.random.default_rng(seed)
    texts = passages()
    order = random.permutation(len(texts))
    question_texts, base = [texts[row] for row in order[:_QUESTIONS]], [texts[row] for row in order[_QUESTIONS:]]
    if len(base) < MIN_REAL_EMBEDDINGS:
        raise SystemExit(f"this Python has {len(base)} paragraphs of documentation, {MIN_REAL_EMBEDDINGS} are needed")
    real = embed_texts(base)
    anchors = real[random.choice(len(real), TOPICS, replace=False)]
    topic_of = (real @ anchors.T).argmax(axis=1)
    documents = chunks // CHUNKS_A_DOCUMENT
    paragraph_of = random.integers(0, len(real), documents)
    # group sizes differ: the first of a topic has most of its documents
    group = np.minimum(random.geometric(0.35, documents) - 1, GROUPS - 1)
    classes = (topic_of[paragraph_of] * GROUPS + group).astype(np.int32)
    with psycopg.connect(superuser, autocommit=True) as conn:
        people, seen, acl = _create_people(conn, random, classes, documents)
        source = random.integers(0, len(SOURCES), documents).astype(np.int8)
        ids, vectors, parts = _fill_database(conn, random, base, real, topic_of, paragraph_of, acl, source)
    questions = [" ".join(text.split()[:12]) for text in question_texts]
    return Corpus(ids, vectors, acl, source, people, seen, questions, base, parts)


def _create_people(
    conn: psycopg.Connection[tuple[object, ...]],
    random: np.random.Generator,
    classes: NDArray[np.int32],
    documents: int,
) -> tuple[dict[float, UUID], dict[float, set[int]], NDArray[np.int32]]:
    """A person for each band, in groups whose documents together are that share of all."""
    small = [band for band in BANDS if band * documents < 200]
    acl = classes.copy()
    for number, band in enumerate(small):
        # a few documents of one topic with readers of their own
        topic = np.flatnonzero(classes // GROUPS == number)
        acl[topic[: max(1, round(band * documents))]] = TOPICS * GROUPS + number
    names = [f"group-{number}" for number in range(TOPICS * GROUPS + len(small))]
    groups = {name: new_id() for name in names}
    with conn.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO people_group (id, name, type) VALUES (%s, %s, 'group')", [(id, n) for n, id in groups.items()]
        )
    stored = [conn.execute("SELECT acl_of(ARRAY[%s], '{}')", (name,)).fetchone() for name in names]
    numbers = np.array([int(str(row[0])) for row in stored if row], dtype=np.int32)
    sizes = np.bincount(acl, minlength=len(names))
    people, seen = {}, {}
    for band in BANDS:
        groups_of_person = _choose_groups(random, sizes, band, documents, small)
        people[band] = new_id()
        conn.execute(
            "INSERT INTO person (id, email, name) VALUES (%s, %s, 'p')", (people[band], f"p{band}@acme.example")
        )
        with conn.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO membership (id, group_id, person_id) VALUES (%s, %s, %s)",
                [(new_id(), groups[names[number]], people[band]) for number in groups_of_person],
            )
        seen[band] = {int(numbers[number]) for number in groups_of_person}
    return people, seen, numbers[acl]


def _choose_groups(
    random: np.random.Generator, sizes: NDArray[np.int64], band: float, documents: int, small: Sequence[float]
) -> list[int]:
    if band in small:
        return [TOPICS * GROUPS + small.index(band)]
    if band == 1:
        return list(range(len(sizes)))
    chosen, total = [], 0
    for topic in random.permutation(TOPICS):
        for number in range(topic * GROUPS, (topic + 1) * GROUPS):
            if total + sizes[number] <= band * documents * 1.02:
                chosen.append(number)
                total += int(sizes[number])
    return chosen


def _fill_database(
    conn: psycopg.Connection[tuple[object, ...]],
    random: np.random.Generator,
    base: list[str],
    real: Vectors,
    topic_of: NDArray[np.int64],
    paragraph_of: NDArray[np.int64],
    acl: NDArray[np.int32],
    source: NDArray[np.int8],
) -> tuple[list[UUID], NDArray[np.float16], NDArray[np.int32]]:
    by_topic = [np.flatnonzero(topic_of == topic) for topic in range(TOPICS)]
    for name in SOURCES:
        conn.execute(
            "INSERT INTO source (name, sensitivity, owner, path) VALUES (%s, 'internal', 'd@acme.example', '.')",
            (name,),
        )
    documents = [new_id() for _ in paragraph_of]
    with conn.cursor().copy("COPY document (id, source, path, title, digest, sensitivity, acl) FROM STDIN") as copy:
        for number, id in enumerate(documents):
            row = (
                id,
                SOURCES[source[number]],
                path_of(number),
                f"Document {number}",
                "x",
                "internal",
                int(acl[number]),
            )
            copy.write_row(row)
    ids = [new_id() for _ in range(len(documents) * CHUNKS_A_DOCUMENT)]
    vectors = np.empty((len(ids), DIMENSION), np.float16)
    parts = np.empty((len(ids), 3), np.int32)
    for start in range(0, len(ids), _BLOCK):
        block = slice(start, min(len(ids), start + _BLOCK))
        rows = np.arange(block.start, block.stop) // CHUNKS_A_DOCUMENT
        vectors[block] = _perturb(random, real[paragraph_of[rows]])
        parts[block] = [[paragraph_of[row], *random.choice(by_topic[topic_of[paragraph_of[row]]], 2)] for row in rows]
        texts = (" ".join(base[part] for part in paragraphs) for paragraphs in parts[block].tolist())
        _copy_chunks(conn, ids[block], [documents[row] for row in rows], texts, vectors[block], start)
    conn.execute("SELECT setval('chunk_change', %s)", (len(ids),))
    # else PostgreSQL does this by itself minutes later, while searches are measured
    conn.execute("VACUUM (ANALYZE)")
    return ids, vectors, parts


def _perturb(random: np.random.Generator, rows: Vectors) -> Vectors:
    noisy = rows + random.normal(size=rows.shape).astype(np.float32) * np.float32(_NOISE / DIMENSION**0.5)
    return np.asarray(noisy / np.linalg.norm(noisy, axis=1, keepdims=True), dtype=np.float32)


def _copy_chunks(
    conn: psycopg.Connection[tuple[object, ...]],
    ids: Sequence[UUID],
    documents: Sequence[UUID],
    texts: Iterator[str],
    vectors: NDArray[np.float16],
    first: int,
) -> None:
    """Copy chunks in PostgreSQL's binary format: a vector as text would be four times as long."""
    head = struct.pack(">hh", DIMENSION, 0)
    integer_field, bigint_field, length_field = struct.Struct(">ii"), struct.Struct(">iq"), struct.Struct(">i")
    columns = "id, document_id, number, text, start_char, end_char, start_line, end_line, embedding, changed"
    with conn.cursor().copy(f"COPY chunk ({columns}) FROM STDIN (FORMAT binary)") as copy:
        copy.write(b"PGCOPY\n\xff\r\n\x00" + struct.pack(">ii", 0, 0))
        for position, text in enumerate(texts):
            encoded = text.encode()
            vector = head + vectors[position].astype(">f2").tobytes()
            copy.write(
                b"".join(
                    (
                        struct.pack(">h", 10),
                        length_field.pack(16) + ids[position].bytes,
                        length_field.pack(16) + documents[position].bytes,
                        integer_field.pack(4, (first + position) % CHUNKS_A_DOCUMENT),
                        length_field.pack(len(encoded)) + encoded,
                        integer_field.pack(4, 0)
                        + integer_field.pack(4, len(text))
                        + integer_field.pack(4, 1)
                        + integer_field.pack(4, 2),
                        length_field.pack(len(vector)) + vector,
                        bigint_field.pack(8, first + position + 1),
                    )
                )
            )
        copy.write(struct.pack(">h", -1))
