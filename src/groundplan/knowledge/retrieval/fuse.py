"""Combine the rankings by words and by vectors, and choose the passages to return. Pure: no database, no permissions.

The word score, as a share of the highest score that the question could reach, is added to the similarity.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Final
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from groundplan.knowledge import writing_systems
from groundplan.knowledge.retrieval.search_store import ChunkSpan, ReadableChunk
from groundplan.knowledge.retrieval.wire import Passage, Place, SearchRequest

MIN_SIMILARITY: Final = 0.25
"""Cosine below which a chunk that shares no word with the question is about something else."""
MIN_WORD_SHARE: Final = 0.25
"""Share of the best BM25 score below which a chunk shares only common words with the question."""
VERBATIM: Final = 0.6
"""How much the score of a passage rises that quotes all of the question word for word; for a part, that part."""
MIN_RUN: Final = 6
"""How many words of the question must follow each other in a passage to be no coincidence."""
MIN_QUESTION_WORDS: Final = 3
"""How many words a question must have to count as quoted where all of it stands in a passage."""
MAX_QUOTED_WORDS: Final = 600
"""How many words of a question are looked for in order: where each character is one, there may be thousands."""
NEAR_BEST: Final = 0.6
"""Share of the best BM25 score that a passage must have to be checked for quoting the question."""
OVERDUE_WEIGHT: Final = 0.5
MAX_DUPLICATES: Final = 5
"""Most duplicates that are listed with a passage."""
OVERHEAD_BYTES: Final = 64
"""Bytes allowed for the heading of each passage in a prompt, besides its title and path."""

RankedChunks = list[tuple[ReadableChunk, float]]
Scores = NDArray[np.float64]
_WORD: Final = re.compile(r"[^\W_]+")
_SPACED: Final = "".join(chr(code).lower() if chr(code).isalnum() else " " for code in range(128)).encode().ljust(256)
"""Translation table for ASCII: letters to lower case, digits unchanged, everything else to a blank."""


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights of the word share relative to the similarity, and of the best neighbour relative to the passage."""

    words: float = 1.5
    neighbour: float = 0.35


WEIGHTS: Final = Weights()


def fuse_scores(share: Scores, near: Scores, weights: Weights = WEIGHTS) -> Scores:
    """The combined score of each row by itself.

    `share`: BM25 as a share of the score possible for the question; `near`: cosine; 0 where a ranking lacks the row.
    Both scales mean the same for every question, so a ranking that is sure counts, and one that is not does not.
    """
    return weights.words * share + np.maximum(near, 0.0)


def smooth_scores(scores: Scores, before: Scores, after: Scores, weights: Weights = WEIGHTS) -> Scores:
    """The scores, each raised by a part of the better neighbour's score (0: no neighbour): the text around an answer is
    usually about the same subject."""
    return scores + weights.neighbour * np.maximum(before, after)


def relevance_mask(words: Scores, near: Scores, best_word_score: float) -> NDArray[np.bool_]:
    """Mask of the rows that share more than common words with the question, or its subject.

    `words`: BM25, 0 where no word matches; `best_word_score`: the best BM25 of all visible rows."""
    least = MIN_WORD_SHARE * best_word_score
    return ((words > 0) & (words >= least)) | (near >= MIN_SIMILARITY)


def normalise_text(text: str) -> str:
    """The words of a text in lower case, with one space between and at both ends; in scripts without spaces, each
    character is a word."""
    if text.isascii():  # the same in a fifth of the time
        return f" {b' '.join(text.encode().translate(_SPACED).split()).decode()} "
    return f" {' '.join(_WORD.findall(writing_systems.space_out(text).lower()))} "


def verbatim_share(question: Sequence[str], text: str, min_run: int = MIN_RUN) -> float:
    """The share of a question that stands word for word in a normalised text: its longest run of at least `min_run`
    words, or all of it. Neither ranking knows the order of words, but somebody who quotes means that passage."""
    words, unit = len(question), _word_unit(question)
    if words < MIN_QUESTION_WORDS * unit:
        return 0.0
    best, min_run = 0, min(words, min_run * unit)
    for start in range(words - min_run + 1):
        end = start + max(best + 1, min_run)
        while end <= words and f" {' '.join(question[start:end])} " in text:
            best, end = end - start, end + 1
    return best / words


def may_contain_quote(question: Sequence[str], text: str, min_run: int = MIN_RUN) -> bool:
    """Whether `verbatim_share` of the text can be more than 0. It rarely is, and this takes a tenth of the time."""
    unit = _word_unit(question)
    min_run = min(len(question), min_run * unit)
    if len(question) < MIN_QUESTION_WORDS * unit:
        return False
    run, text = 0, (text if text.isascii() else writing_systems.normalise(text)).lower()
    # any run of that length contains one of these words
    if not any(word in text for word in question[min_run - 1 :: min_run]):
        return False
    for word in question:
        run = run + 1 if word in text else 0
        if run >= min_run:
            return True
    return False


def longest_runs(
    has_word: Sequence[NDArray[np.bool_] | None], count: int, min_run: int, min_known: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each of `count` texts, the longest run of a question's words that it may contain, 0 if shorter than
    `min_run`; then the same for runs with at least `min_known` words that the text is known to have.

    `has_word`: for each word, the mask of the texts that have it; None: unknown."""
    may_have = np.ones((len(has_word) + 1, count), np.bool_)
    may_have[0] = False
    for place, one in enumerate(has_word, 1):
        if one is not None:
            may_have[place] = one
    places = np.arange(len(may_have))[:, None]
    missing = np.maximum.accumulate(np.where(may_have, 0, places), axis=0)
    known_count = np.cumsum([False, *(one is not None for one in has_word)])
    run = places - missing
    run *= run >= min_run
    return run.max(axis=0), (run * (known_count[:, None] - known_count[missing] >= min_known)).max(axis=0)


def min_quote_length(question: Sequence[str]) -> int:
    """How many consecutive words of a question count as a quotation; more than it has if it is too short."""
    unit = _word_unit(question)
    return min(len(question), MIN_RUN * unit) if len(question) >= MIN_QUESTION_WORDS * unit else len(question) + 1


def _word_unit(question: Sequence[str]) -> int:
    """How many items of the question make one word: 2 where they are characters of scripts without spaces."""
    return 2 if writing_systems.is_unspaced(question) else 1


def demote_overdue(ranked: Iterable[tuple[ReadableChunk, float]], today: date) -> RankedChunks:
    """The ranking with the scores of documents whose review is overdue halved: current documents come first."""
    return sort_ranked((chunk, score * review_weight(chunk, today)) for chunk, score in ranked)


def review_weight(chunk: ReadableChunk, today: date) -> float:
    """The factor for the score of a chunk: less than 1 if the review of its document is overdue."""
    return OVERDUE_WEIGHT if chunk.review_by is not None and chunk.review_by < today else 1.0


def merge_duplicates(ranked: Iterable[tuple[ReadableChunk, float]]) -> RankedChunks:
    """Each text once with its best score, from the document with the shortest path, since copies have longer ones (if
    it occurs there more than once, the best scored); the others become its `duplicates`."""
    copies: dict[str, RankedChunks] = {}
    for chunk, score in ranked:
        copies.setdefault(chunk.head + chunk.text, []).append((chunk, score))
    return sort_ranked(group[0] if len(group) == 1 else _merge_copies(group) for group in copies.values())


def _merge_copies(copies: RankedChunks) -> tuple[ReadableChunk, float]:
    first, *others = sorted(copies, key=lambda one: (len(one[0].path), one[0].path, -one[1]))
    duplicates = tuple(one for one, _ in sort_ranked(others)[:MAX_DUPLICATES])
    return replace(first[0], duplicates=duplicates), max(score for _, score in copies)


def sort_ranked(scored: Iterable[tuple[ReadableChunk, float]]) -> RankedChunks:
    """Chunks by descending score; of equal ones the shorter path first, so that the original comes before its copy."""
    return sorted(scored, key=lambda one: (-one[1], len(one[0].path), one[0].path, one[0].start_line, str(one[0].id)))


def add_neighbours(
    ranked: RankedChunks, neighbours: Mapping[tuple[UUID, int], ChunkSpan], request: SearchRequest
) -> RankedChunks:
    """The best `k` chunks extended by their neighbours as far as all fit into `max_bytes`; no text is included twice.

    A chunk that is already part of a better one is left out, and the next best moves up.
    """
    used: set[tuple[UUID, int]] = set()
    remaining = request.max_bytes - sum(_prompt_bytes(one) for one, _ in ranked[: request.k])
    found: RankedChunks = []
    for chunk, score in ranked:
        if (chunk.document, chunk.number) in used:
            continue
        used.add((chunk.document, chunk.number))
        wide = chunk
        for step in (1, -1):
            part = neighbours.get((chunk.document, chunk.number + step))
            if part is None or (part.document, part.number) in used or len(found) >= request.k:
                continue
            joined = _join_neighbour(wide, part)
            more = _prompt_bytes(joined) - _prompt_bytes(wide)
            if more <= remaining:
                remaining -= more
                used.add((part.document, part.number))
                wide = joined
        found.append((wide, score))
    return found


def _join_neighbour(chunk: ReadableChunk, part: ChunkSpan) -> ReadableChunk:
    """A chunk joined with the one before or after it. Only white space is between the two, as much as in the document,
    since citations count characters."""
    if part.start_char >= chunk.end_char:
        gap = _white_space(part.start_line - chunk.end_line, part.start_char - chunk.end_char)
        return replace(chunk, text=f"{chunk.text}{gap}{part.text}", end_char=part.end_char, end_line=part.end_line)
    gap = _white_space(chunk.start_line - part.end_line, chunk.start_char - part.end_char)
    return replace(
        chunk, text=f"{part.text}{gap}{chunk.text}", start_char=part.start_char, start_line=part.start_line,
        head=part.head,
    )  # fmt: skip


def _white_space(lines: int, characters: int) -> str:
    return "\n" * lines + " " * (characters - lines)


def _prompt_bytes(chunk: ReadableChunk) -> int:
    """The bytes that a passage takes in a prompt."""
    return len((chunk.head + chunk.text + chunk.title + chunk.path).encode()) + OVERHEAD_BYTES


def fit_passages(
    ranked: Sequence[tuple[ReadableChunk, float]], k: int, max_bytes: int, *, explain: bool = False
) -> list[Passage]:
    """The first `k` passages that fit into `max_bytes` together (text, title, path and a heading)."""
    chosen: list[Passage] = []
    remaining = max_bytes
    for chunk, score in ranked:
        size = _prompt_bytes(chunk)
        if len(chosen) == k:
            break
        if size > remaining:
            continue
        remaining -= size
        chosen.append(to_passage(chunk, score, explain=explain))
    return chosen


def to_passage(chunk: ReadableChunk, score: float, *, explain: bool = False) -> Passage:
    """The chunk as returned to callers."""
    return Passage(
        document=str(chunk.document),
        path=chunk.path,
        title=chunk.title,
        source=chunk.source,
        start_line=chunk.start_line,
        end_line=chunk.end_line,
        text=chunk.text,
        head=chunk.head,
        score=round(score, 6),
        chunk=str(chunk.id),
        version=chunk.version,
        start_char=chunk.start_char,
        end_char=chunk.end_char,
        also=[_to_place(one) for one in chunk.duplicates],
        similarity=round(chunk.similarity, 6) if explain and chunk.similarity is not None else None,
    )


def _to_place(chunk: ReadableChunk) -> Place:
    return Place(
        document=str(chunk.document),
        path=chunk.path,
        title=chunk.title,
        source=chunk.source,
        start_line=chunk.start_line,
        end_line=chunk.end_line,
        start_char=chunk.start_char,
        end_char=chunk.end_char,
        version=chunk.version,
    )
